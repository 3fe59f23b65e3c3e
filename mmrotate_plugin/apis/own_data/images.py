"""Find out how image files have to be loaded: bits, bands, and what is white."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...datasets.transforms.loading import LoadImageFromFile
from ...datasets.utils.broken_files import checked_header
from ...datasets.utils.image_headers import BANDS
from ...utils.errors import UsageError

READ = 60  # images whose pixels are read, at most
BRIGHT = 0.999  # share of the samples of floating-point images that stays below white


@dataclass
class Loading:
    """How to load the images.

    Attributes:
        step: The loading step of the pipelines.
        why: The reason.
        bands: Number of channels that the network reads.
        mean, std: Of each band, grey levels; empty for three colours, which have those of ImageNet.
    """

    step: dict[str, Any]
    why: str
    bands: int = 3
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


def choose_loading(images: Sequence[Path]) -> Loading:
    """Look at the headers of all images, and at the pixels of some.

    Raises:
        UsageError: If the images have different numbers of bands.
    """
    kinds: dict[tuple[bool, int, str], list[Path]] = {}
    for image in images:
        kind = checked_header(image).kind
        bands = kind.channels if kind.coding == BANDS or kind.channels > 4 else 3
        sample = 'byte' if kind.bits == 8 else f'{kind.sample}{kind.bits}'
        kinds.setdefault((kind.bits > 8, bands, sample), []).append(image)
    numbers = sorted({bands for _, bands, _ in kinds})
    if len(numbers) > 1:
        raise UsageError(
            f'the images have different numbers of bands ({" and ".join(map(str, numbers))}); a network reads one '
            'number: give a folder of one kind'
        )
    deep = [image for (more, _, _), files in kinds.items() if more for image in files]
    samples = {sample for more, _, sample in kinds if more}
    if not deep and numbers == [3]:
        return Loading(dict(type='LoadImageFromFile'), '8 bits, grey or colours')
    step: dict[str, Any] = dict(type='mmrotate_plugin.LoadImageFromFile')
    why = '8 bits'
    if deep:
        more, why = _depth(deep, samples)
        step |= more
    if numbers == [3]:
        return Loading(step, why)
    step['color_type'] = 'unchanged'
    loader = LoadImageFromFile(**{key: value for key, value in step.items() if key != 'type'})
    pixels = [loader({'img_path': str(image)})['img'].reshape(-1, numbers[0]) for image in _some(images)]
    mean = np.mean([one.mean(0) for one in pixels], axis=0)
    std = np.sqrt(np.mean([((one - mean) ** 2).mean(0) for one in pixels], axis=0))
    rounded = [tuple(round(float(value), 1) for value in values) for values in (mean, np.maximum(std, 1))]
    return Loading(step, f'{why}, {numbers[0]} bands', numbers[0], *rounded)


def _depth(images: Sequence[Path], samples: set[str]) -> tuple[dict[str, Any], str]:
    """Choose what makes grey levels of samples of more than 8 bits."""
    chosen = _some(images)
    pixels = [LoadImageFromFile(color_type='unchanged').stored(str(image)) for image in chosen]
    if samples == {'uint16'}:
        bits = max(9, max(int(one.max(initial=0)).bit_length() for one in pixels))
        if len(chosen) == len(images):
            return dict(bit_depth=bits), f'16-bit files whose largest value has {bits} bits'
        return dict(white=2**bits - 1), f'16-bit files; the values of {len(chosen)} of them have {bits} bits'
    values = np.concatenate([one[np.isfinite(one)].ravel()[:: max(1, one.size // 100_000)] for one in pixels])
    low, high = (float(np.quantile(values, share)) for share in (1 - BRIGHT, BRIGHT))
    black, white = (float(f'{value:.3g}') for value in (low, high))
    white = white if white > black else black + 1.0
    return dict(black=black, white=white), f'{" and ".join(sorted(samples))}; from 0.1 to 99.9 % of the values'


def _some(images: Sequence[Path]) -> list[Path]:
    step = max(1, -(-len(images) // READ))
    return list(images)[::step]
