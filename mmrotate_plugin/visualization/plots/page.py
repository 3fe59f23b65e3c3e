"""Draw kernels, bars, lines and texts onto a white page that grows downwards."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

WIDTH = 1000  # of a page; all lengths are in this unit, about a pixel of a screen
DOTS = 150  # dots of the file per 100 units
MARGIN = 24
# an odd number of colours, so that zero has one: white
SIGNED = LinearSegmentedColormap.from_list('signed', ['#053061', '#4393c3', '#ffffff', '#d6604d', '#67001f'], N=257)
INK, FAINT, MARK = '#222222', '#8a8a8a', '#1a7f37'

Array = NDArray[np.floating]
Colour = str | tuple[float, float, float, float]


class Page:
    """A white page of fixed width that grows downwards.

    Attributes:
        height: Height of what is drawn so far, in units of a page that is `WIDTH` wide.
    """

    def __init__(self) -> None:
        self.height: float = MARGIN
        self._figure = Figure(dpi=DOTS)
        FigureCanvasAgg(self._figure)
        self._axes = self._figure.add_axes((0, 0, 1, 1))
        self._axes.set_axis_off()

    def kernel(self, x: float, y: float, size: float, kernel: Array, limit: float, frame: str = FAINT) -> None:
        """Draw a (k, k) kernel in the square from (x, y); `limit` is the value of the darkest red."""
        self.image(x, y, size, size, kernel, limit)
        self.frame(x, y, size, frame)

    def frame(self, x: float, y: float, size: float, colour: str = FAINT) -> None:
        """Draw the outline of a square, thick unless it is faint."""
        width = 0.6 if colour == FAINT else 2.2
        self._axes.add_patch(Rectangle((x, y), size, size, fill=False, edgecolor=colour, linewidth=width, zorder=3))

    def image(self, x: float, y: float, width: float, height: float, image: Array, limit: float) -> None:
        """Draw an array of numbers, pixel by pixel, into a rectangle."""
        extent = (x, x + width, y + height, y)
        limit = limit or 1.0  # all zero: white
        self._axes.imshow(image, cmap=SIGNED, vmin=-limit, vmax=limit, extent=extent, interpolation='nearest')

    def bar(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        """Fill a rectangle."""
        self._axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, linewidth=0))

    def line(self, x: Sequence[float], y: Sequence[float], colour: str = FAINT) -> None:
        """Draw a thin line through points."""
        self._axes.plot(x, y, color=colour, linewidth=0.8, solid_capstyle='butt')

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float = 15,
        colour: str = INK,
        *,
        across: str = 'center',
        bold: bool = False,
    ) -> None:
        """Write a text, centred vertically at y; `size` is the height of its letters' body."""
        weight = 'bold' if bold else 'normal'
        self._axes.text(
            x, y, text, fontsize=size * 0.72, color=colour, ha=across, va='center', weight=weight, linespacing=1.35
        )

    def title(self, title: str, explanation: str) -> None:
        """Write a headline and an explanation of one or two lines, and move `height` below them."""
        if self.height == MARGIN:
            self._legend(WIDTH - MARGIN - 170, self.height)
        self.text(MARGIN, self.height + 10, title, 20, across='left', bold=True)
        lines = explanation.count('\n') + 1
        self.text(MARGIN, self.height + 26 + 11 * lines, explanation, 15, across='left')
        self.height += 26 + 22 * lines + 12

    def _legend(self, x: float, y: float) -> None:
        self.image(x + 25, y + 4, 120, 12, np.linspace(-1, 1, 9)[None], 1)
        self.text(x + 12, y + 10, '\N{MINUS SIGN}', 16)
        self.text(x + 158, y + 10, '+', 16)
        self.text(x + 85, y + 26, '0', 14)

    def png(self) -> bytes:
        """Return the page as a PNG file."""
        self._axes.set(xlim=(0, WIDTH), ylim=(self.height, 0), aspect='auto')
        self._figure.set_size_inches(WIDTH / 100, self.height / 100)
        stream = io.BytesIO()
        self._figure.savefig(stream, format='png', metadata={'Software': None})
        return stream.getvalue()
