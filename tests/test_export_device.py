"""Scores through `edge.score`, with the device's packages."""

import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from export_pictures import pictures
from golden_package import DEFECT_TYPES, GOLDEN, INPUT

from edge.contract import InputContract
from edge.detector import Detector
from inspection.errors import ConversionError
from inspection.export import device, shards
from inspection.export.device import device_interpreter, score_on_device
from inspection.settings import ExportSettings

THIS = ExportSettings(device_python=sys.executable)
INT8 = GOLDEN / "tiny_int8.tflite"


def test_scores_are_those_of_the_detector_with_latency_and_memory() -> None:
    pixels = pictures(6)[0]
    found = score_on_device(INT8, pixels, INPUT, THIS, DEFECT_TYPES)
    detector = Detector(INT8, INPUT, DEFECT_TYPES)
    assert found.scores.tolist() == [detector.detect(pixels[index : index + 1]).score for index in range(6)]
    assert found.type_logits.shape == (6, 2)
    assert (found.kind, found.runtime, found.score_step) == ("int8", detector.runtime, detector.score_step)
    assert found.latency_s.shape == (6,)
    assert (found.latency_s > 0).all()
    assert found.describe()["p99_ms"] >= found.describe()["p50_ms"] > 0
    assert 10e6 < found.rss_bytes < 300e6  # neither torch nor this process


def test_memory_map_is_scored_without_reading_it_into_memory_first(tmp_path: Path) -> None:
    pixels = pictures(3)[0]
    np.save(tmp_path / "pixels.npy", pixels)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    want = score_on_device(INT8, pixels, INPUT, THIS, DEFECT_TYPES).scores
    np.testing.assert_array_equal(score_on_device(INT8, mapped, INPUT, THIS, DEFECT_TYPES).scores, want)


def test_interpreter_of_the_settings_beats_the_environment_at_the_root(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(device, "REPOSITORY", tmp_path)
    assert device_interpreter(ExportSettings()) == (Path(sys.executable), "this process's")
    python = tmp_path / ".venv-edge" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    assert device_interpreter(ExportSettings()) == (python, ".venv-edge")
    assert device_interpreter(THIS) == (Path(sys.executable), "settings")


def test_missing_interpreter_is_named() -> None:
    with pytest.raises(ConversionError, match=r"\[export\] device_python: want a Python interpreter, found nothing"):
        score_on_device(INT8, pictures(1)[0], INPUT, ExportSettings(device_python="/no/python"))


def test_failure_carries_the_words_of_the_device(tmp_path: Path) -> None:
    broken = tmp_path / "model.tflite"
    broken.write_bytes(b"no model")
    with pytest.raises(ConversionError, match=r"edge\.score: .*cannot open this model"):
        score_on_device(broken, pictures(1)[0], INPUT, THIS)


def test_pictures_of_another_size_are_refused() -> None:
    with pytest.raises(ConversionError, match="want pictures of 64x32 px, found 32x32"):
        score_on_device(INT8, pictures(1)[0], InputContract(width=64, height=32), THIS)


def test_no_pictures_are_refused() -> None:
    with pytest.raises(ConversionError, match="at least one picture"):
        score_on_device(INT8, np.zeros((0, 32, 32, 3), np.uint8), INPUT, THIS)


class Streamed:
    """Pictures that are made while they are gone over."""

    def __init__(self, count: int, made: Iterator[np.ndarray]) -> None:
        self.shape = (count, 32, 32, 3)
        self._made = made

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._made


def test_more_pictures_than_fit_into_memory_take_little_of_memory_and_disk(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(shards, "SHARD_BYTES", 1_000_000)
    written = []

    def made() -> Iterator[np.ndarray]:
        for number in range(1000):  # 3 MB in all
            if number % 100 == 0:
                written.append(sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()))
            yield np.full((32, 32, 3), number % 256, np.uint8)

    tracemalloc.start()
    try:
        found = score_on_device(INT8, Streamed(1000, made()), INPUT, THIS, DEFECT_TYPES)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    whole = np.stack([np.full((32, 32, 3), number % 256, np.uint8) for number in range(0, 1000, 50)])
    np.testing.assert_array_equal(found.scores[::50], score_on_device(INT8, whole, INPUT, THIS, DEFECT_TYPES).scores)
    assert peak < 1e6
    assert max(written) < 1.1e6


def test_an_error_while_the_pictures_are_made_comes_through() -> None:
    def made() -> Iterator[np.ndarray]:
        yield pictures(1)[0][0]
        raise ZeroDivisionError("a shard is gone")

    with pytest.raises(ZeroDivisionError, match="a shard is gone"):
        score_on_device(INT8, Streamed(4, made()), INPUT, THIS, DEFECT_TYPES)


def test_fewer_pictures_than_announced_are_refused() -> None:
    with pytest.raises(ConversionError, match="want 4 pictures, the file ends within number 3"):
        score_on_device(INT8, Streamed(4, iter(pictures(2)[0])), INPUT, THIS, DEFECT_TYPES)


def test_defect_types_may_have_commas_in_their_names() -> None:
    found = score_on_device(INT8, pictures(2)[0], INPUT, THIS, ("scratch, deep", "stain"))
    assert found.type_logits.shape == (2, 2)
