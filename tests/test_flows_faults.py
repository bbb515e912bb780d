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

from inspection.errors import DataError
from inspection.registry.opening import open_registry
from inspection.settings import load_settings
from inspection.train_path import learning

pytestmark = pytest.mark.slow

FULL_FLOW = """
import errno
from metaflow import FlowSpec, retry, step
from inspection.known_errors import ends_clearly

class FullFlow(FlowSpec):
    @ends_clearly
    @retry(times=2)
    @step
    def start(self):
        raise OSError(errno.ENOSPC, "No space left on device", "/mnt/small/x")
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    FullFlow()
"""


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


@pytest.mark.parametrize("flow", ["train_flow.py", "deploy_flow.py"])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ('width = "wide"', "dots.toml: line 8: [input] width: want a whole number, found 'wide'"),
        ("width = 64\nheigth = 64", "dots.toml: line 9: [input] heigth: unknown key, found 64; did you mean height"),
        ("width = ", "dots.toml: not valid TOML: Invalid value (at line 8"),
    ],
    ids=["wrong type", "unknown key", "no TOML"],
)
def test_a_wrong_setting_stops_a_flow_before_its_first_step(workspace: Path, flow: str, wrong, message) -> None:
    line = write_line(workspace, workspace)
    line.write_text(line.read_text().replace("width = 64", wrong))
    done = run_flow("--config", "line", str(line), "run", flow=FLOW.with_name(flow))
    printed = done.stdout + done.stderr
    assert done.returncode != 0
    assert message in printed
    assert "Traceback" not in printed
    assert "/start/" not in printed


def test_a_full_disk_ends_a_step_with_one_line_and_is_not_retried(workspace: Path) -> None:
    (workspace / "full_flow.py").write_text(FULL_FLOW)
    done = run_flow("run", flow=workspace / "full_flow.py")
    printed = done.stdout + done.stderr
    assert done.returncode != 0
    assert "error: StorageError: /mnt/small/x: no space left" in printed
    assert "TMPDIR" in printed
    assert "Traceback" not in printed
    assert "will not be retried" in printed


def test_a_missing_folder_is_told_before_weights_are_fetched(tmp_path: Path, monkeypatch) -> None:
    def fetch(settings: object) -> None:
        raise AssertionError("the weights were fetched first")

    monkeypatch.setattr("inspection.model.backbones.check_weights", fetch)
    with pytest.raises(DataError, match=r"nowhere: want a folder or list of images, found nothing.*--data"):
        learning.prepare(load_settings(write_line(tmp_path, tmp_path / "nowhere")))


@pytest.mark.parametrize(
    ("recipe", "least", "message"),
    [
        ("frozen", 4, r"too few images: want at least 8 outside of the holdout.*found 6 of 8"),
        ("finetune", 6, r"want at least 4 good and 4 bad ones for recipe finetune, found [23] good and [23] bad"),
    ],
)
def test_images_that_a_later_step_would_find_too_few_stop_the_first(tmp_path: Path, recipe, least, message) -> None:
    line = write_line(tmp_path, draw_parts(tmp_path / "parts", good=least, bad=least), recipe=recipe)
    line.write_text(line.read_text().replace("[input]", f"min_images_per_class = {least}\n[input]"))
    with pytest.raises(DataError, match=message):
        learning.prepare(load_settings(line))


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
    assert not any((workspace / "store" / "checkpoints").rglob("model-*.pt"))
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
