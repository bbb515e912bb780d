"""Judges one image file with an open package: the steps that every source of images shares."""

import time
from dataclasses import dataclass
from typing import Literal

from edge.contract import Contract
from edge.detector import Detector
from edge.errors import ImageError, ScoreError
from edge.preprocess import decode_file, finish
from edge.statistics import image_statistics
from edge.verdict import Verdict, check_guard, decide, likeliest_type, probability_bad


@dataclass(frozen=True)
class Latency:
    """Seconds spent on one picture, by stage."""

    decode_s: float = 0.0  # file to 8-bit pixels
    preprocess_s: float = 0.0  # to the model's size
    detect_s: float = 0.0


@dataclass(frozen=True)
class Judgement:
    """A verdict and what it rests on."""

    verdict: Verdict | Literal["error"]
    score: float | None  # logit; None when there is no trustworthy one
    probability: float | None  # of being bad, at the calibration set's prevalence
    label: str | None  # likeliest defect type of a review or fail
    reason: str | None  # of an error
    latency: Latency


def judge_file(data: bytes, contract: Contract, detector: Detector, where: str = "image") -> Judgement:
    """Judge an image file.

    A picture that cannot be decoded, that the input guard refuses or whose score is no number is an error, never a
    pass: what follows from it is for the operating point's `on_error`.

    Args:
        data: the file's content.
        contract: of the open package.
        detector: of the same package.
        where: name of the file, for messages.

    Raises:
        ContractError: the detector belongs to another package.
    """
    start = time.perf_counter()
    try:
        decoded = decode_file(data, contract.input, where)
    except ImageError as error:
        return _error(str(error), Latency(time.perf_counter() - start))
    after_decode = time.perf_counter()
    prepared = finish(decoded, contract.input)
    after_preprocess = time.perf_counter()
    fault = check_guard(contract.guard, image_statistics(prepared.pixels), prepared.width_px, prepared.height_px)
    if fault is not None:
        return _error(f"{where}: {fault}", Latency(after_decode - start, after_preprocess - after_decode))
    before_detect = time.perf_counter()
    detection = detector.detect(prepared.pixels)
    end = time.perf_counter()
    latency = Latency(after_decode - start, after_preprocess - after_decode, end - before_detect)
    try:
        verdict = decide(detection.score, contract.operating_point)
    except ScoreError as error:
        return _error(f"{where}: {error}", latency)
    label = None if verdict == "pass" else likeliest_type(detection.type_logits, contract.defect_types)
    probability = probability_bad(detection.score, contract.calibration)
    return Judgement(verdict, detection.score, probability, label, None, latency)


def _error(reason: str, latency: Latency) -> Judgement:
    return Judgement("error", None, None, None, reason, latency)
