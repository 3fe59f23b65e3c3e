"""Norms and dropout: the layers that differ between training and eval mode."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..deferred import Part, deferred
from ..gaussian import Gaussian
from ..moment_rules import moment_rule
from .linear import constants_only

HALF = (torch.float16, torch.bfloat16)


@moment_rule(F.batch_norm)
def batch_norm(
    x: Gaussian,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Gaussian:
    r"""Batch norm. **Exact** in eval mode; in training mode **approximate**.

    .. math::
        \mu' = \frac{\mu - m}{\sqrt{s + \epsilon}} w + b, \qquad v' = \frac{w^2}{s + \epsilon} v

    In eval mode m and s are the running statistics, constants (Gast & Roth, CVPR 2018). In training mode m is the mean
    over the batch and s the total variance,

    .. math::
        s = \mathrm{Var}(\mu) + \mathrm{E}[v]

    which is that of the Gaussians' mixture (law of total variance), so that scaling the input changes the result
    through eps only. The rule neglects that the batch's statistics are themselves random, with relative variance 1 / n
    for n values. Gradients flow through them. The running statistics learn the total variance, with torch's factor
    n / (n - 1). Ioffe & Szegedy, Batch Normalization, ICML 2015 (arXiv:1502.03167).

    Shape:
        - Input, output: (B, C, ...). Statistics, weight and bias: (C,).

    Raises:
        ValueError: In eval mode without running statistics; in training mode with one value per channel.
    """
    constants_only('batch_norm', weight=weight, bias=bias, running_mean=running_mean, running_var=running_var)
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError('batch norm in eval mode needs running_mean and running_var, but one of them is None')
        mean = F.batch_norm(x.mu, running_mean, running_var, weight, bias, False, momentum, eps)
        scale = 1 / (running_var + eps) if weight is None else weight.square() / (running_var + eps)
        later = deferred(mean, (Part(x.v, scale),))
        return Gaussian(mean, (x.v * _channels(scale, x)).to(mean.dtype) if later is None else later)
    if x.numel() == 0:
        return _of_nothing(x, weight, bias)
    n = x.numel() // x.size(1)
    if n < 2:
        raise ValueError(f'batch norm in training needs two values per channel, but the shape is {tuple(x.shape)}')
    if eps <= 0:
        raise ValueError(f'eps={eps} must be positive in training')
    dims = [d for d in range(x.dim()) if d != 1]
    out, mean, total = _standardize(x, dims, _per_channel(weight, x), _per_channel(bias, x), eps)
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean.detach().flatten().to(running_mean), momentum)
        if running_var is not None:
            running_var.lerp_((total.detach().flatten() * (n / (n - 1))).to(running_var), momentum)
    return out


def in_torchs_order(rule: Callable[..., Gaussian]) -> Callable[..., Gaussian]:
    """Adapt a rule for `F.batch_norm` to `torch.batch_norm`, which has its arguments in another order."""

    def batch_norm(
        x: Gaussian,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        training: bool,
        momentum: float,
        eps: float,
        cudnn_enabled: bool,  # noqa: ARG001  which of torch's kernels computes it
    ) -> Gaussian:
        return rule(x, running_mean, running_var, weight, bias, training, momentum, eps)

    return batch_norm


moment_rule(torch.batch_norm)(in_torchs_order(batch_norm))


@moment_rule(F.instance_norm)
def instance_norm(
    x: Gaussian,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Gaussian:
    """Instance norm: `batch_norm` with the statistics of each channel of each sample. **Approximate**.

    **Exact** with running statistics (`use_input_stats=False`). Running statistics learn the average over the batch.
    Ulyanov et al., Instance Normalization, 2016 (arXiv:1607.08022).

    Shape:
        - Input, output: (B, C, ...). Statistics, weight and bias: (C,).

    Raises:
        ValueError: If the input's statistics are used and a channel has one value.
    """
    constants_only('instance_norm', weight=weight, bias=bias, running_mean=running_mean, running_var=running_var)
    if not use_input_stats:
        return batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    if x.numel() == 0:
        return _of_nothing(x, weight, bias)
    b, c = x.shape[:2]
    n = x.numel() // (b * c)
    if n < 2:
        raise ValueError(f'instance norm needs two values per channel and sample, but the shape is {tuple(x.shape)}')
    out, mean, total = _standardize(x, list(range(2, x.dim())), _per_channel(weight, x), _per_channel(bias, x), eps)
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean.detach().reshape(b, c).mean(0).to(running_mean), momentum)
        if running_var is not None:
            unbiased = total.detach().reshape(b, c).mean(0) * (n / (n - 1))
            running_var.lerp_(unbiased.to(running_var), momentum)
    return out


def _of_nothing(x: Gaussian, weight: Tensor | None, bias: Tensor | None) -> Gaussian:
    """Normalise a batch without values: it changes no running statistics, but gradients pass."""
    scale, shift = _per_channel(weight, x), _per_channel(bias, x)
    mean = x.mu if scale is None else x.mu * scale
    var = x.v if scale is None else x.v * scale.square()
    return Gaussian(mean if shift is None else mean + shift, var)


@moment_rule(F.group_norm)
def group_norm(
    x: Gaussian, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Gaussian:
    """Group norm: the formula of `batch_norm` in training, over the channels of a group of one sample. **Approximate**.

    The mean of the means and the total variance of a group count as constants. The rule neglects that the sample's own
    noise moves them, an error of order 1 / n for a group of n values.
    Wu & He, Group Normalization, ECCV 2018 (arXiv:1803.08494).

    Shape:
        - Input, output: (B, C, ...). Weight and bias: (C,).

    Raises:
        ValueError: If `num_groups` does not divide C.
    """
    constants_only('group_norm', weight=weight, bias=bias)
    b, c, *sizes = x.shape
    if num_groups < 1 or c % num_groups:
        raise ValueError(f'num_groups={num_groups} does not divide the {c} channels')
    shape = (num_groups, c // num_groups, *[1] * len(sizes))
    grouped = Gaussian(
        x.mu.reshape(b, num_groups, c // num_groups, *sizes), x.v.reshape(b, num_groups, c // num_groups, *sizes)
    )
    weight, bias = (None if p is None else p.reshape(shape) for p in (weight, bias))
    out, _, _ = _standardize(grouped, list(range(2, grouped.dim())), weight, bias, eps)
    return Gaussian(out.mu.reshape(x.shape), out.v.reshape(x.shape))


@moment_rule(F.layer_norm)
def layer_norm(
    x: Gaussian,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Gaussian:
    """Layer norm: the formula of `batch_norm` in training, over the last dimensions of one sample. **Approximate**.

    The statistics count as constants, as in `group_norm`.
    Ba, Kiros & Hinton, Layer Normalization, 2016 (arXiv:1607.06450).

    Shape:
        - Input, output: a shape that ends in `normalized_shape`. Weight and bias: `normalized_shape`.

    Raises:
        ValueError: If the input's last dimensions differ.
    """
    constants_only('layer_norm', weight=weight, bias=bias)
    k = len(normalized_shape)
    if k == 0 or tuple(x.shape[-k:]) != tuple(normalized_shape):
        raise ValueError(f'normalized_shape={tuple(normalized_shape)} does not end the shape {tuple(x.shape)}')
    return _standardize(x, list(range(-k, 0)), weight, bias, eps)[0]


@moment_rule(F.dropout, torch.dropout, torch.dropout_)
def dropout(x: Gaussian, p: float = 0.5, training: bool = True, inplace: bool = False) -> Gaussian:  # noqa: ARG001
    r"""Dropout with a sampled mask, :math:`\mu' = k \mu` and :math:`v' = k^2 v`. **Exact** for that mask.

    k is 0 with probability p and 1 / (1 - p) otherwise, drawn as torch draws it: the same seed drops the same values of
    a plain tensor. It is the identity outside of training, and changes nothing in place. See `analytic_dropout` for
    the moments over all masks, and Loquercio et al., RA-L 2020, for sampled masks over ADF.

    Raises:
        ValueError: If `p` is not a probability.
    """
    return _masked(x, F.dropout(torch.ones_like(x.mu), p, True)) if training else x


@moment_rule(F.dropout1d, F.dropout2d, F.dropout3d, torch.feature_dropout, torch.feature_dropout_)
def feature_dropout(x: Gaussian, p: float = 0.5, training: bool = True, inplace: bool = False) -> Gaussian:  # noqa: ARG001
    """Dropout of whole channels, of the first two dimensions (B, C, ...), by the formula of `dropout`.

    Raises:
        ValueError: If `p` is not a probability.
    """
    if not training:
        return x
    if not 0 <= p <= 1:
        raise ValueError(f'p={p} must be a probability, from 0 to 1')
    return _masked(x, torch.feature_dropout(torch.ones_like(x.mu), p, True))


def analytic_dropout(x: Gaussian, p: float = 0.5) -> Gaussian:
    r"""Mean and variance over all masks of dropout, without sampling. **Exact if independent**.

    .. math::
        \mu' = \mu, \qquad v' = \frac{v + p \mu^2}{1 - p}

    from the first two moments of the product with a Bernoulli variable (Wang & Manning, Fast dropout training,
    ICML 2013). The values of `feature_dropout` have the same moments; its channels drop together.

    Args:
        x: Any shape.
        p: Probability of a zero, from 0 to below 1.

    Raises:
        ValueError: If `p` is out of range.
    """
    if not 0 <= p < 1:
        raise ValueError(f'p={p} must be a probability from 0 to below 1')
    mean = x.mu.float() if x.dtype in HALF else x.mu
    return Gaussian(x.mu, ((x.v + p * mean.square()) / (1 - p)).to(x.dtype))


def _masked(x: Gaussian, mask: Tensor) -> Gaussian:
    return Gaussian(x.mu * mask, x.v * mask * mask)


def _channels(values: Tensor, x: Gaussian) -> Tensor:
    """Reshape (C,) to broadcast with (B, C, ...)."""
    return values.reshape(-1, *[1] * (x.dim() - 2))


def _per_channel(values: Tensor | None, x: Gaussian) -> Tensor | None:
    return None if values is None else _channels(values, x)


def _standardize(
    x: Gaussian, dims: list[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Gaussian, Tensor, Tensor]:
    """Subtract the mean over `dims`, divide by the root of the total variance, and apply weight and bias.

    Returns:
        Result, mean and total variance; the last two keep `dims` with size one, in float32 for half types.
    """
    mean, var = (x.mu.float(), x.v.float()) if x.dtype in HALF else (x.mu, x.v)
    centre = mean.mean(dims, keepdim=True)
    centred = mean - centre
    # not by torch.var_mean, which takes 80 times as long as a mean (CPU, torch 2.12)
    total = centred.square().mean(dims, keepdim=True) + var.mean(dims, keepdim=True)
    scale = (total + eps).rsqrt() if weight is None else (total + eps).rsqrt() * weight
    mean = centred * scale if bias is None else torch.addcmul(bias, centred, scale)
    return Gaussian(mean.to(x.dtype), (var * scale.square()).to(x.dtype)), centre, total
