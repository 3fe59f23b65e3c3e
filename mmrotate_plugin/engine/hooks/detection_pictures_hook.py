"""Write pictures of detections during validation and test."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.visualization import LocalVisBackend, Visualizer
from torch import Tensor

from ...registry import HOOKS, register
from ...structures import content_slices, offset_of, tensor_of
from ...utils.atomic_files import write_whole
from ...visualization import class_colours, draw_boxes, encode_image, side_by_side, to_polygons
from ...visualization.pixels import as_image


@register(HOOKS)
class DetectionPicturesHook(Hook):
    """Write ground truth and prediction side by side at validation and test.

    The pixels are those of the batch (before the model's preprocessor), so that it works for data sets without files.
    Boxes are expected where OpenMMLab's evaluation expects them, in the original image: predictions rescaled,
    annotations loaded after the resizing of the pipeline. Both are mapped to the pixels that the network saw. Samples
    without `pred_instances`, those of a classifier or a segmentation network, have no picture.

    Args:
        max_pictures: Number of pictures per validation or test; -1 for all, 0 for none.
        score_thr: Predictions below this are not drawn.
        out_dir: Folder; by default `pictures/val` and `pictures/test` in the work directory. A later validation
            replaces the pictures of an earlier one.
        suffix: '.png' or '.jpg'.
        to_backends: Also give them to the visualizer's backends, such as `TensorboardVisBackend`: tag `val/NAME`, the
            number of training iterations as step. `LocalVisBackend` is left out, as it would write the same files.
        bands: Channels, counted from 0, that are drawn as red, green and blue; by default (2, 1, 0).
    """

    priority = 'LOW'

    def __init__(
        self,
        max_pictures: int = 8,
        *,
        score_thr: float = 0.3,
        out_dir: str | None = None,
        suffix: str = '.png',
        to_backends: bool = False,
        bands: Sequence[int] | None = None,
    ) -> None:
        if not isinstance(max_pictures, int) or max_pictures < -1:
            raise ValueError(f'max_pictures must be -1 (all) or a count, but is {max_pictures!r}')
        if suffix not in ('.png', '.jpg'):
            raise ValueError(f"suffix must be '.png' or '.jpg', but is {suffix!r}")
        self.max_pictures = max_pictures
        self.score_thr = score_thr
        self.out_dir = out_dir
        self.suffix = suffix
        self.to_backends = to_backends
        if bands is not None and (len(bands) != 3 or not all(type(b) is int and b >= 0 for b in bands)):
            raise ValueError(f'bands={bands!r} must be three channels counted from 0, such as (3, 2, 1)')
        self.bands = bands
        self.written: list[Path] = []

    def before_val_epoch(self, runner: Runner) -> None:  # noqa: ARG002
        self.written = []

    def before_test_epoch(self, runner: Runner) -> None:  # noqa: ARG002
        self.written = []

    @master_only
    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,  # noqa: ARG002
        data_batch: dict[str, Any] | None = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        self._write(runner, data_batch, outputs, 'val')

    @master_only
    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,  # noqa: ARG002
        data_batch: dict[str, Any] | None = None,
        outputs: Sequence[Any] | None = None,
    ) -> None:
        self._write(runner, data_batch, outputs, 'test')

    @master_only
    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self._report(runner)

    @master_only
    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self._report(runner)

    def _report(self, runner: Runner) -> None:
        if self.written:
            runner.logger.info(f'{len(self.written)} pictures of the detections are in {self.written[0].parent}')

    def _write(
        self, runner: Runner, data_batch: dict[str, Any] | None, outputs: Sequence[Any] | None, mode: str
    ) -> None:
        if not data_batch or not outputs:
            return
        folder = Path(self.out_dir) if self.out_dir else Path(runner.work_dir) / 'pictures' / mode
        dataset = (runner.val_dataloader if mode == 'val' else runner.test_dataloader).dataset
        meta = getattr(dataset, 'metainfo', {})
        for pixels, sample in zip(_shown(data_batch['inputs'], outputs), outputs, strict=True):
            if self.max_pictures != -1 and len(self.written) >= self.max_pictures:
                return
            if not hasattr(sample, 'pred_instances'):
                continue
            picture = sample_picture(
                pixels,
                sample,
                classes=meta.get('classes', ()),
                palette=meta.get('palette'),
                score_thr=self.score_thr,
                bands=self.bands,
            )
            name = f'{len(self.written):04d}_{sample_name(sample)}'
            self.written.append(write_whole(folder / f'{name}{self.suffix}', encode_image(picture, self.suffix)))
            if self.to_backends:
                add_to_backends(runner.visualizer, f'{mode}/{name}', picture, runner.iter)


def _shown(inputs: Any, outputs: Sequence[Any]) -> Any:
    """Return the images of a batch; of several views of each image, that in whose frame the sample is."""
    if len(inputs) and isinstance(inputs[0], (list, tuple)):
        return [inputs[sample.metainfo.get('tta_view', 0)][i] for i, sample in enumerate(outputs)]
    return inputs


def add_to_backends(visualizer: Visualizer, tag: str, picture: np.ndarray, step: int) -> None:
    """Give a picture, (H, W, 3) in BGR, to all backends of a visualizer but `LocalVisBackend`."""
    for backend in visualizer._vis_backends.values():
        if not isinstance(backend, LocalVisBackend):
            backend.add_image(tag, picture[..., ::-1].copy(), step)


def sample_name(sample: Any) -> str:
    """Return a file name without suffix for a data sample: that of its image, or its id."""
    path = sample.metainfo.get('img_path')
    name = Path(path).stem if path else str(sample.metainfo.get('img_id', 'image'))
    return re.sub(r'[^\w.-]+', '_', name)[:80]


def sample_picture(
    pixels: Tensor,
    sample: Any,
    *,
    classes: Sequence[str] = (),
    palette: Sequence[Sequence[int]] | str | None = None,
    score_thr: float = 0.3,
    bands: Sequence[int] | None = None,
) -> np.ndarray:
    """Draw a data sample: ground truth, if there is any, left of the prediction.

    Args:
        pixels: (C, H, W) image as the pipeline packed it; padding may follow at the right and at the bottom.
        bands: See `DetectionPicturesHook`.
        sample: `DetDataSample` with `pred_instances` and perhaps `gt_instances`, both in the original image.
    """
    meta = sample.metainfo
    image = as_image(pixels.detach().cpu().permute(1, 2, 0).numpy(), bands)
    scale = np.ones(2)
    if meta.get('scale_factor') is not None:
        scale[:] = np.asarray(meta['scale_factor'], dtype=float).ravel()[:2]
    place = np.array(offset_of(meta))
    if place.any():  # cut the padding off
        rows, columns = content_slices(meta, image.shape[:2])
        image = image[rows, columns]
        place -= columns.start, rows.start
    elif meta.get('ori_shape') is not None:
        height, width = meta['ori_shape'][:2]
        image = image[: max(1, round(height * scale[1])), : max(1, round(width * scale[0]))]

    predicted = sample.pred_instances
    scores = _numpy(predicted.scores)
    keep = scores >= score_thr
    known = max(len(classes), int(_numpy(predicted.labels).max(initial=-1)) + 1)
    colours = class_colours(known, palette)

    def draw(boxes: Any, labels: Any, scores: np.ndarray | None = None) -> np.ndarray:
        polygons = to_polygons(_numpy(boxes)) * scale + place
        return draw_boxes(image, polygons.reshape(-1, 8), _numpy(labels), scores, classes=classes, colours=colours)

    panels = []
    shown = set(_numpy(predicted.labels)[keep].tolist())
    truth = getattr(sample, 'gt_instances', None)
    if truth is not None and 'bboxes' in truth:
        shown |= set(_numpy(truth.labels).tolist())
        panels.append((f'ground truth: {len(truth)} objects', draw(truth.bboxes, truth.labels)))
    found = draw(_numpy(predicted.bboxes)[keep], _numpy(predicted.labels)[keep], scores[keep])
    panels.append((f'prediction: {keep.sum()} with score >= {score_thr:g}', found))
    used = [i for i in range(len(classes)) if i in shown]
    return side_by_side(panels, classes=[classes[i] for i in used], colours=[colours[i] for i in used])


def _numpy(values: Any) -> np.ndarray:
    """Turn tensors, and the box types of mmdet and mmrotate that wrap one, into arrays."""
    values = tensor_of(values)
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()  # NumPy has no bfloat16
    return np.asarray(values)
