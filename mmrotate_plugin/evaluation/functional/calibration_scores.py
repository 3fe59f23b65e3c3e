"""Judge standard deviations: functions of arrays or tensors, for metrics and notebooks.

They return Python floats; nan where a number is not defined, such as a mean of nothing or a correlation with a
constant. `box_residuals` and `pdq` are here too, for detections.
"""

import math
from typing import Any

import numpy as np
import torch

from .box_residuals import as_array, box_residuals, box_uncertainty
from .pdq import pdq

__all__ = [
    'NORMAL_COVERAGE',
    'box_residuals',
    'box_uncertainty',
    'calibration_error',
    'coverage',
    'negative_log_likelihood',
    'pdq',
    'pearson',
    'score_calibration_error',
    'sparsification_error',
    'spearman',
]

NORMAL_COVERAGE = {k: math.erf(k / math.sqrt(2)) for k in (1, 2, 3)}  # 0.683, 0.954, 0.997


def coverage(residual: Any, std: Any, sigmas: float = 1.0) -> float:
    """Fraction of residuals within `sigmas` standard deviations; `NORMAL_COVERAGE` for a calibrated Gaussian.

    Args:
        residual, std: Arrays of one shape.
        sigmas: Number of standard deviations.
    """
    residual, std = _pair(residual, std, 'residual', 'std')
    return _mean(np.abs(residual) <= sigmas * std)


def calibration_error(residual: Any, std: Any, num_bins: int = 10) -> float:
    r"""Regression expected calibration error, a difference of probabilities.

    :math:`\frac1{m-1} \sum_j |p_j - \hat p_j|` over the levels :math:`p_j = j / m`, m being `num_bins`, where
    :math:`\hat p_j` is the fraction of residuals below the predicted quantile of that level, :math:`s \Phi^{-1}(p_j)`.
    The levels and fractions are those of Kuleshov, Fenner & Ermon, ICML 2018 (arXiv:1807.00263); their equation 9 sums
    squares, while the mean of absolute values stays in units of probability. It also sees a bias. By chance, n
    calibrated residuals have about 0.34 / sqrt(n).

    Args:
        residual, std: Arrays of one shape; a residual of 0 with a deviation of 0 counts as the median.
        num_bins: Number of bins between the levels, 2 or more.
    """
    residual, std = _pair(residual, std, 'residual', 'std')
    if num_bins < 2:
        raise ValueError(f'num_bins={num_bins} must be 2 or more')
    if not residual.size:
        return math.nan
    with np.errstate(divide='ignore', invalid='ignore'):
        z = np.where(residual == 0, 0.0, residual / std)
    level = torch.special.ndtr(torch.from_numpy(z)).numpy().ravel()
    expected = np.arange(1, num_bins) / num_bins
    found = (level[:, None] < expected).mean(0) + (level[:, None] == expected).mean(0) / 2
    return float(np.abs(found - expected).mean())


def negative_log_likelihood(residual: Any, std: Any, min_std: float = 1e-3) -> np.ndarray:
    """Negative log-likelihood of each residual under a Gaussian of mean 0, in nats, in the shape of `residual`.

    Args:
        residual, std: Arrays of one shape.
        min_std: Smallest deviation, in the units of the residuals; smaller ones, such as 0, count as this.

    Raises:
        ValueError: If `min_std` is not positive.
    """
    residual, std = _pair(residual, std, 'residual', 'std')
    if min_std <= 0:
        raise ValueError(f'min_std={min_std} must be positive: under a deviation of 0 the likelihood is infinite or 0')
    std = np.maximum(std, min_std)
    return 0.5 * math.log(2 * math.pi) + np.log(std) + 0.5 * (residual / std) ** 2


def sparsification_error(error: Any, uncertainty: Any) -> float:
    """Area under the sparsification error curve (AUSE): 0 if the uncertainty ranks like the error itself.

    The sparsification curve is the mean error of what remains when a growing fraction of the most uncertain is
    removed, as a fraction of the mean error of all; the oracle removes the largest errors first. AUSE is the area
    between the two. Equal uncertainties are removed in random order (in expectation), so a constant gives the AUSE of a
    random ranking. Ilg et al., ECCV 2018 (arXiv:1802.07095).

    Args:
        error: (N,), non-negative.
        uncertainty: (N,).

    Returns:
        The area; nan if all errors are 0, or there are none.
    """
    error, uncertainty = _pair(error, uncertainty, 'error', 'uncertainty')
    error, uncertainty = error.ravel(), uncertainty.ravel()
    if (error < 0).any():
        raise ValueError(f'error has negative values, down to {error.min():g}; give absolute errors')
    if not error.sum() > 0:
        return math.nan
    _, group, size = np.unique(uncertainty, return_inverse=True, return_counts=True)
    expected = (np.bincount(group, error) / size)[group[np.argsort(uncertainty, kind='stable')]]
    remaining = np.arange(1, error.size + 1)
    gap = (np.cumsum(expected) - np.cumsum(np.sort(error))) / remaining
    return float(gap.mean() / error.mean())


def pearson(x: Any, y: Any) -> float:
    """Linear correlation; nan for fewer than two values, for constants, and for values that are not finite."""
    from scipy import stats  # half a second that importing the package would pay

    x, y = (values.ravel() for values in _pair(x, y, 'x', 'y'))
    defined = _varies(x) and _varies(y) and bool(np.isfinite(x).all() and np.isfinite(y).all())
    return float(stats.pearsonr(x, y).statistic) if defined else math.nan


def spearman(x: Any, y: Any) -> float:
    """Correlation of the ranks, ties sharing their mean rank; nan for fewer than two values, or constants."""
    from scipy import stats

    x, y = (values.ravel() for values in _pair(x, y, 'x', 'y'))
    return float(stats.spearmanr(x, y).statistic) if _varies(x) and _varies(y) else math.nan


def score_calibration_error(scores: Any, hits: Any, num_bins: int = 10) -> float:
    r"""Expected calibration error of scores, :math:`\sum_b \frac{n_b}{n} |\text{precision}_b - \text{mean score}_b|`.

    Guo et al., ICML 2017 (arXiv:1706.04599), with precision in place of accuracy (Küppers et al., CVPRW
    2020, arXiv:2004.13546, by confidence alone). Missed objects do not count.

    Args:
        scores: (N,), between 0 and 1.
        hits: (N,), whether a detection is right.
        num_bins: Number of bins of equal width in [0, 1].

    Raises:
        ValueError: If scores are not between 0 and 1.
    """
    scores, hits = _pair(scores, hits, 'scores', 'hits')
    if num_bins < 1:
        raise ValueError(f'num_bins={num_bins} must be 1 or more')
    if not scores.size:
        return math.nan
    if scores.min() < 0 or scores.max() > 1:
        raise ValueError(f'scores are {scores.min():g} to {scores.max():g}; they must be between 0 and 1')
    bins = np.minimum((scores * num_bins).astype(int), num_bins - 1)
    gaps = np.bincount(bins, hits - scores, minlength=num_bins)
    return float(np.abs(gaps).sum() / scores.size)


def _pair(a: Any, b: Any, name_a: str, name_b: str) -> tuple[np.ndarray, np.ndarray]:
    a, b = as_array(a), as_array(b)
    if a.shape != b.shape:
        raise ValueError(f'{name_a} is {a.shape} and {name_b} is {b.shape}; they must have one shape')
    if name_b == 'std' and (b < 0).any():
        raise ValueError(f'std has negative values, down to {b.min():g}; give standard deviations')
    return a, b


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else math.nan


def _varies(values: np.ndarray) -> bool:
    return values.size > 1 and bool((values != values[0]).any())
