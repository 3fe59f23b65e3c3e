"""Judge the standard deviations of detections, as a metric of OpenMMLab's evaluator."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from ...registry import METRICS, register
from ...utils.messages import warn
from ...utils.table import aligned
from ..errors import EvaluationError
from ..functional.box_residuals import (
    IGNORED,
    ROTATED,
    as_array,
    box_ious,
    box_residuals,
    box_uncertainty,
    coordinates,
    match_boxes,
)
from ..functional.calibration_scores import (
    NORMAL_COVERAGE,
    calibration_error,
    coverage,
    negative_log_likelihood,
    pearson,
    score_calibration_error,
    sparsification_error,
    spearman,
)
from ..functional.ground_truth import is_labelled, truth_of
from ..functional.pdq import pdq
from .dota_metric import no_truth

Image = dict[str, np.ndarray]
COUNTS = ('detections', 'matched', 'objects')


@register(METRICS)
class UncertaintyMetric(BaseMetric):
    """Calibration and ranking of `bboxes_std` and `scores_std`, against ground truth.

    It takes the data samples of mmrotate's DOTAMetric and mmdet's VOCMetric, with rotated or horizontal boxes, if
    `pred_instances` has standard deviations (`mmrotate_plugin.UncertainDetector`). `match_boxes` matches detections
    with objects; those matched to ignored objects are left out. Over the whole data set it reports, for each coordinate
    c (cx, cy, w, h, angle, or x1, y1, x2, y2) of matched detections and for `all` together,

    - ``coverage_1_c``, ``coverage_2_c``, ``coverage_3_c``: fraction of residuals (`box_residuals`) within 1, 2 and 3
      standard deviations; 0.683, 0.954 and 0.997 for a Gaussian;
    - ``calibration_error_c``: see `calibration_error`; 0 is best;
    - ``nll_mean_c``, ``nll_median_c``: negative log-likelihood in nats, of pixels and radians; smaller is better;
    - ``spearman_c``, ``pearson_c``: correlation of deviation and absolute residual; for ``box`` (not `all`), of
      `box_uncertainty` and 1 - IoU;

    and for whole detections

    - ``ause_box``: `sparsification_error` of 1 - IoU, ranked by `box_uncertainty`, over matched detections; for
      comparison ``ause_box_by_score``, ranked by 1 - score, and ``ause_box_random``, without a ranking;
    - ``ause_false``: the same with an error of 1 for unmatched detections and 0 for matched ones, ranked by
      `scores_std`; for comparison ``ause_false_by_score`` and ``ause_false_random``;
    - ``ause_box_with_score``, ``ause_false_with_score``: ranked by score and deviation together: the box's uncertainty
      over the score, and the lower bound of the score, score - `scores_std`. Scores alone tell false detections apart;
      their deviation is largest around 0.5, where it says little;
    - ``score_calibration_error``: see there;
    - ``pdq``, ``pdq_spatial``, ``pdq_label``, ``pdq_true``, ``pdq_false``, ``pdq_missed``: see `pdq`;
    - ``detections``, ``matched``, ``objects``: counts, without ignored ones.

    If no object counts, there are no numbers, and one line says so. Otherwise a number is nan where it is not defined:
    numbers about boxes without matched detections, correlations with a constant, `ause_false` if every detection is
    matched, `pdq` without detections and objects.

    Args:
        iou_thr: Smallest overlap of a match.
        score_thr: Detections with smaller scores are left out. Most test configs keep those above 0.05.
        num_bins: Number of bins of the calibration errors.
        min_std: Smallest standard deviation in the likelihood; smaller ones, such as 0, count as this.
        pdq_score_thr: `score_thr` for PDQ, which counts each false detection in full.
        collect_device, prefix: See BaseMetric. The names above follow ``uncertainty/``.

    Raises:
        ValueError: For arguments out of range; if detections have no standard deviations, or some that are negative
            or not finite; if boxes are of two kinds.

    Example:
        >>> import torch
        >>> from mmrotate_plugin.evaluation import UncertaintyMetric
        >>> truth = dict(bboxes=torch.tensor([[11.0, 10, 20, 8, 0.1]]), labels=torch.tensor([0]))
        >>> found = dict(bboxes=torch.tensor([[10.0, 10, 20, 8, 0.1]]), bboxes_std=torch.full((1, 5), 2.0))
        >>> found.update(labels=truth['labels'], scores=torch.tensor([0.9]), scores_std=torch.tensor([0.1]))
        >>> metric = UncertaintyMetric()
        >>> metric.process({}, [dict(pred_instances=found, gt_instances=truth)])
        >>> numbers = metric.measure(metric.results)
        >>> numbers['matched'], numbers['coverage_1_cx']
        (1.0, 1.0)
    """

    default_prefix = 'uncertainty'

    def __init__(
        self,
        iou_thr: float = 0.5,
        score_thr: float = 0.05,
        num_bins: int = 10,
        *,
        min_std: float = 1e-3,
        pdq_score_thr: float = 0.5,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if not 0 < iou_thr <= 1:
            raise ValueError(f'iou_thr={iou_thr} must be above 0 and at most 1')
        for name, value in (('score_thr', score_thr), ('pdq_score_thr', pdq_score_thr)):
            if not 0 <= value <= 1:
                raise ValueError(f'{name}={value} must be between 0 and 1')
        if num_bins < 2:
            raise ValueError(f'num_bins={num_bins} must be 2 or more')
        if min_std <= 0:
            raise ValueError(f'min_std={min_std} must be positive, such as 0.001 (pixels, radians)')
        self.iou_thr, self.score_thr, self.num_bins = iou_thr, score_thr, num_bins
        self.min_std, self.pdq_score_thr = min_std, pdq_score_thr

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:  # noqa: ARG002
        """Keep the detections and the ground truth of a batch."""
        self.results += [read_sample(sample, min(self.score_thr, self.pdq_score_thr)) for sample in data_samples]

    def compute_metrics(self, results: Sequence[Image]) -> dict[str, float]:
        """Compute the numbers that the class names, and log a table of them."""
        labelled = [image for image in results if image['labelled']]
        metrics = self.measure(labelled)
        if not metrics['objects']:
            warn(no_truth('UncertaintyMetric', len(results), sum(len(image['gt_labels']) for image in labelled)))
            return {}
        if len(labelled) < len(results):
            left_out = len(results) - len(labelled)
            warn(f'UncertaintyMetric: {left_out} of {len(results)} images have no labels and do not count')
        columns = results[0]['bboxes'].shape[1] if results else len(ROTATED)
        MMLogger.get_current_instance().info('\n' + table(metrics, (*coordinates(columns), 'all', 'box')))
        return metrics

    def measure(self, results: Sequence[Image]) -> dict[str, float]:
        """Compute the numbers of images as `read_sample` returns them."""
        columns = sorted({image['bboxes'].shape[1] for image in results}) or [len(ROTATED)]
        if len(columns) > 1:
            raise ValueError(f'images have boxes with {columns} columns; all must be of one kind')
        names = coordinates(columns[0])
        matched = [self.match(image) for image in results]
        kept = {k: np.concatenate([m[0][k] for m in matched]) for k in matched[0][0]} if matched else _nothing(names)
        metrics = self._of_boxes(kept, names) | self._of_detections(kept)
        quality = pdq(image for _, image in matched)
        metrics.update(
            pdq=quality.pdq,
            pdq_spatial=quality.spatial,
            pdq_label=quality.label,
            pdq_true=float(quality.true_positives),
            pdq_false=float(quality.false_positives),
            pdq_missed=float(quality.false_negatives),
            detections=float(len(kept['hits'])),
            matched=float(kept['hits'].sum()),
            objects=float(sum(len(image['gt_labels']) for _, image in matched)),
        )
        if metrics['objects']:
            return metrics
        return {name: value if name in COUNTS else math.nan for name, value in metrics.items()}

    def match(self, image: Image) -> tuple[Image, Image]:
        """Return detections with their matches, and the image without ignored objects and their detections, for PDQ."""
        ious = box_ious(image['bboxes'], image['gt_bboxes'])
        ignored = image['gt_ignored']
        found = match_boxes(ious, image['scores'], image['labels'], image['gt_labels'], ignored, self.iou_thr)
        rows = np.flatnonzero((found != IGNORED) & (image['scores'] >= self.score_thr))
        hits: np.ndarray = found[rows] >= 0
        pairs, truth = rows[hits], found[rows[hits]]
        kept = dict(
            hits=hits,
            scores=image['scores'][rows],
            scores_std=image['scores_std'][rows],
            boxes=image['bboxes'][pairs],
            std=image['bboxes_std'][pairs],
            residuals=box_residuals(image['bboxes'][pairs], image['gt_bboxes'][truth]),
            errors=1 - ious[pairs, truth],
        )
        rows = np.flatnonzero((found != IGNORED) & (image['scores'] >= self.pdq_score_thr))
        rest = {name: image[name][rows] for name in ('bboxes', 'bboxes_std', 'scores', 'labels')}
        return kept, rest | {name: image[name][~ignored] for name in ('gt_bboxes', 'gt_labels')}

    def _of_boxes(self, kept: Image, names: Sequence[str]) -> dict[str, float]:
        residuals, std = kept['residuals'], kept['std']
        likelihood = negative_log_likelihood(residuals, std, self.min_std)
        metrics = {}
        for name, part in {**{name: slice(i, i + 1) for i, name in enumerate(names)}, 'all': slice(None)}.items():
            r, s, nll = residuals[:, part], std[:, part], likelihood[:, part]
            metrics.update({f'coverage_{k}_{name}': coverage(r, s, k) for k in NORMAL_COVERAGE})
            metrics[f'calibration_error_{name}'] = calibration_error(r, s, self.num_bins)
            metrics[f'nll_mean_{name}'] = float(nll.mean()) if nll.size else math.nan
            metrics[f'nll_median_{name}'] = float(np.median(nll)) if nll.size else math.nan
            if name != 'all':  # pixels and radians would correlate by their units alone
                metrics[f'spearman_{name}'] = spearman(s, np.abs(r))
                metrics[f'pearson_{name}'] = pearson(s, np.abs(r))
        whole = box_uncertainty(kept['boxes'], std)
        metrics['spearman_box'] = spearman(whole, kept['errors'])
        metrics['pearson_box'] = pearson(whole, kept['errors'])
        return metrics

    def _of_detections(self, kept: Image) -> dict[str, float]:
        hits, doubt = kept['hits'], 1 - kept['scores']
        box = box_uncertainty(kept['boxes'], kept['std'])
        with np.errstate(divide='ignore', invalid='ignore'):  # a score of 0, or infinite doubt of an empty box
            both = np.nan_to_num(box / kept['scores'][hits], nan=np.inf)
        rankings = {
            'box': (kept['errors'], box, both, doubt[hits]),
            'false': (1.0 - hits, kept['scores_std'], doubt + kept['scores_std'], doubt),
        }
        metrics = {}
        for name, (error, uncertainty, combined, baseline) in rankings.items():
            metrics[f'ause_{name}'] = sparsification_error(error, uncertainty)
            metrics[f'ause_{name}_with_score'] = sparsification_error(error, combined)
            metrics[f'ause_{name}_by_score'] = sparsification_error(error, baseline)
            metrics[f'ause_{name}_random'] = sparsification_error(error, np.zeros_like(error))
        metrics['score_calibration_error'] = score_calibration_error(kept['scores'], hits, self.num_bins)
        return metrics


def read_sample(sample: Mapping[str, Any], score_thr: float) -> Image:
    """Read the arrays of a data sample: detections with `score_thr` or more, and objects, ignored ones last.

    Raises:
        EvaluationError: If standard deviations are missing, negative, not finite or of another shape than the boxes, or
            the boxes are of different kinds.
    """
    where = f'image {sample.get("img_id", "without img_id")}'
    pred = sample['pred_instances']
    for name in ('bboxes_std', 'scores_std'):
        if name not in pred:
            raise EvaluationError(
                f'{where}: pred_instances has no {name}, only {", ".join(sorted(pred.keys()))}; '
                'mmrotate_plugin.UncertainDetector around the detector provides it'
            )
    image = {name: as_array(pred[name]) for name in ('bboxes', 'bboxes_std', 'scores', 'scores_std', 'labels')}
    if not all(np.isfinite(image[name]).all() for name in ('bboxes', 'scores')):
        raise EvaluationError(
            f'{where}: detections have a box or score that is not finite; the weights may be of a diverged training'
        )
    for name, like in (('bboxes_std', 'bboxes'), ('scores_std', 'scores')):
        std = image[name]
        if std.shape != image[like].shape:
            raise EvaluationError(f'{where}: {name} is {std.shape} and {like} is {image[like].shape}; they must agree')
        if not (np.isfinite(std) & (std >= 0)).all():
            raise EvaluationError(
                f'{where}: {name} has values that are negative or not finite; they must be deviations'
            )
    keep = image['scores'] >= score_thr
    image = {name: values[keep] for name, values in image.items()}
    columns = image['bboxes'].shape[1]
    truth = truth_of(sample, columns, same_kind=True)
    found = dict(gt_bboxes=truth.bboxes, gt_labels=truth.labels, gt_ignored=truth.ignored)
    return image | found | dict(labelled=np.array(is_labelled(sample)))


def table(metrics: Mapping[str, float], names: Sequence[str]) -> str:
    """Format numbers as text: those of coordinates in columns, the others one per line."""
    of_names: dict[str, dict[str, float]] = {}
    others = []
    for key, value in metrics.items():
        kind, _, name = key.rpartition('_')
        if name in names and kind != 'ause':
            of_names.setdefault(kind, {})[name] = value
        else:
            others.append((key, f'{value:.4g}'))
    rows: list[list[str]] = [['', *names]]
    for kind, numbers in of_names.items():
        cells = [f'{numbers[name]:.3g}' if name in numbers else '' for name in names]
        hint = [f'{NORMAL_COVERAGE[int(kind[-1])]:.3f} is right'] if kind.startswith('coverage') else []
        rows.append([kind, *cells, *hint])
    return f'{aligned(rows, right=range(1, len(names) + 1))}\n\n{aligned(others, right=[1])}'


def _nothing(names: Sequence[str]) -> Image:
    flat, wide = np.zeros(0), np.zeros((0, len(names)))
    return dict(hits=flat > 0, scores=flat, scores_std=flat, boxes=wide, std=wide, residuals=wide, errors=flat)
