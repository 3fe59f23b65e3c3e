"""From the deviation that noise makes to that of the whole error: two numbers for each coordinate, fitted to truth."""

from typing import Any

import numpy as np

from .uncertainty_boxes import as_array

TINY = np.finfo(float).tiny
SHARES = np.logspace(-2, 0, 101)  # of the constant part in the mean of the variance


def fit_errors(residual: Any, std: Any) -> np.ndarray:
    r"""Factor and constant that make predicted variances those of the residuals, by maximum likelihood.

    A detector errs also where there is no noise, and more on what is hard, where noise moves it more too. So

    .. math::
        r_i \sim N(0, a v_i + b)

    of which the second part is that of a network with one error for all detections (`a = 0` is its likelihood), the
    first scales the variances as Laves et al., MIDL 2020 and Levi et al., Sensors 2022 (arXiv:1905.11659) do. With
    :math:`w_i = (1 - c) v_i / \bar v + c` the best scale is the mean of :math:`r_i^2 / w_i`. That leaves the share c of
    the constant part to be searched, over 101 values from 0.01 to 1: never 0, since a coordinate that the box coder
    clips to the image has no deviation and errs too.

    Args:
        residual, std: (N, D), of detections that are not judged by the result.

    Returns:
        (D, 2), a and b. `a` is 0 where no detection has a variance.

    Raises:
        ValueError: For other shapes, or less than two detections.
    """
    residual, variance = as_array(residual), as_array(std) ** 2
    if residual.ndim != 2 or residual.shape != variance.shape:
        raise ValueError(f'residual is {residual.shape} and std is {variance.shape}; both must be (N, D)')
    if len(residual) < 2:
        raise ValueError(f'{len(residual)} matched detections are too few to fit an error to: give more images')
    return np.array([_fit(r**2, v) for r, v in zip(residual.T, variance.T, strict=True)])


def total_std(std: Any, error: np.ndarray) -> np.ndarray:
    """Standard deviations of the whole error, (N, D).

    Args:
        std: (N, D), by noise.
        error: (D, 2), of `fit_errors`.
    """
    return np.sqrt(as_array(std) ** 2 * error[:, 0] + error[:, 1])


def _fit(square: np.ndarray, variance: np.ndarray) -> tuple[float, float]:
    mean = variance.mean()
    if not mean > 0:
        return 0.0, float(square.mean())
    weight = (1 - SHARES)[:, None] * (variance / mean) + SHARES[:, None]  # (shares, N)
    scale = (square / weight).mean(1)
    likelihood = np.log(np.maximum(scale, TINY)) + np.log(weight).mean(1)  # -2 of the logarithm, but for constants
    best = int(np.argmin(likelihood))
    return float((1 - SHARES[best]) * scale[best] / mean), float(SHARES[best] * scale[best])
