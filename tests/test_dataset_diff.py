"""What changed between two snapshots."""

from dataclasses import replace
from pathlib import Path

import pytest

from inspection.dataset.diff import compare, trace
from inspection.dataset.manifest import ImageRow, make_snapshot, store_snapshot
from inspection.storage import LocalStorage


def row(uri: str, content: str = "", split: str = "train", **fields: object) -> ImageRow:
    label = "good" if uri.startswith("good") else "bad"
    kind = None if label == "good" else uri.split("/")[0]
    made = ImageRow(uri, content or uri, 64, 48, label, defect_type=kind, group=uri, split=split)
    return replace(made, **fields)


ROWS = (row("good/1"), row("good/2"), row("dent/1", mask="masks/dent/1.png", mask_sha256="m1"))


def test_the_same_rows_in_another_order_differ_in_nothing() -> None:
    found = compare(ROWS, tuple(reversed(ROWS)))
    assert found.is_empty
    assert set(found.counts().values()) == {0}


def test_images_that_came_and_went_are_told() -> None:
    found = compare(ROWS, (*ROWS[1:], row("good/3")))
    assert [one.uri for one in found.added] == ["good/3"]
    assert [one.uri for one in found.removed] == ["good/1"]
    assert sum(found.counts().values()) == 2


def test_a_file_in_another_folder_was_relabelled_and_not_removed_and_added() -> None:
    found = compare(ROWS, (ROWS[0], row("dent/2", content="good/2"), ROWS[2]))
    assert not found.added
    assert not found.removed
    ((old, new),) = found.relabelled
    assert (old.uri, old.label, new.uri, new.label, new.defect_type) == ("good/2", "good", "dent/2", "bad", "dent")
    assert found.renamed == found.relabelled


def test_of_identical_files_the_one_with_the_same_label_is_the_renamed_one() -> None:
    before = (row("good/1", "same"), row("dent/1", "same"))
    after = (row("dent/9", "same"), row("good/9", "same"))
    found = compare(before, after)
    assert not found.relabelled
    assert {(old.uri, new.uri) for old, new in found.renamed} == {("good/1", "good/9"), ("dent/1", "dent/9")}


def test_a_copy_more_is_added() -> None:
    found = compare(ROWS, (*ROWS, row("good/copy", content="good/1")))
    assert [one.uri for one in found.added] == ["good/copy"]
    assert not found.renamed


def test_other_content_under_the_same_name_is_replaced() -> None:
    found = compare(ROWS, (replace(ROWS[0], sha256="new"), *ROWS[1:]))
    assert [new.sha256 for _, new in found.replaced] == ["new"]
    assert sum(found.counts().values()) == 1


def test_a_moved_split_is_told_only_where_both_are_divided() -> None:
    moved = (replace(ROWS[0], split="holdout"), *ROWS[1:])
    assert [new.split for _, new in compare(ROWS, moved).moved] == ["holdout"]
    assert compare(ROWS, tuple(replace(one, split="") for one in ROWS)).is_empty


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"mask_sha256": "m2"}, "masks"),
        ({"mask": None, "mask_sha256": None}, "masks"),
        ({"boxes": ((1.0, 2.0, 3.0, 4.0),)}, "boxes"),
        ({"defect_type": "bump"}, "relabelled"),
        ({"group": "lot-7"}, "regrouped"),
    ],
)
def test_changes_of_one_image_are_told_apart(change: dict[str, object], name: str) -> None:
    counts = compare(ROWS, (*ROWS[:2], replace(ROWS[2], **change))).counts()
    assert counts.pop(name) == 1
    assert set(counts.values()) == {0}


def test_a_mask_of_unknown_content_is_compared_by_its_place() -> None:
    """Snapshots of version 1.0 do not know the content of their masks."""
    assert compare((replace(ROWS[2], mask_sha256=None),), ROWS[2:]).is_empty
    elsewhere = replace(ROWS[2], mask_sha256=None, mask="masks/dent/other.png")
    assert compare(ROWS[2:], (elsewhere,)).counts()["masks"] == 1


def test_lineage_tells_what_each_step_changed(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    first = make_snapshot(ROWS[:2], None, "/here")
    second = make_snapshot(ROWS, first.id, "/here")
    store_snapshot(storage, "line", first)
    store_snapshot(storage, "line", second, dropped={"good/9": "the file is empty"})
    one, two = trace(storage, "line")
    assert (one.snapshot.id, one.difference.counts()["added"]) == (first.id, 2)
    assert [added.uri for added in two.difference.added] == ["dent/1"]
    assert two.entry.dropped == {"good/9": "the file is empty"}
    assert trace(storage, "another") == []
