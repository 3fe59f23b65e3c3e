"""Max and average pooling of maps."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .._compiler import constant_result, is_compiling, is_tracing
from ..gaussian import Gaussian, moment_rule
from .maxima import NO_INDICES, Size, like, max_over, single_precision, tree_max

SYMMETRIC = 5  # largest square window whose maximum commutes with turns; larger ones cost less row by row


@moment_rule(F.max_pool2d, torch.max_pool2d)
def max_pool2d(
    x: Gaussian,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Gaussian:
    r"""Maximum over windows, as a tree of pairwise maxima.

    Square windows of up to 5 pixels are reduced in an order that quarter turns and reflections do not change, so that
    the rule commutes with them; others over rows, then over columns.

    The maximum of :math:`N(\mu_1, v_1)` and :math:`N(\mu_2, v_2)`, where :math:`\mu_1 \ge \mu_2`, has with
    :math:`s = v_1 + v_2`, :math:`t = (\mu_1 - \mu_2) / \sqrt s` and :math:`e = \varphi(t) - t \Phi(-t)` the moments

    .. math::
        \mu' = \mu_1 + \rho \sqrt s\, e, \qquad v' = v_1 \Phi(t) + v_2 \Phi(-t) - \lambda s\, e (t + e)

    with :math:`\rho = \lambda = 1`, which is exact: Clark, The Greatest of a Finite Set of Random Variables, Operations
    Research 1961, eqs. 2 to 4, here without differences of large numbers. A maximum of maxima is **approximate**: those
    are skewed, and taken for Gaussian they lose 8 % of the standard deviation in a 3 x 3 window. Therefore
    :math:`\rho, \lambda` depend on the numbers of values on both sides such that equally distributed independent values
    get the exact moments. Variance zero gives `F.max_pool2d`.

    Args:
        x: (B, C, H, W) or (C, H, W).
        kernel_size, stride, padding, dilation, ceil_mode: As in `F.max_pool2d`.
        return_indices: Must be False.

    Raises:
        ValueError: If `return_indices` is set, the padding is larger than half the window, or the map has
            no rows or columns.
    """
    if return_indices:
        raise ValueError(NO_INDICES)
    kernel, pad, dilate = _pair(kernel_size), _pair(padding), _pair(dilation)
    step = _pair(kernel_size if stride is None or stride == [] else stride)
    for k, p in zip(kernel, pad, strict=True):
        if not 0 <= 2 * p <= k:
            raise ValueError(f'padding={padding} must be between 0 and half of kernel_size={kernel_size}')
    sizes = x.mu.shape[-2:]
    out = [_count_windows(*args, ceil_mode) for args in zip(sizes, kernel, step, pad, dilate, strict=True)]
    if 0 in sizes:  # padding alone
        raise ValueError(f'a map of {tuple(sizes)} has no value that could be the largest')
    if min(out) < 1:
        raise ValueError(f'kernel_size={kernel_size} with dilation={dilation} exceeds the padded map of {tuple(sizes)}')
    mean, var = (_kept(t) for t in single_precision(x))
    # what the last window lacks to the right: more than the padding with ceil_mode, less where the stride leaves a rest
    reach = [(o - 1) * s + d * (k - 1) + 1 for o, s, d, k in zip(out, step, dilate, kernel, strict=True)]
    right = [max(r - p - n, 0) for r, p, n in zip(reach, pad, sizes, strict=True)]
    taps = [
        [slice(i * d, i * d + (o - 1) * s + 1, s) for i in range(k)]
        for k, d, s, o in zip(kernel, dilate, step, out, strict=True)
    ]
    sides = list(zip((-2, -1), pad, right, strict=True))
    if kernel[0] == kernel[1] <= SYMMETRIC and step[0] == step[1] and dilate[0] == dilate[1]:
        mean, var = _padded(mean, sides, -math.inf), _padded(var, sides, 0.0)
        mean, var = _max_of_square(mean, var, *taps, gather=max(step) > 1)
        return like(x, mean, var)
    values = 1
    for (dim, p, r), line, k, s in zip(sides, taps, kernel, step, strict=True):
        mean, var = _padded(mean, [(dim, p, r)], -math.inf), _padded(var, [(dim, p, r)], 0.0)
        index = [(..., tap, slice(None)) if dim == -2 else (..., tap) for tap in line]
        means, variances = _gathered([mean[i] for i in index], [var[i] for i in index], dim == -1 and s > 1)
        mean, var = tree_max([(m, v, values) for m, v in zip(means, variances, strict=True)])
        values *= k
    return like(x, mean, var)


def _max_of_square(
    mean: Tensor, var: Tensor, rows: Sequence[slice], columns: Sequence[slice], *, gather: bool
) -> tuple[Tensor, Tensor]:
    """Maximum over small square windows, in an order that turns and reflections do not change.

    Positions that quarter turns take into each other are merged first, opposite ones before neighbours; then what
    reflections exchange; then from the centre outwards.
    """
    merged = []
    for ring in _rings(len(rows)):
        orbits = []
        for orbit in ring:
            places = [(..., rows[i], columns[j]) for i, j in orbit]
            means, variances = _gathered([mean[p] for p in places], [var[p] for p in places], gather)
            maximum = tree_max([(m, v, 1) for m, v in zip(means, variances, strict=True)])
            orbits.append((*maximum, len(orbit)))
        merged.append((*tree_max(orbits), sum(len(orbit) for orbit in ring)))
    return tree_max(merged)


@constant_result
def _rings(size: int) -> list[list[list[tuple[int, int]]]]:
    """Positions of a square window by distance from its centre, in orbits of the quarter turns, opposite ones first."""
    rings: dict[int, list[list[tuple[int, int]]]] = {}
    last, seen = size - 1, set()
    for i in range(size):
        for j in range(size):
            orbit = list(dict.fromkeys([(i, j), (last - i, last - j), (j, last - i), (last - j, i)]))
            if seen.isdisjoint(orbit):
                seen.update(orbit)
                rings.setdefault((2 * i - last) ** 2 + (2 * j - last) ** 2, []).append(orbit)
    return [rings[distance] for distance in sorted(rings)]


def _gathered(means: list[Tensor], variances: list[Tensor], copy: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Views, or one copy that gathers strided columns; three to five times as fast.

    Compiled, it is the other way round: maps are channels-last there, and views are read with vector instructions.
    """
    copy = copy and not is_compiling()
    return (list(torch.stack(means)), list(torch.stack(variances))) if copy else (means, variances)


