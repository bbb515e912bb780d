"""Conversion to float32 and int8 TensorFlow Lite, in a process of its own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from environments import device_python
from export_pictures import FadingNet, NotConvertible, SmallNet, TwoScores, pictures

from edge.contract import InputContract
from edge.detector import Detector
from inspection.errors import ConversionError
from inspection.export import conversion
from inspection.export.conversion import CALIBRATION_IMAGES, Converted, convert
from inspection.export.convert_process import convert_to_float
from inspection.export.device import score_on_device, score_with
from inspection.model.classifier import NEUTRAL, Averaged, Classifier, Design
from inspection.settings import ExportSettings

INPUT = InputContract(width=40, height=32)  # not square: width and height must not be mixed up
TYPES = ("scratch", "stain")
ENVIRONMENTS = (".venv-edge", ".venv-edge-tflite")  # ai-edge-litert and tflite-runtime


@pytest.fixture(scope="module")
def net() -> SmallNet:
    return SmallNet().eval()


@pytest.fixture(scope="module")
def converted(net: SmallNet, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return convert(net, INPUT, pictures(64, width=40)[0], tmp_path_factory.mktemp("converted"))


@pytest.mark.slow
def test_float_model_gives_the_scores_of_the_trained_one(net: SmallNet, converted: Converted) -> None:
    pixels = pictures(8, start=500, width=40)[0]
    detector = Detector(converted.float_path, INPUT, TYPES)
    assert detector.kind == "float32"
    scores = [detector.detect(pixels[index : index + 1]).score for index in range(8)]
    np.testing.assert_allclose(scores, net.score_pixels(pixels), atol=1e-4)


@pytest.mark.slow
def test_int8_model_agrees_and_takes_raw_pixels(net: SmallNet, converted: Converted) -> None:
    pixels = pictures(64, start=500, width=40)[0]
    detector = Detector(converted.int8_path, INPUT, TYPES)  # it refuses any input but scale 1
    assert detector.kind == "int8"
    scores = np.array([detector.detect(pixels[index : index + 1]).score for index in range(64)])
    trained = net.score_pixels(pixels)
    assert np.corrcoef(scores, trained)[0, 1] > 0.99
    assert np.abs(scores - trained).max() < 0.3 * trained.std() + 2 * detector.score_step


@pytest.mark.slow
def test_type_logits_are_the_second_output(converted: Converted, net: SmallNet) -> None:
    import torch

    pixels = pictures(1, start=501, width=40)[0]
    found = Detector(converted.float_path, INPUT, TYPES).detect(pixels).type_logits
    with torch.inference_mode():
        want = net(torch.from_numpy(pixels).float())[1][0].numpy()
    np.testing.assert_allclose(found, want, atol=1e-4)


@pytest.mark.slow
def test_nearly_dead_channels_are_lifted_so_that_their_bias_survives(converted: Converted) -> None:
    assert converted.lifted_channels == 1


@pytest.mark.slow
def test_head_is_corrected_for_the_mean_error_of_its_features(converted: Converted, net: SmallNet) -> None:
    pixels = pictures(64, width=40)[0]
    detector = Detector(converted.int8_path, INPUT, TYPES)
    scores = np.array([detector.detect(pixels[index : index + 1]).score for index in range(64)])
    assert abs((scores - net.score_pixels(pixels)).mean()) < 2 * detector.score_step
    assert converted.corrected_features == 3  # the score and two type logits


@pytest.mark.slow
def test_report_tells_memory_time_and_versions(converted: Converted) -> None:
    assert converted.calibration_images == CALIBRATION_IMAGES  # 64 pictures, filled up with copies
    assert 50e6 < converted.peak_rss_bytes < 8e9
    assert 0 < converted.seconds < 600
    assert set(converted.versions) == {"torch", "litert-torch", "ai-edge-quantizer", "ai-edge-litert"}
    # Nothing else stays behind.
    assert sorted(path.name for path in converted.int8_path.parent.iterdir()) == [
        "model-float32.tflite",
        "model-int8.tflite",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_both_models_run_on_every_device_runtime(converted: Converted, net: SmallNet, environment: str) -> None:
    pixels = pictures(8, start=500, width=40)[0]
    trained = net.score_pixels(pixels)
    for path in (converted.float_path, converted.int8_path):
        scores = score_with(device_python(environment), environment, path, pixels, INPUT, TYPES).scores
        assert np.corrcoef(scores, trained)[0, 1] > 0.98


@pytest.mark.slow
def test_map_that_is_nearly_zero_everywhere_runs_on_every_device_runtime(tmp_path: Path) -> None:
    net, pixels = FadingNet().eval(), pictures(16, width=40)[0]
    faded = convert(net, INPUT, pixels, tmp_path)
    for environment in ENVIRONMENTS:
        scores = score_with(device_python(environment), environment, faded.int8_path, pixels, INPUT, TYPES).scores
        assert np.corrcoef(scores, net.score_pixels(pixels))[0, 1] > 0.98


def test_existing_file_is_not_overwritten(net: SmallNet, tmp_path: Path) -> None:
    (tmp_path / "model-int8.tflite").write_bytes(b"kept")
    with pytest.raises(ConversionError, match=r"model-int8\.tflite: exists already"):
        convert(net, INPUT, pictures(4, width=40)[0], tmp_path)
    assert (tmp_path / "model-int8.tflite").read_bytes() == b"kept"


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 40, 32, 3), np.uint8),
        np.zeros((4, 32, 40, 3), np.float32),
        np.zeros((0, 32, 40, 3), np.uint8),
    ],
    ids=["turned", "float", "none"],
)
def test_pixels_that_do_not_fit_are_refused(net: SmallNet, tmp_path: Path, pixels: np.ndarray) -> None:
    with pytest.raises(ConversionError, match=r"calibration_pixels: want uint8 \[N, 32, 40, 3\]"):
        convert(net, INPUT, pixels, tmp_path)


@pytest.mark.slow
def test_model_that_cannot_be_converted_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="no such operation") as raised:
        convert(NotConvertible().eval(), INPUT, pictures(4, width=40)[0], tmp_path)
    assert "converting the model to TensorFlow Lite: the process ended with exit status 1" in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_model_without_exactly_one_score_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"want outputs \[1, 1\] or \[1, 1\] and \[1, T\], found \[\(1, 2\)\]"):
        convert_to_float(TwoScores().eval(), (32, 40), tmp_path / "model.tflite")


def test_model_that_cannot_be_handed_over_is_refused(tmp_path: Path) -> None:
    net = SmallNet()
    net.extra = lambda x: x
    with pytest.raises(ConversionError, match="SmallNet: cannot be handed to the converting process"):
        convert(net, INPUT, pictures(4, width=40)[0], tmp_path)


def test_more_images_than_needed_are_thinned_out_and_fewer_filled_up() -> None:
    many, few = np.zeros((CALIBRATION_IMAGES + 9, 2, 2, 3), np.uint8), np.full((3, 8, 8, 3), 99, np.uint8)
    assert len(conversion._choose(many)) == CALIBRATION_IMAGES
    filled = conversion._fill_up(conversion._choose(few))
    assert len(filled) == CALIBRATION_IMAGES
    np.testing.assert_array_equal(filled, conversion._fill_up(conversion._choose(few)))
    np.testing.assert_array_equal(filled[:3], few)


@pytest.mark.slow
def test_constant_maps_in_channels_last_convert_to_the_same_scores(tmp_path: Path) -> None:
    torch.manual_seed(0)
    design = Design("squeezenet1_1", taps=(1, 3), place_taps=(1, 3), input_size=(64, 64))
    model = Classifier(design).eval()
    for places in model.places.values():
        shape = places.get_buffer("mean").shape[1:]
        places.set_statistics(torch.rand(shape), torch.rand(shape) + 0.5)
    torch.nn.init.normal_(model.score.weight, std=0.05)
    model = model.to(memory_format=torch.channels_last)  # as training leaves it
    pixels = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    contract = InputContract(64, 64)
    converted = convert(model, contract, pixels, tmp_path)
    scores = score_on_device(converted.float_path, pixels, contract, ExportSettings()).scores
    np.testing.assert_allclose(scores, model.score_pixels(pixels), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("members", [1, 2])
def test_normalisation_costs_an_int8_model_nothing_and_gives_the_trained_scores(tmp_path: Path, members: int) -> None:
    torch.manual_seed(1)
    several = [Classifier(Design("mobilenet_v3_small", taps=(0, 1))).eval() for _ in range(members)]
    for one in several:
        torch.nn.init.normal_(one.score.weight, std=0.3)
    model = several[0] if members == 1 else Averaged(several)
    pixels, size = pictures(64, width=64, height=64)[0], InputContract(64, 64)
    converted = convert(model, size, pixels, tmp_path)
    interpreter = Interpreter(str(converted.int8_path))
    assert interpreter.get_input_details()[0]["quantization"] == (1.0, NEUTRAL - 128)
    given = interpreter.get_input_details()[0]["index"]
    readers = {each["op_name"] for each in interpreter._get_ops_details() if given in each["inputs"]}
    assert readers == {"PAD"}  # of the convolutions: nothing is done to a pixel before
    trained = model.score_pixels(pixels)
    exact = score_on_device(converted.float_path, pixels, size, ExportSettings()).scores
    np.testing.assert_allclose(exact, trained, atol=1e-3)
    rounded = score_on_device(converted.int8_path, pixels, size, ExportSettings()).scores
    assert np.corrcoef(rounded, trained)[0, 1] > 0.99
