"""Shadow runs: a challenger judges the same parts, decides nothing, delays nothing, and ends nobody but itself."""

import dataclasses
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_package import make_package
from inspecting import BAD, GOOD, Rig, part, picture, slow, wait_until

import edge.shadow.session
import edge.shadow.shadow
from edge.contract import InputContract, InputGuard, OperatingPoint, Range
from edge.errors import SidecarError, SpoolError
from edge.inspection import Limits
from edge.last_good import package_digest
from edge.results import Result
from edge.review import ReviewPolicy, ReviewSettings
from edge.serving import Serving
from edge.shadow.disagreements import Disagreements
from edge.shadow.pairs import Pairs
from edge.shadow.session import Job, Session
from edge.shadow.settings import ShadowSettings
from edge.shadow.shadow import Shadow
from edge.shadow.wire import Answer, Opened, Refused, read_message, read_part, write_message, write_part
from edge.sidecar import KNOWN_REQUIREMENTS, Selection, ShadowVerdict, parse_sidecar, read_sidecar
from edge.spool.images import ImageQueue, KeptImage, WaitingImage
from edge.spool.settings import SpoolSettings
from edge.spool.spool import Spool
from edge.uploader.sending import send_all
from edge.uploader.settings import UploadSettings
from edge.uploader.stores import open_store

ROOT = Path(__file__).resolve().parents[1]
LENIENT = OperatingPoint("op-2", lower=-4.0, upper=50.0)  # what the champion fails is for review
SAME = OperatingPoint("op-1b", lower=-4.0, upper=1.0)
STRICT = OperatingPoint("op-3", lower=-50.0, upper=-49.0)  # fails everything
PAST = Path(__file__).with_name("golden") / "sidecar-1.1.json"
# A challenger's process without a model: it fails every part, and obeys the names of parts.
ACTOR = """
import json, os, signal, sys, time
print(json.dumps({"kind": "Opened", "version": "actor", "self_test": "passed: by heart"}), flush=True)
while line := sys.stdin.buffer.readline():
    told = json.loads(line)
    sys.stdin.buffer.read(told["bytes"])
    if "crash" in told["name"]:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "exit" in told["name"]:
        sys.exit(7)
    if "hang" in told["name"]:
        time.sleep(3600)
    if "babble" in told["name"]:
        print("what?", flush=True)
    print(json.dumps({"kind": "Answer", "verdict": "fail", "action": "reject", "score": 3.0}), flush=True)
"""


def deploy(link: Path, package: Path) -> None:
    """Move a link, as a deployment does."""
    fresh = link.with_name("fresh")
    fresh.symlink_to(package)
    fresh.replace(link)


