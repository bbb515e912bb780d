"""Which recipe: compared on scores of images that each one had not seen, with the uncertainty of the comparison."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inspection.model.examples import TrainingSet

log = logging.getLogger(__name__)

SIMPLICITY = ("frozen", "finetune", "both")  # the simplest first: what it costs to train and, on the device, to run
BOOTSTRAPS = 1000
CHUNK = 4_000_000  # resampled weights held at once
MARGIN = 0.01  # AUROC that a simpler recipe may lose
ERRORS = 1.0  # standard errors by which it must be surer than that: few images prove nothing, so the best is kept


@dataclass(frozen=True)
class CrossValidation:
    """One recipe's scores of the training part, each from a model that had not seen the image's group."""

    recipe: str
    scores: np.ndarray  # float64 [N], logits on the common scale
    auroc: float
    seconds: float
    folds: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """How much better the best recipe is than another one, in AUROC."""

    recipe: str  # the other one
    difference: float  # AUROC of the best minus that of the other
    error: float  # standard error, from a bootstrap of the groups
    low: float  # 95 % interval
    high: float


@dataclass(frozen=True)
class RecipeChoice:
    """The recipe to train with, and why."""

    recipe: str
    best: str  # the recipe with the highest AUROC
    aurocs: dict[str, float]
    differences: tuple[Difference, ...]
    explanation: str


def choose_recipe(validations: Sequence[CrossValidation], training_set: TrainingSet, seed: int = 0) -> RecipeChoice:
    """Keep the simplest recipe that is not worse than the best.

    "Not worse" has to be shown, as in a non-inferiority test: what it falls behind the best by, plus one standard
    error of that paired difference, is at most `MARGIN`. The usual rule (worse only when behind by more than one
    standard error) takes few images for a proof that recipes are alike. Scores of the averaged recipe are the mean of
    its members' scores, so comparing it costs nothing.

    Args:
        validations: of the recipes that were cross-validated, on the same training set.
        training_set: its labels and groups are used.
        seed: of the bootstrap.
    """
    scores = {validation.recipe: validation.scores for validation in validations}
    if "frozen" in scores and "finetune" in scores and "both" not in scores:
        scores["both"] = average_scores([scores["frozen"], scores["finetune"]])
    recipes = [recipe for recipe in SIMPLICITY if recipe in scores]
    is_bad = np.asarray(training_set.is_bad, dtype=bool)
    aurocs = {recipe: auroc(scores[recipe], is_bad) for recipe in recipes}
    best = max(recipes, key=lambda recipe: aurocs[recipe])  # of equals the simplest: max keeps the first
    drawn = bootstrap_aurocs([scores[recipe] for recipe in recipes], is_bad, training_set.groups, seed)
    differences = tuple(
        _difference(recipe, aurocs[best] - aurocs[recipe], drawn[:, recipes.index(best)] - drawn[:, column])
        for column, recipe in enumerate(recipes)
        if recipe != best
    )
    behind = {one.recipe: one.difference + ERRORS * one.error > MARGIN for one in differences}
    chosen = next(recipe for recipe in recipes if recipe == best or not behind[recipe])
    explanation = _explain(chosen, best, aurocs, differences)
    log.info("event=recipe_chosen recipe=%s best=%s explanation=%r", chosen, best, explanation)
    return RecipeChoice(chosen, best, aurocs, differences, explanation)


def average_scores(members: Sequence[np.ndarray]) -> np.ndarray:
    """Scores of the averaged recipe from out-of-fold scores of its members; they share a scale already."""
    return np.mean(np.stack(members), axis=0)


def auroc(scores: np.ndarray, is_bad: np.ndarray) -> float:
    """Area under the ROC curve, with ties counted as half."""
    return float(weighted_aurocs(scores, is_bad, np.ones((1, len(scores))))[0])


def weighted_aurocs(scores: np.ndarray, is_bad: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC under each row of image weights [draws, N]; float64 [draws]."""
    values, place = np.unique(scores, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(values)))
    bad = np.add.reduceat((weights * is_bad)[:, order], starts, axis=1)  # weight of bad images at each distinct score
    good = np.add.reduceat((weights * ~is_bad)[:, order], starts, axis=1)
    below = np.cumsum(good, axis=1) - good / 2
    aurocs: np.ndarray = (bad * below).sum(axis=1) / (bad.sum(axis=1) * good.sum(axis=1))
    return aurocs


def bootstrap_aurocs(scores: Sequence[np.ndarray], is_bad: np.ndarray, groups: Sequence[str], seed: int) -> np.ndarray:
    """AUROC of every recipe on the same resampled groups; float64 [draws, recipes].

    Groups are drawn within strata (all good, all bad, mixed), so that draws have both classes; a draw that still has
    only one is left out.
    """
    _, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    share = np.bincount(index, weights=is_bad) / np.bincount(index)
    stratum = np.where(share == 0, 0, np.where(share == 1, 1, 2))
    generator = np.random.default_rng(seed)
    aurocs, chunk = [], max(1, CHUNK // len(is_bad))
    for start in range(0, BOOTSTRAPS, chunk):
        weights = _draw_groups(generator, stratum, min(chunk, BOOTSTRAPS - start))[:, index]
        weights = weights[(weights[:, is_bad].sum(axis=1) > 0) & (weights[:, ~is_bad].sum(axis=1) > 0)]
        aurocs.append(np.stack([weighted_aurocs(one, is_bad, weights) for one in scores], axis=1))
    return np.concatenate(aurocs)


def _draw_groups(generator: np.random.Generator, stratum: np.ndarray, draws: int) -> np.ndarray:
    """How often each group is drawn, float64 [draws, groups], drawing within each stratum."""
    copies = np.zeros((draws, len(stratum)))
    for kind in np.unique(stratum):
        members = np.flatnonzero(stratum == kind)
        copies[:, members] = generator.multinomial(len(members), np.full(len(members), 1 / len(members)), draws)
    return copies


def _difference(recipe: str, difference: float, drawn: np.ndarray) -> Difference:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Difference(recipe, difference, float(drawn.std(ddof=1)), float(low), float(high))


def _explain(chosen: str, best: str, aurocs: dict[str, float], differences: Sequence[Difference]) -> str:
    figures = ", ".join(f"{recipe} {value:.3f}" for recipe, value in aurocs.items())
    text = f"cross-validated AUROC: {figures}. "
    against = "; ".join(
        f"{best} beats {one.recipe} by {one.difference:.3f} (95 % interval {one.low:+.3f} to {one.high:+.3f})"
        for one in differences
    )
    if chosen == best:
        simpler = any(SIMPLICITY.index(one.recipe) < SIMPLICITY.index(best) for one in differences)
        reason = "it is the best" + (f", and no simpler one is shown to lose at most {MARGIN}" if simpler else "")
    else:
        reason = f"it is the simplest that is shown to lose at most {MARGIN} against {best}"
    return f"{text}{against + '. ' if against else ''}Chosen: {chosen}, since {reason}."
