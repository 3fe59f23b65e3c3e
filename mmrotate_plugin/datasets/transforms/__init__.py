"""Load images, resize and turn them about the centre, and add noise or corruptions."""

from .add_noise import AddNoise
from .loading import LoadImageFromFile
from .symmetric_resize import SymmetricResize, resize_symmetric
from .turn_image import TurnImage

__all__ = ['AddNoise', 'LoadImageFromFile', 'SymmetricResize', 'TurnImage', 'resize_symmetric']
