"""Near duplicates become one group."""

import pytest

from inspection.dataset.grouping import describe_repair, group_alike
from inspection.dataset.images import SourceImage
from inspection.dataset.manifest import ImageRow
from inspection.errors import DataError


def image(uri: str, group: str = "") -> SourceImage:
    return SourceImage(uri, "v", "good", None, None, group or uri)


IMAGES = [image(f"good/{index:03d}") for index in range(100)]


def test_a_pair_becomes_one_group_and_the_others_stay_as_they_are() -> None:
    found = group_alike(IMAGES, [("good/004", "good/002")], "here")
    assert found.merged == (("good/002", "good/004"),)
    groups = {one.uri: one.group for one in found.images}
    assert groups["good/002"] == groups["good/004"] == "good/002"
    assert [one.uri for one in found.images] == [one.uri for one in IMAGES]
    assert sum(one == other for one, other in zip(found.images, IMAGES, strict=True)) == 99


def test_a_chain_of_pairs_is_one_group_whatever_their_order() -> None:
    chain = [("good/003", "good/004"), ("good/001", "good/002"), ("good/002", "good/003")]
    expected = (("good/001", "good/002", "good/003", "good/004"),)
    assert group_alike(IMAGES, chain, "here").merged == expected
    assert group_alike(IMAGES, reversed(chain), "here").merged == expected


def test_whole_lots_are_merged_and_not_their_alike_images_only() -> None:
    lots = [image(f"good/{index:03d}", f"lot-{index // 2}") for index in range(100)]
    found = group_alike(lots, [("good/000", "good/003")], "here")
    assert found.merged == (("good/000", "good/001", "good/002", "good/003"),)


def test_what_is_in_one_group_already_is_not_told_as_merged() -> None:
    lots = [image(f"good/{index:03d}", f"lot-{index // 2}") for index in range(100)]
    assert group_alike(lots, [("good/000", "good/001")], "here").merged == ()


def test_images_that_were_left_out_do_not_count() -> None:
    assert group_alike(IMAGES, [("good/001", "broken.jpg")], "here").merged == ()


def test_a_group_of_more_than_a_twentieth_is_refused_with_its_images() -> None:
    five = [tuple(f"good/{index:03d}" for index in range(5))]
    assert len(group_alike(IMAGES, five, "here").merged[0]) == 5
    six = [tuple(f"good/{index:03d}" for index in range(6))]
    with pytest.raises(DataError, match=r"one group of 6 of the 100 images, .* at most 5 \(5%\).*good/000, good/001"):
        group_alike(IMAGES, six, "here")


def test_a_pair_is_allowed_in_a_set_that_has_no_twentieth() -> None:
    assert group_alike(IMAGES[:10], [("good/001", "good/002")], "here").merged
    with pytest.raises(DataError, match="at most 2"):
        group_alike(IMAGES[:10], [("good/001", "good/002", "good/003")], "here")


def test_the_repair_tells_which_groups_were_torn_apart_and_who_moved() -> None:
    def rows(**splits: str) -> list[ImageRow]:
        return [ImageRow(uri, uri, 8, 8, "good", group=uri, split=split) for uri, split in splits.items()]

    merged = (("a", "b"), ("c", "d"))
    repair = describe_repair(
        merged,
        rows(a="train", b="holdout", c="train", d="train", e="calibration"),
        rows(a="train", b="train", c="train", d="train", e="holdout"),
    )
    assert repair.leaks == (("a", "b"),)
    assert repair.moved == (("b", "holdout", "train"), ("e", "calibration", "holdout"))
