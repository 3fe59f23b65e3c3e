"""Write what is found in an image: its picture, lines of text, GeoJSON and crops."""

import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..datasets.formats.detections import dota_line, yolo_line
from ..utils.atomic_files import write_whole
from ..utils.errors import ImageError, UsageError
from ..utils.messages import warn
from ..visualization import encode_image, upright_crop
from ..visualization.pixels import as_image
from .georeference import feature_collection, need_rasterio, read_georeference
from .image_drawing import WRITES, draw_detections, picture_name
from .prediction_result import Prediction
from .prediction_sources import Source
from .runner import writable_folder
from .video_frames import CODECS, Video, VideoFile, writing_video

KINDS = ('pictures', 'dota', 'yolo-obb', 'coco', 'geojson', 'crops')
_CROP = re.compile(r'\d{4,}_.*\.png')
_FRAME = '{:06d}'
_STORED = ((np.uint8, (1, 3, 4)), (np.uint16, (1, 3, 4)))  # what a PNG holds


class Files:
    """The files that are written about the sources.

    Pictures lie in `out` under the names of the images, the rest in a folder of its kind. `out` may be the file of a
    single picture or video.

    Args:
        out: Folder or picture.
        save: What to write, some of `KINDS`.
        sources: What is detected on.
        bands: Channels to draw as red, green and blue.

    Attributes:
        folder: Where all of it lies.
        nowhere: Names of images that are not georeferenced, so that no GeoJSON was written.

    Raises:
        UsageError: If `out` cannot be written, or a file would replace an image or another file.
    """

    def __init__(
        self, out: Path, save: Sequence[str], sources: Sequence[Source], *, bands: Sequence[int] | None = None
    ) -> None:
        self.save, self.bands, self.nowhere = tuple(dict.fromkeys(save)), bands, list[str]()
        if unknown := [kind for kind in self.save if kind not in KINDS]:
            raise UsageError(f'--save {unknown[0]!r} must be some of {", ".join(KINDS)}')
        if not self.save:
            raise UsageError(f'--save must be some of {", ".join(KINDS)}')
        if 'geojson' in self.save:
            need_rasterio()
        self._single = self._names_file(out, sources)
        self.folder = out.parent if self._single else out
        self._video: tuple[str, VideoFile] | None = None
        self._stack = ExitStack()
        self._out = out
        self._check_targets(sources)
        writable_folder(self.folder, '--out')

    def _names_file(self, out: Path, sources: Sequence[Source]) -> bool:
        """Tell whether `out` is the picture of a single image or the video of a single video."""
        video = len(sources) == 1 and sources[0].kind == 'video'
        known = tuple(CODECS) if video else WRITES
        named = out.suffix.lower() in (*WRITES, *CODECS) and not out.is_dir()
        if not named and not (len(sources) == 1 and out.suffix and not out.is_dir()):
            if out.is_file():
                raise UsageError(f"--out '{out}' is a file; give a folder")
            return False
        if len(sources) > 1:
            raise UsageError(
                f"--out '{out}' is the name of one picture, but there are {len(sources)} images or videos; give a "
                'folder'
            )
        if out.suffix.lower() not in known and self.save == ('pictures',):
            raise UsageError(f"--out '{out}' must end with one of {', '.join(known)}, or be a folder")
        if self.save != ('pictures',):
            if named:
                raise UsageError(f"--out '{out}' is the name of one picture, but --save {' '.join(self.save)} writes "
                                 'more: give a folder')  # fmt: skip
            return False
        return True

    def picture(self, source: Source) -> Path:
        """Name the picture or the video of a source."""
        if self._single:
            return self._out
        name = Path(source.name)
        if source.kind == 'video':
            new = name.name if name.suffix.lower() in CODECS else f'{name.name}.mp4'
        else:
            new = picture_name(name)
        return self.folder / name.with_name(new)

    def _check_targets(self, sources: Sequence[Source]) -> None:
        images = {source.path.resolve(): source.path for source in sources if source.pixels is None}
        several = len(sources) > 1 or not sources[0].asked  # a folder's, not one image by its name
        own = 'pictures' in self.save and not self._single and several
        if own and self.folder.resolve() in {path.parent for path in images}:
            raise UsageError(
                f"--out '{self.folder}' is the folder of the images, which would be replaced; give another one"
            )
        taken: dict[Path, str] = {}
        for source in sources if 'pictures' in self.save else ():
            target = self.picture(source)
            place = target.resolve()
            if place in images:
                raise UsageError(f"--out '{self._out}' would replace the image itself; give another name")
            if place in taken:
                raise UsageError(f"'{source.name}' and '{taken[place]}' would have one picture, {target}; rename one")
            taken[place] = source.name

    def write(self, source: Source, prediction: Prediction, rate: float | None = None) -> list[Path]:
        """Write all that goes with an image or frame, and return the files without the crops.

        Args:
            source: The image or video.
            prediction: What was found.
            rate: Frames per second of the video that is written.

        Raises:
            UsageError: If a channel to draw does not exist, or a file cannot be written.
            ImageError: If the image was turned, so that its GeoJSON would be wrong, or boxes are not finite.
        """
        if self.save != ('pictures',) and not np.isfinite(prediction.boxes).all():
            raise ImageError(f"'{source.path}': boxes have numbers that are not finite; did the training diverge?")
        key = source.key if prediction.frame is None else f'{source.key}/{_FRAME.format(prediction.frame + 1)}'
        written = []
        try:
            if 'pictures' in self.save:
                written += self._draw(source, prediction, rate)
            for kind in ('dota', 'yolo-obb'):
                if kind in self.save:
                    written.append(write_whole(self.folder / kind / f'{key}.txt', label_text(prediction, kind)))
            if 'geojson' in self.save:
                written += self._geojson(source, prediction, key)
            if 'crops' in self.save:
                write_crops(prediction, self.folder / 'crops' / key, self.bands)
        except OSError as error:
            raise UsageError(f"--out '{self._out}' cannot be written: {error.strerror or error}") from error
        return written

    def redraw(self, source: Source, prediction: Prediction) -> list[Path]:
        """Draw a frame whose other files are there, into the video that begins anew; return the video.

        Raises:
            UsageError: If a channel to draw does not exist, or a file cannot be written.
        """
        try:
            return self._draw(source, prediction, None) if 'pictures' in self.save else []
        except OSError as error:
            raise UsageError(f"--out '{self._out}' cannot be written: {error.strerror or error}") from error

    def note(self, name: str) -> Path:
        """Return the file to note in what is done: `name` in the folder, of a single picture or video its own."""
        return self.folder / (f'.{self._out.name}{name}' if self._single else name)

    def _draw(self, source: Source, prediction: Prediction, rate: float | None) -> list[Path]:
        target = self.picture(source)
        try:
            image = as_image(prediction.image, self.bands)
        except ValueError as error:
            raise UsageError(f"--bands: '{source.path}': {error}") from error
        pictures = draw_detections(image, prediction.found, prediction, target)
        if prediction.frame is None:
            return [write_whole(path, encode_image(picture, path.suffix)) for path, picture in pictures.items()]
        self._frame(target, source, pictures[target], rate)
        return [target]

    def _frame(self, target: Path, source: Source, drawn: Any, rate: float | None) -> None:
        if self._video is None or self._video[0] != source.name:
            self._video = source.name, self._stack.enter_context(writing_video(target, rate or Video(source.path).rate))
        self._video[1].write(drawn)

    def finish_video(self, *, keep: bool = True) -> None:
        """Close the video that is being written, and give it its name if it is to be kept.

        Raises:
            UsageError: If it cannot be written.
        """
        stack, self._stack, self._video = self._stack, ExitStack(), None
        try:
            if keep:
                stack.close()
            else:
                stack.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
        except OSError as error:
            raise UsageError(f"--out '{self._out}' cannot be written: {error.strerror or error}") from error

    def _geojson(self, source: Source, prediction: Prediction, key: str) -> list[Path]:
        place = None
        if source.kind == 'image' and source.pixels is None:
            place = read_georeference(source.path, prediction.image.shape)
        target = self.folder / 'geojson' / f'{key}.geojson'
        if place is None:
            target.unlink(missing_ok=True)
            if source.name not in self.nowhere:
                self.nowhere.append(source.name)
            return []
        facts = [
            {'class': name, 'score': round(float(score), 6), **more}
            for name, score, more in zip(prediction.names, prediction.scores, deviations(prediction), strict=True)
        ]
        return [write_whole(target, feature_collection(prediction.polygons, facts, place, source.key))]


