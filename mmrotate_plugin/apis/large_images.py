"""Detect on images that are too large for one pass: merge the detections of overlapping patches."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData
from numpy.typing import NDArray
from torch import Tensor

from ..adf.progress import track
from ..structures import tensor_of
from ..structures.rotated_iou import Polygons
from ..utils.errors import UsageError
from ..visualization import to_polygons
from .inference import Detections, Detector, best_first

SMALLEST = 32  # pixels; a patch below that has no map left at the usual strides
ROWS = 500  # detections whose overlaps are computed at a time
# pixels. A core ends in the middle of an overlap. Two patches place an object a little differently, so each answers
# for so much beyond
BEYOND = 2
NEAR = 1 / 8  # of the overlap: what ends so near to a seam is taken for cut
SHARED = 0.3  # of the smaller of two detections: of different patches, they are then one object


@dataclass(frozen=True)
class Span:
    """Where a patch lies along one axis, pixels of the image.

    Attributes:
        start, stop: Its borders.
        first, last: Those of its core, which ends in the middle of an overlap.
        before, after: Overlaps with the neighbours; 0 where there is none.
    """

    start: int
    stop: int
    first: float
    last: float
    before: int
    after: int


class PatchDetector:
    """A `Detector` that goes over an image patch by patch.

    Besides the image, memory holds one batch of patches and the detections above the threshold. They become one image's
    detections by three rules:

    - A detection counts in the patch whose core, up to the middle of the overlaps, has its centre, or at most two
      pixels beyond. So a place has one chance of a false alarm, as in one pass over the whole.
    - What ends at a seam, within an eighth of the overlap, and begins within the overlap is left out: the neighbour has
      all of that object.
    - Of two detections of different patches the better stays if they share more than 0.3 of the smaller, whatever their
      classes, or if the detector's own NMS would suppress one. Two of one patch both stay, as in one pass.

    The overlap should be as long as the longest object. Of a longer one, which no patch has whole, the best part stays.

    Args:
        detector: With a pipeline that takes arrays. An uncertain one gives deviations of its boxes, but no heat map.
        size: Side of a patch, pixels. Where the image is smaller it is padded with the median of each channel; what is
            found there is left out.
        overlap: Overlap of neighbouring patches, in pixels; the last of a row or column may overlap more.
        batch_size: Patches at a time.
        show: Show progress on stderr; None for terminals only.

    Raises:
        UsageError: If a number is out of range, or the detector has no NMS to merge with.
    """

    def __init__(
        self, detector: Detector, *, size: int, overlap: int, batch_size: int = 1, show: bool | None = None
    ) -> None:
        if size < SMALLEST:
            raise UsageError(f'--patch-size must be {SMALLEST} pixels or more, not {size}')
        if not 1 <= overlap < size:
            raise UsageError(f'--patch-overlap must be 1 or more and below the patch size {size}, not {overlap}')
        if batch_size < 1:
            raise UsageError(f'--patch-batch-size must be 1 or more, not {batch_size}')
        self.detector = detector
        self.size, self.overlap, self.batch_size, self.show = size, overlap, batch_size, show
        self.nms = nms_of(detector.model.cfg)

    def __call__(self, image: NDArray[Any], *, score_thr: float = 0.0) -> Detections:
        """Detect on one image (H, W, C) of any size.

        Raises:
            UsageError: If an `UncertainDetector` holds a detector that it cannot take.
            ImageError: If the test pipeline cannot take a patch.
        """
        height, width = image.shape[:2]
        patches = list(product(spans(height, self.size, self.overlap), spans(width, self.size, self.overlap)))
        found: list[InstanceData] = []
        origins: list[int] = []  # the patch of each detection
        for i in track(math.ceil(len(patches) / self.batch_size), f'{len(patches)} patches', self.show):
            batch = patches[i * self.batch_size : (i + 1) * self.batch_size]
            for patch, instances in zip(batch, self._detect(image, batch), strict=True):
                # what is below the threshold suppresses nothing that is above it
                kept = instances[instances.scores >= score_thr]
                found.append(_of_patch(kept, *patch, (height, width)))
                origins += [len(found)] * len(found[-1])
        merged = InstanceData.cat(found)
        return best_first(merged[merge(merged, origins, self.nms)])

    def _detect(self, image: NDArray[Any], batch: list[tuple[Span, Span]]) -> list[InstanceData]:
        items = [self.detector.pipeline({'img': _cut(image, *patch), 'img_id': 0}) for patch in batch]
        return [sample.pred_instances for sample in self.detector.run(items)]


def spans(length: int, size: int, overlap: int) -> list[Span]:
    """Cover an axis with patches; the last ends with the image, a single one has the image in its middle.

    Args:
        length: Side of the image, in pixels.
        size, overlap: Those of the patches, in pixels.
    """
    if length <= size:
        start = (length - size) // 2
        return [Span(start, start + size, -math.inf, math.inf, 0, 0)]
    count = math.ceil((length - size) / (size - overlap)) + 1
    starts = [min(i * (size - overlap), length - size) for i in range(count)]
    overlaps = [a + size - b for a, b in zip(starts, starts[1:], strict=False)]
    middles = [-math.inf, *(b + o / 2 for b, o in zip(starts[1:], overlaps, strict=True)), math.inf]
    overlaps = [0, *overlaps, 0]
    return [
        Span(start, start + size, middles[i], middles[i + 1], overlaps[i], overlaps[i + 1])
        for i, start in enumerate(starts)
    ]


def merge(found: InstanceData, origins: Sequence[int], nms: Mapping[str, Any]) -> Tensor:
    """Choose the detections of all patches that stay, by the third rule of `PatchDetector`; indices, best first.

    Overlaps are those of `Polygons`, since mmcv's are 0 for some boxes that two patches agree on.

    Args:
        found: In the frame of the image.
        origins: The patch of each.
        nms: The detector's, with an `iou_threshold`.
    """
    scores, labels = found.scores.cpu().numpy(), found.labels.cpu().numpy()
    patch = np.asarray(origins, int)
    order = np.argsort(-scores, kind='stable')
    if len(order) == 0:
        return torch.zeros(0, dtype=torch.long)
    polygons = Polygons(found.bboxes)
    rank = np.empty(len(order), int)
    rank[order] = np.arange(len(order))
    losers: dict[int, list[int]] = {}
    for start in range(0, len(order), ROWS):
        rows = np.arange(start, min(start + ROWS, len(order)))
        i, j = polygons[rows].neighbours(polygons)
        i = rows[i]
        pairs = (rank[i] < rank[j]) & (patch[i] != patch[j])
        i, j = i[pairs], j[pairs]
        iou = polygons.ious(polygons, i, j)
        shared = iou / (1 + iou) * (polygons.area[i] + polygons.area[j])
        same = (labels[i] == labels[j]) | bool(nms.get('class_agnostic', False))
        smaller = np.minimum(polygons.area[i], polygons.area[j])
        one = (shared > SHARED * smaller) | (same & (iou > nms['iou_threshold']))
        for better, worse in zip(i[one], j[one], strict=True):
            losers.setdefault(int(better), []).append(int(worse))
    stays = np.ones(len(order), dtype=bool)
    for better in order:
        if stays[better]:
            stays[losers.get(int(better), [])] = False
    return torch.from_numpy(order[stays[order]]).to(found.scores.device)


def _cut(image: NDArray[Any], rows: Span, columns: Span) -> NDArray[Any]:
    """Copy the pixels of a patch; those beyond the image have the median of each channel."""
    height, width = image.shape[:2]
    inside = image[max(rows.start, 0) : rows.stop, max(columns.start, 0) : columns.stop]
    size = rows.stop - rows.start, columns.stop - columns.start
    if inside.shape[:2] == size:
        return np.ascontiguousarray(inside)
    patch = np.empty((*size, *image.shape[2:]), image.dtype)
    patch[...] = np.median(inside, (0, 1)).astype(image.dtype)
    top, left = max(-rows.start, 0), max(-columns.start, 0)
    patch[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return patch


def _of_patch(found: InstanceData, rows: Span, columns: Span, shape: tuple[int, int]) -> InstanceData:
    """Select the detections that a patch answers for and that no seam cuts, in the frame of the image."""
    boxes = tensor_of(found.bboxes)
    coordinates = 2 if boxes.shape[1] == 5 else boxes.shape[1]  # (cx, cy, w, h, angle), or corners
    shift = boxes.new_zeros(boxes.shape[1])
    shift[:coordinates] = boxes.new_tensor([columns.start, rows.start]).repeat(coordinates // 2)
    found.bboxes = boxes + shift
    corners = torch.from_numpy(to_polygons(found.bboxes.detach().cpu().numpy()))  # (N, 4, 2)
    low, high = corners.amin(1), corners.amax(1)
    keep = torch.ones(len(corners), dtype=torch.bool)
    for axis, (span, length) in enumerate(zip((columns, rows), shape[::-1], strict=True)):
        centre = (low[:, axis] + high[:, axis]) / 2
        keep &= (centre >= 0) & (centre <= length)
        keep &= (centre >= span.first - BEYOND) & (centre <= span.last + BEYOND)
        keep &= ~_seen_whole_by_neighbour(low[:, axis], high[:, axis], span)
    return found[keep.to(boxes.device)]


def _seen_whole_by_neighbour(low: Tensor, high: Tensor, span: Span) -> Tensor:
    """Find what ends at a seam of the patch and begins within the overlap, so that the neighbour has all of it."""
    whole = torch.zeros(len(low), dtype=torch.bool)
    if span.after:
        near = NEAR * span.after
        whole |= (high > span.stop - near) & (low > span.stop - span.after)
    if span.before:
        near = NEAR * span.before
        whole |= (low < span.start + near) & (high < span.start + span.before)
    return whole


def nms_of(cfg: Config) -> dict[str, Any]:
    """Return the settings of the last NMS of a config's detector.

    Raises:
        UsageError: If it has none.
    """
    model: Mapping[str, Any] = cfg.model
    while 'test_cfg' not in model and isinstance(model.get('detector'), Mapping):  # a detector around another
        model = model['detector']
    test = model.get('test_cfg') or {}
    nms = (test.get('rcnn') or test).get('nms')
    if not isinstance(nms, Mapping) or 'iou_threshold' not in nms:
        raise UsageError("--patch-size: the config's model.test_cfg has no nms with an iou_threshold to merge with")
    return dict(nms)
