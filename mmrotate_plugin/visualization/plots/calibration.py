"""Draw how well a calibration fits: propagated standard deviations over those of Monte Carlo."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...models.uncertainty.detector_calibration import DetectorCalibration

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ...adf.calibration import Calibration

BEFORE, AFTER = ('before calibration', '#c0504d'), ('after calibration', '#2f6fb0')


def draw_calibration(report: 'Calibration | DetectorCalibration') -> bytes:
    """Draw medians layer by layer, and those of a detector's boxes and scores, with the range of nine in ten values.

    Returns:
        A PNG file. Ratios above 2 are cut off.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    boxes = isinstance(report, DetectorCalibration)
    layers = report.layers.layers if isinstance(report, DetectorCalibration) else report.layers
    width = max(9, 1.5 + 0.13 * len(layers))
    figure = Figure(figsize=(width + 3.5, 5) if boxes else (width, 4), layout='constrained')
    FigureCanvasAgg(figure)
    grid = figure.subplots(1, 2 if boxes else 1, squeeze=False, sharey=True, width_ratios=[width, 3.5][: 1 + boxes])[0]
    held_out = layers[0].held_out_after is not None
    _curves(
        grid[0],
        [layer.name.removeprefix('model.') or '(output)' for layer in layers],
        [getattr(layer, 'held_out_before' if held_out else 'before') for layer in layers],
        [getattr(layer, 'held_out_after' if held_out else 'after') for layer in layers],
        held_out=held_out,
    )
    grid[0].set_ylim(0, 2)
    grid[0].set_ylabel('standard deviation / Monte Carlo')
    grid[0].legend(loc='upper left')
    if isinstance(report, DetectorCalibration):
        before, after = report.before, report.after
        held_out = report.held_out_before is not None and report.held_out_after is not None
        if report.held_out_before is not None and report.held_out_after is not None:
            before, after = report.held_out_before, report.held_out_after
        _curves(grid[1], report.names, before, after, held_out=held_out, joined=False)
    file = io.BytesIO()
    figure.savefig(file, format='png', dpi=100)
    return file.getvalue()


def _curves(
    axes: 'Axes',
    names: Sequence[str],
    before: Sequence[Any],
    after: Sequence[Any],
    *,
    held_out: bool,
    joined: bool = True,
) -> None:
    place = np.arange(len(names))
    for shift, ratios, (label, colour) in ((-0.12, before, BEFORE), (0.12, after, AFTER)):
        low, middle, high = np.array(ratios, dtype=float).T
        if joined:
            axes.fill_between(place, low, high, color=colour, alpha=0.2, linewidth=0)
            axes.plot(place, middle, 'o-', color=colour, markersize=3, label=label)
        else:
            axes.vlines(place + shift, low, high, color=colour, alpha=0.4, linewidth=5)
            axes.plot(place + shift, middle, 'o', color=colour, markersize=4, label=label)
    axes.axhline(1, color='black', linewidth=0.8)
    axes.set_xticks(place, names, rotation=90, fontsize=7)
    what = 'layers' if joined else 'detections'
    axes.set_title(f'{what}, images {"that were held out" if held_out else "of the fit"}', fontsize=10)
