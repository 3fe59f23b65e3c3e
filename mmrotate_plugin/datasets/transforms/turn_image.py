"""Turn images by one angle, and their labels with them."""

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from numpy.typing import NDArray

from ...registry import TRANSFORMS, register
from ...structures.corners import box_corners
from ...structures.turns import HORIZONTAL, ROTATED, turn_boxes, turn_matrix, turned_size

MOST_BANDS = 4  # that OpenCV fills the border of at once
SLACK = 0.01  # pixels that a corner may lie beyond the border


@register(TRANSFORMS)
class TurnImage(BaseTransform):
    """Turn an image about its centre, counter-clockwise, and its labels by the same map.

    Multiples of 90 degrees, and reflections, move pixels and are exact; odd ones exchange the sides. Other angles are
    interpolated (Lanczos) onto a canvas of the same size. There, objects whose centre leaves the image are dropped, and
    those cut by its border are ignored (`ignore_flag`), neither hits nor misses.

    Labels are turned where they are: the `instances` of the data set if the step stands before `LoadAnnotations`, and
    `gt_bboxes` if behind. As first step behind the loading of the image, it makes a data set whose images were taken at
    another angle; mmrotate's `Rotate` turns boxes only, so that a test pipeline, which loads labels in the frame of the
    file, would compare detections with labels that did not turn.

    Args:
        degrees: Angle, counter-clockwise on the screen.
        flip: Whether to reflect left-right first.
        disc: Paint what lies beyond the disc in the middle of the image, and treat its border as that of the image, at
            multiples of 90 degrees too. Then images at all angles show the same.
        pad_val: Value of what is painted, a number or one per channel; None for the median of each channel.

    Required keys: img (H, W) or (H, W, C).

    Modified keys: img, img_shape, ori_shape, instances, gt_bboxes, gt_bboxes_labels, gt_ignore_flags.

    Added keys: homography_matrix.

    Raises:
        ValueError: If `degrees` is not a finite number; if there are masks, which it does not turn; for horizontal
            boxes and an angle other than a multiple of 90 degrees.
    """

    def __init__(
        self, degrees: float, *, flip: bool = False, disc: bool = False, pad_val: float | Sequence[float] | None = None
    ) -> None:
        if not isinstance(degrees, (int, float)) or not math.isfinite(degrees):
            raise ValueError(f'degrees={degrees!r} must be a finite number, such as 22.5')
        self.degrees, self.flip, self.disc, self.pad_val = float(degrees), bool(flip), bool(disc), pad_val

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Turn the image in `results`, and its labels."""
        wrong = [key for key in ('gt_masks', 'gt_seg_map') if results.get(key) is not None]
        if wrong:
            raise ValueError(f'TurnImage turns boxes, and {wrong[0]} is loaded: leave it out of LoadAnnotations')
        image = results['img']
        size = image.shape[:2]
        if self.disc:
            image = paint_beyond_disc(image, self.pad_val)
        results['img'] = turn_image(image, self.degrees, flip=self.flip, pad_val=self.pad_val)
        results['img_shape'] = results['img'].shape[:2]
        if 'ori_shape' in results:
            results['ori_shape'] = turned_size(results['ori_shape'], self.degrees)
        matrix = turn_matrix(self.degrees, size, flip=self.flip).astype(np.float32)
        before = results.get('homography_matrix')
        results['homography_matrix'] = matrix if before is None else matrix @ before
        if results.get('gt_bboxes') is not None:
            self._turn_loaded(results, size)
        if results.get('instances'):
            results['instances'] = self._turn_instances(results['instances'], size)
        return results

    def _turn_instances(self, instances: Sequence[dict[str, Any]], size: Sequence[int]) -> list[dict[str, Any]]:
        kept = []
        for instance in instances:
            (box,) = turn_boxes([instance['bbox']], self.degrees, size, flip=self.flip)
            (there,), (whole,) = self._seen(box[None], turned_size(size, self.degrees))
            if there:
                ignored = int(instance.get('ignore_flag', 0) or not whole)
                kept.append({**instance, 'bbox': box.tolist(), 'ignore_flag': ignored})
        return kept

    def _turn_loaded(self, results: dict[str, Any], size: Sequence[int]) -> None:
        boxes = results['gt_bboxes']
        plain = boxes.tensor
        turned = turn_boxes(plain.cpu().numpy().reshape(len(plain), -1), self.degrees, size, flip=self.flip)
        there, whole = self._seen(turned, turned_size(size, self.degrees))
        boxes.tensor = plain.new_tensor(turned).reshape(plain.shape)
        results['gt_bboxes'] = boxes[plain.new_tensor(there).bool()]
        flags = results.get('gt_ignore_flags')
        flags = np.zeros(len(plain), bool) if flags is None else np.asarray(flags, bool)
        results['gt_ignore_flags'] = (flags | ~whole)[there]
        if results.get('gt_bboxes_labels') is not None:
            results['gt_bboxes_labels'] = results['gt_bboxes_labels'][there]

    def _seen(self, boxes: NDArray[np.float64], size: Sequence[int]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return whether the centres are in the picture, (N,), and whether the objects are as a whole, (N,)."""
        if self.degrees % 90 == 0 and not self.disc:
            return np.ones(len(boxes), bool), np.ones(len(boxes), bool)
        corners = corners_of(boxes)
        if self.disc:
            return within_disc(corners.mean(1), size), np.asarray(within_disc(corners, size).all(1))
        end = np.array(size[::-1]) + SLACK
        centre = corners.mean(1)
        inside = ((corners >= -SLACK) & (corners <= end)).all((1, 2))
        return np.asarray(((centre >= 0) & (centre <= end)).all(1)), np.asarray(inside)

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(degrees={self.degrees}, flip={self.flip}, disc={self.disc}, pad_val={self.pad_val})'
        )


