"""The residual blocks of a ResNet, whose layers come from mmcv's builders."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from mmcv.cnn import build_activation_layer, build_conv_layer, build_norm_layer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ...adf import Gaussian
from ..layers import Cfg


class Block(nn.Module, ABC):
    """What both residual blocks share: the shortcut, the last activation, and checkpointing."""

    expansion: int
    norm1_name: str
    norm2_name: str

    @property
    @abstractmethod
    def last_norm(self) -> nn.Module:
        """The norm that ends the residual branch, for `zero_init_residual`."""

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
        self.relu = build_activation_layer(act_cfg)
        self.downsample = downsample
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
        """The first norm, whatever its name."""
        return getattr(self, self.norm1_name)

    @property
    def norm2(self) -> nn.Module:
        """The second norm, whatever its name."""
        return getattr(self, self.norm2_name)

    def _residual(self, x: Tensor) -> Tensor:
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
        """The third norm, whatever its name."""
        return getattr(self, self.norm3_name)

    @property
    def last_norm(self) -> nn.Module:
        return self.norm3

    def branch(self, x: Tensor) -> Tensor:
        out = self.relu(self.norm1(self.conv1(x)))
        out = self.relu(self.norm2(self.conv2(out)))
        return self.norm3(self.conv3(out))


ARCHITECTURES: dict[int, tuple[type[Block], tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


def _checkpointed(block: nn.Module, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`function(x)`, recomputed in the backward pass without counting the batch a second time."""
    context = nullcontext
    # autograd must see tensors: of a Gaussian, mean and variance
    values, like = ((x.mu, x.v), x.replace) if isinstance(x, Gaussian) else ((x,), lambda value: value)

    def run(*values: Tensor) -> Tensor:
        nonlocal context
        with context():
            context = lambda: _unchanged_statistics(block)  # noqa: E731
            return function(like(*values))

    return checkpoint(run, *values, use_reentrant=False)


@contextmanager
def _unchanged_statistics(module: nn.Module) -> Iterator[None]:
    """Batch norms in training mode use the batch's statistics and leave the running ones as they are."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    momenta = [m.momentum for m in norms]
    for m in norms:
        m.momentum = 0.0
    try:
        yield
    finally:
        for m, momentum in zip(norms, momenta, strict=True):
            m.momentum = momentum
            m.num_batches_tracked -= 1
