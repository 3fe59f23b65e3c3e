"""Checks of the laws that the layers promise. They raise nothing: they measure.

A check that constant features pass proves nothing, so `equivariance_error` reports beside the error how much the
output changes under the action at all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .equivariant.fields import parse_group

Maps = Tensor | Sequence[Tensor]


@dataclass(frozen=True)
class EquivarianceError:
    r"""How far a map f is from commuting with a group element g, one number per output.

    Attributes:
        error: :math:`\|f(gx) - g f(x)\| / \|g f(x)\|`. Zero for an equivariant map.
        change: :math:`\|g f(x) - f(x)\| / \|g f(x)\|`. Near zero, the output hardly varies and `error` says nothing.
    """

    error: tuple[float, ...]
    change: tuple[float, ...]


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of `expected`; computed in float64."""
    actual, expected = actual.double(), expected.double()
    return ((actual - expected).norm() / expected.norm().clamp_min(torch.finfo(torch.float64).tiny)).item()


def turn(x: Tensor, quarter_turns: int, flip: bool = False) -> Tensor:
    """Turn a map (..., H, W) counter-clockwise about its centre, after a left-right reflection if `flip`."""
    return (x.flip(-1) if flip else x).rot90(quarter_turns, (-2, -1))


def act_on_regular(x: Tensor, group: str, quarter_turns: int, flip: bool = False) -> Tensor:
    """Act on regular fields: turn (and reflect) the grid, and permute the orientation channels accordingly.

    Args:
        x: (B, fields * |G|, H, W), orientation fastest.
        group: Fiber group; its number of rotations must be a multiple of 4, or of 2 for half turns.
        quarter_turns: Counter-clockwise.
        flip: Reflect left-right first; for groups D_N.

    Returns:
        (B, fields * |G|, H', W').

    Raises:
        ValueError: If the element is not in the group.
    """
    fiber = parse_group(group).fibergroup
    rotations = int(group[1:])
    if quarter_turns * rotations % 4:
        raise ValueError(
            f"group '{group}' has no rotation by {quarter_turns} quarter turns: {rotations} must be even/4"
        )
    if flip and group[0] != 'D':
        raise ValueError(f"group '{group}' has no reflections: use 'D{rotations}'")
    steps = quarter_turns * rotations // 4 % rotations
    element = (int(flip), steps) if group[0] == 'D' else steps
    permutation = torch.as_tensor(fiber.representations['regular'](element), dtype=torch.float64).argmax(1)
    b, c, h, w = x.shape
    fields = x.reshape(b, c // fiber.order(), fiber.order(), h, w)[:, :, permutation.to(x.device)]
    return turn(fields.reshape(b, c, h, w), quarter_turns, flip)


@torch.no_grad()
def equivariance_error(
    f: Callable[[Tensor], Maps],
    x: Tensor,
    group: str,
    *,
    quarter_turns: int = 1,
    flip: bool = False,
    regular_input: bool = False,
) -> EquivarianceError:
    """Relative equivariance error of a network or layer with regular outputs (Weiler & Cesa, NeurIPS 2019).

    Args:
        f: Maps (B, C, H, W) to one tensor or several, each of regular fields.
        x: (B, C, H, W). Exact results need sizes whose strided grids stay centred: 32m + 1 for a ResNet.
        group: Fiber group of the outputs.
        quarter_turns: Counter-clockwise.
        flip: Reflect left-right first; for groups D_N.
        regular_input: `x` holds regular fields instead of an image.
    """
    gx = act_on_regular(x, group, quarter_turns, flip) if regular_input else turn(x, quarter_turns, flip)
    before, after = f(x), f(gx)
    pairs = zip(*((m,) if isinstance(m, Tensor) else tuple(m) for m in (before, after)), strict=True)
    errors, changes = [], []
    for y, y_turned in pairs:
        expected = act_on_regular(y, group, quarter_turns, flip)
        errors.append(relative_error(y_turned, expected))
        square = y.shape == expected.shape
        changes.append(relative_error(y, expected) if square else float('nan'))
    return EquivarianceError(tuple(errors), tuple(changes))


@torch.no_grad()
def randomize_norms_(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every norm random statistics and affine parameters: identity norms would hide a wrong one.

    Returns:
        The same module.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, values in [*module.named_parameters(), *module.named_buffers()]:
        parent, _, leaf = name.rpartition('.')
        if not isinstance(module.get_submodule(parent), (nn.modules.batchnorm._NormBase, nn.GroupNorm)):
            continue
        if leaf in ('weight', 'running_var'):
            values.copy_(torch.rand(values.shape, generator=generator) + 0.5)
        elif leaf in ('bias', 'running_mean'):
            values.copy_(torch.randn(values.shape, generator=generator) * 0.1)
    return module
