"""A disk that is full for a while: every part of a folder gets one result, which is counted once."""

import errno
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from golden_package import make_package
from inspecting import BAD, GOOD, Rig, part, picture, wait_until

from edge.review import ReviewSettings
from edge.serving import Serving
from edge.spool import Spool, SpoolSettings
from edge.spool.store import Store

PARTS = 60
SETTINGS = SpoolSettings(memory_bytes=160_000, retry_min_s=0.02, retry_max_s=0.1)  # room for some 40 results


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The disk refuses as long as this is set."""
    full = threading.Event()

    def refusing(name: str) -> None:
        real = getattr(Store, name)

        def method(*arguments: object) -> object:
            if full.is_set():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments)

        monkeypatch.setattr(Store, name, method)

    refusing("commit")
    refusing("write_image")
    return full


def test_a_folder_waits_at_a_full_disk_and_each_part_is_counted_once(tmp_path: Path, full: threading.Event) -> None:
    serving = Serving(make_package(tmp_path / "package"), tmp_path / "keep")
    serving.start()
    spool = Spool(tmp_path / "spool", "cam-1", SETTINGS)
    spool.sends_from_memory = False
    parts = [part(number, data=picture(number, BAD if number % 2 else GOOD)) for number in range(PARTS)]
    rig = Rig(tmp_path, serving, parts, store=spool, review=ReviewSettings())
    full.set()
    rig.start()
    wait_until(lambda: spool.is_full)
    judged = len(rig.results)
    assert "pass" not in spool.figures().evicted
    assert spool.figures().evicted["fail-image"] > 0
    full.clear()
    wait_until(lambda: len(rig.source.acknowledged) == PARTS)
    rig.inspector.stop()
    rig.end()
    assert judged < PARTS  # the others had waited in the folder
    assert rig.inspector.counts.unacknowledged == 0
    again = Spool(tmp_path / "spool", "cam-1", replace(SETTINGS, memory_bytes=32_000_000))
    assert again.folded() == []
    assert len(again.unsent(True, PARTS)) + len(again.unsent(False, PARTS)) == PARTS
    again.close()
