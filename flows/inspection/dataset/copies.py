"""Every image that shows what another one shows: the same content, or the same capture saved anew."""

import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from inspection.dataset.duplicates import digest_content, find_duplicates, group_equal
from inspection.dataset.findings import Finding, make_finding
from inspection.dataset.image_facts import ImageFacts
from inspection.dataset.images import Source, SourceImage
from inspection.dataset.near_duplicates import NearDuplicate, find_near_duplicates, group_pairs

_log = logging.getLogger(__name__)

_MAYBE_EQUAL = 0.5  # grey levels of residual below which all pixels are compared: decoders shrink a JPEG and a PNG
# slightly differently, so that equal pictures may leave a little


@dataclass(frozen=True)
class Copies:
    """What shows the same."""

    findings: tuple[Finding, ...]
    alike: tuple[tuple[str, ...], ...]  # groups of uris that show one capture


def find_copies(
    images: Sequence[SourceImage],
    facts: Mapping[str, ImageFacts],
    source: Source,
    white_level: int,
    workers: int | None = None,
) -> Copies:
    """Find exact duplicates, then near duplicates among what is left.

    Args:
        images: that could be decoded.
        facts: by uri.
        source: reads images again to compare their pixels.
        white_level: of 16-bit pictures.
        workers: threads; default one per core.
    """
    started = time.monotonic()
    by_uri = {image.uri: image for image in images}
    equal = group_equal(facts, source, white_level)
    repeated = {uri for uris in equal for uri in uris[1:]}
    distinct = [facts[image.uri] for image in images if image.uri not in repeated]
    near = find_near_duplicates(distinct, source, white_level, workers)
    same = [pair for pair in near if _is_equal(pair, facts, source, white_level)]
    equal = group_pairs([*equal, *((pair.copy, pair.original) for pair in same)])
    near = [pair for pair in near if pair not in same]
    alike = group_pairs([*equal, *((pair.copy, pair.original) for pair in near)])
    findings = [*find_duplicates(equal, by_uri), *_find_near(near, alike, by_uri)]
    _log.info(
        "event=copies_found equal_groups=%d near_pairs=%d seconds=%.1f",
        len(equal),
        len(near),
        time.monotonic() - started,
    )
    return Copies(tuple(findings), tuple(alike))


def _is_equal(pair: NearDuplicate, facts: Mapping[str, ImageFacts], source: Source, white_level: int) -> bool:
    """Whether all pixels are equal, though the files are of different kinds."""
    one, other = facts[pair.copy], facts[pair.original]
    if (one.width, one.height) != (other.width, other.height) or pair.residual > _MAYBE_EQUAL:
        return False
    return digest_content(one.uri, source, white_level) == digest_content(other.uri, source, white_level)


def _find_near(
    pairs: Sequence[NearDuplicate], alike: Sequence[Sequence[str]], images: Mapping[str, SourceImage]
) -> Iterator[Finding]:
    """What near duplicates mean, given labels and shipped splits."""
    group_of = {uri: place for place, uris in enumerate(alike) for uri in uris}
    by_group: dict[int, list[NearDuplicate]] = defaultdict(list)
    for pair in pairs:
        by_group[group_of[pair.copy]].append(pair)
    by_code: dict[str, list[int]] = defaultdict(list)
    for place in by_group:
        members = [images[uri] for uri in alike[place]]
        differ = len({image.label for image in members}) > 1
        across = {image.shipped for image in members} >= {"train", "validation"}
        if differ:
            by_code["near-duplicate-labels-differ"].append(place)
        if across:
            by_code["near-duplicates-across-splits"].append(place)
        if not differ and not across:
            by_code["near-duplicates"].append(place)
    what = {
        "near-duplicate-labels-differ": "labelled good and bad",
        "near-duplicates-across-splits": "in training and in validation",
        "near-duplicates": "there more than once",
    }
    for code, places in by_code.items():
        first = by_group[places[0]][0]
        count = "1 capture is" if len(places) == 1 else f"{len(places)} captures are"
        yield make_finding(
            code,
            f"{count} {what[code]}, such as {first.copy} ({images[first.copy].label}) and {first.original} "
            f"({images[first.original].label}): {_describe(first)}",
            sorted((alike[place] for place in places), key=list),
            {pair.copy: _describe(pair) for place in places for pair in by_group[place]},
        )


def _describe(pair: NearDuplicate) -> str:
    """How the copy differs, in words."""
    left, top, width, height = pair.region
    part = f"shows {width:.0%} by {height:.0%} of {pair.original}, from {max(0, left):.0%}, {max(0, top):.0%}; "
    noise = "" if math.isnan(pair.noise) else f", other parts by {pair.noise:.1f}"
    return f"{part if pair.cropped else ''}differs from it by {pair.residual:.1f} grey levels{noise}"
