"""Measure the mAP of a detector over the angle of the scene, and draw it."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..apis.angle_evaluation import DRAWN, choose, metric_of, precision_over_angles
from ..apis.checkpoint import read_checkpoint
from ..apis.config import load_config
from ..apis.inference import Detector, select_device
from ..apis.runner import writable_folder
from ..evaluation.angle_curve import angle_table, label, number
from ..utils.atomic_files import write_json, write_whole
from ..utils.errors import UsageError
from ..utils.messages import why_no_file
from ..visualization.plots.angle_curve import Curve, angle_figure

EIGHTHS = [11.25 * i for i in range(9)]
QUARTERS = [90.0 * i for i in range(4)]
WAYS = {
    'drawn': 'scenes drawn at the angle',
    'exact': 'images turned exactly',
    'resampled': 'images turned, within the disc that all angles show',
}


def evaluate_angles(args: argparse.Namespace) -> None:
    """Evaluate, print and write as the options say; the files are rewritten after each angle."""
    others = [read_report(path) for path in args.compare]
    out = Path(args.out or Path('work_dirs/evaluate_angles') / Path(args.config).stem)
    if args.config is None:
        writable_folder(out, '--out')
        print(f'figure: {draw(out, others)}')
        return
    cfg = load_config(args.config, args.cfg_options)
    checkpoint = read_checkpoint(args.checkpoint)
    writable_folder(out, '--out')
    scenes = choose(cfg, args.method, angles_of(args, None), mirrored=args.mirrored)
    degrees = angles_of(args, scenes.how)
    detector = Detector(cfg, checkpoint, args.checkpoint, device=select_device(args.device))
    name = args.name or Path(args.config).stem
    facts = {'name': name, 'config': args.config, 'checkpoint': args.checkpoint}
    print(f'{name}: {len(degrees)} angles, {WAYS[scenes.how]}', flush=True)
    report: dict[str, Any] = {}
    for found in precision_over_angles(
        detector.model, scenes, degrees, metric_of(cfg), mirrored=args.mirrored, num_images=args.num_images
    ):
        report = {**facts, **found}
        last = report['angles'][-1]
        print(f'angle {label(last)}: mAP@0.5 {number(last["AP50"])}, {last["objects"]} objects', flush=True)
        numbers = write_json(out / 'angles.json', report)
    print(angle_table(report, per_class=args.per_class))
    print('together: detections and objects of all angles as one data set')
    print(f'figure: {draw(out, [report, *others])}\nnumbers: {numbers}')


def angles_of(args: argparse.Namespace, how: str | None) -> Sequence[float]:
    """Return the angles that the options ask for; by default those that suit how the scenes are made."""
    if args.step is not None:
        return [args.step * i for i in range(round(360 / args.step) + 1) if args.step * i < 360]
    return args.angles or (EIGHTHS if how == DRAWN else QUARTERS)


def read_report(path: str) -> dict[str, Any]:
    """Read an earlier result.

    Raises:
        UsageError: If the file is none.
    """
    file = Path(path)
    if not file.is_file():
        raise UsageError(f"--compare '{path}' {why_no_file(file)}")
    try:
        report = json.loads(file.read_text(encoding='utf-8'))
        rows = [(float(row['degrees']), bool(row['mirrored'])) for row in report['angles'] if 'AP50' in row]
        if not rows or not isinstance(report['name'], str) or report['how'] not in WAYS:
            raise ValueError('no angles')
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise UsageError(f"--compare '{path}' is no result of evaluate-angles (angles.json)") from error
    return dict(report)


def draw(out: Path, reports: Sequence[Mapping[str, Any]]) -> Path:
    """Write the figure of one report or several; those of one name become one curve with a band."""
    ways = {report['how'] for report in reports}
    title = 'Average precision over the angle'
    if len(ways) == 1:
        title += f': {WAYS[ways.pop()]}'
    clockwise = reports[0]['how'] == DRAWN
    return write_whole(out / 'angles.png', angle_figure(curves_of(reports), title=title, clockwise=clockwise))


def curves_of(reports: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """Sort reports into curves.

    Raises:
        UsageError: If two of one name were measured at different angles.
    """
    rows: dict[tuple[str, bool], dict[tuple[float, ...], list[tuple[float, ...]]]] = {}
    for report in reports:
        for mirrored in (False, True):
            there = [row for row in report['angles'] if row['mirrored'] == mirrored]
            degrees = tuple(row['degrees'] for row in there)
            values = tuple(float('nan') if row['AP50'] is None else row['AP50'] for row in there)
            if there:
                rows.setdefault((report['name'], mirrored), {}).setdefault(degrees, []).append(values)
    for (name, _), by_angles in rows.items():
        if len(by_angles) > 1:
            raise UsageError(
                f"two results have the name '{name}' and other angles: give another --name, or measure at the same"
            )
    return [
        Curve(name, degrees, tuple(values), mirrored)
        for (name, mirrored), by_angles in rows.items()
        for degrees, values in by_angles.items()
    ]
