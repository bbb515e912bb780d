import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from inspection.dataset.manifest import (
    Assignment,
    ImageRow,
    Snapshot,
    latest_entry,
    latest_snapshot_id,
    load_snapshot,
    make_snapshot,
    read_history,
    store_snapshot,
)
from inspection.errors import DataError, StorageError
from inspection.storage import LocalStorage, ObjectExistsError

GOLDEN = Path(__file__).parent / "golden" / "snapshot-1.0"
ROWS = (
    ImageRow("good/1.png", "a" * 64, 64, 48, "good", group="L1", lot="L1", split="train"),
    ImageRow(
        "scratch/é 2.png",
        "b" * 64,
        1600,
        1200,
        "bad",
        defect_type="scratch",
        mask="masks/scratch/é 2.png",
        boxes=((1.5, 2.0, 30.0, 4.25),),
        group="L2",
        lot="L2",
        station="st1",
        view="top",
        split="holdout",
        source="review",
        labeller="ann",
    ),
)


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path)


def test_the_id_depends_on_the_rows_and_not_on_order_or_place() -> None:
    one = make_snapshot(ROWS, None, "/here")
    other = make_snapshot(reversed(ROWS), "x" * 64, "/elsewhere")
    assert one.id == other.id
    assert one.rows == other.rows
    moved = dataclasses.replace(ROWS[0], split="calibration")
    assert make_snapshot([moved, ROWS[1]], None, "/here").id != one.id


def test_the_id_follows_the_content_of_a_mask_and_stays_where_none_is_known(storage: LocalStorage) -> None:
    before = make_snapshot(ROWS, None, "/here").id
    (folder,) = GOLDEN.iterdir()
    assert before == folder.name, "rows without a mask's digest keep the id that version 1.0 gave them"
    painted = [ROWS[0], dataclasses.replace(ROWS[1], mask_sha256="c" * 64)]
    again = [ROWS[0], dataclasses.replace(ROWS[1], mask_sha256="d" * 64)]
    snapshot = make_snapshot(painted, None, "/here")
    assert len({before, snapshot.id, make_snapshot(again, None, "/here").id}) == 3
    store_snapshot(storage, "line", snapshot)
    assert load_snapshot(storage, snapshot.id) == snapshot


def test_the_history_says_what_was_left_out_and_grouped(storage: LocalStorage) -> None:
    first, second = make_snapshot(ROWS[:1], None, "/here"), None
    store_snapshot(storage, "line", first)
    second = make_snapshot(ROWS, first.id, "/here")
    store_snapshot(storage, "line", second, dropped={"bad/é\n.png": "the file is empty"}, grouped=(("a", "b"),))
    old, new = read_history(storage, "line")
    assert (old.dropped, old.grouped) == ({}, ())
    assert (new.dropped, new.grouped) == ({"bad/é\n.png": "the file is empty"}, (("a", "b"),))
    assert new == latest_entry(storage, "line")


def test_what_was_stored_is_loaded(storage: LocalStorage) -> None:
    snapshot = make_snapshot(ROWS, None, "/here")
    store_snapshot(storage, "line", snapshot)
    assert load_snapshot(storage, snapshot.id) == snapshot
    assert latest_snapshot_id(storage, "line") == snapshot.id
    assert latest_snapshot_id(storage, "other-line") is None


def test_the_history_of_a_line_grows_by_one(storage: LocalStorage) -> None:
    first = make_snapshot(ROWS[:1], None, "/here")
    second = make_snapshot(ROWS, first.id, "/here")
    store_snapshot(storage, "line", first)
    store_snapshot(storage, "line", second, (Assignment("g", "c" * 64, "train"),))
    entry = latest_entry(storage, "line")
    assert entry is not None
    assert (entry.number, entry.snapshot, entry.retired) == (2, second.id, (Assignment("g", "c" * 64, "train"),))
    assert load_snapshot(storage, second.id).parent == first.id


def test_two_flows_cannot_fork_the_history(storage: LocalStorage) -> None:
    first = make_snapshot(ROWS[:1], None, "/here")
    store_snapshot(storage, "line", first)
    with pytest.raises(ObjectExistsError, match="another flow"):
        store_snapshot(storage, "line", make_snapshot(ROWS, None, "/here"))
    assert latest_snapshot_id(storage, "line") == first.id


