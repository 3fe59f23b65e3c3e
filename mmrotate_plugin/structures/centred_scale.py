"""Keep where an image lies in the network's input together with its scale factor, and map results back."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

HORIZONTAL, ROTATED = 4, 5  # columns of boxes


class CentredScale(tuple[float, float]):
    """Factors (x, y) of a resize whose result lies on a larger canvas.

    It is the pair that OpenMMLab's heads expect as `scale_factor`, with one more attribute, so it passes every
    `PackDetInputs` with any `meta_keys`. A pixel (x, y) of the image lies at ``(x, y) * scale + offset``.

    Args:
        scale: Factors of width and height.
        offset: Position (x, y) of the image's corner on the canvas, in pixels of the canvas.
    """

    offset: tuple[float, float]

    def __new__(cls, scale: Sequence[float], offset: Sequence[float]) -> 'CentredScale':
        self = super().__new__(cls, (float(scale[0]), float(scale[1])))
        self.offset = float(offset[0]), float(offset[1])
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:  # for copies, and for pickles from data workers
        return tuple(self), self.offset


def offset_of(meta: Mapping[str, Any]) -> tuple[float, float]:
    """Return the position (x, y) in pixels of the image's corner in the network's input, by its `scale_factor`."""
    return getattr(meta.get('scale_factor'), 'offset', (0.0, 0.0))


def content_slices(meta: Mapping[str, Any], shape: Sequence[int]) -> tuple[slice, slice]:
    """Return the rows and columns of a network's input that show the image, without the padding around it.

    Args:
        meta: Metainfo of a data sample.
        shape: Size (h, w) of the tensor to cut; `img_shape` or more.
    """
    sides = []
    scale = np.ravel(meta.get('scale_factor') or (1.0, 1.0))
    for axis in (1, 0):
        start = offset_of(meta)[axis]
        length = shape[1 - axis] - 2 * start
        if start and meta.get('ori_shape') is not None:  # more padding may follow at the right and at the bottom
            length = meta['ori_shape'][1 - axis] * scale[axis]
        first, last = math.ceil(start - 0.5 - 1e-6), math.floor(start + length + 0.5 + 1e-6)
        sides.append(slice(first, min(max(last, first + 1), shape[1 - axis])))
    return sides[0], sides[1]


@contextmanager
def whole_input(samples: Any) -> Iterator[None]:
    """Temporarily let heads treat the padding as a part of the image, so that they rescale complete results.

    `bring_back` then moves the results. Samples from a pipeline without a resize get the factor 1, which heads need.

    Args:
        samples: Data samples; anything but a list or tuple is left alone.
    """
    before = []
    for sample in samples if isinstance(samples, (list, tuple)) else ():
        meta = sample.metainfo
        if meta.get('scale_factor') is None:
            sample.set_metainfo({'scale_factor': (1.0, 1.0)})
        if not any(offset_of(meta)):
            continue
        scale, offset = meta['scale_factor'], offset_of(meta)
        kept = {'scale_factor': scale}
        whole: dict[str, Any] = {'scale_factor': tuple(scale)}
        if meta.get('ori_shape') is not None:
            kept['ori_shape'] = meta['ori_shape']
            height, width = meta['ori_shape'][:2]
            whole['ori_shape'] = (
                math.ceil(height + 2 * offset[1] / scale[1]),
                math.ceil(width + 2 * offset[0] / scale[0]),
            )
        before.append((sample, kept))
        sample.set_metainfo(whole)
    try:
        yield
    finally:
        for sample, kept in before:
            sample.set_metainfo(kept)


def bring_back(samples: Sequence[Any]) -> None:
    """Move detections made under `whole_input` into the frames of the original images.

    Boxes of any type are moved exactly, and horizontal ones clipped to the image as heads do; boxes centred on the
    padding are dropped. Masks and segmentation maps are cut to the image at the nearest pixel.

    Args:
        samples: Data samples with `pred_instances`.
    """
    for sample in samples:
        meta = sample.metainfo
        if not any(offset_of(meta)):
            continue
        shift = [-o / s for o, s in zip(offset_of(meta), meta['scale_factor'], strict=True)]
        shape = meta.get('ori_shape')
        found = sample.get('pred_instances')
        if found is not None and 'bboxes' in found:
            sample.pred_instances = _moved(found, shift, shape)
        if shape is None:
            continue
        for name, key in (
            ('pred_instances', 'masks'),
            ('pred_panoptic_seg', 'sem_seg'),
            ('pred_sem_seg', 'sem_seg'),
        ):
            part = sample.get(name)
            if part is not None and key in part:
                left, top = (round(-s) for s in shift)
                whole = part.pop(key)
                part.set_field(whole[..., top : top + shape[0], left : left + shape[1]], key)


def _moved(found: Any, shift: Sequence[float], shape: Sequence[int] | None) -> Any:
    boxes = found.bboxes
    plain = getattr(boxes, 'tensor', boxes)
    columns = plain.shape[-1]
    by = plain.new_zeros(columns)
    by[: 2 if columns == ROTATED else columns] = plain.new_tensor(shift).repeat(
        1 if columns == ROTATED else columns // 2
    )
    moved = plain + by
    if shape is not None:
        end = moved.new_tensor([shape[1], shape[0]])
        centres = moved[:, :2] if columns == ROTATED else moved.reshape(len(moved), -1, 2).mean(1)
        inside = ((centres >= 0) & (centres <= end)).all(1)
        if columns == HORIZONTAL:
            moved = torch.minimum(moved.clamp(min=0), end.repeat(2))
    if plain is boxes:
        found.bboxes = moved
    else:
        boxes.tensor = moved
    return found if shape is None else found[inside]
