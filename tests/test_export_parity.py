"""The parity gate: what ships, and why. The tiny model's two files stand for a converted classifier."""

import dataclasses
import json
import shutil
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_pictures import pictures
from golden_package import DEFECT_TYPES, GOLDEN, INPUT

from edge.detector import Detector
from inspection.errors import ParityError, SettingsError
from inspection.export import device, parity, shards
from inspection.export.benchmark import read_benchmarks
from inspection.export.conversion import Converted
from inspection.export.parity import GateError, ParityGate, run_parity_gate, score_trained
from inspection.export.variation import VariedPictures
from inspection.settings import AugmentationSettings, ExportSettings

THIS = ExportSettings(device_python=sys.executable, parity_images=120, max_flip_rate=0.05, max_auroc_loss=0.05)
CONVERTED = Converted(
    float_path=GOLDEN / "tiny_float32.tflite",
    int8_path=GOLDEN / "tiny_int8.tflite",
    seconds=1.0,
    peak_rss_bytes=1,
    calibration_images=1,
    lifted_channels=0,
    corrected_features=0,
    versions={},
)
PIXELS, IS_BAD = pictures(40)
NAMES = [f"part-{index}.png" for index in range(40)]


class Trained:
    """Scores as the float file does, with something added: a trained model that converts well, or does not."""

    def __init__(self, added: float = 0.0) -> None:
        self.added = added

    def score_pixels(self, pixels: np.ndarray, batch: int = 32) -> np.ndarray:
        detector = Detector(CONVERTED.float_path, INPUT, DEFECT_TYPES)
        scores = [detector.detect(pixels[index : index + 1]).score for index in range(len(pixels))]
        return np.array(scores) + self.added


class Constant:
    """Says the same of everything, at once."""

    def score_pixels(self, pixels: np.ndarray, batch: int = 32) -> np.ndarray:
        return np.zeros(len(pixels))


def gate(model: Any, settings: ExportSettings = THIS, converted: Converted = CONVERTED) -> ParityGate:
    trained = score_trained(model, PIXELS, settings, 0)
    return run_parity_gate(trained, converted, IS_BAD, INPUT, settings, 0, DEFECT_TYPES, NAMES)


@pytest.fixture
def worse_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    """An int8 model that lost what it knew: every other score has the wrong sign."""
    real = parity.score_each_on_device

    def score(*arguments: Any) -> Any:
        exact, rounded = real(*arguments)
        signs = np.where(np.arange(len(rounded.scores)) % 2 == 0, -1.0, 1.0)
        return [exact, dataclasses.replace(rounded, scores=rounded.scores * signs)]

    monkeypatch.setattr(parity, "score_each_on_device", score)


def test_int8_ships_when_it_agrees() -> None:
    found = gate(Trained())
    assert (found.kind, found.artifact) == ("int8", CONVERTED.int8_path)
    assert found.reason == "int8 is the target and passed the parity gate"
    assert found.float.max_abs_difference == 0
    assert 0 < found.int8.max_abs_difference < 2
    assert found.int8.images == 120
    assert found.int8.sources == 40
    assert found.copies.sum() == 80
    assert found.devices["int8"]["p99_ms"] >= found.devices["int8"]["p50_ms"] > 0
    json.dumps(found.to_json(), allow_nan=False)


def test_float_ships_when_it_is_the_target() -> None:
    found = gate(Trained(), dataclasses.replace(THIS, target="float32"))
    assert (found.kind, found.artifact) == ("float32", CONVERTED.float_path)


@pytest.mark.usefixtures("worse_int8")
def test_float_ships_with_the_reason_when_int8_fails_the_gate() -> None:
    found = gate(Trained())
    assert (found.kind, found.artifact) == ("float32", CONVERTED.float_path)
    assert found.reason.startswith("float32 ships although the target is int8; int8 failed the parity gate: ")
    assert "flips" in found.reason
    assert not found.int8.passed
    assert len(found.int8.flipped) == found.int8.flips > 0


def test_parity_error_names_the_pictures_that_flipped_when_both_fail() -> None:
    with pytest.raises(ParityError, match="no converted model passed the parity gate") as raised:
        gate(Trained(added=20.0))
    assert isinstance(raised.value, GateError)
    assert "part-" in str(raised.value)
    assert "and 10 more" in str(raised.value)
    # The card needs the pictures themselves.
    report = raised.value.reports[0]
    assert report.flipped
    assert raised.value.source_index is not None
    assert raised.value.source_index[report.flipped[0]] < 40


def test_gate_is_the_same_twice() -> None:
    first, second = gate(Trained()), gate(Trained())
    assert first.int8 == second.int8


