import logging
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspection.dataset.checks import check_splits
from inspection.dataset.manifest import SPLITS, Assignment, ImageRow
from inspection.dataset.splits import Divided, Quotas, divide
from inspection.errors import DataError

QUOTAS = Quotas(calibration=0.25, holdout=0.25)
SHARES = QUOTAS.shares(holdout_is_shipped=False)
KINDS = (("good", None), ("bad", None), ("bad", "dent"), ("bad", "scratch"))


def _row(name: str, label: str, group: str = "", defect_type: str | None = None, sha256: str = "") -> ImageRow:
    assert label in ("good", "bad")
    return ImageRow(
        name, sha256 or name, 64, 48, "good" if label == "good" else "bad", defect_type=defect_type, group=group or name
    )


def _rows(good: int, bad: int, prefix: str = "") -> list[ImageRow]:
    return [_row(f"{prefix}{label}/{i:03d}", label) for label, n in (("good", good), ("bad", bad)) for i in range(n)]


def _divide(
    rows: Sequence[ImageRow], parent: Divided | None = None, shipped: dict[str, str] | None = None, seed: str = "line"
) -> Divided:
    return divide(rows, shipped or {}, _assignments(parent), QUOTAS, seed)


def _assignments(parent: Divided | None) -> list[Assignment]:
    if parent is None:
        return []
    return [*parent.retired, *(Assignment(row.group, row.sha256, row.split) for row in parent.rows)]


def _splits(divided: Divided) -> dict[str, str]:
    return {row.uri: row.split for row in divided.rows}


@st.composite
def datasets(draw: st.DrawFn) -> list[ImageRow]:
    """Groups of 1-5 images of one kind, or lots that hold good and bad parts; some files twice."""
    rows: list[ImageRow] = []
    for number in range(draw(st.integers(8, 40))):
        kinds = draw(st.sampled_from(KINDS)), draw(st.sampled_from(KINDS))
        mixed = draw(st.booleans()) and draw(st.booleans())
        for image in range(draw(st.integers(1, 5))):
            label, defect_type = kinds[image % 2 if mixed else 0]
            rows.append(_row(f"{label}/{number}-{image}", label, f"lot{number}", defect_type))
    copies = draw(st.lists(st.integers(0, len(rows) - 1), max_size=2))
    return rows + [
        _row(f"copy{place}-{rows[i].uri}", rows[i].label, "", rows[i].defect_type, rows[i].sha256)
        for place, i in enumerate(copies)
    ]


@settings(max_examples=60, deadline=None)
@given(datasets(), st.integers(0, 2**32), st.floats(0, 1))
def test_adding_images_never_moves_an_old_one(rows: list[ImageRow], seed: int, share: float) -> None:
    """But for groups that merge across splits: they go to training and are named."""
    mixer = random.Random(seed)
    old = [row for row in rows if mixer.random() < share]
    before = _divide(old)
    after = _divide(rows, before)
    moved = {uri for uri, split in _splits(before).items() if _splits(after)[uri] != split}
    assert all(_splits(after)[uri] == "train" for uri in moved)
    assert moved <= {row.uri for row in after.rows if row.group in after.moved}
    if not any(row.uri.startswith("copy") for row in rows):
        assert not moved


@settings(max_examples=60, deadline=None)
@given(datasets(), st.integers(0, 2**32))
def test_the_order_of_the_images_does_not_matter(rows: list[ImageRow], seed: int) -> None:
    shuffled = random.Random(seed).sample(rows, len(rows))
    assert _divide(rows) == _divide(shuffled)


@settings(max_examples=60, deadline=None)
@given(datasets())
def test_groups_and_identical_files_stay_whole(rows: list[ImageRow]) -> None:
    divided = _divide(rows)
    by_group, by_content, by_name = defaultdict(set), defaultdict(set), defaultdict(set)
    for row in divided.rows:
        by_group[row.group].add(row.split)
        by_content[row.sha256].add(row.split)
        by_name[next(old.group for old in rows if old.uri == row.uri)].add(row.split)
    for splits in (*by_group.values(), *by_content.values(), *by_name.values()):
        assert len(splits) == 1


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 4)), min_size=1, max_size=60), st.text(max_size=3))
def test_quotas_are_met_within_one_group_per_stratum(
    groups: list[tuple[tuple[str, str | None], int]], seed: str
) -> None:
    rows = [
        _row(f"{label}/{number}-{image}", label, f"g{number}", defect_type)
        for number, ((label, defect_type), size) in enumerate(groups)
        for image in range(size)
    ]
    divided = _divide(rows, seed=seed)
    for label, defect_type in KINDS:
        stratum = [row for row in divided.rows if (row.label, row.defect_type) == (label, defect_type)]
        sizes = Counter(row.group for row in stratum)
        if len(sizes) < 8:
            continue  # tiny strata give way so that each split holds both classes
        held = Counter(row.split for row in stratum)
        for split, share in SHARES.items():
            assert abs(held[split] - share * len(stratum)) <= max(sizes.values()), (split, held, sizes)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(3, 12),
    st.lists(st.sampled_from(["dent", "scratch", "stain", None]), min_size=3, max_size=9),
    st.text(max_size=3),
)
def test_small_sets_have_both_classes_in_every_split(good: int, kinds: list[str | None], seed: str) -> None:
    rows = _rows(good, 0) + [_row(f"bad/{i}", "bad", "", kind) for i, kind in enumerate(kinds)]
    check_splits(_divide(rows, seed=seed).rows, "folder")


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 8), st.text(max_size=3))
def test_lots_of_good_and_bad_parts_divide_too(lots: int, seed: str) -> None:
    rows = [
        _row(f"{label}/{lot}-{i}", label, f"lot{lot}")
        for lot in range(lots)
        for label in ("good", "bad")
        for i in range(3)
    ]
    check_splits(_divide(rows, seed=seed).rows, "folder")


