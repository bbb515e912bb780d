"""The first step of the flows, whole: good sets, bad sets, the second run."""

import logging
import os
import shutil
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from examined import encode, smooth_picture
from pictures import write_picture, write_set
from PIL import Image
from small_disk import small_disk

from edge.preprocess import prepare_file
from inspection.dataset import copies, image_facts, known, looking, worker
from inspection.dataset import intake as intake_module
from inspection.dataset.cache import PixelCache
from inspection.dataset.checking import check_dataset
from inspection.dataset.diff import compare
from inspection.dataset.grouping import group_alike
from inspection.dataset.images import SourceImage
from inspection.dataset.intake import prepare_dataset, take_in
from inspection.dataset.intake_record import load_intake
from inspection.dataset.manifest import (
    ImageRow,
    Snapshot,
    latest_entry,
    latest_snapshot_id,
    load_snapshot,
    make_snapshot,
    store_snapshot,
)
from inspection.dataset.mask_cache import box_mask, read_masks
from inspection.dataset.sources import OpenedSource
from inspection.dataset.splits import Quotas, divide
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

        monkeypatch.setattr(worker, "load_file", refuse)

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


def test_the_same_images_elsewhere_are_looked_at_but_not_prepared(
    folder: Path, storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare_dataset(make_settings(), str(folder), storage)
    shards = storage.list("cache/")
    shutil.copytree(folder, tmp_path / "moved")

    def refuse(*_: object) -> None:
        raise AssertionError("pixels that are in the cache were prepared again")

    monkeypatch.setattr(worker, "finish", refuse)
    second = prepare_dataset(make_settings(), str(tmp_path / "moved"), storage)
    assert (second.id, second.rows) == (first.id, first.rows)
    assert second.location == str(tmp_path / "moved")
    assert load_snapshot(storage, first.id).location == str(tmp_path / "moved")
    assert [key for key in storage.list("cache/") if key.endswith(".npy")] == [
        key for key in shards if key.endswith(".npy")
    ]


@pytest.mark.parametrize("section", [{}, {"resize": "center-crop"}, {"roi": [40, 20, 300, 200]}])
def test_an_image_is_read_and_decoded_once_for_facts_and_pixels(
    tmp_path: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch, section: dict[str, Any]
) -> None:
    folder = tmp_path / "images"
    for seed in range(20):
        path = folder / ("good" if seed % 2 else "dent") / f"{seed}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(smooth_picture(seed, (640, 480)), "JPEG", quality=90))
    monkeypatch.setattr(copies, "find_near_duplicates", lambda *_: [])  # reads what it compares
    read, decoded = [], []
    monkeypatch.setattr(
        OpenedSource, "read", lambda self, uri, true=OpenedSource.read: read.append(uri) or true(self, uri)
    )
    monkeypatch.setattr(
        worker, "load_file", lambda *given, true=worker.load_file: decoded.append(given[2]) or true(*given)
    )
    monkeypatch.delattr(image_facts, "load_file")
    settings = parse_settings({"line": {"name": "bottles"}, "input": {"width": 96, "height": 64, **section}}, "test")
    snapshot = prepare_dataset(settings, str(folder), storage)
    assert sorted(read) == sorted(decoded) == sorted(row.uri for row in snapshot.rows)
    pixels = PixelCache(storage, settings.input.contract()).read([row.sha256 for row in snapshot.rows])
    for row, found in zip(snapshot.rows, pixels, strict=True):
        alone = prepare_file((folder / row.uri).read_bytes(), settings.input.contract())
        assert np.array_equal(found, alone.pixels[0])


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
    monkeypatch.setattr(looking, "PROCESSES_FROM", processes_from)
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
    (folder / "good" / "lost.jpg").write_bytes(whole[: len(whole) // 3] + whole[len(whole) // 2 :])
    (folder / "good" / "empty.jpg").write_bytes(b"")
    (folder / "dent" / "text.png").write_text("this is no picture")
    with pytest.raises(DataError) as caught:
        prepare_dataset(make_settings(), str(folder), storage)
    message = str(caught.value)
    assert f"{folder}: 4 of 36 images cannot be used: dent/text.png (want a JPEG, PNG, BMP or TIFF" in message
    assert "good/empty.jpg (the file is empty" in message
    assert "good/truncated.jpg (cannot decode this JPEG: " in message
    assert "good/lost.jpg (cannot decode this JPEG: " in message, "it has an end, but not all that lies before it"
    assert message.endswith("replace or remove these files, or leave them out with --drop-bad-images")
    for uri in ("good/truncated.jpg", "good/lost.jpg", "good/empty.jpg", "dent/text.png"):
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


def test_broken_images_are_left_out_and_listed_in_log_record_and_history(
    folder: Path, storage: LocalStorage, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "good" / "empty.png").write_bytes(b"")
    (folder / "dent" / "text.png").write_text("this is no picture")
    Image.new("RGB", (48, 36), (7, 7, 7)).save(folder / "good" / "covered.png")
    for _ in range(2):  # the second time from what is remembered
        intake = take_in(make_settings(drop_bad_images=True), str(folder), storage)
        assert sorted(intake.dropped) == ["dent/text.png", "good/covered.png", "good/empty.png"]
        assert len(intake.snapshot.rows) == 32
    assert "broken_images_left_out count=3 files=dent/text.png (want a JPEG" in caplog.text
    assert latest_entry(storage, "bottles").dropped == intake.dropped
    record = load_intake(storage, "bottles", intake.snapshot.id)
    assert record is not None
    assert record.dropped == intake.dropped
    assert sorted(path.name for path in (folder / "good").iterdir())[-2:] == ["covered.png", "empty.png"]


def test_leaving_out_may_leave_too_few(folder: Path, storage: LocalStorage) -> None:
    for path in sorted((folder / "good").iterdir())[:8]:
        path.write_bytes(b"")
    with pytest.raises(DataError, match="at least 10 of each class, found 8 good"):
        take_in(make_settings(drop_bad_images=True), str(folder), storage)


def test_warnings_are_kept_for_the_card(folder: Path, storage: LocalStorage, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copy(folder / "good" / "003.png", folder / "good" / "copy.png")
    snapshot = prepare_dataset(make_settings(), str(folder), storage)
    assert "event=dataset_warning code=duplicate-images" in caplog.text
    record = load_intake(storage, "bottles", snapshot.id)
    assert record is not None
    (finding,) = [one for one in record.findings if one.code == "duplicate-images"]
    assert finding.images == (("good/003.png", "good/copy.png"),)
    assert load_intake(storage, "bottles", "f" * 64) is None


def test_a_second_run_reads_no_image(folder: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare_dataset(make_settings(), str(folder), storage)

    def refuse(self: OpenedSource, uri: str) -> bytes:
        raise AssertionError(f"{uri} was read again")

    monkeypatch.setattr(OpenedSource, "read", refuse)
    assert prepare_dataset(make_settings(), str(folder), storage) == first


def test_only_what_changed_is_measured_again(
    folder: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_dataset(make_settings(), str(folder), storage)
    write_picture(folder / "good" / "000.png", 77)
    measured = []
    monkeypatch.setattr(
        worker, "measure", lambda uri, *rest, true=worker.measure: measured.append(uri) or true(uri, *rest)
    )
    prepare_dataset(make_settings(), str(folder), storage)
    assert measured == ["good/000.png"]


@pytest.mark.parametrize("prefix", ["cache/facts/", "cache/examinations/"])
def test_damaged_memory_costs_a_reading_only(
    folder: Path, storage: LocalStorage, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = prepare_dataset(make_settings(), str(folder), storage)
    (key,) = storage.list(prefix)
    whole = storage.read(key)
    for damaged in (whole[: len(whole) // 2], b"", b"[]", b'{"schema": "1.0", "requires": [], "rows": 3}'):
        storage.write(key, damaged)
        assert prepare_dataset(make_settings(), str(folder), storage) == first
    write_picture(folder / "good" / "000.png", 77)
    storage.write(key, whole[: len(whole) // 2])
    assert len(prepare_dataset(make_settings(), str(folder), storage).rows) == 32
    assert "damaged" in caplog.text


def test_masks_lie_in_the_cache_as_their_pictures_do(folder: Path, storage: LocalStorage) -> None:
    painted = np.zeros((36, 48), dtype=np.uint8)
    painted[:18] = 1  # not zero is defect, however dark it looks
    for index in range(8):
        (folder / "masks" / "dent").mkdir(parents=True, exist_ok=True)
        Image.fromarray(painted).save(folder / "masks" / "dent" / f"{index:03d}.png")
    snapshot = prepare_dataset(make_settings(), str(folder), storage)
    rows = [row for row in snapshot.rows if row.defect_type == "dent"]
    assert len({row.mask_sha256 for row in rows}) == 1
    masks = read_masks(PixelCache(storage, make_settings().input.contract()), snapshot.rows)
    assert set(masks) == {row.uri for row in rows}
    mask = masks["dent/000.png"]
    assert mask.shape == (32, 32)
    assert (mask[:15] == 255).all()
    assert (mask[17:] == 0).all()


def test_a_repainted_mask_is_another_snapshot_with_the_same_splits(folder: Path, storage: LocalStorage) -> None:
    path = folder / "masks" / "dent" / "000.png"
    path.parent.mkdir(parents=True)
    Image.new("L", (48, 36), 255).save(path)
    first = prepare_dataset(make_settings(), str(folder), storage)
    times = path.stat()
    Image.new("L", (48, 36), 200).save(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    second = prepare_dataset(make_settings(), str(folder), storage)
    assert (second.id != first.id, second.parent) == (True, first.id)
    assert [row.split for row in second.rows] == [row.split for row in first.rows]
    assert prepare_dataset(make_settings(), str(folder), storage) == second


@pytest.mark.parametrize("content", [b"no picture", b""])
def test_a_mask_that_cannot_be_read_is_a_warning(
    folder: Path, storage: LocalStorage, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / "masks" / "dent" / "000.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    intake = take_in(make_settings(), str(folder), storage)
    assert "mask-unreadable" in {finding.code for finding in intake.findings}
    assert "masks_not_prepared count=1 files=masks/dent/000.png" in caplog.text


def test_boxes_are_prepared_as_their_picture_is() -> None:
    row = ImageRow("a", "0" * 64, 100, 50, "bad", boxes=((50.0, 0.0, 50.0, 50.0), (-5.0, 40.0, 10.0, 10.0)))
    mask = box_mask(row, make_settings().input.contract())
    assert mask.shape == (32, 32)
    assert (mask[:20, 17:] == 255).all()
    assert (mask[:20, :15] == 0).all()
    assert mask[31, 0] == 255


def test_a_set_that_is_written_while_it_is_read_is_refused(
    folder: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = intake_module.read_images
    check_dataset(make_settings(), str(folder), storage)  # what is examined already is read for its pixels

    def overwrite(*arguments: Any, **named: Any) -> Any:
        write_picture(folder / "good" / "000.png", 99)
        return true(*arguments, **named)

    monkeypatch.setattr(intake_module, "read_images", overwrite)
    with pytest.raises(DataError, match=r"1 images changed while they were read: good/000\.png"):
        prepare_dataset(make_settings(), str(folder), storage)


def test_near_duplicates_share_a_split_when_asked_to(
    folder: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The examination says which are alike; that it finds them is tested with it."""
    true = known.examine
    apart = prepare_dataset(make_settings(), str(folder), storage)
    splits = {row.uri: row.split for row in apart.rows}
    other = next(uri for uri in splits if uri.startswith("good") and splits[uri] != splits["good/000.png"])

    def find_this(*arguments: Any, **named: Any) -> Any:
        return replace(true(*arguments, **named), alike=(("good/000.png", other),))

    monkeypatch.setattr(known, "examine", find_this)
    monkeypatch.setattr(known, "CHECKS_VERSION", -1)
    fresh = LocalStorage(Path(storage.root).parent / "fresh")
    for _ in range(2):
        intake = take_in(make_settings(group_near_duplicates=True), str(folder), fresh)
        now = {row.uri: row.split for row in intake.snapshot.rows}
        assert now["good/000.png"] == now[other]
        assert intake.repair is not None
        assert intake.repair.merged == (tuple(sorted(("good/000.png", other))),)
        assert intake.repair.leaks == intake.repair.merged
        assert intake.repair.moved
    assert latest_entry(fresh, "bottles").grouped == intake.repair.merged


@pytest.mark.slow
def test_200_000_rows_are_stored_divided_grouped_and_compared(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "storage")
    rows = [
        ImageRow(f"good/{index:06d}.png", f"{index:064x}", 64, 48, "good", group=f"part-{index // 2}")
        if index % 3
        else ImageRow(f"dent/{index:06d}.png", f"{index:064x}", 64, 48, "bad", "dent", group=f"part-{index // 2}")
        for index in range(200_000)
    ]
    divided = divide(rows, {}, [], Quotas(0.25, 0.25), "bottles")
    snapshot = make_snapshot(divided.rows, None, "/here")
    store_snapshot(storage, "bottles", snapshot)
    loaded = load_snapshot(storage, snapshot.id)
    assert loaded.rows == snapshot.rows
    after = [
        replace(row, label="bad", defect_type="dent") if row.uri == "good/000001.png" else row for row in loaded.rows
    ]
    assert sum(compare(loaded.rows, after[:-1]).counts().values()) == 2
    images = [SourceImage(row.uri, "v", row.label, row.defect_type, None, row.group) for row in rows]
    pairs = [(images[index].uri, images[index + 7].uri) for index in range(0, 199_000, 20)]
    assert len(group_alike(images, pairs, "here").merged) == len(pairs)


def test_everything_works_in_s3(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_decoding: Callable[[], None]
) -> None:
    monkeypatch.setattr(looking, "PROCESSES_FROM", 1)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # local copies go there
    folder = write_set(tmp_path / "images", {"good": 40, "dent": 40})
    storage = open_storage(f"s3://{s3}/intake")
    snapshot = prepare_dataset(make_settings(), str(folder), storage, workers=2)
    no_decoding()
    assert prepare_dataset(make_settings(), str(folder), open_storage(f"s3://{s3}/intake"), workers=2) == snapshot
    pixels = _pixels(snapshot, open_storage(f"s3://{s3}/intake"))
    first = prepare_file((folder / snapshot.rows[0].uri).read_bytes(), make_settings().input.contract())
    assert np.array_equal(pixels[0], first.pixels[0])


def _make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize("make", [os.mkfifo, _make_socket])
def test_a_pipe_or_socket_among_the_images_is_named_and_never_waited_for(
    folder: Path, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(folder / "good")
    make(Path("camera.png"))
    with pytest.raises(DataError, match=r"good/camera\.png \("):
        prepare_dataset(make_settings(), str(folder), storage)
    left = prepare_dataset(make_settings(drop_bad_images=True), str(folder), storage)
    assert len(left.rows) == 32
