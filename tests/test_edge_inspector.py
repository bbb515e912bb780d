"""The loop: exactly one verdict per part, in order, in time; acknowledged when durable; faults are counted."""

import dataclasses
import io
import itertools
import random
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from golden_package import make_package
from inspecting import BAD, GOOD, Limits, Rig, part, picture, slow, wait_until
from PIL import Image

import edge.judge
import edge.keeping
import edge.pool
from edge.contract import InputGuard, OperatingPoint, Range
from edge.in_hand import InHand
from edge.part import Part
from edge.results import Result
from edge.review import ReviewSettings
from edge.serving import Serving
from edge.verdict import action_for

OPEN_GUARD = InputGuard(Range(0.0, 255.0), Range(0.0, 255.0), Range(0.0, 255.0), Range(0.01, 99.0), 1, 1)


@pytest.fixture
def serving(tmp_path: Path) -> Serving:
    """The tiny model serves."""
    serving = Serving(make_package(tmp_path / "package"), tmp_path / "keep", workers=4)
    serving.start()
    return serving


def ticking(serving: Serving) -> Callable[[float], str | None]:
    """Has the serving look for a package at every turn of the loop."""

    def on_turn(now_s: float) -> str | None:
        serving.tick(now_s * 1000)
        return None

    return on_turn


def test_parts_get_verdicts_in_order_and_are_acknowledged_with_their_results(tmp_path: Path, serving: Serving) -> None:
    kinds = [GOOD, BAD, GOOD, GOOD, BAD]
    parts = [part(n, data=picture(n, of), part_id=f"id-{n}", lot="L1") for n, of in enumerate(kinds)]
    rig = Rig(tmp_path, serving, parts)
    rig.run()
    assert rig.verdicts == ["pass", "fail", "pass", "pass", "fail"]
    assert [result.action for result in rig.results] == ["accept", "reject", "accept", "accept", "reject"]
    first = rig.results[0].sequence
    assert [result.sequence for result in rig.results] == list(range(first, first + 5))
    assert [key for key, _ in rig.source.acknowledged] == [f"part-{n}" for n in range(5)]
    assert [result for _, result in rig.source.acknowledged] == rig.results
    # The line heard the same, by the same ids, though it heard before the spool.
    assert [result.id for result in rig.output.heard] == [result.id for result in rig.results]
    result = rig.results[1]
    assert (result.thing, result.line, result.part_id, result.lot) == ("cam-1", "tiny", "id-1", "L1")
    assert (result.operating_point, result.artifact, result.label) == ("op-1", "int8", "scratch")
    assert result.runtime
    assert result.image_sha256 is not None
    assert len(result.image_sha256) == 64
    assert set(result.latency_ms) == {"queue", "decode", "preprocess", "detect", "total"}
    assert result.latency_ms["total"] >= result.latency_ms["decode"] + result.latency_ms["detect"]
    assert rig.inspector.counts.faults == Counter()


def test_raw_frames_are_judged_as_their_files_are(tmp_path: Path, serving: Serving) -> None:
    frames = [part(0, frame=GOOD.copy()), part(1, frame=BAD.copy())]
    rig = Rig(tmp_path, serving, frames, keeps_parts=False)
    rig.run()
    assert rig.verdicts == ["pass", "fail"]
    assert rig.results[0].image_sha256 is None
    assert rig.results[0].latency_ms["decode"] == 0


def test_a_part_without_a_picture_is_an_error_with_its_sources_code(tmp_path: Path, serving: Serving) -> None:
    rig = Rig(tmp_path, serving, [part(0, fault=("source", "the camera gave nothing")), part(1, data=None), part(2)])
    rig.run()
    assert rig.errors == ["source", "source", None]
    assert rig.results[0].detail == "the camera gave nothing"
    assert [result.action for result in rig.results] == ["reject", "reject", "accept"]


def test_a_late_detector_gives_an_error_at_the_deadline_and_its_result_is_discarded(
    tmp_path: Path, serving: Serving
) -> None:
    release = threading.Event()
    slow(serving, lambda pixels: None if release.is_set() else release.wait(30) and None)
    rig = Rig(tmp_path, serving, [part(0)], limits=Limits(deadline_ms=100))
    rig.start()
    wait_until(lambda: len(rig.output.heard) == 1)
    assert not release.is_set()  # the verdict came while the detector was still at work
    heard = rig.output.heard[0]
    assert (heard.verdict, heard.error, heard.action) == ("error", "deadline", "reject")
    assert heard.latency_ms["total"] >= 90
    release.set()
    wait_until(lambda: rig.inspector.pool.late == 1)
    rig.source.waiting.append(part(1))
    wait_until(lambda: len(rig.source.acknowledged) == 2)
    rig.end()
    assert rig.errors == ["deadline", None]
    assert len(rig.output.heard) == 2


