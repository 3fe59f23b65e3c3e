"""Average precision as a function of the angle of the scene: counting, summary and table."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..utils.table import aligned
from .functional.mean_ap import class_ap, mean_ap, parts_of_class

THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))  # COCO's
NUMBERS = {'AP50': 'mAP@0.5', 'AP75': '@0.75', 'AP50_95': '@0.5:0.95'}  # as keys, and in tables


def precision_at_angle(
    images: Sequence[Mapping[str, Any]], classes: Sequence[str], *, eval_mode: str = '11points'
) -> dict[str, Any]:
    """Count the average precision over images, as `DOTAMetric` does.

    Args:
        images: As `DOTAMetric` keeps them, see `functional.mean_ap.parts_of_class`.
        classes: Names, by label.
        eval_mode: '11points' or 'area', see `functional.mean_ap.class_ap`.

    Returns:
        `objects`, their number; `AP50`, `AP75` and `AP50_95`, means over the classes that have objects (nan if none
        has); `classes`, AP50 by name.
    """
    parts = [parts_of_class(images, label) for label in range(len(classes))]
    found = {iou_thr: [class_ap(part, iou_thr, mode=eval_mode) for part in parts] for iou_thr in THRESHOLDS}
    means = {iou_thr: mean_ap(one) for iou_thr, one in found.items()}
    return {
        'objects': sum(one.objects for one in found[0.5]),
        'AP50': means[0.5],
        'AP75': means[0.75],
        'AP50_95': float(np.mean(list(means.values()))),
        'classes': {name: one.ap for name, one in zip(classes, found[0.5], strict=True)},
    }


def summarise_angles(rows: Sequence[Mapping[str, Any]], together: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Summarise the angles of an evaluation, for each of `NUMBERS`.

    Args:
        rows: One result of `precision_at_angle` for each angle, with `degrees`.
        together: The result for the images of all angles as one data set.

    Returns:
        For each number: `mean` over the angles; `worst`, and `worst_at`, its angle in degrees; `best`; `spread`, best
        less worst; `together`. Angles without objects are left out.
    """
    summary = {}
    for key in NUMBERS:
        there = [(row[key], row['degrees']) for row in rows if not math.isnan(row[key])]
        worst, at = min(there, default=(math.nan, math.nan))
        best = max((value for value, _ in there), default=math.nan)
        mean = float(np.mean([value for value, _ in there])) if there else math.nan
        summary[key] = {
            'mean': mean,
            'worst': worst,
            'worst_at': at,
            'best': best,
            'spread': best - worst,
            'together': together[key],
        }
    return summary


def angle_table(report: Mapping[str, Any], *, per_class: bool = False) -> str:
    """Format the result of an evaluation over angles for a terminal.

    Args:
        report: With `angles`, rows as in `summarise_angles`, and its `summary`.
        per_class: Whether to add a column of AP50 for each class.
    """
    names = list(report['classes']) if per_class else []
    lines: list[list[str]] = [['angle', *NUMBERS.values(), 'objects', *names]]
    for row in report['angles']:
        numbers = [number(row[key]) for key in NUMBERS]
        lines.append([label(row), *numbers, str(row['objects']), *(number(row['classes'][name]) for name in names)])
    for key in ('mean', 'worst', 'spread', 'together'):
        lines.append([key, *(number(report['summary'][name][key]) for name in NUMBERS)])
    return aligned(lines, right=range(1, len(lines[0])))


def label(row: Mapping[str, Any]) -> str:
    """Name an angle, and say whether the scene was reflected."""
    return f'{row["degrees"]:g}' + (', mirrored' if row['mirrored'] else '')


def number(value: float) -> str:
    """Format an average precision; nan, without objects, is a dash."""
    return '-' if math.isnan(value) else f'{value:.3f}'