def test_too_few_groups_say_how_many_are_needed() -> None:
    rows = [_row(f"{label}/{i}", label, f"lot{i % 2}") for label in ("good", "bad") for i in range(20)]
    with pytest.raises(
        DataError,
        match=r"folder: cannot divide.* in (calibration|holdout).*at least 3 groups.*2 with good and 2 with bad",
    ):
        check_splits(_divide(rows).rows, "folder")


def test_shares_are_near_the_settings() -> None:
    held = Counter((row.split, row.label) for row in _divide(_rows(80, 40)).rows)
    assert held == {
        ("train", "good"): 40, ("calibration", "good"): 20, ("holdout", "good"): 20,
        ("train", "bad"): 20, ("calibration", "bad"): 10, ("holdout", "bad"): 10,
    }  # fmt: skip


def test_another_seed_divides_otherwise() -> None:
    rows = _rows(40, 40)
    assert _splits(_divide(rows, seed="one")) != _splits(_divide(rows, seed="two"))


def test_a_shipped_validation_set_is_the_holdout() -> None:
    rows = _rows(60, 30, "train/") + _rows(10, 5, "validation/")
    shipped = {row.uri: row.uri.split("/")[0] for row in rows}
    divided = _divide(rows, shipped=shipped)
    assert {row.uri for row in divided.rows if row.split == "holdout"} == {
        row.uri for row in rows if "valid" in row.uri
    }
    held = Counter(row.split for row in divided.rows)
    assert (held["train"], held["calibration"]) == (60, 30), "the rest is divided as the settings' shares of it"


def test_a_lot_in_train_and_validation_goes_to_training_and_is_listed(caplog: pytest.LogCaptureFixture) -> None:
    rows = [*_rows(20, 20, "train/"), _row("validation/good/1", "good", "train/good/000"), *_rows(3, 3, "validation/x")]
    divided = _divide(rows, shipped={row.uri: row.uri.split("/")[0] for row in rows})
    assert divided.moved == ("train/good/000",)
    assert _splits(divided)["validation/good/1"] == "train"
    assert "groups_moved_to_training count=1 groups=train/good/000" in caplog.text


def test_an_image_that_served_training_never_becomes_holdout(caplog: pytest.LogCaptureFixture) -> None:
    """Moving a file into validation/ does not undo that the model has seen it."""
    rows = _rows(30, 30, "train/")
    before = _divide(rows, shipped={row.uri: "train" for row in rows})
    learnt = next(row for row in before.rows if row.split == "train")
    moved = [
        _row(f"validation/{row.uri}", row.label, "", None, row.sha256) if row.uri == learnt.uri else row for row in rows
    ]
    after = _divide(moved, before, {row.uri: row.uri.split("/")[0] for row in moved})
    assert _splits(after)[f"validation/{learnt.uri}"] == "train"
    assert "earlier_split_kept_against_folder count=1" in caplog.text


def test_a_renamed_image_keeps_its_split() -> None:
    before = _divide(_rows(20, 20))
    renamed = [_row("new-" + row.uri, row.label, "", None, row.sha256) for row in _rows(20, 20)]
    assert {f"new-{uri}": split for uri, split in _splits(before).items()} == _splits(_divide(renamed, before))


def test_an_image_that_comes_back_keeps_its_split() -> None:
    rows = _rows(20, 20)
    first = _divide(rows)
    second = _divide(rows[10:], first)
    third = _divide([*rows, *_rows(9, 9, "new/")], second)
    assert {row.uri: row.split for row in third.rows if row.uri in _splits(first)} == _splits(first)
    assert len(second.retired) == 10
    assert third.retired == ()


def test_groups_that_merge_across_splits_move_to_training_once(caplog: pytest.LogCaptureFixture) -> None:
    before = _divide(_rows(20, 20))
    one, other = (next(row for row in before.rows if row.split == split) for split in ("holdout", "calibration"))
    joined = [
        *_rows(20, 20),
        _row("copy/a", one.label, "both", None, one.sha256),
        _row("copy/b", other.label, "both", None, other.sha256),
    ]
    after = _divide(joined, before)
    assert {_splits(after)[uri] for uri in (one.uri, other.uri, "copy/a", "copy/b")} == {"train"}
    assert len(after.moved) == 1
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        again = _divide(joined, after)
    assert again.moved == ()
    assert _splits(again) == _splits(after)


def _labels(rows: Iterable[ImageRow]) -> set[str]:
    return {row.label for row in rows}


def test_new_kinds_of_defect_reach_every_split() -> None:
    before = _divide(_rows(40, 40))
    after = _divide([*_rows(40, 40), *(_row(f"stain/{i}", "bad", "", "stain") for i in range(12))], before)
    held = Counter(row.split for row in after.rows if row.defect_type == "stain")
    assert held == {"train": 6, "calibration": 3, "holdout": 3}
    assert all(_labels(row for row in after.rows if row.split == split) == {"good", "bad"} for split in SPLITS)
