"""Draw detections: which files to read and write, and the pictures themselves."""

from pathlib import Path

from ..evaluation.functional.box_bands import box_bands
from ..utils.errors import UsageError
from ..visualization import draw_boxes, heat_map
from ..visualization.pixels import Image
from .inference import Detections, Detector
from .runner import writable_folder

BANDS_SIZE = 1024  # pixels that smaller pictures are enlarged to: bands are often a pixel of the image wide
WRITES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff')
READS = (*WRITES, '.webp', '.gif')


def find_jobs(image: Path, out: Path) -> list[tuple[Path, Path]]:
    """Pair each file to read with the picture to write.

    Args:
        image: An image, or a folder of them.
        out: A picture or a folder; for a folder of images, a folder.

    Raises:
        UsageError: If there is nothing to read, or the picture would replace an image.
    """
    if not image.exists():
        raise UsageError(f"image '{image}' does not exist")
    if image.is_file():
        names_file = out.suffix.lower() in WRITES and not out.is_dir()
        if not names_file and out.suffix and not out.is_dir():
            raise UsageError(f"--out '{out}' must end with one of {', '.join(WRITES)}, or be a folder")
        target = out if names_file else out / picture_name(image)
        if target.resolve() == image.resolve():
            raise UsageError(f"--out '{out}' would replace the image itself; give another name")
        writable_folder(target.parent, '--out')
        return [(image, target)]
    files = sorted(file for file in image.iterdir() if file.is_file() and not file.name.startswith('.'))
    if not files:
        raise UsageError(f"the folder '{image}' is empty: no images")
    if out.is_file() or (out.suffix.lower() in WRITES and not out.is_dir()):
        raise UsageError(f"--out '{out}' is the name of one picture, but '{image}' is a folder; give a folder")
    if out.resolve() == image.resolve():
        raise UsageError(f"--out '{out}' is the folder of the images, which would be replaced; give another one")
    writable_folder(out, '--out')
    return [(file, out / picture_name(file)) for file in files]


def picture_name(file: Path) -> str:
    """Name the picture of an image; the name keeps the kind of file, so that a.png and a.webp do not collide."""
    return file.name if file.suffix.lower() in ('.png', '.jpg', '.jpeg') else f'{file.name}.png'


def heat_map_name(picture: Path) -> Path:
    """Name the heat map that goes with a picture."""
    return picture.with_suffix(f'.heatmap{picture.suffix}')


def check_heat_maps(jobs: list[tuple[Path, Path]]) -> None:
    """Check that heat maps replace no image and no picture.

    Raises:
        UsageError: If one would.
    """
    taken = {path.resolve(): path for job in jobs for path in job}
    for _, target in jobs:
        path = heat_map_name(target)
        if path.resolve() in taken:
            raise UsageError(f"the heat map of '{target}' would replace '{path}'; rename it, or give another --out")


def draw_detections(image: Image, found: Detections, detector: Detector, target: Path) -> dict[Path, Image]:
    """Draw the picture, and the heat map if there is one.

    Args:
        image: (H, W, 3) to draw on.
        found: Detections in it, with bands if they have standard deviations.
        detector: Knows names and colours of the classes.
        target: File of the picture.

    Returns:
        Pictures by the files to write them to.
    """
    bands = None if found.boxes_std is None else box_bands(found.boxes, found.boxes_std)
    pictures = {
        target: draw_boxes(
            image,
            found.boxes,
            found.labels,
            found.scores,
            classes=detector.classes,
            colours=detector.colours,
            scores_std=found.scores_std,
            bands=bands,
            **({} if bands is None else {'min_size': BANDS_SIZE}),
        )
    }
    if found.score_std_map is not None:
        title = 'standard deviation of the score'
        pictures[heat_map_name(target)] = heat_map(image, found.score_std_map, title=title)
    return pictures
