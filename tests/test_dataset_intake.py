"""The first step of the flows, whole: good sets, bad sets, the second run."""

import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pictures import write_picture, write_set
from small_disk import small_disk

from edge.preprocess import prepare_file
from inspection.dataset import preparation, worker
from inspection.dataset.cache import PixelCache
from inspection.dataset.intake import prepare_dataset
from inspection.dataset.manifest import Snapshot, latest_snapshot_id, load_snapshot
from inspection.errors import DataError, StorageError
from inspection.settings import Settings, parse_settings
from inspection.storage import LocalStorage, Storage, open_storage

pytest_plugins = ["s3_server"]


def make_settings(**data: object) -> Settings:
    return parse_settings({"line": {"name": "bottles"}, "data": data, "input": {"width": 32, "height": 32}}, "test")


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "storage")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_set(tmp_path / "images", {"good": 16, "dent": 8, "scratch": 8})


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def forbid() -> None:
        def refuse(data: bytes, *_: object) -> None:
            raise AssertionError("an image was decoded again")

        monkeypatch.setattr(worker, "prepare_file", refuse)

    return forbid


def _pixels(snapshot: Snapshot, storage: Storage) -> np.ndarray:
    return PixelCache(storage, make_settings().input.contract()).read([row.sha256 for row in snapshot.rows])


def test_a_folder_becomes_a_snapshot_with_its_pixels_in_the_cache(folder: Path, storage: LocalStorage) -> None:
    snapshot = prepare_dataset(make_settings(), str(folder), storage)
    assert len(snapshot.rows) == 32
    assert snapshot.defect_types == ("dent", "scratch")
    assert snapshot.location == str(folder)
    assert {(row.width, row.height) for row in snapshot.rows} == {(48, 36)}
    assert Counter((row.split, row.label) for row in snapshot.rows) == {
        ("train", "good"): 8, ("calibration", "good"): 4, ("holdout", "good"): 4,
        ("train", "bad"): 8, ("calibration", "bad"): 4, ("holdout", "bad"): 4,
    }  # fmt: skip
    assert load_snapshot(storage, snapshot.id) == snapshot
    assert latest_snapshot_id(storage, "bottles") == snapshot.id
    for row, pixels in zip(snapshot.rows, _pixels(snapshot, storage), strict=True):
        direct = prepare_file((folder / row.uri).read_bytes(), make_settings().input.contract())
        assert np.array_equal(pixels, direct.pixels[0])


def test_a_second_run_decodes_nothing_and_gives_the_same_snapshot(
    folder: Path, storage: LocalStorage, no_decoding: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    first = prepare_dataset(make_settings(), str(folder), storage)
    no_decoding()
    with caplog.at_level(logging.INFO):
        assert prepare_dataset(make_settings(), str(folder), storage) == first
    assert "images=32 read=0" in caplog.text


def test_only_new_and_changed_images_are_read(
    folder: Path, storage: LocalStorage, caplog: pytest.LogCaptureFixture
) -> None:
    first = prepare_dataset(make_settings(), str(folder), storage)
    write_picture(folder / "good" / "000.png", 77)
    write_set(folder, {"dent": 3}, start=50, seed=500)
    with caplog.at_level(logging.INFO):
        second = prepare_dataset(make_settings(), str(folder), storage)
    assert "images=35 read=4" in caplog.text
    assert second.parent == first.id
    after = {row.uri: row.split for row in second.rows}
    assert all(after[row.uri] == row.split for row in first.rows)
    assert _pixels(second, storage).shape == (35, 32, 32, 3)


def test_images_that_were_away_come_back_to_their_split(folder: Path, storage: LocalStorage, tmp_path: Path) -> None:
    before = {row.uri: row.split for row in prepare_dataset(make_settings(), str(folder), storage).rows}
    away = tmp_path / "away"
    away.mkdir()
    for path in sorted((folder / "dent").iterdir()):
        path.rename(away / path.name)
    write_set(folder, {"bump": 9}, seed=300)  # takes the place that the dents leave
    prepare_dataset(make_settings(), str(folder), storage)
    for path in sorted(away.iterdir()):
        path.rename(folder / "dent" / ("again-" + path.name))
    after = {row.uri: row.split for row in prepare_dataset(make_settings(), str(folder), storage).rows}
    assert {uri.replace("again-", ""): split for uri, split in after.items() if "bump" not in uri} == before


def test_the_same_images_elsewhere_are_hashed_but_not_decoded(
    folder: Path, storage: LocalStorage, tmp_path: Path, no_decoding: Callable[[], None]
) -> None:
    first = prepare_dataset(make_settings(), str(folder), storage)
    shutil.copytree(folder, tmp_path / "moved")
    no_decoding()
    second = prepare_dataset(make_settings(), str(tmp_path / "moved"), storage)
    assert (second.id, second.rows) == (first.id, first.rows)
    assert second.location == str(tmp_path / "moved")
    assert load_snapshot(storage, first.id).location == str(tmp_path / "moved")


def test_another_input_size_has_its_own_cache(folder: Path, storage: LocalStorage) -> None:
    small = prepare_dataset(make_settings(), str(folder), storage)
    larger = parse_settings({"line": {"name": "bottles"}, "input": {"width": 64, "height": 40}}, "test")
    large = prepare_dataset(larger, str(folder), storage)
    assert large.id == small.id
    pixels = PixelCache(storage, larger.input.contract()).read([large.rows[0].sha256])
    assert pixels.shape == (1, 40, 64, 3)


@pytest.mark.parametrize("processes_from", [1, 1000])
def test_processes_and_threads_give_the_same_as_one_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes_from: int
) -> None:
    monkeypatch.setattr(preparation, "PROCESSES_FROM", processes_from)
    folder = write_set(tmp_path / "images", {"good": 40, "dent": 40}, suffix=".jpg")
    stores = [LocalStorage(tmp_path / "alone"), LocalStorage(tmp_path / "together")]
    alone, together = (
        prepare_dataset(make_settings(), str(folder), store, workers=workers)
        for store, workers in zip(stores, (1, 3), strict=True)
    )
    assert alone == together
    assert np.array_equal(_pixels(alone, stores[0]), _pixels(together, stores[1]))


