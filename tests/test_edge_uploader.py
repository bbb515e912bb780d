"""Kept images go to the store, whole, once confirmed, and never faster than allowed."""

import contextlib
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kept_images import image_bytes, keep_images, make_spool
from small_disk import small_disk

from edge.errors import UploadError
from edge.sidecar import parse_sidecar
from edge.spool.images import ImageQueue
from edge.spool.settings import SpoolSettings
from edge.spool.spool import Spool
from edge.uploader.__main__ import LOCK_FILE, main
from edge.uploader.bandwidth import ThrottledBody, TokenBucket
from edge.uploader.sending import send_all
from edge.uploader.settings import UploadSettings
from edge.uploader.stores import FolderStore, open_store, store_key
from edge.uploader.supervisor import UploadSupervisor

ROOT = Path(__file__).resolve().parents[1]
INBOX = "tiny/raw-images-for-review/press-3/fail/2026-02-02"


def waiting(spool: Path) -> list[int]:
    queue = ImageQueue(spool)
    try:
        return [image.sequence for image in queue.waiting(10_000)]
    finally:
        queue.close()


def arrived(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (store / INBOX).glob("*") if path.is_file()}


def upload(spool: Path, to: str | Path, *more: str) -> tuple[int, dict[str, Any]]:
    """Run the real child."""
    Path(to).mkdir(exist_ok=True)
    command = [sys.executable, "-m", "edge.uploader", "--spool", str(spool), "--to", str(to), *more]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, json.loads(done.stdout)


