"""The first half of the train path: from images to a trained model.

Steps hand on keys and figures; images and models stay in storage.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from inspection.dataset.cache import PixelCache
from inspection.dataset.intake import prepare_dataset
from inspection.dataset.location import check_place, find_images
from inspection.dataset.manifest import ImageRow, Snapshot, load_snapshot
from inspection.settings import Settings
from inspection.storage import open_storage
from inspection.train_path import budget
from inspection.train_path.least_images import check_enough
from inspection.train_path.stored_models import fetch_model, store_model

if TYPE_CHECKING:
    from inspection.model.classifier import Scorer
    from inspection.model.examples import TrainingSet
    from inspection.model.progress import Epoch, ProgressCallback
    from inspection.model.selection import CrossValidation, RecipeChoice

log = logging.getLogger(__name__)

TRAINING_VERSION = 2  # raise it when the same images and settings train another model: old checkpoints then stay unused
TOO_FEW = "too few good or bad training images to fine-tune in every fold; add images of the rarer class"


class CachedPixels:
    """Images of a snapshot, read from the cache only when asked for; uint8 [N, H, W, 3]."""

    def __init__(self, settings: Settings, rows: Sequence[ImageRow]) -> None:
        self._cache = open_cache(settings)
        self._digests = [row.sha256 for row in rows]
        self.shape = (len(rows), settings.input.height, settings.input.width, 3)

    def __len__(self) -> int:
        return len(self._digests)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        return self._cache.read([self._digests[index] for index in np.asarray(indices).ravel()])


@dataclass(frozen=True)
class TrainedModel:
    """Where the trained model lies, and how it came about."""

    key: str
    sha256: str  # of its file
    recipe: str
    defect_types: tuple[str, ...]  # those that the model can name; () = none
    seconds: float
    curves: "tuple[Epoch, ...]"
    notes: tuple[str, ...]
    figures: dict[str, float]


def prepare(settings: Settings) -> Snapshot:
    """Check that images are there, then the weights, then the images; decode, cache and divide them.

    Raises:
        TrainingError: the weights cannot be had.
        SettingsError: no images are named.
        DataError: the images cannot be learned from; the message names the files.
    """
    from inspection.model.backbones import check_weights

    location = find_images(settings)
    check_place(location)  # the weights may take a download: a mistyped --data is told before it
    check_weights(settings.training)
    snapshot = prepare_dataset(settings, location, open_storage(settings.storage_root))
    check_enough(settings, snapshot)
    return snapshot


def count_images(snapshot: Snapshot) -> dict[str, dict[str, int]]:
    """Images by split and by label or defect type."""
    counts: dict[str, dict[str, int]] = {}
    for row in snapshot.rows:
        name = row.label if row.defect_type is None else f"{row.label}: {row.defect_type}"
        split = counts.setdefault(row.split, {})
        split[name] = split.get(name, 0) + 1
    return counts


def tags(settings: Settings, snapshot: Snapshot) -> list[str]:
    """What runs are found by in the Metaflow UI."""
    return [
        f"line:{settings.line.name}",
        f"snapshot:{snapshot.id[:12]}",
        f"backbone:{settings.training.backbone}",
        f"recipe:{settings.training.recipe}",
    ]


def recipes_to_compare(settings: Settings, snapshot_id: str) -> list[str]:
    """The recipes that the comparison step fans out over; a recipe of the settings' own goes alone."""
    from inspection.model.training import recipes_to_compare

    compared = recipes_to_compare(settings.training, load_training_set(settings, snapshot_id))
    if compared == ["frozen"]:
        log.warning("event=recipes_not_compared reason='%s'", TOO_FEW)
    return compared or [settings.training.recipe]


def compare_recipe(settings: Settings, snapshot_id: str, recipe: str, recipes: int) -> "CrossValidation | None":
    """Cross-validate a recipe on the training part; None when the settings leave nothing to compare.

    Args:
        settings: of the line.
        snapshot_id: of the data set.
        recipe: which.
        recipes: how many are compared, and share the time.
    """
    from inspection.model.checkpoints import StoredCheckpoints
    from inspection.model.training import cross_validate

    if settings.training.recipe != "auto":
        return None
    prefix = f"checkpoints/{training_digest(settings, snapshot_id, recipe)}/folds"
    place = StoredCheckpoints(open_storage(settings.storage_root), prefix)
    share = budget.for_recipe(settings.training, recipes)
    return cross_validate(recipe, load_training_set(settings, snapshot_id), share, place)


