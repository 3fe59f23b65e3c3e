"""Draw samples of a data set: the image as it is stored, and what the pipeline makes of it."""

import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ...datasets.statistics.collect import DataPart
from ...datasets.statistics.measure import rectangle_of
from ...datasets.transforms.loading import LoadImageFromFile
from ...structures import tensor_of
from ...utils.messages import first_line
from ...visualization import class_colours, draw_boxes, to_polygons
from ...visualization.pixels import Image, as_image

LARGEST = 900  # pixels of the longer side of a picture
LOOKED_AT = 2000  # images among which samples are chosen
SMALL = 4.0  # pixels; a detector finds little that is narrower


@dataclass
class SamplePicture:
    """One image of the data set.

    Attributes:
        name: File name of the image.
        index: Its place in the data set.
        before: (H, W, 3), the stored image with its labels; None if it cannot be read.
        after: (H, W, 3), what the pipeline returns; None without a pipeline, or if it fails.
        told: What is drawn: 'before' and 'after', each with a sentence.
        fault: Why something is missing.
        objects: Number of objects before and after the pipeline.
        shorter: Shorter sides of the boxes after the pipeline, pixels.
    """

    name: str
    index: int
    before: Image | None = None
    after: Image | None = None
    told: dict[str, str] = field(default_factory=dict)
    fault: str = ''
    objects: tuple[int, int] = (0, 0)
    shorter: list[float] = field(default_factory=list)


def choose(part: DataPart, number: int, seed: int) -> list[int]:
    """Choose images at random, first those that show classes which no earlier one shows.

    Returns:
        Indices into `part.paths`, in order.
    """
    order = np.random.default_rng(seed).permutation(len(part.paths))[:LOOKED_AT].tolist()
    labels: dict[int, set[int]] = {i: set() for i in order}
    for owner, label in zip(part.owners.tolist(), part.labels.tolist(), strict=True):
        if owner in labels:
            labels[owner].add(label)
    chosen: list[int] = []
    seen: set[int] = set()
    while len(chosen) < min(number, len(order)):
        best = max((i for i in order if i not in chosen), key=lambda i: (len(labels[i] - seen), bool(labels[i])))
        chosen.append(best)
        seen |= labels[best]
    return sorted(chosen)


def draw_samples(
    part: DataPart,
    chosen: Sequence[int],
    load: Callable[[int], Any] | None,
    seed: int,
    progress: Callable[[int], None] = lambda _: None,
) -> list[SamplePicture]:
    """Draw samples before and after the pipeline.

    Args:
        part: What was read.
        chosen: Indices of images.
        load: Returns the sample of an index after the pipeline; None if there is no pipeline.
        seed: Of what the pipeline draws by chance.
        progress: Called with the number of samples so far.
    """
    pictures = []
    for i in chosen:
        sample = SamplePicture(os.path.basename(part.paths[i]), i)
        mine = np.flatnonzero(part.owners == i)
        sample.objects = (len(mine), 0)
        try:
            sample.before = _draw_stored(part, i, mine)
            width, height = part.sizes[i].tolist()
            sample.told['before'] = f'as stored, {width} x {height} pixels, {len(mine)} objects'
        except Exception as error:  # whatever a decoder raises
            sample.fault = f'{sample.name} cannot be read: {first_line(error)}'
        if load is not None:
            for seed_of in (random.seed, np.random.seed, torch.manual_seed):
                seed_of(seed + i)
            try:
                _draw_loaded(sample, load(i), part.classes)
            except Exception as error:  # a pipeline holds any code
                sample.fault = f'{sample.name}: the pipeline fails: {type(error).__name__}: {first_line(error)}'
        pictures.append(sample)
        progress(len(pictures))
    return pictures


def _draw_stored(part: DataPart, i: int, mine: NDArray[np.int64]) -> Image:
    image = as_image(LoadImageFromFile(color_type='unchanged').stored(part.paths[i]))
    angles = [rectangle_of(polygon)[2] for polygon in part.polygons[mine]]
    return _draw(
        image, part.polygons[mine].reshape(-1, 8), part.labels[mine], angles, part.difficult[mine], part.classes
    )


def _draw_loaded(sample: SamplePicture, loaded: Any, classes: Sequence[str]) -> None:
    if not isinstance(loaded, Mapping):
        raise ValueError(f'it returns {type(loaded).__name__} in place of a sample')
    inputs, data = loaded.get('inputs'), loaded.get('data_samples')
    if isinstance(inputs, (list, tuple)):  # several views of one image
        inputs, data = inputs[0], data[0] if isinstance(data, (list, tuple)) else data
    if not isinstance(inputs, torch.Tensor):
        raise ValueError(f'it returns {type(inputs).__name__} in place of an image; does it end with PackDetInputs?')
    image = as_image(inputs.permute(1, 2, 0).numpy())
    found = [getattr(data, key, None) for key in ('gt_instances', 'ignored_instances')]
    boxes: list[list[float]] = []
    labels: list[int] = []
    ignored: list[bool] = []
    for flag, instances in enumerate(found):
        for box in tensor_of(instances.bboxes).tolist() if instances is not None and 'bboxes' in instances else ():
            boxes.append(box)
            ignored.append(bool(flag))
        labels += instances.labels.tolist() if instances is not None and 'labels' in instances else []
    polygons = to_polygons(boxes)
    angles = [
        float(np.degrees(box[4])) if len(box) == 5 else rectangle_of(polygon)[2]
        for box, polygon in zip(boxes, polygons, strict=True)
    ]
    sample.objects = (sample.objects[0], len(boxes))
    sample.shorter = [rectangle_of(polygon)[1] for polygon in polygons]
    sample.after = _draw(
        image, polygons.reshape(-1, 8), np.array(labels, np.int64), angles, np.array(ignored, bool), classes
    )
    sample.told['after'] = f'after the pipeline, {image.shape[1]} x {image.shape[0]} pixels, {len(boxes)} boxes' + (
        f', {sum(ignored)} of them ignored' if any(ignored) else ''
    )


def _draw(
    image: Image,
    corners: NDArray[np.float64],
    labels: NDArray[np.int64],
    angles: Sequence[float],
    ignored: NDArray[np.bool_],
    classes: Sequence[str],
) -> Image:
    """Outline boxes in the colours of their classes; each has a text of its own, with its angle."""
    factor = min(1.0, LARGEST / max(image.shape[:2]))
    if factor < 1:
        size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
        image = as_image(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    of_class = class_colours(max(len(classes), int(labels.max(initial=0)) + 1))
    texts = [
        f'{classes[label] if 0 <= label < len(classes) else label} {round(angle)}{" ignored" if flag else ""}'
        for label, angle, flag in zip(labels.tolist(), angles, ignored.tolist(), strict=True)
    ]
    return draw_boxes(
        image,
        corners * factor,
        np.arange(len(corners)),
        classes=texts,
        colours=[of_class[label] for label in labels.tolist()] or None,
    )