def test_verdict_and_deadline_at_the_same_moment_never_give_two_verdicts(tmp_path: Path, serving: Serving) -> None:
    generator = random.Random(1)
    slow(serving, lambda pixels: time.sleep(generator.uniform(0.0, 0.04)))
    rig = Rig(tmp_path, serving, [part(n) for n in range(150)], workers=4, limits=Limits(deadline_ms=25))
    rig.run()
    assert [result.source_key for result in rig.results] == [f"part-{n}" for n in range(150)]
    assert [result.source_key for result in rig.output.heard] == [f"part-{n}" for n in range(150)]
    sequences = [result.sequence for result in rig.results]
    assert sequences == list(range(sequences[0], sequences[0] + 150))
    assert Counter(key for key, _ in rig.source.acknowledged) == Counter(f"part-{n}" for n in range(150))
    assert {"deadline", None} >= set(rig.errors)
    assert "deadline" in rig.errors


def test_several_workers_keep_the_order_of_the_parts(tmp_path: Path, serving: Serving) -> None:
    generator = random.Random(2)
    slow(serving, lambda pixels: time.sleep(generator.uniform(0.0, 0.01)))
    at_work: set[int] = set()
    rig = Rig(tmp_path, serving, [part(n) for n in range(60)], workers=4, limits=Limits(deadline_ms=60_000))
    slow(serving, lambda pixels: at_work.add(threading.get_ident()))
    rig.run()
    assert [result.source_key for result in rig.output.heard] == [f"part-{n}" for n in range(60)]
    assert set(rig.verdicts) == {"pass"}
    assert len(at_work) > 1


def test_a_part_that_breaks_the_judge_is_an_error_and_the_next_is_judged(tmp_path: Path, serving: Serving) -> None:
    calls: list[int] = []

    def breaks(pixels: np.ndarray) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise MemoryError("no room")

    slow(serving, breaks)
    rig = Rig(tmp_path, serving, [part(0), part(1)])
    rig.run()
    assert rig.errors == ["internal", None]
    assert "no room" in (rig.results[0].detail or "")


def test_a_worker_that_hangs_gets_a_substitute(
    tmp_path: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.pool, "_STUCK_S", 0.05)
    release, calls = threading.Event(), []

    def hangs_once(pixels: np.ndarray) -> None:
        calls.append(1)
        if len(calls) == 1:
            release.wait(30)

    slow(serving, hangs_once)
    rig = Rig(tmp_path, serving, limits=Limits(deadline_ms=100))
    rig.start()
    rig.source.waiting.append(part(0))
    wait_until(lambda: len(rig.results) == 1)
    rig.inspector.limits = Limits(deadline_ms=60_000)
    rig.source.waiting.append(part(1))
    wait_until(lambda: len(rig.results) == 2)
    release.set()
    rig.end()
    assert rig.errors == ["deadline", None]
    assert rig.inspector.pool.substitutes == 1


def test_without_a_package_a_camera_gets_errors_and_a_folder_waits(tmp_path: Path) -> None:
    waits = Serving(tmp_path / "none", tmp_path / "keep")
    waits.start()
    camera = Rig(tmp_path / "camera", waits, [part(0), part(1, fault=("source", "no frame"))], keeps_parts=False)
    camera.run()
    assert camera.errors == ["model", "source"]
    assert [result.action for result in camera.results] == ["reject", "reject"]
    folder = Rig(tmp_path / "folder", waits, [part(0)], on_turn=ticking(waits))
    folder.start()
    time.sleep(0.2)
    assert folder.source.taken == 0
    make_package(tmp_path / "made").rename(tmp_path / "none")
    wait_until(lambda: len(folder.source.acknowledged) == 1)
    folder.end()
    assert folder.verdicts == ["pass"]


def test_a_known_source_key_is_acknowledged_with_its_stored_result(tmp_path: Path, serving: Serving) -> None:
    first = Rig(tmp_path, serving, [part(0)])
    first.run()
    again = Rig(tmp_path, serving, [part(0, data=picture(77, BAD)), part(1)])
    again.run()
    assert [key for key, _ in again.source.acknowledged] == ["part-0", "part-1"]
    assert again.source.acknowledged[0][1] == first.results[0]
    assert [result.source_key for result in again.results] == ["part-1"]
    assert again.inspector.counts.repeated == 1


