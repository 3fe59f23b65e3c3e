"""Resize images to sizes on which every stride keeps the centre."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from numpy.typing import NDArray

from ...registry import TRANSFORMS, register
from ...structures import CentredScale

WEIGHT_BITS = 11  # of the interpolation weights: two axes and 8-bit pixels stay exact in 32 bits
ROUND_OFF = 1e-6  # pixels: 1024 * (1025 / 1024) may exceed 1025 by less
IGNORED = 255  # label of padding in segmentation maps, as in mmdet and mmsegmentation


@register(TRANSFORMS)
class SymmetricResize(BaseTransform):
    """Resize an image by one factor into the middle of a canvas with sides of 32m + 1 pixels.

    A stride of 2 maps a side of 2m + 1 pixels to m + 1 with the same centre, and moves the centre of any other side.
    Hence an equivariant network is exact on such sides only; and it recognises shapes it has learned only if both axes
    have one factor. Image and canvas share their centre. The canvas has the smallest such sides that hold the whole
    resized image; the rest, less than ``multiple / 2`` pixels at each side except for tiny images, is padded. Nothing
    is cropped. Sizes that fit, like 1024 pixels at scale 1025, get no padding.

    The interpolation is linear about the centre in exact arithmetic: the turned or mirrored image gives the turned or
    mirrored result, bit for bit, unlike OpenCV's.

    It replaces mmdet's `Resize`, also as ``resize_type`` of mmcv's `RandomResize` and `RandomChoiceResize`. Bounding
    boxes, masks and the segmentation map follow. The `scale_factor` carries the place on the canvas as its `offset`
    (`CentredScale`), by which the room `hosts` maps detections back. mmsegmentation removes the padding by
    `padding_size`, which must be among the `meta_keys` of its `PackSegInputs`.

    Args:
        scale: Width and height to fit into, in pixels; an integer for both.
        scale_factor: Size of the resized image over that of the input, for both axes or (x, y), if `scale` is not
            given. With neither, the image is only padded.
        keep_ratio: Scale both axes by one factor. False stretches the image to `scale`, which turns rectangles into
            parallelograms; boxes become the best rectangles of their moved corners (`stretch_rotated`).
        multiple: Product of the strides of the network: 32 for a ResNet of four stages, 64 if an equivariant pyramid
            has one more level.
        pad_val: Value of the padding, a number or one per channel. The default, the median of each channel, is the
            background of most aerial images: it stays inconspicuous after any normalisation, for any number of channels
            and bit depth, and does not change when the image is turned.

    Required keys: img (H, W) or (H, W, C), 8 bit or any other numeric type.

    Modified keys: img, img_shape, gt_bboxes, gt_masks, gt_seg_map (padded with 255).

    Added keys: scale, scale_factor (x, y), keep_ratio, homography_matrix, padding_size (left, right, top, bottom).

    Raises:
        ValueError: If an argument is not a positive number; the message names it.
    """

    def __init__(
        self,
        scale: int | tuple[int, int] | None = None,
        scale_factor: float | tuple[float, float] | None = None,
        keep_ratio: bool = True,
        multiple: int = 32,
        pad_val: float | Sequence[float] | None = None,
    ) -> None:
        if not isinstance(multiple, int) or multiple < 1:
            raise ValueError(f'multiple={multiple!r} must be a positive integer, such as 32')
        if scale is not None and scale_factor is not None:
            raise ValueError(f'give one of scale={scale} and scale_factor={scale_factor}')
        values = pad_val if isinstance(pad_val, (list, tuple)) else [pad_val]
        if pad_val is not None and not all(isinstance(v, (int, float)) and math.isfinite(v) for v in values):
            raise ValueError(f'pad_val={pad_val!r} must be a number, one per channel, or None for the median')
        # mmcv's random resizes pass the placeholder 0, and set the scale before each call
        self.scale = scale if scale in (None, 0) else _pair('scale', scale)
        self.scale_factor = None if scale_factor is None else _pair('scale_factor', scale_factor)
        self.keep_ratio = keep_ratio
        self.multiple = multiple
        self.pad_val = pad_val

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resize the image in `results` and what belongs to it."""
        image = results['img']
        height, width = image.shape[:2]
        scale = self._factors(width, height)
        new_width, new_height = self._canvas(width * scale[0]), self._canvas(height * scale[1])
        size = new_height, new_width
        offset = (new_width - width * scale[0]) / 2, (new_height - height * scale[1]) / 2
        if max(offset) < ROUND_OFF:
            offset = 0.0, 0.0

        results['img'] = resize_symmetric(image, size, scale[::-1], self.pad_val)
        results['img_shape'] = size
        results['scale'] = size[::-1]
        results['keep_ratio'] = self.keep_ratio
        _record(results, scale, offset)
        across, down = round(offset[0]), round(offset[1])
        results['padding_size'] = [across, across, down, down]
        if results.get('gt_bboxes') is not None:
            results['gt_bboxes'].rescale_(scale)
            if any(offset):
                results['gt_bboxes'].translate_(offset)
        if results.get('gt_masks') is not None:
            results['gt_masks'] = _move_masks(results['gt_masks'], size, scale, offset)
        if results.get('gt_seg_map') is not None:
            results['gt_seg_map'] = _nearest(results['gt_seg_map'], size, scale[::-1], IGNORED)
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

    def _canvas(self, content: float) -> int:
        """Return the smallest fitting side for `content` pixels, at least one multiple plus 1."""
        return max(1, math.ceil((content - 1 - ROUND_OFF) / self.multiple)) * self.multiple + 1

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(scale={self.scale}, scale_factor={self.scale_factor}, '
            f'keep_ratio={self.keep_ratio}, multiple={self.multiple}, pad_val={self.pad_val})'
        )


