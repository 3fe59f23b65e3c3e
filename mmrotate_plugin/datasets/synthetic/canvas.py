"""Lay out a synthetic scene: what stands where, and where there is room left.

Lengths are image pixels; the image is the rectangle 0..width, 0..height, so a pixel's centre lies at a half. Angles are
radians from x towards y (clockwise on the screen).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.random import Generator

from ...structures.corners import box_corners, rotate
from .objects import CLASSES, KINDS

PLANE, SHIP, TANK, LARGE, SMALL = range(len(CLASSES))


def raster(mask: np.ndarray, polygon: np.ndarray, value: Sequence[float] = (255,), scale: int = 1) -> None:
    """Fill a polygon given in image pixels, in place, into a mask or image that has `scale` cells per pixel."""
    points = np.rint((np.asarray(polygon) * scale - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(mask, [points], value, lineType=cv2.LINE_8, shift=4)


@dataclass
class Sketch:
    """A scene while it is being laid out.

    Args:
        rng: Source of all choices.
        width, height: Size of the image.
        scale: Factor on all object sizes.
        wanted: Number of objects to place; `items` never holds more.
        angles: Smallest and largest angle of rows, quays, roads and single objects, degrees.

    Attributes:
        free: For each zone ('land', 'water'), where there is room left, (H, W) uint8.
        grounds: (polygon or None for everywhere, texture name), painted in this order.
        marks: (polygon, BGR colour) of paint on the ground.
        foam: Polygons of white water.
        clutter: (name, rbox) of everything that is not an object.
        items: (label, rbox) of the objects; angle in -pi..pi, the box's w along the heading.
    """

    rng: Generator
    width: int
    height: int
    scale: float
    wanted: int
    angles: tuple[float, float] = (-180.0, 180.0)
    free: dict[str, np.ndarray] = field(default_factory=dict)
    grounds: list[tuple[np.ndarray | None, str]] = field(default_factory=list)
    marks: list[tuple[np.ndarray, tuple[float, float, float]]] = field(default_factory=list)
    foam: list[np.ndarray] = field(default_factory=list)
    clutter: list[tuple[str, np.ndarray]] = field(default_factory=list)
    items: list[tuple[int, np.ndarray]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.free = {zone: np.zeros((self.height, self.width), np.uint8) for zone in ('land', 'water')}

    @property
    def labels(self) -> np.ndarray:
        """Labels of the objects, (N,) int64."""
        return np.array([label for label, _ in self.items], np.int64)

    @property
    def rboxes(self) -> np.ndarray:
        """Boxes of the objects, (N, 5) float64."""
        return np.array([rbox for _, rbox in self.items], float).reshape(-1, 5)

    @property
    def full(self) -> bool:
        """Whether all wanted objects are placed."""
        return len(self.items) >= self.wanted

    def pick(self, *choices: str) -> str:
        """Choose one of several names."""
        return choices[self.rng.integers(len(choices))]

    def angle(self) -> float:
        """Draw an angle in radians."""
        return self.rng.uniform(*np.radians(self.angles))

    def ground(self, texture: str, polygon: np.ndarray | None = None) -> None:
        """Cover the image or a polygon with a texture, which makes it land or water."""
        self.grounds.append((polygon, texture))
        zone, other = ('water', 'land') if texture == 'water' else ('land', 'water')
        whole = np.array([(0, 0), (self.width, 0), (self.width, self.height), (0, self.height)])
        raster(self.free[zone], whole if polygon is None else polygon, (255,))
        raster(self.free[other], whole if polygon is None else polygon, (0,))

    def band(self, middle: np.ndarray, angle: float, breadth: float) -> np.ndarray:
        """Return a strip through a point that is longer than the image."""
        return box_corners([*middle, 4 * (self.width + self.height), breadth, angle])

    def size(self, label: int) -> tuple[float, float]:
        """Draw the length and width of an object."""
        kind = KINDS[label]
        length = self.rng.uniform(*kind.length) * self.scale
        return length, length * self.rng.uniform(*kind.ratio)

    def claim(self, zone: str, rbox: np.ndarray, gap: float, visible: float = 0.75) -> bool:
        """Claim the place of a box if it and a margin of `gap` are free and enough of it is inside the image."""
        x, y, w, h, _ = rbox
        free = self.free[zone]
        if not (0 < x < self.width and 0 < y < self.height) or not free[int(y), int(x)]:
            return False
        reach = np.hypot(w, h) / 2
        if not (reach < x < self.width - reach and reach < y < self.height - reach):
            image = box_corners([self.width / 2, self.height / 2, self.width, self.height, 0.0])
            area, _ = cv2.intersectConvexConvex(box_corners(rbox).astype(np.float32), image.astype(np.float32))
            if area < visible * w * h:
                return False
        reach += gap + 1
        x0, y0 = max(int(x - reach), 0), max(int(y - reach), 0)
        window = free[y0 : int(y + reach) + 1, x0 : int(x + reach) + 1]
        taken = np.zeros_like(window)
        raster(taken, box_corners(rbox + (-x0, -y0, 2 * gap, 2 * gap, 0)))
        if (taken > window).any():
            return False
        raster(window, box_corners(rbox + (-x0, -y0, 0, 0, 0)), (0,))
        return True

    def add(
        self, zone: str, label: int, x: float, y: float, heading: float, size: tuple[float, float], gap: float = 2.0
    ) -> bool:
        """Place one object if it fits."""
        heading = 0.0 if label == TANK else (heading + np.pi) % (2 * np.pi) - np.pi  # a disc has no heading
        rbox = np.array([x, y, *size, heading])
        if self.full or not self.claim(zone, rbox, gap):
            return False
        self.items.append((label, rbox))
        return True

    def scatter(self, zone: str, labels: list[int], count: int, tries: int = 12) -> None:
        """Place objects anywhere in a zone, at any angle."""
        for _ in range(count):
            label = labels[self.rng.integers(len(labels))]
            for _ in range(tries):
                x, y = self.rng.uniform(3, self.width - 3), self.rng.uniform(3, self.height - 3)
                if self.add(zone, label, x, y, self.angle(), self.size(label)):
                    if label == SHIP:
                        self.wake(self.items[-1][1])
                    break

    def wake(self, rbox: np.ndarray) -> None:
        """Add the white water after a ship, for half of them."""
        if self.rng.random() < 0.5:
            x, y, w, h, a = rbox
            length, spread = self.rng.uniform(0.5, 1.6), self.rng.uniform(0.7, 1.6)
            ahead = w * np.array([-0.4, -0.4, -0.5 - length, -0.5 - length])
            right = h * np.array([-0.25, 0.25, spread / 2, -spread / 2])
            self.foam.append((x, y) + np.stack(rotate(ahead, right, np.cos(a), np.sin(a)), axis=1))

    def row(
        self,
        zone: str,
        label: int,
        start: tuple[float, float],
        along: float,
        heading: float,
        *,
        gap: float,
        count: int,
        fill: float = 0.9,
        turned: float = 0.5,
        stalls: bool = False,
    ) -> None:
        """Place objects side by side from `start` in the direction `along`, at one heading or turned half round.

        Args:
            fill: Probability that a place is filled.
            turned: Probability that an object faces the other way.
            stalls: Paint lines between the places.
        """
        length, width = self.size(label)
        facing = abs(np.sin(heading - along))
        step = facing * width + (1 - facing) * length + gap
        direction = np.array([np.cos(along), np.sin(along)])
        for i in range(count):
            x, y = np.asarray(start) + i * step * direction
            if stalls:
                edge = np.array([x, y]) - direction * step / 2
                self.marks.append((box_corners([*edge, length * 1.1, 0.8, heading]), (215, 220, 222)))
            if self.rng.random() < fill:
                jitter = self.rng.uniform(0.93, 1.0, 2)
                turn = np.pi if self.rng.random() < turned else 0.0
                off = self.rng.normal(0, 0.3, 2) * self.scale
                angle = heading + turn + self.rng.normal(0, 0.02)
                self.add(zone, label, x + off[0], y + off[1], angle, (length * jitter[0], width * jitter[1]), gap=0.6)

    def litter(self, zone: str, names: list[str], count: int) -> None:
        """Place clutter, which looks like no object, where there is room left."""
        breadths = {'house': (20, 40), 'tree': (8, 18), 'rock': (4, 10), 'buoy': (3, 4), 'pool': (12, 18)}
        for _ in range(count):
            name = names[self.rng.integers(len(names))]
            w = self.rng.uniform(*breadths[name]) * self.scale
            h = w * self.rng.uniform(0.6, 0.95) if name in ('house', 'pool') else w
            for _ in range(6):
                x, y = self.rng.uniform(0, self.width), self.rng.uniform(0, self.height)
                rbox = np.array([x, y, w, h, self.angle()])
                if self.claim(zone, rbox, gap=1.5, visible=0.0):
                    self.clutter.append((name, rbox))
                    break
