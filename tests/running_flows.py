"""Runs the train flow as a person does; tests of whole flows are spread over files so that they run side by side."""

import subprocess
import sys
from pathlib import Path

import pytest

FLOW = Path(__file__).parents[1] / "flows" / "train_flow.py"


def use_datastore(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".metaflow").mkdir(exist_ok=True)
    monkeypatch.setenv("METAFLOW_DATASTORE_SYSROOT_LOCAL", str(folder))
    monkeypatch.setenv("METAFLOW_DEFAULT_METADATA", "local")
    monkeypatch.chdir(folder)


def run_flow(*arguments: str, timeout_s: float = 600, flow: Path = FLOW) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(flow), *arguments], capture_output=True, text=True, timeout=timeout_s, check=False
    )
