"""Measure how equivariant a detector is, and check what it claims."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..apis.checkpoint import describe_model, read_checkpoint
from ..apis.config import load_config
from ..apis.detection_check import BOX_TOL, HEADS, SCORE_TOL, BoxCheck, NothingFound, Turn, claimed_group, judge_boxes
from ..apis.equivariance_check import (
    SIZE,
    Preparation,
    circle,
    detector_to_check,
    exact_turns,
    judge,
    measure,
    plain_resnet,
)
from ..apis.inference import select_device
from ..apis.runner import writable_folder
from ..testing import full_precision
from ..utils.atomic_files import write_json, write_whole
from ..utils.errors import CheckFailed
from ..visualization.plots.equivariance import equivariance_figure
from ..visualization.plots.equivariance_panels import equivariance_panels
from ..visualization.plots.equivariance_table import equivariance_table
from ..visualization.plots.turned_detections import TurnPicture, turned_detections_figure
from ..visualization.plots.turned_table import turned_table

SHOWN = (90.0, 45.0, 22.5, 180.0)  # angles of the pictures, if they are on the circle


def check_equivariance(args: argparse.Namespace) -> None:
    """Measure, print, and write a figure and a report.

    Raises:
        CheckFailed: If the detector does not keep what it claims.
    """
    out = Path(args.out or Path('work_dirs/check_equivariance') / Path(args.config).stem)
    device = select_device(args.device)
    cfg = load_config(args.config, args.cfg_options)
    checkpoint = read_checkpoint(args.checkpoint) if args.checkpoint else None
    writable_folder(out, '--out')
    model = detector_to_check(cfg, checkpoint, args.checkpoint, device)
    prepare = Preparation(cfg, model, args.size)
    image = prepare.read(args.img)
    group = getattr(model.backbone, 'group', None)
    degrees = circle(group, args.angles)

    with torch.no_grad(), full_precision():
        inputs = prepare.all_turns(image, exact_turns(group))
        x = inputs[0, False]
        h, w = x.shape[-2:]
        title = f'{describe_model(model)}{f" ({group})" if group else ""}'
        print(f'{title}: {w} x {h} pixels, {len(degrees)} angles, {device}', flush=True)
        if device.type == 'cpu' and h * w > 600**2:
            print(f'this takes a while on a CPU; --size {SIZE} is {h * w / SIZE**2:.0f} times faster', flush=True)
        rows = measure(model, inputs, degrees)
        plain = plain_resnet(cfg, model) if not args.no_compare else None
        plain_rows = measure(plain, inputs, degrees) if plain is not None else {}
        panels = equivariance_panels(model, plain, x, group)
        boxes = None if args.no_detections else compare_boxes(args, model, prepare, image, degrees)

    print(equivariance_table(rows, plain_rows))
    print('change: how far the turn takes the map itself; an error as large is that of a map that ignores the turn')
    if group and any(row['group'] is None for name, row in rows.items() if name.startswith('level')):
        print(f'the neck {type(model.neck).__name__} claims no group: its levels are not checked')
    wrong = judge(model, rows, args.tol, (h, w))
    detections = None
    if boxes is not None:
        turns, detections = boxes
        print(f'\n{detections["said"]}')
        if turns:
            print(turned_table(detections['turns']))
            picture = turned_detections_figure(detections['turns'], pictures_of(turns), title=f'{title}: detections')
            print(f'figure of the detections: {write_whole(out / "detections.png", picture)}\n')
        wrong += detections['wrong']
    figure = write_whole(
        out / 'equivariance.png',
        equivariance_figure(
            degrees[1:],
            {key: row['curve'][1:] for key, row in rows.items() if key != 'image'},
            {key: row['curve'][1:] for key, row in plain_rows.items() if key != 'image'},
            panels,
            title=f'{title}, {w} x {h} pixels',
            tolerance=args.tol,
        ),
    )
    report = write_json(
        out / 'equivariance.json',
        {
            'config': args.config,
            'checkpoint': args.checkpoint,
            'image': args.img,
            'size': (h, w),
            'group': group,
            'tolerance': args.tol,
            'holds': not wrong,
            'wrong': wrong,
            'degrees': degrees,
            'maps': rows,
            'plain': plain_rows,
            'detections': detections,
        },
    )
    print(f'figure: {figure}\nnumbers: {report}')
    if wrong:
        raise CheckFailed(*(f'the claim does not hold: {text}' for text in wrong))
    print(f'the claim holds: turns of {group} that map the pixel grid onto itself are exact to {args.tol:g}')
    if detections is not None and detections['group']:
        print(f'and so are those of the boxes: equal to {BOX_TOL:g} pixels and {SCORE_TOL:g} of the score')


def compare_boxes(
    args: argparse.Namespace, model: Any, prepare: Preparation, image: Any, degrees: Sequence[float]
) -> tuple[list[Turn], dict[str, Any]]:
    """Compare the detections on all turns of an image; return the turns and the part of the report.

    Returns:
        No turns, and `said`, the reason, if there is nothing to compare.
    """
    group = claimed_group(model)
    report: dict[str, Any] = {'said': '', 'group': group, 'score_thr': None, 'wrong': [], 'turns': []}
    if not any(hasattr(model, head) for head in HEADS):
        return [], {**report, 'said': f'no detections: {type(model).__name__} has no head that finds boxes'}
    check = BoxCheck(model, prepare, args.score_thr, trained=args.checkpoint is not None)
    try:
        turns = check.turns(image, group or getattr(model.backbone, 'group', None), degrees)
    except NothingFound as error:
        wrong = [f'nothing is proved of the boxes that {group} should turn: {error}'] if group else []
        return [], {
            **report,
            'said': f'no detections are compared: {error}',
            'score_thr': args.score_thr,
            'wrong': wrong,
        }
    which = 'the best detections of random weights' if check.best_only else 'detections'
    said = f'{which}, scores of {check.score_thr:.3g} and above, on the turned image against those of the image, turned'
    if any(not turn.exact for turn in turns):
        said += (
            '\n(disc): of objects within the disc that the image shows at every angle; multiples of 90 degrees: of all'
        )
    elif any(angle % 90 for angle in degrees):
        said += '\nhorizontal boxes turn by multiples of 90 degrees only'
    if group is None:
        said += '\nbackbone, neck and heads have no group in common: exactness of the boxes is reported, not required'
    wrong = judge_boxes(turns, group) if group else []
    rows = [turn.row() for turn in turns]
    return turns, {**report, 'said': said, 'score_thr': check.score_thr, 'wrong': wrong, 'turns': rows}


def pictures_of(turns: Sequence[Turn]) -> list[TurnPicture]:
    """Choose up to four turns to show."""
    plain = [turn for turn in turns if not turn.mirrored]
    chosen = [turn for angle in SHOWN for turn in plain if turn.degrees == angle]
    return [
        TurnPicture(
            f'{turn.degrees:g} degrees: {len(turn.pairs.pairs)} matched, {len(turn.pairs.lost)} lost, '
            f'{len(turn.pairs.new)} new',
            turn.image,
            turn.expected.boxes,
            turn.found.boxes,
            turn.pairs.lost.tolist(),
            turn.pairs.new.tolist(),
            turn.expected.counts,
            turn.found.counts,
            not turn.exact,
        )
        for turn in chosen
    ]