def turn_image(
    image: NDArray[Any], degrees: float, *, flip: bool = False, pad_val: float | Sequence[float] | None = None
) -> NDArray[Any]:
    """Turn an image, (H, W) or (H, W, C), counter-clockwise about its centre.

    Args:
        image: Of any numeric type.
        degrees: Angle. Multiples of 90 move pixels; others are interpolated (Lanczos; OpenCV rounds places to 1/32 of a
            pixel) onto a canvas of the same size.
        flip: Whether to reflect left-right first.
        pad_val: Value of the corners that nothing turns into; None for the median of each channel.
    """
    if flip:
        image = image[:, ::-1]
    if degrees % 90 == 0:
        return np.ascontiguousarray(np.rot90(image, int(degrees // 90) % 4))
    values = np.atleast_3d(image)
    if values.dtype not in (np.uint8, np.uint16, np.float32, np.float64):
        values = values.astype(np.float64)
    fill = _fill(values, pad_val)
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # OpenCV counts from the centre of the first pixel
    matrix = (np.linalg.inv(half) @ turn_matrix(degrees, image.shape[:2]) @ half)[:2]
    parts = [
        np.atleast_3d(
            cv2.warpAffine(
                np.ascontiguousarray(values[..., i : i + MOST_BANDS]),
                matrix,
                image.shape[1::-1],
                flags=cv2.INTER_LANCZOS4,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=fill[i : i + MOST_BANDS].tolist(),
            )
        )
        for i in range(0, values.shape[2], MOST_BANDS)
    ]
    return _as_type(np.concatenate(parts, axis=2), image)


def paint_beyond_disc(image: NDArray[Any], pad_val: float | Sequence[float] | None = None) -> NDArray[Any]:
    """Paint the corners outside of the largest disc about the centre, with a soft border of one pixel."""
    h, w = image.shape[:2]
    values = np.atleast_3d(image)
    distance = np.hypot(np.arange(h)[:, None] + 0.5 - h / 2, np.arange(w) + 0.5 - w / 2)
    part = np.clip(min(h, w) / 2 + 0.5 - distance, 0, 1)[..., None]
    return _as_type(values * part + _fill(values, pad_val) * (1 - part), image)


def within_disc(points: NDArray[np.float64], size: Sequence[int]) -> NDArray[np.bool_]:
    """Return whether points (..., 2) lie in the largest disc about the centre of an image of `size`, (h, w)."""
    distance = np.linalg.norm(points - np.array(size[1::-1]) / 2, axis=-1)
    return np.asarray(distance <= min(size[:2]) / 2 + SLACK)


def corners_of(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the corners of boxes with 4, 5 or 8 columns, (N, 4, 2)."""
    if boxes.shape[1] == ROTATED:
        return box_corners(boxes)
    if boxes.shape[1] == HORIZONTAL:
        return boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    return boxes.reshape(-1, 4, 2)


def _fill(values: NDArray[Any], pad_val: float | Sequence[float] | None) -> NDArray[np.float64]:
    """Return one value per channel."""
    fill = np.median(values, (0, 1)) if pad_val is None else np.asarray(pad_val, np.float64)
    return np.broadcast_to(fill, values.shape[2:]).astype(np.float64)


def _as_type(values: NDArray[Any], image: NDArray[Any]) -> NDArray[Any]:
    if image.dtype.kind in 'iu' and values.dtype != image.dtype:
        limits = np.iinfo(image.dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return values.astype(image.dtype).reshape(image.shape)
