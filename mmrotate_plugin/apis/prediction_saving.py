"""Detect on images, folders, patterns, lists and videos, and write what is found to files."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets.formats.detections import COCO
from ..datasets.formats.source import CLASSES
from ..utils.atomic_files import write_whole
from ..utils.errors import ImageError, UsageError
from .image_drawing import check_heat_maps
from .inference import Detections, Detector
from .prediction import Options, Outcome, make_finder, outcomes
from .prediction_files import Files, deviations
from .prediction_journal import NAME, Journal, write_coco
from .prediction_sources import Given, Source, find_sources

KEPT = ('boxes', 'labels', 'scores', 'boxes_std', 'scores_std')  # of a frame, to go on after an interruption


@dataclass
class Saved:
    """What was written.

    Attributes:
        folder: Where it lies.
        total: Number of images and videos.
        done: How many of them were detected on, those of an interrupted call before included.
        earlier: How many an interrupted call had done.
        detections: Number of detections that this call found.
        failed: Why a file could not be used, by its name.
        others: Names of the files of a folder that are no images.
        nowhere: Names of the images that say no place, and so have no GeoJSON.
        files: Files about all images: ``coco.json``, ``classes.txt``.
    """

    folder: Path
    total: int = 0
    done: int = 0
    earlier: int = 0
    detections: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    nowhere: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


Progress = Callable[[Outcome, Sequence[Path], Saved], None]


def save_predictions(
    detector: Detector,
    source: Given,
    out: str | os.PathLike[str],
    *,
    save: Sequence[str] = ('pictures',),
    score_thr: float = 0.3,
    batch_size: int = 1,
    patch_size: int | None = None,
    patch_overlap: int | None = None,
    patch_batch_size: int | None = None,
    bands: Sequence[int] | None = None,
    show: bool | None = None,
    progress: Progress = lambda _outcome, _files, _saved: None,
) -> Saved:
    """Detect on one or many images and videos, and write what is found.

    If a call is interrupted, the same call continues where it stopped. A file that cannot be used does not stop the
    others.

    Args:
        detector, source, score_thr, batch_size, patch_size, patch_overlap, patch_batch_size: As in `predict`.
        out: Folder to write to, or the picture of a single image, or the video of a single one.
        save: Some of 'pictures', 'dota' and 'yolo-obb' (lines of text), 'coco' (one JSON file), 'geojson' (in the
            coordinates of a GeoTIFF; needs rasterio) and 'crops' (each object, turned upright).
        bands: Channels, counted from 0, to draw as red, green and blue.
        show: Show the progress over the patches of an image on stderr; None for terminals only.
        progress: Called with what came of an image, a frame or a video, the files written about it, and the counts.

    Raises:
        UsageError: If there is nothing to detect on, an argument cannot work, or `out` cannot be written.
        ImageError: If the only image cannot be used.
    """
    sources = find_sources(source)
    files = Files(Path(out), save, sources, bands=bands)
    options = Options(score_thr, batch_size, patch_size, patch_overlap, patch_batch_size)
    if getattr(detector.model, 'score_map', False) and getattr(detector.model, 'enabled', False):
        jobs = [(one.path, files.picture(one)) for one in sources if one.kind == 'image']
        check_heat_maps(jobs if 'pictures' in files.save else [])
    finder = make_finder(detector, options, show=show)
    saved = Saved(files.folder, total=len(sources))
    journal = None
    try:
        if len(sources) > 1 or 'coco' in files.save or sources[0].kind == 'video':
            facts = _facts(detector, sources, options, files.save, bands)
            journal = Journal(files.note(NAME), facts)
        todo = _left_to_do(sources, journal, saved)
        found = outcomes(detector, finder, todo, options, lambda source: _known(journal, source))
        _write_all(found, files, journal, saved, progress)
        _finish(files, journal, saved, detector.classes)
    except OSError as error:
        raise UsageError(f"--out '{out}' cannot be written: {error.strerror or error}") from error
    finally:
        if journal is not None:
            journal.close()
    return saved


def _left_to_do(sources: Sequence[Source], journal: Journal | None, saved: Saved) -> list[Source]:
    """Leave out what an interrupted call has done."""
    todo = []
    for source in sources:
        if journal is None or not journal.is_done(source):
            todo.append(source)
            continue
        saved.earlier += 1
        _count(source, journal.finished[source.name], saved)
    return todo


def _write_all(
    found: Iterable[Outcome], files: Files, journal: Journal | None, saved: Saved, progress: Progress
) -> None:
    current: Source | None = None
    error: str | None = None
    try:
        for outcome in found:
            source, prediction = outcome.source, outcome.prediction
            if current is not source:
                current, error = source, None
                if journal is not None:
                    journal.begin(source)
            written: list[Path] = []
            if prediction is not None:
                try:
                    written = files.redraw(source, prediction) if outcome.known else files.write(source, prediction)
                except ImageError as reason:
                    outcome = Outcome(source, error=reason, last=outcome.last)
            if outcome.error is not None:
                if saved.total == 1 and source.asked:
                    raise outcome.error
                error = error or str(outcome.error)
            if not outcome.known:
                saved.detections += 0 if outcome.prediction is None else len(outcome.prediction.scores)
                _note(outcome, journal, coco='coco' in files.save)
            if outcome.last:
                files.finish_video()
                if journal is not None:
                    journal.end(source, error)
                _count(source, error, saved)
            progress(outcome, written, saved)
    except BaseException:
        files.finish_video(keep=False)
        raise


def _note(outcome: Outcome, journal: Journal | None, *, coco: bool) -> None:
    """Note what came of an image, for the file of all, and of a frame, to go on from."""
    source, prediction = outcome.source, outcome.prediction
    facts: dict[str, Any] = {}
    if prediction is not None and coco:
        facts['result'] = _result(outcome)
    if source.kind == 'video' and not outcome.last:
        facts['frame'] = {'error': str(outcome.error)} if prediction is None else _plain(prediction.found)
    if journal is not None and facts:
        journal.note(**facts)


def _plain(found: Detections) -> dict[str, Any]:
    """Return detections as numbers that JSON keeps exactly, without the heat map."""
    values = {name: getattr(found, name) for name in KEPT}
    return {name: value.tolist() for name, value in values.items() if value is not None}


def _known(journal: Journal | None, source: Source) -> Iterator[Detections | ImageError]:
    """Yield what an interrupted call found in the first frames of a video."""
    for noted in journal.frames(source) if journal is not None else ():
        frame = noted['frame']
        if 'error' in frame:
            yield ImageError(frame['error'])
            continue
        columns = len(frame['boxes'][0]) if frame['boxes'] else 5

        def of(name: str, frame: dict[str, Any] = frame, shape: tuple[int, ...] = (-1, columns)) -> Any:
            return None if name not in frame else np.array(frame[name], np.float32).reshape(shape)

        yield Detections(
            of('boxes'),
            np.array(frame['labels'], np.int64),
            of('scores', shape=(-1,)),
            of('boxes_std'),
            of('scores_std', shape=(-1,)),
        )


def _count(source: Source, error: str | None, saved: Saved) -> None:
    if error is None:
        saved.done += 1
    elif source.asked:
        saved.failed[source.name] = error
    else:
        saved.others.append(source.name)


def _finish(files: Files, journal: Journal | None, saved: Saved, classes: Sequence[str]) -> None:
    """Write the files about all images, and remove the journal."""
    saved.nowhere = files.nowhere
    if {'dota', 'yolo-obb'} & set(files.save) and saved.done:
        saved.files.append(write_whole(files.folder / CLASSES, ''.join(f'{name}\n' for name in classes)))
    if journal is not None:
        if 'coco' in files.save and saved.done:
            write_coco(files.folder / COCO, journal.results, list(classes))
            saved.files.append(files.folder / COCO)
        journal.remove()


def _result(outcome: Outcome) -> dict[str, Any]:
    """Return what the file of all images says about one."""
    source, prediction = outcome.source, outcome.prediction
    assert prediction is not None
    height, width = prediction.image.shape[:2]
    image: dict[str, Any] = {'file_name': source.name, 'width': width, 'height': height}
    if prediction.frame is not None:
        image |= {'file_name': f'{source.name}/{prediction.frame + 1:06d}', 'frame': prediction.frame}
    found = []
    more = deviations(prediction)
    upright = prediction.upright_boxes() if prediction.boxes.shape[1] == 5 else None
    polygons, labels = prediction.polygons.reshape(-1, 8).tolist(), prediction.labels.tolist()
    for i, polygon in enumerate(polygons):
        if upright is not None:
            more[i]['rotated_box'] = [round(value, 9) for value in upright[i]]
        found.append({'label': labels[i], 'score': float(prediction.scores[i]), 'polygon': polygon, 'more': more[i]})
    return {'image': image, 'found': found}


def _facts(
    detector: Detector, sources: Sequence[Source], options: Options, save: Sequence[str], bands: Sequence[int] | None
) -> dict[str, Any]:
    """Collect what a continued call must have in common with the interrupted one."""
    cfg = getattr(detector.model, 'cfg', None)
    path = Path(str(getattr(detector, 'path', '')))
    stat = path.stat() if path.is_file() else None
    paths = '\n'.join(os.path.abspath(one.path) for one in sources)
    return {
        'config': hashlib.sha256(repr(getattr(cfg, '_cfg_dict', cfg)).encode(errors='backslashreplace')).hexdigest(),
        'checkpoint': [os.path.abspath(path), *([stat.st_size, stat.st_mtime_ns] if stat is not None else [])],
        'sources': hashlib.sha256(paths.encode(errors='backslashreplace')).hexdigest(),
        'options': asdict(options) | {'batch_size': None, 'patch_batch_size': None},
        'save': list(save),
        'bands': bands and list(bands),
    }
