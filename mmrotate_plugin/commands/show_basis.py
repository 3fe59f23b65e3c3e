"""Draw the steerable basis of a layer."""

import argparse
from collections import defaultdict
from pathlib import Path

import torch

from ..apis.checkpoint import describe_model, load_weights, read_checkpoint
from ..apis.config import load_config
from ..apis.inference import build_model
from ..apis.runner import writable_folder
from ..equivariant import ennConv, ennTrivialConv
from ..equivariant.fields import DEFAULT_GROUP
from ..utils.atomic_files import write_whole
from ..utils.errors import UsageError
from ..visualization.plots import basis as pictures

DEFAULT_LAYER = 'backbone.conv1'


def show_basis(args: argparse.Namespace) -> None:
    """Print what a layer's basis consists of, and draw it."""
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


def make_layer(args: argparse.Namespace) -> tuple[ennConv | ennTrivialConv, str]:
    """Make the layer that the options describe, with initial weights, and a name for its files.

    Raises:
        UsageError: If there is no such layer.
    """
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


def find_layer(args: argparse.Namespace) -> tuple[ennConv | ennTrivialConv, str]:
    """Find a layer of a config's model, with the weights of the checkpoint if there is one; also return its path.

    Raises:
        UsageError: If the model cannot be built, the weights do not fit, or the layer is not steerable; the message
            names layers that are.
    """
    cfg = load_config(args.config, args.cfg_options)
    checkpoint = read_checkpoint(args.checkpoint, '--checkpoint') if args.checkpoint else None

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
