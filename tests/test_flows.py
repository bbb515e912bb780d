"""The train flow as a person runs it: through its command line, on pictures in a folder."""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import time
from pathlib import Path

import pytest
from metaflow import Flow, Run, Runner, namespace
from parts import draw_parts, write_line

from edge.package import open_package
from inspection.registry.local import open_registry
from inspection.settings import load_settings

pytestmark = pytest.mark.slow

FLOW = Path(__file__).parents[1] / "flows" / "train_flow.py"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a Metaflow datastore of its own."""
    use_datastore(tmp_path, monkeypatch)
    return tmp_path


def use_datastore(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".metaflow").mkdir(exist_ok=True)
    monkeypatch.setenv("METAFLOW_DATASTORE_SYSROOT_LOCAL", str(folder))
    monkeypatch.setenv("METAFLOW_DEFAULT_METADATA", "local")
    monkeypatch.chdir(folder)


def run_flow(*arguments: str, timeout_s: float = 600) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(FLOW), *arguments], capture_output=True, text=True, timeout=timeout_s, check=False
    )


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
    assert {"line:dots", "backbone:squeezenet1_1"} <= set(run.tags)
    assert run["evaluate"].task.data.evaluation.auroc.value > 0.9
    assert json.loads(run["evaluate"].task.data.metrics_json)["schema"] == "1.0"
    sizes = {artifact.id: len(str(artifact.data)) for artifact in run["end"].task.artifacts}
    assert max(sizes.values()) < 1_000_000, sizes


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


@pytest.mark.parametrize(
    ("arrange", "message"),
    [
        (lambda folder: folder / "nowhere", r"nowhere"),
        (lambda folder: draw_parts(folder / "parts", good=30, bad=0), r"bad"),
        (lambda folder: draw_parts(folder / "parts", good=30, bad=1), r"found 1"),
    ],
    ids=["missing folder", "one class only", "one bad image"],
)
def test_bad_data_stops_the_flow_in_its_first_step_with_one_line(workspace: Path, arrange, message: str) -> None:
    source = arrange(workspace)
    done = run_flow("--config", "line", str(write_line(workspace, source)), "run")
    printed = done.stdout + done.stderr
    assert done.returncode != 0
    assert "error: DataError:" in printed
    assert message in printed
    assert "Traceback" not in printed
    assert "will not be retried" in printed
    assert "/compare/" not in printed


def test_a_wrong_setting_stops_the_flow_before_any_image_is_read(workspace: Path) -> None:
    line = write_line(workspace, draw_parts(workspace / "parts", good=12, bad=12))
    line.write_text(line.read_text().replace("width = 64", 'width = "wide"'))
    done = run_flow("--config", "line", str(line), "run")
    printed = done.stdout + done.stderr
    assert done.returncode != 0
    assert "[input] width" in printed
    assert "'wide'" in printed
    assert "Traceback" not in printed


def test_missing_weights_stop_the_flow_in_its_first_step(workspace: Path) -> None:
    line = write_line(workspace, draw_parts(workspace / "parts", good=12, bad=12))
    done = run_flow("--config", "line", str(line), "run", "--weights", "/nowhere/weights.pth")
    printed = done.stdout + done.stderr
    assert done.returncode != 0
    assert "error: TrainingError:" in printed
    assert "/nowhere/weights.pth" in printed


def test_float_ships_with_the_reason_when_int8_fails_the_gate(workspace: Path) -> None:
    line = write_line(workspace, draw_parts(workspace / "parts", good=40, bad=40), export="min_correlation = 0.9999999")
    done = run_flow("--config", "line", str(line), "run")
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    assert "float32 ships although the target is int8; int8 failed the parity gate: correlation" in printed
    (version,) = open_registry(load_settings(line)).list("dots")
    assert version.tags["artifact"] == "float32"


def test_a_run_killed_in_training_is_resumed(workspace: Path) -> None:
    line = write_line(workspace, draw_parts(workspace / "parts", good=40, bad=40), recipe="finetune")
    line.write_text(line.read_text().replace("epochs = 3", "epochs = 12"))
    started = subprocess.Popen(
        [sys.executable, str(FLOW), "--config", "line", str(line), "run"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(lambda: any((workspace / "store" / "checkpoints").rglob("*.pt")), started)
    finally:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()
    assert not any((workspace / "store" / "checkpoints").rglob("model.pt"))
    done = run_flow("resume")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resum" in done.stdout + done.stderr
    assert len(open_registry(load_settings(line)).list("dots")) == 1


def wait_for(happened, process: "subprocess.Popen[bytes]", limit_s: float = 300) -> None:
    end = time.monotonic() + limit_s
    while not happened():
        assert process.poll() is None, "the flow ended before it was killed"
        assert time.monotonic() < end, "no checkpoint was written in time"
        time.sleep(0.2)


def test_the_recipes_are_compared_side_by_side(workspace: Path) -> None:
    line = write_line(workspace, draw_parts(workspace / "parts", good=40, bad=40), recipe="auto")
    with Runner(str(FLOW), config=[("line", str(line))], show_output=False).run() as running:
        assert running.status == "successful", running.stdout + running.stderr
        choice = running.run["train"].task.data.choice
        assert {task.data.comparison.recipe for task in running.run["compare"]} == {"frozen", "finetune"}
    assert set(choice.aurocs) == {"frozen", "finetune", "both"}
    assert choice.recipe in choice.explanation
    assert Flow("TrainFlow").latest_successful_run is not None


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