def resize_symmetric(
    image: NDArray[Any],
    size: tuple[int, int],
    scale: tuple[float, float] | None = None,
    pad_val: float | Sequence[float] | None = None,
) -> NDArray[Any]:
    """Resize linearly about the centre, so that it commutes with quarter turns and reflections bit for bit.

    Pixels cover unit squares, as in OpenCV: output i lies at ``(i + 0.5 - n_out / 2) / scale + n_in / 2 - 0.5``. The
    weights are multiples of 2^-11 and the same from both ends; for 8-bit images all sums are exact in 32-bit integers,
    for others in float64, as far as its 53 bits reach, so that the order of summation does not matter.

    Args:
        image: (H, W) or (H, W, C).
        size: Height and width of the output, pixels.
        scale: Factors of height and width, by default ``n_out / n_in``. If they are smaller, pixels whose centre lies
            beyond the image are padding.
        pad_val: Value of the padding, a number or one per channel; None for the median of each channel.

    Returns:
        (H', W') or (H', W', C), in the dtype of `image`; integers are rounded half up.
    """
    height, width = image.shape[:2]
    if (height, width) == tuple(size) and scale in (None, (1.0, 1.0)):
        return image
    scale = scale or (size[0] / height, size[1] / width)
    exact = image.dtype == np.uint8
    values: NDArray[Any] = image.astype(np.int32 if exact else np.float64)
    first = []
    for axis, (length, factor) in enumerate(zip(size, scale, strict=True)):
        near, far, weight = _taps(image.shape[axis], length, factor)
        first.append((length - len(near)) // 2)
        weight = weight.astype(values.dtype).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
        values = values.take(near, axis) * ((1 << WEIGHT_BITS) - weight) + values.take(far, axis) * weight
    if exact:
        content = ((values + (1 << 2 * WEIGHT_BITS - 1)) >> 2 * WEIGHT_BITS).astype(np.uint8)
    else:
        values /= 1 << 2 * WEIGHT_BITS
        content = (np.floor(values + 0.5) if image.dtype.kind in 'iu' else values).astype(image.dtype)
    if not any(first):
        return content
    return _on_canvas(content, size, np.median(image, (0, 1)) if pad_val is None else pad_val)


def _on_canvas(content: NDArray[Any], size: tuple[int, int], value: Any) -> NDArray[Any]:
    """Put `content` in the middle of a canvas filled with `value`."""
    value = np.asarray(value, np.float64)
    if content.dtype.kind in 'iu':
        value = np.floor(value + 0.5)
    canvas = np.empty((*size, *content.shape[2:]), content.dtype)
    canvas[...] = value.astype(content.dtype)
    top, left = ((whole - part) // 2 for whole, part in zip(size, content.shape, strict=False))
    canvas[top : top + content.shape[0], left : left + content.shape[1]] = content
    return canvas


def _taps(old: int, new: int, scale: float) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int64]]:
    """Find two input pixels for each output pixel that shows the image, and the weight of the second in 2^-11.

    Output pixels whose centre lies beyond the image are left out, the same number at both ends; the others are mirrored
    about the centre.
    """
    content = scale * old
    content = new if abs(content - new) < ROUND_OFF else content
    offset = (new - content) / 2
    first = min(max(0, math.ceil(offset - 0.5 - ROUND_OFF)), (new - 1) // 2)
    half = (new + 1) // 2
    position = np.clip((np.arange(first, half) + 0.5 - offset) * old / content - 0.5, 0, old - 1)
    near = position.astype(np.intp)
    far = np.minimum(near + 1, old - 1)
    weight = np.rint((position - near) * (1 << WEIGHT_BITS)).astype(np.int64)
    middle = len(near) - 1 - new % 2  # an odd side has one pixel that is its own mirror image
    rest = slice(middle, None, -1) if middle >= 0 else slice(0, 0)
    return (
        np.concatenate([near, old - 1 - near[rest]]),
        np.concatenate([far, old - 1 - far[rest]]),
        np.concatenate([weight, weight[rest]]),
    )


def _nearest(image: NDArray[Any], size: tuple[int, int], scale: tuple[float, float], value: int) -> NDArray[Any]:
    """Resize by taking the heavier of the two taps at each pixel, and pad with a value."""
    for axis, (length, factor) in enumerate(zip(size, scale, strict=True)):
        near, far, weight = _taps(image.shape[axis], length, factor)
        image = image.take(np.where(weight > (1 << WEIGHT_BITS - 1), far, near), axis)
    return image if image.shape[:2] == tuple(size) else _on_canvas(image, size, value)


def _move_masks(masks: Any, size: tuple[int, int], scale: tuple[float, float], offset: tuple[float, float]) -> Any:
    """Move mmdet's bitmaps or polygons onto the canvas."""
    if hasattr(masks.masks, 'shape'):  # bitmaps, (N, H, W)
        moved = [_nearest(mask, size, scale[::-1], 0) for mask in masks.masks]
        return type(masks)(np.stack(moved) if moved else np.zeros((0, *size), np.uint8), *size)
    polygons = [
        [np.ravel(np.reshape(part, (-1, 2)) * scale + offset).astype(part.dtype) for part in parts]
        for parts in masks.masks
    ]
    return type(masks)(polygons, *size)


def _record(results: dict[str, Any], scale: tuple[float, float], offset: tuple[float, float]) -> None:
    """Record the map of coordinates, for the way back and as mmdet's transforms compose it."""
    matrix = np.array([[scale[0], 0, offset[0]], [0, scale[1], offset[1]], [0, 0, 1]], np.float32)
    before = results.get('homography_matrix')
    results['homography_matrix'] = matrix if before is None else matrix @ before
    results['scale_factor'] = CentredScale(scale, offset) if any(offset) else scale


def _pair(name: str, value: Any) -> tuple[Any, Any]:
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or not all(isinstance(v, (int, float)) and math.isfinite(v) and v > 0 for v in pair):
        raise ValueError(f'{name}={value!r} must be a positive number or a pair (width, height) of them')
    return pair
