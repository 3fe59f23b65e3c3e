"""Checks of the laws that the layers promise. They raise nothing: they measure.

A check that constant features pass proves nothing, so `equivariance_error` reports beside the error how much the
output changes under the action at all.

Exact are the quarter turns that the group contains, and for D_N their reflections: they map the pixel grid onto
itself. Under other angles grid and filters are sampled anew, so a map that commutes with all rotations of the plane
shows a small error there too.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .equivariant import ennGroupPool
from .equivariant.fields import parse_group


@dataclass(frozen=True)
class Fields:
    """A feature map that says what it promises.

    Attributes:
        name: Such as 'stage0'.
        values: (B, C, H, W), orientation fastest.
        group: The fiber group whose quarter turns (and reflections) it commutes with; None if it promises nothing.
        trivial: The map has no orientation channels: only its grid turns. So do all maps without a group.
    """

    name: str
    values: Tensor
    group: str | None
    trivial: bool = False

    def act(self, degrees: float, flip: bool = False) -> Tensor:
        """`act` on the values."""
        return act(self.values, None if self.trivial else self.group, degrees, flip)


Maps = Tensor | Sequence[Tensor | Fields]


@dataclass(frozen=True)
class EquivarianceError:
    r"""How far a map f is from commuting with a group element g, one number per output.

    Attributes:
        error: :math:`\|f(gx) - g f(x)\| / \|g f(x)\|`. Zero for an equivariant map.
        change: :math:`\|g f(x) - f(x)\| / \|g f(x)\|`. Near zero, the output hardly varies and `error` says nothing.
    """

    error: tuple[float, ...]
    change: tuple[float, ...]


@dataclass(frozen=True)
class EquivarianceCurve:
    """Equivariance errors over several angles; see `EquivarianceError` for what the numbers are.

    Attributes:
        degrees: The angles, counter-clockwise.
        error: For each output, by name: one number per angle.
        change: Likewise.
    """

    degrees: tuple[float, ...]
    error: dict[str, tuple[float, ...]]
    change: dict[str, tuple[float, ...]]


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
        x: (B, fields * ``|G|``, H, W), orientation fastest.
        group: Fiber group; its number of rotations must be a multiple of 4, or of 2 for half turns.
        quarter_turns: Counter-clockwise.
        flip: Reflect left-right first; for groups D_N.

    Returns:
        (B, fields * ``|G|``, H', W').

    Raises:
        ValueError: If the element is not in the group.
    """
    _check_element(group, quarter_turns, flip)
    return turn(_permute(x, group, quarter_turns * int(group[1:]) // 4, flip), quarter_turns, flip)


def _check_element(group: str, quarter_turns: int, flip: bool) -> None:
    parse_group(group)
    rotations = int(group[1:])
    if quarter_turns * rotations % 4:
        raise ValueError(
            f"group '{group}' has no turn by {90 * quarter_turns % 360} degrees: its turns are multiples of "
            f'{360 / rotations:g} degrees. Quarter turns need a group such as C4 or C8, half turns an even number'
        )
    if flip and group[0] != 'D':
        raise ValueError(f"group '{group}' has no reflections: use 'D{rotations}'")


def _permute(x: Tensor, group: str, steps: int, flip: bool) -> Tensor:
    """The orientation channels (B, fields * |G|, H, W) after a reflection if `flip` and `steps` of the rotations."""
    fiber = parse_group(group).fibergroup
    steps %= int(group[1:])
    element = (int(flip), steps) if group[0] == 'D' else steps
    permutation = torch.as_tensor(fiber.representations['regular'](element), dtype=torch.float64).argmax(1)
    b, c, h, w = x.shape
    return x.reshape(b, c // fiber.order(), fiber.order(), h, w)[:, :, permutation.to(x.device)].reshape(b, c, h, w)


def rotate(x: Tensor, degrees: float) -> Tensor:
    """Rotate a map counter-clockwise about its centre.

    Args:
        x: (B, C, H, W).
        degrees: Multiples of 90 move pixels and are exact; other angles interpolate linearly, with zeros outside of
            the map. (torch's cubic kernel, of a = -0.75, does not even keep straight lines.)

    Returns:
        (B, C, H, W); (B, C, W, H) for odd multiples of 90 degrees.
    """
    quarter_turns, rest = divmod(degrees, 90)
    if rest == 0:
        return x.rot90(int(quarter_turns) % 4, (-2, -1))
    (h, w), angle = x.shape[-2:], math.radians(degrees)
    rows = torch.arange(h, dtype=x.dtype, device=x.device)[:, None] - (h - 1) / 2
    columns = torch.arange(w, dtype=x.dtype, device=x.device) - (w - 1) / 2
    # where each pixel comes from; rows count downwards
    from_x = math.cos(angle) * columns - math.sin(angle) * rows
    from_y = math.sin(angle) * columns + math.cos(angle) * rows
    grid = torch.stack((from_x * 2 / max(w - 1, 1), from_y * 2 / max(h - 1, 1)), dim=-1)  # (H, W, 2)
    return F.grid_sample(x, grid.expand(len(x), h, w, 2), mode='bilinear', padding_mode='zeros', align_corners=True)


def act(x: Tensor, group: str | None, degrees: float, flip: bool = False) -> Tensor:
    """Act on regular fields by any angle: rotate (and first reflect) the grid, permute the orientation channels.

    Between the angles of the group the channels of its two nearest rotations are interpolated linearly, which is a
    convention, not a law.

    Args:
        x: (B, fields * ``|G|``, H, W), orientation fastest.
        group: Fiber group; None for trivial fields, of which only the grid turns.
        degrees: Counter-clockwise.
        flip: Reflect left-right first; for groups D_N, or None.

    Returns:
        As `rotate`.

    Raises:
        ValueError: For reflections of a group without any.
    """
    if group is not None:
        if flip and group[0] != 'D':
            raise ValueError(f"group '{group}' has no reflections: use 'D{group[1:]}'")
        steps = degrees * int(group[1:]) / 360
        below = math.floor(steps + 1e-6)
        part = steps - below
        turned = _permute(x, group, below, flip)
        x = turned if part < 1e-6 else torch.lerp(turned, _permute(x, group, below + 1, flip), part)
    return rotate(x.flip(-1) if flip else x, degrees)


def exact_elements(group: str) -> tuple[tuple[int, bool], ...]:
    """The elements of a group, without the identity, that map the pixel grid onto itself: (quarter turns, reflected).

    'C4' and 'C8' have three, 'C6' one (the half turn), 'C3' none; 'D4' has seven.
    """
    parse_group(group)
    rotations = int(group[1:])
    flips = (False, True) if group[0] == 'D' else (False,)
    elements = [(k, flip) for flip in flips for k in range(4) if k * rotations % 4 == 0]
    return tuple(element for element in elements if element != (0, False))


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
    _check_element(group, quarter_turns, flip)
    before, after = _fields(f(x), group), _fields(f(gx), group)
    return compare_fields(before, after, 90 * quarter_turns, flip)


def compare_fields(
    before: Sequence[Fields],
    after: Sequence[Fields],
    degrees: float,
    flip: bool = False,
    *,
    radius: float | None = None,
) -> EquivarianceError:
    """How far `after`, the maps of the turned input, are from the turned maps `before` of the input.

    Args:
        before, after: The same maps in the same order.
        degrees, flip: As in `act`.
        radius: Compare within a disc about the centre only, as a part of half the shorter side; None for everything.

    Returns:
        One number per map. A map of another shape than expected, or one that is not finite, has an infinite error;
        the change of a map that is not square is no number (NaN) under turns that exchange its sides.
    """
    errors, changes = [], []
    for y, y_turned in zip(before, after, strict=True):
        expected = y.act(degrees, flip)
        inside = 1.0 if radius is None else disc(expected.shape[-2:], radius).to(expected.device, torch.float64)
        pair = []
        for actual, otherwise in ((y_turned.values, math.inf), (y.values, math.nan)):
            if actual.shape != expected.shape:
                pair.append(otherwise)
                continue
            pair.append(relative_error(actual * inside, expected * inside))
        errors.append(math.inf if math.isnan(pair[0]) else pair[0])  # NaN would slip through comparisons
        changes.append(pair[1])
    return EquivarianceError(tuple(errors), tuple(changes))


def disc(size: Sequence[int], radius: float) -> Tensor:
    """(H, W) mask of the pixels within `radius` times half the shorter side of the centre; never empty."""
    h, w = size
    distance = _distance(h, w)
    return distance <= max(radius * (min(h, w) - 1) / 2, distance.min().item())


@torch.no_grad()
def equivariance_curve(
    f: Callable[[Tensor], Maps],
    x: Tensor,
    group: str | None = None,
    *,
    degrees: Sequence[float] = tuple(range(0, 360, 45)),
    radius: float = 0.8,
) -> EquivarianceCurve:
    """Relative equivariance errors over a circle of angles.

    Quarter turns are compared on whole maps. For other angles the input fades to zero towards the border of its
    inscribed disc, so that nothing leaves it and nothing new comes in, and the outputs are compared within `radius`;
    what remains is the error of f and that of interpolating a map of few pixels.

    Args:
        f: Maps (B, C, H, W) to one tensor or several, or to `Fields`, which know their group.
        x: (B, C, H, W) image, zero where nothing is to be seen.
        group: Fiber group of tensors; None for trivial fields, such as the maps of an ordinary network.
        degrees: Counter-clockwise; see `act` for angles that are not in the group.
        radius: Of the disc where outputs are compared, as a part of half the shorter side.

    Returns:
        The errors by the outputs' names: '0', '1', ... for tensors.
    """
    with full_precision():
        sources: dict[bool, tuple[Tensor, tuple[Fields, ...]]] = {}
        results = []
        for angle in degrees:
            whole = angle % 90 == 0
            if whole not in sources:
                source = x if whole else fade_to_disc(x)
                sources[whole] = source, _fields(f(source), group)
            source, before = sources[whole]
            after = _fields(f(rotate(source, angle)), group)
            results.append(compare_fields(before, after, angle, radius=None if whole else radius))
    names = [y.name for y in before] if results else []
    return EquivarianceCurve(
        tuple(degrees),
        {name: tuple(result.error[i] for result in results) for i, name in enumerate(names)},
        {name: tuple(result.change[i] for result in results) for i, name in enumerate(names)},
    )


def fade_to_disc(x: Tensor) -> Tensor:
    """(B, C, H, W) as it is in the inner nine tenths of its inscribed disc, falling to zero at the disc's border."""
    h, w = x.shape[-2:]
    part = _distance(h, w) / max((min(h, w) - 1) / 2, 1)
    return x * (0.5 + 0.5 * torch.cos(math.pi * ((part - 0.9) / 0.1).clamp(0, 1))).to(x)


def _distance(h: int, w: int) -> Tensor:
    """(H, W) pixels from the centre."""
    return torch.hypot(torch.arange(h)[:, None] - (h - 1) / 2, torch.arange(w) - (w - 1) / 2)


def _fields(maps: Maps, group: str | None) -> tuple[Fields, ...]:
    maps = (maps,) if isinstance(maps, Tensor) else tuple(maps)
    return tuple(y if isinstance(y, Fields) else Fields(str(i), y, group) for i, y in enumerate(maps))


def feature_fields(model: nn.Module, x: Tensor) -> tuple[Fields, ...]:
    """The maps of a detector's backbone and neck, with the group that each of them claims.

    Args:
        model: With `backbone` and perhaps `neck`; or a backbone. Call its `eval()` before.
        x: (B, C, H, W), after the data preprocessor.

    Returns:
        'stage0', ... (the backbone's, numbered by its `out_indices`), then 'level0', ... (the neck's). A part claims
        its attribute `group`; a neck that pools the orientations (`ReFPN(group_pool=...)`) has trivial fields.

    Raises:
        TypeError: If the backbone puts out something else than tensors.
    """
    backbone, neck = getattr(model, 'backbone', model), getattr(model, 'neck', None)
    stages = backbone(x)
    stages = (stages,) if isinstance(stages, Tensor) else tuple(stages)
    wrong = [type(y).__name__ for y in stages if not isinstance(y, Tensor)]
    if wrong:
        raise TypeError(f'the backbone {type(backbone).__name__} puts out {wrong[0]}; plain tensors can be checked')
    group = getattr(backbone, 'group', None)
    numbers = getattr(backbone, 'out_indices', range(len(stages)))
    found = [Fields(f'stage{i}', y, group) for i, y in zip(numbers, stages, strict=True)]
    if neck is not None:
        group = getattr(neck, 'group', None)
        pooled = any(isinstance(module, ennGroupPool) for module in neck.modules())
        found += [Fields(f'level{i}', y, group, trivial=pooled) for i, y in enumerate(neck(stages))]
    return tuple(found)


@contextmanager
def full_precision() -> Iterator[None]:
    """Convolutions of float32 in float32: on GPUs, cuDNN's default (TF32) has relative errors of 1e-3."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed


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
