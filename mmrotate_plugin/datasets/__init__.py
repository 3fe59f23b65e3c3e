"""Data sets: synthetic scenes that need no files, and DOTA's own files read as they are; image transforms."""

from .dota import DOTADataset, DOTAv2Dataset, DOTAv15Dataset
from .loading import LoadImageFromFile
from .noise import AddNoise
from .scenes import Scene, draw_scene
from .synthetic import SyntheticAerialDataset
from .transforms import SymmetricResize, resize_symmetric

__all__ = [
    'AddNoise',
    'DOTADataset',
    'DOTAv2Dataset',
    'DOTAv15Dataset',
    'LoadImageFromFile',
    'Scene',
    'SymmetricResize',
    'SyntheticAerialDataset',
    'draw_scene',
    'resize_symmetric',
]
