"""The ResNet that knows how much the noise of its input moves its features."""

import warnings
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ...adf import Gaussian
from ...adf._compiler import is_compiling
from ...adf.gains import misfit
from ...adf.gaussian import VARIANCE_RULES
from ...adf.input_noise import check_noise, fill_noise
from ...registry import MODELS, register
from ...utils.typecheck import typed
from .resnet import ResNet

DEFAULT_NOISE_VARIANCE = 1e-3
CHOICES = {'mean': ('plain', 'adf'), 'variance': (*VARIANCE_RULES, 'none'), 'output': ('mean', 'gaussian')}


@register(MODELS)
class ADFResNet(ResNet):
    r"""ResNet that propagates mean and variance of a noisy image: assumed density filtering.

    Loquercio, Segu & Scaramuzza, A General Framework for Uncertainty Estimation in Deep Learning, RA-L 2020. Its
    state-dict keys are those of torchvision's and mmdet's ResNet, so a trained one needs no training anew.

    By default it puts out plain tensors, those of the plain network to the bit, so that any neck follows; then no
    variance is computed and it costs what the plain network does. With ``output='gaussian'`` neck and head have to
    take a `Gaussian`, which modules made of torch's functions do unmodified.

    Args:
        depth: 18, 34, 50, 101 or 152.
        noise_variance: Of the input image, a number or one per channel, in squared units of the normalised image;
            1e-3 if `noise_std` is not given either.
        noise_std: Instead, standard deviation in grey levels before normalisation, a number or one per channel.
        std: The data preprocessor's `std`, one number per channel, to convert `noise_std`:
            :math:`v = (\mathrm{noise\_std} / \mathrm{std})^2`.
        min_variance: The smallest variance that an operation puts out, by clamping; also downstream.
        dropout: Probability of dropping a channel after each residual block: in training mode, and in `adf.predict`
            (Monte Carlo dropout). Blocks of frozen stages stay in eval mode and drop nothing.
        mean: 'plain' keeps the means to those of the plain network, to the bit, also downstream: an image that already
            is noisy would have its noise counted twice otherwise. 'adf' gives the expected features of a noisy image
            whose mean is the input.
        variance: 'diagonal' takes the values of a map for independent. So do two cheaper rules: 'bfloat16', whose
            convolutions of variances are in that type, and 'rank1', with their squared weights approximated by rank 1.
            'delta' is the cheapest: rank 1, and ReLU and max pooling to first order; it wants ``mean='plain'``.
            'none' computes no variance.
        output: 'mean' for plain tensors, 'gaussian' for `Gaussian` values.
        options: The arguments of `ResNet`. `norm_eval` is on by default, as the weights of a trained network are the
            purpose; ``norm_eval=False`` trains from scratch.

    Shape:
        - Input: (B, in_channels, H, W), to which the noise is ascribed; or a `Gaussian` of that shape, propagated
          with its own variance (no noise is added), under this network's `mean`, the larger `min_variance`, and the
          cheaper of both rules.
        - Output: tuple of (B, C_i, H_i, W_i), one per index of `out_indices`; mean and variance with 'gaussian'.

    Raises:
        ValueError: For unknown options, a noise that is negative, not finite or of another number of channels, both
            `noise_variance` and `noise_std`, one of `noise_std` and `std` without the other, and what `ResNet` refuses.
    """

    @typed
    def __init__(
        self,
        depth: int,
        *,
        noise_variance: float | Sequence[float] | None = None,
        noise_std: float | Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        min_variance: float = 0.0,
        dropout: float = 0.0,
        mean: str = 'plain',
        variance: str = 'diagonal',
        output: str = 'mean',
        **options: Any,
    ) -> None:
        for name, value in (('mean', mean), ('variance', variance), ('output', output)):
            if value not in CHOICES[name]:
                raise ValueError(f'{name}={value!r} is unknown: use one of {", ".join(map(repr, CHOICES[name]))}')
        if variance == 'delta' and mean != 'plain':
            raise ValueError(f"variance='delta' is of first order, with plain means: mean={mean!r} needs another rule")
        if variance == 'none' and (mean, output) != ('plain', 'mean'):
            raise ValueError(
                f"variance='none' has no variance for mean={mean!r}, output={output!r}: use 'plain' and 'mean', or "
                "variance='diagonal'"
            )
        if not 0 <= min_variance < float('inf'):
            raise ValueError(f'min_variance={min_variance} must be a number from 0 on')
        if not 0 <= dropout < 1:
            raise ValueError(f'dropout={dropout} must be a probability, from 0 to below 1')
        self._dropout = dropout  # the stages are made with it
        super().__init__(depth, **options)
        # plain attributes: a checkpoint has no keys for them
        self.noise_variance = _noise_variance(noise_variance, noise_std, std, options.get('in_channels', 3))
        self.min_variance = min_variance
        self.mean, self.variance, self.output = mean, variance, output
        self._warned = False

    def _make_stage(self, *args: Any) -> nn.Sequential:
        stage = super()._make_stage(*args)
        if self._dropout:
            for block in stage:
                block.dropout = nn.Dropout2d(self._dropout)
        return stage

    def forward(self, x: Tensor | Gaussian) -> tuple[Tensor, ...] | tuple[Gaussian, ...]:
        """(B, in_channels, H, W) to the maps of the stages in `out_indices`."""
        if (self.mean, self.output) == ('plain', 'mean'):  # nothing depends on a variance
            return super().forward(x.mu if isinstance(x, Gaussian) else x)
        if not (self._warned or isinstance(x, Gaussian) or is_compiling()):
            self._warned = True
            if (text := misfit(self, self.noise_variance, self.variance)) is not None:
                warnings.warn(f'ADFResNet is {text} (adf.calibrate)', stacklevel=2)
        outs = super().forward(self._noisy(x))
        return outs if self.output == 'gaussian' else tuple(y.mu for y in outs)

    def _noisy(self, x: Tensor | Gaussian) -> Gaussian:
        plain = self.mean == 'plain'
        if isinstance(x, Gaussian):
            rule = max(x.rule, self.variance, key=VARIANCE_RULES.index)
            return Gaussian(x.mu, x.v, max(x.min_variance, self.min_variance), plain, rule)
        return Gaussian(x, fill_noise(self.noise_variance, x), self.min_variance, plain, self.variance)