@moment_rule(F.max_pool2d_with_indices, F.adaptive_max_pool2d_with_indices)
def max_pool2d_with_indices(*_: Any, **__: Any) -> None:
    """No rule, only an error that says why.

    Raises:
        ValueError: Always.
    """
    raise ValueError(NO_INDICES)


@moment_rule(F.adaptive_max_pool2d)
def adaptive_max_pool2d(x: Gaussian, output_size: Any, return_indices: bool = False) -> Gaussian:
    """Maximum over a given number of cells, which overlap where their number does not divide the size.

    **Approximate**, by the pairwise rule of `max_pool2d`.

    Args:
        x: (B, C, H, W) or (C, H, W).
        output_size: Rows and columns of cells; one number for both; None for the size of the input.
        return_indices: Must be False.

    Raises:
        ValueError: If `return_indices` is set, or the map has no rows or columns.
    """
    if return_indices:
        raise ValueError(NO_INDICES)
    if 0 in x.mu.shape[-2:]:
        raise ValueError(f'a map of {tuple(x.mu.shape[-2:])} has no value that could be the largest')
    mean, var = single_precision(x)
    values = 1
    for dim, cells in zip((-2, -1), _output_size(output_size, x.mu.shape[-2:]), strict=True):
        size = mean.shape[dim]
        spans = [(i * size // cells, -(-(i + 1) * size // cells)) for i in range(cells)]
        parts = [max_over(mean.narrow(dim, a, b - a), var.narrow(dim, a, b - a), dim, values=values) for a, b in spans]
        mean, var = (torch.cat(part, dim) for part in zip(*parts, strict=True))
        values *= -(-size // cells)
    return like(x, mean, var)


@moment_rule(F.avg_pool2d)
def avg_pool2d(
    x: Gaussian,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Gaussian:
    r"""Mean over windows: :math:`v' = \sum_i v_i / n^2`, with the divisor :math:`n` of the window.

    **Exact if independent**: variance of a weighted sum.

    Args:
        x: (B, C, H, W) or (C, H, W).
        kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override: As in `F.avg_pool2d`.
    """
    kernel, pad = _pair(kernel_size), _pair(padding)
    step = kernel if stride is None or stride == [] else _pair(stride)
    args = (kernel, step, pad, ceil_mode, count_include_pad, divisor_override)
    mean, var = F.avg_pool2d(x.mu, *args), F.avg_pool2d(x.v, *args)
    if divisor_override is not None:
        return Gaussian(mean, var / divisor_override)
    if not ceil_mode and (count_include_pad or not any(pad)):
        return Gaussian(mean, var / (kernel[0] * kernel[1]))
    counts = []
    for size, cells, k, s, p in zip(x.mu.shape[-2:], mean.shape[-2:], kernel, step, pad, strict=True):
        start = torch.arange(cells, device=mean.device) * s - p
        end = (start + k).clamp_max(size + p)  # with ceil_mode the last window may reach beyond the padding
        counts.append(end - start if count_include_pad else end.clamp_max(size) - start.clamp_min(0))
    return Gaussian(mean, var / (counts[0].unsqueeze(-1) * counts[1]))


@moment_rule(F.adaptive_avg_pool2d, torch._C._nn.adaptive_avg_pool2d)
def adaptive_avg_pool2d(x: Gaussian, output_size: Any) -> Gaussian:
    r"""Mean over a given number of cells: :math:`v' = \sum_i v_i / n^2`, with the cell's number of values :math:`n`.

    **Exact if independent**: variance of a weighted sum.

    Args:
        x: (B, C, H, W) or (C, H, W).
        output_size: Rows and columns of cells; one number for both; None for the size of the input.
    """
    sizes = x.mu.shape[-2:]
    cells = _output_size(output_size, sizes)
    mean, var = F.adaptive_avg_pool2d(x.mu, cells), F.adaptive_avg_pool2d(x.v, cells)
    if all(size % n == 0 for size, n in zip(sizes, cells, strict=True)):
        return Gaussian(mean, var / (sizes[0] // cells[0] * (sizes[1] // cells[1])))
    counts = []
    for size, n in zip(sizes, cells, strict=True):
        i = torch.arange(n, device=mean.device)
        counts.append(-(-(i + 1) * size // n) - i * size // n)
    return Gaussian(mean, var / (counts[0].unsqueeze(-1) * counts[1]))


def _kept(x: Tensor) -> Tensor:
    """The map itself; a compiler that would compute it anew for each place of a window is made to keep it."""
    # inductor stores the input of a pooling, here of single values
    return F.avg_pool2d(x, 1) if is_compiling() and not is_tracing() else x


def _padded(x: Tensor, sides: Sequence[tuple[int, int, int]], value: float) -> Tensor:
    """`x` with so many values before and after in each dimension (-2 or -1) that is named."""
    widths = {dim: (before, after) for dim, before, after in sides}
    pads = [*widths.get(-1, (0, 0)), *widths.get(-2, (0, 0))]
    return F.pad(x, pads, value=value) if any(pads) else x


def _count_windows(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    rest = size + 2 * padding - dilation * (kernel - 1) - 1
    count = (rest + (stride - 1 if ceil_mode else 0)) // stride + 1
    return count - 1 if ceil_mode and (count - 1) * stride >= size + padding else count


def _pair(value: Size) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    values = tuple(value)
    return (values[0], values[-1])


def _output_size(output_size: Any, sizes: Sequence[int]) -> tuple[int, int]:
    given = (output_size, output_size) if output_size is None or isinstance(output_size, int) else output_size
    rows, columns = (size if n is None else n for n, size in zip(given, sizes, strict=True))
    return rows, columns
