#!/usr/bin/env python
"""Draw the steerable basis of a layer and what its coefficients mean: python tools/show_basis.py --trivial-input."""

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works uninstalled

if TYPE_CHECKING:
    from mmrotate_plugin.equivariant import ennConv, ennTrivialConv

DEFAULT_LAYER = 'backbone.conv1'
OF_A_LAYER = ('group', 'kernel_size', 'dilation', 'trivial_input', 'in_channels', 'out_channels')
OF_A_MODEL = ('checkpoint', 'layer', 'unsafe_checkpoint')


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Draw the steerable basis of a layer, its coefficients, and the filter that they add up to; print '
        'how many coefficients there are, and why.'
    )
    parser.add_argument('--out', default='work_dirs/basis', help='folder, or one .png (default: work_dirs/basis)')
    parser.add_argument('--seed', type=int, default=0, help='of coefficients as initialised (default 0)')
    parser.add_argument(
        '--field-pair',
        type=int,
        nargs=2,
        default=(0, 0),
        metavar=('INPUT', 'OUTPUT'),
        help='fields whose coefficients are drawn, counted from 0 (default 0 0)',
    )
    layer = parser.add_argument_group('a layer by its arguments')
    layer.add_argument('--group', help='fiber group: C4, C8, C16, D4, D8, ... (default C8)')
    layer.add_argument('--kernel-size', type=int, help='odd, pixels (default 7 with --trivial-input, else 3)')
    layer.add_argument('--dilation', type=int, help="spacing of the kernel's pixels (default 1)")
    layer.add_argument(
        '--trivial-input', action='store_true', default=None, help='from image channels instead of regular fields'
    )
    layer.add_argument('--in-channels', type=int, help='default 3 with --trivial-input, else 64')
    layer.add_argument('--out-channels', type=int, help='default 64')
    model = parser.add_argument_group('a layer of a model')
    model.add_argument('--config', help='config file of the model')
    model.add_argument('--checkpoint', help='its weights (default: as initialised)')
    model.add_argument('--layer', help=f'path of the layer in the model (default {DEFAULT_LAYER})')
    model.add_argument(
        '--unsafe-checkpoint',
        action='store_true',
        default=None,
        help='take any pickle for a checkpoint, and run what it says',
    )
    args = parser.parse_args(argv)
    if not 0 <= args.seed < 2**63:
        parser.error(f'--seed must be from 0 to 2**63 - 1, not {args.seed}')
    reason = 'has no effect on a layer of a --config' if args.config else 'needs a --config'
    for name in OF_A_LAYER if args.config else OF_A_MODEL:
        if getattr(args, name) is not None:
            parser.error(f'--{name.replace("_", "-")} {reason}')
    return args


def show_basis(args: argparse.Namespace) -> None:
    import torch

    from mmrotate_plugin.apis.runner import writable_folder
    from mmrotate_plugin.utils.atomic_files import write_whole
    from mmrotate_plugin.utils.errors import UsageError
    from mmrotate_plugin.visualization.plots import basis as pictures

    out = Path(args.out)
    one_file = out.suffix.lower() == '.png' and not out.is_dir()
    if out.suffix and not one_file and not out.is_dir():
        raise UsageError(f"--out '{out}' must end with .png, or be a folder")
    torch.manual_seed(args.seed)
    layer, name = find_layer(args) if args.config else make_layer(args)
    try:
        coefficients = pictures.field_pair(layer.weight, args.field_pair)
    except ValueError as error:
        raise UsageError(str(error)) from error
    folder = writable_folder(out.parent if one_file else out, '--out')

    for title, text in pictures.describe(layer):
        print(f'{title:14}{text}')
    pages: dict[Path, pictures.Page] = defaultdict(pictures.Page)
    for part, draw in pictures.parts(layer, coefficients).items():
        draw(pages[out if one_file else folder / f'{name}_{part}.png'])
    for path, page in pages.items():
        try:
            write_whole(path, page.png())
        except OSError as error:
            raise UsageError(f"--out '{path}' cannot be written: {error.strerror or error}") from error
        print(path)


def make_layer(args: argparse.Namespace) -> 'tuple[ennConv | ennTrivialConv, str]':
    """The layer of the arguments, as initialised, and a name for its files.

    Raises:
        UsageError: If there is no such layer; the message is the layer's own.
    """
    from mmrotate_plugin.equivariant import ennConv, ennTrivialConv
    from mmrotate_plugin.equivariant.fields import DEFAULT_GROUP
    from mmrotate_plugin.utils.errors import UsageError

    kind, channels, size = (ennTrivialConv, 3, 7) if args.trivial_input else (ennConv, 64, 3)

    def given(value: int | None, default: int) -> int:
        return default if value is None else value

    try:
        layer = kind(
            given(args.in_channels, channels),
            given(args.out_channels, 64),
            given(args.kernel_size, size),
            dilation=given(args.dilation, 1),
            bias=False,
            group=DEFAULT_GROUP if args.group is None else args.group,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    k, dilation = layer.kernel_size[0], layer.dilation[0]
    name = f'{layer.group.lower()}_{"trivial" if args.trivial_input else "regular"}_{k}x{k}'
    return layer, name + f'_dilation{dilation}' * (dilation > 1)


def find_layer(args: argparse.Namespace) -> 'tuple[ennConv | ennTrivialConv, str]':
    """The layer of a config's model, with the weights of the checkpoint if there is one, and its path.

    Raises:
        UsageError: If the model cannot be built, the weights do not fit, or the layer is not steerable; the message
            names layers that are.
    """
    from mmrotate_plugin.apis.checkpoint import describe_model, load_weights, read_checkpoint
    from mmrotate_plugin.apis.config import load_config
    from mmrotate_plugin.equivariant import ennConv, ennTrivialConv
    from mmrotate_plugin.utils.errors import UsageError

    cfg = load_config(args.config)
    checkpoint = read_checkpoint(args.checkpoint, '--checkpoint') if args.checkpoint else None

    from mmrotate_plugin.apis.inference import build_model

    model = build_model(cfg)
    if checkpoint is not None:
        load_weights(model, checkpoint, args.checkpoint)
    path = DEFAULT_LAYER if args.layer is None else args.layer
    modules = dict(model.named_modules())
    steerable = [name for name, module in modules.items() if isinstance(module, (ennConv, ennTrivialConv))]
    if path in steerable:
        return modules[path], path
    wrong = f"--layer '{path}' "
    wrong += (
        f'is a {type(modules[path]).__name__}, not a steerable convolution' if path in modules else 'does not exist'
    )
    if not steerable:
        raise UsageError(
            f'{wrong}; {describe_model(model)} has none: give it a backbone of type mmrotate_plugin.ReResNet'
        )
    inside = [name for name in steerable if name.startswith(f'{path}.')] or steerable
    more = f', ... ({len(inside)} in all)' if len(inside) > 5 else ''
    raise UsageError(f'{wrong}; these would work: {", ".join(inside[:5])}{more}')


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    from mmrotate_plugin.apis.run_command import run

    return run(show_basis, args)


if __name__ == '__main__':
    sys.exit(main())
