"""From the deviation that noise makes to that of the whole error: two numbers for each coordinate, fitted to truth."""

from typing import Any

import numpy as np

from .uncertainty_boxes import as_array

SHARES = np.concatenate([[0.0], np.logspace(-4, 0, 161)])  # of the constant part in the mean of the variance


def fit_errors(residual: Any, std: Any) -> np.ndarray:
    r"""Factor and constant that make predicted variances those of the residuals, by maximum likelihood.

    A detector errs also where there is no noise, and more on what is hard, where noise moves it more too. So

    .. math::
        r_i \sim N(0, a v_i + b), \qquad a, b \ge 0

    of which the second part is that of a network with one error for all detections (`a = 0` is its likelihood), the
    first scales the variances as Laves et al., MIDL 2020 and Levi et al., Sensors 2022 (arXiv:1905.11659) do. With
    :math:`w_i = (1 - c) v_i / \bar v + c` the best scale is the mean of :math:`r_i^2 / w_i`, which leaves the share c of
    the constant part to be searched, over 162 values from 0 to 1.

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
    with np.errstate(divide='ignore', invalid='ignore'):
        scale = np.nan_to_num(square / weight, nan=0.0, posinf=np.inf).mean(1)
        likelihood = np.log(scale) + np.log(weight).mean(1)  # -2 of the logarithm, but for constants
    # a residual of a detection without variance rules out that there is no constant part
    likelihood[~np.isfinite(scale) | (weight <= 0).any(1)] = np.inf
    best = int(np.argmin(likelihood))
    return float((1 - SHARES[best]) * scale[best] / mean), float(SHARES[best] * scale[best])
