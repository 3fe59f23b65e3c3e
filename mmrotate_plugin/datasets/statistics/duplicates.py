"""Find objects that are labelled twice, and images that are there twice."""

import hashlib
import os
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from .collect import DataPart

NEAR = 0.1  # of the shorter side: corners that are closer are those of one object
NEAREST = 1.0  # pixels, where that is less

# the same four corners, listed from another one or the other way round
_ORDERS = np.array([np.roll(order, turn) for order in ([0, 1, 2, 3], [3, 2, 1, 0]) for turn in range(4)])


def twice_labelled(part: DataPart) -> list[tuple[int, int]]:
    """Find pairs of objects of one image whose corners are nearly the same, of one class or of two.

    Returns:
        Pairs of indices of objects, the smaller one first.
    """
    order = np.argsort(part.owners, kind='stable')
    ends = np.flatnonzero(np.diff(part.owners[order])) + 1
    pairs = []
    for group in np.split(order, ends) if len(order) else ():
        pairs += [(int(group[a]), int(group[b])) for a, b in _near_pairs(part.polygons[group])]
    return sorted((min(pair), max(pair)) for pair in pairs)


def same_files(paths: Sequence[str]) -> list[list[int]]:
    """Find image files of the same content; only files of equal length are read.

    Returns:
        Groups of indices of two or more.
    """
    by_size: dict[int, list[int]] = {}
    for i, path in enumerate(paths):
        if os.path.isfile(path):
            by_size.setdefault(os.path.getsize(path), []).append(i)
    by_content: dict[bytes, list[int]] = {}
    for group in by_size.values():
        for i in group if len(group) > 1 else ():
            with open(paths[i], 'rb') as file:
                by_content.setdefault(hashlib.file_digest(file, 'blake2b').digest(), []).append(i)
    return [group for group in by_content.values() if len(group) > 1]


def _near_pairs(polygons: NDArray[np.float64]) -> Iterator[tuple[int, int]]:
    centres = polygons.mean(1)
    sides = np.linalg.norm(np.roll(polygons, -1, axis=1) - polygons, axis=2).min(1)
    limits = np.maximum(NEAR * sides, NEAREST)
    order = np.argsort(centres[:, 0], kind='stable')
    for step in range(1, len(order)):
        first, second = order[:-step], order[step:]
        ahead = centres[second, 0] - centres[first, 0]  # grows with each step
        if not (ahead <= limits.max()).any():
            return
        limit = np.minimum(limits[first], limits[second])
        near = (ahead <= limit) & (np.abs(centres[second, 1] - centres[first, 1]) <= limit)
        for a, b, most in zip(first[near], second[near], limit[near], strict=True):
            distances = np.linalg.norm(polygons[a][_ORDERS] - polygons[b], axis=2).max(1)
            if distances.min() <= most:
                yield int(a), int(b)
