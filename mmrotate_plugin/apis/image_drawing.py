"""Draw detections: the pictures, and the names of their files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ..evaluation.functional.box_bands import box_bands
from ..utils.errors import UsageError
from ..visualization import draw_boxes, heat_map
from ..visualization.palette import Colour
from ..visualization.pixels import Image
from .inference import Detections

BANDS_SIZE = 1024  # pixels that smaller pictures are enlarged to: bands are often a pixel of the image wide
WRITES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff')
READS = (*WRITES, '.webp', '.gif')


class Named(Protocol):
    """What has the names of the classes and their colours, such as a `Detector`."""

    @property
    def classes(self) -> Sequence[str]:
        """Names."""

    @property
    def colours(self) -> Sequence[Colour] | None:
        """One per class, or None for the usual ones."""


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


def draw_detections(image: Image, found: Detections, names: Named, target: Path) -> dict[Path, Image]:
    """Draw the picture, and the heat map if there is one.

    Args:
        image: (H, W, 3) to draw on.
        found: Detections in it, with bands if they have standard deviations.
        names: Knows names and colours of the classes.
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
            classes=names.classes,
            colours=names.colours,
            scores_std=found.scores_std,
            bands=bands,
            **({} if bands is None else {'min_size': BANDS_SIZE}),
        )
    }
    if found.score_std_map is not None:
        title = 'standard deviation of the score'
        pictures[heat_map_name(target)] = heat_map(image, found.score_std_map, title=title)
    return pictures
