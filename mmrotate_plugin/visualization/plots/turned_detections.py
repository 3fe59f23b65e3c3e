"""Draw how detections turn with the image: curves over the angle, and both sets of boxes on turned images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..boxes import to_polygons
from ..pixels import encode_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MATCHED, LOST, NEW, EXPECTED, GREY = '#0072B2', '#D55E00', '#CC79A7', '#ffffff', '0.45'
PANELS = (
    ('centre', 1.0, 'centre (pixels)'),
    ('size', 100.0, 'size (%)'),
    ('angle', 1.0, 'angle (degrees)'),
    ('score', 1.0, 'score'),
)
LONGEST = 800  # pixels of a picture's side
SMALLEST = {'centre': 1e-5, 'size': 1e-5, 'angle': 1e-5, 'score': 1e-8}  # in place of zero on the log scale


@dataclass(frozen=True)
class TurnPicture:
    """A turned image with two sets of boxes.

    Attributes:
        title: What stands above it.
        image: (H, W) or (H, W, C), in OpenCV's order of channels.
        expected: (N, 4) or (N, 5), boxes of the upright image, turned.
        found: (M, 4) or (M, 5), boxes of the turned image.
        lost: Indices of expected boxes without a partner.
        new: Indices of found boxes without a partner.
        shown_expected, shown_found: (N,) and (M,), whether a box counts; the others are left out.
        disc: Whether boxes count within the disc alone.
    """

    title: str
    image: NDArray[Any]
    expected: NDArray[np.float64]
    found: NDArray[np.float64]
    lost: Sequence[int]
    new: Sequence[int]
    shown_expected: NDArray[np.bool_]
    shown_found: NDArray[np.bool_]
    disc: bool


def turned_detections_figure(
    rows: Sequence[Mapping[str, Any]], pictures: Sequence[TurnPicture], *, title: str, dpi: int = 110
) -> bytes:
    """Draw what was found again and how well it fits at the left, and pictures at the right.

    Args:
        rows: As for `turned_table`; those that are mirrored are left out.
        pictures: Up to four.
        title: Title of the figure.
        dpi: Dots per inch.

    Returns:
        A PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15.5, 8.4), dpi=dpi, layout='constrained')
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 1.1))[0]
    rows = sorted((row for row in rows if not row['mirrored']), key=lambda row: row['degrees'])
    degrees = [row['degrees'] for row in rows]
    grid = left.subplots(3, 2)
    _draw_counts(grid[0, 0], degrees, rows)
    _draw_legend(grid[0, 1])
    for axis, (part, factor, name) in zip(grid[1:].ravel(), PANELS, strict=True):
        _draw_errors(axis, degrees, rows, part, factor)
        axis.set_title(f'error of {name}', fontsize=9.5, loc='left')
    for axis in (grid[0, 0], *grid[1:].ravel()):
        axis.set_xticks(range(0, 361, 90), [f'{angle}°' for angle in range(0, 361, 90)])
        axis.set_xlim(-8, 368)
        axis.grid(alpha=0.3)
        axis.tick_params(labelsize=8)
    shape = (2, 2) if len(pictures) > 2 else (1, max(1, len(pictures)))
    places = right.subplots(*shape, squeeze=False).ravel()
    for axis in places:
        axis.set_axis_off()
    for axis, picture in zip(places, pictures, strict=False):
        _draw_picture(axis, picture)
    canvas.draw()
    return encode_image(np.asarray(canvas.buffer_rgba())[..., 2::-1])


def _draw_counts(axis: 'Axes', degrees: Sequence[float], rows: Sequence[Mapping[str, Any]]) -> None:
    whole = [max(1, row['detections']) for row in rows]
    for key, colour, marker in (('matched', MATCHED, 'o'), ('lost', LOST, 'v'), ('new', NEW, '^')):
        share = [100 * row[key] / every for row, every in zip(rows, whole, strict=True)]
        axis.plot(degrees, share, '-', marker=marker, color=colour, markersize=4, linewidth=1.2)
    axis.set_ylim(bottom=-3)
    axis.set_title('% of the detections', fontsize=9.5, loc='left')


def _draw_errors(
    axis: 'Axes', degrees: Sequence[float], rows: Sequence[Mapping[str, Any]], part: str, factor: float
) -> None:
    least = SMALLEST[part]
    median, most = (
        np.maximum(factor * np.array([row[part][key] for row in rows], dtype=np.float64), least)
        for key in ('median', 'max')
    )
    there = most[np.isfinite(most)]
    axis.set_yscale('log')
    if not len(there):
        axis.set_yticks([])
        axis.text(0.5, 0.5, 'no pairs that have one', transform=axis.transAxes, ha='center', fontsize=9, color=GREY)
        return
    axis.fill_between(degrees, median, most, color=MATCHED, alpha=0.15, linewidth=0)
    axis.plot(degrees, median, 'o-', color=MATCHED, markersize=4, linewidth=1.2)
    axis.plot(degrees, most, '-', color=MATCHED, linewidth=0.8, alpha=0.7)
    axis.set_ylim(min(np.nanmin(median) / 3, there.max() / 20), 3 * there.max())


def _draw_legend(axis: 'Axes') -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Line2D([], [], color=MATCHED, marker='o', markersize=5, label='matched; boxes and errors of pairs (median)'),
        Patch(color=MATCHED, alpha=0.15, label='up to the largest error'),
        Line2D([], [], color=LOST, marker='v', markersize=5, label='lost: on the image, not on the turned one'),
        Line2D([], [], color=NEW, marker='^', markersize=5, label='new: on the turned image alone'),
        Line2D([], [], color='0.6', linestyle='--', label='dashed: boxes of the image, turned'),
    ]
    axis.set_axis_off()
    axis.legend(handles=handles, fontsize=8.5, loc='center left', frameon=False, borderaxespad=0)


def _draw_picture(axis: 'Axes', picture: TurnPicture) -> None:
    from matplotlib.patches import Circle, Polygon

    image = _as_rgb(picture.image)
    h, w = image.shape[:2]
    scale = min(1.0, LONGEST / max(h, w))
    if scale < 1:
        image = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    axis.imshow(image, extent=(0, w, h, 0))  # boxes count from the corner of the first pixel
    for i in np.flatnonzero(picture.shown_expected).tolist():
        corners = to_polygons(picture.expected[i : i + 1])[0]
        colour = LOST if i in picture.lost else EXPECTED
        axis.add_patch(Polygon(corners, fill=False, edgecolor=colour, linewidth=1.3, linestyle='--', zorder=4))
    for i in np.flatnonzero(picture.shown_found).tolist():
        corners = to_polygons(picture.found[i : i + 1])[0]
        colour = NEW if i in picture.new else MATCHED
        axis.add_patch(Polygon(corners, fill=False, edgecolor=colour, linewidth=1.6, zorder=3))
    if picture.disc:
        axis.add_patch(Circle((w / 2, h / 2), min(h, w) / 2, fill=False, edgecolor=GREY, linewidth=0.8))
    axis.set_xlim(0, w)
    axis.set_ylim(h, 0)
    axis.set_title(picture.title, fontsize=9.5)


def _as_rgb(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Show the first three bands, or the first as grey; other depths than 8 bit by their range."""
    bands = np.atleast_3d(image)
    bands = bands[..., 2::-1] if bands.shape[2] >= 3 else bands[..., :1].repeat(3, axis=2)
    if bands.dtype != np.uint8:
        low, high = float(bands.min()), float(bands.max())
        bands = ((bands.astype(np.float64) - low) * (255 / (high - low or 1))).astype(np.uint8)
    return np.ascontiguousarray(bands)
