"""Measure, draw and write a report."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ...evaluation.detection_report import measure_detections
from ...utils.atomic_files import write_json, write_whole
from ...utils.messages import first_line
from .figures import evaluation_figures, training_figures
from .scalars import read_scalars

PAGE, FOLDER, NUMBERS = 'report.html', 'report', 'report.json'
ANGLES, TURNS = 'angles.json', 'equivariance.json'  # of evaluate-angles and check-equivariance


@dataclass
class Evaluation:
    """Detections of a data set, to be reported.

    Attributes:
        images: As `evaluation.detection_report.measure_detections` takes them.
        classes: Names, by label.
        eval_mode: '11points' or 'area'.
        facts: Numbers and texts about the run, such as `checkpoint` and `seconds_per_image`.
        picture: Draws an image of the data set and its detections with this score or more, (H, W, 3); the report has
            no pictures without it.
    """

    images: Sequence[Mapping[str, Any]]
    classes: Sequence[str]
    eval_mode: str = '11points'
    facts: Mapping[str, Any] = field(default_factory=dict)
    picture: Callable[[int, float], Any] | None = None


def write_report(
    work_dir: Path,
    evaluations: Mapping[str, Evaluation],
    *,
    facts: Mapping[str, Any] | None = None,
    iou_thr: float = 0.5,
    score_thr: float | None = None,
    worst: int = 8,
    measured: Sequence[Path] = (),
    scalars: Path | None = None,
    fresh: bool = False,
) -> Path:
    """Write ``report.html`` into a work directory, and figures and numbers into the folder ``report`` beside it.

    What an earlier report of the same directory says about other parts stays: after a test, the page shows the training
    and its validation, too.

    Args:
        work_dir: Where mmengine wrote its scalars.
        evaluations: By 'val' or 'test'.
        facts: About the run: `model`, `parameters`, `macs`, `versions`, `config`, ...
        iou_thr, score_thr, worst: See `measure_detections`.
        measured: Results of ``evaluate-angles`` (angles.json) and ``check-equivariance`` (equivariance.json); those in
            the work directory are found without.
        scalars: Work directory whose scalars to read; by default `work_dir`.
        fresh: Forget evaluations that earlier reports had, as they are of other weights.

    Returns:
        The page.

    Raises:
        OSError: If a file cannot be written.
    """
    from .page import make_page

    folder = Path(work_dir) / FOLDER
    report = read_numbers(folder / NUMBERS)
    known = {} if fresh else dict(report.get('evaluations', {}))
    for name in {'val', 'test'} - set(evaluations) if fresh else ():
        for file in (folder / f'{name}.npz', *folder.glob(f'{name}_*')):
            file.unlink(missing_ok=True)
    for name, evaluation in evaluations.items():
        for file in folder.glob(f'{name}_*.png'):
            file.unlink(missing_ok=True)
        numbers = measure_detections(
            evaluation.images,
            evaluation.classes,
            iou_thr=iou_thr,
            score_thr=score_thr,
            eval_mode=evaluation.eval_mode,
            worst=worst,
        )
        numbers['facts'] = {**evaluation.facts, 'written': datetime.now().isoformat(' ', 'seconds')}
        for file_name, data in evaluation_figures(name, numbers):
            write_whole(folder / file_name, data)
        numbers['notes'] = _write_pictures(folder, name, numbers, evaluation)
        known[name] = numbers
    report = {
        'facts': {**report.get('facts', {}), **(facts or {})},
        'training': read_scalars(scalars or work_dir),
        'evaluations': known,
        'turns': dict(_turns([*(Path(work_dir) / name for name in (ANGLES, TURNS)), *measured], folder)),
    }
    for file_name, data in training_figures(report['training']):
        write_whole(folder / file_name, data)
    write_json(folder / NUMBERS, report)
    return write_whole(Path(work_dir) / PAGE, make_page(read_numbers(folder / NUMBERS), folder))


def read_numbers(path: Path) -> dict[str, Any]:
    """Read the numbers of an earlier report; nothing if there are none."""
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_pictures(folder: Path, name: str, numbers: dict[str, Any], evaluation: Evaluation) -> list[str]:
    """Draw the worst images; return what went wrong, a line at most."""
    from ...visualization.pixels import encode_image

    for row in numbers['worst']:
        row['picture'] = f'{name}_worst_{row["index"]:06d}.jpg'
    wanted = {row['picture'] for row in numbers['worst']}
    for file in folder.glob(f'{name}_worst_*.jpg'):
        if evaluation.picture is not None or file.name not in wanted:
            file.unlink(missing_ok=True)
    if evaluation.picture is None:
        return []
    for row in numbers['worst']:
        try:
            picture = evaluation.picture(row['index'], numbers['score_thr'])
        except Exception as error:  # of a data set, whatever it is
            return [f'The worst images could not be drawn: {type(error).__name__}: {first_line(error)}']
        write_whole(folder / row['picture'], encode_image(picture, '.jpg'))
    return []


def _turns(files: Sequence[Path], folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read results of evaluate-angles and check-equivariance, and copy their figures."""
    for file in files:
        found = read_numbers(file)
        kind = 'angles' if 'angles' in found and 'summary' in found else 'equivariance' if 'maps' in found else None
        if kind is None:
            continue
        pictures = [p for p in sorted(file.parent.glob('*.png')) if p.stem.startswith((kind, 'detections'))]
        if kind == 'angles':
            pictures = [p for p in pictures if p.stem == 'angles']
        names = []
        for picture in pictures:
            names.append(f'turns_{picture.name}')
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(picture, folder / names[-1])
        yield kind, {**found, 'figures': names, 'file': file.name}
