"""Fit the gains of a network and leave them in it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .._eval_mode import eval_mode
from ..gains import remove_gains, set_origin
from ..input_noise import Noise, expand_noise
from .comparison import Comparison
from .report import Calibration, LayerReport, Ratio
from .sites import find_sites


@torch.no_grad()
def calibrate(
    model: nn.Module,
    images: Tensor,
    noise_variance: Noise,
    *,
    held_out: Tensor | None = None,
    num_samples: int = 128,
    share: int = 1,
    plain: Callable[[Tensor], Any] | None = None,
    max_positions: int = 256,
    seed: int = 0,
    progress: bool | None = None,
) -> Calibration:
    r"""Fit gains that match a network's variances to Monte Carlo, and leave them in the network.

    From front to back, each module whose output has a variance gets one factor per channel: the median over images
    and positions of

    .. math::
        g = v_{\mathrm{MC}} / v_{\mathrm{ADF}}

    with the gains in front of it already active. Modules that need none (norms, activations) get none. The gains are
    buffers, `variance_gain`, and part of the state dict; call `accept_gains` once on a network that is to load them.
    Calibrating again replaces them.

    A floor (`min_variance`) above the variances of a layer hides them: calibrate with a lower one.

    The gains depend on the weights, the noise and the rule for the variance: calibrate anew far from the noise
    variance of the fit, or for another rule. Both are stored with the gains (`gain_noise`, `gain_rule`).

    Args:
        model: Any module of one tensor that a `Gaussian` can pass. It runs in eval mode and gets its modes back.
        images: (B, C, H, W) as the model takes them; 4 to 8 typical ones.
        noise_variance: Variance of their noise: a number, one per channel, or a tensor like `images`, in their squared
            units.
        held_out: Other images, with the same number of channels, to measure how well the gains carry over.
        num_samples: Number of Monte Carlo passes.
        share: Number of consecutive channels that share a gain: the group's order for an equivariant network, which
            would otherwise lose its equivariance. Modules whose channels it does not divide get one gain per channel.
        plain: Maps noisy images through the plain network; defaults to the model itself.
        max_positions: Number of random positions of a map that the fit looks at; bounds its memory.
        seed: Random seed for noise and positions.
        progress: None shows a bar if stderr is a terminal, True always, False never.

    Returns:
        Ratios to Monte Carlo before and after, for each module.

    Raises:
        ValueError: If an argument is out of range, there is no noise, or no module outputs a variance.

    Example:
        The two copies of an image have the same noise. The second convolution counts it as independent, which halves
        the variance of the sum; a gain of 2 mends it.

        >>> import torch
        >>> from mmrotate_plugin import adf
        >>> conv1, conv2 = torch.nn.Conv2d(1, 2, 1, bias=False), torch.nn.Conv2d(2, 1, 1, bias=False)
        >>> for conv in (conv1, conv2):
        ...     _ = torch.nn.init.ones_(conv.weight)
        >>> net = torch.nn.Sequential(conv1, conv2)
        >>> images = torch.zeros(2, 1, 16, 16)
        >>> report = adf.calibrate(net, images, noise_variance=0.01, num_samples=512, progress=False)
        >>> [f'{layer.name}: {layer.before.median:.1f} to {layer.after.median:.1f}' for layer in report.layers]
        ['0: 1.0 to 1.0', '1: 0.7 to 1.0']
        >>> round(conv2.variance_gain.item(), 1)
        2.0
    """
    for name, value, least in (
        ('num_samples', num_samples, 8),
        ('share', share, 1),
        ('max_positions', max_positions, 1),
    ):
        if value < least:
            raise ValueError(f'{name}={value} must be {least} or more')
    variance = expand_noise(noise_variance, images)
    if not bool((variance > 0).any()):
        raise ValueError('noise_variance is 0: without noise there is nothing to calibrate')
    remove_gains(model)
    with eval_mode(model):
        sites = find_sites(model, images[:1], variance[:1])
        fit = Comparison(sites, model, images, variance, max_positions, seed)
        fit.sample(plain, num_samples, 'Monte Carlo', progress)
        other = None
        if held_out is not None:
            other = Comparison(sites, model, held_out, _same_noise(noise_variance, held_out), max_positions, seed + 1)
            other.sample(plain, num_samples, 'Monte Carlo, other images', progress)
        before, other_before = _ratios(fit), _ratios(other)
        gains = fit.gains(share)
        after, other_after = _ratios(fit), _ratios(other)
    noise = _per_channel(noise_variance, variance)
    set_origin(model, noise, fit.rule)
    layers = [
        LayerReport(
            site.name,
            site.channels,
            _range(gains.get(site.name)),
            before[site.name],
            after[site.name],
            other_before.get(site.name),
            other_after.get(site.name),
        )
        for site in sites
    ]
    return Calibration(tuple(layers), tuple(noise.reshape(-1).tolist()), len(images), num_samples)


def _ratios(comparison: Comparison | None) -> dict[str, Ratio]:
    return {} if comparison is None else comparison.ratios()


def _range(gain: Tensor | None) -> tuple[float, float] | None:
    return None if gain is None else (float(gain.min()), float(gain.max()))


def _same_noise(noise_variance: Noise, images: Tensor) -> Tensor:
    if isinstance(noise_variance, Tensor) and noise_variance.dim() > 1:
        raise ValueError('noise_variance must be a number or one per channel where there are held_out images')
    return expand_noise(noise_variance, images)


def _per_channel(noise_variance: Noise, variance: Tensor) -> Tensor:
    """Reduce the noise to what a checkpoint stores: a number, or one per channel."""
    if isinstance(noise_variance, (int, float)) or variance.dim() < 2:
        return variance.float().mean()
    return variance.float().transpose(0, 1).flatten(1).mean(1)
