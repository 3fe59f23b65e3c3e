"""Draw synthetic aerial scenes from a seed: rotated objects of several classes on varied ground.

Scene (seed, index) is the same in every process and in any order, for given versions of numpy and OpenCV.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator, SeedSequence, default_rng

from ...structures.corners import box_corners
from .canvas import Sketch, raster
from .clutter import CLUTTER
from .layouts import LAYOUTS
from .objects import CLASSES, KINDS, PALETTE, Brush, Colour, Sprite, grey, shade
from .textures import smooth_noise, texture

__all__ = ['CLASSES', 'PALETTE', 'Scene', 'draw_scene', 'lay_out', 'noise_levels', 'paint', 'photograph']

ALL_ANGLES = (-180.0, 180.0)
_FINE = 3  # cells per pixel and side while painting; averaged at the end
_SMALLEST = 32
_COURSE, _GROUND, _CAMERA, _LOOKS, _NOISE = range(5)  # independent streams of one scene


@dataclass(frozen=True)
class Scene:
    """An image and the objects in it.

    Attributes:
        image: (H, W, 3) uint8, BGR.
        labels: (N,) int64, indices into CLASSES.
        rboxes: (N, 5) float64: cx, cy, w, h in pixels, angle in radians, -pi to pi. w lies along the heading.
    """

    image: np.ndarray
    labels: np.ndarray
    rboxes: np.ndarray

    @property
    def polygons(self) -> np.ndarray:
        """Corners in pixels, (N, 4, 2); the edge from the first to the second points ahead."""
        return box_corners(self.rboxes)


def draw_scene(
    seed: int,
    index: int,
    *,
    size: int | tuple[int, int] = 193,
    num_objects: int | tuple[int, int] = (6, 14),
    scale: tuple[float, float] = (0.9, 1.3),
    angles: tuple[float, float] = ALL_ANGLES,
    noise_std: float | tuple[float, float] = 0.0,
) -> Scene:
    """Draw scene number `index` of the endless series `seed`.

    Args:
        size: Side of a square image or (width, height), in pixels.
        num_objects: Number of objects, or the smallest and the largest. There are fewer if a small image has no room
            for all of them. 0 gives a scene without objects.
        scale: Smallest and largest factor on the objects' sizes; one factor per scene.
        angles: Smallest and largest angle of rows, roads and single objects, degrees, clockwise. With (0, 0) they lie
            along the image's axes.
        noise_std: Standard deviation of white noise added to the camera's picture, in grey levels: one number, or one
            for the left half and one for the right.

    Raises:
        ValueError: If an argument is out of range; the message names it.
    """
    levels = noise_levels(noise_std)
    sketch = lay_out(seed, index, size=size, num_objects=num_objects, scale=scale, angles=angles)
    image = photograph(paint(sketch, seed, index), _stream(seed, index, _CAMERA))
    if any(levels):
        image = add_noise(image, levels, _stream(seed, index, _NOISE))
    return Scene(image, sketch.labels, sketch.rboxes)


def noise_levels(noise_std: float | Sequence[float]) -> tuple[float, float]:
    """Return the noise of the left and of the right half of an image.

    Raises:
        ValueError: If `noise_std` is not one or two finite, non-negative numbers.
    """
    levels = tuple(noise_std) if isinstance(noise_std, Sequence) else (noise_std, noise_std)
    if len(levels) != 2 or not all(isinstance(x, (int, float)) and math.isfinite(x) and x >= 0 for x in levels):
        raise ValueError(
            f'noise_std={noise_std}: must be finite and non-negative, in grey levels, or a pair (left half, right half)'
        )
    return float(levels[0]), float(levels[1])


def add_noise(image: np.ndarray, levels: tuple[float, float], rng: Generator) -> np.ndarray:
    """Add white noise, in grey levels, to the left and the right half of an image, (H, W, 3) uint8."""
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    middle = image.shape[1] // 2
    noise[:, :middle] *= levels[0]
    noise[:, middle:] *= levels[1]
    return np.rint(image + noise).clip(0, 255).astype(np.uint8)


def lay_out(
    seed: int,
    index: int,
    *,
    size: int | tuple[int, int],
    num_objects: int | tuple[int, int],
    scale: tuple[float, float],
    angles: tuple[float, float] = ALL_ANGLES,
) -> Sketch:
    """Place the objects of a scene without painting it, at a fraction of the cost of `draw_scene`."""
    width, height = (size, size) if isinstance(size, int) else size
    low, high = (num_objects, num_objects) if isinstance(num_objects, int) else num_objects
    if min(width, height) < _SMALLEST:
        raise ValueError(f'size={size}: both sides must be at least {_SMALLEST} pixels')
    if not 0 <= low <= high:
        raise ValueError(f'num_objects={num_objects}: must be non-negative, or a pair (smallest, largest)')
    if not 0 < scale[0] <= scale[1]:
        raise ValueError(f'scale={scale}: must be a pair (smallest, largest) of positive factors')
    if not -360 <= angles[0] <= angles[1] <= 360:
        raise ValueError(f'angles={angles}: must be a pair (smallest, largest) of degrees within -360 and 360')
    if seed < 0 or index < 0:
        raise ValueError(f'seed={seed}, index={index}: both must be 0 or more')
    rng = _stream(seed, index, _COURSE)
    sketch = Sketch(rng, width, height, rng.uniform(*scale), int(rng.integers(low, high + 1)), angles)
    LAYOUTS[rng.integers(len(LAYOUTS))](sketch)
    return sketch


def _stream(seed: int, index: int, *purpose: int) -> Generator:
    return default_rng(SeedSequence(seed, spawn_key=(index, *purpose)))


def paint(sketch: Sketch, seed: int, index: int, *, shadows: bool = True) -> np.ndarray:
    """Paint the ground and what stands on it in the light of the sun, (H, W, 3) uint8."""
    rng = _stream(seed, index, _GROUND)
    canvas = _paint_ground(sketch, rng)
    elevation = rng.uniform(0.5, 1.3)  # shadow length over object height
    azimuth = rng.uniform(-np.pi, np.pi)
    sun = np.array([np.cos(azimuth), np.sin(azimuth)])

    looks = _stream(seed, index, _LOOKS)
    placed: list[tuple[_Pen, Sprite]] = []
    things: list[tuple[str | int, np.ndarray]] = [*sketch.clutter, *sketch.items]
    for name, rbox in things:
        x, y = (min(int(v) * _FINE, n - 1) for v, n in zip(rbox[:2], canvas.shape[1::-1], strict=True))
        under = np.ravel(cv2.mean(canvas[max(y - 12, 0) : y + 12, max(x - 12, 0) : x + 12])).tolist()
        pen = _Pen(rbox)
        sun_x, sun_y = pen.axes @ sun
        brush = Brush(looks, (rbox[2], rbox[3]), grey(under), (sun_x, sun_y))
        sprite = CLUTTER[name](brush) if isinstance(name, str) else KINDS[name].paint(brush)
        placed.append((pen, sprite))
    if shadows:
        canvas = _cast_shadows(canvas, placed, -sun * elevation, rng.uniform(0.35, 0.6))
    for pen, sprite in placed:
        for polygon, colour in sprite.parts:
            pen.fill(canvas, polygon, colour)
    return cv2.resize(canvas, (sketch.width, sketch.height), interpolation=cv2.INTER_AREA)


class _Pen:
    """Paints polygons given in the frame of a box (-1..1) on a canvas of _FINE cells per pixel."""

    def __init__(self, rbox: np.ndarray) -> None:
        x, y, w, h, a = rbox.tolist()
        self.axes = np.array([(math.cos(a), math.sin(a)), (-math.sin(a), math.cos(a))])
        self.matrix = self.axes * ((w / 2,), (h / 2,)) * _FINE
        self.centre = np.array((x, y)) * _FINE - 0.5

    def cells(self, polygon: np.ndarray) -> np.ndarray:
        """Move a polygon from the frame of the box to cells of the canvas."""
        return polygon @ self.matrix + self.centre

    def fill(self, canvas: np.ndarray, polygon: np.ndarray, colour: Colour) -> None:
        """Fill a polygon of the frame of the box, in place."""
        _fill(canvas, self.cells(polygon), colour)


def _fill(canvas: np.ndarray, cells: np.ndarray, colour: Sequence[float]) -> None:
    cv2.fillPoly(canvas, [np.rint(cells * 16).astype(np.int32)], colour, lineType=cv2.LINE_8, shift=4)


def _paint_ground(sketch: Sketch, rng: Generator) -> np.ndarray:
    """Paint the ground with its markings at _FINE cells per pixel, uint8."""
    shape = sketch.height, sketch.width
    image = np.zeros((*shape, 3), np.float32)
    for polygon, kind in sketch.grounds:
        cover = texture(kind, rng, shape)
        if polygon is None:
            image = cover
        else:
            image += (cover - image) * _mask([polygon], shape, blur=3)
    if sketch.foam:
        foam = _mask(sketch.foam, shape, blur=7) * (0.55 + 0.3 * smooth_noise(rng, shape, 2.5)[..., None])
        water = _zone_before_objects(sketch, shape)
        image += (235 - image) * foam.clip(0, 0.8) * water
    fine = cv2.resize(image.clip(0, 255).astype(np.uint8), (shape[1] * _FINE, shape[0] * _FINE))
    for polygon, colour in sketch.marks:
        raster(fine, polygon, shade(colour, rng.uniform(0.85, 1.0)), _FINE)
    return fine


def _zone_before_objects(sketch: Sketch, shape: tuple[int, int]) -> np.ndarray:
    """Mark water with 1 and land with 0, (H, W, 1) float32."""
    water = np.zeros(shape, np.uint8)
    for polygon, kind in sketch.grounds:
        if polygon is None:
            water[:] = 255 * (kind == 'water')
        else:
            raster(water, polygon, (255 * (kind == 'water'),))
    return (water / np.float32(255))[..., None]


def _mask(polygons: list[np.ndarray], shape: tuple[int, int], blur: int) -> np.ndarray:
    """Draw polygons with soft edges, (H, W, 1) float32 in 0..1."""
    mask = np.zeros(shape, np.uint8)
    for polygon in polygons:
        raster(mask, polygon)
    return cv2.blur(mask, (blur, blur))[..., None] / np.float32(255)


def _cast_shadows(
    canvas: np.ndarray, placed: list[tuple[_Pen, Sprite]], offset: np.ndarray, strength: float
) -> np.ndarray:
    """Darken the ground with the shadows of what stands on it."""
    mask = np.zeros(canvas.shape[:2], np.uint8)
    for pen, sprite in placed:
        reach = offset * sprite.height * _FINE
        for polygon in sprite.outline:
            base = pen.cells(polygon)
            _fill(mask, cv2.convexHull(np.concatenate([base, base + reach]).astype(np.float32))[:, 0], (255,))
    keep = 255 - cv2.convertScaleAbs(cv2.blur(mask, (_FINE, _FINE)), alpha=strength)
    return cv2.multiply(canvas, cv2.merge([keep, keep, keep]), scale=1 / 255)


def photograph(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Apply the exposure, contrast, colour cast, haze, blur and noise of a camera."""
    shape = image.shape[:2]
    if rng.random() < 0.35:
        image = cv2.GaussianBlur(image, (3, 3), rng.uniform(0.4, 0.8))
    out = image.astype(np.float32)
    pivot = np.float32(out.mean())
    out = (out - pivot) * np.float32(rng.uniform(0.7, 1.2)) + pivot * np.float32(rng.uniform(0.8, 1.2))
    out *= rng.uniform(0.93, 1.07, 3).astype(np.float32)
    out += (8 * smooth_noise(rng, shape, max(shape) / 2))[..., None]
    out += rng.standard_normal((*shape, 1), dtype=np.float32) * np.float32(rng.uniform(1, 7))
    return np.rint(out).clip(0, 255).astype(np.uint8)