def _noise_variance(
    noise_variance: float | Sequence[float] | None,
    noise_std: float | Sequence[float] | None,
    std: Sequence[float] | None,
    channels: int,
) -> float | tuple[float, ...]:
    """The variance in squared units of the normalised image, from one of the two arguments."""
    if noise_std is None:
        if std is not None:
            raise ValueError(f'std={std} converts noise_std, which is not given: give noise_std, or leave std out')
        return check_noise(DEFAULT_NOISE_VARIANCE if noise_variance is None else noise_variance, channels)
    if noise_variance is not None:
        raise ValueError(f'give one of noise_variance={noise_variance} and noise_std={noise_std}, not both')
    if std is None:
        raise ValueError(f"noise_std={noise_std} is in grey levels: give std too, the data_preprocessor's")
    several = isinstance(noise_std, Sequence)
    if len(std) != channels or (several and len(noise_std) != channels):
        raise ValueError(f'noise_std={noise_std} and std={std} must have one number for each of {channels} channels')
    levels = noise_std if several else [noise_std] * channels
    if not all(0 <= a < float('inf') and 0 < s < float('inf') for a, s in zip(levels, std, strict=True)):
        raise ValueError(f'noise_std={noise_std} must be finite and from 0 on, and std={std} finite and above 0')
    return check_noise([(a / s) ** 2 for a, s in zip(levels, std, strict=True)], channels)