def test_identical_images_of_a_class_share_a_split_and_are_listed(
    folder: Path, storage: LocalStorage, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(folder / "good" / "003.png", folder / "good" / "copy.png")
    snapshot = prepare_dataset(make_settings(), str(folder), storage)
    twins = {row.uri: row for row in snapshot.rows if row.uri in ("good/003.png", "good/copy.png")}
    assert len({(row.group, row.split, row.sha256) for row in twins.values()}) == 1
    assert "identical_images count=1 kept_in_one_split=true files=good/copy.png = good/003.png" in caplog.text


def test_lots_are_kept_whole(storage: LocalStorage, tmp_path: Path) -> None:
    for lot in range(6):
        write_set(tmp_path / "images", {f"good/L{lot}": 3, f"dent/L{lot}": 2}, seed=100 * lot)
    snapshot = prepare_dataset(make_settings(group_pattern=r"/(?P<lot>L\d)/"), str(tmp_path / "images"), storage)
    assert {row.lot for row in snapshot.rows} == {f"L{lot}" for lot in range(6)}
    assert len({(row.group, row.split) for row in snapshot.rows}) == 6


def test_a_shipped_validation_folder_is_the_holdout(storage: LocalStorage, tmp_path: Path) -> None:
    root = write_set(
        tmp_path / "images", {"train/good": 12, "train/bad": 12, "validation/good": 3, "validation/bad": 2}
    )
    snapshot = prepare_dataset(make_settings(), str(root), storage)
    assert {row.uri for row in snapshot.select("holdout")} == {
        row.uri for row in snapshot.rows if "validation" in row.uri
    }


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "no images here"),
        ({"good": 12}, "one class only.*add bad images"),
        ({"good": 12, "dent": 1}, r"at least 10 of each class, found 1 bad: dent/000\.png"),
    ],
)
def test_sets_that_cannot_be_learnt_from_are_refused_before_decoding(
    storage: LocalStorage, tmp_path: Path, counts: dict[str, int], message: str, no_decoding: Callable[[], None]
) -> None:
    (tmp_path / "images").mkdir()
    write_set(tmp_path / "images", counts)
    no_decoding()
    with pytest.raises(DataError, match=message):
        prepare_dataset(make_settings(), str(tmp_path / "images"), storage)


