#!/usr/bin/env python
"""Measure how equivariant a detector is: python tools/check_equivariance.py CONFIG [CHECKPOINT] [--img FILE].

Status 0 if the exactness that backbone and neck claim holds, 1 if it does not, 2 for wrong input.
"""

import argparse
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works uninstalled

if TYPE_CHECKING:
    import numpy as np
    import torch
    from mmengine.config import Config
    from torch import Tensor, nn

    from mmrotate_plugin.testing import Fields
    from mmrotate_plugin.visualization.plots.equivariance import PanelRow

SIZE = 257  # where neither the pipeline nor --size says anything
VOID = 0.01  # a map that the turn changes by less can pass for equivariant without being so
PLAIN_OPTIONS = ('depth', 'in_channels', 'stem_channels', 'base_channels', 'num_stages', 'strides', 'dilations',
                 'out_indices', 'style', 'deep_stem')  # fmt: skip


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Measure the equivariance error of each stage and pyramid level over a circle of angles, and '
        'check that quarter turns are exact. Writes a figure and a table (JSON).',
        epilog='status: 0 the claimed exactness holds, 1 it does not, 2 wrong input',
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', nargs='?', help='checkpoint file (default: random weights and norms)')
    parser.add_argument('--img', help='image file (default: a synthetic scene)')
    parser.add_argument('--out', help='output folder (default: work_dirs/check_equivariance/<config>)')
    parser.add_argument(
        '--size', type=int, help=f'resize to this side instead of what the test pipeline says; {SIZE} suits a CPU'
    )
    parser.add_argument(
        '--angles', type=int, help='angles on the circle, a multiple of 4 (default: twice those of the group, 8 to 24)'
    )
    parser.add_argument('--tol', type=float, default=1e-5, help='largest relative error at quarter turns (1e-5)')
    parser.add_argument('--no-compare', action='store_true', help='do without the plain ResNet')
    parser.add_argument('--device', help='cpu, cuda:0, ... (default: a GPU if there is one)')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='change the config, see train.py')
    parser.add_argument(
        '--unsafe-checkpoint', action='store_true', help='take any pickle for a checkpoint, and run what it says'
    )
    args = parser.parse_args(argv)
    if args.size is not None and args.size < 33:
        parser.error(f'--size must be 33 pixels or more, not {args.size}')
    if args.angles is not None and (args.angles < 4 or args.angles % 4):
        parser.error(f'--angles must be a multiple of 4, for quarter turns to be among them, not {args.angles}')
    if not 0 < args.tol < 1:
        parser.error(f'--tol must be between 0 and 1, not {args.tol:g}')
    return args


