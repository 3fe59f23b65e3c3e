"""Train in mixed precision on the CPU, where mmengine has none."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from ...registry import OPTIM_WRAPPERS, register


@register(OPTIM_WRAPPERS)
class BFloat16OptimWrapper(OptimWrapper):
    """Run training's forward passes under CPU autocast to bfloat16.

    mmengine's `AmpOptimWrapper` refuses to work without a GPU. bfloat16 has the exponents of float32, so losses
    need no scaling; parameters, gradients and the optimizer's state stay float32.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield
