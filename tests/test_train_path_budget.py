"""What `max_minutes` limits: all training of a run together."""

from pathlib import Path

import numpy as np
import pytest
from parts import draw_parts, write_line

from inspection.model.selection import CrossValidation
from inspection.model.training import Trained
from inspection.settings import Settings, TrainingSettings, load_settings, override_settings
from inspection.train_path import budget, larger_input, learning

MINUTES = 20.0


class Spending:
    """Stands in for training: notes what time each one gets, and takes all of it or more."""

    def __init__(self, overrun: float = 1.0) -> None:
        self.overrun = overrun
        self.minutes: list[float] = []

    def cross_validate(self, recipe, training_set, settings: TrainingSettings, *_) -> CrossValidation:
        self.minutes.append(settings.max_minutes)
        scores = np.where(training_set.is_bad, 1.0, -1.0)
        return CrossValidation(recipe, scores, 1.0, settings.max_minutes * 60 * self.overrun, 2)

    def train(self, recipe, training_set, settings: TrainingSettings, *_) -> Trained:
        self.minutes.append(settings.max_minutes)
        raise TimeoutError


def line(folder: Path, recipe: str, minutes: float) -> Settings:
    path = write_line(folder, draw_parts(folder / "parts", good=24, bad=24), recipe=recipe)
    return override_settings(load_settings(path), max_minutes=minutes)


def spend(settings: Settings, spending: Spending, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Go through the steps that train as the flow does; the minutes that each training got."""
    monkeypatch.setattr("inspection.model.training.cross_validate", spending.cross_validate)
    monkeypatch.setattr("inspection.model.training.train", spending.train)
    snapshot_id = learning.prepare(settings).id
    recipes = learning.recipes_to_compare(settings, snapshot_id)
    comparisons = [learning.compare_recipe(settings, snapshot_id, recipe, len(recipes)) for recipe in recipes]
    trained_for = len(spending.minutes)
    ticks = iter([0.0, budget.TRIAL * MINUTES * 60 * spending.overrun])
    with monkeypatch.context() as patched:
        patched.setattr(larger_input, "time", type("Clock", (), {"monotonic": staticmethod(lambda: next(ticks))}))
        tried = larger_input.try_larger_input(settings, snapshot_id)
    assert len(spending.minutes) == trained_for + (2 if tried else 0)
    with pytest.raises(TimeoutError):
        learning.train_model(settings, snapshot_id, "frozen", None, budget.spent_s(comparisons, tried))
    return spending.minutes


def test_all_training_of_a_run_shares_the_limit(tmp_path: Path, monkeypatch) -> None:
    minutes = spend(line(tmp_path, "auto", MINUTES), Spending(), monkeypatch)
    assert minutes == pytest.approx([5, 5, 1, 1, 8])
    assert sum(minutes) == pytest.approx(MINUTES)


def test_time_that_the_comparison_leaves_goes_to_the_final_training(tmp_path: Path, monkeypatch) -> None:
    assert spend(line(tmp_path, "auto", MINUTES), Spending(0.1), monkeypatch)[-1] == pytest.approx(18.8)


def test_the_final_training_gets_a_quarter_whatever_the_comparison_took(tmp_path: Path, monkeypatch) -> None:
    assert spend(line(tmp_path, "auto", MINUTES), Spending(3), monkeypatch)[-1] == pytest.approx(5)


def test_a_recipe_of_the_settings_own_gets_all_the_time(tmp_path: Path, monkeypatch) -> None:
    assert spend(line(tmp_path, "frozen", MINUTES), Spending(), monkeypatch) == [MINUTES]


def test_no_limit_stays_none(tmp_path: Path, monkeypatch) -> None:
    assert set(spend(line(tmp_path, "auto", 0.0), Spending(), monkeypatch)) == {0.0}
