"""Draw synthetic aerial scenes from a seed, also as a data set that needs no files."""

from .dataset import SyntheticAerialDataset
from .scenes import Scene, draw_scene

__all__ = ['Scene', 'SyntheticAerialDataset', 'draw_scene']
