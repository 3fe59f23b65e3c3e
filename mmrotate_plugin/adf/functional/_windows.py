"""Pool windows and cells of any number of axes, for the rules of `pooling` and `pooling_nd`."""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels import moments, takes
from ...kernels.following import is_tracing
from .._compiler import constant_result, follows_gradient, is_compiling
from ..gaussian import Gaussian
from ._normal import Moments
from .maxima import NO_INDICES, Size, like, max_over, single_precision, tree_max

SYMMETRIC = 5  # largest square window whose maximum commutes with turns; larger ones cost less row by row


def sizes_of(value: Size, axes: int) -> tuple[int, ...]:
    """Expand a number to one per axis."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values


def max_pool(
    x: Gaussian,
    axes: int,
    kernel_size: Size,
    stride: Size | None,
    padding: Size,
    dilation: Size,
    ceil_mode: bool,
    return_indices: bool,
) -> Gaussian:
    """Take the maximum over windows of the last `axes` dimensions, see `pooling.max_pool2d`.

    Raises:
        ValueError: If `return_indices` is set, the padding is larger than half the window, or the map is empty.
    """
    if return_indices:
        raise ValueError(NO_INDICES)
    kernel, pad, dilate = (sizes_of(value, axes) for value in (kernel_size, padding, dilation))
    step = sizes_of(kernel_size if stride is None or stride == [] else stride, axes)
    for k, p in zip(kernel, pad, strict=True):
        if not 0 <= 2 * p <= k:
            raise ValueError(f'padding={padding} must be between 0 and half of kernel_size={kernel_size}')
    sizes = x.mu.shape[-axes:]
    out = [_count_windows(*args, ceil_mode) for args in zip(sizes, kernel, step, pad, dilate, strict=True)]
    _refuse_empty(sizes)
    if min(out) < 1:
        raise ValueError(f'kernel_size={kernel_size} with dilation={dilation} exceeds the padded map of {tuple(sizes)}')
    mean, var = single_precision(x)
    if axes == 2:
        mean, var = _stored(mean), _stored(var)
    # what the last window lacks to the right: more than the padding with ceil_mode, less where the stride leaves a rest
    reach = [(o - 1) * s + d * (k - 1) + 1 for o, s, d, k in zip(out, step, dilate, kernel, strict=True)]
    right = [max(r - p - n, 0) for r, p, n in zip(reach, pad, sizes, strict=True)]
    taps = [
        [slice(i * d, i * d + (o - 1) * s + 1, s) for i in range(k)]
        for k, d, s, o in zip(kernel, dilate, step, out, strict=True)
    ]
    sides = list(zip(range(-axes, 0), pad, right, strict=True))
    if axes == 2 and kernel[0] == kernel[1] <= SYMMETRIC and step[0] == step[1] and dilate[0] == dilate[1]:
        if takes(mean) and takes(var) and not follows_gradient(mean, var):
            window = (kernel[0], step[0], pad[0], pad[1], dilate[0])
            maps = mean.contiguous(), var.contiguous()
            return like(x, *moments.max_moments(*maps, (out[0], out[1]), window, *_merges(kernel[0])))
        mean, var = _padded(mean, sides, -math.inf), _padded(var, sides, 0.0)
        mean, var = _max_of_square(mean, var, *taps, gather=max(step) > 1)
        return like(x, mean, var)
    values = 1
    for (dim, p, r), line, k, s in zip(sides, taps, kernel, step, strict=True):
        mean, var = _padded(mean, [(dim, p, r)], -math.inf), _padded(var, [(dim, p, r)], 0.0)
        places: list[Any] = [(..., tap, *[slice(None)] * (-1 - dim)) for tap in line]
        means, variances = _gathered([mean[i] for i in places], [var[i] for i in places], dim == -1 and s > 1)
        mean, var = tree_max([(m, v, values) for m, v in zip(means, variances, strict=True)])
        values *= k
    return like(x, mean, var)


def adaptive_max_pool(x: Gaussian, axes: int, output_size: Any, return_indices: bool) -> Gaussian:
    """Take the maximum over a given number of cells of the last `axes` dimensions.

    Raises:
        ValueError: If `return_indices` is set, or the map is empty.
    """
    if return_indices:
        raise ValueError(NO_INDICES)
    sizes = x.mu.shape[-axes:]
    _refuse_empty(sizes)
    mean, var = single_precision(x)
    values = 1
    for dim, size, cells in zip(range(-axes, 0), sizes, _cells(output_size, sizes), strict=True):
        spans = [(i * size // cells, -(-(i + 1) * size // cells)) for i in range(cells)]
        parts = [max_over(mean.narrow(dim, a, b - a), var.narrow(dim, a, b - a), dim, values=values) for a, b in spans]
        mean, var = (torch.cat(part, dim) for part in zip(*parts, strict=True))
        values *= -(-size // cells)
    return like(x, mean, var)


def avg_pool(
    function: Callable[..., Tensor],
    x: Gaussian,
    axes: int,
    kernel_size: Size,
    stride: Size | None,
    padding: Size,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Gaussian:
    """Take the mean over windows of the last `axes` dimensions, see `pooling.avg_pool2d`."""
    kernel, pad = sizes_of(kernel_size, axes), sizes_of(padding, axes)
    step = kernel if stride is None or stride == [] else sizes_of(stride, axes)
    args = (kernel, step, pad, ceil_mode, count_include_pad, divisor_override)
    mean, var = function(x.mu, *args), function(x.v, *args)
    if divisor_override is not None:
        return Gaussian(mean, var / divisor_override)
    if not ceil_mode and (count_include_pad or not any(pad)):
        return Gaussian(mean, var / math.prod(kernel))
    counts = []
    for size, cells, k, s, p in zip(x.mu.shape[-axes:], mean.shape[-axes:], kernel, step, pad, strict=True):
        start = torch.arange(cells, device=mean.device) * s - p
        end = (start + k).clamp_max(size + p)  # with ceil_mode the last window may reach beyond the padding
        counts.append(end - start if count_include_pad else end.clamp_max(size) - start.clamp_min(0))
    return Gaussian(mean, var / _outer(counts))


def adaptive_avg_pool(function: Callable[..., Tensor], x: Gaussian, axes: int, output_size: Any) -> Gaussian:
    """Take the mean over a given number of cells of the last `axes` dimensions, see `pooling.adaptive_avg_pool2d`."""
    sizes = x.mu.shape[-axes:]
    cells = _cells(output_size, sizes)
    mean, var = function(x.mu, cells), function(x.v, cells)
    if all(size % n == 0 for size, n in zip(sizes, cells, strict=True)):
        values = 1
        for size, n in zip(sizes, cells, strict=True):
            values *= size // n
        return Gaussian(mean, var / values)
    counts = []
    for size, n in zip(sizes, cells, strict=True):
        i = torch.arange(n, device=mean.device)
        counts.append(-(-(i + 1) * size // n) - i * size // n)
    return Gaussian(mean, var / _outer(counts))


def _refuse_empty(sizes: Sequence[int]) -> None:
    if 0 in sizes:  # padding alone
        raise ValueError(f'a map of {tuple(sizes)} has no value that could be the largest')


def _max_of_square(
    mean: Tensor, var: Tensor, rows: Sequence[slice], columns: Sequence[slice], *, gather: bool
) -> Moments:
    """Take the maximum over small square windows, in an order that turns and reflections do not change.

    Positions that quarter turns exchange are merged first, opposite ones before neighbours; then those that
    reflections exchange; then from the centre outwards.
    """

    def values(orbit: Sequence[tuple[int, int]]) -> list[tuple[Tensor, Tensor, int]]:
        places = [(..., rows[i], columns[j]) for i, j in orbit]
        means, variances = _gathered([mean[p] for p in places], [var[p] for p in places], gather)
        return [(m, v, 1) for m, v in zip(means, variances, strict=True)]

    return _in_order(len(rows), values, tree_max)


def _in_order(size: int, values: Callable[[Any], Any], tree: Callable[[Any], Any]) -> Any:
    """Merge the values of a square window by a `tree`, orbit by orbit and ring by ring."""
    merged = []
    for ring in _rings(size):
        orbits = [(*tree(values(orbit)), len(orbit)) for orbit in ring]
        merged.append((*tree(orbits), sum(len(orbit) for orbit in ring)))
    return tree(merged)


@cache
def _merges(size: int) -> tuple[list[int], list[float]]:
    """List the pairs of positions in the order in which `_max_of_square` merges them, and rho and lambda of each."""
    places: list[int] = []
    corrections: list[float] = []

    def note(a: Any, _: Any, b: Any, __: Any, rho: float, lam: float) -> tuple[Any, Any]:
        places.extend((a, b))
        corrections.extend((rho, lam))
        return a, None

    _in_order(size, lambda orbit: [(size * i + j, None, 1) for i, j in orbit], partial(tree_max, pair=note))
    return places, corrections


@constant_result
def _rings(size: int) -> list[list[list[tuple[int, int]]]]:
    """Group positions of a square window by distance from its centre and by orbit of the quarter turns.

    Opposite positions of an orbit come first.
    """
    rings: dict[int, list[list[tuple[int, int]]]] = {}
    seen: set[tuple[int, int]] = set()
    last = size - 1
    for i in range(size):
        for j in range(size):
            orbit = list(dict.fromkeys([(i, j), (last - i, last - j), (j, last - i), (last - j, i)]))
            if seen.isdisjoint(orbit):
                seen.update(orbit)
                rings.setdefault((2 * i - last) ** 2 + (2 * j - last) ** 2, []).append(orbit)
    return [rings[distance] for distance in sorted(rings)]


def _gathered(means: list[Tensor], variances: list[Tensor], copy: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Return the views, or with `copy` one copy that gathers strided columns, which is three to five times as fast.

    Compiled, views are faster: maps are channels-last there, and views are read with vector instructions.
    """
    copy = copy and not is_compiling()
    return (list(torch.stack(means)), list(torch.stack(variances))) if copy else (means, variances)


