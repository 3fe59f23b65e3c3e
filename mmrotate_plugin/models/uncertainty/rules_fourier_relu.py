"""The moment rule of `ennFourierReLU`, whose samples between the orientations are not independent."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...adf import Gaussian, moment_rule
from ...equivariant.fourier_relu import fourier_pointwise as operation

SMALLEST_GAIN = 1e-6  # its square root has a slope, that of zero has not


@moment_rule(operation)
def fourier_pointwise(x: Gaussian, up: Tensor, function: Callable[[Any], Any]) -> Gaussian:
    r"""A function of finer samples of a field. **Approximate**: the standard deviation is 0 to 8 % too large.

    With :math:`z = U x`, whose moments are exact if the orientations are independent, and the moments of f(z):

    .. math::
        \mu' = D \mathrm{E}[f(z)], \qquad v'_i = \sum_j \Bigl(\sum_m D_{im} g_m U_{mj}\Bigr)^2 v_j, \qquad
        g_m^2 = \frac{\mathrm{Var}[f(z_m)]}{\mathrm{Var}[z_m]}, \qquad D = \tfrac{N}{M} U^T

    So the samples keep the correlations that U gives them, as if f were linear with gain g. Taking the M samples for
    independent, as the rules of U, f and D one by one would, loses 30 % of the standard deviation at each layer.

    Args:
        x: (B, C, H, W).
        up: U, (M, N).
        function: f, with a moment rule of its own.

    Shape:
        - Output: (B, C, H, W).
    """
    b, c, h, w = x.shape
    m, n = up.shape
    rings: Any = x.reshape(b, c // n, n, h * w)
    samples: Any = torch.matmul(up, rings)
    out = function(samples)
    down = up.t() * (n / m)
    smallest = torch.finfo(out.v.dtype).tiny
    gain = (out.v / samples.v.clamp_min(smallest)).clamp_min(SMALLEST_GAIN**2).sqrt()
    var = [  # orientation by orientation: all at once would take N times the memory of the map
        (torch.matmul((row.unsqueeze(1) * up).t(), gain).square() * rings.v).sum(2) for row in down
    ]
    mean = torch.matmul(down, out.mu)
    return Gaussian(mean.reshape(b, c, h, w), torch.stack(var, 2).reshape(b, c, h, w))
