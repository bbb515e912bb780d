"""The card of a finished step is kept with the model."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from running_flows import use_datastore

from inspection.train_path.report_card import read_card

FLOW = """
from metaflow import FlowSpec, card, current, step

class CardFlow(FlowSpec):
    @card(id="report", type="blank")
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        from inspection.train_path.report_card import read_card
        run = f"{current.flow_name}/{current.run_id}"
        open("kept.html", "wb").write(read_card(f"{run}/start", "report"))
        assert read_card(f"{run}/end", "report") is None
        assert read_card(f"{run}/nowhere", "report") is None

CardFlow()
"""


@pytest.mark.slow
def test_a_later_step_reads_the_card_of_an_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_datastore(tmp_path, monkeypatch)
    (tmp_path / "card_flow.py").write_text(FLOW)
    command = [sys.executable, "card_flow.py", "run"]
    done = subprocess.run(command, cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "kept.html").read_bytes().startswith(b"<!DOCTYPE html>")


def test_a_card_of_a_run_that_is_not_there_is_not_kept_and_the_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    use_datastore(tmp_path, monkeypatch)
    assert read_card("TrainFlow/17/evaluate", "report") is None
    assert "event=card_not_kept step=TrainFlow/17/evaluate card=report" in caplog.text
