"""What must be true of a dataset before anything is learnt from it."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from inspection.dataset.files import shown
from inspection.dataset.findings import Finding
from inspection.dataset.images import SourceImage
from inspection.dataset.manifest import SPLITS, ImageRow, Label
from inspection.errors import DataError

# Findings about a single file that is of no use; `--drop-bad-images` leaves these files out.
BROKEN = frozenset(
    {
        "unreadable-file",
        "empty-file",
        "not-a-picture",
        "animation",
        "too-large",
        "damaged",
        "outside-region",
        "constant",
    }
)
_LABELS: tuple[Label, ...] = ("good", "bad")


def check_classes(images: Sequence[SourceImage], least: int, where: str) -> None:
    """Check that there are enough good and bad images; needs no image to be read.

    Args:
        images: as the source lists them.
        least: `[data] min_images_per_class`.
        where: location, for messages.

    Raises:
        DataError: one class only, or fewer images of a class than `least`.
    """
    by_label = {label: [image.uri for image in images if image.label == label] for label in _LABELS}
    empty = [label for label, uris in by_label.items() if not uris]
    if empty:
        present = next(uris for uris in by_label.values() if uris)
        raise DataError(
            f"{where}: one class only: want good and bad images, found {len(present)} images and none of them "
            f"{empty[0]}, such as {present[0]}; add {empty[0]} images"
        )
    few = [(label, uris) for label, uris in by_label.items() if len(uris) < least]
    if few:
        found = "; ".join(f"{len(uris)} {label}: {shown(uris)}" for label, uris in few)
        raise DataError(
            f"{where}: too few images: want at least {least} of each class, found {found}; add images, "
            "or lower [data] min_images_per_class if you only try things out"
        )
    if all(image.shipped == "validation" for image in images):
        raise DataError(
            f"{where}: every image is in validation/, which is the holdout; want images to train on in train/"
        )


def find_broken(findings: Iterable[Finding], faults: Mapping[str, str]) -> dict[str, str]:
    """Uri to reason of the images that are of no use, whatever else the set is like.

    Args:
        findings: of the examination.
        faults: of the examination: uri to reason of the images that could not be decoded.
    """
    told = {
        uri: str(finding.figures.get(uri) or finding.title.lower())
        for finding in findings
        if finding.code in BROKEN
        for uri in finding.uris
    }
    return {**told, **faults}


def leave_out(findings: Iterable[Finding], dropped: Mapping[str, str]) -> list[Finding]:
    """The findings without the images that are left out; those that spoke of nothing else are gone."""
    kept = []
    for finding in findings:
        groups = [tuple(uri for uri in group if uri not in dropped) for group in finding.images]
        least = [min(2, len(group)) for group in finding.images]  # a pair of which one is left is none
        left = tuple(group for group, most in zip(groups, least, strict=True) if len(group) >= most)
        if left == finding.images:
            kept.append(finding)
        elif left:
            figures = {name: value for name, value in finding.figures.items() if name not in dropped}
            kept.append(replace(finding, images=left, figures=figures))
    return kept


def check_findings(
    findings: Iterable[Finding], faults: Mapping[str, str], images: Sequence[SourceImage], where: str
) -> None:
    """Check that the examination found no error.

    Args:
        findings: what is left of them when broken images were left out.
        faults: uri to reason of the images that could not be decoded.
        images: that are in the set.
        where: location, for messages.

    Raises:
        DataError: it did; names the files and what to do.
    """
    errors = [finding for finding in findings if finding.severity == "error"]
    if not errors:
        return
    labels = {image.uri: image.label for image in images}
    broken = {uri: reason for uri, reason in find_broken(errors, faults).items() if uri in labels}
    check_readable(broken, len(images), where)
    told = []
    for finding in errors:
        groups = [" = ".join(f"{uri} ({labels[uri]})" for uri in group if uri in labels) for group in finding.images]
        listed = f": {shown(groups)}" if groups else ""
        told.append(f"{finding.title.lower()}: {finding.summary}{listed}; {finding.advice}")
    raise DataError(f"{where}: {' '.join(told)} `lineside dataset check` shows them with their pictures")


def check_readable(faults: Mapping[str, str], count: int, where: str) -> None:
    """Check that every image could be read and decoded.

    Args:
        faults: uri to reason of the images that could not.
        count: how many images there are.
        where: location, for messages.

    Raises:
        DataError: some could not.
    """
    if not faults:
        return
    how_many = f"all {count} images" if len(faults) == count else f"{len(faults)} of {count} images"
    listed = shown([f"{uri} ({reason})" for uri, reason in sorted(faults.items())])
    raise DataError(
        f"{where}: {how_many} cannot be used: {listed}; replace or remove these files, or leave them out with "
        "--drop-bad-images"
    )


def check_labels_agree(rows: Iterable[ImageRow], where: str) -> None:
    """Check that no two identical files are labelled good and bad.

    Raises:
        DataError: some are.
    """
    by_content = defaultdict(list)
    for row in rows:
        by_content[row.sha256].append(row)
    clashes = [same for same in by_content.values() if len({row.label for row in same}) > 1]
    if clashes:
        listed = shown([" = ".join(f"{row.uri} ({row.label})" for row in same) for same in clashes])
        raise DataError(
            f"{where}: the same file is there as good and as bad, {len(clashes)} times: {listed}; "
            "keep the one with the right label"
        )


def check_splits(rows: Sequence[ImageRow], where: str) -> None:
    """Check that every split holds good and bad images.

    Raises:
        DataError: one does not; says how many groups there are and how many are needed.
    """
    held = Counter((row.split, row.label) for row in rows)
    missing = [(split, label) for split in SPLITS for label in _LABELS if not held[split, label]]
    if not missing:
        return
    listed = ", ".join(f"no {label} image in {split}" for split, label in missing)
    groups = {label: len({row.group for row in rows if row.label == label}) for label in _LABELS}
    raise DataError(
        f"{where}: cannot divide the images so that each of {', '.join(SPLITS)} holds good and bad ones: {listed}; "
        f"want at least {len(SPLITS)} groups (parts or lots, each kept whole) with good and {len(SPLITS)} with bad "
        f"images that are free to be divided, found {groups['good']} with good and {groups['bad']} with bad; "
        "add images, or make [data] group_pattern finer. Groups once divided keep their split: "
        "to divide everything anew, give the line another name"
    )
