"""The two recipes as functions from a training set to a classifier."""

import hashlib
import logging
import time

import numpy as np
import torch

from inspection.model.backbones import ARCHITECTURES, load_backbone
from inspection.model.checkpoints import Checkpoints, fingerprint
from inspection.model.classifier import HEAD_CENTRE, Classifier, Design
from inspection.model.examples import Rows, TrainingSet, learnable_types, thin_out
from inspection.model.features import MAX_ROWS, estimate_batch_norm, learn_places, pooled_features, standardisation
from inspection.model.finetune import finetune
from inspection.model.frozen import Head, LogisticFits, fit_score_head, fit_type_head
from inspection.model.progress import Epoch, Progress, ProgressCallback, progress_bar
from inspection.settings import TrainingSettings

log = logging.getLogger(__name__)

CLIP = 2 * HEAD_CENTRE  # standard deviations at which the graph cuts features off


def train_frozen(
    training_set: TrainingSet,
    settings: TrainingSettings,
    device: torch.device,
    deadline: float,
    progress: ProgressCallback | None = None,
) -> tuple[Classifier, dict[str, float]]:
    """Recipe (a): one pass of the backbone over each view of the images, then logistic regression.

    Of more than `MAX_ROWS` images a seeded choice is learned from: their features would not fit memory.

    Returns:
        the model, and figures of the inner cross-validation that set the penalty.
    """
    training_set = thin_out(training_set, MAX_ROWS, settings.seed)
    layers = load_backbone(settings.backbone, settings.weights, settings.seed)
    design = _frozen_design(training_set, settings)
    model = Classifier(design, layers).to(device).to(memory_format=torch.channels_last).eval()
    if settings.weights == "none":
        estimate_batch_norm(model, training_set.pixels, settings.batch_size, settings.seed)
    if design.place_taps:
        good = Rows(training_set.pixels, np.flatnonzero(~training_set.is_bad))
        learn_places(model, good, settings.batch_size)
    features, views = _views(model, training_set, settings, deadline, progress)
    mean, std = standardisation(features, model.widths)
    features -= mean.astype(np.float32)
    features /= std.astype(np.float32)
    np.clip(features, -CLIP, CLIP, out=features)
    fits = LogisticFits(features, views)
    head, figures = fit_score_head(fits, training_set, settings.seed)
    model.set_standardisation(torch.from_numpy(mean), torch.from_numpy(std))
    _set_head(model.score, head)
    if model.types is not None:
        _set_head(model.types, fit_type_head(fits, training_set, design.defect_types, figures["C"]))
    figures |= {"views": float(views - 1), "images": float(len(training_set))}
    log.info("event=frozen_fitted %s", " ".join(f"{name}={value:.4g}" for name, value in figures.items()))
    return model, figures


def train_finetuned(
    training_set: TrainingSet,
    settings: TrainingSettings,
    device: torch.device,
    deadline: float,
    checkpoints: Checkpoints | None = None,
    progress: ProgressCallback | None = None,
) -> tuple[Classifier, list[Epoch], float]:
    """Recipe (b): fine-tuning with progress and checkpoints; returns what `finetune` does."""
    shown = 0
    with progress_bar("fine-tuning", settings.epochs) as advance:

        def watch(curves: list[Epoch]) -> None:
            nonlocal shown
            latest = curves[-1]
            advance(len(curves) - shown, f"loss {latest.loss:.3f}, validation AUROC {latest.validation_auroc:.3f}")
            shown = len(curves)
            if progress:
                progress(Progress("finetune", "epochs", len(curves), settings.epochs, tuple(curves)))

        return finetune(
            training_set,
            settings,
            device,
            deadline,
            checkpoints=checkpoints,
            fingerprint=_fingerprint(training_set, settings),
            watch=watch,
        )


def _frozen_design(training_set: TrainingSet, settings: TrainingSettings) -> Design:
    """Which features the frozen recipe pools."""
    architecture = ARCHITECTURES[settings.backbone]
    untrained = settings.weights == "none"
    taps = architecture.untrained_taps if untrained else architecture.taps
    place_taps = architecture.untrained_taps if untrained else architecture.place_taps
    height, width = training_set.pixels.shape[1:3]
    return Design(
        settings.backbone,
        taps,
        defect_types=learnable_types(training_set),
        place_taps=place_taps if settings.fixed_pose else (),
        input_size=(height, width),
    )


def _views(
    model: Classifier,
    training_set: TrainingSet,
    settings: TrainingSettings,
    deadline: float,
    progress: ProgressCallback | None,
) -> tuple[np.ndarray, int]:
    """Features of the images and of their augmented views, float32 [views * N, F]; fewer views of very many images."""
    wanted = 1 + min(settings.views, max(0, MAX_ROWS // len(training_set) - 1))
    if wanted < 1 + settings.views:
        log.info("event=fewer_views wanted=%d taken=%d reason='memory for features'", settings.views, wanted - 1)
    total, done, parts = wanted * len(training_set), 0, []
    with progress_bar("features", total) as advance:

        def count(images: int) -> None:
            nonlocal done
            done += images
            advance(images, "")

        for view in range(wanted):
            augmentation = settings.augmentation if view else None
            seed = settings.seed * 1_000_003 + view
            pixels = training_set.pixels
            parts.append(pooled_features(model, pixels, settings.batch_size, augmentation, seed, count))
            if progress:
                progress(Progress("frozen", "features", done, total))
            if time.monotonic() >= deadline:
                break
    return np.concatenate(parts), len(parts)


@torch.no_grad()
def _set_head(layer: torch.nn.Linear, head: Head) -> None:
    """The layer sees HEAD_CENTRE + z / 2 where the head was fitted to z."""
    layer.weight.copy_(torch.from_numpy(2 * head.weight))
    layer.bias.copy_(torch.from_numpy(head.bias - 2 * HEAD_CENTRE * head.weight.sum(axis=1)))


def _fingerprint(training_set: TrainingSet, settings: TrainingSettings) -> str:
    """Digest of the settings, the labels and a sample of the pixels."""
    some = np.linspace(0, len(training_set) - 1, min(len(training_set), 64)).astype(np.int64)
    relevant = {key: value for key, value in vars(settings).items() if key != "max_minutes"}
    return fingerprint(
        settings=relevant,
        shape=list(training_set.pixels.shape),
        labels=hashlib.sha256(np.ascontiguousarray(training_set.types).tobytes()).hexdigest(),
        bad=hashlib.sha256(np.ascontiguousarray(training_set.is_bad, dtype=bool).tobytes()).hexdigest(),
        groups=list(training_set.groups),
        pixels=hashlib.sha256(np.ascontiguousarray(training_set.pixels[some]).tobytes()).hexdigest(),
    )