def test_a_part_offered_twice_at_once_is_inspected_once(tmp_path: Path, serving: Serving) -> None:
    slow(serving, lambda pixels: time.sleep(0.1))
    rig = Rig(tmp_path, serving, [part(0), part(0, data=picture(9, BAD)), part(0)], limits=Limits(60_000))
    rig.run()
    assert rig.verdicts == ["pass"]
    assert [key for key, _ in rig.source.acknowledged] == ["part-0"] * 3
    assert len({result.id for _, result in rig.source.acknowledged}) == 1


class Disk:
    """A store whose disk a test lets go."""

    def __init__(self) -> None:
        self.tickets: list[SlowTicket] = []
        self.reserved = 0
        self.refuses = False
        self.is_full = False

    def reserve(self) -> int:
        self.reserved += 1
        return self.reserved - 1

    def find(self, source_key: str) -> Result | None:
        return None

    def put(self, result: Result, image: object = None, reserved: bool = False) -> "SlowTicket":
        assert reserved
        if self.refuses:
            raise OSError(5, "Input/output error")
        self.tickets.append(SlowTicket(result))
        return self.tickets[-1]


class SlowTicket:
    def __init__(self, result: Result) -> None:
        self.result = result
        self.durable = False
        self.dropped = False

    def wait(self, timeout_s: float) -> bool:
        return self.durable


def test_a_part_is_acknowledged_only_when_its_result_is_on_the_disk(tmp_path: Path, serving: Serving) -> None:
    disk = Disk()
    rig = Rig(tmp_path, serving, [part(n) for n in range(3)], store=disk)
    rig.start()
    wait_until(lambda: len(rig.results) == 3)
    time.sleep(0.1)
    assert rig.source.acknowledged == []
    disk.tickets[0].durable = True
    wait_until(lambda: len(rig.source.acknowledged) == 1)
    disk.tickets[1].durable = disk.tickets[2].durable = True
    wait_until(lambda: len(rig.source.acknowledged) == 3)
    rig.end()
    assert [result.sequence for _, result in rig.source.acknowledged] == [0, 1, 2]


def test_a_folder_waits_for_the_disk_and_a_camera_does_not(tmp_path: Path, serving: Serving) -> None:
    limits = Limits(deadline_ms=60_000, max_unacknowledged=4)
    disk = Disk()
    folder = Rig(tmp_path, serving, [part(n) for n in range(20)], store=disk, limits=limits)
    folder.start()
    wait_until(lambda: len(folder.results) == 4)
    time.sleep(0.2)
    assert folder.source.taken == 4  # the others stay in the folder
    for ticket in disk.tickets:
        ticket.durable = True
    wait_until(lambda: len(folder.results) == 8)
    folder.end()
    assert len(folder.source.acknowledged) == 4
    camera = Rig(tmp_path, serving, [part(n) for n in range(20)], keeps_parts=False, store=Disk(), limits=limits)
    camera.start()
    wait_until(lambda: len(camera.results) == 20)  # every part has its verdict at once
    camera.end()
    assert camera.source.acknowledged == []
    assert camera.inspector.counts.unacknowledged >= 16


def test_waiting_for_the_disk_after_the_last_part_takes_no_processor(tmp_path: Path, serving: Serving) -> None:
    disk, turns = Disk(), []
    rig = Rig(tmp_path, serving, [part(0)], store=disk, on_turn=lambda now_s: turns.append(now_s))
    rig.source.next_part = lambda timeout_s: rig.source.waiting.popleft() if rig.source.waiting else None  # type: ignore[method-assign]
    thread = threading.Thread(target=rig.inspector.run)
    thread.start()
    wait_until(lambda: len(rig.results) == 1)
    turns.clear()
    time.sleep(0.5)
    assert len(turns) < 50  # it asks a source without parts, which answers at once, no more
    disk.tickets[0].durable = True
    thread.join(30)
    rig.close()
    assert len(rig.source.acknowledged) == 1


def test_a_result_that_memory_could_not_hold_is_not_acknowledged(tmp_path: Path, serving: Serving) -> None:
    disk = Disk()
    rig = Rig(tmp_path, serving, [part(0), part(1)], store=disk)
    rig.start()
    wait_until(lambda: len(rig.results) == 2)
    disk.tickets[0].dropped = True
    disk.tickets[1].durable = True
    wait_until(lambda: len(rig.source.acknowledged) == 1)
    rig.end()
    assert rig.source.acknowledged[0][0] == "part-1"
    assert rig.inspector.counts.unacknowledged == 1


def test_a_store_that_refuses_is_counted_and_the_line_still_hears(tmp_path: Path, serving: Serving) -> None:
    disk = Disk()
    disk.refuses = True
    rig = Rig(tmp_path, serving, [part(0), part(1)], store=disk)
    rig.run()
    assert [result.verdict for result in rig.output.heard] == ["pass", "pass"]
    assert rig.source.acknowledged == []
    assert rig.inspector.counts.faults == {"store": 2}


