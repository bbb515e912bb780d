"""Recipe (b): the whole network fine-tuned at a low rate, with the batch norm statistics it came with."""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from inspection.model.allocator import keep_freed_memory
from inspection.model.augmentation import augment
from inspection.model.backbones import ARCHITECTURES, load_backbone
from inspection.model.checkpoints import Checkpoints
from inspection.model.classifier import Classifier, Design
from inspection.model.examples import TrainingSet, learnable_types, thin_out, validation_fold
from inspection.model.features import MAX_ROWS, estimate_batch_norm, pooled_features, standardisation
from inspection.model.frozen import balanced_losses, fit_common_scale
from inspection.model.loading import load_batches, shuffled_batches
from inspection.model.progress import Epoch
from inspection.settings import TrainingSettings

log = logging.getLogger(__name__)

VALIDATION_FOLDS = 5  # one of them tells when to stop
BACKBONE_RATE = 0.1  # of the head's learning rate
TYPE_LOSS_WEIGHT = 0.3  # beside the defect loss


@dataclass
class State:
    """All that changes from epoch to epoch; a checkpoint holds it."""

    model: Classifier
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    epoch: int = 0
    best_loss: float = float("inf")
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    stale: int = 0  # epochs since the best one
    seconds: float = 0.0
    curves: list[Epoch] = field(default_factory=list)
    finished: bool = False

    def content(self, fingerprint: str) -> dict[str, Any]:
        """The checkpoint. No random state: every epoch seeds its own from (seed, epoch)."""
        return {
            "fingerprint": fingerprint,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "curves": [dataclasses.asdict(epoch) for epoch in self.curves],
            **{name: getattr(self, name) for name in ("epoch", "best_loss", "best", "stale", "seconds", "finished")},
        }

    def restore(self, content: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.model.load_state_dict(content["model"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.schedule.load_state_dict(content["schedule"])
        self.curves = [Epoch(**epoch) for epoch in content["curves"]]
        for name in ("epoch", "best_loss", "best", "stale", "seconds", "finished"):
            setattr(self, name, content[name])


def finetune(
    training_set: TrainingSet,
    settings: TrainingSettings,
    device: torch.device,
    deadline: float,
    checkpoints: Checkpoints | None = None,
    name: str = "finetune",
    fingerprint: str = "",
    watch: Callable[[list[Epoch]], None] | None = None,
) -> tuple[Classifier, list[Epoch], float]:
    """Fine-tune a backbone and a head on its last layer's mean.

    A part of the groups is kept aside: its loss decides when to stop and which epoch is kept, and its scores bring
    the logits to the common scale.

    Args:
        training_set: all images of the training part.
        settings: rates, epochs, patience, augmentation.
        device: where to train.
        deadline: of `time.monotonic`; training stops in good order when it has passed. It comes earlier by what an
            interrupted training had spent already.
        checkpoints: where each epoch is kept, and from where an interrupted training goes on.
        name: of the checkpoint.
        fingerprint: a checkpoint with another one is not continued.
        watch: called after each epoch, when its checkpoint is safe.

    Returns:
        the model of the best epoch in eval mode, all epochs, and the seconds that an interrupted training had spent.
    """
    rest, part = validation_fold(training_set, VALIDATION_FOLDS, settings.seed)
    learn, judge = training_set.select(rest), training_set.select(part)
    state = _start(learn, learnable_types(training_set), settings, device)
    saved = checkpoints.load(name) if checkpoints else None
    if saved is not None and saved["fingerprint"] == fingerprint:
        state.restore(saved)
        log.info("event=training_resumed checkpoint=%s epoch=%d", name, state.epoch)
    elif saved is not None:
        log.warning("event=checkpoint_ignored checkpoint=%s reason='it is of other data or settings'", name)
    earlier_s = state.seconds
    deadline -= earlier_s
    state.finished |= bool(state.curves) and time.monotonic() >= deadline
    if watch and state.curves:
        watch(state.curves)
    while not state.finished:
        _run_epoch(state, learn, judge, settings, device, deadline)
        state.finished = (
            state.epoch >= settings.epochs or state.stale >= settings.patience or time.monotonic() >= deadline
        )
        if checkpoints:
            checkpoints.save(name, state.content(fingerprint))
        if watch:
            watch(state.curves)
    state.model.load_state_dict(state.best)
    state.model.centre_head(False)
    slope, offset = fit_common_scale(state.model.score_pixels(judge.pixels, settings.batch_size), judge.is_bad)
    with torch.no_grad():
        state.model.score.weight.mul_(slope)
        state.model.score.bias.mul_(slope).add_(offset)
    return state.model.eval(), state.curves, earlier_s


def _start(
    learn: TrainingSet, defect_types: tuple[str, ...], settings: TrainingSettings, device: torch.device
) -> State:
    architecture = ARCHITECTURES[settings.backbone]
    layers = load_backbone(settings.backbone, settings.weights, settings.seed)
    design = Design(settings.backbone, architecture.taps[-1:], ("mean",), defect_types)
    model = Classifier(design, layers).to(device).to(memory_format=torch.channels_last)
    if settings.weights == "none":
        estimate_batch_norm(model, learn.pixels, settings.batch_size, settings.seed)
    features = pooled_features(model, thin_out(learn, MAX_ROWS, settings.seed).pixels, settings.batch_size)
    mean, std = standardisation(features, [features.shape[1]])
    model.set_standardisation(torch.from_numpy(mean), torch.from_numpy(std))
    model.centre_head(True)
    if model.types is not None:
        nn.init.zeros_(model.types.weight)
        nn.init.zeros_(model.types.bias)
    heads = [*model.score.parameters(), *(model.types.parameters() if model.types is not None else ())]
    optimiser = torch.optim.AdamW(
        [
            {"params": list(model.layers.parameters()), "lr": settings.learning_rate * BACKBONE_RATE},
            {"params": heads, "lr": settings.learning_rate},
        ],
        weight_decay=settings.weight_decay,
    )
    steps = settings.epochs * len(shuffled_batches(len(learn), settings.batch_size, 0, 0))
    return State(model, optimiser, torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps))


def _run_epoch(
    state: State,
    learn: TrainingSet,
    judge: TrainingSet,
    settings: TrainingSettings,
    device: torch.device,
    deadline: float,
) -> None:
    """Train one epoch, then judge it; stops early inside the epoch when the deadline has passed."""
    started = time.monotonic()
    epoch = state.epoch + 1
    losses, seen = train_epoch(state.model, state.optimiser, state.schedule, learn, settings, device, epoch, deadline)
    trained_s = time.monotonic() - started
    validation_loss, auroc = _judge(state.model, judge, settings)
    if validation_loss < state.best_loss:
        state.best_loss, state.stale = validation_loss, 0
        state.best = {key: value.detach().clone() for key, value in state.model.state_dict().items()}
    else:
        state.stale += 1
    state.epoch = epoch
    state.seconds += time.monotonic() - started
    state.curves.append(Epoch(epoch, losses, validation_loss, auroc, seen / max(trained_s, 1e-9)))
    log.info(
        "event=epoch epoch=%d loss=%.4f validation_loss=%.4f validation_auroc=%.4f images_per_s=%.1f",
        *dataclasses.astuple(state.curves[-1]),
    )


def train_epoch(
    model: Classifier,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    learn: TrainingSet,
    settings: TrainingSettings,
    device: torch.device,
    epoch: int,
    deadline: float,
) -> tuple[float, int]:
    """Go once over the training part; returns the mean loss and how many images were used."""
    keep_freed_memory()
    train_mode(model)
    generator = torch.Generator(device).manual_seed(settings.seed * 1_000_003 + epoch)
    weights = class_weights(learn.is_bad)
    known = _known_types(learn, model.defect_types)
    total, seen = torch.zeros((), device=device), 0
    batches = shuffled_batches(len(learn), settings.batch_size, settings.seed, epoch)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(settings.seed * 1_000_003 + epoch)  # layers that draw for themselves: stochastic depth
        for rows, images in load_batches(learn.pixels, batches, device):
            images = augment(images, settings.augmentation, generator)
            with autocast(device):
                output = model(images)
            loss = batch_loss(output, learn.is_bad[rows], weights[rows], known[rows])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.detach() * len(rows)  # stays on the device: reading it would wait for the step
            seen += len(rows)
            if time.monotonic() >= deadline:
                break
    return float(total) / seen, seen


def class_weights(is_bad: np.ndarray) -> np.ndarray:
    """Weight of each image so that both classes weigh the same and the mean is 1; float32 [N]."""
    bad = float(is_bad.mean())
    return np.where(is_bad, 0.5 / bad, 0.5 / (1 - bad)).astype(np.float32)


def autocast(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """bfloat16 on a GPU that has it; on a CPU it gains nothing."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.autocast("cuda", torch.bfloat16)
    return contextlib.nullcontext()


def batch_loss(output: Any, is_bad: np.ndarray, weights: np.ndarray, types: np.ndarray) -> torch.Tensor:
    """Class-balanced logistic loss of the score, and the cross-entropy of the types where they are known."""
    score = output[0] if isinstance(output, tuple) else output
    on_device = {"device": score.device, "non_blocking": True}
    labels = torch.from_numpy(is_bad.astype(np.float32)).to(**on_device)
    losses = F.binary_cross_entropy_with_logits(score[:, 0].float(), labels, reduction="none")
    loss = (losses * torch.from_numpy(weights).to(**on_device)).mean()
    if isinstance(output, tuple) and (types >= 0).any():
        target = torch.from_numpy(types).to(**on_device)
        loss = loss + TYPE_LOSS_WEIGHT * F.cross_entropy(output[1].float(), target, ignore_index=-1)
    return loss


def _known_types(learn: TrainingSet, names: tuple[str, ...]) -> np.ndarray:
    """Index of each bad image's type among `names`, -1 for none; int64 [N]."""
    translation = np.array([names.index(name) if name in names else -1 for name in learn.defect_types] + [-1])
    return np.where(learn.is_bad, translation[learn.types], -1).astype(np.int64)


def _judge(model: Classifier, judge: TrainingSet, settings: TrainingSettings) -> tuple[float, float]:
    """Balanced loss and AUROC on images that are not trained on."""
    from sklearn.metrics import roc_auc_score

    scores = model.score_pixels(judge.pixels, settings.batch_size)
    return float(balanced_losses(scores, judge.is_bad).mean()), float(roc_auc_score(judge.is_bad, scores))


def train_mode(model: Classifier) -> None:
    """Training mode, except that batch norm keeps its statistics: a few images would only spoil them."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