class Run:
    """An inspector with a champion and a place for a challenger."""

    def __init__(
        self, folder: Path, settings: ShadowSettings | None = None, review: ReviewSettings | None = None
    ) -> None:
        self.folder = folder
        self.champion, self.challenger = folder / "champion", folder / "challenger"
        deploy(self.champion, make_package(folder / "first"))
        self.serving = Serving(self.champion, folder / "keep", trial_in_child=False)
        self.serving.start()
        self.shadow = self.make(settings or ShadowSettings())
        self.rig = Rig(
            folder,
            self.serving,
            keeps_parts=False,
            review=review,
            on_turn=self.turn,
            on_judged=lambda *what: self.shadow.judged(*what),
            limits=Limits(deadline_ms=60_000.0),
        )
        self.keep = Disagreements(settings or ShadowSettings(), self.rig.inspector.review, self.rig.spool, seed=1)
        self.heard = self.rig.output.heard
        self._numbers = 0
        self._fast_s = time.monotonic()
        self.rig.start()

    def make(self, settings: ShadowSettings, kept: dict[str, Any] | None = None) -> Shadow:
        return Shadow(self.challenger, "tiny", settings, lambda *what: self.keep.keep(*what), kept)

    def turn(self, now_s: float) -> str | None:
        self._fast_s += 0.3  # looks for a champion at every fourth turn
        self.serving.tick(self._fast_s)
        served = self.serving.current()
        self.shadow.tick(now_s, served.digest if served else None)
        return None

    def give(self, count: int = 1, name: str = "part", **more: Any) -> None:
        """Parts with pictures of their own: good ones, unless told otherwise."""
        for _ in range(count):
            self._numbers += 1
            self.rig.source.waiting.append(part(self._numbers, source_key=f"{name}-{self._numbers}", **more))

    def inspect(self, count: int = 1, name: str = "part", **more: Any) -> list[Result]:
        """Give parts and wait for the champion's verdicts."""
        before = len(self.heard)
        self.give(count, name, **more)
        wait_until(lambda: len(self.heard) >= before + count, 60)
        return self.heard[before:]

    def await_state(self, state: str) -> None:
        wait_until(lambda: self.shadow.state == state, 90)

    @property
    def pairs(self) -> dict[str, int]:
        pairs: dict[str, int] = self.shadow.message()["pairs"]
        return pairs

    def await_pairs(self, count: int) -> dict[str, int]:
        wait_until(lambda: sum(self.pairs.values()) >= count, 90)
        return self.pairs

    def images(self) -> list[WaitingImage]:
        assert self.rig.spool.flush(60)
        queue = ImageQueue(self.folder / "spool")
        try:
            return queue.waiting(1000)
        finally:
            queue.close()

    def end(self) -> None:
        self.shadow.close(60)
        self.rig.end()
        self.serving.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge.shadow.shadow, "_POLL_S", 0.02)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    found = Run(tmp_path)
    yield found
    found.end()


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Challengers are played: quick to start, and odd on demand."""
    monkeypatch.setattr(edge.shadow.session, "_command", lambda *rest: [sys.executable, "-S", "-c", ACTOR])


def bad(run: Run, count: int) -> None:
    for number in range(count):
        run.inspect(data=picture(number + 1000, BAD))


# --- comparing


def test_both_judge_the_same_parts_and_only_the_champion_decides(run: Run) -> None:
    deploy(run.challenger, make_package(run.folder / "second", operating_point=LENIENT))
    run.await_state("running")
    good = run.inspect(5)
    bad(run, 3)
    assert run.await_pairs(8) == {"fail/review": 3, "pass/pass": 5}
    assert [result.verdict for result in run.heard] == ["pass"] * 5 + ["fail"] * 3
    assert {result.operating_point for result in run.heard} == {"op-1"}
    wait_until(lambda: len(run.rig.results) == 8)
    assert [result.id for result in run.rig.results] == [result.id for result in run.heard]
    message = run.shadow.message()
    assert message["package"] == package_digest(run.challenger)
    assert message["champion"] == package_digest(run.champion)
    assert message["self_test"].startswith("passed: 4 images")
    assert message["version"]
    assert message["since"] >= good[0].captured_at - 60
    assert (message["state"], message["message"], message["skipped"]) == ("running", "", 0)
    assert not run.rig.inspector.counts.faults


def test_pictures_of_disagreements_are_kept_with_what_the_challenger_said(run: Run) -> None:
    deploy(run.challenger, make_package(run.folder / "second", operating_point=LENIENT))
    run.await_state("running")
    run.inspect(4)
    (result,) = run.inspect(data=picture(99, BAD))
    run.inspect(frame=BAD.copy())
    run.await_pairs(6)
    wait_until(lambda: len(run.images()) == 2)
    kept = {image.sequence: image for image in run.images()}[result.sequence]
    sidecar = read_sidecar(kept.sidecar)
    assert sidecar.result.id == result.id
    assert sidecar.selection == Selection("shadow", 1.0, 0.0, "fail/review/shadow")
    assert sidecar.shadow is not None
    assert (sidecar.shadow.verdict, sidecar.shadow.action) == ("review", LENIENT.review_action)
    assert sidecar.shadow.digest == package_digest(run.challenger)
    assert sidecar.shadow.champion == package_digest(run.champion)
    assert sidecar.shadow.label == "scratch"
    assert sidecar.shadow.score == pytest.approx(result.score)  # the same model, the same pixels
    assert kept.path.read_bytes() == picture(99, BAD)
    assert hashlib.sha256(picture(99, BAD)).hexdigest() == sidecar.image.sha256
    frame = next(image for image in run.images() if image.sequence != result.sequence)
    assert read_sidecar(frame.sidecar).image.as_captured is False
    inbox = run.folder / "inbox"
    inbox.mkdir()
    queue = ImageQueue(run.folder / "spool")
    try:
        assert send_all(queue, open_store(UploadSettings(to=str(inbox)))).images == 2
    finally:
        queue.close()
    day = time.strftime("%Y-%m-%d", time.gmtime(result.captured_at))
    text = (inbox / "tiny" / "raw-images-for-review" / "cam-1" / "fail" / day / f"{result.id}.json").read_text()
    assert parse_sidecar(text) == sidecar
    assert json.loads(text)["requires"] == ["shadow"]  # an older reader must not take it for a sample


def test_an_image_that_is_kept_anyway_stays_what_it_is_and_tells_the_challengers_verdict(tmp_path: Path) -> None:
    run = Run(tmp_path, review=ReviewSettings(audit_share=0.0))
    try:
        deploy(run.challenger, make_package(run.folder / "second", operating_point=LENIENT))
        run.await_state("running")
        bad(run, 3)
        run.await_pairs(3)
        wait_until(lambda: all("shadow" in image.sidecar for image in run.images()))
        sidecars = [read_sidecar(image.sidecar) for image in run.images()]
        assert [sidecar.selection.reason for sidecar in sidecars] == ["fail"] * 3
        assert [sidecar.selection.probability for sidecar in sidecars] == [1.0] * 3
        assert {sidecar.shadow.verdict for sidecar in sidecars if sidecar.shadow} == {"review"}
        assert all(image.sidecar["requires"] == [] for image in run.images())
        assert {image.path.stat().st_size for image in run.images()} == {image.bytes for image in run.images()}
    finally:
        run.end()


def test_a_different_action_alone_is_a_disagreement(run: Run) -> None:
    point = OperatingPoint("op-2", lower=-4.0, upper=1.0, on_error="review")
    deploy(run.challenger, make_package(run.folder / "second", operating_point=point))
    run.await_state("running")
    run.inspect(data=picture(1, np.zeros_like(GOOD)))  # black for both
    assert run.await_pairs(1) == {"error/error": 1}
    wait_until(lambda: len(run.images()) == 1)
    shadow = read_sidecar(run.images()[0].sidecar).shadow
    assert shadow is not None
    assert (shadow.verdict, shadow.action, shadow.error) == ("error", "review", "black")


def test_a_challenger_with_another_input_prepares_pictures_its_own_way(run: Run) -> None:
    size = InputContract(width=32, height=32, resize="center-crop")
    guard = InputGuard(Range(0.0, 255.0), Range(0.0, 255.0), Range(0.0, 255.0), Range(0.01, 99.0), 200, 200)
    package = make_package(run.folder / "second")
    content = json.loads((package / "contract.json").read_text(encoding="utf-8"))
    content["input"], content["guard"] = dataclasses.asdict(size), dataclasses.asdict(guard)
    content["self_test"]["tolerance"] = 99.0  # the golden scores were made with the other resize
    (package / "contract.json").write_text(json.dumps(content), encoding="utf-8")
    deploy(run.challenger, package)
    run.await_state("running")
    run.inspect(2)  # 128x96 px: too small for the challenger's guard
    assert run.await_pairs(2) == {"pass/error": 2}


def test_errors_are_pairs_when_the_package_is_to_blame_and_not_when_the_source_is(run: Run) -> None:
    deploy(run.challenger, make_package(run.folder / "second", operating_point=SAME))
    run.await_state("running")
    run.inspect(fault=("source", "the camera gave nothing"))
    run.inspect(fault=("camera_timeout", "no frame"))
    run.inspect(data=None)  # neither picture nor fault
    run.inspect(data=b"not a picture")
    run.inspect(data=picture(1, np.zeros_like(GOOD)))
    run.inspect(1)
    assert run.await_pairs(3) == {"error/error": 2, "pass/pass": 1}
    assert run.shadow.message()["skipped"] == 0
    assert run.images() == []


def test_a_stuck_camera_is_no_matter_between_packages(tmp_path: Path) -> None:
    run = Run(tmp_path, review=ReviewSettings(audit_share=0.0, max_per_day=0, stuck_after=2))
    try:
        deploy(run.challenger, make_package(run.folder / "second", operating_point=SAME))
        run.await_state("running")
        run.inspect(3, data=picture(1))
        assert [result.error for result in run.heard] == [None, "stuck", "stuck"]
        run.inspect(1)
        assert run.await_pairs(2) == {"pass/pass": 2}
    finally:
        run.end()


# --- never in the champion's way


def test_the_challenger_stands_back_and_is_the_first_to_go_when_memory_runs_out(run: Run) -> None:
    deploy(run.challenger, make_package(run.folder / "second", operating_point=SAME))
    run.await_state("running")
    child = child_of(run)
    assert os.getpriority(os.PRIO_PROCESS, child) == 19
    assert Path(f"/proc/{child}/oom_score_adj").read_text(encoding="ascii").strip() == "1000"
    for number in (signal.SIGINT, signal.SIGTERM):  # whoever stops the service stops all of its processes
        os.kill(child, number)
    run.inspect()
    assert run.await_pairs(1) == {"pass/pass": 1}
    os.kill(child, signal.SIGKILL)  # as the kernel does
    run.await_state("refused")
    assert run.shadow.message()["message"] == "its process was ended by signal 9"
    assert [result.verdict for result in run.inspect(2)] == ["pass"] * 2


def open_files(process: str) -> int:
    """How many; 0 when the process has ended."""
    folder = Path(f"/proc/{process}/fd")
    try:
        return len(list(folder.iterdir()))
    except OSError:
        return 0


def child_of(run: Run) -> int:
    session = run.shadow._session
    assert session is not None
    assert session._child is not None
    return session._child.pid


def test_a_challenger_that_is_behind_skips_parts_and_delays_none(tmp_path: Path) -> None:
    run = Run(tmp_path, ShadowSettings(memory_bytes=1_000_000))
    try:
        deploy(run.challenger, make_package(run.folder / "second", operating_point=STRICT))
        run.await_state("running")
        child = child_of(run)
        os.kill(child, signal.SIGSTOP)
        try:
            results = run.inspect(120)  # returns, though the challenger stands still
        finally:
            os.kill(child, signal.SIGCONT)
        assert [result.verdict for result in results] == ["pass"] * 120
        skipped = run.shadow.message()["skipped"]
        assert skipped >= 120 - 1 - edge.shadow.session._MOST_WAITING
        assert run.await_pairs(120 - skipped) == {"pass/fail": 120 - skipped}
        run.inspect(1)
        assert run.await_pairs(121 - skipped) == {"pass/fail": 121 - skipped}  # it has caught up
        assert run.shadow.message()["skipped"] == skipped
    finally:
        run.end()


@pytest.mark.usefixtures("actor")
def test_whether_a_part_may_wait_depends_on_what_waits_and_not_on_its_own_size() -> None:
    heard: list[str] = []
    session = Session(Path("x"), "d", "tiny", 0, 1_000_000, lambda _, job, answer: heard.append(job.part.name))
    try:
        wait_until(lambda: session.opened is not None, 60)
        assert session._child is not None
        os.kill(session._child.pid, signal.SIGSTOP)
        jobs = [Job(part(n, data=bytes(600_000)), a_result(), "c", False) for n in range(4)]
        assert session.offer(jobs[0])
        wait_until(lambda: session._at_work)  # the thread is at it: nothing waits
        assert [session.offer(job) for job in jobs[1:]] == [True, True, False]
        os.kill(session._child.pid, signal.SIGCONT)
        assert session.drain(60)
        huge = Job(part(9, frame=np.zeros((1000, 1000, 3), np.uint8)), a_result(), "c", False)
        assert session.offer(huge)
        assert session.drain(60)
        assert heard == ["part-0", "part-1", "part-2", "part-9"]
    finally:
        session.stop()
        session.join(60)
    assert not session.offer(huge)


def test_parts_whose_pictures_found_no_room_count_as_skipped(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    deploy(run.challenger, make_package(run.folder / "second", operating_point=SAME))
    run.await_state("running")
    add = run.rig.inspector._keeper.add
    monkeypatch.setattr(
        run.rig.inspector._keeper,
        "add",
        lambda slot, result: (setattr(slot, "part", slot.part.without_picture()), add(slot, result)),
    )
    run.inspect(2)
    wait_until(lambda: run.shadow.message()["skipped"] == 2, 60)
    assert not any(run.shadow.message()["pairs"].values())


@pytest.mark.usefixtures("actor")
def test_parts_whose_deadline_passed_count_as_skipped(run: Run) -> None:
    deploy(run.challenger, make_package(run.folder / "second", operating_point=SAME))
    run.await_state("running")
    gate = threading.Event()
    slow(run.serving, lambda pixels: gate.wait(60) and None)
    run.rig.inspector.limits = Limits(deadline_ms=20.0)
    (result,) = run.inspect()
    run.rig.inspector.limits = Limits(deadline_ms=60_000.0)
    gate.set()
    assert result.error == "deadline"
    run.inspect()
    assert run.await_pairs(1) == {"pass/fail": 1}
    assert run.shadow.message()["skipped"] == 1


# --- challengers that are refused


def spoil_model(package: Path) -> None:
    model = package / "model.tflite"
    model.write_bytes(model.read_bytes()[:-1] + b"!")


def rewrite(package: Path, **changes: Any) -> None:
    path = package / "contract.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def spoil_scores(package: Path) -> None:
    content = json.loads((package / "contract.json").read_text(encoding="utf-8"))["self_test"]
    content["images"][0]["score"] += 9.0
    rewrite(package, self_test=content)


def spoil_runtime(package: Path) -> None:
    (package / "model.tflite").write_bytes(b"TFL9, which no runtime here can open" * 100)
    digest = hashlib.sha256((package / "model.tflite").read_bytes()).hexdigest()
    files = json.loads((package / "contract.json").read_text(encoding="utf-8"))["files"]
    rewrite(package, files={**files, "model.tflite": digest})


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "tampered": (spoil_model, "changed after the package was made"),
    "other golden scores": (spoil_scores, "self-test failed"),
    "another line": (lambda package: rewrite(package, line="other"), "want a package of line 'tiny'"),
    "an unknown requirement": (lambda package: rewrite(package, requires=["telepathy"]), "does not know"),
    "a model that needs another runtime": (spoil_runtime, "cannot open this model"),
    "half a contract": (lambda package: (package / "contract.json").write_text("{") and None, "not valid JSON"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_bad_challenger_is_refused_with_its_reason_and_the_champion_goes_on(run: Run, fault: str) -> None:
    spoil, reason = REFUSED[fault]
    package = make_package(run.folder / "second", operating_point=LENIENT)
    spoil(package)
    served = run.serving.current()
    deploy(run.challenger, package)
    run.await_state("refused")
    message = run.shadow.message()
    assert reason in message["message"]
    assert message["package"] == package_digest(run.challenger)
    assert message["pairs"] == {}
    assert [result.verdict for result in run.inspect(3)] == ["pass"] * 3
    assert run.serving.current() is served
    assert run.serving.state().ok
    assert (run.folder / "keep" / package_digest(run.champion)).is_dir()
    assert not (run.folder / "keep" / package_digest(run.challenger)).exists()  # no copy, never the last good one
    # A good one after it is taken.
    deploy(run.challenger, make_package(run.folder / "third", operating_point=LENIENT))
    run.await_state("running")


def test_a_package_that_is_repaired_in_place_is_tried_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge.shadow.shadow, "_RETRY_S", (0.01, 0.02))
    run.shadow = run.make(ShadowSettings())
    package = make_package(run.folder / "second", operating_point=LENIENT)
    whole = (package / "model.tflite").read_bytes()
    spoil_model(package)
    deploy(run.challenger, package)
    run.await_state("refused")
    (package / "model.tflite").write_bytes(whole)
    run.await_state("running")


@pytest.mark.usefixtures("actor")
@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("crash", "its process was ended by signal 11 while it judged crash-2"),
        ("exit", "its process exited with 7 while it judged exit-2"),
        ("babble", "want a message of the challenger's process"),
    ],
)
def test_a_challenger_that_crashes_on_a_picture_ends_only_itself(run: Run, what: str, reason: str) -> None:
    deploy(run.challenger, make_package(run.folder / "second", operating_point=SAME))
    run.await_state("running")
    run.inspect()
    run.await_pairs(1)
    run.inspect(name=what)
    run.await_state("refused")
    assert reason in run.shadow.message()["message"]
    assert [result.verdict for result in run.inspect(5)] == ["pass"] * 5
    crashed = {} if what == "babble" else {"pass/error": 1}
    assert run.pairs == {"pass/fail": 1, **crashed}  # as an inspector it would have given no verdict


@pytest.mark.usefixtures("actor")
def test_a_challenger_that_hangs_is_ended(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge.shadow.session, "_ANSWER_S", 0.05)
    deploy(run.challenger, make_package(run.folder / "second", operating_point=SAME))
    run.await_state("running")
    child = child_of(run)
    run.inspect(name="hang")
    run.await_state("refused")
    assert "did not answer" in run.shadow.message()["message"]
    assert run.pairs == {}
    wait_until(lambda: not Path(f"/proc/{child}").exists())


def test_a_process_that_cannot_start_is_a_refusal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge.shadow.session, "_command", lambda *rest: [str(run.folder / "no such program")])
    deploy(run.challenger, make_package(run.folder / "second", operating_point=SAME))
    run.await_state("refused")
    assert "cannot start a process" in run.shadow.message()["message"]


# --- coming and going


def test_a_link_that_leads_nowhere_is_nothing_to_worry_about(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    run.challenger.symlink_to("nowhere")
    before = threading.active_count()
    run.inspect(5)
    message = run.shadow.message()
    assert (message["state"], message["package"], message["message"]) == ("none", None, "")
    assert (message["pairs"], message["skipped"]) == ({}, 0)
    assert "challenger" not in caplog.text
    assert threading.active_count() == before


@pytest.mark.usefixtures("actor")
def test_without_its_link_the_challenger_stops_and_its_counts_go(run: Run) -> None:
    deploy(run.challenger, make_package(run.folder / "second", operating_point=SAME))
    run.await_state("running")
    child = child_of(run)
    run.inspect(2)
    run.await_pairs(2)
    since = run.shadow.message()["since"]
    run.challenger.unlink()
    run.await_state("none")
    wait_until(lambda: not Path(f"/proc/{child}").exists())
    assert run.shadow.message()["pairs"] == {}
    run.inspect(2)
    deploy(run.challenger, run.folder / "second")
    run.await_state("running")
    assert run.shadow.message()["since"] is None
    run.inspect()
    assert run.await_pairs(1) == {"pass/fail": 1}
    assert run.shadow.message()["since"] > since


def test_a_challenger_whose_files_are_deleted_while_it_runs_goes_on_until_its_link_goes(run: Run) -> None:
    deploy(run.challenger, make_package(run.folder / "second", operating_point=STRICT))
    run.await_state("running")
    shutil.rmtree(run.folder / "second")
    run.await_state("none")
    assert [result.verdict for result in run.inspect(2)] == ["pass"] * 2


@pytest.mark.usefixtures("actor")
def test_a_promoted_challenger_is_no_longer_run(run: Run) -> None:
    deploy(run.challenger, make_package(run.folder / "second", operating_point=LENIENT))
    run.await_state("running")
    run.inspect(2)
    run.await_pairs(2)
    deploy(run.champion, run.folder / "second")
    run.await_state("none")
    message = run.shadow.message()
    assert message["champion"] == package_digest(run.challenger) == run.serving.state().serving
    assert (message["package"], message["message"]) == (None, "the challenger serves now")
    (result,) = run.inspect()
    assert result.operating_point == "op-2"
    deploy(run.champion, run.folder / "first")  # rolled back: the two are compared again, from zero
    run.await_state("running")
    wait_until(lambda: run.pairs == {})


@pytest.mark.usefixtures("actor")
def test_another_champion_or_challenger_begins_new_counts(run: Run) -> None:
    deploy(run.challenger, make_package(run.folder / "second", operating_point=LENIENT))
    run.await_state("running")
    run.inspect(2)
    run.await_pairs(2)
    child = child_of(run)
    deploy(run.champion, make_package(run.folder / "third", operating_point=OperatingPoint("op-9", -3.0, 2.0)))
    wait_until(lambda: run.shadow.message()["champion"] == package_digest(run.champion), 60)
    run.inspect()
    assert run.await_pairs(1) == {"pass/fail": 1}
    assert child_of(run) == child  # it was not opened anew
    deploy(run.challenger, make_package(run.folder / "fourth", operating_point=STRICT))
    wait_until(lambda: run.shadow.message()["package"] == package_digest(run.challenger), 60)
    run.await_state("running")
    run.inspect()
    assert run.await_pairs(1) == {"pass/fail": 1}


@pytest.mark.usefixtures("actor")
def test_twenty_challengers_in_a_row_leave_nothing_behind(run: Run) -> None:
    points = [OperatingPoint(f"c-{n}", -4.0, 1.0) for n in range(2)]
    packages = [make_package(run.folder / point.id, operating_point=point) for point in points]
    children: list[int] = []
    threads = files = 0
    for number in range(22):
        deploy(run.challenger, packages[number % 2])
        wait_until(lambda: run.shadow.message()["package"] == package_digest(run.challenger), 60)
        run.await_state("running")
        run.inspect()
        run.await_pairs(1)
        children.append(child_of(run))
        if number == 1:  # the spool and the rest have opened what they need
            threads, files = threading.active_count(), open_files("self")
    wait_until(lambda: threading.active_count() <= threads)
    wait_until(lambda: open_files("self") <= files + 4)  # of other parts of the program; a leak would be twenty
    wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in children[:-1]))
    run.challenger.unlink()
    run.await_state("none")
    wait_until(lambda: threading.active_count() < threads)


def test_a_challenger_is_ended_when_its_inspector_is_killed(tmp_path: Path) -> None:
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    champion = make_package(tmp_path / "first")
    challenger = make_package(tmp_path / "second", operating_point=STRICT)
    command = [sys.executable, "-m", "edge", "--model", champion, "--challenger", challenger, "--thing", "cam-1"]
    command += ["--source", f"folder:{incoming}", "--state", tmp_path / "state", "--set", "health_every_s=1"]
    command += ["--sink", f"file:{tmp_path / 'results.jsonl'}"]
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        quiet = subprocess.DEVNULL
        started.append(subprocess.Popen([str(one) for one in command], env=environment, stdout=quiet, stderr=quiet))
        return started[-1]

    def told() -> list[dict[str, Any]]:
        path = tmp_path / "results-health.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def shadow() -> dict[str, Any]:
        found: dict[str, Any] = told()[-1].get("shadow", {}) if told() else {}
        return found

    def feed(numbers: range) -> None:
        for number in numbers:
            (incoming / f"{number}.png.tmp").write_bytes(picture(number))
            (incoming / f"{number}.png.tmp").rename(incoming / f"{number}.png")

    try:
        process = start()
        wait_until(lambda: shadow().get("state") == "running", 120)
        feed(range(4))
        wait_until(lambda: shadow().get("pairs") == {"pass/fail": 4}, 120)
        messages = len(told())
        wait_until(lambda: len(told()) > messages + 1, 120)  # by then the counts of the one before are kept
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        tasks = [path / "children" for path in Path(f"/proc/{process.pid}/task").iterdir()]
        pids = [pid for path in (tasks or [children]) for pid in path.read_text().split()]
        assert len(pids) == 1
        process.kill()
        process.wait(60)
        wait_until(lambda: not open_files(pids[0]), 60)
        process = start()
        wait_until(lambda: len(told()) > messages + 3 and shadow().get("state") == "running", 120)
        assert shadow()["pairs"] == {"pass/fail": 4}
        feed(range(10, 12))
        wait_until(lambda: shadow().get("pairs") == {"pass/fail": 6}, 120)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        last = told()[-1]
        assert (last["state"], last["package"]["serving"]) == ("stopped", last["shadow"]["champion"])
        assert all(component["ok"] for component in last["components"].values())
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_programs_without_a_challenger_load_nothing_of_it() -> None:
    program = (
        "import sys, edge.inspector, edge.assembly; print([m for m in sys.modules if m.startswith('edge.shadow.')])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['edge.shadow.settings']"


# --- counts, draws and messages by themselves


def a_result(sequence: int = 7, verdict: Any = "pass") -> Result:
    return Result(
        thing="cam-1",
        sequence=sequence,
        source_key=f"part-{sequence}",
        line="tiny",
        captured_at=1_770_000_000.0,
        verdict=verdict,
        action="accept" if verdict == "pass" else "reject",
        score=-5.0,
    )


def test_pairs_are_kept_over_a_restart_for_the_same_two_only() -> None:
    pairs = Pairs()
    pairs.begin("a", "b")
    assert pairs.count("a", "b", "pass/fail")
    pairs.skip("a", "b")
    pairs.count_image("a", "b", "pass/fail")
    assert not pairs.count("x", "b", "pass/fail")
    assert not pairs.count("a", "x", "pass/fail")
    pairs.skip("x", "b")
    kept = json.loads(json.dumps(pairs.dump()))
    again = Pairs(kept)
    again.begin("a", "b")
    assert again.dump() == kept
    assert again.images("pass/fail") == 1
    assert (again.message()["pairs"], again.message()["skipped"]) == ({"pass/fail": 1}, 1)
    other = Pairs(kept)
    other.begin("b", "a")
    assert other.message() == {"since": None, "pairs": {}, "skipped": 0}


@pytest.mark.parametrize(
    "change",
    [{"champion": 1}, {"challenger": None}, {"since": None}, {"since": "x"}, {"pairs": []}, {"pairs": {"pass/ok": 3}}],
)
def test_kept_pairs_without_sense_count_as_none(change: dict[str, Any]) -> None:
    kept = {"champion": "a", "challenger": "b", "since": 5.0, "pairs": {"pass/fail": 3}, "skipped": 1, "images": {}}
    pairs = Pairs({**kept, **change})
    pairs.begin("a", "b")
    assert pairs.message() == {"since": None, "pairs": {}, "skipped": 0}


class Sink:
    """Takes images instead of a spool."""

    def __init__(self) -> None:
        self.images: list[KeptImage] = []
        self.additions: dict[int, Any] = {}

    def add_image(self, result: Result, image: KeptImage) -> None:
        self.images.append(image)

    def add_to_sidecar(self, sequence: int, fields: Any) -> None:
        self.additions[sequence] = fields


def disagreements(sink: Sink, seed: int = 3, **settings: int) -> tuple[Disagreements, Pairs, list[float]]:
    now = [0.0]
    review = ReviewPolicy(ReviewSettings())
    keep = Disagreements(ShadowSettings(**settings), review, sink, seed, lambda: now[0])  # type: ignore[arg-type]
    pairs = Pairs()
    pairs.begin("a", "b")
    return keep, pairs, now


def test_images_are_bounded_by_pair_and_their_probability_is_known() -> None:
    sink = Sink()
    keep, pairs, _ = disagreements(sink, images_per_day=20, images_in_all=100)
    data = picture(1)
    for number in range(2000):
        keep.keep(pairs, Job(part(number, data=data), a_result(), "a", False), Answer("fail", "reject"), "b", "v")
    assert 10 < len(sink.images) <= 20
    assert [image.probability for image in sink.images[:10]] == [1.0] * 10
    falling = [image.probability for image in sink.images]
    assert falling == sorted(falling, reverse=True)
    assert all(image.sidecar["shadow"]["probability"] == image.probability for image in sink.images)
    job = Job(part(1, data=data), a_result(), "a", False)
    keep.keep(pairs, job, Answer("review", "review"), "b", "v")  # another pair has places of its own
    assert sink.images[-1].sidecar["selection"]["stratum"] == "pass/review/shadow"


def test_images_in_all_hold_over_days_and_restarts() -> None:
    sink = Sink()
    keep, pairs, now = disagreements(sink, images_per_day=20, images_in_all=30)
    data = picture(1)

    def disagree(keep: Disagreements, pairs: Pairs) -> None:
        for number in range(300):
            keep.keep(pairs, Job(part(number, data=data), a_result(), "a", False), Answer("fail", "reject"), "b", "v")

    for _ in range(10):
        disagree(keep, pairs)
        now[0] += 86_400.0
    before = len(sink.images)
    assert before == pairs.images("pass/fail") <= 30
    again, _, _ = disagreements(sink, images_per_day=20, images_in_all=30)
    disagree(again, Pairs(pairs.dump()))
    assert len(sink.images) <= 30
    none, fresh, _ = disagreements(Sink(), images_in_all=0)
    disagree(none, fresh)
    assert fresh.images("pass/fail") == 0


def test_weights_of_kept_images_add_up_to_the_disagreements() -> None:
    data, total, draw = picture(1), 0.0, random.Random(5)
    for _ in range(150):
        sink = Sink()
        keep, pairs, _ = disagreements(sink, draw.randrange(1 << 30), images_per_day=20, images_in_all=100)
        job = Job(part(0, data=data), a_result(), "a", False)
        for _ in range(30):
            keep.keep(pairs, job, Answer("fail", "reject"), "b", "v")
        total += sum(1 / image.probability for image in sink.images)
    assert total / 150 == pytest.approx(30, rel=0.1)


def test_an_image_that_is_kept_already_gets_an_addition_to_its_sidecar() -> None:
    sink = Sink()
    keep, pairs, _ = disagreements(sink)
    keep.keep(pairs, Job(part(0), a_result(9), "a", True), Answer("fail", "reject", score=2.0), "b", "v")
    assert sink.images == []
    assert sink.additions[9]["shadow"]["verdict"] == "fail"
    assert "label" not in sink.additions[9]["shadow"]
    keep.keep(pairs, Job(part(0, data=b"no picture"), a_result(9), "a", False), Answer("fail", "reject"), "b", "v")
    assert sink.images == []


def test_settings_of_a_shadow_run_are_checked() -> None:
    assert ShadowSettings().check() == []
    faults = ShadowSettings(images_per_day=-1, images_in_all=-1, memory_bytes=5, nice=20).check()
    assert [fault.partition(":")[0] for fault in faults] == ["images_per_day", "images_in_all", "memory_bytes", "nice"]


def test_parts_and_messages_arrive_as_they_were_sent(tmp_path: Path) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (30, 40, 3), np.uint8)[:, ::2]  # not contiguous
    path = tmp_path / "stream"
    with path.open("wb") as stream:
        write_part(stream, part(1, data=b"abc\n\0def"))
        write_part(stream, part(2, frame=frame))
        write_part(stream, part(3, data=b""))
        write_part(stream, part(4, data=b"cut off"))
    path.write_bytes(path.read_bytes()[:-2])
    with path.open("rb") as stream:
        first, second, third = (read_part(stream) for _ in range(3))
        assert first is not None
        assert second is not None
        assert third is not None
        assert (first.name, first.data, third.data) == ("part-1", b"abc\n\0def", b"")
        assert np.array_equal(second.frame, frame)
        assert read_part(stream) is None
    for message in (Opened("v", "passed"), Refused("no", None), Answer("error", "reject", error="black")):
        with path.open("wb") as stream:
            write_message(stream, message)
        assert read_message(path.read_bytes()) == message
    for line in (b"", b"{}", b"[]", b'{"kind": "Answer"}', b'{"kind": "Opened", "odd": 1}', b"\xff"):
        with pytest.raises(ValueError, match="want a message"):
            read_message(line)


# --- the spool takes images later


def kept_image(data: bytes = b"image", reason: Any = "shadow") -> KeptImage:
    return KeptImage(data, ".png", reason, 0.5, {"why": reason})


def listed(folder: Path) -> list[tuple[int, bytes, str, str]]:
    queue = ImageQueue(folder)
    try:
        found = queue.waiting(100)
        return [(one.sequence, one.path.read_bytes(), one.sidecar["why"], one.sidecar["id"]) for one in found]
    finally:
        queue.close()


@pytest.mark.parametrize("committed", [True, False])
def test_an_image_can_be_added_to_a_result_before_and_after_its_commit(tmp_path: Path, committed: bool) -> None:
    spool = Spool(tmp_path, "cam-1", SpoolSettings(durable_within_ms=10_000))
    try:
        tickets = [spool.put(a_result(n)) for n in range(3)]
        if committed:
            assert spool.flush(60)
            spool.mark_sent([ticket.result.sequence for ticket in tickets])
        spool.add_image(tickets[1].result, kept_image())
        assert spool.figures().upload_backlog == 1
        assert spool.flush(60)
        sequence = tickets[1].result.sequence
        assert listed(tmp_path) == [(sequence, b"image", "shadow", f"cam-1-{sequence}")]
        assert spool.figures().upload_backlog == 1
        assert spool.figures().in_memory == 0
        assert len(spool.unsent(False, 10)) == (0 if committed else 3)
    finally:
        assert spool.close(60)
    again = Spool(tmp_path, "cam-1", SpoolSettings())
    try:
        assert again.next_sequence == tickets[2].result.sequence + 1  # a clean end
        assert again.gaps() == []
        assert [one[0] for one in listed(tmp_path)] == [sequence]
    finally:
        again.close()


def test_images_added_while_results_are_written_are_all_kept(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "cam-1", SpoolSettings(durable_within_ms=1))
    try:
        wanted = []
        for number in range(300):
            ticket = spool.put(a_result(number, "fail"))
            if number % 2:
                time.sleep(random.random() / 1000)
            spool.add_image(ticket.result, kept_image(b"image %d" % number))
            wanted.append((ticket.result.sequence, b"image %d" % number))
        assert spool.flush(60)
        queue = ImageQueue(tmp_path)
        try:
            assert [(one.sequence, one.path.read_bytes()) for one in queue.waiting(1000)] == wanted
            assert queue.figures().waiting == spool.figures().upload_backlog == 300
        finally:
            queue.close()
        for sequence, _ in wanted[:100]:
            queue = ImageQueue(tmp_path)
            queue.confirm(sequence)
            queue.close()
    finally:
        assert spool.close(60)
    again = Spool(tmp_path, "cam-1", SpoolSettings())
    try:
        assert again.figures().upload_backlog == 200
        assert again.figures().evicted == {}
    finally:
        again.close()


@pytest.mark.parametrize("committed", [True, False])
def test_a_sidecar_can_be_told_more_as_long_as_its_image_waits(tmp_path: Path, committed: bool) -> None:
    spool = Spool(tmp_path, "cam-1", SpoolSettings(durable_within_ms=10_000))
    try:
        ticket = spool.put(a_result(), kept_image(reason="fail"))
        if committed:
            assert spool.flush(60)
        spool.add_to_sidecar(ticket.result.sequence, {"shadow": {"verdict": "pass"}})
        spool.add_to_sidecar(ticket.result.sequence + 50, {"shadow": {}})  # of no image: nothing happens
        assert spool.flush(60)
        queue = ImageQueue(tmp_path)
        try:
            (image,) = queue.waiting(10)
            assert (image.sidecar["why"], image.sidecar["shadow"]) == ("fail", {"verdict": "pass"})
            assert image.sidecar["id"] == ticket.result.id
        finally:
            queue.close()
    finally:
        spool.close(60)


def test_a_closed_spool_and_odd_images_are_refused(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "cam-1", SpoolSettings())
    result = spool.put(a_result()).result
    with pytest.raises(SpoolError, match="suffix"):
        spool.add_image(result, dataclasses.replace(kept_image(), suffix="../x"))
    spool.close(60)
    with pytest.raises(SpoolError, match="closed"):
        spool.add_image(result, kept_image())


def test_images_of_shadow_runs_go_before_others_when_room_is_short(tmp_path: Path) -> None:
    settings = SpoolSettings(quota_bytes=1_000_000)
    spool = Spool(tmp_path, "cam-1", settings)
    try:
        fails = [spool.put(a_result(n, "fail"), kept_image(bytes(100_000), "fail")) for n in range(3)]
        for number in range(10, 30):
            spool.add_image(spool.put(a_result(number)).result, kept_image(bytes(100_000)))
        assert spool.flush(60)
        wait_until(lambda: spool.figures().bytes < 1_000_000, 60)
        assert spool.figures().evicted["shadow-image"] > 10
        assert {one[0] for one in listed(tmp_path)} >= {ticket.result.sequence for ticket in fails}
    finally:
        spool.close(60)


# --- the sidecar's schema


def test_a_sidecar_of_schema_1_1_stays_readable() -> None:
    sidecar = parse_sidecar(PAST.read_text(encoding="utf-8"))
    assert sidecar.selection == Selection("shadow", 0.25, 0.0, "pass/fail/shadow")
    assert sidecar.shadow == ShadowVerdict(
        "int8-fedcba987654", "cd" * 32, "ef" * 32, "fail", "reject", 0.25, 2.75, "scratch"
    )
    assert {"shadow"} == KNOWN_REQUIREMENTS


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("verdict", "good", "shadow.verdict: want one of"),
        ("probability", 0, "shadow.probability: want above 0"),
        ("score", "high", "shadow.score: want float"),
        ("digest", None, "shadow.digest: want str"),
    ],
)
def test_a_shadow_verdict_without_sense_is_refused(name: str, value: Any, message: str) -> None:
    document = json.loads(PAST.read_text(encoding="utf-8"))
    document["shadow"][name] = value
    with pytest.raises(SidecarError, match=message):
        read_sidecar(document)