def test_an_output_that_breaks_costs_no_result(
    tmp_path: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path, serving, [part(0), part(1)])

    def breaks(result: Result, alarm: bool) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(rig.output, "signal", breaks)
    rig.run()
    assert len(rig.source.acknowledged) == 2
    assert rig.inspector.counts.faults == {"output": 2}


def test_a_source_that_breaks_is_counted_and_asked_again(
    tmp_path: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path, serving, [part(0)])
    real, calls = rig.source.next_part, []

    def breaks_first(timeout_s: float) -> object:
        calls.append(1)
        if len(calls) <= 2:
            raise OSError(19, "No such device")
        return real(timeout_s)

    monkeypatch.setattr(rig.source, "next_part", breaks_first)
    rig.run()
    assert rig.verdicts == ["pass"]
    assert rig.inspector.counts.faults == {"loop": 2}


def test_a_source_that_cannot_acknowledge_is_counted(
    tmp_path: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path, serving, [part(0), part(1)])

    def breaks(part: object, result: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(rig.source, "acknowledge", breaks)
    rig.run()
    assert rig.verdicts == ["pass", "pass"]
    assert rig.inspector.counts.faults == {"acknowledge": 2}


def test_stopping_finishes_the_parts_in_hand(tmp_path: Path, serving: Serving) -> None:
    entered = threading.Event()

    def enter(pixels: np.ndarray) -> None:
        entered.set()
        time.sleep(0.2)

    slow(serving, enter)
    rig = Rig(tmp_path, serving, [part(n) for n in range(100)], limits=Limits(deadline_ms=60_000))
    rig.start()
    assert entered.wait(30)
    rig.end()
    assert 1 <= len(rig.results) == rig.source.taken <= 3
    assert len(rig.source.acknowledged) == rig.source.taken
    assert set(rig.verdicts) == {"pass"}


def test_what_must_end_the_program_ends_the_loop_after_the_parts_in_hand(tmp_path: Path, serving: Serving) -> None:
    rig = Rig(tmp_path, serving, [part(n) for n in range(50)])
    rig.inspector._on_turn = lambda now_s: "the nucleus is gone" if rig.source.taken >= 5 else None
    assert rig.inspector.run() == "the nucleus is gone"
    rig.close()
    assert len(rig.source.acknowledged) == rig.source.taken


def test_rejects_in_a_row_raise_the_alarm(tmp_path: Path, serving: Serving) -> None:
    kinds = [BAD, BAD, GOOD, BAD, BAD, BAD, GOOD]
    rig = Rig(tmp_path, serving, [part(n, data=picture(n, of)) for n, of in enumerate(kinds)], alarm_after=3)
    rig.run()
    assert rig.output.alarms == [False, False, False, False, False, True, False]


def test_a_stuck_camera_and_a_black_frame_are_errors(tmp_path: Path, serving: Serving) -> None:
    same = GOOD.copy()
    frames = [same, same.copy(), same.copy(), same.copy(), np.zeros_like(same), BAD.copy()]
    parts = [part(n, frame=frame) for n, frame in enumerate(frames)]
    rig = Rig(tmp_path, serving, parts, keeps_parts=False, review=ReviewSettings(stuck_after=3))
    rig.run()
    assert rig.errors == [None, None, "stuck", "stuck", "black", None]


def test_a_black_frame_is_no_pass_even_if_the_guard_lets_it_through(tmp_path: Path) -> None:
    open_door = Serving(make_package(tmp_path / "package", guard=OPEN_GUARD), tmp_path / "keep")
    open_door.start()
    rig = Rig(tmp_path, open_door, [part(0, frame=np.zeros((64, 64, 3), np.uint8)), part(1)])
    rig.run()
    assert rig.errors == ["black", None]


def test_pictures_of_another_size_are_judged_or_refused_by_the_guard(tmp_path: Path, serving: Serving) -> None:
    large = np.asarray(Image.fromarray(GOOD).resize((GOOD.shape[1] * 2, GOOD.shape[0] * 2)))
    shapes = [large, GOOD[:40, :], GOOD[:20, :20]]
    rig = Rig(tmp_path, serving, [part(n, frame=np.ascontiguousarray(frame)) for n, frame in enumerate(shapes)])
    rig.run()
    assert rig.errors == [None, "guard", "guard"]
    assert "aspect ratio" in (rig.results[1].detail or "")
    assert "smaller than" in (rig.results[2].detail or "")


def zoo() -> dict[str, bytes]:
    """Files that a folder or a message may hold."""

    def saved(image: Image.Image, format: str, **more: object) -> bytes:
        stream = io.BytesIO()
        image.save(stream, format, **more)
        return stream.getvalue()

    good = Image.fromarray(GOOD)
    jpeg = saved(good, "JPEG", quality=95)
    png = saved(good, "PNG")
    bomb = png[:16] + (60_000).to_bytes(4, "big") * 2 + png[24:]
    return {
        "text": b"hello",
        "empty": b"",
        "cut jpeg": jpeg[: len(jpeg) // 2],
        "jpeg that lost its middle": jpeg[: len(jpeg) // 3] + jpeg[len(jpeg) // 2 :],
        "jpeg that ended early": jpeg[: len(jpeg) // 2] + b"\xff\xd9",
        "cut png": png[: len(png) // 2],
        "flipped png": png[:60] + bytes([png[60] ^ 0xFF]) + png[61:],
        "bomb": bomb,
        "gif": saved(good, "GIF"),
        "float tiff": saved(Image.fromarray(np.ones((40, 40), np.float32)), "TIFF"),
        "one pixel": saved(Image.new("RGB", (1, 1)), "PNG"),
        "only a header": b"\xff\xd8\xff\xe0",
        "zeros": b"\x89PNG\r\n\x1a\n" + bytes(100),
    }


def test_every_animal_of_the_zoo_is_a_counted_error_and_the_loop_goes_on(tmp_path: Path, serving: Serving) -> None:
    animals = zoo()
    parts = []
    for number, (name, data) in enumerate(animals.items()):
        parts += [part(number, source_key=name, data=data), part(number, source_key=f"after {name}")]
    rig = Rig(tmp_path, serving, parts, review=ReviewSettings())  # keeps what can be looked at
    rig.run()
    found = {result.source_key: (result.verdict, result.error) for result in rig.results}
    assert len(found) == len(rig.results) == 2 * len(animals)
    for name in animals:
        verdict, code = found[name]
        assert verdict == "error", name
        assert code in ("decode", "pixels", "guard", "black"), name
        assert found[f"after {name}"][0] == "pass"
    assert rig.inspector.counts.faults == Counter()
    assert len(rig.source.acknowledged) == len(parts)


def test_frames_that_are_no_rgb_are_errors(tmp_path: Path, serving: Serving) -> None:
    frames = [np.zeros((40, 40), np.uint8), np.zeros((40, 40, 3), np.float32), np.zeros((0, 0, 3), np.uint8)]
    rig = Rig(tmp_path, serving, [part(n, frame=frame) for n, frame in enumerate([*frames, GOOD.copy()])])
    rig.run()
    assert rig.errors == ["decode", "decode", "decode", None]


def test_keys_and_names_of_any_form_get_results(tmp_path: Path, serving: Serving) -> None:
    names = ["ä" * 600, "new\nline", "\udcff", "", "a" * 5000]
    parts = [part(n, source_key=name, part_id=name, lot=name) for n, name in enumerate(names)]
    rig = Rig(tmp_path, serving, parts)
    rig.run()
    assert rig.verdicts == ["pass"] * len(names)
    assert len(rig.source.acknowledged) == len(names)
    again = Rig(tmp_path, serving, [dataclasses.replace(one) for one in parts])
    again.run()
    assert again.inspector.counts.repeated == len(names)


def test_a_switch_of_packages_falls_between_two_parts(tmp_path: Path) -> None:
    package = tmp_path / "current"
    package.symlink_to(make_package(tmp_path / "one"))
    make_package(tmp_path / "two", operating_point=OperatingPoint("op-2", lower=-90.0, upper=-80.0))
    serving = Serving(package, tmp_path / "keep", workers=2, trial_in_child=False)
    serving.start()
    rig = Rig(tmp_path, serving, workers=2, limits=Limits(60_000), on_turn=ticking(serving))
    rig.start()
    numbers = iter(range(10_000))

    def feed() -> None:
        for _ in range(5):
            rig.source.waiting.append(part(next(numbers)))

    feed()
    wait_until(lambda: len(rig.results) >= 5)
    fresh = tmp_path / "fresh"
    fresh.symlink_to(tmp_path / "two")
    fresh.replace(package)
    while "op-2" not in {result.operating_point for result in rig.results}:
        feed()
        time.sleep(0.02)
    rig.end()
    points = [result.operating_point for result in rig.results]
    switch = points.index("op-2")
    assert set(points[:switch]) == {"op-1"}
    assert set(points[switch + 2 :]) <= {"op-2"}  # one more may have been in hand beside the first
    for result in rig.results:
        assert result.verdict == ("pass" if result.operating_point == "op-1" else "fail")


@pytest.mark.parametrize(
    ("verdict", "review_action", "on_error", "action"),
    [
        ("pass", "fail", "reject", "accept"),
        ("fail", "pass", "review", "reject"),
        ("review", "review", "reject", "review"),
        ("review", "fail", "reject", "reject"),
        ("review", "pass", "reject", "accept"),
        ("error", "pass", "reject", "reject"),
        ("error", "pass", "review", "review"),
    ],
)
def test_an_error_is_never_accepted_whatever_the_operating_point(
    verdict: str, review_action: str, on_error: str, action: str
) -> None:
    point = OperatingPoint("op", 0.0, 1.0, review_action, on_error)  # type: ignore[arg-type]
    assert action_for(verdict, point) == action  # type: ignore[arg-type]
    assert action_for("error", None) == "reject"


def test_shorter_deadlines_are_taken_up_while_parts_are_inspected(tmp_path: Path, serving: Serving) -> None:
    slow(serving, lambda pixels: time.sleep(0.15))
    rig = Rig(tmp_path, serving, limits=Limits(deadline_ms=60_000))
    rig.start()
    rig.source.waiting.append(part(0))
    wait_until(lambda: len(rig.results) == 1)
    rig.inspector.limits = Limits(deadline_ms=20)
    rig.source.waiting.append(part(1))
    wait_until(lambda: len(rig.results) == 2)
    rig.end()
    assert rig.errors == [None, "deadline"]


def test_a_slow_image_holds_up_no_verdict_and_what_is_stored_is_what_the_line_heard(
    tmp_path: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path, serving, limits=Limits(deadline_ms=60_000))
    release = threading.Event()
    monkeypatch.setattr(rig.inspector.review, "keep", lambda *what: release.wait(30) and None)
    rig.start()
    rig.source.waiting.extend(part(n, data=picture(n, BAD if n == 1 else GOOD)) for n in range(5))
    wait_until(lambda: len(rig.output.heard) == 5)
    assert rig.results == []  # nothing is kept yet
    release.set()
    wait_until(lambda: len(rig.source.acknowledged) == 5)
    rig.end()
    assert [(one.id, one.verdict) for one in rig.results] == [(one.id, one.verdict) for one in rig.output.heard]
    assert [result.source_key for result in rig.results] == [f"part-{n}" for n in range(5)]
    assert len({result.id for result in rig.results}) == 5


def test_a_pass_that_the_line_would_hear_after_its_deadline_is_an_error(
    tmp_path: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path, serving, [part(0), part(1)], workers=2, limits=Limits(deadline_ms=300))
    hear = rig.output.signal

    def signal(result: Result, alarm: bool) -> None:
        hear(result, alarm)
        if result.source_key == "part-0":
            time.sleep(0.6)  # meanwhile the second is judged, and its deadline passes

    monkeypatch.setattr(rig.output, "signal", signal)
    rig.run()
    assert [(one.verdict, one.error) for one in rig.output.heard] == [("pass", None), ("error", "deadline")]
    assert rig.output.heard[1].action == "reject"
    assert [(one.id, one.verdict) for one in rig.results] == [(one.id, one.verdict) for one in rig.output.heard]
    assert rig.inspector.pool.late == 1


def test_a_part_with_a_longer_deadline_does_not_hold_up_the_one_behind_it(tmp_path: Path, serving: Serving) -> None:
    release = threading.Event()
    slow(serving, lambda pixels: release.wait(30) and None)
    rig = Rig(tmp_path, serving, limits=Limits(deadline_ms=60_000))
    rig.start()
    rig.source.waiting.append(part(0))
    wait_until(lambda: rig.inspector.pool.in_hand == 1)
    rig.inspector.limits = Limits(deadline_ms=200)
    rig.source.waiting.append(part(1))
    wait_until(lambda: len(rig.output.heard) == 2)
    assert not release.is_set()
    release.set()
    rig.end()
    assert rig.errors == ["deadline", "deadline"]
    assert rig.output.heard[1].latency_ms["total"] < 5000


def test_a_decoder_that_hangs_gives_an_error_by_the_deadline(
    tmp_path: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, decode = threading.Event(), edge.judge.decode_file

    def hangs(data: bytes, *more: object) -> object:
        release.wait(30)
        return decode(data, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(edge.judge, "decode_file", hangs)
    rig = Rig(tmp_path, serving, [part(0), part(1)], limits=Limits(deadline_ms=200))
    rig.start()
    wait_until(lambda: len(rig.output.heard) == 2)
    assert not release.is_set()
    assert [(one.verdict, one.error, one.action) for one in rig.output.heard] == [("error", "deadline", "reject")] * 2
    release.set()
    wait_until(lambda: rig.inspector.pool.late == 1)  # the second was never begun
    rig.source.waiting.append(part(2))
    wait_until(lambda: len(rig.source.acknowledged) == 3)
    rig.end()
    assert rig.errors == ["deadline", "deadline", None]


def test_a_hanging_worker_keeps_no_pictures_of_parts_whose_deadline_passed(tmp_path: Path, serving: Serving) -> None:
    release = threading.Event()
    slow(serving, lambda pixels: release.wait(30) and None)
    rig = Rig(tmp_path, serving, keeps_parts=False, limits=Limits(deadline_ms=30))
    rig.start()
    frames: list[weakref.ref[np.ndarray]] = []
    for number in range(30):
        frame = GOOD.copy()
        frame[0, 0] = number
        frames.append(weakref.ref(frame))
        rig.source.waiting.append(part(number, frame=frame))
        del frame
    wait_until(lambda: len(rig.results) == 30)
    wait_until(lambda: sum(frame() is not None for frame in frames) <= 2, 5.0)  # of the part it hangs on, and the last
    release.set()
    rig.end()
    assert set(rig.errors) == {"deadline"}


def test_a_watchdog_that_cannot_start_a_substitute_goes_on_and_tries_again(
    tmp_path: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.pool, "_STUCK_S", 0.05)
    monkeypatch.setattr(edge.pool, "_LOOK_S", 0.05)
    release = threading.Event()
    slow(serving, lambda pixels: release.wait(30) and None)
    rig = Rig(tmp_path, serving, keeps_parts=False, limits=Limits(deadline_ms=60))
    pool = rig.inspector.pool
    start, refusals = pool._start_worker, []

    def refuses(number: int) -> threading.Thread:
        if len(refusals) < 5:
            refusals.append(number)
            raise RuntimeError("can't start new thread")
        release.set()
        return start(number)

    monkeypatch.setattr(pool, "_start_worker", refuses)
    rig.start()
    rig.source.waiting.extend(part(n) for n in range(4))
    wait_until(lambda: len(rig.results) == 4)
    wait_until(lambda: pool.substitutes == 1)
    rig.source.waiting.append(part(4))
    wait_until(lambda: len(rig.results) == 5)
    assert pool.keeps_time
    rig.end()
    assert rig.errors[0] == "deadline"
    assert rig.inspector.counts.faults["substitute"] == 5


def test_a_fault_of_the_watchdog_is_counted_and_deadlines_hold(
    tmp_path: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(serving, lambda pixels: time.sleep(0.5))
    rig = Rig(tmp_path, serving, [part(0)], limits=Limits(deadline_ms=100))
    real, calls = serving.current, []

    def breaks_once() -> object:
        calls.append(threading.current_thread().name)
        if calls.count("deadline") == 1 and calls[-1] == "deadline":
            raise MemoryError("no room")
        return real()

    monkeypatch.setattr(rig.inspector.pool, "_current", breaks_once)
    rig.run()
    assert rig.errors == ["deadline"]
    assert rig.inspector.counts.faults == {"watchdog": 1}


def test_the_pool_says_when_nobody_keeps_the_time(
    tmp_path: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.pool, "_DEAD_S", 0.1)
    monkeypatch.setattr(edge.pool, "_LOOK_S", 0.02)
    rig = Rig(tmp_path, serving, limits=Limits(deadline_ms=50))
    release = threading.Event()
    monkeypatch.setattr(rig.output, "signal", lambda result, alarm: release.wait(30))  # an output that hangs
    rig.start()
    wait_until(lambda: rig.inspector.pool.keeps_time)
    rig.source.waiting.append(part(0))
    wait_until(lambda: not rig.inspector.pool.keeps_time)
    release.set()
    wait_until(lambda: rig.inspector.pool.keeps_time)
    rig.end()
    monkeypatch.setattr(rig.inspector.pool, "_closed", False)
    assert not rig.inspector.pool.keeps_time  # the watchdog has ended


@pytest.mark.parametrize("keeps_parts", [True, False])
def test_pictures_that_wait_to_be_kept_are_bounded(
    tmp_path: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch, keeps_parts: bool
) -> None:
    monkeypatch.setattr(edge.keeping, "MOST_BYTES", 2 * GOOD.nbytes)
    parts = [part(n, frame=np.roll(BAD, n, axis=1)) for n in range(20)]
    rig = Rig(tmp_path, serving, keeps_parts=keeps_parts, limits=Limits(60_000), review=ReviewSettings())
    release, keep = threading.Event(), rig.inspector.review.keep
    monkeypatch.setattr(rig.inspector.review, "keep", lambda *what: keep(*what) if release.wait(30) else None)
    rig.start()
    rig.source.waiting.extend(parts)
    if keeps_parts:
        time.sleep(0.5)
        assert rig.source.taken < 8  # the others stay in the folder
    else:
        wait_until(lambda: len(rig.output.heard) == 20)  # a camera's all get their verdicts
    release.set()
    wait_until(lambda: len(rig.source.acknowledged) == 20)
    images = sum(rig.inspector.review.counts.kept.values())
    rig.end()
    assert images == 20 if keeps_parts else images < 5
    assert rig.inspector.counts.faults["picture"] == 20 - images
    assert len(rig.results) == 20


def test_a_part_is_judged_when_the_spool_does_not_say_in_time_whether_it_knows_it(
    tmp_path: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path, serving, limits=Limits(deadline_ms=2000))
    release = threading.Event()
    monkeypatch.setattr(rig.spool, "find", lambda key: release.wait(30) and None)  # a card that does not answer
    turns: list[float] = []
    rig.inspector._on_turn = lambda now_s: turns.append(now_s)
    rig.start()
    rig.source.waiting.extend(part(n) for n in range(5))
    wait_until(lambda: len(rig.output.heard) == 5)
    assert not release.is_set()
    release.set()
    rig.end()
    assert rig.errors == [None] * 5
    assert max(later - earlier for earlier, later in itertools.pairwise(turns)) < 2.0  # the heart beats on
    assert rig.inspector.counts.faults["find"] >= 1


@pytest.mark.parametrize("fault", [("camera_timeout", "cam: no frame within 490 ms"), None])
def test_the_question_to_the_spool_takes_no_time_that_the_source_has_used(
    tmp_path: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch, fault: tuple[str, str] | None
) -> None:
    rig = Rig(tmp_path, serving, keeps_parts=False, limits=Limits(deadline_ms=2000))
    release = threading.Event()
    monkeypatch.setattr(rig.spool, "find", lambda key: release.wait(30) and None)  # a card that does not answer
    waiting = [part(0, fault=fault)] if fault else [part(0)]
    spent_s = 1.99 if fault else 1.78  # a camera may use all but 10 ms before it says that there is no frame

    def next_part(timeout_s: float) -> Part | None:
        if not waiting:
            time.sleep(min(timeout_s, 0.005))
            return None
        found = waiting.pop()
        object.__setattr__(found, "started_s", time.monotonic() - spent_s)
        return found

    monkeypatch.setattr(rig.source, "next_part", next_part)
    rig.start()
    wait_until(lambda: len(rig.output.heard) == 1)
    release.set()
    rig.end()
    heard = rig.output.heard[0]
    assert heard.latency_ms["total"] < 2000 + (50 if fault else 0)  # a loaded machine may take 10 ms for nothing
    assert heard.error in ([fault[0]] if fault else [None, "deadline"])


def test_the_spool_is_not_asked_for_parts_whose_keys_are_new(
    tmp_path: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path, serving, [part(0, is_new=True), part(1)])
    asked: list[str] = []
    monkeypatch.setattr(rig.spool, "find", asked.append)
    rig.run()
    assert asked == ["part-1"]
    assert rig.errors == [None, None]


def test_a_picture_with_more_pixels_than_the_settings_allow_is_an_error(tmp_path: Path, serving: Serving) -> None:
    pixels = GOOD.shape[0] * GOOD.shape[1]
    rig = Rig(tmp_path, serving, [part(0)], limits=Limits(60_000, max_pixels=pixels - 1))
    rig.run()
    assert rig.errors == ["pixels"]
    assert f"want 1 to {pixels - 1} pixels" in (rig.results[0].detail or "")
    rig = Rig(tmp_path, serving, [part(1)], limits=Limits(60_000, max_pixels=pixels))
    rig.run()
    assert rig.errors == [None]


def test_a_part_that_waits_for_a_suspect_until_its_deadline_is_late_and_no_poison(
    tmp_path: Path, serving: Serving
) -> None:
    InHand(tmp_path).begin(0, "bomb", time.monotonic() + 1)  # the process ends
    in_hand = InHand(tmp_path)
    in_hand.begin(9, "bomb", time.monotonic() + 1.0)
    rig = Rig(tmp_path, serving, [part(0)], in_hand=in_hand, limits=Limits(deadline_ms=200))
    rig.run()
    assert rig.errors == ["deadline"]
    later = Rig(tmp_path, serving, [part(1)], in_hand=in_hand, limits=Limits(deadline_ms=20_000))
    later.run()
    assert later.errors == [None]  # the suspect's own deadline has passed
    in_hand.close()
