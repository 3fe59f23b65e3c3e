"""Read DOTA, HRSC2016 and DIOR as they are, draw synthetic scenes without files, and transform images."""

from .dota import DOTADataset, DOTAv2Dataset, DOTAv15Dataset
from .hrsc_dior import DIORDataset, HRSCDataset
from .synthetic.dataset import SyntheticAerialDataset
from .synthetic.scenes import Scene, draw_scene
from .transforms.add_noise import AddNoise
from .transforms.loading import LoadImageFromFile
from .transforms.symmetric_resize import SymmetricResize, resize_symmetric
from .transforms.turn_image import TurnImage

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
    'TurnImage',
    'draw_scene',
    'resize_symmetric',
]
