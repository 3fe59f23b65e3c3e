"""Extend deviations by noise to those of the whole error: fit two numbers per coordinate to ground truth."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .functional.box_residuals import as_array
from .metrics.uncertainty_metric import UncertaintyMetric, read_sample

if TYPE_CHECKING:
    from ..models.detectors.uncertain_detector import UncertainDetector

TINY = np.finfo(float).tiny
SHARES = np.logspace(-2, 0, 101)  # of the constant part in the mean variance


def fit_errors(residual: Any, std: Any) -> np.ndarray:
    r"""Fit a factor and a constant that turn predicted variances into those of the residuals, by maximum likelihood.

    A detector also errs without noise, and errs more on hard objects, where noise moves it more too. Hence the model

    .. math::
        r_i \sim N(0, a v_i + b)

    Its second part is one error for all detections (`a = 0`); its first part scales the variances, as Laves et al.,
    MIDL 2020 and Levi et al., Sensors 2022 (arXiv:1905.11659) do. With :math:`w_i = (1 - c) v_i / \bar v + c` the best
    scale is the mean of :math:`r_i^2 / w_i`. The share c of the constant part is searched over 101 values from 0.01 to
    1; never 0, since a coordinate that the box coder clips to the image has no deviation but errs too.

    Args:
        residual, std: (N, D), of other detections than those to judge.

    Returns:
        (D, 2), a and b. `a` is 0 where no detection has a variance.

    Raises:
        ValueError: For other shapes, or fewer than two detections.
    """
    residual, variance = as_array(residual), as_array(std) ** 2
    if residual.ndim != 2 or residual.shape != variance.shape:
        raise ValueError(f'residual is {residual.shape} and std is {variance.shape}; both must be (N, D)')
    if len(residual) < 2:
        raise ValueError(f'{len(residual)} matched detections are too few to fit an error to: give more images')
    return np.array([_fit(r**2, v) for r, v in zip(residual.T, variance.T, strict=True)])


def total_std(std: Any, error: np.ndarray) -> np.ndarray:
    """Compute standard deviations of the whole error, (N, D).

    Args:
        std: (N, D), caused by noise.
        error: (D, 2), from `fit_errors`.
    """
    return np.sqrt(as_array(std) ** 2 * error[:, 0] + error[:, 1])


@torch.no_grad()
def fit_detector_errors(model: 'UncertainDetector', batches: Iterable[Any]) -> np.ndarray:
    """Fit the error of a detector's boxes and store it in the model, so that `bboxes_std` is that of the whole error.

    The numbers become a buffer of the state dict. Calibrate first (`calibrate_detector`), and fit again whenever the
    deviations change: by the gains, the noise, `method` or `dropout_samples`.

    Args:
        model: Detector in eval mode.
        batches: Inputs of `test_step`, such as the runner's `val_dataloader`, with ground truth and the noise that the
            detector is to meet. Take neither the images to judge it by nor those it was trained on.

    Returns:
        (D, 2), see `fit_errors`.

    Raises:
        ValueError: If fewer than two detections match ground truth, as `UncertaintyMetric` matches them.
    """
    metric = UncertaintyMetric()
    model.set_detection_error(None)
    kept = [
        metric.match(read_sample(sample.to_dict(), metric.score_thr))[0]
        for batch in batches
        for sample in model.test_step(batch)
    ]
    if not kept:
        raise ValueError('there are no batches to fit an error to')
    residuals, std = (np.concatenate([part[name] for part in kept]) for name in ('residuals', 'std'))
    error = fit_errors(residuals, std)
    some = next(model.parameters())
    model.set_detection_error(torch.from_numpy(error).to(some))
    return error


def _fit(square: np.ndarray, variance: np.ndarray) -> tuple[float, float]:
    mean = variance.mean()
    if not mean > 0:
        return 0.0, float(square.mean())
    weight = (1 - SHARES)[:, None] * (variance / mean) + SHARES[:, None]  # (shares, N)
    scale = (square / weight).mean(1)
    likelihood = np.log(np.maximum(scale, TINY)) + np.log(weight).mean(1)  # -2 log-likelihood, up to constants
    best = int(np.argmin(likelihood))
    return float((1 - SHARES[best]) * scale[best] / mean), float(SHARES[best] * scale[best])
