"""Data sets: synthetic scenes that need no files, and DOTA's own files read as they are."""

from .dota import DOTADataset, DOTAv2Dataset, DOTAv15Dataset
from .scenes import Scene, draw_scene
from .synthetic import SyntheticAerialDataset

__all__ = ['DOTADataset', 'DOTAv2Dataset', 'DOTAv15Dataset', 'Scene', 'SyntheticAerialDataset', 'draw_scene']
