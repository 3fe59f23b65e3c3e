"""Draw an equivariance check: error against angle, and feature maps of an image and of its rotation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..pixels import encode_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SMALLEST = 1e-8  # in place of zero on the log scale; below the noise of float32


@dataclass(frozen=True)
class PanelRow:
    """One row of maps: the input, the map of the image, and the map of the turned image, turned back.

    Attributes:
        label: Name of the row.
        image: (H, W, 3) in [0, 1], turned as the network saw it.
        before, after: (h, w) maps that agree where the network is equivariant.
        error: Relative error, written above their difference.
        change: Relative change of the map under the turn itself, written there too; NaN where it is not defined.
    """

    label: str
    image: NDArray[np.floating]
    before: NDArray[np.floating]
    after: NDArray[np.floating]
    error: float
    change: float


def equivariance_figure(
    degrees: Sequence[float],
    errors: Mapping[str, Sequence[float]],
    plain: Mapping[str, Sequence[float]],
    rows: Sequence[PanelRow],
    *,
    title: str,
    tolerance: float | None = None,
    dpi: int = 110,
) -> bytes:
    """Draw the errors of each map over the circle at the left, and rows of maps at the right.

    Args:
        degrees: Angles.
        errors: For each map, one error per angle.
        plain: The same for a network to compare with, drawn dashed in the colours of `errors`.
        rows: Maps to show.
        title: Title of the figure.
        tolerance: Error to mark by a line.
        dpi: Dots per inch.

    Returns:
        A PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = max(4.8, 1.95 * len(rows) + 0.9)
    figure = Figure(figsize=(15.5 if rows else 7.5, height), dpi=dpi, layout='constrained')
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 1.15))[0] if rows else (figure, None)
    _draw_curves(left.subplots(), degrees, errors, plain, tolerance)
    if right is not None:
        axes = right.subplots(len(rows), 4, squeeze=False)
        for line, row in zip(axes, rows, strict=True):
            _draw_row(line, row)
        for axis, head in zip(
            axes[0], ('input, turned', 'map of the image', 'map of the turned\nimage, turned back', ''), strict=True
        ):
            axis.set_title('\n'.join(filter(None, (head, axis.get_title()))), fontsize=9)
    canvas.draw()  # `savefig` would draw twice
    return encode_image(np.asarray(canvas.buffer_rgba())[..., 2::-1])


def _draw_curves(
    axis: 'Axes',
    degrees: Sequence[float],
    errors: Mapping[str, Sequence[float]],
    plain: Mapping[str, Sequence[float]],
    tolerance: float | None,
) -> None:
    for i, (name, values) in enumerate(errors.items()):
        axis.plot(degrees, _on_log_scale(values), 'o-', color=f'C{i}', markersize=4, linewidth=1.2, label=name)
    for i, name in enumerate(errors):
        if name in plain:
            axis.plot(
                degrees,
                _on_log_scale(plain[name]),
                's--',
                color=f'C{i}',
                markersize=3,
                linewidth=1,
                alpha=0.6,
                label=f'{name}, plain ResNet',
            )
    if tolerance is not None:
        axis.axhline(tolerance, color='0.4', linewidth=0.8, linestyle=':')
        axis.text(0, tolerance * 1.15, ' tolerance of quarter turns', fontsize=8, color='0.4', va='bottom')
    axis.set_yscale('log')
    axis.set_ylim(SMALLEST / 1.5, 4)
    axis.set_xticks(range(0, 361, 45))
    axis.set_xlim(-8, 368)
    axis.set_xlabel('angle (degrees, counter-clockwise)')
    axis.set_ylabel('relative equivariance error')
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, ncols=2, loc='upper center', bbox_to_anchor=(0.5, -0.11), frameon=False)


def _on_log_scale(values: Sequence[float]) -> NDArray[np.float64]:
    """Replace zero by the smallest value shown, and infinite errors (maps of other shapes) by a gap."""
    errors = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(errors), np.maximum(errors, SMALLEST), np.nan)


def _draw_row(axes: 'Sequence[Axes]', row: PanelRow) -> None:
    low, high = float(row.before.min()), float(row.before.max())
    axes[0].imshow(np.clip(row.image, 0, 1))
    axes[0].set_ylabel(row.label, fontsize=9)
    axes[1].imshow(row.before, vmin=low, vmax=high, cmap='viridis')
    axes[2].imshow(row.after, vmin=low, vmax=high, cmap='viridis')
    axes[3].imshow(np.abs(row.after - row.before), vmin=0, vmax=high - low or 1, cmap='magma')
    change = f', change {row.change:.2f}' if np.isfinite(row.change) else ''
    axes[3].set_title(f'difference\nerror {row.error:.1e}{change}', fontsize=9)
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
