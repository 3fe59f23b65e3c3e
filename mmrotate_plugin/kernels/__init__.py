"""Loops of compiled C, used where they were built: moments of ReLU and of maxima, ReLU between the orientations."""

from .library import available, takes, use_compiled_loops

__all__ = ['available', 'takes', 'use_compiled_loops']
