"""Make self-contained pages of HTML: one file that opens without a network."""

from .rendering import png_uri, render_page

__all__ = ['png_uri', 'render_page']
