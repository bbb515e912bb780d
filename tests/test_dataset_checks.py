import pytest

from inspection.dataset.checks import check_classes, check_labels_agree, check_readable
from inspection.dataset.manifest import ImageRow, Label
from inspection.dataset.sources import SourceImage
from inspection.errors import DataError


def _images(good: int, bad: int, shipped: str = "") -> list[SourceImage]:
    counts: tuple[tuple[Label, int], ...] = (("good", good), ("bad", bad))
    return [
        SourceImage(f"{label}/{i}.png", "1", label, None, None, f"{label}/{i}", shipped=shipped)
        for label, count in counts
        for i in range(count)
    ]


@pytest.mark.parametrize(("good", "bad", "absent"), [(30, 0, "bad"), (0, 30, "good")])
def test_one_class_only_is_refused(good: int, bad: int, absent: str) -> None:
    with pytest.raises(DataError, match=rf"folder: one class only.*30 images and none of them {absent}.*add {absent}"):
        check_classes(_images(good, bad), 10, "folder")


def test_one_image_in_a_class_is_refused_and_named() -> None:
    with pytest.raises(DataError, match=r"too few.*at least 10 of each class, found 1 bad: bad/0\.png; .*min_images"):
        check_classes(_images(30, 1), 10, "folder")


def test_few_images_of_both_classes_are_both_named() -> None:
    with pytest.raises(DataError, match=r"found 2 good: good/0\.png, good/1\.png; 1 bad: bad/0\.png;"):
        check_classes(_images(2, 1), 10, "folder")


def test_just_enough_images_pass() -> None:
    check_classes(_images(10, 10), 10, "folder")


def test_validation_without_train_is_refused() -> None:
    with pytest.raises(DataError, match="every image is in validation/"):
        check_classes(_images(10, 10, "validation"), 10, "folder")


def test_the_first_twenty_faults_and_their_number_are_given() -> None:
    faults = {f"bad/{i:02d}.jpg": "the file is empty" for i in range(23)}
    with pytest.raises(DataError) as caught:
        check_readable(faults, 100, "folder")
    assert "folder: 23 of 100 images cannot be used: bad/00.jpg (the file is empty), " in str(caught.value)
    assert "bad/19.jpg (the file is empty) and 3 more; replace or remove" in str(caught.value)
    assert "bad/20" not in str(caught.value)


def test_identical_files_with_both_labels_are_refused_and_named() -> None:
    rows = [
        ImageRow("good/1.png", "same", 1, 1, "good"),
        ImageRow("bad/7.png", "same", 1, 1, "bad"),
        ImageRow("bad/8.png", "other", 1, 1, "bad"),
    ]
    with pytest.raises(
        DataError, match=r"good and as bad, 1 times: good/1\.png \(good\) = bad/7\.png \(bad\); keep the one"
    ):
        check_labels_agree(rows, "folder")
    check_labels_agree(rows[1:], "folder")
