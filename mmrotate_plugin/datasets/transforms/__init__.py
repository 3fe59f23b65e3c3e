"""Load images, resize them about the centre, and add noise or corruptions."""

from .add_noise import AddNoise
from .loading import LoadImageFromFile
from .symmetric_resize import SymmetricResize, resize_symmetric

__all__ = ['AddNoise', 'LoadImageFromFile', 'SymmetricResize', 'resize_symmetric']
