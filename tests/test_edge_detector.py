"""The tiny model in whichever runtime this environment has: known pictures get known scores."""

import importlib.metadata
from pathlib import Path

import numpy as np
import pytest
from golden_package import DEFECT_TYPES, GOLDEN, INPUT, KNOWN, PICTURES, tolerance_of

from edge import detector as detector_module
from edge import runtime
from edge.contract import InputContract
from edge.detector import Detector, read_sizes
from edge.errors import ContractError, RuntimeMissingError
from edge.preprocess import prepare_file

KINDS = ("float32", "int8")


def open_tiny(kind: str, threads: int = 1) -> Detector:
    return Detector(GOLDEN / f"tiny_{kind}.tflite", INPUT, DEFECT_TYPES, threads)


def pixels_of(name: str) -> np.ndarray:
    return prepare_file((GOLDEN / name).read_bytes(), INPUT, name).pixels


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PICTURES)
def test_a_known_picture_gets_its_known_score(kind: str, name: str) -> None:
    detector, known = open_tiny(kind), KNOWN[kind]["pictures"][name]
    detection = detector.detect(pixels_of(name))
    tolerance = tolerance_of(kind)
    assert detection.score == pytest.approx(known["score"], abs=tolerance)
    assert isinstance(detection.score, float)
    assert detection.type_logits is not None
    assert detection.type_logits.dtype == np.float32
    np.testing.assert_allclose(detection.type_logits, known["type_logits"], atol=max(tolerance, 0.2))


def test_the_detector_says_what_it_runs() -> None:
    float_model, int8_model = open_tiny("float32"), open_tiny("int8")
    assert (float_model.kind, float_model.score_step) == ("float32", 0.0)
    assert int8_model.kind == "int8"
    assert int8_model.score_step == pytest.approx(KNOWN["int8"]["score_step"])
    name, version = int8_model.runtime.split()
    assert version == importlib.metadata.version(name)


@pytest.mark.parametrize("kind", KINDS)
def test_every_level_of_grey_reaches_the_model_as_it_is(kind: str) -> None:
    """An int8 model gets (pixels ^ 0x80) as signed bytes, which with scale 1 and zero point -128 is the pixel, and with
    another zero point the pixel less a grey level."""
    detector = open_tiny(kind)
    entry = detector._interpreter.get_input_details()[0]
    for level in (0, 1, 127, 128, 129, 254, 255):
        detector.detect(np.full((1, 32, 32, 3), level, np.uint8))
        stored = detector._interpreter.get_tensor(entry["index"]).astype(np.int64)
        assert (stored == (level - 128 if kind == "int8" else level)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_depends_on_nothing_but_the_picture(kind: str) -> None:
    detector, other = open_tiny(kind), open_tiny(kind, threads=2)
    first = [detector.detect(pixels_of(name)).score for name in PICTURES]
    again = [detector.detect(pixels_of(name)).score for name in reversed(PICTURES)]
    assert first == again[::-1]
    assert [other.detect(pixels_of(name)).score for name in PICTURES] == pytest.approx(first, abs=1e-5)


def test_detections_stay_what_they_were_when_the_next_picture_comes() -> None:
    detector = open_tiny("int8")
    first = detector.detect(pixels_of(PICTURES[0]))
    kept = first.type_logits.copy() if first.type_logits is not None else None
    detector.detect(pixels_of(PICTURES[1]))
    np.testing.assert_array_equal(first.type_logits, kept)


def test_read_only_pixels_are_scored() -> None:
    pixels = pixels_of(PICTURES[0])
    pixels.flags.writeable = False
    assert open_tiny("int8").detect(pixels).score == open_tiny("int8").detect(pixels.copy()).score


@pytest.mark.parametrize(
    "pixels", [np.zeros((32, 32, 3), np.uint8), np.zeros((1, 32, 31, 3), np.uint8), np.zeros((1, 32, 32, 3), np.int8)]
)
def test_pixels_of_another_shape_or_type_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ContractError, match=r"pixels for tiny_int8\.tflite: want uint8 \(1, 32, 32, 3\)"):
        open_tiny("int8").detect(pixels)


def test_a_model_that_does_not_fit_the_contract_is_refused() -> None:
    model = GOLDEN / "tiny_int8.tflite"
    with pytest.raises(ContractError, match=r"want an input of shape \(1, 48, 32, 3\), found \(1, 32, 32, 3\)"):
        Detector(model, InputContract(width=32, height=48), DEFECT_TYPES)
    with pytest.raises(ContractError, match=r"want 1 output\(s\), found 2"):
        Detector(model, INPUT, ())
    with pytest.raises(ContractError, match=r"output for defect types .* shape \(1, 3\), found int8 \(1, 2\)"):
        Detector(model, INPUT, ("a", "b", "c"))


def test_an_int8_model_with_another_input_scale_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = detector_module.open_interpreter

    class Rescaled:
        """The interpreter of a model whose input was quantised over another range."""

        def __init__(self, interpreter: object) -> None:
            self._interpreter = interpreter

        def get_input_details(self) -> list[dict[str, object]]:
            (entry,) = self._interpreter.get_input_details()
            return [{**entry, "quantization": (0.99, -128)}]

    monkeypatch.setattr(
        detector_module, "open_interpreter", lambda *arguments: (Rescaled(real(*arguments)[0]), "runtime")
    )
    with pytest.raises(ContractError, match=r"want an int8 input with scale 1, found scale 0\.99"):
        open_tiny("int8")


def test_a_missing_file_and_a_file_that_is_no_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no such model file"):
        Detector(tmp_path / "none.tflite", INPUT)
    text = tmp_path / "text.tflite"
    text.write_bytes(b"certainly no flatbuffer of the kind that is wanted")
    with pytest.raises(ContractError, match=r"text\.tflite: .* cannot open this model.*export it again"):
        Detector(text, INPUT)


def test_a_scale_that_is_not_finite_is_refused_before_it_crashes_the_runtime(tmp_path: Path) -> None:
    content = (GOLDEN / "tiny_int8.tflite").read_bytes()
    scale = np.float32(KNOWN["int8"]["score_step"]).tobytes()
    assert scale in content
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(content.replace(scale, np.float32(np.inf).tobytes()))
    with pytest.raises(ContractError, match=r"quantisation scale of .* is not finite"):
        Detector(broken, INPUT, DEFECT_TYPES)


def test_sizes_are_read_from_a_model_without_a_contract() -> None:
    contract, types = read_sizes(GOLDEN / "tiny_int8.tflite")
    assert (contract.width, contract.height, len(types)) == (32, 32, 2)


def test_without_a_runtime_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_RUNTIMES", (("no_such_module", "no-such-package"),))
    with pytest.raises(RuntimeMissingError, match=r"no-such-package.*pip install -r edge/requirements\.txt"):
        open_tiny("int8")
