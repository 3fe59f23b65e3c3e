"""A box loss that knows how much noise moves each prediction."""

import math

import torch
from torch import Tensor, nn

from ...adf import Gaussian
from ...registry import MODELS, register

KINDS = ('gaussian', 'laplace')
REDUCTIONS = ('mean', 'sum', 'none')


@register(MODELS)
class HeteroscedasticLoss(nn.Module):
    r"""Negative log-likelihood of box targets under the variance that the network propagates.

    With the prediction's mean :math:`\mu` and propagated variance v, and :math:`s = g v + c` for each coordinate:

    .. math::
        \text{gaussian: } \tfrac12 \left( \log s + \frac{(y - \mu)^2}{s} \right), \qquad
        \text{laplace: } \log 2b + \frac{|y - \mu|}{b}, \quad b = \sqrt{s / 2}

    The first is Kendall & Gal, NeurIPS 2017 (arXiv:1703.04977), equation 5, with a variance that follows from the noise
    of the image instead of one that the network puts out. It goes with `torch.nn.GaussianNLLLoss`, and what a
    prediction is unsure of weighs less. A detector errs without noise too, and what its head sums is moved together, so
    g and c are learned, one of each for a coordinate; they are positive by their logarithms.

    It takes the place of `loss_bbox` (or `loss_angle`) of a dense head in an `UncertainDetector`, which hands it a
    `Gaussian`. Units are those in which the head gives boxes to its loss: deltas, or pixels where it decodes.

    Args:
        columns: Coordinates of a prediction: 4, 5 for rotated boxes, of `loss_angle` those of the angle's coder.
        kind: 'gaussian' or 'laplace', which outliers move less.
        gain: g to begin with: a variance, hence a number such as 100, for propagated variances without calibration.
        std: Square root of c to begin with, in units of the prediction.
        beta: Weight each term by :math:`s^\beta`, which has no gradient; 0 is the likelihood, with 1 large errors count
            in the mean as in a squared error. Seitzer et al., ICLR 2022 (arXiv:2203.09168).
        reduction: 'mean', 'sum' or 'none'.
        loss_weight: Factor.

    Shape:
        - pred: `Gaussian` (N, columns). target: (N, columns). weight: (N,) or (N, columns).
        - Output: a number; (N, columns) with 'none'.

    Raises:
        ValueError: For arguments out of range; predictions of another shape.
        TypeError: If the prediction has no variance.
    """

    def __init__(
        self,
        columns: int,
        *,
        kind: str = 'gaussian',
        gain: float = 1.0,
        std: float = 1.0,
        beta: float = 0.0,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        for name, value, choices in (('kind', kind, KINDS), ('reduction', reduction, REDUCTIONS)):
            if value not in choices:
                raise ValueError(f'{name}={value!r} is unknown: use one of {", ".join(map(repr, choices))}')
        for name, value in (('columns', columns), ('gain', gain), ('std', std)):
            if not 0 < value < math.inf:
                raise ValueError(f'{name}={value} must be a number above 0')
        if not 0 <= beta <= 1:
            raise ValueError(f'beta={beta} must be from 0 to 1')
        self.columns, self.kind, self.beta = columns, kind, beta
        self.reduction, self.loss_weight = reduction, loss_weight
        self.log_gain = nn.Parameter(torch.full((columns,), math.log(gain)))
        self.log_constant = nn.Parameter(torch.full((columns,), 2 * math.log(std)))

    def variance(self, pred: Gaussian) -> Tensor:
        """s, of the shape of `pred`."""
        return self.log_gain.exp() * pred.v + self.log_constant.exp()

    def forward(
        self,
        pred: Gaussian,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """As mmdet's losses; with `avg_factor` the 'mean' is the sum over it."""
        reduction = self.reduction if reduction_override is None else reduction_override
        if reduction not in REDUCTIONS:
            raise ValueError(f'reduction_override={reduction!r} is unknown: use one of {", ".join(REDUCTIONS)}')
        if avg_factor is not None and reduction != 'mean':
            raise ValueError(f"avg_factor={avg_factor} divides a 'mean', not a {reduction!r}")
        if not isinstance(pred, Gaussian):
            raise TypeError(
                'HeteroscedasticLoss got predictions without variance: put the detector into an enabled '
                'mmrotate_plugin.UncertainDetector, which propagates it'
            )
        if pred.ndim != 2 or pred.shape[1] != self.columns or pred.shape != target.shape:
            raise ValueError(
                f'pred is {tuple(pred.shape)}, target {tuple(target.shape)}; both must be (N, columns={self.columns})'
            )
        s = self.variance(pred)
        if self.kind == 'gaussian':
            loss = 0.5 * (s.log() + (target - pred.mu).square() / s)
        else:
            b = (s / 2).sqrt()
            loss = (2 * b).log() + (target - pred.mu).abs() / b
        if self.beta:
            loss = loss * s.detach() ** self.beta
        if weight is not None:
            loss = loss * (weight[:, None] if weight.dim() == 1 else weight)
        loss = self.loss_weight * loss
        if reduction == 'none':
            return loss
        total = loss.sum()
        if reduction == 'sum':
            return total
        return total / (max(loss.numel(), 1) if avg_factor is None else avg_factor)
