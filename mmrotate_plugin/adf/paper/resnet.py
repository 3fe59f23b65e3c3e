"""The classifiers of the ADF paper's code: ResNets for small images that put out the mean and variance of logits."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ..gains import accept_gains
from ..gaussian import Gaussian
from ..input_noise import check_noise, fill_noise
from .containers import Sequential
from .layers import AvgPool2d, BatchNorm2d, Conv2d, Dropout, KeepVariance, Linear, Moments, ReLU, keep_variance, through


class ResidualBlock(nn.Module, ABC):
    """What both residual blocks share: the shortcut and the last activation.

    Args:
        in_planes: Input channels.
        planes: Width; the block puts out `expansion` times as many channels.
        stride: Of the first 3x3 convolution, and of the shortcut.
        p: Probability of dropping a channel, after each activation.
        keep_variance_fn, min_variance: Of every layer, see `layers.MomentLayer`.

    Shape:
        - Input: mean and variance, or a `Gaussian`, (B, in_planes, H, W).
        - Output: of the same kind, (B, planes * expansion, H', W').
    """

    expansion: int

    def __init__(
        self,
        in_planes: int,
        planes: int,
        stride: int = 1,
        *,
        p: float = 0.0,
        keep_variance_fn: KeepVariance | None = None,
        min_variance: float = 0.0,
    ) -> None:
        super().__init__()
        keep = keep_variance(keep_variance_fn, min_variance)
        self._conv = partial(Conv2d, bias=False, keep_variance_fn=keep)
        self._norm = partial(BatchNorm2d, keep_variance_fn=keep)
        self._add_branch(in_planes, planes, stride)
        self.ReLU = ReLU(keep_variance_fn=keep)
        self.shortcut = Sequential()
        out_planes = planes * self.expansion
        if stride != 1 or in_planes != out_planes:
            self.shortcut = Sequential(self._conv(in_planes, out_planes, 1, stride=stride), self._norm(out_planes))
        self.dropout = Dropout(p, keep_variance_fn=keep)

    @abstractmethod
    def _add_branch(self, in_planes: int, planes: int, stride: int) -> None:
        """Make the convolutions and norms of the residual branch."""

    @abstractmethod
    def _branch(self, x: Gaussian) -> Gaussian:
        """The residual branch up to its last norm."""

    def forward(self, x: Gaussian | Tensor, var: Tensor | None = None) -> Gaussian | Moments:
        """Mean and variance to mean and variance, or a `Gaussian` to a `Gaussian`."""
        return through(self._propagate, x, var)

    def _activate(self, x: Gaussian) -> Gaussian:
        return self.dropout(self.ReLU(x))

    def _propagate(self, x: Gaussian) -> Gaussian:
        return self._activate(self._branch(x) + self.shortcut(x))


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions (He et al., CVPR 2016). Arguments and shapes: see `ResidualBlock`."""

    expansion = 1

    def _add_branch(self, in_planes: int, planes: int, stride: int) -> None:
        self.conv1, self.bn1 = self._conv(in_planes, planes, 3, stride=stride, padding=1), self._norm(planes)
        self.conv2, self.bn2 = self._conv(planes, planes, 3, padding=1), self._norm(planes)

    def _branch(self, x: Gaussian) -> Gaussian:
        return self.bn2(self.conv2(self._activate(self.bn1(self.conv1(x)))))


class Bottleneck(ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions (He et al., CVPR 2016). Arguments and shapes: see `ResidualBlock`."""

    expansion = 4

    def _add_branch(self, in_planes: int, planes: int, stride: int) -> None:
        self.conv1, self.bn1 = self._conv(in_planes, planes, 1), self._norm(planes)
        self.conv2, self.bn2 = self._conv(planes, planes, 3, stride=stride, padding=1), self._norm(planes)
        self.conv3, self.bn3 = self._conv(planes, planes * self.expansion, 1), self._norm(planes * self.expansion)

    def _branch(self, x: Gaussian) -> Gaussian:
        x = self._activate(self.bn1(self.conv1(x)))
        x = self._activate(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))


ARCHITECTURES: dict[int, tuple[type[ResidualBlock], tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class ResNetADF(nn.Module):
    """ResNet for images of about 32 pixels, which propagates the variance of their noise to the logits.

    Loquercio, Segu & Scaramuzza, A General Framework for Uncertainty Estimation in Deep Learning, RA-L 2020. State
    dicts of the paper's networks, with and without dropout, and of its plain ones load by the same keys. The stem is
    a 3x3 convolution; the last map is averaged whole, of whatever size it is.

    Args:
        depth: 18, 34, 50, 101 or 152.
        noise_variance: Of the input: a number, or one per channel, in squared units of the image as it comes in.
        min_variance: The smallest variance that a layer puts out, by clamping.
        num_classes: Logits.
        p: Probability of dropping a channel after each activation, in training and in `adf.predict`.
        in_channels: Channels of the image.
        base_channels: Width of stage one; it doubles with each stage.

    Shape:
        - Input: (B, in_channels, H, W), to which the noise is ascribed; or a `Gaussian` of that shape, taken as it is.
        - Output: mean and variance (B, num_classes); of a `Gaussian`, a `Gaussian`.

    Raises:
        ValueError: For arguments out of range; the message names the argument, its value and the range.
    """

    def __init__(
        self,
        depth: int,
        noise_variance: float | Sequence[float] = 1e-3,
        min_variance: float = 1e-3,
        num_classes: int = 10,
        *,
        p: float = 0.0,
        in_channels: int = 3,
        base_channels: int = 64,
    ) -> None:
        super().__init__()
        if depth not in ARCHITECTURES:
            raise ValueError(f'depth={depth!r} is unknown: use one of {", ".join(map(str, ARCHITECTURES))}')
        self.noise_variance = check_noise(noise_variance, in_channels)
        block, blocks = ARCHITECTURES[depth]
        keep = keep_variance(None, min_variance)
        self.conv1 = Conv2d(in_channels, base_channels, 3, padding=1, bias=False, keep_variance_fn=keep)
        self.bn1 = BatchNorm2d(base_channels, keep_variance_fn=keep)
        self.ReLU = ReLU(keep_variance_fn=keep)
        self.dropout = Dropout(p, keep_variance_fn=keep)
        channels = base_channels
        for i, count in enumerate(blocks):
            stage = Sequential()
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                stage.append(block(channels, base_channels * 2**i, stride, p=p, keep_variance_fn=keep))
                channels = base_channels * 2**i * block.expansion
            self.add_module(f'layer{i + 1}', stage)
        self.AvgPool2d = AvgPool2d(keep_variance_fn=keep)
        self.linear = Linear(channels, num_classes, keep_variance_fn=keep)
        accept_gains(self)

    def forward(self, x: Tensor | Gaussian) -> Moments | Gaussian:
        """(B, in_channels, H, W) to the mean and variance of the logits."""
        if isinstance(x, Gaussian):
            return self._propagate(x)
        return through(self._propagate, x, fill_noise(self.noise_variance, x))

    def _propagate(self, x: Gaussian) -> Gaussian:
        x = self.dropout(self.ReLU(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.linear(torch.flatten(self.AvgPool2d(x, kernel_size=tuple(x.shape[-2:])), 1))


ResNet18ADF = partial(ResNetADF, 18)
ResNet34ADF = partial(ResNetADF, 34)
ResNet50ADF = partial(ResNetADF, 50)
ResNet101ADF = partial(ResNetADF, 101)
ResNet152ADF = partial(ResNetADF, 152)
