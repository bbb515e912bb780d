"""Every backbone that a line may name: what is exported of it runs on both device runtimes, with the trained scores."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from environments import device_python
from export_pictures import pictures

from edge.contract import InputContract
from inspection.export import conversion
from inspection.export.conversion import Converted, convert
from inspection.export.device import score_with
from inspection.model import backbones
from inspection.model.backbones import ARCHITECTURES
from inspection.model.classifier import Classifier, Design
from inspection.model.examples import TrainingSet
from inspection.model.features import estimate_batch_norm
from inspection.model.training import train
from inspection.settings import TrainingSettings

INPUT = InputContract(width=96, height=64)
TYPES = ("scratch", "stain")
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Case:
    """A trained model, its files and pictures that neither training nor the quantiser has seen."""

    converted: Converted
    unseen: np.ndarray
    scores: np.ndarray  # of the trained model


def write_weights(backbone: str, pixels: np.ndarray, path: Path) -> Path:
    """A state dict as a download would be: random weights, with statistics of batch norm that fit them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torchvision.models.get_model(backbone, weights=None)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    model = Classifier(Design(backbone, ARCHITECTURES[backbone].taps), backbones._cut(backbone, network))
    estimate_batch_norm(model, pixels, 8, 0)
    torch.save({**state, **network.state_dict()}, path)
    return path


@pytest.fixture(scope="module", params=ARCHITECTURES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """The frozen recipe's model with all its taps, pooled and place by place."""
    folder = tmp_path_factory.mktemp(request.param)
    pixels, is_bad = pictures(32, width=INPUT.width, height=INPUT.height)
    kinds = np.where(is_bad, np.arange(32) % 4 // 2, -1)
    training_set = TrainingSet(pixels, is_bad, kinds, [str(index) for index in range(32)], TYPES)
    weights = write_weights(request.param, pixels, folder / "weights.pth")
    settings = TrainingSettings(backbone=request.param, weights=str(weights), views=1, fixed_pose=True)
    model = train("frozen", training_set, settings).model
    unseen = pictures(24, start=500, width=INPUT.width, height=INPUT.height)[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversion, "CALIBRATION_IMAGES", 32)
        converted = convert(model, INPUT, pixels, folder / "converted")
    return Case(converted, unseen, model.score_pixels(unseen))


@pytest.mark.parametrize("environment", [".venv-edge", ".venv-edge-tflite"])
def test_float32_gives_the_trained_scores_on_every_device_runtime(case: Case, environment: str) -> None:
    python = device_python(environment)
    found = score_with(python, environment, case.converted.float_path, case.unseen, INPUT, TYPES)
    np.testing.assert_allclose(found.scores, case.scores, atol=1e-3 * max(1.0, float(case.scores.std())))
    assert found.type_logits.shape == (24, 2)


@pytest.mark.parametrize("environment", [".venv-edge", ".venv-edge-tflite"])
def test_int8_runs_and_agrees_on_every_device_runtime(case: Case, environment: str) -> None:
    python = device_python(environment)
    found = score_with(python, environment, case.converted.int8_path, case.unseen, INPUT, TYPES)
    assert found.kind == "int8"
    assert np.corrcoef(found.scores, case.scores)[0, 1] > 0.97


def test_large_input_that_is_not_square_is_trained_converted_and_scored(tmp_path: Path) -> None:
    size = InputContract(width=512, height=384)
    pixels, is_bad = pictures(12, width=size.width, height=size.height)
    training_set = TrainingSet(pixels, is_bad, np.full(12, -1), [str(index) for index in range(12)])
    settings = TrainingSettings(backbone="mobilenet_v3_small", weights="none", views=1, fixed_pose=True)
    model = train("frozen", training_set, settings).model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversion, "CALIBRATION_IMAGES", 12)
        converted = convert(model, size, pixels, tmp_path)
    unseen = pictures(8, start=500, width=size.width, height=size.height)[0]
    trained = model.score_pixels(unseen)
    for environment in (".venv-edge", ".venv-edge-tflite"):
        python = device_python(environment)
        exact = score_with(python, environment, converted.float_path, unseen, size).scores
        np.testing.assert_allclose(exact, trained, atol=1e-3 * max(1.0, float(trained.std())))
        rounded = score_with(python, environment, converted.int8_path, unseen, size).scores
        assert np.corrcoef(rounded, trained)[0, 1] > 0.97
