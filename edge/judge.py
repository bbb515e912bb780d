"""Judges one picture with an open package: the steps that every source of parts shares."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge.contract import Contract, InputGuard
from edge.detector import Detector
from edge.errors import ContractError, ImageError, PictureSizeError, ScoreError
from edge.part import Part
from edge.preprocess import MAX_PIXELS, Prepared, decode_file, finish, prepare_frame
from edge.statistics import ImageStatistics, picture_statistics
from edge.verdict import Verdict, check_guard, decide, likeliest_type, probability_bad

# A frame without light has neither brightness nor contrast (grey levels of 255); sensor noise stays below these.
_DARK_BRIGHTNESS, _DARK_CONTRAST = 8.0, 4.0
_BLACK_BRIGHTNESS, _BLACK_CONTRAST = 1.0, 1.0  # below both, no input guard makes it a picture

FrameCheck = Callable[[np.ndarray], str | None]  # why these pixels, uint8 (1, H, W, 3), are no new picture, or None


@dataclass(frozen=True)
class Latency:
    """Seconds spent on one picture, by stage."""

    decode_s: float = 0.0  # file to 8-bit pixels; 0 for a raw frame
    preprocess_s: float = 0.0  # to the model's size
    detect_s: float = 0.0


@dataclass(frozen=True)
class Judgement:
    """A verdict and what it rests on."""

    verdict: Verdict | Literal["error"]
    score: float | None  # logit; None when there is no trustworthy one
    probability: float | None  # of being bad, at the calibration set's prevalence
    label: str | None  # likeliest defect type of a review or fail
    reason: str | None  # of an error, for a person
    latency: Latency
    code: str | None = None  # of an error, for counting: decode, guard, black, stuck, score, ...
    statistics: ImageStatistics | None = None  # of the model's input; None when there was none


def failed(code: str, reason: str, latency: Latency | None = None) -> Judgement:
    """The judgement of a part without a trustworthy score: never a pass."""
    return Judgement("error", None, None, None, reason, latency or Latency(), code)


def judge_part(
    part: Part,
    contract: Contract,
    detector: Detector,
    check: FrameCheck | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Judgement:
    """Judge a part from any source.

    Args:
        part: with an encoded picture, a raw frame or a fault.
        contract: of the open package.
        detector: of the same package.
        check: says why a picture is no new one (a stuck camera).
        max_pixels: a file with a larger picture is not decoded.

    Raises:
        ContractError: the detector belongs to another package.
    """
    if part.fault is not None:
        return failed(*part.fault)
    if part.frame is not None:
        return judge_frame(part.frame, contract, detector, part.name, check)
    if part.data is not None:
        return judge_file(part.data, contract, detector, part.name, check, max_pixels)
    return failed("source", f"{part.name}: the source gave neither a picture nor a fault")


def judge_file(
    data: bytes,
    contract: Contract,
    detector: Detector,
    where: str = "image",
    check: FrameCheck | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Judgement:
    """Judge an image file.

    A picture that cannot be decoded, that the input guard refuses or whose score is no number is an error, never a
    pass: what follows from it is for the operating point's `on_error`.

    Args:
        data: the file's content.
        contract: of the open package.
        detector: of the same package.
        where: name of the file, for messages.
        check: says why a picture is no new one (a stuck camera).
        max_pixels: a larger picture is not decoded.

    Raises:
        ContractError: the detector belongs to another package.
    """
    start = time.perf_counter()
    try:
        decoded = decode_file(data, contract.input, where, max_pixels)
    except PictureSizeError as error:
        return failed("pixels", str(error), Latency(time.perf_counter() - start))
    except ImageError as error:
        return failed("decode", str(error), Latency(time.perf_counter() - start))
    after_decode = time.perf_counter()
    prepared = finish(decoded, contract.input)
    latency = Latency(after_decode - start, time.perf_counter() - after_decode)
    return _judge(prepared, contract, detector, where, latency, check)


def judge_frame(
    frame: np.ndarray, contract: Contract, detector: Detector, where: str = "frame", check: FrameCheck | None = None
) -> Judgement:
    """Judge a raw frame, as `judge_file` does a file.

    Args:
        frame: uint8, shape (H, W, 3), RGB.
        contract: of the open package.
        detector: of the same package.
        where: name of the camera, for messages.
        check: says why a picture is no new one (a stuck camera).

    Raises:
        ContractError: the detector belongs to another package.
    """
    start = time.perf_counter()
    try:
        prepared = prepare_frame(frame, contract.input)
    except (ContractError, ImageError) as error:
        return failed("decode", f"{where}: {error}", Latency(0.0, time.perf_counter() - start))
    latency = Latency(0.0, time.perf_counter() - start)
    return _judge(prepared, contract, detector, where, latency, check)


def _judge(
    prepared: Prepared, contract: Contract, detector: Detector, where: str, latency: Latency, check: FrameCheck | None
) -> Judgement:
    """The steps from the model's input on."""
    statistics = picture_statistics(prepared.image)
    fault = find_fault(contract.guard, statistics, prepared.width_px, prepared.height_px)
    stuck = check(prepared.pixels) if fault is None and check is not None else None
    if stuck is not None:
        fault = "stuck", stuck
    if fault is not None:
        code, reason = fault
        return Judgement("error", None, None, None, f"{where}: {reason}", latency, code, statistics)
    start = time.perf_counter()
    detection = detector.detect(prepared.pixels)
    latency = Latency(latency.decode_s, latency.preprocess_s, time.perf_counter() - start)
    try:
        verdict = decide(detection.score, contract.operating_point)
    except ScoreError as error:
        return Judgement("error", None, None, None, f"{where}: {error}", latency, "score", statistics)
    label = None if verdict == "pass" else likeliest_type(detection.type_logits, contract.defect_types)
    probability = probability_bad(detection.score, contract.calibration)
    return Judgement(verdict, detection.score, probability, label, None, latency, None, statistics)


def find_fault(guard: InputGuard, statistics: ImageStatistics, width_px: int, height_px: int) -> tuple[str, str] | None:
    """Why a picture must not be judged; None when it may.

    Args:
        guard: what pictures were like in training.
        statistics: of the model's input.
        width_px: of the whole original picture, upright.
        height_px: likewise.

    Returns:
        Error code, "black" or "guard", and the reason in words.
    """
    refused = check_guard(guard, statistics, width_px, height_px)
    brightness, contrast = statistics.brightness, statistics.contrast
    black = brightness < _BLACK_BRIGHTNESS and contrast < _BLACK_CONTRAST
    if black or (refused is not None and brightness < _DARK_BRIGHTNESS and contrast < _DARK_CONTRAST):
        return "black", f"black frame: brightness {brightness:.2g}, contrast {contrast:.2g}; check light, lens, camera"
    return None if refused is None else ("guard", refused)
