"""Look at modules: the maps that a detector makes, and norms that would hide an error."""

import torch
from torch import Tensor, nn

from ..equivariant import ennGroupPool
from .equivariance import Fields


def feature_fields(model: nn.Module, x: Tensor) -> tuple[Fields, ...]:
    """Compute the maps of a detector's backbone and neck, with the group that each of them claims.

    Args:
        model: Module with a `backbone` and perhaps a `neck`, or a backbone; in eval mode.
        x: Input, (B, C, H, W), after the data preprocessor.

    Returns:
        'stage0', ... of the backbone, numbered by its `out_indices`, then 'level0', ... of the neck. A part claims its
        attribute `group`; a neck that pools the orientations (`ReFPN(group_pool=...)`) has trivial fields.

    Raises:
        TypeError: If the backbone outputs anything but tensors.
    """
    backbone, neck = getattr(model, 'backbone', model), getattr(model, 'neck', None)
    stages = backbone(x)
    stages = (stages,) if isinstance(stages, Tensor) else tuple(stages)
    wrong = [type(y).__name__ for y in stages if not isinstance(y, Tensor)]
    if wrong:
        raise TypeError(f'the backbone {type(backbone).__name__} outputs {wrong[0]}; only plain tensors can be checked')
    group = getattr(backbone, 'group', None)
    numbers = getattr(backbone, 'out_indices', range(len(stages)))
    found = [Fields(f'stage{i}', y, group) for i, y in zip(numbers, stages, strict=True)]
    if neck is not None:
        group = getattr(neck, 'group', None)
        pooled = any(isinstance(module, ennGroupPool) for module in neck.modules())
        found += [Fields(f'level{i}', y, group, trivial=pooled) for i, y in enumerate(neck(stages))]
    return tuple(found)


@torch.no_grad()
def randomize_norms_(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every norm random statistics and affine parameters, since identity norms would hide a wrong one.

    Returns:
        The same module.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, values in [*module.named_parameters(), *module.named_buffers()]:
        parent, _, leaf = name.rpartition('.')
        if not isinstance(module.get_submodule(parent), (nn.modules.batchnorm._NormBase, nn.GroupNorm)):
            continue
        if leaf in ('weight', 'running_var'):
            values.copy_(torch.rand(values.shape, generator=generator) + 0.5)
        elif leaf in ('bias', 'running_mean'):
            values.copy_(torch.randn(values.shape, generator=generator) * 0.1)
    return module
