"""Measure how equivariant a detector is, and check what it claims."""

import argparse
from pathlib import Path

import torch

from ..apis.checkpoint import describe_model, read_checkpoint
from ..apis.config import load_config
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

    print(equivariance_table(rows, plain_rows))
    print('change: how far the turn takes the map itself; an error as large is that of a map that ignores the turn')
    if group and any(row['group'] is None for name, row in rows.items() if name.startswith('level')):
        print(f'the neck {type(model.neck).__name__} claims no group: its levels are not checked')
    wrong = judge(model, rows, args.tol, (h, w))
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
        },
    )
    print(f'figure: {figure}\nnumbers: {report}')
    if wrong:
        raise CheckFailed(*(f'the claim does not hold: {text}' for text in wrong))
    print(f'the claim holds: turns of {group} that map the pixel grid onto itself are exact to {args.tol:g}')
