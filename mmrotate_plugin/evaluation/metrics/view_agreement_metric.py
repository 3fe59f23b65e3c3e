"""Measure how far the detections on the views of an image agree, as a metric of OpenMMLab's evaluator."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from numpy.typing import NDArray

from ...registry import METRICS, register
from ...structures.rotated_iou import as_array
from ...structures.turns import POLYGON, ROTATED
from ...utils.messages import tell, warn
from ...utils.typecheck import typed
from ..functional.box_residuals import as_rotated
from ..turned_detections import ERRORS, Found, TurnedPairs, compare_turned, summarise

SAME_SCALE = 1e-3  # relative difference of scales that are taken for one: Resize rounds sizes to pixels


@register(METRICS)
class ViewAgreementMetric(BaseMetric):
    """Compare the detections on turned, reflected and scaled views with those on the image itself.

    `RotatedTTAModel(keep_views=True)` gives the views. Each is compared with the first view of the same scale, that one
    with the image itself. The detections of a detector that keeps its law agree to round-off where a view is exact;
    elsewhere the numbers say how far test-time augmentation averages over real differences. They come after ``tta/``:

    - ``matched``, ``lost``, ``new``: pairs, and detections with a partner in one view alone, over all images and views;
    - ``centre``, ``size``, ``angle``, ``score``: largest differences of pairs, in pixels, relative, in degrees, and
      absolute; without any pair they are left out.

    After `evaluate`, `report` holds rows for each view over all images, and for each image and view, with medians.

    Args:
        score_thr: Lowest score of a detection that is compared. Those below it may be the partner of one that is.
        collect_device, prefix: See BaseMetric.

    Raises:
        ValueError: If `score_thr` is not between 0 and 1.
    """

    default_prefix = 'tta'

    @typed
    def __init__(self, score_thr: float = 0.3, collect_device: str = 'cpu', prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if not 0 <= score_thr <= 1:
            raise ValueError(f'score_thr={score_thr} must be between 0 and 1')
        self.score_thr = score_thr
        self.report: dict[str, Any] = {}

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:  # noqa: ARG002
        """Compare the views of a batch of images."""
        for sample in data_samples:
            views = sample.get('tta_views')
            if not views:
                continue
            found = [self._found(view) for view in views]
            rows = []
            for i, view in enumerate(views[1:], 1):
                same = (j for j in range(i) if abs(views[j]['scale'] / view['scale'] - 1) < SAME_SCALE)
                expected = found[next(same, 0)]
                longest = float(expected.boxes[expected.counts, 2:4].max(initial=0))
                rows.append({**_name(view, views[0]), 'longest': longest, 'pairs': compare_turned(expected, found[i])})
            self.results.append({'img_id': sample.get('img_id'), 'views': rows})

    def compute_metrics(self, results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Compute the numbers that the class names."""
        if not results:
            warn('ViewAgreementMetric: no sample has tta_views; RotatedTTAModel(keep_views=True) puts them there')
            return {}
        views = []
        for i, row in enumerate(results[0]['views']):
            same = [image['views'][i] for image in results]
            longest = max(one['longest'] for one in same)
            views.append({**_numbers(row), 'longest': longest, **_together([one['pairs'] for one in same])})
        everything = _together([row['pairs'] for image in results for row in image['views']])
        images = [
            {
                'img_id': image['img_id'],
                'views': [{**_numbers(row), **row['pairs'].summary()} for row in image['views']],
            }
            for image in results
        ]
        self.report = {'score_thr': self.score_thr, 'views': views, 'together': everything, 'images': images}
        tell(
            f'views of {len(results)} images: {everything["matched"]} of {everything["detections"]} detections found '
            f'again, {everything["lost"]} lost, {everything["new"]} new'
        )
        numbers = {name: float(everything[name]) for name in ('matched', 'lost', 'new')}
        worst = {name: everything[name]['max'] for name in ERRORS if name != 'corner'}
        return numbers | {name: value for name, value in worst.items() if not math.isnan(value)}

    def _found(self, view: Mapping[str, Any]) -> Found:
        boxes, scores = as_array(view['bboxes']), as_array(view['scores'])
        if not boxes.size:
            boxes = np.zeros((0, ROTATED))
        boxes = mean_rectangles(boxes) if boxes.shape[1] == POLYGON else as_rotated(boxes)
        return Found(boxes, as_array(view['labels']).astype(np.int64), scores, scores >= self.score_thr)


def mean_rectangles(polygons: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take four corners (N, 8), in their order, for rectangles (N, 5): means of opposite sides, and their direction."""
    corners = polygons.reshape(-1, 4, 2)
    along = (corners[:, 1] - corners[:, 0] + corners[:, 2] - corners[:, 3]) / 2
    across = (corners[:, 3] - corners[:, 0] + corners[:, 2] - corners[:, 1]) / 2
    sides = [np.linalg.norm(side, axis=1) for side in (along, across)]
    return np.column_stack([corners.mean(1), *sides, np.arctan2(along[:, 1], along[:, 0])])


def _name(view: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tells views apart; the scale is relative to that of the first one."""
    scale = float(f'{view["scale"] / first["scale"]:.4g}')
    return {'degrees': round(view['degrees'], 6), 'mirrored': view['mirrored'], 'scale': scale}


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != 'pairs'}


def _together(parts: Sequence[TurnedPairs]) -> dict[str, Any]:
    matched, lost, new = (sum(len(getattr(part, name)) for part in parts) for name in ('pairs', 'lost', 'new'))
    return summarise(
        matched, lost, new, {name: np.concatenate([part.errors[name] for part in parts]) for name in ERRORS}
    )