def write_crops(prediction: Prediction, folder: Path, bands: Sequence[int] | None) -> None:
    """Write each detection, turned upright, as a PNG into a folder, from which older crops are removed."""
    for old in folder.iterdir() if folder.is_dir() else ():
        if _CROP.fullmatch(old.name):
            old.unlink()
    stored = any(
        prediction.image.dtype == kind and (1 if prediction.image.ndim == 2 else prediction.image.shape[2]) in n
        for kind, n in _STORED
    )
    if not stored or bands is not None:  # as it is drawn
        prediction = Prediction(prediction.path, as_image(prediction.image, bands), prediction.found,
                                prediction.classes)  # fmt: skip
    boxes = zip(prediction.upright_boxes(), prediction.names, prediction.scores, strict=True)
    for number, (box, name, score) in enumerate(boxes, 1):
        try:
            crop = upright_crop(prediction.image, box)
        except ValueError as error:  # longer than any picture
            warn(f"'{prediction.path}', detection {number} has no crop: {error}")
            continue
        plain = re.sub(r'[^\w.-]+', '_', name)
        write_whole(folder / f'{number:04d}_{plain}_{score:.2f}.png', _png(crop))


def _png(crop: Any) -> bytes:
    return bytes(cv2.imencode('.png', crop)[1].tobytes())


def label_text(prediction: Prediction, kind: str) -> str:
    """Write the detections as lines of DOTA's labels or of YOLO-OBB, with scores and, where known, deviations.

    Args:
        prediction: What was found.
        kind: 'dota' or 'yolo-obb'.
    """
    found, (height, width) = prediction.found, prediction.image.shape[:2]
    lines = []
    for i, corners in enumerate(prediction.polygons.reshape(-1, 8).tolist()):
        std: list[float] = []
        if found.scores_std is not None and found.boxes_std is not None:
            std = [float(found.scores_std[i]), *map(float, found.boxes_std[i])]
        score = float(found.scores[i])
        if kind == 'dota':
            lines.append(dota_line(corners, prediction.names[i], score, std))
        else:
            lines.append(yolo_line(corners, int(found.labels[i]), score, std, width=width, height=height))
    return ''.join(lines)


def deviations(prediction: Prediction) -> list[dict[str, Any]]:
    """Return the standard deviations of each detection by name, as far as they are known."""
    found = prediction.found
    known = {'score_std': found.scores_std, 'box_std': found.boxes_std}
    return [
        {name: np.round(values[i].astype(np.float64), 9).tolist() for name, values in known.items()
         if values is not None}
        for i in range(len(found.scores))
    ]  # fmt: skip
