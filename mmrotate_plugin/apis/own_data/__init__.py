"""Write a config for a folder of images and labels."""

from .init import Written, init_config

__all__ = ['Written', 'init_config']
