"""Moments of ReLU and of max pooling in one pass over a map: compiled C, used where it was built."""

from .library import available, takes, use_compiled_moments
from .operators import max_moments, relu_moments

__all__ = ['available', 'max_moments', 'relu_moments', 'takes', 'use_compiled_moments']
