"""The linearised variance of chosen outputs: all covariances inside the network are in it."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from ._eval_mode import eval_mode
from .gaussian import Gaussian
from .input_noise import Noise, expand_noise

CONSTANT = 'the outputs do not depend on the input by differentiable steps: their variance is unknown'

Outputs = Callable[[Any], Tensor] | Tensor


def jacobian_variance(
    model: nn.Module | Callable[[Tensor], Any],
    x: Tensor | Gaussian,
    outputs: Outputs,
    *,
    noise_variance: Noise | None = None,
    chunk_size: int = 8,
) -> Tensor:
    r"""Variance of chosen outputs y of a network under independent noise on its input, to first order.

    .. math::
        \mathrm{Var}(y_j) = \sum_i \left( \frac{\partial y_j}{\partial x_i} \right)^2 v_i

    by one backward pass per output. In contrast to the moment rules it neglects no covariance between values inside
    the network; it is **exact** for a linear network and **approximate** where the network bends within the noise (the
    delta method; Benaroya, Han & Nagurka, Probability Models in Engineering and Science, CRC 2005). The
    cost is that of a backward pass per output, so it suits scores and boxes, not maps.

    The model is run in eval mode, where the samples of a batch do not see each other, and left in the mode it had.
    Gradients of parameters are not touched.

    Args:
        model: Any module or function of one tensor.
        x: The input, (B, ...); or a `Gaussian`, which holds the noise.
        outputs: A function from what the model returns to a tensor of the chosen values; or a tensor of indices into
            the output of one sample, flattened, the same for all samples.
        noise_variance: Variance of the input: a number, one per channel, or a tensor like `x`. In the squared units of
            `x`. None if `x` is a `Gaussian`.
        chunk_size: Backward passes at a time, each of which takes memory. They run one by one if an operation cannot
            be batched.

    Returns:
        Variance of each output: the shape of what the function returned, or (B, number of indices).

    Raises:
        TypeError: If what is returned or chosen is no tensor of floating-point numbers.
        ValueError: If an argument is out of range or missing, or the outputs do not depend on the
            input by differentiable steps.
    """
    if isinstance(x, Gaussian):
        if noise_variance is not None:
            raise ValueError('noise_variance must be None where x is a Gaussian: its variance is the noise')
        values, variance = x.mu, x.v
    else:
        if noise_variance is None:
            raise ValueError('noise_variance is missing: give the variance of the input, or a Gaussian for x')
        values, variance = x, expand_noise(noise_variance, x)
    if chunk_size < 1:
        raise ValueError(f'chunk_size={chunk_size} must be 1 or more')
    # values made in inference mode cannot be differentiated: copies made outside of it can
    with torch.inference_mode(False), torch.enable_grad(), eval_mode(model):
        leaf = values.detach().clone().requires_grad_()
        variance = variance.detach().clone()
        out = model(leaf.clone())  # the clone, because a model may work in place
        if not isinstance(outputs, Tensor):
            chosen = _values(outputs(out), 'outputs must choose')
            return variances(chosen.reshape(-1), leaf, variance, chunk_size).sum(1).reshape(chosen.shape)
        # samples do not see each other in eval mode: one pass for all of them
        chosen = _select(out, outputs, len(values))  # (B, K)
        return variances(chosen.sum(0), leaf, variance, chunk_size).T.contiguous()


def _values(out: Any, what: str) -> Tensor:
    """The mean of a Gaussian, or the tensor itself."""
    out = out.mu if isinstance(out, Gaussian) else out
    if not isinstance(out, Tensor) or not out.is_floating_point():
        kind = out.dtype if isinstance(out, Tensor) else type(out).__name__
        raise TypeError(f'{what} a tensor of floating-point numbers, but it is {kind}')
    return out


def _select(out: Any, index: Tensor, batch: int) -> Tensor:
    """The outputs at `index` of each sample: (B, K)."""
    if isinstance(out, (tuple, list, dict)):
        raise TypeError(f'the model returns a {type(out).__name__}: give a function that chooses for outputs')
    out = _values(out, 'the model must return')
    if out.dim() == 0 or len(out) != batch:
        raise ValueError(f'the model must return ({batch}, ...) for {batch} samples, but returns {tuple(out.shape)}')
    if index.is_floating_point() or index.dtype == torch.bool:
        raise TypeError(f'outputs must hold integers, but its dtype is {index.dtype}')
    out, index = out.reshape(batch, -1), index.reshape(-1)
    size = out.shape[1]
    if len(index) and not (-size <= int(index.min()) and int(index.max()) < size):
        raise ValueError(f'outputs={index.tolist()} goes beyond the {size} outputs of a sample')
    return torch.stack([out[:, i] for i in index.tolist()], 1) if len(index) else out[:, :0]


def variances(flat: Tensor, leaf: Tensor, variance: Tensor, chunk_size: int) -> Tensor:
    """Contribution of each sample of `leaf` to the variance of each value of `flat`: (K, B)."""
    if not flat.requires_grad:
        raise ValueError(CONSTANT)
    seeds, parts = torch.eye(len(flat), dtype=flat.dtype, device=flat.device), []
    for some in seeds.split(chunk_size):
        gradients = _gradients(flat, leaf, some)  # (chunk, B, ...)
        parts.append((gradients.square() * variance).reshape(len(some), len(leaf), -1).sum(2))
    return torch.cat(parts) if parts else flat.new_zeros(0, len(leaf))


def _gradients(flat: Tensor, leaf: Tensor, seeds: Tensor) -> Tensor:
    """Gradients by one backward pass per seed, all at a time where the operations can be batched."""
    if len(seeds) > 1:
        # some operations cannot, others lack the memory; the passes one by one may still work
        with suppress(RuntimeError):
            found = torch.autograd.grad(flat, leaf, seeds, retain_graph=True, allow_unused=True, is_grads_batched=True)
            return _used(found[0])
    each = [torch.autograd.grad(flat, leaf, seed, retain_graph=True, allow_unused=True)[0] for seed in seeds]
    return torch.stack([_used(gradient) for gradient in each])


def _used(gradient: Tensor | None) -> Tensor:
    if gradient is None:
        raise ValueError(CONSTANT)
    return gradient