def test_a_snapshot_seen_again_keeps_its_first_parent(storage: LocalStorage) -> None:
    first, second = make_snapshot(ROWS[:1], None, "/here"), None
    store_snapshot(storage, "line", first)
    second = make_snapshot(ROWS, first.id, "/here")
    store_snapshot(storage, "line", second)
    store_snapshot(storage, "line", make_snapshot(ROWS[:1], second.id, "/moved"))
    again = load_snapshot(storage, first.id)
    assert (again.parent, again.location) == (None, "/moved")
    assert latest_snapshot_id(storage, "line") == first.id


def test_select_and_defect_types() -> None:
    snapshot = make_snapshot(ROWS, None, "/here")
    assert [row.uri for row in snapshot.select("holdout")] == ["scratch/é 2.png"]
    assert len(snapshot.select("train", "holdout")) == 2
    assert snapshot.defect_types == ("scratch",)
    assert make_snapshot(ROWS[:1], None, "/here").defect_types == ()


def test_an_image_twice_is_refused() -> None:
    with pytest.raises(DataError, match=r"good/1\.png is in the dataset twice"):
        make_snapshot([ROWS[0], ROWS[0]], None, "/here")


def test_a_changed_snapshot_is_refused(storage: LocalStorage, tmp_path: Path) -> None:
    snapshot = make_snapshot(ROWS, None, "/here")
    store_snapshot(storage, "line", snapshot)
    path = tmp_path / "datasets" / snapshot.id / "rows.jsonl"
    path.write_text(path.read_text().replace('"holdout"', '"train"'))
    with pytest.raises(DataError, match=r"rows\.jsonl: was changed after it was stored"):
        load_snapshot(storage, snapshot.id)


def test_a_missing_snapshot_is_named(storage: LocalStorage) -> None:
    with pytest.raises(StorageError, match="datasets/feed/rows"):
        load_snapshot(storage, "feed")


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ({"schema": "2.0", "requires": []}, "another major version than 1.1; update"),
        ({"schema": "1.7", "requires": ["video"]}, r"requires \['video'\]"),
        ({"requires": []}, "want major.minor"),
        ([1], "want a JSON object"),
    ],
)
def test_another_version_is_refused(storage: LocalStorage, header: object, why: str) -> None:
    storage.write("datasets/x/rows.jsonl", (json.dumps(header) + "\n").encode())
    with pytest.raises(DataError, match=why):
        load_snapshot(storage, "x")


def test_a_newer_minor_version_is_read(storage: LocalStorage, tmp_path: Path) -> None:
    """Fields that this program does not know are left out, and the digest is still checked."""
    snapshot = make_snapshot(ROWS, None, "/here")
    store_snapshot(storage, "line", snapshot)
    lines = (tmp_path / "datasets" / snapshot.id / "rows.jsonl").read_text().splitlines()
    newer = [json.dumps({**json.loads(line), "weather": "rain"}) for line in lines[1:]]
    name = hashlib.sha256("".join(line + "\n" for line in newer).encode()).hexdigest()
    header = json.dumps({"schema": "1.9", "requires": [], "rows": 2, "camera": "x"})
    storage.write(f"datasets/{name}/rows.jsonl", "\n".join([header, *newer, ""]).encode())
    storage.write(
        f"datasets/{name}/about.json", (json.dumps({"schema": "1.9", "parent": None, "location": "/x"})).encode()
    )
    assert load_snapshot(storage, name).rows == snapshot.rows


def test_a_snapshot_of_version_1_0_is_read(storage: LocalStorage) -> None:
    """The committed file stays readable for ever; a change that breaks this is a new major version."""
    (folder,) = GOLDEN.iterdir()
    for path in folder.iterdir():
        storage.write(f"datasets/{folder.name}/{path.name}", path.read_bytes())
    expected = Snapshot(folder.name, ROWS, None, "images/bottles")
    assert load_snapshot(storage, folder.name) == expected
