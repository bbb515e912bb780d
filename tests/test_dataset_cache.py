"""The pixel cache against damage, killed runs and other flows, with real processes."""

import hashlib
import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from pictures import write_set
from PIL import Image

from edge.contract import RESIZE_MODES, InputContract
from edge.preprocess import prepare_file
from inspection.dataset import looking
from inspection.dataset.cache import PREPROCESSING_VERSION, PixelCache, cache_prefix
from inspection.dataset.intake import prepare_dataset
from inspection.dataset.manifest import Snapshot, latest_entry
from inspection.dataset.sources import open_source
from inspection.errors import DataError
from inspection.settings import Settings, parse_settings
from inspection.storage import LocalStorage

PREPARE = """
import sys
from inspection.dataset import looking
from inspection.dataset.intake import prepare_dataset
from inspection.settings import parse_settings
from inspection.storage import open_storage
folder, storage, size, workers = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
settings = parse_settings({"line": {"name": "bottles"}, "input": {"width": size, "height": size}}, "test")
looking.PROCESSES_FROM = 1  # a small set would be prepared by threads
if __name__ == "__main__":
    print(prepare_dataset(settings, folder, open_storage(storage), workers=workers).id)
"""


def make_settings(size: int = 32) -> Settings:
    return parse_settings({"line": {"name": "bottles"}, "input": {"width": size, "height": size}}, "test")


