"""Raw frames and their own JPEGs: when the flow goes on and when it stops. A failed conversion is told at once."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from edge.contract import OperatingPoint
from inspection.dataset.manifest import ImageRow, make_snapshot
from inspection.errors import ConversionError, DataError, ParityError
from inspection.export import conversion
from inspection.settings import ExportSettings, LineSettings, Settings
from inspection.train_path import proving

IMAGES = 40
REPORT = SimpleNamespace(point=OperatingPoint(id="op", lower=-1.0, upper=1.0))


@pytest.fixture
def snapshot(tmp_path: Path):
    (tmp_path / "good").mkdir()
    rows = []
    for index in range(IMAGES):
        Image.new("RGB", (64, 64), (index, 90, 90)).save(tmp_path / "good" / f"{index}.png")
        uri = f"good/{index}.png"
        rows.append(
            ImageRow(uri=uri, sha256=f"{index:064}", width=64, height=64, label="good", group=uri, split="calibration")
        )
    return make_snapshot(rows, None, str(tmp_path))


def compare(snapshot, monkeypatch: pytest.MonkeyPatch, differing: int, jpeg_gate):
    scores = np.full(2 * IMAGES, -3.0)
    scores[IMAGES : IMAGES + differing] = 3.0  # the second half are the JPEGs
    monkeypatch.setattr(proving, "score_pixels", lambda *_: SimpleNamespace(scores=scores))
    settings = Settings(line=LineSettings(name="dots"), export=ExportSettings(jpeg_gate=jpeg_gate))
    return proving.compare_with_jpeg(settings, snapshot, None, REPORT)


def test_agreement_passes_both_gates(snapshot, monkeypatch) -> None:
    assert compare(snapshot, monkeypatch, 0, "stop").passed
    assert compare(snapshot, monkeypatch, 0, "warn").passed


def test_many_differences_stop_the_flow_when_asked_and_name_the_pictures(snapshot, monkeypatch) -> None:
    with pytest.raises(ParityError, match=r"75\.0% of 40 images, want >= 99\.5%; they differ on good/.*jpeg_gate"):
        compare(snapshot, monkeypatch, 10, "stop")


def test_many_differences_are_said_loudly_otherwise(snapshot, monkeypatch, caplog) -> None:
    agreement = compare(snapshot, monkeypatch, 10, "warn")
    assert not agreement.passed
    assert "event=jpeg_differs" in caplog.text


def test_one_part_at_a_threshold_stops_nothing(snapshot, monkeypatch) -> None:
    assert not compare(snapshot, monkeypatch, 1, "stop").passed


def test_a_picture_that_was_moved_since_the_start_is_named_with_what_to_do(snapshot, monkeypatch) -> None:
    (Path(snapshot.location) / "good" / "7.png").unlink()
    with pytest.raises(DataError, match=r"good/7\.png.*put the images back.*resume"):
        compare(snapshot, monkeypatch, 0, "warn")


class SlowModel:
    """Takes its time for every batch, and says when the first has begun."""

    def __init__(self) -> None:
        self.begun, self.batches = threading.Event(), 0

    def score_pixels(self, pixels: np.ndarray, batch: int = 8) -> np.ndarray:
        self.begun.set()
        self.batches += 1
        time.sleep(0.1)
        return np.zeros(len(pixels))


def test_a_failed_conversion_does_not_wait_for_the_scores_of_all_pictures(tmp_path, snapshot, monkeypatch) -> None:
    model = SlowModel()

    def convert(*_: object) -> None:
        assert model.begun.wait(10)
        raise ConversionError("no counterpart")

    monkeypatch.setattr(conversion, "convert", convert)
    monkeypatch.setattr(proving, "load_snapshot", lambda *_: snapshot)
    monkeypatch.setattr(proving, "parity_rows", lambda _: list(snapshot.rows))
    monkeypatch.setattr(proving, "load_trained", lambda *_: model)
    monkeypatch.setattr(proving, "CachedPixels", lambda *_: np.zeros((64 * 50, 8, 8, 3), dtype=np.uint8))
    settings = Settings(line=LineSettings(name="dots", storage=str(tmp_path / "storage")))
    with pytest.raises(ConversionError, match="no counterpart"):
        proving.export_model(settings, "id", None, None)
    assert 1 <= model.batches < 25, "of 50"
