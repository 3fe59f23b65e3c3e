"""Compute the mAP of rotated boxes and write submissions to DOTA's server, as a metric of OpenMMLab's evaluator."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.fileio import dump

from ...registry import METRICS
from ...structures.rotated_iou import as_array
from ...utils.messages import tell, warn
from ...utils.table import ruled
from ...utils.typecheck import typed
from ..errors import EvaluationError
from ..functional.ground_truth import is_labelled, name_of, truth_of
from ..functional.mean_ap import ClassAP, class_ap, mean_ap, parts_of_class
from ..functional.submission import COLUMNS, check_submission, merge_patches, parse_patch, write_submission

Image = dict[str, Any]


@METRICS.register_module()
class DOTAMetric(BaseMetric):
    """Mean average precision, with the arguments and the names of mmrotate's class of this name.

    ``type='mmrotate_plugin.DOTAMetric'`` finds it from every scope. Unlike mmrotate's class,

    - it computes overlaps in float64, right for every way to write a box (`rotated_iou`);
    - it counts ignored (difficult) objects as neither hits nor misses in every image; mmrotate's class forgets them
      where an image has no other objects, and counts detections there as false;
    - it reports no numbers without ground truth, and says so; with `outfile_prefix` it still writes the detections. It
      leaves out images whose pipeline loads no labels;
    - it takes `scale_ranges`, horizontal boxes, and ground truth of another kind than the detections;
    - it checks names of patches before merging (`check_submission`), and applies the scale in them;
    - it works in one process, and rounds nothing.

    Classes without objects (ignored ones do not count) are left out of the mean. The numbers, after ``dota/``:

    - ``mAP``: mean of the following over `iou_thrs`;
    - ``AP50``, ``AP75``, ...: mean over the classes, one for each of `iou_thrs`;
    - ``AP50_0_32``, ...: the same for objects whose square root of the area, in pixels, lies in a range of
      `scale_ranges`; missing if there are no such objects.

    Args:
        iou_thrs: Smallest overlap of a hit, one or several.
        scale_ranges: Pairs (low, high) of pixels, evaluated in addition to all sizes. Objects and false detections of
            other sizes are ignored.
        metric: 'mAP', the only choice.
        predict_box_type: Kind of the detections: 'rbox', 'qbox' or 'hbox'.
        format_only: Only write the detections; compute no numbers.
        outfile_prefix: Write the detections to this name with ``.bbox.json``; with `merge_patches`, the folder to
            create.
        merge_patches: Write a submission (`write_submission`) instead of computing numbers.
        iou_thr: Threshold of the suppression that merges patches.
        eval_mode: '11points' (VOC 2007, DOTA's server) or 'area'.
        collect_device, prefix: See BaseMetric.

    Raises:
        TypeError, ValueError: For arguments out of range, or `format_only` and `merge_patches` without
            `outfile_prefix`.
        EvaluationError: If detections are of another kind than `predict_box_type` or not finite, or a label is beyond
            the data set's classes.
    """

    default_prefix = 'dota'

    @typed
    def __init__(
        self,
        iou_thrs: float | Sequence[float] = 0.5,
        scale_ranges: Sequence[Sequence[float]] | None = None,
        metric: str | Sequence[str] = 'mAP',
        predict_box_type: str = 'rbox',
        format_only: bool = False,
        outfile_prefix: str | None = None,
        merge_patches: bool = False,
        iou_thr: float = 0.1,
        eval_mode: str = '11points',
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.iou_thrs = [iou_thrs] if isinstance(iou_thrs, (int, float)) else list(iou_thrs)
        if not self.iou_thrs or not all(0 < value <= 1 for value in self.iou_thrs):
            raise ValueError(f'iou_thrs={iou_thrs} must be one or several numbers above 0 and at most 1')
        if len(set(map(_percent, self.iou_thrs))) < len(self.iou_thrs):
            raise ValueError(f'iou_thrs={iou_thrs} has a number twice')
        self.scale_ranges = [tuple(pair) for pair in scale_ranges or ()]
        if not all(len(pair) == 2 and 0 <= pair[0] < pair[1] for pair in self.scale_ranges):
            raise ValueError(f'scale_ranges={scale_ranges} must be pairs of pixels, such as [(0, 32), (32, 1000)]')
        if (metric if isinstance(metric, str) else list(metric)) not in ('mAP', ['mAP']):
            raise ValueError(f"metric={metric!r} must be 'mAP'")
        if predict_box_type not in COLUMNS:
            raise ValueError(f'predict_box_type={predict_box_type!r} must be one of {", ".join(map(repr, COLUMNS))}')
        if eval_mode not in ('11points', 'area'):
            raise ValueError(f"eval_mode={eval_mode!r} must be '11points' or 'area'")
        if not 0 <= iou_thr <= 1:
            raise ValueError(f'iou_thr={iou_thr} must be between 0 and 1; it is of the suppression, not of a hit')
        for name, value in (('format_only', format_only), ('merge_patches', merge_patches)):
            if value and not outfile_prefix:
                raise ValueError(f'{name}=True writes files: outfile_prefix must say where')
        self.predict_box_type, self.eval_mode, self.iou_thr = predict_box_type, eval_mode, iou_thr
        self.format_only, self.outfile_prefix, self.merge_patches = format_only, outfile_prefix, merge_patches

    def check_submission(self, names: Sequence[str]) -> None:
        """With `merge_patches`, refuse names, classes or a folder that would spoil the submission.

        The commands of this package call it before the first image.

        Args:
            names: `img_id` of all samples.

        Raises:
            EvaluationError: See `functional.submission.check_submission`.
        """
        if self.outfile_prefix is not None and self.merge_patches:
            check_submission(names, self.dataset_meta['classes'], self.outfile_prefix)

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:  # noqa: ARG002
        """Keep the detections and the ground truth of a batch."""
        for sample in data_samples:
            if self.merge_patches:  # no host's tool has checked the names before
                parse_patch(sample['img_id'])
            self.results.append(self._read(sample))

    def compute_metrics(self, results: Sequence[Image]) -> dict[str, float]:
        """Compute the numbers that the class names, or write files; log a table of the classes."""
        self._check_labels(results)
        if self.outfile_prefix and self.merge_patches:
            merged = merge_patches(results, self.iou_thr)
            file = write_submission(merged, self.dataset_meta['classes'], self.outfile_prefix)
            tell(f'submission: {file}, {len(merged)} images merged from {len(results)} patches')
            return {}
        if self.outfile_prefix:
            path = f'{self.outfile_prefix}.bbox.json'
            dump(list(_records(results)), path)
            tell(f'detections: {path}')
        return {} if self.format_only else self.measure(results)

    def measure(self, results: Sequence[Image]) -> dict[str, float]:
        """Compute the numbers of images as `process` keeps them."""
        labelled = [image for image in results if image['labelled']]
        if len(labelled) < len(results) and labelled:
            left_out = len(results) - len(labelled)
            warn(f'DOTAMetric: {left_out} of {len(results)} images have no labels and do not count')
        if not any((~image['gt_ignored']).any() for image in labelled):
            warn(no_truth('DOTAMetric', len(results), sum(len(image['gt_labels']) for image in labelled)))
            return {}
        classes = self.dataset_meta['classes']
        parts = [parts_of_class(labelled, label) for label in range(len(classes))]
        metrics, means = {}, []
        for iou_thr in self.iou_thrs:
            for side_range in (None, *self.scale_ranges):
                found = [class_ap(part, iou_thr, mode=self.eval_mode, side_range=side_range) for part in parts]
                name = f'AP{_percent(iou_thr)}' + ('' if side_range is None else '_{:g}_{:g}'.format(*side_range))
                tell(f'{name}\n{table(classes, found)}')
                if any(one.objects for one in found):
                    metrics[name] = mean_ap(found)
                if side_range is None:
                    means.append(metrics[name])
        return {'mAP': float(np.mean(means)), **metrics}

    def _check_labels(self, results: Sequence[Image]) -> None:
        number = len(self.dataset_meta['classes'])
        for image in results:
            for key, what in (('labels', 'a detection'), ('gt_labels', 'an object')):
                wrong = image[key][(image[key] < 0) | (image[key] >= number)]
                if len(wrong):
                    raise EvaluationError(
                        f'image {image["img_id"]}: {what} has the label {wrong[0]:g}, and the data set has {number} '
                        f'classes, 0 to {number - 1}; num_classes of the heads and metainfo.classes must agree'
                    )

    def _read(self, sample: Mapping[str, Any]) -> Image:
        pred, columns = sample['pred_instances'], COLUMNS[self.predict_box_type]
        image = {name: as_array(pred[name]) for name in ('bboxes', 'scores', 'labels')}
        boxes = image['bboxes']
        if not len(boxes):
            image['bboxes'] = boxes = np.zeros((0, columns))
        if boxes.shape[1:] != (columns,):
            kind = {count: name for name, count in COLUMNS.items()}.get(boxes.shape[-1])
            raise EvaluationError(
                f'{name_of(sample)}: detections have {boxes.shape[-1]} columns, and predict_box_type='
                f"'{self.predict_box_type}' has {columns}" + (f"; set predict_box_type='{kind}'" if kind else '')
            )
        wrong = ~(np.isfinite(boxes).all(1) & np.isfinite(image['scores']))
        if wrong.any():
            raise EvaluationError(
                f'{name_of(sample)}: {wrong.sum()} of {len(wrong)} detections have a box or score that is not finite; '
                'the weights may be of a training that diverged'
            )
        truth = truth_of(sample, columns)
        return image | dict(
            img_id=sample.get('img_id', len(self.results)),
            labelled=is_labelled(sample),
            gt_bboxes=truth.bboxes,
            gt_labels=truth.labels,
            gt_ignored=truth.ignored,
        )


def no_truth(metric: str, images: int, ignored: int = 0) -> str:
    """Say in one line that a metric has nothing to compare with."""
    none = f'all {ignored} objects in {images} images are ignored' if ignored else f'{images} images have no objects'
    return f'{metric}: no ground truth: {none}, so no number is given'


def table(classes: Sequence[str], found: Sequence[ClassAP]) -> str:
    """Format a table of the classes and their mean."""
    ignored = any(one.ignored for one in found)
    head = ['class', 'gts', *(['ignored'] if ignored else []), 'dets', 'recall', 'ap']
    rows: list[list[object]] = [list(head)]
    for name, one in zip(classes, found, strict=True):
        values = [f'{value:.3f}' if one.objects else '-' for value in (one.recall, one.ap)]
        rows.append([name, one.objects, *([one.ignored] if ignored else []), one.detections, *values])
    return ruled([*rows, ['mAP', *[''] * (len(head) - 2), f'{mean_ap(found):.3f}']])


def _records(results: Sequence[Image]) -> Any:
    """Write detections in COCO's format."""
    for image in results:
        for box, score, label in zip(image['bboxes'], image['scores'], image['labels'], strict=True):
            yield dict(image_id=image['img_id'], bbox=box.tolist(), score=float(score), category_id=int(label))


def _percent(iou_thr: float) -> str:
    return f'{round(100 * iou_thr, 6):g}'.zfill(2)
