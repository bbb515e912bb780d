"""What is reported of a split is what the device does with it, image by image, in bounded memory."""

import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from golden_package import DEFECT_TYPES, GOLDEN, make_package
from PIL import Image

from edge.contract import Calibration, OperatingPoint
from edge.detector import Detector
from edge.digest import sha256_of
from edge.judge import judge_file, judge_frame
from edge.package import open_package
from edge.verdict import action_for
from inspection.dataset.manifest import Snapshot, load_snapshot
from inspection.decision.verdicts import OUTLETS, decide_all, resolve_all
from inspection.settings import DataSettings, ExportSettings, InputSettings, LineSettings, Settings, TrainingSettings
from inspection.storage import open_storage
from inspection.train_path import learning, proving
from inspection.train_path.judging import judge_rows, learn_input_guard

DARKER = 30  # grey levels; outside of what training saw
DARK = 12  # good holdout images under a darker lamp
MODEL = GOLDEN / "tiny_int8.tflite"
EXPORTED: Any = SimpleNamespace(key="model.tflite", sha256=sha256_of(MODEL), defect_types=DEFECT_TYPES)


def draw_part(generator: np.random.Generator, bad: bool) -> np.ndarray:
    plate = generator.normal(150 + generator.normal(0, 3), 6, (40, 48, 1)).repeat(3, axis=2)
    if bad:
        plate[10:14, 8:] -= 90
    return plate


def save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Snapshot]:
    """Settings of a line with images, some of the holdout under another lamp, and the tiny model in its storage."""
    folder, generator = tmp_path_factory.mktemp("line"), np.random.default_rng(0)
    for split, count in (("train", 60), ("validation", 30)):
        for label in ("good", "bad"):
            for index in range(count):
                save(draw_part(generator, label == "bad"), folder / f"parts/{split}/{label}/{split}-{index:03}.png")
    for index in range(DARK):
        save(draw_part(generator, False) - DARKER, folder / f"parts/validation/good/dark-{index:03}.png")
    settings = Settings(
        line=LineSettings(name="dots", storage=str(folder / "store")),
        data=DataSettings(source=str(folder / "parts")),
        input=InputSettings(width=32, height=32),
        training=TrainingSettings(backbone="squeezenet1_1", weights="none"),
        export=ExportSettings(device_python=sys.executable),
    )
    storage = open_storage(settings.storage_root)
    snapshot = learning.prepare(settings)
    storage.upload(MODEL, EXPORTED.key)
    return settings, load_snapshot(storage, snapshot.id)


@pytest.mark.parametrize("on_error", ["reject", "review"])
@pytest.mark.parametrize("review_action", ["review", "pass", "fail"])
def test_every_image_gets_the_verdict_that_the_device_gives_it(
    line: tuple[Settings, Snapshot], tmp_path: Path, on_error: Any, review_action: Any
) -> None:
    settings, snapshot = line
    rows = snapshot.select("holdout")
    guard = learn_input_guard(settings, snapshot.select("train"))
    judged = judge_rows(settings, EXPORTED, rows, guard)
    levels = np.unique(judged.scores[~judged.refused])
    point = OperatingPoint("op", float(levels[1]), float(levels[-2]), review_action, on_error)
    contract = open_package(make_package(tmp_path / "package", guard=guard, operating_point=point)).contract
    detector = Detector(MODEL, contract.input, DEFECT_TYPES)
    verdicts = decide_all(judged.scores, point, judged.refused)
    outlets = resolve_all(verdicts, point)
    for row, verdict, outlet in zip(rows, verdicts, outlets, strict=True):
        data = (Path(snapshot.location) / row.uri).read_bytes()
        frame = np.asarray(Image.open(Path(snapshot.location) / row.uri).convert("RGB"))
        for judgement in (judge_file(data, contract, detector), judge_frame(frame, contract, detector)):
            assert judgement.verdict == verdict, row.uri
            assert OUTLETS[action_for(judgement.verdict, point)] == outlet, row.uri
    dark = np.array(["dark-" in row.uri for row in rows])
    assert np.array_equal(judged.refused, dark)
    assert set(verdicts) == {"pass", "review", "fail", "error"}


def decision(settings: Settings, snapshot: Snapshot, **point: Any) -> Any:
    guard = learn_input_guard(settings, snapshot.select("train"))
    return SimpleNamespace(
        guard=guard,
        calibration=Calibration(1.0, 0.5),
        report=SimpleNamespace(point=OperatingPoint("op", **{"lower": -100.0, "upper": 100.0, **point})),
    )


def test_good_parts_that_the_guard_refuses_are_reported_as_errors_and_as_overkill(
    line: tuple[Settings, Snapshot],
) -> None:
    settings, snapshot = line
    found = proving.evaluate_holdout(settings, snapshot.id, EXPORTED, decision(settings, snapshot))
    assert found.confusion["good"] == {"pass": 0, "review": 30, "fail": 0, "error": DARK}
    assert found.rates.error_good.rate == pytest.approx(DARK / (30 + DARK))
    assert found.resolved.overkill.count == DARK
    assert found.resolved.overkill.low > 0.1
    assert found.robustness_images == 72
    assert found.robustness[0].error.count == DARK


def test_thresholds_are_chosen_with_the_guard_that_ships(line: tuple[Settings, Snapshot]) -> None:
    settings, snapshot = line
    chosen = proving.choose_thresholds(settings, snapshot.id, EXPORTED)
    assert chosen.guard == learn_input_guard(settings, snapshot.select("train"))
    assert chosen.refused.shape == chosen.scores.shape
    assert chosen.report.calibration_rates["error_good"].count == np.count_nonzero(
        chosen.refused & [row.label == "good" for row in snapshot.select("calibration")]
    )


def test_memory_does_not_grow_with_the_number_of_images(
    line: tuple[Settings, Snapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, snapshot = line

    def peak(repeats: int) -> int:
        rows = snapshot.select("holdout") * repeats
        many = SimpleNamespace(select=lambda split: rows, location=snapshot.location)
        monkeypatch.setattr(proving, "load_snapshot", lambda *_: many)
        tracemalloc.start()
        try:
            found = proving.evaluate_holdout(settings, snapshot.id, EXPORTED, decision(settings, snapshot))
            assert found.images == 72 * repeats
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1)  # what is imported and compiled once
    few, many = peak(20), peak(60)
    assert many - few < 0.25 * 40 * 72 * 32 * 32 * 3, "bytes of the images that came"