class NotedStore:
    """Notes keys in order; fails as told."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.objects: dict[str, bytes] = {}
        self.fail: Callable[[str], UploadError | None] = lambda key: None

    def put(self, key: str, data: bytes, sha256: str) -> None:
        error = self.fail(key)
        if error is not None:
            raise error
        assert hashlib.sha256(data).hexdigest() == sha256
        self.keys.append(key)
        self.objects[key] = data


# --- the way of an image


def test_the_child_empties_the_queue_into_the_inbox_and_ends(tmp_path: Path) -> None:
    spool = make_spool(tmp_path / "spool", 5)
    sequences = waiting(spool)
    code, report = upload(spool, tmp_path / "store")
    assert (code, report["state"], report["images"], report["image_bytes"]) == (0, "done", 5, 5 * len(image_bytes(0)))
    files = arrived(tmp_path / "store")
    assert set(files) == {f"press-3-{sequence}{suffix}" for sequence in sequences for suffix in (".jpg", ".json")}
    for index, sequence in enumerate(sequences):
        assert files[f"press-3-{sequence}.jpg"] == image_bytes(index)
        sidecar = parse_sidecar(files[f"press-3-{sequence}.json"].decode())
        assert sidecar.result.id == f"press-3-{sequence}"
        assert sidecar.result.source_key == f"part-{index}"
        assert sidecar.image.sha256 == hashlib.sha256(image_bytes(index)).hexdigest()
    assert waiting(spool) == []
    assert not [path for path in (tmp_path / "store").rglob(".*")]


def test_the_sidecar_is_there_before_its_image(tmp_path: Path) -> None:
    queue, store = ImageQueue(make_spool(tmp_path, 3)), NotedStore()
    send_all(queue, store)
    assert [key.rpartition(".")[2] for key in store.keys] == ["json", "jpg"] * 3
    queue.close()


def test_what_the_store_did_not_confirm_stays(tmp_path: Path) -> None:
    spool = make_spool(tmp_path, 4)
    queue, store = ImageQueue(spool), NotedStore()
    sequences = waiting(spool)
    store.fail = lambda key: UploadError("offline", "no network") if key.endswith(f"-{sequences[2]}.jpg") else None
    sent = send_all(queue, store)
    assert (sent.state, sent.message, sent.images) == ("offline", "no network", 2)
    assert waiting(spool) == sequences[2:]
    store.fail = lambda key: None
    assert send_all(queue, store).state == "done"
    assert waiting(spool) == []
    assert len(store.objects) == 8
    queue.close()


def test_one_image_that_the_store_refuses_does_not_hold_up_the_others(tmp_path: Path) -> None:
    spool = make_spool(tmp_path, 30)
    queue, store = ImageQueue(spool), NotedStore()
    bad = waiting(spool)[1]
    store.fail = lambda key: UploadError("refused", "too odd") if key.endswith(f"-{bad}.jpg") else None
    sent = send_all(queue, store)
    assert (sent.state, sent.images, sent.refused) == ("refused", 29, 1)
    assert waiting(spool) == [bad]
    queue.close()


def test_a_store_that_refuses_everything_is_soon_left_alone(tmp_path: Path) -> None:
    queue, store = ImageQueue(make_spool(tmp_path, 10)), NotedStore()
    tries: list[str] = []

    def refuse(key: str) -> UploadError:
        tries.append(key)
        return UploadError("refused", "no")

    store.fail = refuse
    assert send_all(queue, store).refused == len(tries) == 3
    queue.close()


def test_an_image_that_changed_on_the_disk_is_sent_as_damaged(tmp_path: Path) -> None:
    spool = make_spool(tmp_path, 1)
    queue, store = ImageQueue(spool), NotedStore()
    path = queue.waiting(1)[0].path
    rotten = b"rotten" + path.read_bytes()[6:]
    path.write_bytes(rotten)
    sent = send_all(queue, store)
    assert (sent.state, sent.damaged) == ("done", 1)
    key = next(key for key in store.keys if key.endswith(".json"))
    sidecar = parse_sidecar(store.objects[key].decode())
    assert sidecar.image.damaged
    assert sidecar.image.sha256 == hashlib.sha256(rotten).hexdigest()
    assert store.objects[key[:-5] + ".jpg"] == rotten
    queue.close()


def test_an_image_that_the_spool_evicted_meanwhile_is_passed_over(tmp_path: Path) -> None:
    spool = make_spool(tmp_path, 3)
    queue, store = ImageQueue(spool), NotedStore()
    images = queue.waiting(3)

    class Slow(NotedStore):
        def put(self, key: str, data: bytes, sha256: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                images[1].path.unlink()
            super().put(key, data, sha256)

    store = Slow()
    sent = send_all(queue, store)
    assert (sent.state, sent.images, sent.gone) == ("done", 2, 1)
    queue.close()


def test_images_kept_while_the_child_runs_are_sent_too(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    spool = Spool(folder, "press-3", SpoolSettings())
    keep_images(spool, 2)
    more = iter(range(2, 6))

    class Store(NotedStore):
        def put(self, key: str, data: bytes, sha256: str) -> None:
            super().put(key, data, sha256)
            if (index := next(more, None)) is not None:
                keep_images(spool, 1, start=index)

    queue = ImageQueue(folder)
    assert send_all(queue, Store()).images == 6
    queue.close()
    spool.close()


def test_killed_at_any_moment_the_next_child_finishes_the_work(tmp_path: Path) -> None:
    spool = make_spool(tmp_path / "spool", 40, size=20_000)
    store = tmp_path / "store"
    store.mkdir()
    sequences = waiting(spool)
    command = [sys.executable, "-m", "edge.uploader", "--spool", str(spool), "--to", str(store), "--max-kb-per-s=400"]
    killed = 0
    for delay_s in (0.25, 0.4, 0.55):
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay_s)
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            killed += 1
        child.wait()
        files, left = arrived(store), set(waiting(spool))
        for sequence in sequences:  # nothing is gone from both places, and no image is without its sidecar
            name = f"press-3-{sequence}"
            assert sequence in left or f"{name}.jpg" in files
            assert f"{name}.jpg" not in files or f"{name}.json" in files
    assert killed
    code, report = upload(spool, store)
    assert (code, report["state"]) == (0, "done")
    files = arrived(store)
    assert {name for name in files if not name.startswith(".")} >= {f"press-3-{sequence}.jpg" for sequence in sequences}
    assert all(files[f"press-3-{sequence}.jpg"] == image_bytes(i, 20_000) for i, sequence in enumerate(sequences))


def test_two_children_do_not_work_on_one_spool(tmp_path: Path) -> None:
    spool = make_spool(tmp_path / "spool", 1)
    with (spool / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, report = upload(spool, tmp_path / "store")
    assert (code, report["state"], report["images"]) == (0, "busy", 0)
    assert len(waiting(spool)) == 1


# --- trouble


def test_a_spool_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--spool", str(tmp_path / "none"), "--to", str(tmp_path / "store")])
    report = json.loads(capsys.readouterr().out)
    assert (code, report["state"]) == (75, "spool")
    assert "cannot lock the spool" in report["message"]


@pytest.mark.parametrize(("to", "message"), [("ftp://host/x", "to: want a folder or s3"), ("s3://UPPER/x", "to: want")])
def test_a_target_without_sense_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], to: str, message: str
) -> None:
    assert main(["--spool", str(tmp_path), "--to", to]) == 75
    report = json.loads(capsys.readouterr().out)
    assert report["state"] == "settings"
    assert report["message"].startswith(message)


def test_a_share_that_is_not_mounted_is_missing_and_not_made(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "share" / "inbox", TokenBucket(0))
    for mount_point in (False, True):
        if mount_point:
            (tmp_path / "share").mkdir()
        with pytest.raises(UploadError, match="there is no such folder; make it, or mount the share") as caught:
            store.put("a/b.jpg", b"x", hashlib.sha256(b"x").hexdigest())
        assert caught.value.state == "missing"
        assert not (tmp_path / "share" / "inbox").exists()


def test_a_full_store_is_told_and_leaves_no_rest(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with small_disk(folder, 64 * 1024):
        data = bytes(200_000)
        with pytest.raises(UploadError, match="make room there") as caught:
            FolderStore(folder, TokenBucket(0)).put("a/b.jpg", data, hashlib.sha256(data).hexdigest())
        assert caught.value.state == "full"
        assert [path for path in folder.rglob("*") if path.is_file()] == []


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_store_that_this_user_may_not_write_to_is_denied(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0o500)
    with pytest.raises(UploadError, match="let this user write there") as caught:
        FolderStore(tmp_path / "store", TokenBucket(0)).put("a/b.jpg", b"x", hashlib.sha256(b"x").hexdigest())
    assert caught.value.state == "denied"


def test_a_file_in_the_way_is_told_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a").write_text("a file")
    with pytest.raises(UploadError, match=r"store/a/b\.jpg: cannot write") as caught:
        FolderStore(tmp_path / "store", TokenBucket(0)).put("a/b.jpg", b"x", hashlib.sha256(b"x").hexdigest())
    assert caught.value.state == "offline"


def test_s3_without_boto3_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.delitem(sys.modules, "edge.uploader.s3", raising=False)
    with pytest.raises(UploadError, match=r"need boto3 .*requirements-upload\.txt") as caught:
        open_store(UploadSettings(to="s3://parts/x"))
    assert caught.value.state == "settings"


def test_only_the_child_knows_boto3() -> None:
    program = "import sys, edge.uploader.supervisor, edge.uploader.__main__; sys.exit('boto3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ".hidden", "a\\b", "a b", "ü\n"])
def test_keys_stay_below_their_prefix_whatever_names_hold(name: str) -> None:
    key = store_key("tiny", name, "fail", "2026-01-01", f"{name}-1.jpg")
    assert key.count("/") == 5
    assert key.isascii()
    assert not any(part.startswith(".") for part in key.split("/"))


# --- bandwidth


class FakeTime:
    def __init__(self) -> None:
        self.now_s = 0.0

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now_s += seconds


@pytest.mark.parametrize("piece", [100, 4096, 1_000_000])
def test_a_body_is_read_no_faster_than_the_cap(piece: int) -> None:
    fake = FakeTime()
    bucket = TokenBucket(50_000, fake.clock, fake.sleep)
    body = ThrottledBody(bytes(500_000), bucket)
    while body.read(piece):
        pass
    assert 8.9 <= fake.now_s <= 10.1  # 10 s less the burst of one second
    body.seek(0)
    assert len(body.read()) == 500_000  # again, as a client does that tries anew
    assert fake.now_s >= 18.9


def test_idle_time_saves_up_no_more_than_a_second() -> None:
    fake = FakeTime()
    bucket = TokenBucket(1000, fake.clock, fake.sleep)
    fake.now_s = 1e6
    bucket.take(5000)
    assert fake.now_s == pytest.approx(1e6 + 4)


def test_no_cap_never_waits() -> None:
    def never(seconds: float) -> None:
        raise AssertionError

    TokenBucket(0, sleep=never).take(10**12)


# --- the supervisor


class Script:
    """A supervisor whose child is a few words of Python."""

    def __init__(self, tmp_path: Path, program: str, **settings: Any) -> None:
        self.backlog = 1
        self.asked = 0
        self.now_s = 1000.0
        fields: dict[str, Any] = {"to": str(tmp_path / "store"), "pause_s": 60.0, "retry_min_s": 30.0}
        self.supervisor = UploadSupervisor(
            UploadSettings(**{**fields, **settings}),
            tmp_path,
            self._backlog,
            [sys.executable, "-c", program],
            jitter=lambda: 0.0,
        )

    def _backlog(self) -> int:
        self.asked += 1
        return self.backlog

    def tick(self, seconds: float = 0.0) -> str:
        self.now_s += seconds
        self.supervisor.tick(self.now_s)
        return self.supervisor.state().state

    def settle(self) -> str:
        """Until the child has ended and was reaped."""
        for _ in range(2000):
            state = self.tick()
            if self.supervisor._child is None:
                return state
            time.sleep(0.01)
        raise AssertionError("the child did not end within 20 s")


def ending(state: str, message: str = "", images: int = 0) -> str:
    report = {"state": state, "message": message, "images": images, "image_bytes": 9, "damaged": 0, "gone": 0}
    return f"print({json.dumps(json.dumps(report))})"


def test_a_backlog_starts_the_child_and_a_pause_follows(tmp_path: Path) -> None:
    script = Script(tmp_path, ending("done", images=3))
    assert script.tick() == "running"
    assert script.settle() == "done"
    assert script.supervisor.state().images == 3
    assert script.tick(59) == "done"
    assert script.tick(2) == "running"
    script.settle()
    assert script.supervisor.state().images == 6
    script.supervisor.hurry()
    assert script.tick() == "running"
    script.supervisor.close()


def test_without_a_backlog_or_a_target_nothing_starts(tmp_path: Path) -> None:
    script = Script(tmp_path, ending("done"))
    script.backlog = 0
    assert {script.tick(0.25) for _ in range(80)} == {"idle"}
    assert script.asked <= 11  # and the spool is not asked all the time
    off = Script(tmp_path, ending("done"), to="")
    assert (off.tick(), off.asked) == ("off", 0)


@pytest.mark.parametrize("state", ["offline", "denied", "missing", "clock", "full", "settings", "refused", "spool"])
def test_trouble_is_told_and_the_waits_double(tmp_path: Path, state: str) -> None:
    script = Script(tmp_path, ending(state, "what is wrong"), retry_max_s=100.0)
    waits = []
    script.tick()
    assert script.settle() == state
    told = script.supervisor.state()
    assert (told.ok, told.message) == (False, "what is wrong")
    for _ in range(3):
        waited = 0
        while script.supervisor._child is None:
            script.tick(1)
            waited += 1
        waits.append(waited)
        assert script.supervisor.state().state == state  # until an upload succeeds
        script.settle()
    assert waits == [60, 60, 100]  # 30 s, but never less than the pause; then 60 s, then the longest


def test_success_after_trouble_makes_all_well(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    program = f"import os\nif os.path.exists({str(flag)!r}): {ending('done')}\nelse: {ending('offline', 'x')}"
    script = Script(tmp_path, program)
    script.tick()
    assert script.settle() == "offline"
    flag.touch()
    script.tick(100)
    assert script.settle() == "done"
    assert script.supervisor.state().ok


@pytest.mark.parametrize(
    "program",
    ["raise SystemExit(1)", "print('no report')", "import os; os.kill(os.getpid(), 9)", "print('[1]')", "print('{}')"],
)
def test_a_child_that_crashes_is_told_and_not_started_at_once(tmp_path: Path, program: str) -> None:
    script = Script(tmp_path, program)
    script.tick()
    assert script.settle() == "crashed"
    assert not script.supervisor.state().ok
    assert script.tick(29) == "crashed"
    assert script.supervisor._child is None


def test_a_child_that_cannot_start_is_told(tmp_path: Path) -> None:
    script = Script(tmp_path, "")
    script.supervisor._command = [str(tmp_path / "no-such-program")]
    assert script.tick() == "start"
    assert "cannot start the uploader" in script.supervisor.state().message


def test_a_child_that_moves_nothing_is_stopped(tmp_path: Path) -> None:
    script = Script(tmp_path, "import time; time.sleep(600)", stalled_s=60.0)
    script.tick()
    script.tick(1)
    assert script.tick(30) == "running"
    (tmp_path / LOCK_FILE).touch()
    script.tick(1)
    assert script.tick(59) == "running"
    assert script.tick(10) == "stalled"
    assert script.supervisor._child is None


def test_close_ends_the_child_even_when_it_will_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.uploader.supervisor._STOP_S", 0.2)
    ready = tmp_path / "ready"
    program = (
        "import pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"pathlib.Path({str(ready)!r}).touch(); time.sleep(600)"
    )
    script = Script(tmp_path, program)
    script.tick()
    child = script.supervisor._child
    assert child is not None
    for _ in range(2000):
        if ready.exists():
            break
        time.sleep(0.01)
    script.supervisor.close()
    assert child.returncode == -signal.SIGKILL
    script.supervisor.close()


def test_the_supervisor_runs_the_real_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = make_spool(tmp_path / "spool", 3)
    monkeypatch.chdir(tmp_path)  # a component's working directory is not where the program lies
    (tmp_path / "store").mkdir()
    settings = UploadSettings(to=str(tmp_path / "store"), nice=5)
    supervisor = UploadSupervisor(settings, spool, lambda: len(waiting(spool)))
    for _ in range(2000):
        supervisor.tick(time.monotonic())
        if supervisor.state().state == "done":
            break
        time.sleep(0.01)
    state = supervisor.state()
    assert (state.ok, state.state, state.images) == (True, "done", 3)
    assert len(arrived(tmp_path / "store")) == 6
    assert waiting(spool) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"to": "http://x/y"}, "to: want a folder or s3"),
        ({"max_kb_per_s": -1.0}, "max_kb_per_s: want 0"),
        ({"pause_s": -1.0}, "pause_s: want 0"),
        ({"retry_min_s": 0.0}, "retry_min_s, retry_max_s: want"),
        ({"retry_max_s": 5.0}, "retry_min_s, retry_max_s: want"),
        ({"stalled_s": 1.0}, "stalled_s: want 60"),
        ({"nice": 20}, "nice: want 0 to 19"),
    ],
)
def test_settings_without_sense_are_named(changes: dict[str, Any], message: str) -> None:
    faults = UploadSettings(**changes).check()
    assert len(faults) == 1
    assert faults[0].startswith(message)
    assert UploadSettings().check() == []
    assert UploadSettings(to="s3://parts-of-ours/line/x").check() == []