def test_all_undecodable_images_are_named_together(folder: Path, storage: LocalStorage, tmp_path: Path) -> None:
    whole = write_picture(tmp_path / "whole.jpg", 1, (400, 300)).read_bytes()
    (folder / "good" / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "good" / "empty.jpg").write_bytes(b"")
    (folder / "dent" / "text.png").write_text("this is no picture")
    with pytest.raises(DataError) as caught:
        prepare_dataset(make_settings(), str(folder), storage)
    message = str(caught.value)
    assert f"{folder}: 3 of 35 images cannot be used: dent/text.png (want a JPEG, PNG, BMP or TIFF" in message
    assert "good/empty.jpg (the file is empty" in message
    assert "good/truncated.jpg (cannot decode this JPEG: " in message
    assert message.endswith("replace or remove these files, or leave them out with --drop-bad-images")
    for uri in ("good/truncated.jpg", "good/empty.jpg", "dent/text.png"):
        (folder / uri).unlink()
    assert len(prepare_dataset(make_settings(), str(folder), storage).rows) == 32, "the rest was kept"


def test_a_set_of_corrupt_images_only_is_refused(storage: LocalStorage, tmp_path: Path) -> None:
    write_set(tmp_path / "images", {"good": 12, "dent": 12})
    for path in (tmp_path / "images").rglob("*.png"):
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"all 24 images cannot be used: dent/000\.png .*and 4 more"):
        prepare_dataset(make_settings(), str(tmp_path / "images"), storage)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_file_is_named(folder: Path, storage: LocalStorage) -> None:
    (folder / "good" / "000.png").chmod(0)
    with pytest.raises(DataError, match=r"good/000\.png \(Permission denied\)"):
        prepare_dataset(make_settings(), str(folder), storage)


def test_the_same_file_as_good_and_as_bad_is_refused(folder: Path, storage: LocalStorage) -> None:
    shutil.copy(folder / "good" / "003.png", folder / "dent" / "wrong.png")
    with pytest.raises(DataError, match=r"dent/wrong\.png \(bad\) = good/003\.png \(good\)"):
        prepare_dataset(make_settings(), str(folder), storage)


def test_too_few_lots_are_refused(folder: Path, storage: LocalStorage) -> None:
    with pytest.raises(DataError, match=r"at least 3 groups .*found 1 with good and 2 with bad.*group_pattern finer"):
        prepare_dataset(make_settings(group_pattern="(good|dent|scratch)"), str(folder), storage)


def test_no_space_for_the_cache_says_how_much_was_wanted(folder: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 20 * 1024):
        storage = LocalStorage(tmp_path / "small")
        full = r"takes at least 98,304 bytes, [\d,]+ are free|cannot write 98,432 bytes.*File too large"
        with pytest.raises(StorageError, match=full):
            prepare_dataset(make_settings(), str(folder), storage)
        assert storage.list("cache/") == []


def test_a_disk_that_fills_meanwhile_says_so_too(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalStorage, "free_bytes", lambda self: 1 << 40)
    with small_disk(tmp_path / "small", 20 * 1024):
        storage = LocalStorage(tmp_path / "small")
        full = r"cannot write [\d,]+ bytes to storage .*small: (No space|File too large)"
        with pytest.raises(StorageError, match=full):
            prepare_dataset(make_settings(), str(folder), storage)
        assert storage.list("cache/") == []


def test_a_damaged_file_index_costs_a_read_only(
    folder: Path, storage: LocalStorage, no_decoding: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    first = prepare_dataset(make_settings(), str(folder), storage)
    (key,) = storage.list("cache/files/")
    storage.write(key, b'{"schema": "1.0", "requires": [], "files": {"good/000.png": 7}}')
    no_decoding()
    assert prepare_dataset(make_settings(), str(folder), storage) == first
    assert f"file_index_damaged key={key}" in caplog.text


def test_everything_works_in_s3(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_decoding: Callable[[], None]
) -> None:
    monkeypatch.setattr(preparation, "PROCESSES_FROM", 1)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # local copies go there
    folder = write_set(tmp_path / "images", {"good": 40, "dent": 40})
    storage = open_storage(f"s3://{s3}/intake")
    snapshot = prepare_dataset(make_settings(), str(folder), storage, workers=2)
    no_decoding()
    assert prepare_dataset(make_settings(), str(folder), open_storage(f"s3://{s3}/intake"), workers=2) == snapshot
    pixels = _pixels(snapshot, open_storage(f"s3://{s3}/intake"))
    first = prepare_file((folder / snapshot.rows[0].uri).read_bytes(), make_settings().input.contract())
    assert np.array_equal(pixels[0], first.pixels[0])
