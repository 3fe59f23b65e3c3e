"""Report a calibration: ratios of standard deviations before and after, as a table or as JSON."""

from dataclasses import dataclass, fields
from typing import Any, NamedTuple


class Ratio(NamedTuple):
    """Standard deviation by the rules over that by Monte Carlo: 1 is right, less is overconfident.

    Attributes:
        low: 5th percentile over the values of a layer.
        median: Median.
        high: 95th percentile.
    """

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        return f'{self.median:.2f} ({self.low:.2f} to {self.high:.2f})'


@dataclass(frozen=True)
class LayerReport:
    """A module before and after calibration.

    Attributes:
        name: As in `named_modules`; '' is the model itself.
        channels: Number of output channels.
        gains: Smallest and largest gain; None if the module needs none.
        before, after: Ratios on the images of the fit.
        held_out_before, held_out_after: Ratios on the held-out images; None without any.
    """

    name: str
    channels: int
    gains: tuple[float, float] | None
    before: Ratio
    after: Ratio
    held_out_before: Ratio | None = None
    held_out_after: Ratio | None = None


@dataclass(frozen=True)
class Calibration:
    """The result of `calibrate`; `str` formats it as a table.

    Attributes:
        layers: The modules whose output has a variance, in the order of their calls.
        noise_variance: Noise variance of the input: one number, or one per channel.
        num_images: Number of images of the fit.
        num_samples: Number of Monte Carlo passes. Each ratio has a statistical error of 1 / sqrt(2 num_samples).
    """

    layers: tuple[LayerReport, ...]
    noise_variance: tuple[float, ...]
    num_images: int
    num_samples: int

    def as_dict(self) -> dict[str, Any]:
        """Return numbers and texts, for JSON."""
        return {
            'noise_variance': list(self.noise_variance),
            'num_images': self.num_images,
            'num_samples': self.num_samples,
            'layers': [
                {field.name: _as_json(getattr(layer, field.name)) for field in fields(layer)} for layer in self.layers
            ],
        }

    def __str__(self) -> str:
        held_out = any(layer.held_out_after is not None for layer in self.layers)
        rows = [['layer', 'channels', 'gains', 'before', 'after', 'before, other images', 'after, other images']]
        for layer in self.layers:
            gains = '-' if layer.gains is None else f'{layer.gains[0]:.2f} to {layer.gains[1]:.2f}'
            ratios = (layer.before, layer.after, layer.held_out_before, layer.held_out_after)
            rows.append([layer.name or '(output)', str(layer.channels), gains, *map(str, ratios)])
        rows = [row if held_out else row[:5] for row in rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return '\n'.join('  '.join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _as_json(value: Any) -> Any:
    return value._asdict() if isinstance(value, Ratio) else value
