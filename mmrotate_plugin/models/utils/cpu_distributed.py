"""Train in several processes on CPUs, with batch norm over all of them, which torch has for GPUs only."""

from typing import Any

import torch
import torch.distributed as dist
from mmengine.model import MMDistributedDataParallel
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm

from ...registry import MODEL_WRAPPERS, register


class GlooSyncBatchNorm(_BatchNorm):
    r"""Batch norm over the batches of all processes, by sums that all processes share (`all_reduce`).

    With :math:`n` values per channel in all processes, it computes :math:`\mu = \frac1n \sum x` and
    :math:`v = \frac1n \sum (x - \mu)^2` in two steps, so that nothing cancels. The sums are differentiable, so the
    gradients are those of one process with the whole batch. In eval mode, and outside of a process group, it is plain
    batch norm. Keys, arguments and running statistics are those of torch's `SyncBatchNorm`, which refuses tensors on
    CPUs.

    Args:
        num_features, eps, momentum, affine, track_running_stats: As in torch's batch norm.

    Shape:
        - Input, output: (B, num_features, ...); B may differ between the processes.

    Raises:
        ValueError: If the input has fewer than two dimensions.
    """

    process_group: dist.ProcessGroup | None = None  # of the processes that share statistics; None for all

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f'the input must be (B, C, ...), but has {input.dim()} dimensions')

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, num_features, ...)."""
        group = self.process_group or dist.group.WORLD
        if not self.training or not dist.is_initialized() or dist.get_world_size(group) == 1:
            return super().forward(x)
        self._check_input_dim(x)
        dims = [i for i in range(x.dim()) if i != 1]
        shape = [1, -1] + [1] * (x.dim() - 2)
        values = x.float() if x.element_size() < 4 else x  # under autocast

        count = values.new_tensor([values.numel() / values.shape[1]])
        sums = all_reduce(torch.cat([values.sum(dims), count]), group=group)
        total = sums[-1].detach()
        mean = sums[:-1] / total
        centred = values - mean.view(shape)
        var = all_reduce(centred.square().sum(dims), group=group) / total
        out = centred * (var + self.eps).rsqrt().view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        if self.track_running_stats:
            self._track(mean.detach(), var.detach() * total / (total - 1).clamp_min(1))
        return out.to(x.dtype)

    def _track(self, mean: Tensor, var: Tensor) -> None:
        count, running_mean, running_var = self.num_batches_tracked, self.running_mean, self.running_var
        if count is None or running_mean is None or running_var is None:
            return
        count.add_(1)
        new = 1 / count.item() if self.momentum is None else self.momentum
        running_mean.lerp_(mean.to(running_mean), new)
        running_var.lerp_(var.to(running_var), new)


def sync_norms_on_cpu(model: nn.Module) -> nn.Module:
    """Make torch's `SyncBatchNorm` layers in a model work on CPUs, also those in `ennSyncBN`.

    It changes them in place and keeps their parameters, which a wrapper or an optimizer may hold already.

    Args:
        model: Any.

    Returns:
        The same model.
    """
    for module in model.modules():
        kind = type(module)
        if issubclass(kind, nn.SyncBatchNorm):  # or mmengine's subclass
            module.__class__ = GlooSyncBatchNorm
    return model


@register(MODEL_WRAPPERS)
class CPUDistributedDataParallel(MMDistributedDataParallel):
    """mmengine's data parallelism for CPUs, with synchronised batch norms.

    Args:
        module: The model; its `SyncBatchNorm` layers are changed, see `sync_norms_on_cpu`.
        kwargs: Arguments of torch's DistributedDataParallel; `device_ids` must be None on CPUs.
    """

    def __init__(self, module: nn.Module, **kwargs: Any) -> None:
        super().__init__(module=sync_norms_on_cpu(module), **kwargs)
