from .re_fpn import ReFPN

__all__ = ['ReFPN']
