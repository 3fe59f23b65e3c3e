"""Image sizes on which every stride keeps the centre."""

import math
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from numpy.typing import NDArray

from ..registry import TRANSFORMS, register

WEIGHT_BITS = 11  # of the interpolation weights: two axes and 8-bit pixels stay exact in 32 bits


@register(TRANSFORMS)
class SymmetricResize(BaseTransform):
    """Resize an image to sides of 32m + 1 pixels, so that an equivariant network stays exact.

    A stride of 2 takes a side of 2m + 1 pixels to m + 1 with the same centre, and moves the centre of any other side.
    Each side is brought to the nearest multiple of `multiple`, plus 1, so both change by up to ``multiple / 2`` pixels
    apart from each other. The interpolation is linear about the image's centre in exact arithmetic: the turned or
    mirrored image gives the turned or mirrored result, bit for bit, which OpenCV's does not.

    It takes the place of mmdet's `Resize`, also inside of mmcv's `RandomResize` and `RandomChoiceResize` as
    ``resize_type``. Bounding boxes, masks and the segmentation map follow; detections are mapped back by the
    `scale_factor` that it records.

    Args:
        scale: Width and height to fit into before rounding, pixels; an integer for both.
        scale_factor: Size of the output over that of the input before rounding, for both axes or (x, y), if `scale` is
            not given. With neither the size is only rounded.
        keep_ratio: Scale both axes by one factor before rounding; False stretches the image to `scale`.
        multiple: The strides of the network multiplied: 32 for a ResNet of four stages, 64 where an equivariant
            pyramid has one level more.

    Required keys: img (H, W) or (H, W, C), 8 bit or any other numeric type.

    Modified keys: img, img_shape, gt_bboxes, gt_masks, gt_seg_map.

    Added keys: scale, scale_factor (x, y), keep_ratio.

    Raises:
        ValueError: If an argument is not positive; the message names it.
    """

    def __init__(
        self,
        scale: int | tuple[int, int] | None = None,
        scale_factor: float | tuple[float, float] | None = None,
        keep_ratio: bool = True,
        multiple: int = 32,
    ) -> None:
        if not isinstance(multiple, int) or multiple < 1:
            raise ValueError(f'multiple={multiple!r} must be a positive integer, such as 32')
        if scale is not None and scale_factor is not None:
            raise ValueError(f'give one of scale={scale} and scale_factor={scale_factor}')
        # mmcv's random resizes build with the placeholder 0, and set the scale before each call
        self.scale = scale if scale in (None, 0) else _pair('scale', scale)
        self.scale_factor = None if scale_factor is None else _pair('scale_factor', scale_factor)
        self.keep_ratio = keep_ratio
        self.multiple = multiple

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resize what `results` holds."""
        image = results['img']
        height, width = image.shape[:2]
        factor_x, factor_y = self._factors(width, height)
        new_width, new_height = self._round(width * factor_x), self._round(height * factor_y)
        scale = (new_width / width, new_height / height)

        results['img'] = resize_symmetric(image, (new_height, new_width))
        results['img_shape'] = (new_height, new_width)
        results['scale'] = (new_width, new_height)
        results['scale_factor'] = scale
        results['keep_ratio'] = self.keep_ratio
        if results.get('gt_bboxes') is not None:
            results['gt_bboxes'].rescale_(scale)
        if results.get('gt_masks') is not None:
            results['gt_masks'] = results['gt_masks'].resize((new_height, new_width))
        if results.get('gt_seg_map') is not None:
            rows, columns = _nearest(height, new_height), _nearest(width, new_width)
            results['gt_seg_map'] = results['gt_seg_map'][rows][:, columns]
        return results

    def _factors(self, width: int, height: int) -> tuple[float, float]:
        if self.scale is not None:
            scale = _pair('scale', self.scale)
            if not self.keep_ratio:
                return scale[0] / width, scale[1] / height
            long, short = max(scale), min(scale)
            factor = min(long / max(width, height), short / min(width, height))
            return factor, factor
        return self.scale_factor or (1.0, 1.0)

    def _round(self, size: float) -> int:
        """The nearest side, at least one multiple plus 1."""
        return max(1, math.floor((size - 1) / self.multiple + 0.5)) * self.multiple + 1

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(scale={self.scale}, scale_factor={self.scale_factor}, '
            f'keep_ratio={self.keep_ratio}, multiple={self.multiple})'
        )


def resize_symmetric(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Linear interpolation about the centre that commutes with quarter turns and reflections bit for bit.

    Pixels cover unit squares, as in OpenCV: output i lies at ``(i + 0.5) * n_in / n_out - 0.5``. The weights are
    multiples of 2^-11 and the same from both ends; for 8-bit images all sums are exact in 32-bit integers, for others
    in float64 as far as its 53 bits reach, so that their order does not matter.

    Args:
        image: (H, W) or (H, W, C).
        size: Height and width of the output, pixels.

    Returns:
        The dtype of `image`; integers are rounded half up.
    """
    if image.shape[:2] == tuple(size):
        return image
    exact = image.dtype == np.uint8
    values = image.astype(np.int32 if exact else np.float64)
    for axis, length in enumerate(size):
        near, far, weight = _taps(image.shape[axis], length)
        weight = weight.astype(values.dtype).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
        values = values.take(near, axis) * ((1 << WEIGHT_BITS) - weight) + values.take(far, axis) * weight
    if exact:
        return ((values + (1 << 2 * WEIGHT_BITS - 1)) >> 2 * WEIGHT_BITS).astype(np.uint8)
    values /= 1 << 2 * WEIGHT_BITS
    return np.floor(values + 0.5).astype(image.dtype) if image.dtype.kind in 'iu' else values.astype(image.dtype)


def _taps(old: int, new: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int64]]:
    """Two input pixels for each output pixel, and the weight of the second in 2^-11; mirrored about the centre."""
    half = (new + 1) // 2
    position = np.clip((np.arange(half) + 0.5) * old / new - 0.5, 0, old - 1)
    near = position.astype(np.intp)
    far = np.minimum(near + 1, old - 1)
    weight = np.rint((position - near) * (1 << WEIGHT_BITS)).astype(np.int64)
    rest = slice(new // 2 - 1, None, -1) if new > 1 else slice(0, 0)
    return (
        np.concatenate([near, old - 1 - near[rest]]),
        np.concatenate([far, old - 1 - far[rest]]),
        np.concatenate([weight, weight[rest]]),
    )


def _nearest(old: int, new: int) -> NDArray[np.intp]:
    """The heavier of the two taps."""
    near, far, weight = _taps(old, new)
    return np.where(weight > (1 << WEIGHT_BITS - 1), far, near)


def _pair(name: str, value: Any) -> tuple[Any, Any]:
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or not all(isinstance(v, (int, float)) and math.isfinite(v) and v > 0 for v in pair):
        raise ValueError(f'{name}={value!r} must be a positive number or a pair (width, height) of them')
    return pair
