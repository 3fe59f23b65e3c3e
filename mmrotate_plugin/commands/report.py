"""Write the report of a training or a test from what it left."""

import argparse
from pathlib import Path

from ..apis.runner import writable_folder
from ..engine.report import Evaluation, load_detections, write_report
from ..engine.report.results_pickle import load_results
from ..engine.report.write import FOLDER, NUMBERS, read_numbers
from ..utils.errors import UsageError
from ..utils.messages import why_no_file

PICKLES = ('.pkl', '.pickle')


def report(args: argparse.Namespace) -> None:
    """Write the page, its figures and its numbers.

    Raises:
        UsageError: If the source has nothing to report, or the folder cannot be written.
    """
    source: Path = args.source
    for file in args.measured:
        found = read_numbers(file)
        if not ('angles' in found or 'maps' in found):
            reason = (
                why_no_file(file) if not file.is_file() else 'is no result of evaluate-angles or check-equivariance'
            )
            raise UsageError(f"--measured '{file}' {reason}")
    evaluations = {}
    if source.is_dir():
        for name in ('val', 'test'):
            if (file := source / FOLDER / f'{name}.npz').is_file():
                evaluations[name] = evaluation_of(file, args)
        if not evaluations and not any(source.glob('*/vis_data/scalars.json')):
            raise UsageError(
                f"'{source}' has neither scalars of a training (TIME/vis_data/scalars.json) nor detections of a report "
                f'({FOLDER}/val.npz, {FOLDER}/test.npz); give the work directory of train or test'
            )
    elif source.is_file():
        evaluations['val' if source.stem == 'val' else 'test'] = evaluation_of(source, args)
    else:
        raise UsageError(f"'{source}' {why_no_file(source)}; give a work directory, or a file of detections")
    out: Path = args.out or (source if source.is_dir() else source.parent)
    writable_folder(out, '--out' if args.out else 'the folder of the source,')
    before = read_numbers(source / FOLDER / NUMBERS) if source.is_dir() else {}
    try:
        page = write_report(
            out,
            evaluations,
            facts=before.get('facts'),
            iou_thr=args.iou_thr,
            score_thr=args.score_thr,
            measured=args.measured,
            scalars=source if source.is_dir() else None,
        )
    except OSError as error:
        raise UsageError(f"the report could not be written to '{out}': {error.strerror or error}") from error
    for name in evaluations:
        numbers = read_numbers(out / FOLDER / NUMBERS)['evaluations'][name]
        found = {key: numbers[key] for key in ('AP50', 'AP75', 'AP50_95') if numbers[key] is not None}
        means = ', '.join(f'{key} {value:.3f}' for key, value in found.items())
        print(f'{name}: {numbers["images"]} images, {numbers["objects"]} objects; {means or "nothing to compare"}')
    print(f'report: {page}\nnumbers and figures: {page.parent / FOLDER}')


def evaluation_of(file: Path, args: argparse.Namespace) -> Evaluation:
    """Read a file of detections.

    Raises:
        UsageError: If it is none.
    """
    if file.suffix.lower() in PICKLES:
        images, classes = load_results(file, args.classes)
        facts: dict[str, object] = {'data': file.name}
    else:
        images, classes, facts = load_detections(file)
    mode = args.eval_mode or facts.get('eval_mode') or '11points'
    return Evaluation(images, classes, eval_mode=str(mode), facts=facts)
