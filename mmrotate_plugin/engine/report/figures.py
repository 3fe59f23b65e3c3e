"""Name and draw the figures of a report."""

from collections.abc import Iterator, Mapping
from typing import Any

from ...visualization.plots.report_counts import confusion_figure, groups_figure
from ...visualization.plots.report_curves import (
    class_curves_figure,
    lines_figure,
    quantile_figure,
    reliability_figure,
)

MOST = 10  # curves in a figure
GROUPS = {'size': 'size', 'aspect_ratio': 'aspect ratio', 'angle': 'angle'}


def training_figures(training: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, bytes]]:
    """Yield file names and PNG files: losses, learning rates, precisions, equivariance errors; those that exist."""
    train, val = training['train'], training['val']
    chosen = {
        'training_loss': ({name: curve for name, curve in train.items() if 'loss' in name}, 'Losses', 'loss', True),
        'training_lr': (
            {name: curve for name, curve in train.items() if name in ('lr', 'base_lr') or name.endswith('/lr')},
            'Learning rate',
            '',
            False,
        ),
        'training_map': (
            {name: curve for name, curve in val.items() if 'AP' in name or 'accuracy' in name or 'IoU' in name},
            'Validation',
            '',
            False,
        ),
        'training_equivariance': (
            dict(training['equivariance']),
            'Equivariance error (map, degrees)',
            'relative error',
            True,
        ),
    }
    for name, (curves, title, y, log) in chosen.items():
        if name == 'training_lr' and len(curves) == 2 and curves['lr'] == curves.get('base_lr'):
            curves = {'lr': curves['lr']}
        if curves:
            points = {key: (curve['step'], curve['value']) for key, curve in list(curves.items())[:MOST]}
            marker = 'o' if name in ('training_map', 'training_equivariance') else ''
            yield f'{name}.png', lines_figure(points, title=title, x='iteration', y=y, log=log, marker=marker)


def evaluation_figures(name: str, numbers: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Yield file names, which begin with `name`, and PNG files of `measure_detections`."""
    classes = [row for row in numbers['classes'] if row['objects']]
    best, iou = numbers['best'], f'overlap of {numbers["iou_thr"]:g} or more'
    curve = numbers['curve']
    yield (
        f'{name}_precision_recall.png',
        class_curves_figure(
            {row['name']: (row['curve']['recall'], row['curve']['precision']) for row in classes},
            (curve['recall'], curve['precision']),
            title=f'Precision and recall, {iou}',
            x='recall',
            y='precision',
            mark=(best['recall'], best['precision'], f'best F1, score {best["threshold"]:.2f}'),
        ),
    )
    yield (
        f'{name}_f1.png',
        class_curves_figure(
            {row['name']: (row['curve']['threshold'], row['curve']['f1']) for row in classes},
            (curve['threshold'], curve['f1']),
            title=f'F1 over the threshold, {iou}',
            x='lowest score that counts',
            y='F1',
            mark=(best['threshold'], best['f1'], f'{best["f1"]:.2f} at {best["threshold"]:.2f}'),
        ),
    )
    yield (
        f'{name}_confusion.png',
        confusion_figure(
            numbers['confusion'],
            [row['name'] for row in numbers['classes']],
            title=f'Confusion, score {numbers["score_thr"]:.2f} or more',
        ),
    )
    for group, title in GROUPS.items():
        yield f'{name}_by_{group}.png', groups_figure(group, numbers['groups'][group], title=f'Errors by {title}')
    if numbers['scores'] and numbers['detections']:
        title = f'Calibration of scores, error {numbers["scores"]["error"]:.3f}'
        yield f'{name}_scores.png', reliability_figure(numbers['scores']['bins'], title=title)
    if numbers['boxes']:
        found = {row['name']: row['found'] for row in numbers['boxes']['coordinates']}
        title = f'Calibration of boxes, {numbers["boxes"]["pairs"]:,} pairs'
        yield f'{name}_boxes.png', quantile_figure(numbers['boxes']['levels'], found, title=title)
