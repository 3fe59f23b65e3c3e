"""Data sets: synthetic scenes that need no files, DOTA's, HRSC2016's and DIOR's files as they are; transforms."""

from .dota import DOTADataset, DOTAv2Dataset, DOTAv15Dataset
from .loading import LoadImageFromFile
from .noise import AddNoise
from .scenes import Scene, draw_scene
from .synthetic import SyntheticAerialDataset
from .transforms import SymmetricResize, resize_symmetric
from .xml_files import DIORDataset, HRSCDataset

__all__ = [
    'AddNoise',
    'DIORDataset',
    'DOTADataset',
    'DOTAv2Dataset',
    'DOTAv15Dataset',
    'HRSCDataset',
    'LoadImageFromFile',
    'Scene',
    'SymmetricResize',
    'SyntheticAerialDataset',
    'draw_scene',
    'resize_symmetric',
]
