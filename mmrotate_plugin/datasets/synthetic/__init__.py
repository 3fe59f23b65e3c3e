"""Synthetic aerial scenes, drawn from a seed, and a data set of them that needs no files."""

from .dataset import SyntheticAerialDataset
from .scenes import Scene, draw_scene

__all__ = ['Scene', 'SyntheticAerialDataset', 'draw_scene']
