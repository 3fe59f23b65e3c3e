"""Piecewise polynomial activations: exact moments."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..gaussian import Gaussian
from ..moment_rules import moment_rule
from .activations import as_type, clamp, leaky_relu

Polynomial = tuple[float, float, float]  # constant, slope, coefficient of the square
FAR = 38.0  # standard deviations beyond which the normal density is 0 in float64
TINY = 1e-30  # variance below which the moments are linear in it


def piecewise(x: Gaussian, bounds: Sequence[float], pieces: Sequence[Polynomial]) -> Gaussian:
    r"""Compute the moments of a function that is a polynomial of degree 2 at most between bounds: **exact**.

    With :math:`x = \mu + \sigma z` each piece is :math:`f(\mu) + \sum_k a_k z^k`, and its share of both moments is a
    sum of

    .. math::
        M_k = \int_\alpha^\beta z^k \varphi(z)\,dz = (k - 1) M_{k-2} + \alpha^{k-1} \varphi(\alpha)
        - \beta^{k-1} \varphi(\beta)

    Subtracting :math:`f(\mu)` first leaves nothing large to cancel. It is computed in float64.

    Args:
        x: Any shape.
        bounds: Ascending bounds; the function need not be continuous there.
        pieces: Polynomials, one more than bounds.
    """
    mu, var = x.mu.double(), x.v.double()
    wide = var.clamp_min(TINY)
    std, share = wide.sqrt(), var / wide
    edges = [((bound - mu) / std).clamp(-FAR, FAR) for bound in bounds]
    edges = [torch.full_like(mu, -FAR), *edges, torch.full_like(mu, FAR)]
    centre = _at(mu, bounds, pieces)
    first, second = torch.zeros_like(mu), torch.zeros_like(mu)
    for (a, b, c), low, high in zip(pieces, edges, edges[1:], strict=False):
        moments = _partial_moments(low, high)
        terms = (a + mu * (b + c * mu) - centre, std * (b + 2 * c * mu), c * wide)
        first = first + sum(t * m for t, m in zip(terms, moments, strict=False))
        second = second + sum(s * t * moments[i + j] for i, s in enumerate(terms) for j, t in enumerate(terms))
    spread = (second - first.square()).clamp_min(0)
    return as_type(x.dtype, centre + share * first, share * spread)


def _at(values: Tensor, bounds: Sequence[float], pieces: Sequence[Polynomial]) -> Tensor:
    out = pieces[0][0] + values * (pieces[0][1] + pieces[0][2] * values)
    for bound, (a, b, c) in zip(bounds, pieces[1:], strict=True):
        out = torch.where(values > bound, a + values * (b + c * values), out)
    return out


def _partial_moments(low: Tensor, high: Tensor) -> list[Tensor]:
    """Compute the moments of order 0 to 4 of the normal density between two bounds."""
    density = [torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi) for z in (low, high)]
    # the tail on the side where both are small
    flip = (low > 0).to(low.dtype) * 2 - 1
    tails = [0.5 * torch.erfc(flip * z / math.sqrt(2)) for z in (low, high)]
    moments = [flip * (tails[0] - tails[1]), density[0] - density[1]]
    for k in range(2, 5):
        edge = low ** (k - 1) * density[0] - high ** (k - 1) * density[1]
        moments.append((k - 1) * moments[k - 2] + edge)
    return moments


@moment_rule(F.hardswish, torch._C._nn.hardswish, torch._C._nn.hardswish_)
def hardswish(x: Gaussian, inplace: bool = False) -> Gaussian:  # noqa: ARG001  a Gaussian is never changed in place
    """Hard swish, x relu6(x + 3) / 6, by `piecewise`: **exact**.

    Howard et al., Searching for MobileNetV3, ICCV 2019 (arXiv:1905.02244).
    """
    return piecewise(x, (-3.0, 3.0), ((0.0, 0.0, 0.0), (0.0, 0.5, 1 / 6), (0.0, 1.0, 0.0)))


@moment_rule(F.hardsigmoid, torch._C._nn.hardsigmoid, torch._C._nn.hardsigmoid_)
def hardsigmoid(x: Gaussian, inplace: bool = False) -> Gaussian:  # noqa: ARG001
    """Hard sigmoid, relu6(x + 3) / 6, by `activations.clamp`: **exact**."""
    out = clamp(Gaussian(x.mu + 3, x.v), 0.0, 6.0)
    return Gaussian(out.mu / 6, out.v / 36)


@moment_rule(F.softshrink, torch._C._nn.softshrink)
def softshrink(x: Gaussian, lambd: float = 0.5) -> Gaussian:
    """Soft shrinkage, towards 0 by `lambd`, by `piecewise`: **exact**."""
    return piecewise(x, (-lambd, lambd), ((lambd, 1.0, 0.0), (0.0, 0.0, 0.0), (-lambd, 1.0, 0.0)))


@moment_rule(F.threshold, torch.threshold, torch.threshold_)
def threshold(x: Gaussian, threshold: float, value: float, inplace: bool = False) -> Gaussian:  # noqa: ARG001
    """Replace values that are not above `threshold` by `value`, by `piecewise`: **exact**."""
    return piecewise(x, (threshold,), ((value, 0.0, 0.0), (0.0, 1.0, 0.0)))


@moment_rule(F.rrelu, torch.rrelu, torch.rrelu_)
def rrelu(
    x: Gaussian,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    inplace: bool = False,  # noqa: ARG001
) -> Gaussian:
    """Randomised leaky ReLU: in eval mode `activations.leaky_relu` with the mean slope, **exact**.

    In training mode a slope is drawn for each value, and the moments are **exact** for those slopes.
    """
    slope = (lower + upper) / 2
    if not training:
        return leaky_relu(x, slope)
    slopes = torch.empty_like(x.mu).uniform_(lower, upper)
    up, down = leaky_relu(x, 0.0), leaky_relu(Gaussian(-x.mu, x.v), 0.0)
    var = up.v + slopes * (slopes * down.v + 2 * up.mu * down.mu)
    return Gaussian(up.mu - slopes * down.mu, var)
