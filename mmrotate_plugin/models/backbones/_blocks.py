"""The residual blocks of a ResNet, built by mmcv's builders."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from mmcv.cnn import build_activation_layer, build_conv_layer, build_norm_layer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ...adf import Gaussian
from ..layers import Cfg


class Block(nn.Module, ABC):
    """Base of both residual blocks: the shortcut, the last activation, and checkpointing."""

    expansion: int
    norm1_name: str
    norm2_name: str

    @property
    @abstractmethod
    def last_norm(self) -> nn.Module:
        """The last norm of the residual branch, for `zero_init_residual`."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        stride: int,
        dilation: int,
        style: str,
        downsample: nn.Module | None,
        with_cp: bool,
        conv_cfg: Cfg | None,
        norm_cfg: Cfg,
        act_cfg: Cfg,
    ) -> None:
        super().__init__()
        self.inplanes, self.planes = in_channels, width  # mmdet's names, for what reads its blocks
        self.stride, self.dilation, self.style = stride, dilation, style
        self.with_cp = with_cp
        self._make_conv = partial(build_conv_layer, conv_cfg, bias=False)
        self._norm_cfg = norm_cfg
        self._add_branch(in_channels, width, stride, dilation, style)
        self.relu: nn.Module = build_activation_layer(act_cfg)
        self.downsample = downsample
        self.pool: nn.Module | None = None  # before the block, where a network blurs instead of a stride
        self.dropout: nn.Module | None = None  # after the block, where a network has it

    @abstractmethod
    def _add_branch(self, in_channels: int, width: int, stride: int, dilation: int, style: str) -> None:
        """Make the convolutions and norms of the residual branch."""

    @abstractmethod
    def branch(self, x: Tensor) -> Tensor:
        """The residual branch up to its last norm."""

    def _add_norm(self, channels: int, index: int) -> str:
        name, norm = build_norm_layer(self._norm_cfg, channels, postfix=index)
        self.add_module(name, norm)
        return name

    @property
    def norm1(self) -> nn.Module:
        """The first norm, under one name."""
        return getattr(self, self.norm1_name)

    @property
    def norm2(self) -> nn.Module:
        """The second norm, under one name."""
        return getattr(self, self.norm2_name)

    def _residual(self, x: Tensor) -> Tensor:
        x = x if self.pool is None else self.pool(x)
        out = self.branch(x)
        out += x if self.downsample is None else self.downsample(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H', W')."""
        checkpointed = self.with_cp and torch.is_grad_enabled()
        x = self.relu(_checkpointed(self, self._residual, x) if checkpointed else self._residual(x))
        return x if self.dropout is None else self.dropout(x)


class BasicBlock(Block):
    """Two 3x3 convolutions (He et al., Deep Residual Learning, CVPR 2016, fig. 5 left)."""

    expansion = 1

    def _add_branch(self, in_channels: int, width: int, stride: int, dilation: int, style: str) -> None:
        if style != 'pytorch':
            raise ValueError(f"style={style!r} has no meaning for depths 18 and 34: use 'pytorch' or a depth >= 50")
        self.conv1 = self._make_conv(in_channels, width, 3, stride=stride, padding=dilation, dilation=dilation)
        self.norm1_name = self._add_norm(width, 1)
        self.conv2 = self._make_conv(width, width, 3, padding=1)
        self.norm2_name = self._add_norm(width, 2)

    @property
    def last_norm(self) -> nn.Module:
        """The second norm."""
        return self.norm2

    def branch(self, x: Tensor) -> Tensor:
        return self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))


class Bottleneck(Block):
    """1x1, 3x3 and 1x1 convolutions (He et al., Deep Residual Learning, CVPR 2016, fig. 5 right)."""

    expansion = 4

    def _add_branch(self, in_channels: int, width: int, stride: int, dilation: int, style: str) -> None:
        stride1, stride2 = (1, stride) if style == 'pytorch' else (stride, 1)
        self.conv1 = self._make_conv(in_channels, width, 1, stride=stride1)
        self.norm1_name = self._add_norm(width, 1)
        self.conv2 = self._make_conv(width, width, 3, stride=stride2, padding=dilation, dilation=dilation)
        self.norm2_name = self._add_norm(width, 2)
        self.conv3 = self._make_conv(width, width * self.expansion, 1)
        self.norm3_name = self._add_norm(width * self.expansion, 3)

    @property
    def norm3(self) -> nn.Module:
        """The third norm, under one name."""
        return getattr(self, self.norm3_name)

    @property
    def last_norm(self) -> nn.Module:
        """The third norm."""
        return self.norm3

    def branch(self, x: Tensor) -> Tensor:
        out = self.relu(self.norm1(self.conv1(x)))
        out = self.relu(self.norm2(self.conv2(out)))
        return self.norm3(self.conv3(out))


def deep_stem_of(
    in_channels: int, channels: int, first_conv: Cfg | None, conv_cfg: Cfg | None, norm_cfg: Cfg, act_cfg: Cfg
) -> nn.Sequential:
    """Build three 3x3 convolutions with norms and activations (He et al., Bag of Tricks, CVPR 2019, ResNet-C).

    Args:
        in_channels, channels: Channels of the image, and after the stem.
        first_conv: Config of the convolution that reads the image.
        conv_cfg, norm_cfg, act_cfg: Configs of the other layers.
    """
    half, layers = channels // 2, []
    widths = [(first_conv, in_channels, half), (conv_cfg, half, half), (conv_cfg, half, channels)]
    for i, (cfg, c_in, c_out) in enumerate(widths):
        layers += [
            build_conv_layer(cfg, c_in, c_out, 3, stride=2 if i == 0 else 1, padding=1, bias=False),
            build_norm_layer(norm_cfg, c_out)[1],
            build_activation_layer(act_cfg),
        ]
    return nn.Sequential(*layers)


ARCHITECTURES: dict[int, tuple[type[Block], tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


def _checkpointed(block: nn.Module, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`function(x)`, recomputed in the backward pass without counting the batch a second time."""
    context: Callable[[], AbstractContextManager[None]] = nullcontext
    # autograd must see tensors: for a Gaussian, mean and variance
    values, like = ((x.mu, x.v), x.replace) if isinstance(x, Gaussian) else ((x,), lambda value: value)

    def run(*values: Tensor) -> Tensor:
        nonlocal context
        with context():
            context = partial(_unchanged_statistics, block)
            return function(like(*values))

    return checkpoint(run, *values, use_reentrant=False)


@contextmanager
def _unchanged_statistics(module: nn.Module) -> Iterator[None]:
    """Temporarily keep the running statistics of batch norms in training mode; they still use the batch's."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    momenta = [m.momentum for m in norms]
    counts = [None if m.num_batches_tracked is None else m.num_batches_tracked.clone() for m in norms]
    for m in norms:
        m.momentum = 0.0
    try:
        yield
    finally:
        for m, momentum, count in zip(norms, momenta, counts, strict=True):
            m.momentum = momentum
            if count is not None and m.num_batches_tracked is not None:
                m.num_batches_tracked.copy_(count)  # not less one: a block may leave some of its norms out
