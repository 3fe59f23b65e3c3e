"""Measure how far a map is from commuting with a group, on whole maps and over a circle of angles.

A check that constant features pass proves nothing, so each error comes with the change: how much the output changes
under the action at all.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from .actions import act, act_on_regular, check_element, rotate, turn


@dataclass(frozen=True)
class Fields:
    """A feature map together with the law that it promises.

    Attributes:
        name: Name such as 'stage0'.
        values: (B, C, H, W), orientation fastest.
        group: Fiber group whose quarter turns (and reflections) the map commutes with; None if it promises nothing.
        trivial: Whether the map has no orientation channels, so that only its grid turns, as for all maps without a
            group.
    """

    name: str
    values: Tensor
    group: str | None
    trivial: bool = False

    def act(self, degrees: float, flip: bool = False) -> Tensor:
        """Act on the values, see `actions.act`."""
        return act(self.values, None if self.trivial else self.group, degrees, flip)


Maps = Tensor | Sequence[Tensor | Fields]


@dataclass(frozen=True)
class EquivarianceError:
    r"""Distance of a map f from commuting with a group element g, one number per output.

    Attributes:
        error: :math:`\|f(gx) - g f(x)\| / \|g f(x)\|`. Zero for an equivariant map.
        change: :math:`\|g f(x) - f(x)\| / \|g f(x)\|`. Near zero the output hardly varies, and `error` says nothing.
    """

    error: tuple[float, ...]
    change: tuple[float, ...]


@dataclass(frozen=True)
class EquivarianceCurve:
    """Equivariance errors over several angles; see `EquivarianceError` for their definition.

    Attributes:
        degrees: Angles, counter-clockwise.
        error: Error of each output, by name: one number per angle.
        change: Change of each output, likewise.
    """

    degrees: tuple[float, ...]
    error: dict[str, tuple[float, ...]]
    change: dict[str, tuple[float, ...]]


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference over the norm of `expected`, in float64."""
    actual, expected = actual.double(), expected.double()
    return ((actual - expected).norm() / expected.norm().clamp_min(torch.finfo(torch.float64).tiny)).item()


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
    """Measure the relative equivariance error of a network or layer with regular outputs.

    Weiler & Cesa, General E(2)-Equivariant Steerable CNNs, NeurIPS 2019 (arXiv:1911.08251).

    Args:
        f: Map from (B, C, H, W) to one tensor or several, each of regular fields.
        x: Input, (B, C, H, W). Exact results need sizes whose strided grids stay centred: 32m + 1 for a ResNet.
        group: Fiber group of the outputs.
        quarter_turns: Number of quarter turns, counter-clockwise.
        flip: Whether to reflect left-right first; for groups D_N.
        regular_input: Whether `x` holds regular fields instead of an image.

    Returns:
        One error and one change per output.

    Raises:
        ValueError: If the group does not contain the element.

    Example:
        >>> import torch
        >>> from mmrotate_plugin.equivariant import ennTrivialConv
        >>> from mmrotate_plugin.testing import equivariance_error
        >>> image = torch.randn(1, 3, 33, 33)
        >>> equivariant = equivariance_error(ennTrivialConv(3, 16, 5, group='C8'), image, 'C8')
        >>> ordinary = equivariance_error(torch.nn.Conv2d(3, 16, 5), image, 'C8')
        >>> equivariant.error[0] < 1e-4 < 0.1 < ordinary.error[0]
        True
    """
    gx = act_on_regular(x, group, quarter_turns, flip) if regular_input else turn(x, quarter_turns, flip)
    check_element(group, quarter_turns, flip)
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
    """Compare `after`, the maps of the turned input, with the turned maps `before` of the input.

    Args:
        before, after: The same maps in the same order.
        degrees, flip: As in `actions.act`.
        radius: Radius of a disc about the centre to compare within, in units of half the shorter side; None compares
            everything.

    Returns:
        One number per map. A map that is not finite, or not of the expected shape, has an infinite error. The change of
        a map that is not square is NaN under turns that exchange its sides.
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
    """Make a mask (H, W) of the pixels within `radius` times half the shorter side of the centre; never empty."""
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
    """Measure relative equivariance errors over a circle of angles.

    Quarter turns are compared on whole maps. For other angles the input fades to zero towards the border of its
    inscribed disc, so that nothing leaves it and nothing new enters, and the outputs are compared within `radius`.
    The rest is the error of f, plus that of interpolating a map of few pixels.

    Args:
        f: Map from (B, C, H, W) to one tensor or several, or to `Fields`, which know their group.
        x: Image, (B, C, H, W), zero outside of its content.
        group: Fiber group of tensors; None for trivial fields, such as the maps of an ordinary network.
        degrees: Angles, counter-clockwise; see `actions.act` for angles that are not in the group.
        radius: Radius of the disc where outputs are compared, in units of half the shorter side.

    Returns:
        Errors by the names of the outputs: '0', '1', ... for tensors.
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
    """Fade (B, C, H, W) to zero over the outer tenth of its inscribed disc."""
    h, w = x.shape[-2:]
    part = _distance(h, w) / max((min(h, w) - 1) / 2, 1)
    return x * (0.5 + 0.5 * torch.cos(math.pi * ((part - 0.9) / 0.1).clamp(0, 1))).to(x)


def _distance(h: int, w: int) -> Tensor:
    """Return distances (H, W) from the centre in pixels."""
    return torch.hypot(torch.arange(h)[:, None] - (h - 1) / 2, torch.arange(w) - (w - 1) / 2)


def _fields(maps: Maps, group: str | None) -> tuple[Fields, ...]:
    maps = (maps,) if isinstance(maps, Tensor) else tuple(maps)
    return tuple(y if isinstance(y, Fields) else Fields(str(i), y, group) for i, y in enumerate(maps))


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute float32 convolutions in float32: on GPUs, cuDNN's default (TF32) has relative errors of 1e-3."""
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
