"""kill -9 at random instants while a folder is inspected: nothing acknowledged is lost, no part gets two results."""

import contextlib
import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from environments import once_is_enough
from golden_package import make_package
from inspecting import BAD, GOOD, picture
from small_disk import mount, unmount

pytestmark = once_is_enough

KILLS = 200
MOST_PARTS = 12  # that an inspector acknowledges before it is killed
PATIENCE_S = 5.0  # for that, on a busy machine
IN_STORE = 60  # files that wait at the start of each life


class Nursery:
    """A process that forks inspectors."""

    def __init__(self) -> None:
        here = Path(__file__).parent
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(here.parent), str(here)))}
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # a fork must find one thread
        self._process = subprocess.Popen(
            [sys.executable, str(here / "nursery.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self, arguments: list[str]) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        return int(self._line())

    def wait(self) -> int:
        return int(self._line())

    def close(self) -> None:
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


class Line:
    """A folder of parts, an inspector's state, and what came out."""

    def __init__(self, root: Path, state: Path | None = None) -> None:
        self.root = root
        self.incoming = root / "incoming"
        self.incoming.mkdir()
        self.state = state or root / "state"
        self.package = make_package(root / "package")
        self.made = 0
        self._pictures = [picture(n, BAD if n % 3 == 0 else GOOD) for n in range(40)]

    def fill(self) -> None:
        """Have enough files wait, no two of them the same file."""
        for number in range(self.made, self.made + max(0, IN_STORE - self.waiting())):
            staged = self.incoming / f".{number}"
            staged.write_bytes(self._pictures[number % len(self._pictures)])
            staged.rename(self.incoming / f"part-{number:05d}.png")
            self.made += 1

    def waiting(self) -> int:
        """Files that were not acknowledged."""
        return sum(name.endswith(".png") for name in os.listdir(self.incoming))  # noqa: PTH208  asked often

    def arguments(self) -> list[str]:
        settings = ["source.folder.settle_ms=0", "source.folder.interval_s=0.05", "review.stuck_after=0"]
        settings += ["sender.batch_within_s=0.1", "file.sync=false", "deadline_ms=60000", "spool.retry_min_s=0.05"]
        arguments = ["--model", str(self.package), "--source", f"folder:{self.incoming}", "--state", str(self.state)]
        arguments += ["--sink", f"file:{self.root / 'results.jsonl'}", "--thing", "cam-1", "--quiet"]
        return arguments + [word for setting in settings for word in ("--set", setting)]

    def acknowledged(self) -> dict[str, str]:
        """File name to the verdict of the folder that it was moved to."""
        done = self.incoming / "done"
        return {path.name: path.parent.name for path in done.rglob("*.png")} if done.exists() else {}

    def delivered(self) -> list[dict[str, Any]]:
        path = self.root / "results.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [document for line in lines if (document := _parsed(line)) is not None]

    def spooled(self) -> list[dict[str, Any]]:
        """Results on disk; read when no inspector runs."""
        path = self.state / "spool" / "spool.db"
        if not path.exists():
            return []
        connection = sqlite3.connect(path)
        try:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'results'").fetchone():
                return []  # killed before the table was there
            return [json.loads(row[0]) for row in connection.execute("SELECT body FROM results")]
        finally:
            connection.close()


def _parsed(line: str) -> dict[str, Any] | None:
    """A delivered result; None for a line that a kill cut, which is sent again."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def name_of(result: dict[str, Any]) -> str:
    return str(result["source_key"]).removeprefix("file:").partition("#")[0]


def check(line: Line, whole: bool) -> None:
    """Nothing acknowledged is lost, and no part has two results."""
    acknowledged = line.acknowledged()
    results = [*line.delivered(), *line.spooled()]
    ids: defaultdict[str, set[str]] = defaultdict(set)
    keys: defaultdict[str, set[str]] = defaultdict(set)
    verdicts: dict[str, str] = {}
    for result in results:
        ids[name_of(result)].add(result["id"])
        keys[result["id"]].add(result["source_key"])
        verdicts[name_of(result)] = result["verdict"]
    assert {name: found for name, found in ids.items() if len(found) > 1} == {}
    assert {name: found for name, found in keys.items() if len(found) > 1} == {}
    lost = {name for name in acknowledged if name not in ids}
    assert lost == set()
    assert {name: verdict for name, verdict in acknowledged.items() if verdicts[name] != verdict} == {}
    if whole:
        assert len(acknowledged) == line.made
        assert {name_of(result) for result in line.delivered()} == set(acknowledged)


@pytest.mark.slow
def test_kills_at_random_instants_lose_nothing_and_judge_no_part_twice(tmp_path: Path, nursery: Nursery) -> None:
    line, generator = Line(tmp_path), random.Random(4)
    lives, kills = 0, 0
    while kills < KILLS:
        line.fill()
        child = nursery.start(line.arguments())
        if lives % 4:
            wait_for_parts(line, generator.randint(0, MOST_PARTS))
        time.sleep(generator.uniform(0.0, 0.03))
        os.kill(child, signal.SIGKILL)
        kills += nursery.wait() == -signal.SIGKILL
        lives += 1
        assert lives < 2 * KILLS
        if lives % 20 == 0:
            check(line, whole=False)
    before = len(line.acknowledged())
    assert nursery_runs_out(nursery, line) == 0
    check(line, whole=True)
    assert before > KILLS  # the inspectors that were killed had been at work


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file-system", "file-size-limit"])
def test_kills_while_the_disk_is_full_lose_nothing_and_judge_no_part_twice(
    tmp_path: Path, nursery: Nursery, kind: str
) -> None:
    generator = random.Random(5)
    with small_file_system(tmp_path) if kind == "file-system" else contextlib.nullcontext(None) as place:
        line = Line(tmp_path, (place or tmp_path) / "state")
        disk = Ballast(place / "ballast") if place else Limit(nursery.pid, line.state / "spool" / "spool.db", generator)
        stood_still = lives = kills = 0
        while kills < KILLS:
            line.fill()
            full_at_start, room_at_end = generator.random() < 0.5, generator.random() < 0.5
            if full_at_start:
                disk.fill(None)
            child = nursery.start(line.arguments())
            if not full_at_start:
                wait_for_parts(line, generator.randint(0, MOST_PARTS // 2))
                disk.fill(child)  # in the middle of it
            waiting = line.waiting()
            time.sleep(generator.uniform(0.0, 0.15))
            stood_still += line.waiting() == waiting
            if room_at_end:
                disk.empty(child)
                time.sleep(generator.uniform(0.0, 0.15))
            os.kill(child, signal.SIGKILL)
            kills += nursery.wait() == -signal.SIGKILL
            lives += 1
            assert lives < 2 * KILLS
            disk.empty(None)
            if lives % 20 == 0:
                check(line, whole=False)
        before = len(line.acknowledged())
        assert nursery_runs_out(nursery, line) == 0
        check(line, whole=True)
    assert before > KILLS  # the inspectors that were killed had been at work,
    assert KILLS // 4 < stood_still < KILLS  # and the disk was full for many


@contextlib.contextmanager
def small_file_system(folder: Path) -> Iterator[Path]:
    """A file system of its own, with more room than all that is kept here: only ballast fills it."""
    place = folder / "small"
    place.mkdir()
    if not mount(place, "size=64m"):
        pytest.skip("needs the right to mount a small file system")
    try:
        yield place
    finally:
        unmount(place)


class Ballast:
    """Fills a small file system for everybody."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fill(self, child: int | None) -> None:
        """Leave no room on the disk."""
        with self._path.open("ab", buffering=0) as stream:
            for block in (bytes(1_000_000), bytes(4096)):
                with contextlib.suppress(OSError):
                    while True:
                        stream.write(block)

    def empty(self, child: int | None) -> None:
        """Give the room back."""
        self._path.unlink(missing_ok=True)


class Limit:
    """As a full disk for a process that may not mount one: the kernel lets no file of the inspector's grow.

    A write that crosses the limit is cut short, and one behind it refused (EFBIG), in whichever file. Without a child
    it holds for those that the nursery starts.
    """

    def __init__(self, nursery: int, database: Path, generator: random.Random) -> None:
        self._nursery = nursery
        self._database = database
        self._generator = generator

    def fill(self, child: int | None) -> None:
        """Refuse everything, or what is added to small files, to the database or to its log."""
        log = self._database.with_name("spool.db-wal")
        size = self._generator.choice([0, 4096, _size(self._database), _size(log), _size(log) // 2 + 1000])
        self._set(child, size)

    def empty(self, child: int | None) -> None:
        """Let files grow."""
        self._set(child, resource.RLIM_INFINITY)

    def _set(self, child: int | None, size: int) -> None:
        process = self._nursery if child is None else child
        _, most = resource.prlimit(process, resource.RLIMIT_FSIZE)
        resource.prlimit(process, resource.RLIMIT_FSIZE, (most if size == resource.RLIM_INFINITY else size, most))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def wait_for_parts(line: Line, parts: int) -> None:
    """Wait until so many have been moved away."""
    end_s = time.monotonic() + PATIENCE_S
    while IN_STORE - line.waiting() < parts and time.monotonic() < end_s:
        time.sleep(0.002)


def nursery_runs_out(nursery: Nursery, line: Line) -> int:
    """Inspect what is left, to the end."""
    nursery.start([*line.arguments(), "--once"])
    return nursery.wait()
