"""How far two sets of scores agree: known answers."""

import numpy as np
import pytest
from scipy.stats import binomtest

from inspection.decision.bounds import clopper_pearson_upper
from inspection.errors import ParityError
from inspection.export import agreement
from inspection.export.agreement import auroc, best_threshold, check_parity
from inspection.settings import ExportSettings

SETTINGS = ExportSettings()
GENERATOR = np.random.default_rng(0)
IS_BAD = np.arange(1000) % 2 == 1
TRAINED = GENERATOR.normal(0, 1, 1000) + 3 * IS_BAD


def test_same_scores_agree_in_everything() -> None:
    report = check_parity(TRAINED, TRAINED, IS_BAD, SETTINGS, "float32")
    assert report.passed
    assert (report.faults, report.flips, report.auroc_loss, report.max_abs_difference) == ((), 0, 0.0, 0.0)
    assert report.correlation == pytest.approx(1)
    assert report.auroc_loss_interval == (0.0, 0.0)
    assert report.flip_rate_upper == pytest.approx(1 - 0.05 ** (1 / 1000))  # the rule of three
    assert "agrees with the trained model on 100.00% of 1000 images" in report.summary()


def test_flips_are_counted_at_the_trained_models_threshold_and_named_worst_first() -> None:
    converted = TRAINED.copy()
    threshold = best_threshold(TRAINED, IS_BAD)
    near, far = (int(index) for index in np.argsort(np.abs(TRAINED - threshold))[[5, 400]])
    for index in (near, far):
        converted[index] = 2 * threshold - TRAINED[index]
    report = check_parity(TRAINED, converted, IS_BAD, SETTINGS, "int8")
    assert report.flipped == (far, near)
    assert report.flip_rate == 0.002
    assert report.passed


@pytest.mark.parametrize(
    ("converted", "fault"),
    [
        (TRAINED + 3 * (np.arange(1000) % 50 == 0), "flips"),
        (TRAINED + GENERATOR.normal(0, 1, 1000), "correlation"),
        (TRAINED - 2 * IS_BAD, "AUROC loss"),
        (np.zeros(1000), "correlation"),
    ],
    ids=["some far off", "noise", "shifted class", "constant"],
)
def test_each_limit_that_is_broken_is_told(converted: np.ndarray, fault: str) -> None:
    report = check_parity(TRAINED, converted, IS_BAD, SETTINGS, "int8")
    assert not report.passed
    assert any(text.startswith(fault) for text in report.faults)


def test_limits_come_from_the_settings() -> None:
    converted = TRAINED + GENERATOR.normal(0, 0.5, 1000)
    strict = check_parity(TRAINED, converted, IS_BAD, SETTINGS, "int8")
    wide = ExportSettings(max_auroc_loss=0.2, max_flip_rate=0.2, min_correlation=0.5)
    assert not strict.passed
    assert check_parity(TRAINED, converted, IS_BAD, wide, "int8").passed


def test_interval_of_the_loss_holds_the_loss_and_widens_when_copies_share_a_source() -> None:
    converted = TRAINED + GENERATOR.normal(0, 0.7, 1000)
    alone = check_parity(TRAINED, converted, IS_BAD, SETTINGS, "int8")
    low, high = alone.auroc_loss_interval
    assert low < alone.auroc_loss < high
    # Ten exact copies of each of the first hundred images tell no more than those hundred.
    source = np.tile(np.arange(100), 10)
    copied = check_parity(TRAINED[source], converted[source], IS_BAD[source], SETTINGS, "int8", source)
    hundred = check_parity(TRAINED[:100], converted[:100], IS_BAD[:100], SETTINGS, "int8")
    assert copied.sources == 100
    width, want = (np.diff(report.auroc_loss_interval)[0] for report in (copied, hundred))
    assert width == pytest.approx(want, rel=0.2)


def flipping(flips: np.ndarray) -> np.ndarray:
    """Scores of a converted model that has these images on the other side of the trained model's threshold."""
    threshold = best_threshold(TRAINED, IS_BAD)
    return np.where(flips, 2 * threshold - TRAINED, TRAINED)


