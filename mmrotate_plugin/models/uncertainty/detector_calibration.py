"""Calibrate a detector's propagated uncertainty on noisy images: fit gains of its layers, boxes and scores."""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...adf import Gaussian
from ...adf.calibration import Calibration, Ratio, calibrate, percentiles
from ...adf.gains import gain_noise, gain_rule, remove_gains, set_origin
from ...adf.input_noise import expand_noise
from ...adf.mc_dropout import Running
from ...adf.progress import track
from ...utils.errors import InputError
from . import methods
from .contexts import without_variance
from .data_samples import values_of
from .head_trace import Trace

if TYPE_CHECKING:
    from ..detectors.uncertain_detector import UncertainDetector

COLUMNS = {4: ('x1', 'y1', 'x2', 'y2'), 5: ('x', 'y', 'w', 'h', 'angle')}
FEWEST = 8  # detections needed to fit the gains of boxes


class TooFewDetections(InputError, ValueError):
    """The images have too few detections to fit the gains of boxes."""


@dataclass(frozen=True)
class DetectorCalibration:
    """Report of `calibrate_detector`; `str` lays it out as tables.

    Attributes:
        layers: Calibration of backbone, neck and head.
        names: Names of the columns: coordinates of the box, and 'score'.
        gains: Factors of the variances of the columns.
        before, after: Standard deviation divided by that of Monte Carlo on the images of the fit, for the last step
            alone.
        held_out_before, held_out_after: The same on other images, without and with all gains; None without such images.
        num_detections: Number of detections that the gains of boxes were fitted to.
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
        """Return numbers and texts, for JSON."""
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
    """Fit gains of all layers, of the coordinates of boxes, and of the scores; leave them in the model.

    `adf.calibrate` fits the layers. What remains is the covariance between the raw outputs of one detection, such as
    the distances to two opposite edges. One factor for each coordinate corrects for it: the median of Monte Carlo's
    variance divided by the propagated one. The gains are buffers of the state dict. Gains and errors of an earlier
    calibration are forgotten.

    Args:
        model: With method='propagated'.
        inputs: Normalised images without padding, (B, C, H, W).
        samples: Data samples with `img_shape` and what else the heads read, one per image.
        noise_variance: In squared units of the normalised image, a number or one per channel.
        num_held_out: Images at the end that are left out of the fit, and reported apart.
        num_samples: Passes of Monte Carlo.
        share: See `adf.calibrate`; the order of an equivariant detector's group.
        min_score: Least score of a detection that counts in the fit of boxes.
        seed: Seed of the noise.
        progress: None shows a bar if stderr is a terminal, True always, False never.

    Returns:
        What was fitted, and how well it fits.

    Raises:
        TooFewDetections: If fewer than 8 detections have `min_score`.
        ValueError: If no image is left for the fit, or `adf.calibrate` refuses an argument.
    """
    fitted = len(inputs) - num_held_out
    if fitted < 1:
        raise ValueError(f'num_held_out={num_held_out} leaves none of {len(inputs)} images for the fit')
    remove_gains(model)
    model.set_detection_gain(None)
    model.set_detection_error(None)  # it was fitted to deviations under other gains
    variance = expand_noise(noise_variance, inputs)
    mine, others = slice(0, fitted), slice(fitted, None)
    found = [_Found(model, inputs[mine], samples[mine], variance[mine], min_score, FEWEST)]
    before = None
    if num_held_out:
        found.append(_Found(model, inputs[others], samples[others], variance[others], min_score, 0))
        found[1].sample(model, track(num_samples, 'Monte Carlo, other images', progress), seed)
        before = found[1].ratios(model)
    raw = _RawOutputs(model, inputs[mine], samples[mine], found[0].add)
    with model.propagating():
        layers = calibrate(
            raw, inputs[mine], noise_variance, num_samples=num_samples, share=share, plain=raw.plain, seed=seed,
            progress=progress,
        )  # fmt: skip
    noise, rule = gain_noise(raw), gain_rule(raw)
    assert noise is not None and rule is not None
    set_origin(model, noise, rule)
    middle = found[0].ratios(model)
    # a coordinate that does not move (all boxes are clipped to the image) keeps a gain of 1
    moving = middle.where(middle.isfinite() & (middle > 0), torch.nan)
    gains = moving.nanmedian(0).values.square().reciprocal().nan_to_num(1.0)
    model.set_detection_gain(gains)
    after = [part.ratios(model) for part in found]
    boxes = len(gains) - 1
    return DetectorCalibration(
        layers, (*COLUMNS.get(boxes, map(str, range(boxes))), 'score'), tuple(gains.tolist()),
        _columns(middle), _columns(after[0]),
        None if before is None else _columns(before), _columns(after[1]) if num_held_out else None,
        len(found[0].truth),
    )  # fmt: skip


def _columns(ratios: Tensor) -> tuple[Ratio, ...]:
    return tuple(percentiles(column[column.isfinite()]) for column in ratios.T)


class _Found:
    """Detections in some images, and their variance by Monte Carlo."""

    def __init__(
        self, model: 'UncertainDetector', inputs: Tensor, samples: Any, variance: Tensor, least: float, fewest: int
    ) -> None:
        self.inputs, self.samples, self.variance = inputs, samples, variance
        found, outputs, self.line = model.linearize(inputs, variance, copy.deepcopy(samples), propagated=False)
        self.middle = [value for value, _ in outputs]
        self.moments = Running()
        self.certain = values_of(found)[:, -1] >= least
        count = int(self.certain.sum())
        if count < fewest:
            raise TooFewDetections(
                f'{count} detections with a score of at least {least} are too few for the fit: give more images, or '
                'images with objects that the detector finds'
            )

    def sample(self, model: 'UncertainDetector', passes: Iterable[int], seed: int) -> None:
        """Estimate the variance from passes of their own."""
        for noisy in methods.noisy_outputs(model.trace, self.inputs, self.variance, self.samples, passes, seed):
            self.add(noisy)

    def add(self, noisy: Sequence[Tensor]) -> None:
        """Count one pass over noisy images, by the outputs of its heads."""
        self.moments.add(self.line([value - middle for value, middle in zip(noisy, self.middle, strict=True)]))

    @property
    def truth(self) -> Tensor:
        """Variances of the detections that count, (N, D + 1)."""
        return self.moments.result().model_variance[self.certain]

    def ratios(self, model: 'UncertainDetector') -> Tensor:
        """Standard deviations divided by those of Monte Carlo, (N, D + 1)."""
        _, outputs, line = model.linearize(self.inputs, self.variance, copy.deepcopy(self.samples), propagated=True)
        return (model.detection_variance(line, outputs)[self.certain] / self.truth).sqrt()


class _RawOutputs(nn.Module):
    """The detector as a function from images to the outputs of its heads, with the regions of the clean images.

    `sampled` gets the outputs of each plain pass over all images.
    """

    def __init__(
        self, model: 'UncertainDetector', inputs: Tensor, samples: Any, sampled: Callable[[Sequence[Tensor]], None]
    ) -> None:
        super().__init__()
        self.model = model
        self.samples = samples
        self.sampled = sampled
        self.traces: dict[int, Trace] = {}
        for size in {1, len(inputs)}:  # the fit looks at one image first
            self.traces[size] = Trace(model.detector)
            with without_variance(model.detector):
                self.traces[size].detect(inputs[:size], copy.deepcopy(samples[:size]), False, end_to_end=False)

    def forward(self, x: Tensor | Gaussian) -> list[Tensor | Gaussian]:
        return self.traces[len(x)].outputs(x, self.samples[: len(x)])

    def plain(self, x: Tensor) -> list[Tensor]:
        """Outputs of the plain network."""
        with without_variance(self.model.detector):
            outputs = self(x)
        self.sampled(methods.means(outputs))
        return outputs
