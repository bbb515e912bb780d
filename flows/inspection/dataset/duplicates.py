"""The same picture several times: by its file, or by what decoding it gives.

Equal files are found by their digest. Files that differ but decode to the same pixels (a PNG and its copy as BMP, a
picture with other EXIF data) are proposed by size, histogram and thumbnail, and then compared at their full size.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from edge.errors import ImageError
from edge.preprocess import decode_file
from inspection.dataset.findings import Finding, make_finding
from inspection.dataset.image_facts import ImageFacts, working_contract
from inspection.dataset.images import Source, SourceImage


def group_equal(
    facts: Mapping[str, ImageFacts], source: Source, white_level: int, advance: Callable[[int], None] | None = None
) -> list[tuple[str, ...]]:
    """Groups of images with the same content, two or more in each.

    Args:
        facts: by uri.
        source: reads the images that look equal once more, to compare all of their pixels.
        white_level: of 16-bit pictures.
        advance: called with the number of pictures that were decoded.
    """
    by_look: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))  # digest, sha256, uris
    for uri, fact in facts.items():
        by_look[fact.pixel_digest][fact.sha256].append(uri)
    groups = []
    for files in by_look.values():
        if len(files) == 1:
            groups += list(files.values())
            continue
        by_content: dict[str, list[str]] = defaultdict(list)
        for uris in files.values():
            by_content[digest_content(uris[0], source, white_level)] += uris
            if advance:
                advance(1)
        groups += list(by_content.values())
    return [tuple(sorted(uris)) for uris in groups if len(uris) > 1]


def digest_content(uri: str, source: Source, white_level: int) -> str:
    """Digest of all pixels of a picture, upright, 8-bit; empty if it cannot be read any more."""
    try:
        data = source.read(uri)
        header = decode_file(data, working_contract(white_level, side_px=1 << 20), uri)  # larger than any: no reduction
    except (OSError, ImageError):
        return f"gone: {uri}"
    pixels = header.image.convert("RGB").tobytes()
    return hashlib.sha256(b"%dx%d" % header.image.size + pixels).hexdigest()


def find_duplicates(groups: Iterable[Sequence[str]], images: Mapping[str, SourceImage]) -> Iterator[Finding]:
    """What equal content means, given labels and shipped splits.

    Args:
        groups: of uris with the same content.
        images: by uri.
    """
    sorted_groups: dict[str, list[Sequence[str]]] = defaultdict(list)
    for uris in groups:
        members = [images[uri] for uri in uris]
        if len({image.label for image in members}) > 1:
            sorted_groups["duplicate-labels-differ"].append(uris)
        if {image.shipped for image in members} >= {"train", "validation"}:
            sorted_groups["duplicate-across-splits"].append(uris)
        if len({image.defect_type for image in members if image.label == "bad"}) > 1:
            sorted_groups["duplicate-types-differ"].append(uris)
        if len({(image.label, image.shipped, image.defect_type) for image in members}) < len(members):
            sorted_groups["duplicate-images"].append(uris)
    what = {
        "duplicate-labels-differ": "labelled good and bad",
        "duplicate-across-splits": "in training and in validation",
        "duplicate-types-differ": "labelled with different defect types",
        "duplicate-images": "there more than once",
    }
    for code, found in sorted_groups.items():
        first = " = ".join(_named(images[uri]) for uri in found[0][:4])
        count = "1 picture is" if len(found) == 1 else f"{len(found)} pictures are"
        yield make_finding(code, f"{count} {what[code]}, such as {first}", found, {"pictures": float(len(found))})


def find_groups_across_splits(images: Iterable[SourceImage]) -> Iterator[Finding]:
    """Groups (parts, lots) with images on both sides of a shipped split."""
    sides: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for image in images:
        if image.shipped:
            sides[image.group][image.shipped].append(image.uri)
    both = {group: shipped for group, shipped in sides.items() if len(shipped) > 1}
    if not both:
        return
    group, shipped = next(iter(both.items()))
    count = "1 group is" if len(both) == 1 else f"{len(both)} groups are"
    counts = ", ".join(f"{len(uris)} in {side}" for side, uris in sorted(shipped.items()))
    yield make_finding(
        "group-across-splits",
        f"{count} in training and in validation, such as {group} ({counts})",
        ([uri for uris in shipped.values() for uri in uris[:2]] for shipped in both.values()),
        {"groups": float(len(both))},
    )


def _named(image: SourceImage) -> str:
    kind = f", {image.defect_type}" if image.defect_type else ""
    return f"{image.uri} ({image.label}{kind})"