@pytest.mark.parametrize("flips", [0, 1, 7])
def test_bound_on_single_pictures_is_clopper_and_pearsons(flips: int) -> None:
    report = check_parity(TRAINED, flipping(np.arange(1000) < flips), IS_BAD, SETTINGS, "int8")
    assert report.groups == 1000
    assert report.flip_rate_upper == clopper_pearson_upper(flips, 1000, 0.95)


def test_bound_counts_parts_and_not_the_copies_of_their_pictures() -> None:
    source = np.arange(1000) % 200
    trained, is_bad = TRAINED[source], IS_BAD[source]
    copies = check_parity(trained, trained, is_bad, SETTINGS, "int8", source)
    assert (copies.images, copies.sources, copies.groups) == (1000, 200, 200)
    assert copies.flip_rate_upper == clopper_pearson_upper(0, 200, 0.95)
    parts = [f"part-{index // 2}" for index in range(200)]  # each seen from two sides
    views = check_parity(trained, trained, is_bad, SETTINGS, "int8", source, groups=parts)
    assert (views.images, views.sources, views.groups) == (1000, 200, 100)
    assert views.flip_rate_upper == clopper_pearson_upper(0, 100, 0.95)
    assert "counted by 100 parts" in views.summary()


@pytest.mark.parametrize("rate", [0.01, 0.03])
def test_bound_holds_when_all_copies_of_a_picture_flip_together(rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The promise itself: the true rate exceeds the bound in at most 5 % of many samples; counting images errs."""
    monkeypatch.setattr(agreement, "RESAMPLES", 1)  # of the other interval
    generator = np.random.default_rng(1)
    source = np.arange(1000) % 200
    trained, is_bad = TRAINED[source], IS_BAD[source]
    threshold = best_threshold(trained, is_bad)
    broken, naive = 0, 0
    for _ in range(200):
        flips = generator.random(200)[source] < rate
        converted = np.where(flips, 2 * threshold - trained, trained)
        report = check_parity(trained, converted, is_bad, SETTINGS, "int8", source)
        broken += report.flip_rate_upper < rate
        naive += clopper_pearson_upper(report.flips, report.images, 0.95) < rate
    assert broken <= 0.05 * 200
    assert naive > 0.05 * 200


def test_groups_of_both_classes_can_be_resampled() -> None:
    groups = [f"lot-{index % 7}" for index in range(1000)]
    report = check_parity(TRAINED, TRAINED - 0.2 * IS_BAD, IS_BAD, SETTINGS, "int8", groups=groups)
    assert report.groups == 7
    low, high = report.auroc_loss_interval
    assert low <= report.auroc_loss <= high


def test_one_class_alone_cannot_be_compared() -> None:
    with pytest.raises(ParityError, match="want good and bad images, found 0 bad of 3"):
        check_parity(TRAINED[:3], TRAINED[:3], np.zeros(3, bool), SETTINGS, "int8")


@pytest.mark.parametrize(
    ("scores", "is_bad", "want"),
    [
        ([0, 1, 2, 9, 10], [0, 0, 0, 1, 1], 5.5),  # the middle of the gap
        ([0, 1, 2, 3], [0, 1, 0, 1], 0.5),  # two cuts are equally good, 0.5 and 2.5: gaps are equal, the lower one
        ([1, 1, 1], [0, 1, 0], 1.0),  # nothing to tell apart
    ],
)
def test_best_threshold_separates_best(scores: list[float], is_bad: list[int], want: float) -> None:
    assert best_threshold(np.array(scores, float), np.array(is_bad, bool)) == want


def test_auroc_counts_ties_half() -> None:
    assert auroc(np.array([0.0, 1.0, 1.0, 2.0]), np.array([False, False, True, True])) == 0.875


@pytest.mark.parametrize("events", [0, 3, 40])
def test_upper_bound_is_clopper_and_pearsons(events: int) -> None:
    want = binomtest(events, 40).proportion_ci(0.90, method="exact").high  # two-sided 90 % = one-sided 95 %
    assert clopper_pearson_upper(events, 40, 0.95) == pytest.approx(1.0 if events == 40 else want)
