"""What a device makes of a raw frame and of its own JPEG: the same verdict, or not."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.contract import OperatingPoint
from edge.verdict import decide
from inspection.decision.bounds import clopper_pearson_upper

MIN_JPEG_AGREEMENT = 0.995  # share of images with the same verdict on the raw frame and its JPEG


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
