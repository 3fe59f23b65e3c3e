"""Count and measure the objects of a data set, and find what is wrong with it."""

from .collect import DataPart, part_of_dataset, parts_of_source
from .measure import measure
from .problems import Problem, find_problems

__all__ = ['DataPart', 'Problem', 'find_problems', 'measure', 'part_of_dataset', 'parts_of_source']
