"""Draw average precision over the angle of the scene, for one detector or several."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...structures.turns import turn_matrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito, Color Universal Design, 2008: told apart by all kinds of eyes
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#444444')
MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X')
INK, FAINT = '#222222', '#8a8a8a'
SHIP = ((-1.0, -0.32), (0.45, -0.32), (1.0, 0.0), (0.45, 0.32), (-1.0, 0.32))  # heading along x, before its turn
LINE = 0.105  # of the axis: least distance of two labels at the right
SHIPS = 13  # most of them below the axis


@dataclass(frozen=True)
class Curve:
    """Average precision of a detector over angles.

    Attributes:
        name: What the label says.
        degrees: (N,) angles.
        values: (S, N), one row for each training run; the mean is drawn, and the range as a band.
        mirrored: Whether the scenes were reflected; drawn dashed.
    """

    name: str
    degrees: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]
    mirrored: bool = False


def angle_figure(
    curves: Sequence[Curve], *, title: str = '', quantity: str = 'mAP@0.5', clockwise: bool = False, dpi: int = 130
) -> bytes:
    """Draw curves of average precision over the angle, each with its mean and its worst angle in its label.

    Args:
        curves: What to draw, the first on top.
        title: Title of the figure.
        quantity: Label of the vertical axis.
        clockwise: Whether angles are those of scenes drawn clockwise; it is the way the ships below the axis turn.
        dpi: Dots per inch.

    Returns:
        A PNG file.

    Raises:
        ValueError: If there is no curve.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not curves:
        raise ValueError('curves is empty: give one or more')
    figure = Figure(figsize=(9.2, 4.6), dpi=dpi, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    names = list(dict.fromkeys(curve.name for curve in curves))
    ends = []
    for depth, curve in enumerate(curves):
        number = names.index(curve.name)
        ends.append(_draw(axes, curve, number, zorder=20 - depth))
    angles = sorted({angle for curve in curves for angle in curve.degrees})
    _set_axes(axes, angles, quantity)
    _label_ends(axes, curves, names, ends)
    _ships(axes, angles, clockwise)
    if title:
        axes.set_title(title, fontsize=12, color=INK, loc='left', pad=10)
    file = io.BytesIO()
    figure.savefig(file, format='png', metadata={'Software': None})
    return file.getvalue()


def _draw(axes: 'Axes', curve: Curve, number: int, zorder: float) -> float:
    """Draw one curve; return where it ends."""
    values = np.array(curve.values, dtype=np.float64)
    mean = values.mean(0)
    colour = COLOURS[number % len(COLOURS)]
    if len(values) > 1:
        axes.fill_between(
            curve.degrees, values.min(0), values.max(0), color=colour, alpha=0.16, linewidth=0, zorder=zorder - 0.5
        )
    axes.plot(
        curve.degrees,
        mean,
        '--' if curve.mirrored else '-',
        marker=MARKERS[number % len(MARKERS)],
        color=colour,
        linewidth=2,
        markersize=5.5,
        markeredgecolor='white',
        markeredgewidth=0.8,
        zorder=zorder,
        clip_on=False,
    )
    there = mean[np.isfinite(mean)]
    return float(there[-1]) if len(there) else 0.0


def _set_axes(axes: 'Axes', angles: Sequence[float], quantity: str) -> None:
    low, high = min(angles), max(angles)
    room = 0.03 * (high - low) or 1.0
    axes.set_xlim(low - room, high + room)
    axes.set_ylim(0, 1)
    axes.set_yticks(np.arange(0, 1.01, 0.2))
    shown = angles if len(angles) <= SHIPS else angles[:: -(-len(angles) // SHIPS)]
    axes.set_xticks(shown, [f'{angle:g}°' for angle in shown])
    axes.grid(axis='y', color='0.9', linewidth=0.9)
    axes.set_axisbelow(True)
    for side in ('top', 'right', 'left'):
        axes.spines[side].set_visible(False)
    axes.spines['bottom'].set_color('0.6')
    axes.tick_params(length=0, labelsize=9.5, colors=INK)
    axes.set_ylabel(quantity, fontsize=11, color=INK)
    axes.set_xlabel('angle of the scene', fontsize=11, color=INK, labelpad=34)


def _label_ends(axes: 'Axes', curves: Sequence[Curve], names: Sequence[str], ends: Sequence[float]) -> None:
    """Write the names at the right, in the order of the curves' ends, moved apart where they would overlap."""
    order = sorted(range(len(curves)), key=lambda i: ends[i])
    places = [max(end, 0.03) for end in (ends[i] for i in order)]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + LINE)
    excess = max(0.0, places[-1] - 0.99)
    for i in range(len(places) - 1, -1, -1):
        places[i] = min(places[i], 0.99 - LINE * (len(places) - 1 - i)) if excess else places[i]
    for i, place in zip(order, places, strict=True):
        curve = curves[i]
        mean = np.array(curve.values, dtype=np.float64).mean(0)
        colour = COLOURS[names.index(curve.name) % len(COLOURS)]
        text = f'{curve.name}{", mirrored" if curve.mirrored else ""}'
        _beside(axes, text, place, 5, color=colour, fontsize=10, weight='bold')
        if np.isfinite(mean).any():
            _beside(
                axes, f'mean {np.nanmean(mean):.2f}, worst {np.nanmin(mean):.2f}', place, -7, color=INK, fontsize=8.5
            )


def _beside(axes: 'Axes', text: str, place: float, above: float, **font: Any) -> None:
    """Write a text at the right of the axes, so many points above a value of the vertical axis."""
    axes.annotate(
        text,
        (1.0, place),
        (8, above),
        xycoords=('axes fraction', 'data'),
        textcoords='offset points',
        annotation_clip=False,
        va='center',
        **font,
    )


def _ships(axes: 'Axes', angles: Sequence[float], clockwise: bool) -> None:
    """Draw a small ship below each tick, turned as the scene is."""
    from matplotlib.transforms import ScaledTranslation

    assert axes.figure is not None
    place = axes.get_xaxis_transform() + ScaledTranslation(0, -30 / 72, axes.figure.dpi_scale_trans)
    for angle in angles if len(angles) <= SHIPS else angles[:: -(-len(angles) // SHIPS)]:
        linear = turn_matrix(-angle if clockwise else angle, (1, 1))[:2, :2]
        outline = (np.array(SHIP) @ linear.T) * (1, -1)  # the page's y points up
        axes.plot(
            [angle],
            [0],
            marker=outline.tolist(),
            markersize=19 * np.abs(outline).max(),  # points; a marker is scaled to this size whatever its outline is
            markerfacecolor='0.8',
            markeredgecolor=FAINT,
            markeredgewidth=0.8,
            transform=place,
            clip_on=False,
        )
