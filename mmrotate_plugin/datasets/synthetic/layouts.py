"""Layouts of synthetic scenes: harbours, open water, car parks, roads, airfields, tank farms.

A layout fills a `Sketch` with ground, objects and clutter; `scenes.py` paints it.
"""

import numpy as np

from ...structures.corners import box_corners
from .canvas import LARGE, PLANE, SHIP, SMALL, TANK, Sketch, raster
from .objects import KINDS


def harbour(s: Sketch) -> None:
    """Lay out a quay with moored ships side by side, cargo and lorries behind it."""
    s.ground('water')
    quay = s.angle()
    along, inland = np.array([np.cos(quay), np.sin(quay)]), np.array([-np.sin(quay), np.cos(quay)])
    centre = np.array([s.width, s.height]) / 2
    edge = centre + inland * s.rng.uniform(-0.12, 0.3) * min(s.width, s.height)
    deep = 2 * (s.width + s.height)
    s.ground(s.pick('concrete', 'asphalt', 'soil'), s.band(edge + inland * deep / 2, quay, deep))
    s.marks.append((s.band(edge + inland, quay, 2.5), (120, 128, 132)))
    length = KINDS[SHIP].length[1] * s.scale
    reach = s.rng.uniform(0.3, 0.7) * np.hypot(s.width, s.height)
    start = edge - along * reach / 2 - inland * (length / 2 + 2)
    s.row(
        'water',
        SHIP,
        tuple(start),
        quay,
        quay + np.pi / 2,
        gap=s.rng.uniform(1.5, 5) * s.scale,
        count=int(s.rng.integers(3, 9)),
        turned=0.2,
    )
    s.row(
        'land',
        s.rng.choice([LARGE, SMALL]),
        tuple(edge + inland * 28 * s.scale - along * reach / 2),
        quay,
        quay + np.pi / 2,
        gap=3 * s.scale,
        count=6,
        fill=0.7,
    )
    s.scatter('water', [SHIP], max(1, s.wanted // 5))
    s.scatter('land', [TANK, LARGE, SMALL], max(1, s.wanted // 4))
    s.litter('land', ['house', 'tree'], 4)
    s.litter('water', ['buoy', 'rock'], 4)


def open_water(s: Sketch) -> None:
    """Lay out ships under way, perhaps with an island."""
    s.ground('water')
    if s.rng.random() < 0.5:
        x, y, r = s.rng.uniform(0, s.width), s.rng.uniform(0, s.height), s.rng.uniform(14, 36) * s.scale
        t = np.arange(14) * (2 * np.pi / 14)
        bumps = s.rng.standard_normal(14)
        rim = r * (1 + 0.16 * (bumps + np.roll(bumps, 1) + np.roll(bumps, -1)))
        shore = np.stack([x + rim * np.cos(t), y + rim * np.sin(t)], 1)
        s.foam.append((shore - (x, y)) * 1.08 + (x, y))
        s.ground(s.pick('grass', 'soil'), shore)
        s.litter('land', ['tree', 'rock'], 5)
    s.scatter('water', [SHIP], s.wanted)
    s.litter('water', ['rock', 'buoy'], int(s.rng.integers(0, 8)))


def car_park(s: Sketch) -> None:
    """Lay out rows of cars and lorries at one angle."""
    s.ground(s.pick('asphalt', 'concrete', 'asphalt'))
    a = s.angle()
    along, across = np.array([np.cos(a), np.sin(a)]), np.array([-np.sin(a), np.cos(a)])
    y, centre = -0.5 * s.height, np.array([s.width, s.height]) / 2
    lorries = s.rng.random() < 0.6
    while y < 0.5 * s.height and not s.full:
        label = LARGE if lorries and s.rng.random() < 0.4 else SMALL
        depth = KINDS[label].length[1] * s.scale
        start = centre + across * (y + depth / 2) - along * s.rng.uniform(0.1, 0.5) * s.width
        s.row(
            'land',
            label,
            tuple(start),
            a,
            a + np.pi / 2,
            gap=s.rng.uniform(2.5, 5) * s.scale,
            count=int(s.rng.integers(4, 12)),
            fill=s.rng.uniform(0.5, 0.95),
            stalls=True,
        )
        y += depth * s.rng.uniform(1.1, 2.2)
    s.scatter('land', [SMALL, LARGE], max(1, s.wanted // 5))
    s.litter('land', ['house', 'tree', 'tree'], 6)


def road(s: Sketch) -> None:
    """Lay out fields and houses, and a road with traffic in both directions."""
    s.ground(s.pick('grass', 'field', 'soil'))
    a = s.angle()
    along, across = np.array([np.cos(a), np.sin(a)]), np.array([-np.sin(a), np.cos(a)])
    centre = np.array([s.width, s.height]) / 2 + across * s.rng.uniform(-0.25, 0.25) * s.height
    border = centre + across * s.rng.uniform(30, 60)
    s.ground(s.pick('grass', 'field', 'soil'), s.band(border + across * s.width, a, 2 * s.width))
    lane = 15 * s.scale
    carriageway = s.band(centre, a, 2 * lane + 3)
    s.ground('asphalt', carriageway)
    for t in np.arange(-s.width, s.width, 16.0):
        s.marks.append((box_corners([*(centre + along * t), 8, 1.0, a]), (220, 224, 226)))
    for side in (-1, 1):  # drive on the right
        start = centre + across * side * lane / 2 - along * s.rng.uniform(0.3, 0.55) * s.width
        label = LARGE if s.rng.random() < 0.4 else SMALL
        s.row(
            'land',
            label,
            tuple(start),
            a,
            a if side > 0 else a + np.pi,
            gap=s.rng.uniform(5, 22) * s.scale,
            count=8,
            fill=0.8,
            turned=0.0,
        )
    s.scatter('land', [SMALL, LARGE, TANK, SMALL], max(1, s.wanted // 3))
    raster(s.free['land'], carriageway, (0,))  # nothing grows there
    s.litter('land', ['tree', 'tree', 'house', 'pool'], 12)


def airfield(s: Sketch) -> None:
    """Lay out a runway, aeroplanes in a row on the apron and on their own, and service vehicles."""
    s.ground(s.pick('grass', 'concrete', 'soil'))
    a = s.angle()
    along, across = np.array([np.cos(a), np.sin(a)]), np.array([-np.sin(a), np.cos(a)])
    centre = np.array([s.width, s.height]) / 2
    apron = centre + across * s.rng.uniform(-0.2, 0.2) * s.height
    s.ground(s.pick('concrete', 'asphalt'), s.band(apron, a, s.rng.uniform(0.4, 1.2) * s.height))
    line = apron + across * s.rng.uniform(-0.1, 0.1) * s.height
    s.marks.append((s.band(line, a, 1.2), (70, 190, 220)))
    heading = a + np.pi / 2 + s.rng.choice([0.0, 0.35, -0.35])
    s.row(
        'land',
        PLANE,
        tuple(line - along * s.rng.uniform(0.25, 0.5) * s.width),
        a,
        heading,
        gap=s.rng.uniform(2, 10) * s.scale,
        count=int(s.rng.integers(2, 6)),
        turned=s.rng.choice([0.0, 0.5]),
    )
    s.scatter('land', [PLANE], max(1, s.wanted // 3))
    s.scatter('land', [LARGE, SMALL, SMALL], max(1, s.wanted // 4))
    s.litter('land', ['house', 'tree'], 3)


def tank_farm(s: Sketch) -> None:
    """Lay out storage tanks in rows, and lorries that come for their load."""
    s.ground(s.pick('soil', 'concrete', 'grass', 'asphalt'))
    a = s.angle()
    along, across = np.array([np.cos(a), np.sin(a)]), np.array([-np.sin(a), np.cos(a)])
    start = np.array([s.width, s.height]) / 2 - (along + across) * s.rng.uniform(0.15, 0.35) * s.width
    pitch = KINDS[TANK].length[1] * s.scale + 3
    for i in range(int(s.rng.integers(1, 3))):
        s.row('land', TANK, tuple(start + across * i * pitch), a, a, gap=s.rng.uniform(3, 8), count=5, fill=0.85)
    s.row('land', LARGE, tuple(start + across * (pitch * 2 + 8)), a, a + np.pi / 2, gap=s.rng.uniform(2, 6), count=6)
    s.scatter('land', [TANK, LARGE, SMALL, PLANE], max(1, s.wanted // 3))
    s.litter('land', ['tree', 'house', 'tree', 'pool'], 6)


LAYOUTS = (harbour, open_water, car_park, road, airfield, tank_farm)
