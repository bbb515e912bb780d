import numpy as np
import pytest
from scipy.special import expit

from inspection.decision.calibration import fit_calibration, probability
from inspection.errors import DataError


def draw(temperature: float, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    scores = generator.normal(0, 4, count)
    return scores, generator.random(count) < expit(scores / temperature)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_is_recovered(temperature: float) -> None:
    scores, is_bad = draw(temperature)
    calibration = fit_calibration(scores, is_bad)
    assert calibration.temperature == pytest.approx(temperature, rel=0.05)
    assert calibration.prevalence == pytest.approx(is_bad.mean())


def test_temperature_is_the_most_likely_one() -> None:
    scores, is_bad = draw(2.0, 500)
    fitted = fit_calibration(scores, is_bad).temperature

    def loss(temperature: float) -> float:
        return float(np.mean(np.logaddexp(0, np.where(is_bad, -scores, scores) / temperature)))

    assert loss(fitted) <= min(loss(0.9 * fitted), loss(1.1 * fitted))


def test_separated_scores_do_not_give_certainty() -> None:
    scores = np.array([-30.0] * 20 + [30.0] * 20)
    is_bad = scores > 0
    calibration = fit_calibration(scores, is_bad)
    assert 0.9 < probability(np.array([30.0]), calibration)[0] < 0.99


def test_worthless_scores_give_probabilities_near_a_half() -> None:
    scores = np.linspace(-5, 5, 50)
    calibration = fit_calibration(scores, scores < 0)
    assert probability(scores, calibration) == pytest.approx(np.full(50, 0.5), abs=0.02)


def test_scale_of_the_scores_does_not_matter() -> None:
    scores, is_bad = draw(1.0, 1000)
    small, large = fit_calibration(1e-3 * scores, is_bad), fit_calibration(1e3 * scores, is_bad)
    assert small.temperature * 1e6 == pytest.approx(large.temperature, rel=1e-6)


@pytest.mark.parametrize("value", [0.0, 2.5, -2.5])
def test_equal_scores_give_a_finite_temperature(value: float) -> None:
    calibration = fit_calibration(np.full(10, value), np.arange(10) < 5)
    assert 0 < calibration.temperature < np.inf


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="want finite scores"):
        fit_calibration(np.array([0.0, np.nan]), np.array([False, True]))
