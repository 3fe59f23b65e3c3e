"""Paint the synthetic objects: polygons with colours, in the frame of the object's box.

In that frame x points ahead, y to the right, and the box is the square -1..1. Every sprite touches all four of its
sides, so the box that a scene reports is exact.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

Colour = tuple[float, float, float]
Polygon = np.ndarray  # (K, 2) float


@dataclass(frozen=True)
class Sprite:
    """The looks of one object.

    Args:
        parts: Polygons with their BGR colours, painted in this order.
        outline: Polygons that together cover the object; they cast its shadow.
        height: Height above the ground in image pixels.
    """

    parts: list[tuple[Polygon, Colour]]
    outline: list[Polygon]
    height: float


@dataclass(frozen=True)
class Kind:
    """A class of objects: their sizes (pixels at scale 1) and looks."""

    name: str
    colour: tuple[int, int, int]  # RGB, of its box in pictures
    length: tuple[float, float]
    ratio: tuple[float, float]  # width over length
    paint: Callable[['Brush'], Sprite]


@dataclass(frozen=True)
class Brush:
    """Everything that the looks of an object may depend on.

    Args:
        rng: Source of all choices.
        size: Length and width of the box in pixels.
        ground: Grey level under the object, which the body contrasts with.
        sun: Unit vector towards the sun, in the frame of the object.
    """

    rng: Generator
    size: tuple[float, float]
    ground: float
    sun: tuple[float, float]

    def body(self, palette: list[Colour], contrast: float = 42.0) -> Colour:
        """Choose a colour of `palette`, varied a little, if possible `contrast` grey levels from the ground."""
        best, best_gap = palette[0], -1.0
        for _ in range(6):
            colour = palette[self.rng.integers(len(palette))]
            colour = shade(colour, self.rng.uniform(0.88, 1.08))
            gap = abs(grey(colour) - self.ground)
            if gap > best_gap:
                best, best_gap = colour, gap
            if gap >= contrast:
                break
        return best


def grey(colour: Sequence[float]) -> float:
    """Return the grey level of a BGR colour."""
    return 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2]


def shade(colour: Colour, factor: float) -> Colour:
    """Make a colour brighter or darker by a factor."""
    return (min(colour[0] * factor, 255.0), min(colour[1] * factor, 255.0), min(colour[2] * factor, 255.0))


def rect(x0: float, y0: float, x1: float, y1: float) -> Polygon:
    """Return the corners of an upright rectangle."""
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], float)


def oval(x: float, y: float, rx: float, ry: float, corners: int = 28) -> Polygon:
    """Return points on an ellipse."""
    t = np.arange(corners) * (2 * np.pi / corners)
    return np.stack([x + rx * np.cos(t), y + ry * np.sin(t)], 1)


def mirrored(half: list[tuple[float, float]]) -> Polygon:
    """Close the right half of an outline (from the bow to the stern) with its mirror image."""
    left = [(x, -y) for x, y in reversed(half) if y != 0]
    return np.array(half + left, float)


WHITE, LIGHT, SILVER, DARK, BLACK = (236, 238, 238), (208, 212, 214), (170, 172, 174), (84, 82, 80), (44, 42, 42)
RED, BLUE, NAVY, GREEN, YELLOW = (52, 48, 178), (168, 104, 46), (92, 58, 34), (84, 118, 62), (70, 186, 222)
RUST, BEIGE = (66, 92, 148), (166, 196, 212)
GLASS = (58, 48, 40)


def ship(brush: Brush) -> Sprite:
    rng = brush.rng
    bow, stern = rng.uniform(0.3, 0.55), rng.uniform(0.72, 0.95)
    hull = mirrored([(1, 0), (0.86, 0.3), (0.68, 0.66), (bow, 0.93), (bow - 0.25, 1), (-0.75, 1), (-1, stern)])
    side = brush.body([WHITE, LIGHT, WHITE, RED, RUST, SILVER])
    deck = shade([BEIGE, LIGHT, RUST, GREEN, SILVER][rng.integers(5)], rng.uniform(0.7, 0.95))
    inner = hull * (0.9, 0.74)
    parts = [(hull, side), (inner, deck)]
    bridge = rng.uniform(-0.85, -0.55)
    if brush.size[0] > 40 and rng.random() < 0.6:  # a freighter: hatches, bridge at the stern
        hatch = shade(deck, rng.uniform(0.5, 0.75))
        n = int(rng.integers(2, 5))
        for x in np.linspace(-0.3, 0.5, n):
            parts.append((rect(x - 0.3 / n, -0.45, x + 0.3 / n, 0.45), hatch))
        parts.append((rect(bridge, -0.62, bridge + 0.24, 0.62), WHITE))
        parts.append((rect(bridge + 0.17, -0.62, bridge + 0.24, 0.62), GLASS))
    else:  # a boat: cabin amidships with a dark windscreen ahead
        front = rng.uniform(0.0, 0.25)
        parts.append((rect(front - 0.6, -0.52, front, 0.52), WHITE))
        parts.append((np.array([(front, -0.52), (front + 0.16, -0.3), (front + 0.16, 0.3), (front, 0.52)]), GLASS))
    return Sprite(parts, [hull], height=rng.uniform(1.5, 4.0))


def plane(brush: Brush) -> Sprite:
    rng = brush.rng
    body = brush.body([WHITE, WHITE, LIGHT, SILVER, DARK, BLUE])
    lit = shade(body, 1.1 if grey(body) < 190 else 1.04)
    root = rng.uniform(0.3, 0.42)  # where the wing leaves the fuselage
    sweep, chord, tip = rng.uniform(0.3, 0.6), rng.uniform(0.34, 0.44), rng.uniform(0.1, 0.16)
    thick = rng.uniform(0.1, 0.135)
    nose = [(1, 0), (0.94, 0.6 * thick), (0.8, thick), (-0.55, thick), (-0.98, 0.25 * thick)]
    fuselage = mirrored(nose)
    wings, tails, engines = [], [], []
    for side in (-1, 1):
        wings.append(np.array([
            (root, 0.02 * side), (root - sweep, side), (root - sweep - tip, side),
            (root - chord - 0.3 * sweep, 0.3 * side), (root - chord - 0.12, 0.02 * side)]))  # fmt: skip
        tails.append(np.array([(-0.68, 0), (-0.86, 0.36 * side), (-1, 0.36 * side), (-0.95, 0)]))
        engines.append(
            rect(root - 0.38 * sweep - 0.08, 0.34 * side - 0.04, root - 0.38 * sweep + 0.12, 0.34 * side + 0.04)
        )
    sunny = 1 if brush.sun[1] > 0 else 0
    parts = [(w, shade(body, 0.94 if i == sunny else 0.86)) for i, w in enumerate(wings)]
    parts += [(e, shade(body, 0.62)) for e in engines]
    parts += [(t, shade(body, 0.88)) for t in tails]
    parts += [(fuselage, body), (mirrored([(0.9, 0), (0.75, 0.4 * thick), (-0.7, 0.4 * thick), (-0.9, 0)]), lit)]
    parts += [(rect(0.84, -0.6 * thick, 0.9, 0.6 * thick), GLASS)]
    if rng.random() < 0.5:
        parts.append((rect(-0.98, -0.03, -0.72, 0.03), [RED, BLUE, NAVY, GREEN][rng.integers(4)]))
    return Sprite(parts, [fuselage, *wings, *tails], height=rng.uniform(3.0, 5.0))


def storage_tank(brush: Brush) -> Sprite:
    rng = brush.rng
    wall = brush.body([WHITE, WHITE, LIGHT, BEIGE, SILVER, RUST, GREEN], contrast=40.0)
    sx, sy = brush.sun
    rim = oval(0, 0, 1, 1)
    parts = [(rim, shade(wall, 0.8))]
    if rng.random() < 0.6:  # a dome, brighter towards the sun
        for i, r in enumerate((0.9, 0.7, 0.5, 0.3)):
            parts.append((oval(0.22 * i * 0.5 * sx, 0.22 * i * 0.5 * sy, r, r), shade(wall, 0.9 + 0.05 * i)))
    else:  # a floating roof, sunk below the rim: the wall shades its sunny side
        parts.append((oval(0, 0, 0.86, 0.86), shade(wall, 0.55)))
        parts.append((oval(-0.14 * sx, -0.14 * sy, 0.72, 0.72), shade(wall, 0.92)))
    a = rng.uniform(0, 2 * np.pi)  # stairs
    u, v = np.array([np.cos(a), np.sin(a)]), np.array([-np.sin(a), np.cos(a)])
    parts.append((np.array([0.94 * u + 0.05 * v, 0.94 * u - 0.05 * v, -0.05 * v, 0.05 * v]), shade(wall, 0.66)))
    return Sprite(parts, [rim], height=brush.size[0] * rng.uniform(0.15, 0.35))


def large_vehicle(brush: Brush) -> Sprite:
    rng = brush.rng
    box = brush.body([WHITE, WHITE, LIGHT, SILVER, RED, BLUE, GREEN, YELLOW, DARK])
    cab = brush.body([WHITE, RED, BLUE, YELLOW, GREEN, NAVY], contrast=20.0)
    gap = rng.uniform(0.5, 0.6)
    trailer = rect(-1, -1, gap, 1)
    front = mirrored([(1, 0), (1, 0.62), (0.93, 0.9), (gap + 0.05, 0.9)])
    sunny = 1 if brush.sun[1] > 0 else -1
    parts = [(rect(gap - 0.05, -0.4, gap + 0.1, 0.4), BLACK), (trailer, shade(box, 0.82))]
    parts.append((rect(-0.97, -0.8, gap - 0.03, 0.8), box))
    parts.append(
        (rect(-0.97, min(0.35 * sunny, 0.8 * sunny), gap - 0.03, max(0.35 * sunny, 0.8 * sunny)), shade(box, 1.1))
    )
    if rng.random() < 0.5:  # ribs across the load
        for x in np.linspace(-0.75, gap - 0.25, int(rng.integers(3, 6))):
            parts.append((rect(x - 0.02, -0.8, x + 0.02, 0.8), shade(box, 0.8)))
    parts += [(front, cab), (rect(0.84, -0.68, 0.94, 0.68), GLASS)]
    return Sprite(parts, [trailer, front], height=rng.uniform(3.0, 4.5))


def small_vehicle(brush: Brush) -> Sprite:
    rng = brush.rng
    body = brush.body([WHITE, WHITE, LIGHT, SILVER, DARK, BLACK, RED, BLUE, NAVY, YELLOW, GREEN])
    shell = mirrored([(1, 0), (1, 0.6), (0.9, 0.9), (0.7, 1), (-0.8, 1), (-0.95, 0.86), (-1, 0.6), (-1, 0)])
    glass = shade(GLASS, rng.uniform(0.8, 1.3))
    screen, rear = rng.uniform(0.22, 0.36), rng.uniform(-0.72, -0.5)
    cabin = mirrored([(screen, 0), (screen, 0.84), (rear, 0.8), (rear, 0)])
    roof = rect(rear + 0.14, -0.66, screen - 0.26, 0.66)
    parts = [(shell, body), (rect(0.5, -0.7, 0.92, 0.7), shade(body, 1.08)), (cabin, glass), (roof, shade(body, 0.95))]
    return Sprite(parts, [shell], height=rng.uniform(1.2, 2.0))


KINDS = (
    Kind('plane', (165, 42, 42), (34, 50), (0.8, 0.92), plane),
    Kind('ship', (255, 0, 255), (34, 62), (0.26, 0.34), ship),
    Kind('storage-tank', (0, 51, 153), (16, 30), (1.0, 1.0), storage_tank),
    Kind('large-vehicle', (255, 128, 0), (30, 42), (0.26, 0.31), large_vehicle),
    Kind('small-vehicle', (138, 43, 226), (16, 20), (0.46, 0.54), small_vehicle),
)
CLASSES = tuple(kind.name for kind in KINDS)
PALETTE = [kind.colour for kind in KINDS]
