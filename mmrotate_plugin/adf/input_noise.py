"""The variance of the noise on an input: a number or one per channel, made a tensor of the input's shape."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Noise = float | Sequence[float] | Tensor


def expand_noise(noise_variance: Noise, x: Tensor) -> Tensor:
    """A noise variance as a tensor like `x`.

    Args:
        noise_variance: A number, one number per channel, or a tensor of the shape of `x`. In the squared units of `x`:
            noise of 8 grey levels on an image divided by 58 is (8 / 58)² = 0.019.
        x: (B, C, ...), or any shape for a number.

    Returns:
        The variance, of the shape, dtype and device of `x`.

    Raises:
        ValueError: If a value is negative or not finite, or their number is not that of the channels.
    """
    if isinstance(noise_variance, (int, float)):
        if not (math.isfinite(noise_variance) and noise_variance >= 0):
            raise ValueError(f'noise_variance={noise_variance} must be a number from 0 on')
        return torch.full_like(x, noise_variance)
    values = torch.as_tensor(noise_variance, dtype=x.dtype, device=x.device)
    if not bool((values.isfinite() & (values >= 0)).all()):
        raise ValueError(f'noise_variance={_short(noise_variance)} must hold finite numbers from 0 on')
    if values.shape == x.shape or values.numel() == 1:
        return values.expand_as(x).contiguous()
    if values.dim() == 1 and x.dim() >= 2 and len(values) == x.shape[1]:
        return values.reshape(-1, *[1] * (x.dim() - 2)).expand_as(x).contiguous()
    channels = x.shape[1] if x.dim() >= 2 else 'no'
    raise ValueError(
        f'noise_variance of shape {tuple(values.shape)} does not fit an input of shape {tuple(x.shape)}: give a '
        f'number, or one for each of the {channels} channels'
    )


def check_noise(noise_variance: float | Sequence[float], channels: int) -> float | tuple[float, ...]:
    """A noise variance as a number or one per channel.

    Raises:
        TypeError: If it is neither.
        ValueError: If a value is negative or not finite, or their number is not that of the channels.
    """
    several = isinstance(noise_variance, Sequence) and not isinstance(noise_variance, str)
    values = tuple(noise_variance) if several else (noise_variance,)
    if not all(isinstance(value, (int, float)) for value in values):
        raise TypeError(f'noise_variance={noise_variance!r} must be a number, or one for each of {channels} channels')
    if not all(math.isfinite(value) and value >= 0 for value in values):
        raise ValueError(f'noise_variance={noise_variance} must be finite and from 0 on')
    if several and len(values) != channels:
        raise ValueError(
            f'noise_variance={values} has {len(values)} values: give one number, or one for each of {channels} channels'
        )
    return values if several else float(noise_variance)


def fill_noise(noise_variance: float | Sequence[float], x: Tensor) -> Tensor:
    """What `check_noise` gave, as a tensor like `x`, (B, C, H, W). It looks at no values, so that it compiles."""
    if isinstance(noise_variance, float):
        return torch.full_like(x, noise_variance)
    if x.dim() < 3 or len(noise_variance) != x.shape[-3]:
        raise ValueError(f'noise_variance={noise_variance} has one value per channel, but x is {tuple(x.shape)}')
    return x.new_tensor(noise_variance).view(-1, 1, 1).expand_as(x).contiguous()


def _short(values: object) -> str:
    text = str(values)
    return text if len(text) < 100 else f'{text[:100]}...'
