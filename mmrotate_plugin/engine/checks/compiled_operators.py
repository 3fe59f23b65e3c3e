"""Find operators of mmcv that have no version for the device, before a run where the model shows it.

Some heads, losses and assigners call operators that mmcv has for CUDA alone. Calling one with a few numbers tells
whether it is there, so a later mmcv that has more is believed.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

NOT_FOUND = 'implementation for device'  # what mmcv says, after the operator's name
OTHER_HEADS = 'a head of Rotated FCOS, Rotated RetinaNet, S2A-Net, Oriented R-CNN or RoI Transformer'
OTHER_POOLING = 'RoIAlign or RoIAlignRotated'

# operator of mmcv.ops: a call with a few numbers
PROBES: dict[str, Callable[[Any, Tensor], Any]] = {
    'convex_iou': lambda ops, x: ops.convex_iou(x.new_zeros(1, 18), x.new_zeros(1, 8)),
    'convex_giou': lambda ops, x: ops.convex_giou(x.new_zeros(1, 18), x.new_zeros(1, 8)),
    'min_area_polygons': lambda ops, x: ops.min_area_polygons(x.new_zeros(1, 18)),
    'points_in_polygons': lambda ops, x: ops.points_in_polygons(x.new_zeros(1, 2), x.new_zeros(1, 8)),
    'diff_iou_rotated_2d': lambda ops, x: ops.diff_iou_rotated_2d(x.new_ones(1, 1, 5), x.new_ones(1, 1, 5)),
    'roi_pool': lambda ops, x: ops.roi_pool(x.new_zeros(1, 1, 2, 2), x.new_zeros(1, 5), 1),
    'riroi_align_rotated': lambda ops, x: ops.riroi_align_rotated(
        x.new_zeros(1, 4, 2, 2), x.new_zeros(1, 6), (1, 1), 1.0, 1, 4, False
    ),
    'carafe': lambda ops, x: ops.carafe(x.new_zeros(1, 1, 2, 2), x.new_zeros(1, 1, 4, 4), 1, 1, 2),
    'prroi_pool': lambda ops, x: ops.prroi_pool(x.new_zeros(1, 1, 2, 2), x.new_zeros(1, 5), (1, 1), 1.0),
    'border_align': lambda ops, x: ops.border_align(x.new_zeros(1, 4, 1, 1), x.new_zeros(1, 1, 4), 1),
}
# class that calls one: the operator, whether it is for training alone, and what to take on other devices
NEEDS: dict[str, tuple[str, bool, str]] = {
    'RotatedRepPointsHead': ('min_area_polygons', False, OTHER_HEADS),
    'OrientedRepPointsHead': ('min_area_polygons', False, OTHER_HEADS),
    'SAMRepPointsHead': ('min_area_polygons', False, OTHER_HEADS),
    'CFAHead': ('min_area_polygons', False, OTHER_HEADS),
    'ConvexGIoULoss': ('convex_giou', True, OTHER_HEADS),
    'BCConvexGIoULoss': ('convex_giou', True, OTHER_HEADS),
    'MaxConvexIoUAssigner': ('convex_iou', True, OTHER_HEADS),
    'SASAssigner': ('convex_iou', True, OTHER_HEADS),
    'RotatedIoULoss': ('diff_iou_rotated_2d', True, "type='mmrotate.GDLoss' or 'mmdet.L1Loss' as loss_bbox"),
    'RiRoIAlignRotated': ('riroi_align_rotated', False, "type='mmrotate_plugin.RiRoIAlignRotated'"),
    'RoIPool': ('roi_pool', False, OTHER_POOLING),
    'PrRoIPool': ('prroi_pool', False, OTHER_POOLING),
    'CARAFEPack': ('carafe', False, "FPN with upsample_cfg=dict(mode='nearest')"),
    'BorderAlign': ('border_align', False, OTHER_HEADS),
}


def check_operators(model: nn.Module, *, training: bool) -> None:
    """Look for parts of a model that cannot run where its parameters are.

    Args:
        model: On its device.
        training: Whether losses and assigners count too.

    Raises:
        NotImplementedError: If a part calls an operator that mmcv lacks for this device; the message names the part,
            the operator, and what would work.
    """
    device = next((p.device for p in model.parameters()), torch.device('cpu'))
    for place, kind in _parts(model):
        name, in_training, instead = NEEDS[kind]
        if (training or not in_training) and lacks(name, device):
            raise NotImplementedError(message(name, device, f'{place} ({kind})' if place else kind, instead))


def message(operator: str, device: torch.device | str, who: str, instead: str = '') -> str:
    """Say what is missing, what asks for it, and what to do."""
    kind = torch.device(device).type
    if kind == 'cuda':
        return (
            f"{who} calls mmcv's operator {operator}, which this mmcv lacks for {device}: it was compiled without CUDA "
            f'or for another one. Use --device cpu, or compile mmcv with the nvcc of torch {torch.__version__}'
        )
    take = f'on a {kind.upper()} take {instead}' if instead else 'take another part'
    return f"{who} calls mmcv's operator {operator}, which is for CUDA only; {take}, or use a GPU"


def instead_of(operator: str) -> str:
    """Say what works without an operator; '' where nothing is known."""
    return next((text for name, _, text in NEEDS.values() if name == operator), '')


@cache
def lacks(operator: str, device: torch.device) -> bool:
    """Tell whether mmcv has no version of an operator for a device; False where it cannot be told."""
    try:
        from mmcv import ops

        PROBES[operator](ops, torch.zeros(1, device=device))
    except RuntimeError as error:
        return NOT_FOUND in str(error)
    except Exception:  # other arguments in another version: not for the probe to say
        return False
    return False


def _parts(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield places and names of the classes in `NEEDS`, in modules and in what modules hold (assigners)."""
    for place, module in model.named_modules():
        if place.endswith('._cuda_operator'):  # of a layer of this package, which goes another way elsewhere
            continue
        held = [('', module)]
        for name, value in vars(module).items():
            if not name.startswith('_'):
                held += [(name, item) for item in (value if isinstance(value, (list, tuple)) else [value])]
        for name, item in held:
            for kind in type(item).__mro__:
                if kind.__name__ in NEEDS and kind.__module__.split('.')[0] in ('mmcv', 'mmdet', 'mmrotate'):
                    yield '.'.join(filter(None, (place, name))), kind.__name__
                    break
