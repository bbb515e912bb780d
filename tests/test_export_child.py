"""Processes of the export: their failures become one clear error."""

import sys
from pathlib import Path

import numpy as np
import pytest
from small_disk import small_disk

from inspection.errors import ConversionError, StorageError
from inspection.export.child import hand_over, import_path, run_child


def run(code: str, folder: Path, timeout_s: float = 60) -> None:
    run_child([sys.executable, "-c", code], what="the work", advice="do this", folder=folder, timeout_s=timeout_s)


def test_failure_tells_status_advice_and_last_words(tmp_path: Path) -> None:
    with pytest.raises(ConversionError) as raised:
        run("import sys; print('the reason', file=sys.stderr); sys.exit(3)", tmp_path)
    assert str(raised.value).startswith("the work: the process ended with exit status 3; do this")
    assert "the reason" in str(raised.value)


def test_killed_process_is_named_so(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"ended by SIGKILL \(often: out of memory\)"):
        run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", tmp_path)


def test_process_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="not done after"):
        run("import time; time.sleep(60)", tmp_path, timeout_s=0.5)


def test_program_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="cannot start /no/such/python"):
        run_child(["/no/such/python"], what="the work", advice="do this", folder=tmp_path)


def test_noise_of_a_good_run_does_not_reach_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run("import sys; print('noise'); print('noise', file=sys.stderr)", tmp_path)
    assert capfd.readouterr() == ("", "")


def test_another_process_finds_what_this_one_finds(tmp_path: Path) -> None:
    run_child(
        [sys.executable, "-c", "import inspection.export, edge, export_pictures"],
        what="the import",
        advice="-",
        folder=tmp_path,
        environment={"PYTHONPATH": import_path()},
    )


def test_pictures_that_find_no_space_are_told_with_their_size_and_what_to_do(tmp_path: Path) -> None:
    pixels = np.zeros((10, 224, 224, 3), np.uint8)
    told = r"small/pixels\.npy: want room for 2 MB.*free space in .*TMPDIR"
    with small_disk(tmp_path / "small", 256 * 1024), pytest.raises(StorageError, match=told):
        hand_over(tmp_path / "small" / "pixels.npy", pixels)
