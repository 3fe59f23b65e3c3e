"""Exponential linear units: exact moments from those of ReLU and of a truncated log-normal variable."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..gaussian import Gaussian
from ..moment_rules import moment_rule
from .activations import as_type, relu

NEAR = 1e-9  # variance below which the moments are linear in it: rounding would spoil the difference of squares
ALPHA, SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946  # of SELU


def exponential_unit(x: Gaussian, alpha: float, rate: float) -> Gaussian:
    r"""Compute the moments of the function x above 0 and :math:`\alpha (e^{k x} - 1)` below: **exact**.

    It is :math:`r + \alpha (u - 1)` with :math:`r = \mathrm{relu}(x)`, :math:`u = e^{k \min(x, 0)}`, and
    :math:`z = \mu / \sigma`:

    .. math::
        E u^n = \Phi(z) + e^{n k \mu + n^2 k^2 v / 2} \Phi(-z - n k \sigma), \qquad
        \mathrm{Cov}(r, u) = E r\,(1 - E u)

    the latter because u is 1 wherever r is not 0. Computed in float64.

    Args:
        x: Any shape.
        alpha: Minus the limit at minus infinity.
        rate: k, above 0.
    """
    mu, given = x.mu.double(), x.v.double()
    var = given.clamp_min(NEAR)
    share = given / var
    std = var.sqrt()
    z = mu / std
    above = 0.5 * torch.erfc(-z / math.sqrt(2))
    first, second = (above + _below(mu, z, n * rate * std, n * rate) for n in (1, 2))
    up = relu(Gaussian(mu, var))
    mean = up.mu + alpha * (first - 1)
    spread = up.v + alpha**2 * (second - first.square()) + 2 * alpha * up.mu * (1 - first)
    centre = F.relu(mu) + alpha * torch.expm1(rate * mu.clamp_max(0))
    return as_type(x.dtype, centre + share * (mean - centre), share * spread.clamp_min(0))


def _below(mu: Tensor, z: Tensor, shift: Tensor, rate: float) -> Tensor:
    """Integrate exp(rate x) over x < 0, where an exponential times a tail may be infinity times 0."""
    a = (z + shift) / math.sqrt(2)
    inside = a < 0  # there the exponent is negative
    exponent = (rate * mu + 0.5 * shift.square()).clamp_max(0)
    direct = torch.exp(exponent) * 0.5 * torch.erfc(a.clamp_max(0))
    scaled = 0.5 * torch.special.erfcx(a.clamp_min(0)) * torch.exp(-0.5 * z.clamp(-38, 38).square())
    return torch.where(inside, direct, scaled)


@moment_rule(F.elu, F.elu_, torch._C._nn.elu, torch._C._nn.elu_)
def elu(x: Gaussian, alpha: float = 1.0, inplace: bool = False) -> Gaussian:  # noqa: ARG001
    """ELU by `exponential_unit`: **exact**. Clevert, Unterthiner & Hochreiter, ICLR 2016 (arXiv:1511.07289)."""
    return exponential_unit(x, alpha, 1.0)


@moment_rule(F.celu, F.celu_, torch.celu, torch.celu_)
def celu(x: Gaussian, alpha: float = 1.0, inplace: bool = False) -> Gaussian:  # noqa: ARG001
    """CELU, with the rate 1 / `alpha`, by `exponential_unit`: **exact**. Barron 2017 (arXiv:1704.07483)."""
    return exponential_unit(x, alpha, 1 / alpha)


@moment_rule(F.selu, F.selu_, torch.selu, torch.selu_)
def selu(x: Gaussian, inplace: bool = False) -> Gaussian:  # noqa: ARG001
    """SELU by `exponential_unit`: **exact**. Klambauer et al., NeurIPS 2017 (arXiv:1706.02515)."""
    out = exponential_unit(x, ALPHA, 1.0)
    return Gaussian(out.mu * SCALE, out.v * SCALE**2)
