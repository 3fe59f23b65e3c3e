"""Run a detector part by part, up to the raw outputs of its heads, to count operations."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from mmengine.model import BaseModel, BaseModule
from torch import Tensor, nn

Part = tuple[str, nn.Module, Callable[[], Any]]


def parts(detector: BaseModel, x: Tensor) -> list[Part]:
    """Return name, module and call of each part, in the order in which they follow each other.

    Args:
        detector: One of mmdet's structure, of one or two stages.
        x: Images as the network takes them, (1, C, H, W).
    """
    found: list[Part] = [('backbone', detector.backbone, partial(detector.backbone, x))]
    with torch.no_grad():
        maps = detector.backbone(x)
        if getattr(detector, 'neck', None) is not None:
            found.append(('neck', detector.neck, partial(detector.neck, maps)))
            maps = detector.neck(maps)
    for name in ('rpn_head', 'bbox_head'):
        head = getattr(detector, name, None)
        if head is not None and (name == 'rpn_head' or getattr(detector, 'roi_head', None) is None):
            found.append((name, head, partial(_forward, head, maps, x)))
    head = getattr(detector, 'roi_head', None)
    if head is not None:
        samples = [_sample(x)]
        with torch.no_grad():
            regions = detector.rpn_head.predict(maps, samples, rescale=False)
        call = partial(head.predict, maps, regions, samples, rescale=False)
        found.append((f'roi_head, {len(regions[0])} regions', head, call))
    return found


def _forward(head: BaseModule, maps: Any, x: Tensor) -> Any:
    """Return the raw outputs of a head; heads of the DETR family also need the sizes of the images."""
    try:
        return head(maps)
    except TypeError:
        return head.predict(maps, [_sample(x)], rescale=False)


def _sample(x: Tensor) -> Any:
    """Make a data sample for images of the size of the input."""
    from mmdet.structures import DetDataSample

    size = tuple(x.shape[-2:])
    meta = {'img_shape': size, 'ori_shape': size, 'pad_shape': size, 'batch_input_shape': size}
    return DetDataSample(metainfo={**meta, 'scale_factor': (1.0, 1.0), 'img_id': 0})
