"""Raw frames and their own JPEGs: known answers, and trained models."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge.contract import InputContract, OperatingPoint
from edge.preprocess import prepare_file, to_model_input
from inspection.export.agreement import best_threshold
from inspection.export.jpeg import MIN_JPEG_AGREEMENT, jpeg_agreement
from inspection.model.classifier import Scorer
from inspection.model.examples import TrainingSet
from inspection.model.training import train
from inspection.sample import plan_sample, render_part
from inspection.settings import REPOSITORY, TrainingSettings, load_settings
from inspection.synthesis.camera import encode_jpeg
from inspection.synthesis.scene import draw_lot
from inspection.train_path.proving import JPEG_QUALITY


def test_jpeg_gate_allows_one_in_two_hundred_verdicts_to_differ() -> None:
    point = OperatingPoint("op", lower=-1.0, upper=1.0)
    raw = np.linspace(-5, 5, 400)
    jpeg = raw.copy()
    jpeg[:2] = 0.0  # pass becomes review
    report = jpeg_agreement(raw, jpeg, point)
    assert report.passed
    assert report.differing == (0, 1)
    assert report.agreement == 0.995
    assert report.agreement_lower < 0.995
    jpeg[2] = 9.0
    assert not jpeg_agreement(raw, jpeg, point).passed


def test_difference_of_scores_without_another_verdict_does_not_count() -> None:
    point = OperatingPoint("op", lower=-1.0, upper=1.0)
    report = jpeg_agreement(np.array([-5.0, 5.0]), np.array([-2.0, 2.0]), point)
    assert report.passed
    assert report.max_abs_difference == 3.0


def same_verdicts(model: Scorer, contract: InputContract, frames: list[np.ndarray], is_bad: np.ndarray) -> float:
    """Share of frames with the same verdict as their own JPEGs, at the threshold that separates them best."""
    raw = model.score_pixels(np.concatenate([to_model_input(frame, contract) for frame in frames]))
    files = [as_jpeg(frame) for frame in frames]
    compressed = [prepare_file(file, contract, f"frame {number}").pixels for number, file in enumerate(files)]
    threshold = best_threshold(raw, is_bad)
    point = OperatingPoint("op", lower=threshold, upper=threshold)
    return jpeg_agreement(raw, model.score_pixels(np.concatenate(compressed)), point).agreement


def as_jpeg(frame: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, "JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()


@pytest.mark.slow
def test_raw_frames_of_the_sample_and_their_jpegs_get_the_same_verdicts() -> None:
    """A model of the sample's recipe, trained on the files of the camera, judges parts that it has not seen."""
    settings = load_settings(REPOSITORY / "flows" / "lines" / "sample.toml")
    contract, seed = settings.input.contract(), 31
    parts = plan_sample(seed=seed)
    lots = {number: draw_lot(seed, number) for number in {part.lot for part in parts}}
    frames = [render_part(part, lots[part.lot], seed)[0] for part in parts]
    is_bad = np.array([part.defect_type is not None for part in parts])
    learned = np.arange(len(parts)) % 2 == 0
    files = [encode_jpeg(frame) for frame, taken in zip(frames, learned, strict=True) if taken]
    pixels = np.concatenate([prepare_file(file, contract, "part").pixels for file in files])
    count = len(pixels)
    images = TrainingSet(pixels, is_bad[learned], np.full(count, -1), [str(row) for row in range(count)])
    model = train("frozen", images, settings.training).model
    unseen = [frame for frame, taken in zip(frames, learned, strict=True) if not taken]
    assert len(unseen) == 200
    assert same_verdicts(model, contract, unseen, is_bad[~learned]) >= MIN_JPEG_AGREEMENT


@pytest.mark.real
@pytest.mark.slow
def test_decoded_cookies_and_their_jpegs_get_the_same_verdicts(real_data: Path, real_weights: Path) -> None:
    contract = InputContract(width=224, height=224)
    images = {}
    for folder in ("training-images", "test-images"):
        paths = sorted((real_data / "cookies" / folder).glob("*.jpg"))
        frames = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
        images[folder] = frames, np.array(["anomaly" in path.name for path in paths])
    frames, is_bad = images["training-images"]
    pixels = np.concatenate([to_model_input(frame, contract) for frame in frames])
    groups = [str(row) for row in range(len(frames))]
    examples = TrainingSet(pixels, is_bad, np.full(len(frames), -1), groups)
    model = train("frozen", examples, TrainingSettings(weights=str(real_weights))).model
    assert same_verdicts(model, contract, *images["test-images"]) >= MIN_JPEG_AGREEMENT