def check(args: argparse.Namespace) -> list[str]:
    """Measure, print, write; returns what is wrong with the claim."""
    import torch

    from mmrotate_plugin.apis.checkpoint import describe_model, read_checkpoint
    from mmrotate_plugin.apis.config import load_config
    from mmrotate_plugin.apis.inference import select_device
    from mmrotate_plugin.apis.runner import writable_folder
    from mmrotate_plugin.testing import full_precision
    from mmrotate_plugin.utils.atomic_files import write_json, write_whole
    from mmrotate_plugin.visualization.plots.equivariance import equivariance_figure

    out = Path(args.out or Path('work_dirs/check_equivariance') / Path(args.config).stem)
    device = select_device(args.device)
    cfg = load_config(args.config, args.cfg_options)
    checkpoint = read_checkpoint(args.checkpoint) if args.checkpoint else None
    writable_folder(out, '--out')
    model = build_model(cfg, checkpoint, args.checkpoint, device)
    prepare = Preparation(cfg, model, args.size)
    image = prepare.read(args.img)
    group = getattr(model.backbone, 'group', None)
    degrees = circle(group, args.angles)

    with torch.no_grad(), full_precision():
        inputs = prepare.all_turns(image, exact_turns(group))
        x = inputs[0, False]
        h, w = x.shape[-2:]
        name = f'{describe_model(model)}{f" ({group})" if group else ""}'
        print(f'{name}: {w} x {h} pixels, {len(degrees)} angles, {device}', flush=True)
        if device.type == 'cpu' and h * w > 600**2:
            print(f'this takes a while on a CPU; --size {SIZE} is {h * w / SIZE**2:.0f} times faster', flush=True)
        rows = measure(model, inputs, degrees)
        plain = plain_resnet(cfg, model) if not args.no_compare else None
        plain_rows = measure(plain, inputs, degrees) if plain is not None else {}
        panels = draw_panels(model, plain, x, group)

    print(table(rows, plain_rows))
    print('change: how far the turn takes the map itself; an error as large is that of a map that ignores the turn')
    if group and any(row['group'] is None for name, row in rows.items() if name.startswith('level')):
        print(f'the neck {type(model.neck).__name__} claims no group: its levels are no part of what is checked')
    wrong = judge(model, rows, args.tol, (h, w))
    figure = write_whole(
        out / 'equivariance.png',
        equivariance_figure(
            degrees[1:],
            {key: row['curve'][1:] for key, row in rows.items() if key != 'image'},
            {key: row['curve'][1:] for key, row in plain_rows.items() if key != 'image'},
            panels,
            title=f'{name}, {w} x {h} pixels',
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
    if not wrong:
        print(f'the claim holds: turns of {group} that map the pixel grid onto itself are exact to {args.tol:g}')
    return wrong


def build_model(cfg: 'Config', checkpoint: Mapping[str, Any] | None, path: str, device: 'torch.device') -> 'nn.Module':
    """The detector in eval mode, with the weights of the checkpoint or with random ones.

    Raises:
        UsageError: If it cannot be built, has no backbone, or the weights do not fit.
    """
    import torch

    from mmrotate_plugin.apis.checkpoint import load_weights
    from mmrotate_plugin.apis.inference import build_model
    from mmrotate_plugin.engine.checks import before_run
    from mmrotate_plugin.engine.checks.checkpoint_classes import configured_classes
    from mmrotate_plugin.testing import randomize_norms_
    from mmrotate_plugin.utils.errors import UsageError

    torch.manual_seed(0)
    model = build_model(cfg)
    if not hasattr(model, 'backbone'):
        raise UsageError(f'the model of the config, {type(model).__name__}, has no backbone')
    if checkpoint is None:
        randomize_norms_(model)  # identity norms would hide an error
    else:
        load_weights(model, checkpoint, path)
        configured = configured_classes(cfg)
        before_run.check_classes(
            cfg, checkpoint, path, configured, whose='the config', result='the errors are the same'
        )
    return model.to(device).eval()


class Preparation:
    """An image's way into the network: the test pipeline of the config and the model's data preprocessor.

    Args:
        size: Side that replaces those of the pipeline's resizing steps; None for the config's.
    """

    def __init__(self, cfg: 'Config', model: 'nn.Module', size: int | None) -> None:
        from mmdet.utils import get_test_pipeline_cfg

        from mmrotate_plugin.apis.image_reader import ImageReader
        from mmrotate_plugin.apis.inference import image_pipeline

        cfg = deepcopy(cfg)
        self.scale = size
        self.resizes = False
        for step in get_test_pipeline_cfg(cfg) if cfg.get('test_dataloader') else ():
            if step.get('scale') is None:
                continue
            self.resizes = True
            if size is not None:
                step['scale'] = (size, size)
            elif self.scale is None:
                self.scale = min(step['scale']) if isinstance(step['scale'], (tuple, list)) else int(step['scale'])
        self.pipeline = image_pipeline(cfg)
        self.read_file = ImageReader.of(cfg)
        self.model = model

    def read(self, path: str | None) -> 'np.ndarray':
        """The image of the file, (H, W) or (H, W, C), or a synthetic scene of the size that the pipeline makes."""
        import cv2

        from mmrotate_plugin.apis.image_reader import scene_image
        from mmrotate_plugin.engine.checks.input_images import check_image
        from mmrotate_plugin.utils.errors import ImageError, UsageError

        if path is None:
            return scene_image(self.model, self.scale or SIZE)
        try:
            image = self.read_file(Path(path))
            check_image(self.model, image, f"'{path}'")
        except ImageError as error:
            raise UsageError(f'--img: {error}') from error
        if self.scale is not None and not self.resizes:  # --size, and the pipeline leaves images as they are
            image = cv2.resize(image, (self.scale, self.scale), interpolation=cv2.INTER_AREA)
        return image

    def __call__(self, image: 'np.ndarray') -> 'Tensor':
        """(H, W) or (H, W, C) to what the network sees, (1, C, H', W')."""
        import numpy as np

        data = self.pipeline({'img': np.ascontiguousarray(image), 'img_id': 0})
        batch = {'inputs': [data['inputs']], 'data_samples': [data['data_samples']]}
        return self.model.data_preprocessor(batch, False)['inputs']

    def all_turns(self, image: 'np.ndarray', elements: Iterable[tuple[int, bool]]) -> 'dict[tuple[int, bool], Tensor]':
        """The image, all its quarter turns and the elements given, each turned before the pipeline."""
        import numpy as np

        wanted = {(0, False): None, (1, False): None, (2, False): None, (3, False): None, **dict.fromkeys(elements)}
        return {(k, flip): self(np.rot90(image[:, ::-1] if flip else image, k)) for k, flip in wanted}


def exact_turns(group: str | None) -> Sequence[tuple[int, bool]]:
    """What a network of that group claims to commute with; without a group, what it would have to: quarter turns."""
    from mmrotate_plugin.testing import exact_elements

    return ((1, False), (2, False), (3, False)) if group is None else exact_elements(group)


def circle(group: str | None, number: int | None) -> list[float]:
    """Angles in degrees from 0: quarter turns, the group's angles, and as many between, unless a number is given."""
    if number is None:
        own = math.lcm(4, int(group[1:])) if group else 8
        number = own if own >= 16 else 2 * own
    return [360 * i / number for i in range(number)]


def measure(
    model: 'nn.Module', inputs: 'Mapping[tuple[int, bool], Tensor]', degrees: Sequence[float]
) -> dict[str, dict[str, Any]]:
    """Errors of each map of a model, by name; 'image' is the network's input, where only the pipeline can err.

    Quarter turns (and reflections) are those of the image before the pipeline, other angles those of the input.
    """
    from mmrotate_plugin.testing import Fields, compare_fields, equivariance_curve, feature_fields

    def maps(x: 'Tensor') -> 'tuple[Fields, ...]':
        return (Fields('image', x, None), *feature_fields(model, x))

    x = inputs[0, False]
    before = maps(x)
    turned = {element: compare_fields(before, maps(y), 90 * element[0], element[1]) for element, y in inputs.items()}
    curve = equivariance_curve(maps, x, degrees=[angle for angle in degrees if angle % 90])
    rows: dict[str, dict[str, Any]] = {}
    for i, field in enumerate(before):
        others = dict(zip(curve.degrees, curve.error.get(field.name, ()), strict=False))
        changed = dict(zip(curve.degrees, curve.change.get(field.name, ()), strict=False))
        whole = [others[d] if d in others else turned[int(d) // 90, False].error[i] for d in degrees]
        # what claims nothing is measured on all of them
        exact = [element for element in turned if element != (0, False)]
        exact = [element for element in exact if field.group is None or element in exact_turns(field.group)]
        changes = [turned[element].change[i] for element in exact]
        rows[field.name] = {
            'group': field.group,
            'exact': max((turned[element].error[i] for element in exact), default=math.nan),
            'at_45': whole[degrees.index(45)] if 45 in degrees else math.nan,
            'mean': sum(whole[1:]) / (len(whole) - 1),
            'change': min((c for c in changes if not math.isnan(c)), default=math.nan),
            'change_at_45': changed.get(45, math.nan),
            'curve': whole,
            'shape': tuple(field.values.shape[1:]),
        }
    return rows


def plain_resnet(cfg: 'Config', model: 'nn.Module') -> 'nn.Module | None':
    """An ordinary ResNet with random weights, as deep and as wide as the config's backbone, if that is a ResNet."""
    from mmrotate_plugin.models import ResNet
    from mmrotate_plugin.testing import randomize_norms_

    if not isinstance(model.backbone, ResNet):
        return None
    options = {key: cfg.model.backbone[key] for key in PLAIN_OPTIONS if key in cfg.model.backbone}
    return randomize_norms_(ResNet(**options)).to(next(model.parameters()).device).eval()


def judge(model: 'nn.Module', rows: Mapping[str, Mapping[str, Any]], tol: float, size: tuple[int, int]) -> list[str]:
    """What contradicts the claim, one sentence each."""
    from mmrotate_plugin.testing import exact_elements

    backbone = type(model.backbone).__name__
    group = getattr(model.backbone, 'group', None)
    if group is None:
        return [f'the backbone {backbone} claims no group: use ReResNet for an equivariant one']
    if not exact_elements(group):
        return [f"the group '{group}' of {backbone} has no turn that maps the pixel grid onto itself: nothing is exact"]
    claimed = {name: row for name, row in rows.items() if row['group'] is not None}
    failed = [name for name, row in claimed.items() if not row['exact'] <= tol]
    wrong = [
        f'{", ".join(failed)}: errors of up to {max(claimed[name]["exact"] for name in failed):.1e} at turns that '
        f'{group} claims to be exact (--tol {tol:g})'
    ] if failed else []  # fmt: skip
    void = [name for name, row in claimed.items() if not row['change'] >= VOID]
    if void:
        wrong.append(
            f'{", ".join(void)}: turns change the maps by less than {VOID:g}, so that their error says nothing'
        )
    if not failed:
        return wrong
    if not rows['image']['exact'] <= tol:
        wrong.append(
            f'the pipeline treats an image and its rotation differently (error of the input '
            f'{rows["image"]["exact"]:.1e}): resize with mmrotate_plugin.SymmetricResize and set '
            'model.data_preprocessor.pad_size_divisor=1'
        )
    strides = {name: stride(size, claimed[name]['shape'][-2:]) for name in failed}
    uneven = {name: s for name, s in strides.items() if any((side - 1) % s for side in size)}
    if uneven:
        need = max(uneven.values())
        fitting = ' x '.join(str(max(side - 1, need) // need * need + 1) for side in reversed(size))
        wrong.append(
            f'the network sees {size[1]} x {size[0]} pixels, but sides must be {need}m + 1 for '
            f'{max(uneven, key=uneven.__getitem__)} (stride {need}) to keep the centre: resize to '
            f'{fitting}, with mmrotate_plugin.SymmetricResize and pad_size_divisor=1'
        )
    return wrong


def stride(size: Sequence[int], small: Sequence[int]) -> int:
    """The least power of two that takes the input's size to that of a map."""
    step = 1
    while step < max(size) and any(-(-side // step) > s for side, s in zip(size, small, strict=True)):
        step *= 2
    return step


def table(rows: Mapping[str, Mapping[str, Any]], plain: Mapping[str, Mapping[str, Any]]) -> str:
    """Rows of maps, columns of errors; behind them the change of the map, which puts them into proportion."""
    lines = [('map', 'size', 'claim', 'exact turns', 'change', '45 degrees', 'change', 'mean')]
    for label, part in (('', rows), ('plain ', plain)):
        for name, row in part.items():
            if name == 'image' and label:
                continue
            claim = row['group'] or ('pipeline' if name == 'image' else 'not claimed')
            size = ' x '.join(map(str, reversed(row['shape'][-2:])))
            values = [number(row[key]) for key in ('exact', 'change', 'at_45', 'change_at_45', 'mean')]
            if name == 'image':
                values[2:] = '-', '-', '-'  # other angles turn what the pipeline made
            lines.append((label + name, size, claim, *values))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return '\n'.join('  '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
                     for line in lines)  # fmt: skip


def number(value: float) -> str:
    return '-' if math.isnan(value) else 'other shape' if math.isinf(value) else f'{value:.1e}'


def draw_panels(model: 'nn.Module', plain: 'nn.Module | None', x: 'Tensor', group: str | None) -> 'list[PanelRow]':
    """The strongest channel of the first stage's map, for a quarter turn and for an eighth."""
    from mmrotate_plugin.testing import compare_fields, fade_to_disc, feature_fields, rotate
    from mmrotate_plugin.visualization.plots.equivariance import PanelRow

    networks = [(f'{type(model.backbone).__name__}{f" {group}" if group else ""}', model)]
    networks += [('plain ResNet', plain)] if plain is not None else []
    low, high = x.min(), x.max()
    rows = []
    for angle in (90.0, 45.0):
        whole = angle % 90 == 0
        source = x if whole else fade_to_disc(x)
        turned = rotate(source, angle)
        picture = ((turned[0] - low) / (high - low).clamp_min(1e-12)).permute(1, 2, 0).cpu().numpy()
        picture = picture[..., :3] if picture.shape[2] >= 3 else picture[..., :1].repeat(3, axis=2)
        for label, network in networks:
            before, after = feature_fields(network, source)[0], feature_fields(network, turned)[0]
            channel = int(before.values[0].flatten(1).var(dim=1).argmax())
            result = compare_fields([before], [after], angle, radius=None if whole else 0.8)
            rows.append(
                PanelRow(
                    f'{label}\n{angle:g} degrees',
                    picture,
                    before.values[0, channel].cpu().numpy(),
                    after.act(-angle)[0, channel].cpu().numpy(),
                    result.error[0],
                    result.change[0],
                )
            )
    return rows


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    from mmrotate_plugin.apis.run_command import run

    wrong: list[str] = []
    status = run(lambda args: wrong.extend(check(args)), args)
    for text in wrong:
        print(f'the claim does not hold: {text}', file=sys.stderr)
    return status or int(bool(wrong))


if __name__ == '__main__':
    sys.exit(main())
