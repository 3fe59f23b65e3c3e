"""Paint the clutter of synthetic scenes, which is no object: houses, trees, rocks, buoys, pools."""

import numpy as np

from .objects import Brush, Sprite, oval, rect, shade


def _house(brush: Brush) -> Sprite:
    roof = brush.body([(70, 82, 132), (84, 92, 104), (120, 124, 128), (96, 112, 150), (150, 150, 148)], contrast=15.0)
    lit = 1.0 + 0.18 * brush.sun[1]
    parts = [(rect(-1, -1, 1, 0), shade(roof, 2 - lit)), (rect(-1, 0, 1, 1), shade(roof, lit))]
    parts.append((rect(-1, -0.04, 1, 0.04), shade(roof, 0.75)))
    parts.append((rect(0.4, 0.3, 0.55, 0.5), shade(roof, 0.6)))
    return Sprite(parts, [rect(-1, -1, 1, 1)], height=brush.rng.uniform(5, 9))


def _tree(brush: Brush) -> Sprite:
    rng = brush.rng
    green = shade((44, 82, 58), rng.uniform(0.6, 1.15))
    parts, outline = [], []
    for _ in range(int(rng.integers(3, 7))):
        x, y = rng.uniform(-0.5, 0.5, 2)
        r = rng.uniform(0.3, 0.5)
        outline.append(oval(x, y, r, r, 9))
        parts.append((outline[-1], shade(green, rng.uniform(0.8, 1.1))))
        parts.append(
            (oval(x + 0.3 * r * brush.sun[0], y + 0.3 * r * brush.sun[1], 0.5 * r, 0.5 * r, 7), shade(green, 1.25))
        )
    return Sprite(parts, outline, height=rng.uniform(3, 7))


def _rock(brush: Brush) -> Sprite:
    n = 8
    rim = oval(0, 0, 1, 1, n) * brush.rng.uniform(0.5, 1.0, (n, 1))
    stone = shade((112, 122, 128), brush.rng.uniform(0.6, 1.1))
    top = rim * 0.6 + np.array(brush.sun) * 0.15
    return Sprite([(rim, shade(stone, 0.8)), (top, shade(stone, 1.15))], [rim], height=2.0)


def _buoy(brush: Brush) -> Sprite:
    colour = [(40, 60, 210), (60, 190, 230), (230, 235, 235)][brush.rng.integers(3)]
    return Sprite([(oval(0, 0, 1, 1, 10), colour)], [oval(0, 0, 1, 1, 10)], height=1.0)


def _pool(brush: Brush) -> Sprite:
    rim = rect(-1, -1, 1, 1)
    blue = shade((196, 168, 84), brush.rng.uniform(0.8, 1.1))
    return Sprite([(rim, (196, 204, 208)), (rect(-0.84, -0.8, 0.84, 0.8), blue)], [rim * 0.5], height=0.0)


CLUTTER = {'house': _house, 'tree': _tree, 'rock': _rock, 'buoy': _buoy, 'pool': _pool}
