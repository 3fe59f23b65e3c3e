"""Measure the objects of a part of the data: sizes, aspect ratios, angles, how far they reach beyond their images."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .collect import DataPart

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
ANGLES = np.arange(-90, 91, 10)  # edges of the histogram, degrees
BEYOND = 1.0  # pixels; a corner that lies so far outside counts

Floats = NDArray[np.float64]


@dataclass
class Measures:
    """Measures of M objects.

    Attributes:
        longer: (M,), longer side of the smallest rectangle around the corners, pixels.
        shorter: (M,), its shorter side.
        degrees: (M,), direction of the longer side, in [-90, 90), clockwise as the image is seen ('le90').
        outside: (M,), share of the area that lies outside of the image.
        beyond: (M,), whether a corner lies a pixel or more outside.
    """

    longer: Floats
    shorter: Floats
    degrees: Floats
    outside: Floats
    beyond: NDArray[np.bool_]

    @property
    def size(self) -> Floats:
        """Square root of the area, pixels."""
        return np.sqrt(self.longer * self.shorter)

    @property
    def aspect(self) -> Floats:
        """Longer side divided by the shorter one."""
        return self.longer / np.maximum(self.shorter, 1e-9)


def measure_objects(part: DataPart) -> Measures:
    """Measure each object as training turns its corners into a box."""
    boxes = np.array([rectangle_of(polygon) for polygon in part.polygons], np.float64).reshape(-1, 3)
    sizes = part.sizes[part.owners] if len(part.owners) else np.zeros((0, 2), np.int64)
    low, high = part.polygons.min(1, initial=np.inf), part.polygons.max(1, initial=-np.inf)
    known = (sizes > 0).all(1)
    beyond = known & ((low < -BEYOND).any(1) | (high > sizes + BEYOND).any(1))
    outside = np.zeros(len(boxes))
    for i in np.flatnonzero(beyond):
        outside[i] = _share_outside(part.polygons[i], int(sizes[i, 0]), int(sizes[i, 1]))
    return Measures(boxes[:, 0], boxes[:, 1], boxes[:, 2], outside, beyond)


def measure(part: DataPart, found: Measures | None = None) -> dict[str, Any]:
    """Compute the numbers of a part, for JSON.

    Args:
        part: Images and objects.
        found: What `measure_objects` returned, if it was called before.
    """
    found = measure_objects(part) if found is None else found
    per_image = np.bincount(part.owners, minlength=len(part.paths)) if part.paths else np.zeros(0, np.int64)
    return {
        'images': len(part.paths),
        'images_without_objects': int((per_image == 0).sum()),
        'images_without_label_file': len(part.unlabelled),
        'broken_files': len(part.broken),
        'objects': len(part.labels),
        'difficult': int(part.difficult.sum()),
        'objects_left_out': part.refused,
        'objects_outside_their_image': part.outside,
        'objects_beyond_the_edge': int(found.beyond.sum()),
        'objects_of_other_classes': part.other_classes,
        'image_width': quantiles(part.sizes[:, 0]),
        'image_height': quantiles(part.sizes[:, 1]),
        'objects_per_image': quantiles(per_image),
        **_of_objects(found, np.ones(len(part.labels), bool)),
        'classes': {
            name: {
                'objects': int((part.labels == label).sum()),
                'images': len(np.unique(part.owners[part.labels == label])),
                'difficult': int(part.difficult[part.labels == label].sum()),
                **_of_objects(found, part.labels == label),
            }
            for label, name in enumerate(part.classes)
        },
    }


def quantiles(values: NDArray[Any]) -> dict[str, float] | None:
    """Return the smallest and the largest value and `QUANTILES`; None without values."""
    if not len(values):
        return None
    middle = {f'{100 * q:g}%': float(np.quantile(values, q)) for q in QUANTILES}
    return {'min': float(values.min()), **middle, 'max': float(values.max())}


def _of_objects(found: Measures, chosen: NDArray[np.bool_]) -> dict[str, Any]:
    counts, _ = np.histogram(found.degrees[chosen], ANGLES)
    return {
        'size': quantiles(found.size[chosen]),
        'longer_side': quantiles(found.longer[chosen]),
        'shorter_side': quantiles(found.shorter[chosen]),
        'aspect_ratio': quantiles(found.aspect[chosen]),
        'angles': {f'{low}..{low + 10}': int(count) for low, count in zip(ANGLES[:-1].tolist(), counts, strict=True)},
    }


def rectangle_of(polygon: Floats) -> tuple[float, float, float]:
    """Return the smallest rectangle around four corners: longer side, shorter side, direction of the longer one.

    Args:
        polygon: (4, 2), pixels.

    Returns:
        Pixels, pixels, and degrees in [-90, 90), clockwise as the image is seen.
    """
    centre = polygon.mean(0)
    _, (width, height), degrees = cv2.minAreaRect((polygon - centre).astype(np.float32))
    if width < height:
        width, height, degrees = height, width, degrees + 90
    return width, height, (degrees + 90) % 180 - 90


def _share_outside(polygon: Floats, width: int, height: int) -> float:
    hull = cv2.convexHull(polygon.astype(np.float32))
    image = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    area = cv2.contourArea(hull)
    inside, _ = cv2.intersectConvexConvex(hull, image)
    return float(np.clip(1 - inside / area, 0, 1)) if area > 0 else 0.0
