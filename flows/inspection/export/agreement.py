"""How far two sets of scores of the same images agree, and what a device does with a picture and its JPEG."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from edge.contract import OperatingPoint
from edge.verdict import decide
from inspection.decision.bounds import clopper_pearson_upper
from inspection.errors import ParityError
from inspection.settings import ExportSettings

RESAMPLES = 1000  # of the bootstrap
MIN_JPEG_AGREEMENT = 0.995  # share of images with the same verdict on the raw frame and its JPEG


@dataclass(frozen=True)
class ParityReport:
    """How far one converted model agrees with the trained one. Scores are logits."""

    kind: str  # "int8" or "float32"
    passed: bool
    faults: tuple[str, ...]  # the limits that were broken, in words
    images: int  # compared, copies included
    sources: int  # different pictures among them
    correlation: float  # Pearson, of the scores
    mean_difference: float  # converted - trained
    mean_abs_difference: float
    max_abs_difference: float
    auroc_trained: float
    auroc_converted: float
    auroc_loss: float  # trained - converted
    auroc_loss_interval: tuple[float, float]  # paired bootstrap over source pictures, at `confidence`
    threshold: float  # the trained model's best: the largest true positive rate - false positive rate
    flips: int  # images on the other side of that threshold
    flip_rate: float
    flip_rate_upper: float  # one-sided Clopper-Pearson bound at `confidence`
    confidence: float
    flipped: tuple[int, ...]  # their indices among the images compared, the largest difference first

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return dataclasses.asdict(self)

    def summary(self) -> str:
        """One line for a person."""
        low, high = self.auroc_loss_interval
        return (
            f"{self.kind} {'agrees' if self.passed else 'does NOT agree'} with the trained model on "
            f"{1 - self.flip_rate:.2%} of {self.images} images ({self.flips} flips, at most {self.flip_rate_upper:.2%} "
            f"at {self.confidence:.0%} confidence), correlation {self.correlation:.4f}, AUROC loss "
            f"{self.auroc_loss:.4f} [{low:.4f}, {high:.4f}]"
        )


def check_parity(
    trained_scores: np.ndarray,
    converted_scores: np.ndarray,
    is_bad: np.ndarray,
    settings: ExportSettings,
    kind: str,
    source_index: np.ndarray | None = None,
    seed: int = 0,
) -> ParityReport:
    """Compare the scores of a converted model with those of the trained one.

    Args:
        trained_scores: float64 [N], logits.
        converted_scores: float64 [N].
        is_bad: bool [N].
        settings: the limits.
        kind: of the converted model.
        source_index: int64 [N]; images of one source are resampled together. None: each is its own.
        seed: of the bootstrap.

    Raises:
        ParityError: one class only, so that nothing can be compared.
    """
    if is_bad.all() or not is_bad.any():
        raise ParityError(f"parity gate: want good and bad images, found {is_bad.sum()} bad of {len(is_bad)}")
    source_index = np.arange(len(is_bad)) if source_index is None else source_index
    difference = converted_scores - trained_scores
    threshold = best_threshold(trained_scores, is_bad)
    flipped = np.flatnonzero((trained_scores > threshold) != (converted_scores > threshold))
    flipped = flipped[np.argsort(-np.abs(difference[flipped]), kind="stable")]
    trained_auroc, converted_auroc = auroc(trained_scores, is_bad), auroc(converted_scores, is_bad)
    measured = {
        "correlation": _correlation(trained_scores, converted_scores),
        "auroc_loss": trained_auroc - converted_auroc,
        "flip_rate": len(flipped) / len(is_bad),
    }
    faults = _faults(measured, settings)
    return ParityReport(
        kind=kind,
        passed=not faults,
        faults=faults,
        images=len(is_bad),
        sources=len(np.unique(source_index)),
        **measured,
        mean_difference=float(difference.mean()),
        mean_abs_difference=float(np.abs(difference).mean()),
        max_abs_difference=float(np.abs(difference).max()),
        auroc_trained=trained_auroc,
        auroc_converted=converted_auroc,
        auroc_loss_interval=_bootstrap(
            trained_scores, converted_scores, is_bad, source_index, settings.confidence, seed
        ),
        threshold=threshold,
        flips=len(flipped),
        flip_rate_upper=clopper_pearson_upper(len(flipped), len(is_bad), settings.confidence),
        confidence=settings.confidence,
        flipped=tuple(int(index) for index in flipped),
    )


@dataclass(frozen=True)
class JpegAgreement:
    """Whether raw frames and their own JPEGs get the same verdicts."""

    passed: bool
    images: int
    agreement: float  # share with the same verdict
    agreement_lower: float  # one-sided Clopper-Pearson bound at `confidence`
    agreement_upper: float  # likewise; below the limit, chance does not explain what was found
    confidence: float
    max_abs_difference: float  # of the scores, logits
    differing: tuple[int, ...]  # indices of images with two verdicts

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return dataclasses.asdict(self)


def jpeg_agreement(
    raw_scores: np.ndarray, jpeg_scores: np.ndarray, point: OperatingPoint, confidence: float = 0.95
) -> JpegAgreement:
    """Compare the verdicts on raw frames with those on their JPEGs, at the operating point that ships.

    Args:
        raw_scores: float64 [N], logits of the artifact on raw frames.
        jpeg_scores: float64 [N], of the same frames saved as JPEG (quality 95) and read again.
        point: the thresholds.
        confidence: of the bound.
    """
    raw, jpeg = ([decide(float(score), point) for score in scores] for scores in (raw_scores, jpeg_scores))
    differing = tuple(index for index, pair in enumerate(zip(raw, jpeg, strict=True)) if pair[0] != pair[1])
    rate = len(differing) / len(raw)
    return JpegAgreement(
        passed=1 - rate >= MIN_JPEG_AGREEMENT,
        images=len(raw),
        agreement=1 - rate,
        agreement_lower=1 - clopper_pearson_upper(len(differing), len(raw), confidence),
        agreement_upper=clopper_pearson_upper(len(raw) - len(differing), len(raw), confidence),
        confidence=confidence,
        max_abs_difference=float(np.abs(np.asarray(raw_scores) - jpeg_scores).max()),
        differing=differing,
    )


def best_threshold(scores: np.ndarray, is_bad: np.ndarray) -> float:
    """The score that separates best: largest (true positive rate - false positive rate).

    It lies half-way between two scores; of several equally good ones, in the widest gap.

    Source: Youden, Cancer 3 (1950).
    """
    values = np.unique(scores)
    if len(values) == 1:
        return float(values[0])
    bad, good = np.sort(scores[is_bad]), np.sort(scores[~is_bad])
    cuts = (values[:-1] + values[1:]) / 2
    caught = 1 - np.searchsorted(bad, cuts, side="right") / len(bad)
    false_alarms = 1 - np.searchsorted(good, cuts, side="right") / len(good)
    youden = caught - false_alarms
    best = np.flatnonzero(np.isclose(youden, youden.max(), rtol=0, atol=1e-12))
    return float(cuts[best[np.argmax(np.diff(values)[best])]])


def auroc(scores: np.ndarray, is_bad: np.ndarray) -> float:
    """Probability that a bad image scores above a good one; ties count half.

    Source: Mann and Whitney, Annals of Mathematical Statistics 18 (1947).
    """
    bad = int(is_bad.sum())
    good = len(is_bad) - bad
    return float((rankdata(scores)[is_bad].sum() - bad * (bad + 1) / 2) / (bad * good))


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's; 0 when either does not vary, since then nothing is told apart."""
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _bootstrap(
    trained: np.ndarray, converted: np.ndarray, is_bad: np.ndarray, source: np.ndarray, confidence: float, seed: int
) -> tuple[float, float]:
    """Interval of the AUROC loss: sources are drawn with replacement, good and bad apart, both models see the same."""
    generator = np.random.default_rng(seed)
    _, source = np.unique(source, return_inverse=True)
    bad_source = np.zeros(source.max() + 1, bool)
    bad_source[source[is_bad]] = True
    places = [np.unique(scores, return_inverse=True)[1] for scores in (trained, converted)]
    losses = []
    for _ in range(RESAMPLES):
        times = np.zeros(len(bad_source))  # that each source was drawn
        for members in (np.flatnonzero(bad_source), np.flatnonzero(~bad_source)):
            drawn = members[generator.integers(0, len(members), len(members))]
            times += np.bincount(drawn, minlength=len(times))
        weights = times[source]
        losses.append(_weighted_auroc(places[0], is_bad, weights) - _weighted_auroc(places[1], is_bad, weights))
    low, high = np.quantile(losses, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _weighted_auroc(place: np.ndarray, is_bad: np.ndarray, weights: np.ndarray) -> float:
    """`auroc` of images that count `weights` times; `place` is the rank of their score among the different ones."""
    bad = np.bincount(place, weights=weights * is_bad)
    good = np.bincount(place, weights=weights * ~is_bad)
    below = np.cumsum(good) - good
    return float((bad * (below + good / 2)).sum() / (bad.sum() * good.sum()))


def _faults(measured: dict[str, float], settings: ExportSettings) -> tuple[str, ...]:
    faults = []
    if measured["correlation"] < settings.min_correlation:
        faults.append(f"correlation {measured['correlation']:.4f}, want >= {settings.min_correlation}")
    if measured["auroc_loss"] > settings.max_auroc_loss:
        faults.append(f"AUROC loss {measured['auroc_loss']:.4f}, want <= {settings.max_auroc_loss}")
    if measured["flip_rate"] > settings.max_flip_rate:
        faults.append(f"flips {measured['flip_rate']:.2%}, want <= {settings.max_flip_rate:.2%}")
    return tuple(faults)
