"""Paint the ground of synthetic scenes: water, asphalt, concrete, grass, soil and ploughed fields.

A texture is a float32 image (H, W, 3), BGR, 0 to 255, drawn from a given generator.
"""

import cv2
import numpy as np
from numpy.random import Generator

GROUNDS = ('water', 'asphalt', 'concrete', 'grass', 'soil', 'field')

# choices for the mean colour (BGR) of a patch
_TONES = {
    'water': [(92, 68, 38), (104, 92, 46), (78, 62, 44), (118, 104, 66), (70, 50, 26)],
    'asphalt': [(92, 90, 88), (112, 110, 108), (76, 74, 74), (128, 128, 126)],
    'concrete': [(158, 162, 164), (172, 176, 178), (144, 150, 154), (150, 160, 168)],
    'grass': [(62, 96, 78), (54, 84, 66), (74, 108, 94), (66, 100, 102)],
    'soil': [(104, 130, 152), (92, 116, 136), (120, 146, 164), (84, 104, 118)],
    'field': [(78, 118, 118), (70, 104, 86), (110, 146, 160), (60, 110, 92)],
}
# standard deviation of the coarse and of the fine variation, in grey levels
_ROUGHNESS = {
    'water': (6.0, 5.0),
    'asphalt': (5.0, 4.0),
    'concrete': (5.0, 3.0),
    'grass': (9.0, 9.0),
    'soil': (9.0, 7.0),
    'field': (6.0, 6.0),
}


def smooth_noise(rng: Generator, shape: tuple[int, int], cell: float) -> np.ndarray:
    """Draw noise with a feature size of `cell` pixels, mean 0 and standard deviation about 0.7, (H, W) float32."""
    h, w = shape
    coarse = rng.standard_normal((int(h / cell) + 3, int(w / cell) + 3), dtype=np.float32)
    full_size = int(coarse.shape[1] * cell) + 1, int(coarse.shape[0] * cell) + 1
    full = cv2.resize(coarse, full_size, interpolation=cv2.INTER_CUBIC if cell > 4 else cv2.INTER_LINEAR)
    return full[int(cell) : int(cell) + h, int(cell) : int(cell) + w]


def stripes(rng: Generator, shape: tuple[int, int], period: float, angle: float) -> np.ndarray:
    """Draw waves of about `period` pixels with crests along `angle`, bent by noise, (H, W) float32 in -1..1."""
    h, w = shape
    y, x = np.ogrid[:h, :w]
    across = (x * -np.sin(angle) + y * np.cos(angle)).astype(np.float32)
    bend = smooth_noise(rng, shape, max(6 * period, 8.0))
    return np.sin(across * np.float32(2 * np.pi / period) + 1.5 * bend)


def texture(kind: str, rng: Generator, shape: tuple[int, int]) -> np.ndarray:
    """Paint one of GROUNDS as a float32 image (H, W, 3)."""
    tones = _TONES[kind]
    tone = np.array(tones[rng.integers(len(tones))], np.float32)
    coarse, fine = _ROUGHNESS[kind]
    level = coarse * smooth_noise(rng, shape, 40.0) + 0.6 * coarse * smooth_noise(rng, shape, 14.0)
    angle = rng.uniform(0, np.pi)
    if kind == 'water':
        level += fine * 0.5 * stripes(rng, shape, rng.uniform(4, 9), angle) * rng.uniform(0.2, 1.2)
        level += fine * 0.6 * smooth_noise(rng, shape, 3.0)
    elif kind == 'field':
        level += fine * 1.2 * stripes(rng, shape, rng.uniform(4, 8), angle)
        level += fine * 0.5 * smooth_noise(rng, shape, 2.0)
    else:
        level += fine * smooth_noise(rng, shape, 2.5)
    if kind in ('grass', 'soil'):  # worn or overgrown patches of another hue
        hue = np.array([-3, 3, 6] if kind == 'grass' else [-3, 2, 5], np.float32)
        return tone + level[..., None] + hue * smooth_noise(rng, shape, 22.0)[..., None]
    return tone + level[..., None]
