"""Read DOTA, HRSC2016, DIOR and labelling tools as they are, draw synthetic scenes without files, transform images."""

from .dota import DOTADataset, DOTAv2Dataset, DOTAv15Dataset
from .formats.coco import RotatedCocoDataset
from .formats.convert import Conversion, convert_dataset
from .formats.labelme import LabelMeDataset
from .formats.rolabelimg import RoLabelImgDataset
from .formats.yolo_obb import YOLOOBBDataset
from .hrsc_dior import DIORDataset, HRSCDataset
from .patches.split import Split, split_dataset
from .synthetic.dataset import SyntheticAerialDataset
from .synthetic.scenes import Scene, draw_scene
from .transforms.add_noise import AddNoise
from .transforms.loading import LoadImageFromFile
from .transforms.symmetric_resize import SymmetricResize, resize_symmetric
from .transforms.turn_image import TurnImage

__all__ = [
    'AddNoise',
    'Conversion',
    'DIORDataset',
    'DOTADataset',
    'DOTAv2Dataset',
    'DOTAv15Dataset',
    'HRSCDataset',
    'LabelMeDataset',
    'LoadImageFromFile',
    'RoLabelImgDataset',
    'RotatedCocoDataset',
    'Scene',
    'Split',
    'SymmetricResize',
    'SyntheticAerialDataset',
    'TurnImage',
    'YOLOOBBDataset',
    'convert_dataset',
    'draw_scene',
    'resize_symmetric',
    'split_dataset',
]
