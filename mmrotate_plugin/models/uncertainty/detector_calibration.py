"""Fit what brings a detector's propagated uncertainty to that of noisy images: gains of its layers and of its boxes."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...adf import Gaussian
from ...adf.calibration import Calibration, Ratio, calibrate, percentiles
from ...adf.gains import gain_noise, gain_rule, remove_gains, set_origin
from ...adf.input_noise import expand_noise
from ...adf.progress import track
from .data_samples import values_of
from .head_trace import Trace
from .linearization import Linearization

if TYPE_CHECKING:
    from ..detectors.uncertain_detector import UncertainDetector

COLUMNS = {4: ('x1', 'y1', 'x2', 'y2'), 5: ('x', 'y', 'w', 'h', 'angle')}
FEWEST = 8  # detections that the gains of boxes are fitted to


class TooFewDetections(ValueError):
    """Images without enough detections to fit the gains of boxes to."""


@dataclass(frozen=True)
class DetectorCalibration:
    """What `calibrate_detector` did; `str` makes tables of it.

    Attributes:
        layers: Of backbone, neck and head.
        names: Of the columns: coordinates of the box, and 'score'.
        gains: Of their variances.
        before, after: Standard deviation over that of Monte Carlo, on the images of the fit, of the last step alone.
        held_out_before, held_out_after: On other images, without and with all gains; None if there are none.
        num_detections: That the gains of boxes were fitted to.
    """

    layers: Calibration
    names: tuple[str, ...]
    gains: tuple[float, ...]
    before: tuple[Ratio, ...]
    after: tuple[Ratio, ...]
    held_out_before: tuple[Ratio, ...] | None
    held_out_after: tuple[Ratio, ...] | None
    num_detections: int

    def as_dict(self) -> dict[str, Any]:
        """Numbers and texts, for JSON."""
        rows = [
            {
                'name': name, 'gain': gain, 'before': before._asdict(), 'after': after._asdict(),
                'held_out_before': self.held_out_before and self.held_out_before[i]._asdict(),
                'held_out_after': self.held_out_after and self.held_out_after[i]._asdict(),
            }
            for i, (name, gain, before, after) in enumerate(
                zip(self.names, self.gains, self.before, self.after, strict=True)
            )
        ]  # fmt: skip
        return {**self.layers.as_dict(), 'detections': rows, 'num_detections': self.num_detections}

    def __str__(self) -> str:
        rows = [['detections', 'gain', 'before', 'after']]
        rows[0] += ['before, other images', 'after, other images'] if self.held_out_after else []
        for i, name in enumerate(self.names):
            others = (self.held_out_before, self.held_out_after) if self.held_out_after else ()
            ratios = [part[i] for part in (self.before, self.after, *others)]
            rows.append([name, f'{self.gains[i]:.2f}', *map(str, ratios)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = '\n'.join('  '.join(map(str.ljust, row, widths)).rstrip() for row in rows)
        return f'{self.layers}\n\n{table}'


@torch.no_grad()
def calibrate_detector(
    model: 'UncertainDetector',
    inputs: Tensor,
    samples: Sequence[Any],
    noise_variance: float | Sequence[float],
    *,
    num_held_out: int = 0,
    num_samples: int = 128,
    share: int = 1,
    min_score: float = 0.1,
    seed: int = 0,
    progress: bool | None = None,
) -> DetectorCalibration:
    """Fit gains of all layers, and of the coordinates of boxes and the scores; leave them in the model.

    The layers are fitted by `adf.calibrate`. What is left afterwards is the covariance between the raw outputs of one
    detection, such as the distances to two opposite edges; one factor for each coordinate, the median of Monte Carlo's
    variance over the propagated one, makes up for it. The gains are buffers that go with the state dict.

    Args:
        model: With method='propagated'.
        inputs: Normalised images without padding, (B, C, H, W).
        samples: Data samples with `img_shape` and what else the heads ask for; the last are held out.
        noise_variance: In squared units of the normalised image, a number or one per channel.
        num_held_out: Images at the end that are not used for the fit, but reported.
        num_samples: Monte Carlo's passes.
        share: See `adf.calibrate`; the order of an equivariant detector's group.
        min_score: Detections that count in the fit of boxes.
        seed: Of the noise.
        progress: None shows a bar where stderr is a terminal, True always, False never.

    Raises:
        TooFewDetections: If there are too few with `min_score`.
        ValueError: What `adf.calibrate` refuses.
    """
    fitted = len(inputs) - num_held_out
    if fitted < 1:
        raise ValueError(f'num_held_out={num_held_out} leaves none of {len(inputs)} images for the fit')
    remove_gains(model)
    model.set_detection_gain(None)
    model.set_detection_error(None)  # of deviations under other gains
    variance = expand_noise(noise_variance, inputs)
    parts = [slice(0, fitted)] + ([slice(fitted, None)] if num_held_out else [])
    found = [
        _Found(model, inputs[part], samples[part], variance[part], num_samples, seed, min_score, fewest, progress)
        for part, fewest in zip(parts, (FEWEST, 0), strict=False)
    ]
    raw = _RawOutputs(model, inputs[:fitted], samples[:fitted])
    before = [part.ratios(model) for part in found]
    with model.propagating():
        layers = calibrate(
            raw, inputs[:fitted], noise_variance, num_samples=num_samples, share=share, plain=raw.plain, seed=seed,
            progress=progress,
        )  # fmt: skip
    noise, rule = gain_noise(raw), gain_rule(raw)
    assert noise is not None and rule is not None
    set_origin(model, noise, rule)
    middle = found[0].ratios(model)
    # a coordinate that no detection moves (all are clipped to the image) keeps a gain of 1
    moving = middle.where(middle.isfinite() & (middle > 0), torch.nan)
    gains = moving.nanmedian(0).values.square().reciprocal().nan_to_num(1.0)
    model.set_detection_gain(gains)
    after = [part.ratios(model) for part in found]
    boxes = len(gains) - 1
    return DetectorCalibration(
        layers, (*COLUMNS.get(boxes, map(str, range(boxes))), 'score'), tuple(gains.tolist()),
        _columns(middle), _columns(after[0]),
        _columns(before[1]) if num_held_out else None, _columns(after[1]) if num_held_out else None,
        len(found[0].truth),
    )  # fmt: skip


def _columns(ratios: Tensor) -> tuple[Ratio, ...]:
    return tuple(percentiles(column[column.isfinite()]) for column in ratios.T)


class _Found:
    """Detections of some images, and their variance by Monte Carlo."""

    def __init__(
        self,
        model: 'UncertainDetector',
        inputs: Tensor,
        samples: Any,
        variance: Tensor,
        passes: int,
        seed: int,
        least: float,
        fewest: int,
        progress: bool | None,
    ) -> None:
        self.inputs, self.samples, self.variance = inputs, samples, variance
        found, outputs, line = model.linearize(inputs, variance, copy.deepcopy(samples), propagated=False)
        self.certain = values_of(found)[:, -1] >= least
        count = int(self.certain.sum())
        if count < fewest:
            raise TooFewDetections(
                f'{count} detections with a score from {least} on are too few for the fit: give more images, or images '
                'with objects that the detector finds'
            )
        rounds = track(passes, 'Monte Carlo, boxes', progress)
        self.truth = model.sampled(inputs, variance, samples, line, outputs, rounds, seed)[self.certain]

    def ratios(self, model: 'UncertainDetector') -> Tensor:
        """Standard deviations over those of Monte Carlo, (N, D)."""
        line: Linearization
        _, outputs, line = model.linearize(self.inputs, self.variance, copy.deepcopy(self.samples), propagated=True)
        return (model.detection_variance(line, outputs)[self.certain] / self.truth).sqrt()


class _RawOutputs(nn.Module):
    """The detector as a function from images to the outputs of its heads, for the regions of the images as they are."""

    def __init__(self, model: 'UncertainDetector', inputs: Tensor, samples: Any) -> None:
        super().__init__()
        self.model = model
        self.samples = samples
        self.traces: dict[int, Trace] = {}
        for size in {1, len(inputs)}:  # the fit looks at one image first
            self.traces[size] = Trace(model.detector)
            with model.plain():
                self.traces[size].detect(inputs[:size], copy.deepcopy(samples[:size]), False, end_to_end=False)

    def forward(self, x: Tensor | Gaussian) -> list[Tensor | Gaussian]:
        return self.traces[len(x)].outputs(x, self.samples[: len(x)])

    def plain(self, x: Tensor) -> list[Tensor]:
        with self.model.plain():
            return self(x)
