"""The train flow as a person runs it: through its command line, on pictures in a folder."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import numpy as np
import pytest
from metaflow import Flow, Run, Runner, namespace
from parts import draw_parts, write_line
from PIL import Image
from running_flows import FLOW, run_flow, use_datastore

from edge.package import open_package
from inspection.dataset.manifest import load_snapshot
from inspection.errors import DataError, StorageError
from inspection.export.golden import FEWER_IMAGES
from inspection.registry.opening import open_registry
from inspection.settings import DataSettings, load_settings
from inspection.storage import open_storage
from inspection.train_path import proving, releasing

pytestmark = pytest.mark.slow


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a Metaflow datastore of its own."""
    use_datastore(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> "tuple[Path, str, str]":
    """One run of the whole flow: its folder, its run id and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    line = write_line(folder, draw_parts(folder / "parts", good=60, bad=60))
    (folder / ".metaflow").mkdir()
    environment = {**os.environ, "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(folder)}
    done = subprocess.run(
        [sys.executable, str(FLOW), "--config", "line", str(line), "run", "--run-id-file", str(folder / "run-id")],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=folder,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, (folder / "run-id").read_text(), done.stdout


def test_a_run_registers_a_package_that_the_device_accepts(finished, tmp_path: Path) -> None:
    folder, _, _ = finished
    registry = open_registry(load_settings(folder / "dots.toml"))
    (version,) = registry.list("dots")
    assert version.status == "pending"
    package = open_package(registry.fetch("dots", 1, tmp_path / "package"))
    assert package.contract.line == "dots"
    assert package.contract.operating_point.lower <= package.contract.operating_point.upper
    assert json.loads((package.folder / "provenance.json").read_text())["snapshot"] == version.lineage.snapshot


def test_the_figures_lie_beside_the_archive_and_in_the_package(finished, tmp_path: Path, monkeypatch) -> None:
    folder, run_id, printed = finished
    use_datastore(folder, monkeypatch)
    namespace(None)
    registry = open_registry(load_settings(folder / "dots.toml"))
    key = registry.get("dots", 1).archive.removesuffix(".zip") + ".metrics.json"
    assert f"figures       | {folder / 'store'}/{key}" in printed
    kept = (folder / "store" / key).read_text()
    assert (registry.fetch("dots", 1, tmp_path / "package") / "metrics.json").read_text() == kept
    assert kept == Run(f"TrainFlow/{run_id}")["evaluate"].task.data.metrics_json
    assert json.loads(kept)["auroc"]["value"] > 0.9


def test_a_run_ends_with_what_a_person_needs_to_decide(finished) -> None:
    _, run_id, printed = finished
    for words in (
        "line dots, version 1 (pending)",
        "of bad parts pass",
        "of good parts fail",
        "with 95% confidence",
        "decides as the trained model on",
        "ms, p99",
        f"card view {run_id}/evaluate",
    ):
        assert words in printed


def test_a_run_is_found_by_its_tags_and_keeps_figures_not_arrays(finished, monkeypatch) -> None:
    folder, run_id, _ = finished
    use_datastore(folder, monkeypatch)
    namespace(None)
    run = Run(f"TrainFlow/{run_id}")
    snapshot = run["start"].task.data.snapshot_id[:12]
    assert {"line:dots", "backbone:squeezenet1_1", f"snapshot:{snapshot}"} <= set(run.tags)
    assert run["evaluate"].task.data.evaluation.auroc.value > 0.9
    assert json.loads(run["evaluate"].task.data.metrics_json)["schema"] == "1.1"
    sizes = {artifact.id: len(str(artifact.data)) for artifact in run["end"].task.artifacts}
    assert max(sizes.values()) < 1_000_000, sizes


def test_nothing_is_decided_judged_or_registered_with_another_model_than_the_exported_one(
    finished, monkeypatch
) -> None:
    folder, run_id, _ = finished
    use_datastore(folder, monkeypatch)
    namespace(None)
    settings = load_settings(folder / "dots.toml")
    run = Run(f"TrainFlow/{run_id}")["evaluate"].task.data
    model = Path(settings.storage_root) / run.exported.key
    good = model.read_bytes()
    model.write_bytes(good + b"\0")
    again = r"model-int8-.*want sha256 [0-9a-f]{64}.*export.*found [0-9a-f]{64}.*resume export"
    try:
        with pytest.raises(StorageError, match=again):
            proving.choose_thresholds(settings, run.snapshot_id, run.exported)
        with pytest.raises(StorageError, match=again):
            proving.evaluate_holdout(settings, run.snapshot_id, run.exported, run.decision)
        with pytest.raises(StorageError, match=again):
            releasing.release(settings, run, f"TrainFlow/{run_id}")
        model.unlink()
        with pytest.raises(StorageError, match=r"model-int8-.*found none in storage.*resume export"):
            releasing.release(settings, run, f"TrainFlow/{run_id}")
    finally:
        model.write_bytes(good)
    assert len(open_registry(settings).list("dots")) == 1


def test_images_that_were_moved_before_the_package_was_made_are_named(finished, monkeypatch) -> None:
    folder, run_id, _ = finished
    use_datastore(folder, monkeypatch)
    namespace(None)
    settings = load_settings(folder / "dots.toml")
    run = Run(f"TrainFlow/{run_id}")["evaluate"].task.data
    (folder / "parts").rename(folder / "elsewhere")
    try:
        with pytest.raises(DataError, match=r"/parts: want the image .*\.png.*put the images back.*resume"):
            releasing.release(settings, run, f"TrainFlow/{run_id}")
        with pytest.raises(DataError, match=r"/parts: want the image .*\.png.*put the images back.*resume"):
            proving.choose_thresholds(settings, run.snapshot_id, run.exported)
    finally:
        (folder / "elsewhere").rename(folder / "parts")


def test_the_cards_hold_the_figures_and_the_pictures(finished) -> None:
    folder, run_id, _ = finished
    for step, words in (("start", "holdout"), ("train", "frozen"), ("export", "What ships"), ("evaluate", "Promised")):
        done = run_flow_in(folder, "card", "get", f"{run_id}/{step}", str(folder / f"{step}.html"))
        assert done.returncode == 0, done.stdout + done.stderr
        text = (folder / f"{step}.html").read_text()
        assert words in decoded(text), step
    assert "data:image/png" in decoded((folder / "evaluate.html").read_text())


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_browser_shows_the_report(finished, tmp_path: Path) -> None:
    folder, run_id, _ = finished
    page = tmp_path / "report.html"
    done = run_flow_in(folder, "card", "get", f"{run_id}/evaluate", str(page))
    assert done.returncode == 0, done.stdout + done.stderr
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    browser += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    browser += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000", "--dump-dom", page.as_uri()]
    shown = subprocess.run(browser, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "What to expect of 1,000 parts" in shown
    assert "Promised with 95% confidence" in shown
    assert shown.count("<img") >= 8


def decoded(page: str) -> str:
    """A card's page with its data, which Metaflow embeds in base64."""
    import base64
    import re

    parts = [
        base64.b64decode(blob).decode("utf-8", "replace") for blob in re.findall(r'"([A-Za-z0-9+/=]{400,})"', page)
    ]
    return page + "\n".join(parts)


def run_flow_in(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(folder)}
    return subprocess.run(
        [sys.executable, str(FLOW), "--config", "line", str(folder / "dots.toml"), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=folder,
        env=environment,
    )


def test_the_recipes_are_compared_side_by_side(workspace: Path) -> None:
    line = write_line(workspace, draw_parts(workspace / "parts", good=40, bad=40), recipe="auto")
    with Runner(str(FLOW), config=[("line", str(line))], show_output=False).run() as running:
        assert running.status == "successful", running.stdout + running.stderr
        choice = running.run["train"].task.data.choice
        assert {task.data.comparison.recipe for task in running.run["compare"]} == {"frozen", "finetune"}
    assert set(choice.aurocs) == {"frozen", "finetune", "both"}
    assert choice.recipe in choice.explanation
    assert Flow("TrainFlow").latest_successful_run is not None


def test_the_least_images_that_are_documented_make_a_model(workspace: Path) -> None:
    least = DataSettings().min_images_per_class
    parts = draw_parts(workspace / "parts", good=least, bad=least)
    line = write_line(workspace, parts, recipe="auto")
    with Runner(str(FLOW), config=[("line", str(line))], show_output=False).run() as running:
        assert running.status == "successful", running.stdout + running.stderr
        snapshot_id = running.run["start"].task.data.snapshot_id
    settings = load_settings(line)
    package = open_package(open_registry(settings).fetch("dots", 1, workspace / "package"))
    assert len(package.contract.self_test.images) >= FEWER_IMAGES
    held_out = load_snapshot(open_storage(settings.storage_root), snapshot_id).select("holdout")
    pictures = [np.asarray(Image.open(parts / row.uri)) for row in held_out]
    for golden in package.contract.self_test.images:
        shown = np.asarray(Image.open(package.folder / golden.file))
        assert not any(np.array_equal(shown, picture) for picture in pictures)


def test_the_code_package_imports_in_a_clean_environment(workspace: Path) -> None:
    """On AWS Batch nothing but the code package is there: library, device code and settings must be in it."""
    done = run_flow("package", "save", str(workspace / "package.tgz"))
    assert done.returncode == 0, done.stdout + done.stderr
    extracted = workspace / "extracted"
    with tarfile.open(workspace / "package.tgz") as archive:
        archive.extractall(extracted, filter="data")
    code = "import edge.detector, inspection.train_path.releasing as last; print(last.__file__, edge.__file__)"
    path = sysconfig.get_path("purelib")
    # -S leaves out the editable install of this checkout: only the packages themselves come from the environment.
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.append({path!r}); {code}"],
        capture_output=True,
        text=True,
        cwd=extracted,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(extracted)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all(str(extracted) in name for name in done.stdout.split())