def _stored(x: Tensor) -> Tensor:
    """Return the map itself, but make a compiler store it rather than recompute it for each place of a window."""
    # inductor stores the input of a pooling, here of single values
    return F.avg_pool2d(x, 1) if is_compiling() and not is_tracing() else x


def _padded(x: Tensor, sides: Sequence[tuple[int, int, int]], value: float) -> Tensor:
    """Pad dimensions of `x`, each given as (dimension, number before, number after) in ascending order."""
    pads = [0, 0] * (-1 - sides[-1][0])
    for _, before, after in reversed(sides):
        pads += [before, after]
    return F.pad(x, pads, value=value) if any(pads) else x


def _count_windows(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    rest = size + 2 * padding - dilation * (kernel - 1) - 1
    count = (rest + (stride - 1 if ceil_mode else 0)) // stride + 1
    return count - 1 if ceil_mode and (count - 1) * stride >= size + padding else count


def _cells(output_size: Any, sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the number of cells of each axis; None means the size of the input."""
    given = [output_size] * len(sizes) if output_size is None or isinstance(output_size, int) else output_size
    return tuple(size if n is None else n for n, size in zip(given, sizes, strict=True))


def _outer(counts: Sequence[Tensor]) -> Tensor:
    """Multiply numbers per axis to numbers per window."""
    out = counts[0]
    for count in counts[1:]:
        out = out.unsqueeze(-1) * count
    return out
