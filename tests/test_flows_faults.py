"""What stops or interrupts the train flow, through its command line."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from parts import draw_parts, write_line
from running_flows import FLOW, run_flow, use_datastore

from inspection.registry.opening import open_registry
from inspection.settings import load_settings

pytestmark = pytest.mark.slow


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a Metaflow datastore of its own."""
    use_datastore(tmp_path, monkeypatch)
    return tmp_path


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