def start(folder: Path, storage: Path, size: int = 32, workers: int = 2) -> subprocess.Popen[str]:
    """The first step in a process of its own."""
    command = [sys.executable, "-c", PREPARE, str(folder), str(storage), str(size), str(workers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.strip()


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "storage")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_set(tmp_path / "images", {"good": 20, "dent": 20})


@pytest.fixture
def snapshot(folder: Path, storage: LocalStorage) -> Snapshot:
    return prepare_dataset(make_settings(), str(folder), storage)


def _cache(storage: LocalStorage) -> PixelCache:
    return PixelCache(storage, make_settings().input.contract())


def _digests(snapshot: Snapshot) -> list[str]:
    return [row.sha256 for row in snapshot.rows]


def _shards(storage: LocalStorage) -> list[Path]:
    return sorted(Path(storage.root, "cache").glob("*/*.npy"), key=lambda path: -path.stat().st_size)


def test_rows_come_in_the_order_asked_for(snapshot: Snapshot, storage: LocalStorage) -> None:
    cache, wanted = _cache(storage), _digests(snapshot)
    pixels = cache.read(wanted)
    assert (pixels.shape, pixels.dtype) == ((40, 32, 32, 3), np.uint8)
    some = [wanted[31], wanted[2], wanted[2]]
    assert np.array_equal(cache.read(some), pixels[[31, 2, 2]])
    batches = list(cache.iter_batches(wanted, 16))
    assert [len(batch) for batch in batches] == [16, 16, 8]
    assert np.array_equal(np.concatenate(batches), pixels)
    assert cache.read([]).shape == (0, 32, 32, 3)


def test_missing_images_are_named(snapshot: Snapshot, storage: LocalStorage) -> None:
    cache = _cache(storage)
    assert cache.missing([_digests(snapshot)[0], "f" * 64, "f" * 64]) == ["f" * 64]
    with pytest.raises(DataError, match=r"1 images are not in the cache: ffff.*run the flow's first step"):
        cache.read(["f" * 64])


def test_every_field_of_the_contract_has_its_own_cache() -> None:
    base = InputContract(64, 32)
    others = [InputContract(32, 64), InputContract(64, 32, resize="letterbox"), InputContract(64, 32, white_level=4095)]
    assert len({cache_prefix(contract) for contract in [base, *others]}) == 4
    assert cache_prefix(InputContract(64, 32)) == cache_prefix(base)


def test_a_change_of_preprocessing_raises_its_version() -> None:
    """Pixels cached by the code before would serve beside those of the code after."""
    ramp = np.arange(90 * 150 * 3, dtype=np.uint32).reshape(90, 150, 3) * 2654435761 >> 24
    file = io.BytesIO()
    Image.fromarray(ramp.astype(np.uint8)).save(file, "PNG")
    digest = hashlib.sha256()
    for resize in RESIZE_MODES:
        digest.update(prepare_file(file.getvalue(), InputContract(32, 24, resize=resize)).pixels.tobytes())
    known = {1: "564f1ab27222152d"}
    assert known[PREPROCESSING_VERSION] == digest.hexdigest()[:16], (
        "edge.preprocess gives other pixels than this version did: raise PREPROCESSING_VERSION and add it to `known`"
    )


def test_shards_are_plain_numpy_files(snapshot: Snapshot, storage: LocalStorage) -> None:
    shard = _shards(storage)[0]
    index = json.loads(shard.with_suffix(".json").read_text())
    pixels = np.load(shard, allow_pickle=False)
    assert pixels.shape == (len(index["rows"]), 32, 32, 3)
    assert index["bytes"] == shard.stat().st_size
    assert np.array_equal(_cache(storage).read([index["rows"][0]["sha256"]])[0], pixels[0])


def test_a_changed_pixel_is_found_and_the_shard_named(folder: Path, snapshot: Snapshot, storage: LocalStorage) -> None:
    shard = _shards(storage)[0]
    content = bytearray(shard.read_bytes())
    content[-100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(
        DataError, match=rf"{shard.name}: this shard of the cache is corrupted.*delete it and run again"
    ):
        _cache(storage).read(_digests(snapshot))
    shard.unlink()  # as the message says
    assert prepare_dataset(make_settings(), str(folder), storage) == snapshot
    assert len(_cache(storage).read(_digests(snapshot))) == 40


def test_a_changed_header_is_found(snapshot: Snapshot, storage: LocalStorage) -> None:
    shard = _shards(storage)[0]
    content = bytearray(shard.read_bytes())
    content[:6] = b"\0" * 6
    shard.write_bytes(content)
    with pytest.raises(DataError, match=rf"{shard.name}: this shard of the cache is corrupted"):
        _cache(storage).read(_digests(snapshot))


@pytest.mark.parametrize("damage", ["truncated", "gone"])
def test_a_shard_that_is_not_whole_is_prepared_again(
    folder: Path, snapshot: Snapshot, storage: LocalStorage, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    shard = _shards(storage)[0]
    before = _cache(storage).read(_digests(snapshot))
    if damage == "truncated":
        shard.write_bytes(shard.read_bytes()[:-1000])
    else:
        shard.unlink()
    assert prepare_dataset(make_settings(), str(folder), storage) == snapshot
    assert f"cache_shard_damaged key=cache/{shard.parent.name}/{shard.name}" in caplog.text
    caplog.clear()
    assert np.array_equal(_cache(storage).read(_digests(snapshot)), before)
    assert prepare_dataset(make_settings(), str(folder), storage) == snapshot
    assert "cache" not in caplog.text, "said once"


@pytest.mark.parametrize(
    "content", [b"", b'{"schema": "1.0", "requi', b'{"schema": "1.0", "bytes": 5, "rows": [{"row": 1}]}']
)
def test_a_damaged_index_is_named_and_its_images_are_prepared_again(
    folder: Path, snapshot: Snapshot, storage: LocalStorage, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    index = _shards(storage)[0].with_suffix(".json")
    before = _cache(storage).read(_digests(snapshot))
    index.write_bytes(content)
    assert prepare_dataset(make_settings(), str(folder), storage) == snapshot
    assert f"cache_index_damaged key=cache/{index.parent.name}/{index.name}" in caplog.text
    assert np.array_equal(_cache(storage).read(_digests(snapshot)), before)


def test_two_flows_at_once_share_the_cache_and_the_history(tmp_path: Path, storage: LocalStorage) -> None:
    folder = write_set(tmp_path / "images", {"good": 60, "dent": 60})
    flows = [start(folder, Path(storage.root)) for _ in range(2)]
    ids = [finish(flow) for flow in flows]
    assert ids[0] == ids[1]
    entry = latest_entry(storage, "bottles")
    assert entry is not None
    assert entry.number == 1
    snapshot = prepare_dataset(make_settings(), str(folder), storage)
    assert snapshot.id == ids[0]
    assert len(_cache(storage).read(_digests(snapshot))) == 120


def test_two_flows_with_different_new_images_keep_each_others_splits(
    folder: Path, snapshot: Snapshot, storage: LocalStorage
) -> None:
    """Both add images at once: the second to finish takes the first one's snapshot as parent."""
    other = write_set(folder.parent / "other", {"good": 20, "dent": 20})
    write_set(folder, {"good": 15, "dent": 15}, start=100, seed=1000)
    write_set(other, {"good": 15, "dent": 15}, start=200, seed=2000)
    flows = [start(place, Path(storage.root), workers=1) for place in (folder, other)]
    for flow in flows:
        finish(flow)
    entry = latest_entry(storage, "bottles")
    assert entry is not None
    assert entry.number == 3
    splits = {row.uri: row.split for row in snapshot.rows}
    for place in (folder, other):
        again = {row.uri: row.split for row in prepare_dataset(make_settings(), str(place), storage).rows}
        assert splits.items() <= again.items()


def test_a_killed_run_keeps_its_finished_shards_and_leaves_nothing_else(tmp_path: Path, storage: LocalStorage) -> None:
    folder = write_set(tmp_path / "images", {"good": 80, "dent": 80})
    process = start(folder, Path(storage.root), size=512)  # large inputs, so that shards take a while
    while not list(Path(storage.root, "cache").glob("*/*.json")):
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.005)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    for orphan in alive:
        orphan.kill()
    process.communicate()
    assert not alive, "workers end with their parent"

    cache = PixelCache(storage, make_settings(512).input.contract())
    kept = list(cache.images)
    assert 0 < len(kept) < 160
    cache.read(kept[:5])
    snapshot = prepare_dataset(make_settings(512), str(folder), storage)
    cache.refresh()
    assert not cache.missing(_digests(snapshot))
    stored = [
        entry
        for path in Path(storage.root, "cache").glob("*/*.json")
        if path.with_suffix(".npy").exists()
        for entry in json.loads(path.read_text())["rows"]
    ]
    assert len(stored) == 160, "no finished image was prepared twice"


def test_a_crash_of_a_worker_names_the_images_it_had(folder: Path, storage: LocalStorage, tmp_path: Path) -> None:
    write_set(folder, {"good": 100}, start=100, seed=1000)
    process = start(folder, Path(storage.root), size=512)
    children: list[psutil.Process] = []
    while len(children) < 2:
        children = [
            child
            for child in psutil.Process(process.pid).children()
            if "resource_tracker" not in " ".join(child.cmdline())
        ]
    children[0].kill()
    try:
        _, err = process.communicate(timeout=300)
    finally:
        process.kill()  # if it hangs, its pipes must not fail the tests that come after
        process.communicate()
    assert process.returncode == 1
    assert "a worker process died while it looked at one of dent/" in err


def test_a_worker_that_dies_while_another_is_started_is_told_alike(
    folder: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def submit(*arguments: object) -> None:
        raise ValueError("bad value(s) in fds_to_keep")

    monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor.submit", submit)
    monkeypatch.setattr(looking, "PROCESSES_FROM", 1)
    source = open_source(str(folder))
    with pytest.raises(DataError, match=r"a worker process died while it looked at one of dent/"):
        list(looking.look_at_all(source.images(), source, InputContract(32, 32), 2, progress=False))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_set(tmp_path: Path) -> None:
    """A worker that prepares 314 MB of pixels holds one shard of them."""
    folder = write_set(tmp_path / "images", {"good": 200, "dent": 200}, suffix=".jpg")
    code = PREPARE + "    print(open('/proc/self/status').read())\n"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(tmp_path / "storage"), "512", "1"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    (peak_kb,) = (line.split()[1] for line in done.stdout.splitlines() if line.startswith("VmHWM"))
    assert int(peak_kb) < 220_000


def test_a_terminal_sees_a_progress_bar_and_a_pipe_does_not(folder: Path, tmp_path: Path) -> None:
    code = PREPARE
    terminal, inside = pty.openpty()
    command = [sys.executable, "-c", code, str(folder), str(tmp_path / "one"), "32", "1"]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=inside, check=True, env={**os.environ, "TERM": "xterm"})
    os.close(inside)
    seen = os.read(terminal, 100_000).decode()
    os.close(terminal)
    assert "preparing images" in seen
    assert "/40" in seen
    piped = subprocess.run([*command[:-3], str(tmp_path / "two"), "32", "1"], capture_output=True, check=True)
    assert all(line.startswith(b"event=") for line in piped.stderr.splitlines())
