"""What the device tells about itself: folded passes arrive in spite of outages, totals of what went wrong are told."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sending import TOPICS, Recorder, until
from spool_writer import result

from edge.errors import RefusedError
from edge.figures import Figures
from edge.inspection import Counts
from edge.part import SourceHealth
from edge.reporting import Parts, Reporting
from edge.selection import Counts as ImageCounts
from edge.sender import Sender
from edge.served import ServingState
from edge.settings import InspectorSettings
from edge.spool import FoldedCounts, Spool, SpoolSettings, rows
from edge.spool.store import Batch, Store
from edge.spool.writer import Writer
from edge.state_file import StateFile
from edge.transports.settings import SenderSettings
from edge.uploader.supervisor import UploadState

FOLDED = FoldedCounts("thing-1", "cookies", 1_796_000_400, "p", "op", 1000, 1, 1000)


class Device:
    """Reporting, sender and spool as they are; the rest is well and says so."""

    def __init__(self, folder: Path) -> None:
        store = Store(folder / "spool")
        store.commit(Batch(folded=[FOLDED]))
        store.close()
        self.spool = Spool(folder / "spool", "thing-1", SpoolSettings())
        self.transport = Recorder()
        self.sender = Sender(self.spool, self.transport, TOPICS, SenderSettings(poll_s=0.01))
        self.counts = Counts()
        self.serving = SimpleNamespace(state=lambda: ServingState(False, "none"), current=lambda: None, refusals=0)
        parts: dict[str, Any] = {
            "serving": self.serving,
            "source": SimpleNamespace(health=lambda: SourceHealth(True, "")),
            "uploader": SimpleNamespace(state=lambda: UploadState(True, "off", "", 0, 0, 0, 0)),
            "outputs": SimpleNamespace(faults=list, alarm=SimpleNamespace(raised=False)),
            "inspector": SimpleNamespace(
                counts=self.counts,
                pool=SimpleNamespace(late=0, substitutes=0),
                review=SimpleNamespace(counts=ImageCounts()),
            ),
        }
        settings = InspectorSettings(state=str(folder))
        self.reporting = Reporting(
            settings,
            "cookies",
            TOPICS,
            Parts(spool=self.spool, transport=self.transport, sender=self.sender, **parts),
            Figures(),
            StateFile(folder / "figures.json"),
        )
        self._now_s = 1e9

    def minutes(self, number: int) -> None:
        for _ in range(number):
            self._now_s += 61.0
            self.reporting.tick(self._now_s, "")

    def told(self, topic: str) -> list[dict[str, Any]]:
        return [json.loads(payload) for where, payload in list(self.transport.taken) if where == topic]


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    device = Device(tmp_path)
    yield device
    device.sender.close(1)
    device.spool.close()


def carriers(device: Device) -> list[int]:
    """Which of the metrics messages told of folded passes."""
    return [index for index, message in enumerate(device.told(TOPICS.metrics)) if message.get("folded")]


def test_folded_passes_arrive_after_an_outage_longer_than_the_queue_of_messages(device: Device) -> None:
    device.transport.connected = False
    device.sender.start()
    device.minutes(180)
    device.transport.connected = True
    until(lambda: len(device.told(TOPICS.metrics)) == 120)
    assert len(carriers(device)) == 1
    assert device.told(TOPICS.metrics)[carriers(device)[0]]["folded"][0]["id"] == FOLDED.id
    until(lambda: device.spool.folded() == [])
    device.minutes(3)
    until(lambda: len(device.told(TOPICS.metrics)) == 123)
    assert len(carriers(device)) == 1


def test_folded_passes_of_a_refused_message_are_told_by_another(device: Device) -> None:
    refused = iter([RefusedError("not now")])
    device.transport.fault = lambda topic, payload: next(refused, None) if topic == TOPICS.metrics else None
    device.sender.start()
    device.minutes(1)
    until(lambda: device.sender.figures().dropped == 1)
    assert device.spool.folded() == [FOLDED]
    device.minutes(1)
    until(lambda: device.spool.folded() == [])
    assert carriers(device) == [0]


def test_totals_of_what_went_wrong_are_in_metrics_and_health(device: Device) -> None:
    device.sender.start()
    device.counts.faults = Counter({"store": 2, "review": 1})
    device.counts.unacknowledged = 4
    device.serving.refusals = 3
    device.minutes(1)
    until(lambda: device.told(TOPICS.metrics) and device.told(TOPICS.health))
    totals = device.told(TOPICS.metrics)[0]["program_total"]
    assert (totals["faults"], totals["unacknowledged"], totals["packages_refused"]) == (3, 4, 3)
    said = device.told(TOPICS.health)[0]["components"]["inspector"]["message"]
    assert "unacknowledged: 4" in said
    assert "packages refused: 3" in said


def test_a_disk_that_hangs_holds_up_no_look_and_health_says_so(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    counters = rows.counters
    monkeypatch.setattr(rows, "counters", lambda connection: release.wait(20) and counters(connection))
    monkeypatch.setattr(Writer, "refusal", lambda self: "the disk has taken nothing for 11 s")
    device.sender.start()
    began_s = time.monotonic()
    device.minutes(3)
    assert time.monotonic() - began_s < 5.0
    assert not release.is_set()
    release.set()
    until(lambda: len(device.told(TOPICS.metrics)) == 3)
    assert "taken nothing for 11 s" in device.told(TOPICS.health)[0]["components"]["spool"]["message"]
    assert len(carriers(device)) == 1


def test_counts_are_reported_once_though_the_answer_that_holds_them_is_old(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.sender.start()
    device.minutes(1)
    until(lambda: device.spool.folded() == [])
    monkeypatch.setattr(device.reporting._spool_asked, "take", lambda: None)
    device.minutes(2)
    until(lambda: len(device.told(TOPICS.metrics)) == 3)
    assert carriers(device) == [0]


def test_figures_that_are_refreshed_know_what_came_since(device: Device) -> None:
    before = device.spool.figures()
    for key in ("a", "b"):
        device.spool.put(result(key))
    after = device.spool.refreshed(before)
    assert (after.queue_length, after.next_sequence) == (2, before.next_sequence + 2)
    assert after.evicted == before.evicted
