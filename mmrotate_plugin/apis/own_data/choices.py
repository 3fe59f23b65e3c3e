"""Choose sizes, widths, batch and epochs of a detector from the objects of a folder and from the machine."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ...datasets.formats.sample import Sample
from ...datasets.statistics.measure import rectangle_of

NARROW = {'cpu': 8.0, 'cuda': 12.0}  # pixels that the shorter side of nearly all objects keeps; a cell of stride 8
WIDE = 160.0  # pixels; for longer objects a third level, of stride 32, is added
SMALLEST, LARGEST = 193, 1025  # of the input; 32m + 1
TOO_NARROW = 5.0  # pixels; objects below it are hardly found
MOST = 8  # images of a batch
# bytes of a training step for each pixel of an image, by base_channels and levels: three times what
# `kept_for_backward` measures between 193 and 385 pixels, as gradients, losses and copies need room too
BYTES = {(32, 2): 3 * 273, (32, 3): 3 * 285, (64, 3): 3 * 558}
ITERATIONS = {'cpu': 50, 'cuda': 100}  # of an epoch, at least
EPOCHS = 12
# of an epoch that shows images several times, at most on a CPU; one takes 1.5 to 3 s of a server's processor with
# the narrow detector
MEGAPIXELS, SECONDS = 30, 2.0
RATE = 2e-3  # for batches of 4


@dataclass
class Choices:
    """What was chosen, each with its reason in `why`, by the name of the attribute.

    Attributes:
        scale: Longer side of the input, pixels.
        base_channels, channels: Widths of backbone and of neck and head.
        levels: Number of levels of the pyramid, strides 8, 16 and 32.
        batch: Images of a step.
        times: How often an epoch shows each image.
        epochs: Number of epochs.
        rate: Learning rate.
        workers: Processes that load images.
        most: Detections of an image, at most.
        notes: What the user should know, a line each.
    """

    scale: int
    base_channels: int
    channels: int
    levels: int
    batch: int
    times: int
    epochs: int
    rate: float
    workers: int
    most: int
    why: dict[str, str]
    notes: list[str] = field(default_factory=list)


def choose(samples: Sequence[Sample], device: str, memory: int | None = None) -> Choices:
    """Choose for the images of the training.

    Args:
        samples: Images with their objects.
        device: 'cpu' or 'cuda'.
        memory: Free bytes; None to ask the machine.
    """
    why: dict[str, str] = {}
    sides = np.array([max(sample.width, sample.height) for sample in samples], np.float64)
    sizes = np.array([rectangle_of(np.reshape(one.polygon, (4, 2)))[:2] for s in samples for one in s.objects])
    of_image = np.array([max(s.width, s.height) for s in samples for _ in s.objects], np.float64)
    # each image is resized so that its longer side is `scale`
    shorter, longer = (np.sort(sizes[:, i] / of_image) for i in (1, 0))
    narrow, wide = float(np.quantile(shorter, 0.05)), float(np.quantile(longer, 0.95))
    wanted = NARROW[device] / narrow
    scale = _odd(min(max(wanted, SMALLEST), LARGEST, max(float(sides.max()), SMALLEST)))
    notes = []
    left = narrow * scale
    why['scale'] = f'95 % of the objects are wider than {left:.0f} pixels then; images have up to {sides.max():.0f}'
    small = float((shorter * scale < TOO_NARROW).mean())
    if small > 0.1:
        notes.append(
            f'{small:.0%} of the objects are narrower than {TOO_NARROW:g} pixels at scale {scale}: images of '
            f'{sides.max():.0f} pixels are large for their objects; cut them into patches first, and write the config '
            'for the folder of patches'
        )
    levels = 3 if wide * scale > WIDE else 2
    why['levels'] = f'the longest 5 % of the objects have {wide * scale:.0f} pixels or more at this scale'
    base, channels = (64, 128) if device == 'cuda' else (32, 64)
    levels = 3 if device == 'cuda' else levels
    why['widths'] = 'a GPU is there' if device == 'cuda' else 'small enough to train on a CPU'
    memory = free_memory(device) if memory is None else memory
    each = BYTES[base, levels] * scale * scale
    batch = 1
    while 2 * batch <= min(MOST, max(1, len(samples) // 2)) and 2 * batch * each <= 0.5 * memory:
        batch *= 2
    why['batch'] = f'{each / 2**20:.0f} MB an image, half of the {memory / 2**30:.1f} GB that are free'
    least = ITERATIONS[device]
    once = len(samples) * scale * scale / 1e6  # megapixels
    times = math.ceil(least * batch / len(samples))
    times = max(1, times if device == 'cuda' else min(times, int(MEGAPIXELS / once)))
    iterations = max(1, times * len(samples) // batch)
    why['times'] = f'an epoch has {iterations} iterations'
    why['epochs'] = f'{EPOCHS * iterations} iterations'
    if device == 'cpu':
        minutes = math.ceil(EPOCHS * times * once * SECONDS / 60)
        took = f'{minutes} minutes' if minutes < 120 else f'{minutes / 60:.0f} hours'
        why['epochs'] += f', about {took} of a processor'
        notes.append(f'{EPOCHS} epochs take about {took} of a processor; train_cfg.max_epochs=3 takes a quarter')
    rate = float(f'{RATE * math.sqrt(batch / 4):.2g}')
    objects = max(len(sample.objects) for sample in samples)
    most = 100 * max(1, math.ceil(2 * objects / 100))
    why['most'] = f'an image has up to {objects} objects'
    workers = min(2, _processors()) if device == 'cpu' else min(8, _processors())
    return Choices(scale, base, channels, levels, batch, times, EPOCHS, rate, workers, most, why, notes)


def free_memory(device: str) -> int:
    """Return the free bytes of the GPU, or of the machine (Linux; elsewhere 4 GB are assumed)."""
    if device == 'cuda':
        return int(torch.cuda.mem_get_info()[0])
    try:
        lines = Path('/proc/meminfo').read_text().splitlines()
    except OSError:
        return 4 * 2**30
    found = next((line.split()[1] for line in lines if line.startswith('MemAvailable:')), None)
    return 4 * 2**30 if found is None else int(found) * 1024


def _odd(size: float) -> int:
    """Return the next size of 32m + 1 pixels, at which quarter turns are exact."""
    return 32 * math.ceil((size - 1) / 32) + 1


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
