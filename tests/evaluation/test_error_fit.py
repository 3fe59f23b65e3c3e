import numpy as np
import pytest

from mmrotate_plugin.evaluation.error_fit import fit_errors, total_std
from mmrotate_plugin.evaluation.functional.calibration_scores import coverage, negative_log_likelihood

N = 20_000


@pytest.fixture
def drawn():
    """Residuals whose variance is 9 times that of the deviations and 4, of two columns."""
    rng = np.random.default_rng(0)
    std = rng.uniform(0.1, 2, (N, 2))
    truth = np.array([[9.0, 4.0], [0.0, 1.0]])
    return rng.standard_normal((N, 2)) * np.sqrt(std**2 * truth[:, 0] + truth[:, 1]), std, truth


def test_finds_factor_and_constant(drawn):
    residual, std, truth = drawn
    error = fit_errors(residual, std)
    # the information of N residuals leaves both some per cent; a step of the search is 6 %
    assert np.allclose(error[0], truth[0], rtol=0.15)
    assert error[1, 0] < 0.05 and error[1, 1] == pytest.approx(1, abs=0.05)
    total = total_std(std, error)
    tolerance = 5 * np.sqrt(0.683 * 0.317 / N)
    assert coverage(residual[:, 0], total[:, 0]) == pytest.approx(0.6827, abs=tolerance)
    assert abs(coverage(residual[:, 0], std[:, 0]) - 0.6827) > 10 * tolerance  # not without the fit


def test_no_other_pair_is_likelier(drawn):
    residual, std, _ = drawn
    error = fit_errors(residual, std)

    def cost(pair):
        return negative_log_likelihood(residual[:, 0], total_std(std[:, :1], np.array([pair]))[:, 0]).mean()

    best = cost(error[0])
    for a in (0.8, 1, 1.25):
        for b in (0.8, 1, 1.25):
            assert cost(error[0] * [a, b]) >= best - 1e-4  # the step of the search


def test_without_deviations_it_is_a_constant():
    residual = np.array([[3.0], [-1.0], [2.0]])
    assert fit_errors(residual, np.zeros_like(residual)) == pytest.approx(np.array([[0, 14 / 3]]))


def test_what_does_not_move_errs_too(drawn):
    residual, std, _ = drawn
    exact = std * np.sign(residual)  # deviations alone explain these
    error = fit_errors(exact, std)
    assert error[:, 0] == pytest.approx(np.ones(2), rel=0.15)
    # one per cent of the mean variance, a tenth of the mean deviation
    assert total_std(np.zeros((1, 2)), error) == pytest.approx(0.1 * np.sqrt((std**2).mean(0))[None], rel=0.15)
    assert fit_errors(np.zeros((3, 1)), np.ones((3, 1))) == pytest.approx(0)


def test_units_do_not_matter(drawn):
    residual, std, _ = drawn
    assert fit_errors(residual * 7, std * 7) == pytest.approx(fit_errors(residual, std) * [1, 49])


def test_bad_input():
    with pytest.raises(ValueError, match=r'both must be \(N, D\)'):
        fit_errors(np.ones((3, 2)), np.ones((3, 1)))
    with pytest.raises(ValueError, match='1 matched detections are too few'):
        fit_errors(np.ones((1, 2)), np.ones((1, 2)))
