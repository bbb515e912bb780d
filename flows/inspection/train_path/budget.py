"""How `[training] max_minutes` is divided, so that all training of a run together takes about that long at most.

The comparison of recipes gets half of it, in equal parts, a larger input a tenth; what they leave is for the final
training. Time that was spent counts, not the clock: a run that is resumed a day later has the same budget. Each
training looks at its images once at least and ends in good order, so the limit is kept roughly.
"""

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from inspection.settings import TrainingSettings

if TYPE_CHECKING:
    from inspection.model.selection import CrossValidation
    from inspection.train_path.larger_input import LargerInput

COMPARISON = 0.5  # of the limit, for all recipes
TRIAL = 0.1  # for the line's input and the larger one
LEAST_FINAL = 0.25  # for the final training, when the others took longer than they should have


def for_recipe(training: TrainingSettings, recipes: int) -> TrainingSettings:
    """The settings with the share of one of so many recipes that are compared, one after the other at worst."""
    return _limited(training, training.max_minutes * COMPARISON / recipes)


def for_input(training: TrainingSettings) -> TrainingSettings:
    """The settings with the share of one of the two inputs that are compared."""
    return _limited(training, training.max_minutes * TRIAL / 2)


def for_final(training: TrainingSettings, spent_s: float) -> TrainingSettings:
    """The settings with what is left for the model that ships."""
    left = training.max_minutes - spent_s / 60
    return _limited(training, max(left, training.max_minutes * LEAST_FINAL))


def spent_s(comparisons: "Iterable[CrossValidation | None]", larger: "LargerInput | None") -> float:
    """Seconds of training before the final one."""
    compared = sum(comparison.seconds for comparison in comparisons if comparison is not None)
    return compared + (larger.seconds if larger is not None else 0.0)


def _limited(training: TrainingSettings, minutes: float) -> TrainingSettings:
    return dataclasses.replace(cast(Any, training), max_minutes=minutes)  # 0 stays 0: no limit
