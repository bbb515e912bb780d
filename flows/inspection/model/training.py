"""Training: one recipe, or the figures to choose between them."""

import dataclasses
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from inspection.errors import TrainingError
from inspection.model.backbones import check_weights
from inspection.model.checkpoints import Checkpoints, FolderCheckpoints, NamedCheckpoints
from inspection.model.classifier import Averaged, Classifier, Scorer
from inspection.model.examples import TrainingSet, can_finetune, folds_of
from inspection.model.progress import Epoch, ProgressCallback
from inspection.model.recipes import train_finetuned, train_frozen
from inspection.model.selection import CrossValidation, RecipeChoice, auroc, choose_recipe
from inspection.settings import TrainingSettings

__all__ = [
    "CrossValidation",
    "RecipeChoice",
    "Trained",
    "TrainingSet",
    "check_weights",
    "choose_recipe",
    "cross_validate",
    "recipes_to_compare",
    "train",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A trained model and the record of its training."""

    model: Scorer  # a Classifier, or Averaged for the recipe "both"; on the device that trained it, in eval mode
    recipe: str
    seconds: float  # with those of an interrupted training that this one went on with
    curves: tuple[Epoch, ...] = ()  # of fine-tuning; empty for the frozen recipe
    notes: tuple[str, ...] = ()  # what a person should know of this training
    figures: dict[str, float] = field(default_factory=dict)  # of the frozen recipe's inner cross-validation


def recipes_to_compare(settings: TrainingSettings, training_set: TrainingSet) -> list[str]:
    """The recipes that `cross_validate` has to run for `settings.recipe`; none when there is nothing to compare.

    Few images can be fine-tuned on no fold: then the frozen recipe goes alone.
    """
    if settings.recipe != "auto":
        return []
    return ["frozen", "finetune"] if can_finetune(training_set, settings.folds, settings.seed) else ["frozen"]


def train(
    recipe: str,
    training_set: TrainingSet,
    settings: TrainingSettings,
    checkpoints: Checkpoints | Path | None = None,
    progress: ProgressCallback | None = None,
) -> Trained:
    """Train a model, for about `settings.max_minutes` at most.

    The same seed and data give the same model on a CPU with the same number of threads: sums of another number of
    threads have another order, and so other last digits. A GPU adds in no fixed order; there the model is the same in
    its scores, not in its bits. With checkpoints, a killed training that is started again
    goes on after its last whole epoch and ends with the same model.

    Args:
        recipe: "frozen", "finetune" or "both".
        training_set: the training part; its pixels are read in batches, never whole.
        settings: `[training]` of the line.
        checkpoints: where fine-tuning keeps an epoch; a folder, or a place in the storage root.
        progress: called as training goes on, for live cards.

    Raises:
        TrainingError: weights are missing or do not fit, or the recipe is unknown.
    """
    if recipe not in ("frozen", "finetune", "both"):
        raise TrainingError(f"recipe: want frozen, finetune or both, found {recipe!r}")
    started = time.monotonic()
    deadline = started + settings.max_minutes * 60 if settings.max_minutes else float("inf")
    place = FolderCheckpoints(checkpoints) if isinstance(checkpoints, Path) else checkpoints
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    members: list[Classifier] = []
    notes: list[str] = []
    curves: list[Epoch] = []
    figures: dict[str, float] = {}
    earlier_s = 0.0
    if settings.weights == "none":
        notes.append(f"{settings.backbone} without pretrained weights: expect clearly lower accuracy on real parts")
    if recipe in ("frozen", "both"):
        model, figures = train_frozen(training_set, settings, device, deadline, progress)
        members.append(model)
        if figures["images"] < len(training_set):
            notes.append(
                f"the frozen recipe learned from {figures['images']:.0f} of {len(training_set)} images, chosen by lot "
                "from each label and defect type: the features of more would not fit memory"
            )
    if recipe in ("finetune", "both"):
        model, curves, earlier_s = train_finetuned(training_set, settings, device, deadline, place, progress)
        members.append(model)
    seconds = time.monotonic() - started + earlier_s
    if started + seconds >= deadline:
        notes.append(f"training was stopped after {settings.max_minutes:.2g} minutes, its share of max_minutes")
    model_out: Scorer = members[0] if len(members) == 1 else Averaged(members)
    log.info("event=trained recipe=%s images=%d seconds=%.1f", recipe, len(training_set), seconds)
    return Trained(model_out.eval(), recipe, seconds, tuple(curves), tuple(notes), figures)


def cross_validate(
    recipe: str,
    training_set: TrainingSet,
    settings: TrainingSettings,
    checkpoints: Checkpoints | Path | None = None,
    progress: ProgressCallback | None = None,
) -> CrossValidation:
    """Score every image of the training part with a model that has not seen its group.

    Args:
        recipe: "frozen", "finetune" or "both"; `choose_recipe` derives "both" from the other two.
        training_set: the training part.
        settings: `[training]` of the line; `max_minutes` is shared by the folds.
        checkpoints: as in `train`, one for each fold.
        progress: as in `train`.

    Raises:
        TrainingError: see `train`.
    """
    folds = folds_of(training_set, settings.folds, settings.seed)
    scores, seconds = np.zeros(len(training_set)), 0.0
    notes: list[str] = []
    place = FolderCheckpoints(checkpoints) if isinstance(checkpoints, Path) else checkpoints
    for number, (rest, part) in enumerate(folds):
        share = dataclasses.replace(cast(Any, settings), max_minutes=settings.max_minutes / len(folds))
        fold_place = NamedCheckpoints(place, f"fold-{number}-") if place else None
        trained = train(recipe, training_set.select(rest), share, fold_place, progress)
        ended = time.monotonic()
        scores[part] = trained.model.score_pixels(training_set.select(part).pixels, settings.batch_size)
        seconds += trained.seconds + time.monotonic() - ended
        notes += [note for note in trained.notes if note not in notes]
    value = auroc(scores, training_set.is_bad)
    log.info("event=cross_validated recipe=%s folds=%d auroc=%.4f seconds=%.1f", recipe, len(folds), value, seconds)
    return CrossValidation(recipe, scores, value, seconds, len(folds), tuple(notes))
