"""Training on real parts with real weights; the flow's own test goes on to the int8 model."""

import os
from pathlib import Path

import numpy as np
import pytest

from edge.contract import InputContract
from edge.preprocess import prepare_file
from inspection.model.examples import TrainingSet
from inspection.model.selection import auroc
from inspection.model.training import train
from inspection.settings import TrainingSettings

DATA, WEIGHTS = os.environ.get("INSPECTION_REAL_DATA"), os.environ.get("INSPECTION_WEIGHTS")
pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not (DATA and WEIGHTS), reason="INSPECTION_REAL_DATA and INSPECTION_WEIGHTS are not set"),
]
CONTRACT = InputContract(width=224, height=224)


def _read(paths):
    paths = sorted(paths)
    pixels = np.concatenate([prepare_file(path.read_bytes(), CONTRACT, path.name).pixels for path in paths])
    return pixels, np.array(["anomaly" in f"{path.parent.name}/{path.name}" for path in paths])


def _set(pixels, is_bad):
    return TrainingSet(pixels, is_bad, np.full(len(is_bad), -1), [str(row) for row in range(len(is_bad))])


def _settings():
    weights = next(Path(WEIGHTS).glob("mobilenet_v2*.pth"))
    return TrainingSettings(backbone="mobilenet_v2", weights=str(weights))


def test_broken_cookies_are_told_from_whole_ones():
    pixels, is_bad = _read(Path(DATA, "cookies", "training-images").glob("*.jpg"))
    holdout, holdout_bad = _read(Path(DATA, "cookies", "test-images").glob("*.jpg"))
    model = train("frozen", _set(pixels, is_bad), _settings()).model
    assert auroc(model.score_pixels(holdout), holdout_bad) >= 0.99


def test_cut_up_aliens_are_told_from_whole_ones_by_fine_tuning():
    pixels, is_bad = _read([*Path(DATA, "aliens").glob("normal/*.png"), *Path(DATA, "aliens").glob("anomaly/*.png")])
    order = np.random.default_rng(0).permutation(len(pixels))
    half = len(order) // 2
    model = train("finetune", _set(pixels[order[:half]], is_bad[order[:half]]), _settings()).model
    assert auroc(model.score_pixels(pixels[order[half:]]), is_bad[order[half:]]) >= 0.94