def choose_recipe(
    settings: Settings, snapshot_id: str, comparisons: "Sequence[CrossValidation | None]"
) -> "RecipeChoice":
    """The simplest recipe that is not worse, with what was found; the one of the settings when none was compared."""
    from inspection.model import selection

    compared = [comparison for comparison in comparisons if comparison is not None]
    if not compared:
        recipe = settings.training.recipe
        return selection.RecipeChoice(recipe, recipe, {}, (), f"{recipe}, as the line's settings say; nothing compared")
    choice = selection.choose_recipe(compared, load_training_set(settings, snapshot_id), settings.training.seed)
    if [comparison.recipe for comparison in compared] == ["frozen"]:
        return dataclasses.replace(choice, explanation=f"{choice.explanation} Nothing compared: {TOO_FEW}")
    return choice


def train_model(
    settings: Settings,
    snapshot_id: str,
    recipe: str,
    on_progress: "ProgressCallback | None" = None,
    spent_s: float = 0.0,
) -> TrainedModel:
    """Train on the whole training part, resuming from the checkpoints of a run that was cut off.

    Checkpoints and the model are kept under the hash of the snapshot and of the settings that matter, so that a
    retry, a resume and another machine find them.

    Args:
        settings: of the line.
        snapshot_id: of the data set.
        recipe: frozen, finetune or both.
        on_progress: called as training goes on.
        spent_s: seconds of `max_minutes` that the comparisons before took.
    """
    from inspection.model.checkpoints import StoredCheckpoints
    from inspection.model.storing import save_model
    from inspection.model.training import train

    storage = open_storage(settings.storage_root)
    prefix = f"checkpoints/{training_digest(settings, snapshot_id, recipe)}"
    training_set = load_training_set(settings, snapshot_id)
    place = StoredCheckpoints(storage, f"{prefix}/epochs")
    trained = train(recipe, training_set, budget.for_final(settings.training, spent_s), place, on_progress)
    with TemporaryDirectory(prefix="lineside-model-") as scratch:
        path = Path(scratch) / "model.pt"
        save_model(trained.model, path)
        stored = store_model(storage, path, f"{prefix}/model")
    return TrainedModel(
        key=stored.key,
        sha256=stored.sha256,
        recipe=recipe,
        defect_types=tuple(trained.model.defect_types),
        seconds=trained.seconds,
        curves=trained.curves,
        notes=trained.notes,
        figures=trained.figures,
    )


def load_training_set(settings: Settings, snapshot_id: str) -> "TrainingSet":
    """The training part of a snapshot; pixels are read from the cache when asked for."""
    from inspection.model.examples import TrainingSet

    snapshot = load_snapshot(open_storage(settings.storage_root), snapshot_id)
    rows = snapshot.select("train")
    names = snapshot.defect_types
    return TrainingSet(
        pixels=CachedPixels(settings, rows),
        is_bad=np.array([row.label == "bad" for row in rows]),
        types=np.array([-1 if row.defect_type is None else names.index(row.defect_type) for row in rows]),
        groups=[row.group for row in rows],
        defect_types=names,
    )


def load_trained(settings: Settings, trained: TrainedModel) -> "Scorer":
    """The trained model of a run.

    Raises:
        StorageError: it is gone or was changed.
    """
    from inspection.model.storing import load_model

    return load_model(fetch_model(open_storage(settings.storage_root), trained.key, trained.sha256, "train"))


def open_cache(settings: Settings) -> PixelCache:
    """The prepared images of this line's input contract."""
    return PixelCache(open_storage(settings.storage_root), settings.input.contract())


def training_digest(settings: Settings, snapshot_id: str, recipe: str) -> str:
    """Names what a training run depends on; the weights count by their content, not by their path."""
    weights = Path(settings.training.weights)
    content = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else settings.training.weights
    fields = [str(TRAINING_VERSION), snapshot_id, settings.digest("input", "training"), recipe, content]
    return hashlib.sha256("\n".join(fields).encode()).hexdigest()[:32]