def varied(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The given pictures and their copies, and which of the given ones each is made of."""
    pictures = VariedPictures(PIXELS, count, AugmentationSettings(), seed)
    assert len(pictures) == pictures.shape[0] == len(pictures.source_index)
    return np.stack(list(pictures)), pictures.source_index


def test_images_are_filled_up_with_copies_that_keep_their_source() -> None:
    filled, source = varied(100)
    assert filled.shape == (100, 32, 32, 3)
    np.testing.assert_array_equal(filled[:40], PIXELS)
    np.testing.assert_array_equal(source, np.arange(100) % 40)
    difference = np.abs(filled[40:].astype(int) - PIXELS[source[40:]])
    assert (difference.reshape(60, -1).mean(1) > 0).all()
    np.testing.assert_array_equal(filled, varied(100)[0])
    assert (filled[40:] != varied(100, seed=1)[0][40:]).any()


def test_more_images_than_wanted_are_all_compared() -> None:
    filled, source = varied(10)
    assert len(filled) == len(source) == 40


def test_gate_holds_as_much_memory_and_disk_for_many_images_as_for_few(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0
    real = device.run_child

    def watch(arguments: Any, *, folder: Path, **options: Any) -> None:
        nonlocal largest
        largest = max(largest, sum(path.stat().st_size for path in folder.parent.rglob("*.npy")))
        real(arguments, folder=folder, **options)

    def peak(count: int) -> int:
        tracemalloc.start()
        trained = score_trained(Constant(), PIXELS, dataclasses.replace(THIS, parity_images=count), 0)
        paths = [CONVERTED.float_path, CONVERTED.int8_path]
        found = device.score_each_on_device(paths, trained.pictures, INPUT, THIS, DEFECT_TYPES)
        assert [len(each.scores) for each in found] == [len(trained.scores)] * 2 == [count] * 2
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    monkeypatch.setattr(device, "run_child", watch)
    monkeypatch.setattr(shards, "SHARD_BYTES", 1_000_000)
    peak(100)  # imports
    few, many = peak(400), peak(1600)
    assert largest < 1_001_000
    assert many - few < 0.1 * 1200 * PIXELS[0].nbytes


def benchmark(kind: str, p50_ms: float, **changes: Any) -> dict[str, Any]:
    """A line of `python -m edge --benchmark --json`."""
    return {
        "schema": "1.0",
        "machine": "aarch64",
        "runtime": "ai-edge-litert 2.3.0",
        "kind": kind,
        "width": 32,
        "height": 32,
        "stages": {"detect": {"p50_ms": p50_ms, "p99_ms": 2 * p50_ms}},
        "rss_bytes": 50_000_000,
        **changes,
    }


def write_lines(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def test_device_benchmark_chooses_the_faster_of_two_that_agree(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "benchmark.json", benchmark("int8", 30.0), benchmark("float32", 12.0))
    found = gate(Trained(), dataclasses.replace(THIS, device_benchmark=str(path)))
    assert found.kind == "float32"
    assert found.reason.endswith("float32 takes 12.0 ms, int8 30.0 ms")
    assert "aarch64" in found.reason


@pytest.mark.usefixtures("worse_int8")
def test_device_benchmark_never_ships_a_model_that_failed_the_gate(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "benchmark.json", benchmark("int8", 1.0), benchmark("float32", 12.0))
    assert gate(Trained(), dataclasses.replace(THIS, device_benchmark=str(path))).kind == "float32"


def test_benchmarks_may_be_a_list_and_the_last_of_a_kind_counts(tmp_path: Path) -> None:
    path = tmp_path / "benchmark.json"
    path.write_text(json.dumps([benchmark("int8", 9.0), benchmark("float32", 2.0), benchmark("int8", 3.0)]))
    assert read_benchmarks(path, INPUT)["int8"].p50_ms == 3.0


def test_benchmark_of_the_devices_own_program_is_understood(tmp_path: Path) -> None:
    from edge.benchmark import benchmark_model

    entries = [
        dataclasses.asdict(benchmark_model(GOLDEN / f"tiny_{kind}.tflite", rounds=3)) for kind in ("int8", "float32")
    ]
    found = read_benchmarks(write_lines(tmp_path / "benchmark.json", *entries), INPUT)
    assert found["int8"].p50_ms > 0
    assert found["float32"].rss_bytes > 0


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([benchmark("int8", 1.0)], "found none of float32"),
        ([benchmark("int8", 1.0, width=64), benchmark("float32", 1.0)], "want a benchmark at 32x32 px, found 64x32"),
        ([benchmark("int8", 1.0, schema="2.0")], r"schema: want 1\.x, found '2\.0'"),
        ([benchmark("int8", 1.0), benchmark("float32", 1.0, machine="x86_64")], "from one device and runtime"),
        ([{"schema": "1.0"}], "without a readable 'width'"),
        ([], "want JSON|found none of int8, float32"),
    ],
)
def test_benchmark_that_cannot_be_used_says_why(tmp_path: Path, entries: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_benchmarks(write_lines(tmp_path / "benchmark.json", *entries), INPUT)


def test_benchmark_file_that_is_missing_or_no_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"device_benchmark: cannot read .*nothing\.json"):
        gate(Trained(), dataclasses.replace(THIS, device_benchmark=str(tmp_path / "nothing.json")))
    (tmp_path / "text.json").write_text("p50 3 ms\n")
    with pytest.raises(SettingsError, match="want JSON, one benchmark per line"):
        read_benchmarks(tmp_path / "text.json", INPUT)


def test_converted_files_that_cannot_be_run_stop_the_gate(tmp_path: Path) -> None:
    from inspection.errors import ConversionError

    broken = shutil.copy(GOLDEN / "part-0.png", tmp_path / "model.tflite")
    with pytest.raises(ConversionError, match="cannot open this model"):
        gate(Trained(), converted=dataclasses.replace(CONVERTED, int8_path=Path(broken)))
