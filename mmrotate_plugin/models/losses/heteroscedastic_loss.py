"""A box loss under the variance that a network propagates to its predictions."""

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

    The first is equation 5 of Kendall & Gal, NeurIPS 2017 (arXiv:1703.04977), with a variance that follows from the
    noise of the image instead of one that the network predicts; `torch.nn.GaussianNLLLoss` computes the same. Uncertain
    predictions weigh less. A detector also errs without noise, and the inputs of a sum in its head move together, so
    g and c are learned, one of each per coordinate; learning their logarithms keeps them positive.

    It replaces `loss_bbox` (or `loss_angle`) of a dense head in an `UncertainDetector`, which hands it a `Gaussian`.
    Its units are those in which the head gives boxes to its loss: deltas, or pixels if it decodes them.

    Args:
        columns: Coordinates of a prediction: 4, or 5 for rotated boxes; for `loss_angle`, those of the angle's coder.
        kind: 'gaussian', or 'laplace', which is less sensitive to outliers.
        gain: Initial g: a variance, so numbers such as 100 are usual for propagated variances without calibration.
        std: Initial square root of c, in units of the prediction.
        beta: Weight each term by :math:`s^\beta`, without gradient. 0 is the likelihood; with 1, large errors count in
            the mean as in a squared error. Seitzer et al., ICLR 2022 (arXiv:2203.09168).
        reduction: 'mean', 'sum' or 'none'.
        loss_weight: Factor of the loss.

    Shape:
        - pred: `Gaussian` (N, columns).
        - target: (N, columns).
        - weight: (N,) or (N, columns).
        - Output: a scalar; (N, columns) with 'none'.

    Raises:
        ValueError: For arguments out of range, or predictions of another shape.
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
        for name, number in (('columns', columns), ('gain', gain), ('std', std)):
            if not 0 < number < math.inf:
                raise ValueError(f'{name}={number} must be finite and positive')
        if not 0 <= beta <= 1:
            raise ValueError(f'beta={beta} must be between 0 and 1')
        self.columns, self.kind, self.beta = columns, kind, beta
        self.reduction, self.loss_weight = reduction, loss_weight
        self.log_gain = nn.Parameter(torch.full((columns,), math.log(gain)))
        self.log_constant = nn.Parameter(torch.full((columns,), 2 * math.log(std)))

    def variance(self, pred: Gaussian) -> Tensor:
        """Compute s, the variance of the error, (N, columns)."""
        return self.log_gain.exp() * pred.v + self.log_constant.exp()

    def forward(
        self,
        pred: Gaussian,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Compute the loss, called as mmdet's losses are; with `avg_factor`, the 'mean' is the sum divided by it."""
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
