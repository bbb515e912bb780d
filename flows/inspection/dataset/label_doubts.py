"""Labels that the most similar pictures contradict: a second, optional pass.

The line's own frozen backbone (`[training] backbone` and `weights`) turns every picture into features, and each picture
is compared with its nearest neighbours of other parts. Where nearly all of them bear the other label, the label is in
doubt. This reads the images again and loads torch, which the other checks do without.

How much a vote is worth depends on the set. Where neighbours hardly ever contradict a label (`CLEAR`), a majority of
them is enough for a doubt; elsewhere it takes nearly all. Where they contradict a class often (`BLIND`), such features
cannot see its defects, and nothing is said.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from edge.errors import ImageError
from edge.preprocess import prepare_file
from inspection.dataset.findings import Finding, make_finding
from inspection.dataset.images import Source, SourceImage
from inspection.dataset.parallel import available_cores, map_ahead, progress_bar
from inspection.settings import Settings

_log = logging.getLogger(__name__)

NEIGHBOURS = 7
DOUBTFUL = 0.8  # share of the neighbours' votes for the other label, classes weighed alike
DOUBTFUL_IF_CLEAR = 0.55
CLEAR, BLIND = 0.1, 0.35  # share of a class whose neighbours mostly bear the other label
_LEAST_PER_CLASS = 2 * NEIGHBOURS
_SHOWN_NEIGHBOURS = 3
_BATCH = 32
_BLOCK = 1024  # images compared with all others at once

Features = Callable[[np.ndarray], np.ndarray]  # uint8 [N, H, W, 3] to float [N, F]


def find_label_doubts(
    images: Sequence[SourceImage],
    source: Source,
    settings: Settings,
    alike: Sequence[Sequence[str]] = (),
    features: Features | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Iterator[Finding]:
    """Images whose nearest neighbours bear the other label.

    Args:
        images: that can be decoded.
        source: reads them.
        settings: of the line.
        alike: groups of uris that show one capture: a copy is no witness.
        features: what describes pictures; default the line's frozen backbone.
        workers: threads that decode; default one per core.
        progress: show a bar on stderr if that is a terminal.

    Raises:
        TrainingError: the backbone's weights are missing or do not fit.
    """
    bad = np.array([image.label == "bad" for image in images])
    if min(int(bad.sum()), int((~bad).sum())) < _LEAST_PER_CLASS:
        _log.info("event=label_doubts_skipped images=%d want_per_class=%d", len(images), _LEAST_PER_CLASS)
        return
    described, kept = _describe(images, source, settings, features or line_features(settings), workers, progress)
    images, bad = [images[place] for place in kept], bad[kept]
    votes, neighbours = vote(described, bad, _part_numbers(images, alike))
    contradicted = max(float((votes[members] > 0.5).mean()) for members in (bad, ~bad))
    _log.info(
        "event=labels_compared images=%d contradicted=%.2f blind=%s", len(bad), contradicted, contradicted > BLIND
    )
    if contradicted > BLIND:
        return
    doubted = votes >= (DOUBTFUL_IF_CLEAR if contradicted <= CLEAR else DOUBTFUL)
    found = [int(place) for place in np.argsort(-votes, kind="stable") if doubted[place]]
    if not found:
        return
    first = images[found[0]]
    shares: dict[str, float | str] = {images[place].uri: f"{votes[place]:.0%} against" for place in found}
    yield make_finding(
        "doubtful-label",
        f"{len(found)} label{'' if len(found) == 1 else 's'}, such as {first.label} for {first.uri}: "
        f"{votes[found[0]]:.0%} of the votes of its {NEIGHBOURS} nearest neighbours are for the other label",
        ([images[place].uri, *(images[n].uri for n in neighbours[place][:_SHOWN_NEIGHBOURS])] for place in found),
        shares,
    )


def vote(features: np.ndarray, bad: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the nearest neighbours of each picture say against its label.

    Args:
        features: float, [N, F].
        bad: bool, [N].
        parts: number of the part that a picture shows, [N]; pictures of one part do not vote for each other.

    Returns:
        share of the votes for the other label, classes weighed alike, float [N]; and the neighbours, [N, NEIGHBOURS].
    """
    spread = features.std(axis=0)
    scaled = ((features - features.mean(axis=0)) / np.where(spread > 1e-6, spread, 1.0)).astype(np.float32)
    scaled /= np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-9)
    weight = np.where(bad, 1 / bad.sum(), 1 / (~bad).sum())
    against = np.zeros(len(bad))
    neighbours = np.zeros((len(bad), NEIGHBOURS), dtype=np.int64)
    for start in range(0, len(bad), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(bad)))
        alike = scaled[rows] @ scaled.T
        alike[parts[rows, None] == parts[None, :]] = -2.0
        nearest = np.argsort(-alike, axis=1, kind="stable")[:, :NEIGHBOURS]
        other = bad[nearest] != bad[rows, None]
        against[rows] = (weight[nearest] * other).sum(axis=1) / weight[nearest].sum(axis=1)
        neighbours[rows] = nearest
    return against, neighbours


def line_features(settings: Settings) -> Features:
    """Features pooled from the line's backbone as it is before training.

    Raises:
        TrainingError: its weights are missing or do not fit.
    """
    from inspection.model.backbones import ARCHITECTURES, load_backbone
    from inspection.model.classifier import Classifier, Design
    from inspection.model.features import pooled_features

    training = settings.training
    architecture = ARCHITECTURES[training.backbone]
    taps = architecture.untrained_taps if training.weights == "none" else architecture.taps
    layers = load_backbone(training.backbone, training.weights, training.seed)
    model = Classifier(Design(training.backbone, taps, ("mean",)), layers)
    return lambda pixels: pooled_features(model, pixels, len(pixels))


def _describe(
    images: Sequence[SourceImage],
    source: Source,
    settings: Settings,
    features: Features,
    workers: int | None,
    progress: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Features of the images and the places of those that could be read, float32 [M, F] and int [M]."""
    contract = settings.input.contract()

    def prepare(image: SourceImage) -> np.ndarray | None:
        try:
            return prepare_file(source.read(image.uri), contract, image.uri).pixels
        except (OSError, ImageError) as error:
            _log.warning("event=image_gone uri=%s error=%s", image.uri, error)
            return None

    parts, kept, batch = [], [], []
    with (
        ThreadPoolExecutor(workers or available_cores()) as pool,
        progress_bar(len(images), progress, "comparing labels") as advance,
    ):
        for place, pixels in enumerate(map_ahead(pool, prepare, images, 2 * _BATCH)):
            if pixels is not None:
                kept.append(place)
                batch.append(pixels)
            if batch and (len(batch) == _BATCH or place == len(images) - 1):
                parts.append(features(np.concatenate(batch)).astype(np.float32))
                batch = []
            advance(1)
    if batch:
        parts.append(features(np.concatenate(batch)).astype(np.float32))
    return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32), np.array(kept, dtype=np.int64)


def _part_numbers(images: Sequence[SourceImage], alike: Sequence[Sequence[str]]) -> np.ndarray:
    """A number for each part: images of one group, or that show one capture, share it."""
    copy_of: Mapping[str, str] = {uri: uris[0] for uris in alike for uri in uris}
    group_of = {image.uri: image.group for image in images}
    names = [group_of.get(copy_of.get(image.uri, image.uri), image.group) for image in images]
    return np.unique(names, return_inverse=True)[1]
