"""Data sets: synthetic scenes that need no files, and DOTA's own files read as they are; sizes that keep symmetry."""

from .dota import DOTADataset, DOTAv2Dataset, DOTAv15Dataset
from .scenes import Scene, draw_scene
from .synthetic import SyntheticAerialDataset
from .transforms import SymmetricResize, resize_symmetric

__all__ = [
    'DOTADataset',
    'DOTAv2Dataset',
    'DOTAv15Dataset',
    'Scene',
    'SymmetricResize',
    'SyntheticAerialDataset',
    'draw_scene',
    'resize_symmetric',
]
