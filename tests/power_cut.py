"""What a power loss leaves of a folder: a program's writes and syncs are recorded, and replayed up to any point.

strace records the calls. The model is harsher than any real file system: until a file is synced none, all or any of its
writes since then may be on disk, a write may be torn at a sector, and until a folder is synced its new, renamed and
removed entries may or may not be there, in order. (SQLite's `-shm` file is shared memory and holds nothing to keep.)
"""

import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512  # bytes that a disk writes whole
CALLS = (
    "openat,pwrite64,write,ftruncate,truncate,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat"
)
LINE = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+)")
DATA = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(frozen=True)
class Call:
    """One recorded call that changes files: op is write, truncate, sync, make, rename, remove, folder."""

    op: str
    path: str
    data: bytes = b""
    offset: int = 0
    target: str = ""


def can_record() -> bool:
    """Whether strace is there and may trace."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode == 0


def record(command: list[str], output: Path, environment: dict[str, str]) -> list[Call]:
    """Run a program to its end and return its calls, in the order in which they were done."""
    strace = ["strace", "-f", "-y", "-xx", "-s", "100000000", "-e", f"trace={CALLS}", "-e", "signal=none"]
    subprocess.run([*strace, "-o", str(output), *command], check=True, env=environment)
    return list(_calls(output))


def _calls(output: Path) -> Iterator[Call]:
    unfinished: dict[str, str] = {}
    with output.open() as lines:
        for line in lines:
            pid, _, rest = line.rstrip("\n").partition(" ")
            rest = rest.lstrip()
            if rest.endswith("<unfinished ...>"):
                unfinished[pid] = rest.removesuffix("<unfinished ...>")
                continue
            if rest.startswith("<..."):
                rest = unfinished.pop(pid) + rest.partition("resumed>")[2]
            found = LINE.match(rest)
            if found is not None and int(found[3]) >= 0:
                yield from _call(found[1], found[2], int(found[3]))


def _call(name: str, arguments: str, returned: int) -> Iterator[Call]:
    texts = [bytes.fromhex(text.replace("\\x", "")) for text in DATA.findall(arguments)]
    paths = [text.decode(errors="replace") for text in texts]
    descriptor = re.match(r"\d+<([^>]*)>", arguments)
    opened = _path(descriptor[1]) if descriptor else ""
    numbers = [int(number) for number in re.findall(r"(?<=, )-?\d+", DATA.sub("", arguments))]
    if name == "openat" and "O_CREAT" in arguments:
        yield Call("make", paths[0])
        if "O_TRUNC" in arguments:
            yield Call("truncate", paths[0])
    elif name == "pwrite64":
        yield Call("write", opened, texts[-1][:returned], numbers[-1])
    elif name == "write":
        yield Call("write", opened, texts[-1][:returned], -1)
    elif name == "ftruncate":
        yield Call("truncate", opened, offset=numbers[-1])
    elif name == "truncate":
        yield Call("truncate", paths[0], offset=numbers[-1])
    elif name in ("fsync", "fdatasync"):
        yield Call("sync", opened)
    elif name.startswith("rename"):
        yield Call("rename", paths[0], target=paths[1])
    elif name.startswith("unlink"):
        yield Call("remove", paths[0])
    elif name.startswith("mkdir"):
        yield Call("folder", paths[0])


def _path(text: str) -> str:
    """A descriptor's path, which strace may have written in hexadecimal."""
    if text.startswith("\\x"):
        return bytes.fromhex(text.replace("\\x", "")).decode(errors="replace")
    return text


@dataclass
class File:
    """Content on disk, and what was written since the last sync."""

    durable: bytearray = field(default_factory=bytearray)
    live: bytearray = field(default_factory=bytearray)
    pending: list[Call] = field(default_factory=list)

    def after_cut(self, mode: str, choose: random.Random) -> bytes:
        if mode == "all":
            return bytes(self.live)
        data = bytearray(self.durable)
        kept = self.pending if mode == "any" else []
        if mode == "some":
            kept = self.pending[: choose.randint(0, len(self.pending))]
        for call in kept:
            if mode == "any" and choose.random() < 0.5:
                continue
            if call.op == "write" and choose.random() < 0.3 and len(call.data) > SECTOR:
                torn = choose.randrange(0, len(call.data), SECTOR)
                call = Call("write", call.path, call.data[:torn], call.offset)
            apply(data, call)
        return bytes(data)


def apply(data: bytearray, call: Call) -> None:
    """One write or truncation."""
    if call.op == "truncate":
        if call.offset < len(data):
            del data[call.offset :]
        data.extend(b"\x00" * (call.offset - len(data)))
        return
    if call.offset > len(data):
        data.extend(b"\x00" * (call.offset - len(data)))
    data[call.offset : call.offset + len(call.data)] = call.data


class Disk:
    """The state below one folder, after calls."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.live: dict[str, File] = {}  # path to file, as programs see it
        self.durable: dict[str, File] = {}  # as it is on disk
        self.pending: dict[str, list[Call]] = {}  # folder to changes of its entries that are not synced
        self.folders: list[str] = []
        self._files: dict[int, File] = {}  # of a change of entries, by its id: the file it is about

    def take(self, call: Call) -> None:
        """Carry out a call."""
        if not call.path.startswith(self.root) or call.path.endswith("-shm"):
            return
        if call.op == "folder":
            self.folders.append(call.path)
        elif call.op == "make":
            if call.path not in self.live:
                self.live[call.path] = File()
                self._entry(call)
        elif call.op == "rename":
            self.live[call.target] = self.live.pop(call.path)
            self._entry(call)
        elif call.op == "remove":
            if self.live.pop(call.path, None) is not None:
                self._entry(call)
        elif call.op == "sync" and call.path in self.live:
            file = self.live[call.path]
            file.durable, file.pending = bytearray(file.live), []
        elif call.op == "sync":
            for change in self.pending.pop(call.path, []):
                self._settle(change, self.durable)
        elif call.path in self.live:
            file = self.live[call.path]
            if call.offset < 0:
                call = Call(call.op, call.path, call.data, len(file.live))
            apply(file.live, call)
            file.pending.append(call)

    def write_after_cut(self, target: Path, mode: str, choose: random.Random) -> None:
        """Write what is left after the power is gone: mode none, all, some (the first ones) or any."""
        files = dict(self.durable)
        for changes in self.pending.values():
            count = {"none": 0, "all": len(changes)}.get(mode, choose.randint(0, len(changes)))
            for change in changes[:count]:
                self._settle(change, files)
        for folder in (self.root, *self.folders):
            (target / Path(folder).relative_to(self.root)).mkdir(parents=True, exist_ok=True)
        for path, file in files.items():
            (target / Path(path).relative_to(self.root)).write_bytes(file.after_cut(mode, choose))

    def _entry(self, call: Call) -> None:
        self._files[id(call)] = self.live.get(call.target or call.path, File())
        self.pending.setdefault(str(Path(call.path).parent), []).append(call)

    def _settle(self, change: Call, files: dict[str, File]) -> None:
        if change.op == "make":
            files[change.path] = self._files[id(change)]
        elif change.op == "rename":
            files.pop(change.path, None)
            files[change.target] = self._files[id(change)]
        else:
            files.pop(change.path, None)
