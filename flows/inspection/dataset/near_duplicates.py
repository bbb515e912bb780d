"""Near duplicates: the same capture re-encoded, resized or cropped.

Small pictures propose pairs; pixels decide. The two pictures are laid over each other, and what is left when one is
taken from the other must be

- far below what is left between this picture and pictures of other parts of the set: its between-part noise;
- spread as compression and resizing spread it, and nowhere a patch of its own: that would be a scratch, and pictures
  that differ by a scratch are two captures.
"""

import functools
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from edge.errors import ImageError
from edge.preprocess import decode_file
from inspection.dataset.image_facts import THUMBNAIL_PX, ImageFacts, working_contract
from inspection.dataset.images import Source
from inspection.dataset.parallel import available_cores, map_ahead
from inspection.dataset.proposals import Proposal, propose_copies, propose_crops, radius_for, relative_hashes
from inspection.dataset.registration import HOPELESS, WHOLE, Match, Region, register

_log = logging.getLogger(__name__)

COMPARED_PX = 384  # longer side of the pictures that are laid over each other
BELOW_NOISE = 0.3  # residual of a copy, relative to that between this picture and those of other parts
LARGEST_RESIDUAL = 3.5  # grey levels; a copy that lost more can no longer be told from another capture
_HOPELESS_COPY = 1.05 * LARGEST_RESIDUAL  # on a coarser level; a little is left for what is not laid over it finely yet
_ALONE = 1.5  # grey levels; residual of a copy where there is no third picture to compare with
ODDEST_PATCH = 5.0  # difference of the patch that differs most, relative to the typical one, of a copy
_LEAST_TYPICAL = 0.25  # grey levels; below, rounding decides
_REFERENCES = 1024  # images among which those of other parts are looked for
_NEIGHBOURS = 6  # images that a picture is compared with; the second best counts, so that one may be a copy too
_UNLIKE, _UNLIKE_SHARE = 4, 0.3  # images that cannot be copies; this share of what is left of them counts
_REJECTED_IN_A_ROW = 32, 100  # least and most; a tenth of the images lies between. Proposals come in order of likeness:
# after so many in vain there is nothing more to find
_MOST_CROP_WORK = 3_000_000  # pairs of images whose regions are compared
_RERANKED = 8  # originals that a crop is compared with once its region is known
_PLAY = (-1, 0, 1)  # cells of a thumbnail by which parts may lie elsewhere than the one that gave the region
_AHEAD = 8  # comparisons begun before the one before them is taken
_CACHED = 64  # pictures in memory: 0.6 MB each

Pair = tuple[str, str]


@dataclass(frozen=True)
class NearDuplicate:
    """Two images of one capture."""

    copy: str  # uri; of a crop, the cropped one
    original: str
    region: Region  # of the original that the copy shows
    residual: float  # grey levels
    noise: float  # residual between the copy and the most similar other parts, grey levels; nan: there are no others

    @property
    def cropped(self) -> bool:
        """Whether the copy shows only a part."""
        return self.region[2] < 0.985 or self.region[3] < 0.985


def find_near_duplicates(
    facts: Sequence[ImageFacts], source: Source, white_level: int, workers: int | None = None
) -> list[NearDuplicate]:
    """All pairs of images that show one capture.

    Args:
        facts: one image of each content: exact duplicates are known already.
        source: reads the proposed images again.
        white_level: of 16-bit pictures.
        workers: threads; default one per core.
    """
    if len(facts) < 2:
        return []
    search = _Search(facts, source, white_level)
    with ThreadPoolExecutor(workers or available_cores()) as pool:
        copies = propose_copies(search.thumbnails, search.hashes)
        patience = min(max(_REJECTED_IN_A_ROW[0], len(facts) // 10), _REJECTED_IN_A_ROW[1])
        found = list(_take_confirmed(map_ahead(pool, search.confirm, copies, _AHEAD), len(copies), patience))
        queries = search.crop_queries({one.copy for one in found} | {one.original for one in found})
        crops = propose_crops(search.thumbnails, search.aspect_ratios, queries, search.usual)
        crops += search.small_crops(queries, {crop.one for crop in crops})
        for several in map_ahead(pool, search.confirm_crop, crops, _AHEAD):
            found += several
    unique = {frozenset((one.copy, one.original)): one for one in reversed(found)}
    _log.info(
        "event=near_duplicates_searched images=%d proposed=%d crops_proposed=%d found=%d",
        len(facts),
        len(copies),
        len(crops),
        len(unique),
    )
    return sorted(unique.values(), key=lambda one: (one.original, one.copy))


def group_pairs(pairs: Sequence[Pair] | Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Connected groups of things of which some belong together; sorted, each member once."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    for first, *others in pairs:
        for other in others:
            one, two = find(first), find(other)
            leader[max(one, two)] = min(one, two)
    groups: dict[str, list[str]] = {}
    for name in sorted(leader):
        groups.setdefault(find(name), []).append(name)
    return [tuple(names) for names in groups.values() if len(names) > 1]


class _Search:
    """What a search needs of the set; used by several threads."""

    def __init__(self, facts: Sequence[ImageFacts], source: Source, white_level: int) -> None:
        self._facts, self._source, self._white_level = facts, source, white_level
        side = THUMBNAIL_PX
        self.thumbnails = np.frombuffer(b"".join(fact.thumbnail for fact in facts), np.uint8).reshape(-1, side, side)
        self.hashes = relative_hashes(self.thumbnails)
        self.aspect_ratios = np.array([fact.aspect_ratio for fact in facts])
        sizes = [(fact.width, fact.height) for fact in facts]
        (most, count), *_ = Counter(sizes).most_common(1)
        # which images have the set's usual size; all, if it has none
        self.usual = np.array([size == most or 2 * count < len(sizes) for size in sizes])
        self._references = np.sort(np.random.default_rng(0).permutation(len(facts))[:_REFERENCES])
        self._picture = functools.lru_cache(maxsize=_CACHED)(self._read_picture)

    def confirm(self, proposal: Proposal) -> NearDuplicate | None:
        """Compare the pixels of two images; None if they do not show the same capture."""
        one, other = proposal.one, proposal.other
        if proposal.region == WHOLE and self._facts[one].megapixels > self._facts[other].megapixels:
            one, other = other, one  # the smaller one is the copy
        match = self._register(one, other, proposal.region, _HOPELESS_COPY)
        if match is None or match.residual > LARGEST_RESIDUAL:
            return None
        if match.oddest > ODDEST_PATCH * max(match.typical, _LEAST_TYPICAL):
            return None
        least = match.residual / BELOW_NOISE
        noise = self._noise(one, self._nearest(one, _NEIGHBOURS, other), least)
        if match.residual > _ALONE if math.isnan(noise) else noise < least:
            # a picture of which there are many copies has no other neighbours: those that cannot be copies
            unlike = self._nearest(one, _UNLIKE, other, exclude_alike=True)
            noise = _UNLIKE_SHARE * self._noise(one, unlike, least / _UNLIKE_SHARE)
            if math.isnan(noise) or noise < least:
                return None
        return NearDuplicate(self._facts[one].uri, self._facts[other].uri, match.region, match.residual, noise)

    def confirm_crop(self, proposal: Proposal) -> list[NearDuplicate]:
        """Compare a crop with the proposed original; if that is another part, with those that fit its region best."""
        match = self._register(proposal.one, proposal.other, proposal.region)
        if match is None:
            return []
        found = self.confirm(replace(proposal, region=match.region))
        if found is not None:
            return [found]
        others = [place for place in self._fitting(proposal.one, match.region) if place != proposal.other]
        confirmed = [self.confirm(replace(proposal, other=other, region=match.region)) for other in others]
        return [one for one in confirmed if one is not None]

    def crop_queries(self, known: set[str]) -> list[int]:
        """Images that may be crops: all of a small set, of a large one those of an unusual size."""
        queries = [place for place, fact in enumerate(self._facts) if fact.uri not in known]
        if len(queries) * len(self._facts) <= _MOST_CROP_WORK:
            return queries
        odd = [place for place in queries if not self.usual[place]]
        asked = odd[: max(1, _MOST_CROP_WORK // len(self._facts))]
        _log.info("event=crops_searched images=%d of=%d unusual_size=%d", len(asked), len(self._facts), len(odd))
        return asked

    def small_crops(self, queries: Sequence[int], known: set[int]) -> list[Proposal]:
        """Images of an unusual size beside the whole picture most like them: a crop may take away a few pixels only."""
        odd = [place for place in queries if place not in known and not self.usual[place]]
        return [
            Proposal(place, int(other), WHOLE) for place in odd for other in self._nearest(place, 1, among=self.usual)
        ]

    def _fitting(self, one: int, region: Region) -> list[int]:
        """Originals whose cells inside the region are most like those of the crop."""
        picture = self._picture(one)
        side = THUMBNAIL_PX
        edges = [region[0] * side, region[1] * side, (region[0] + region[2]) * side, (region[1] + region[3]) * side]
        left, top = (max(0, int(np.ceil(edge - 0.05))) for edge in edges[:2])
        right, bottom = (min(side, int(np.floor(edge + 0.05))) for edge in edges[2:])
        if picture is None or right - left < 4 or bottom - top < 4:
            return []
        height, width = picture.shape
        scale_x, scale_y = width / (edges[2] - edges[0]), height / (edges[3] - edges[1])
        box = (
            max(0.0, (left - edges[0]) * scale_x),
            max(0.0, (top - edges[1]) * scale_y),
            min(float(width), (right - edges[0]) * scale_x),
            min(float(height), (bottom - edges[1]) * scale_y),
        )
        cells = np.asarray(
            Image.fromarray(picture).resize((right - left, bottom - top), Image.Resampling.BOX, box=box), np.float32
        )
        distance = np.full(len(self.thumbnails), np.inf)
        for down in _PLAY:
            for across in _PLAY:
                inside = self.thumbnails[:, max(0, top + down) : bottom + down, max(0, left + across) : right + across]
                part = cells[max(0, -top - down) :, max(0, -left - across) :][: inside.shape[1], : inside.shape[2]]
                distance = np.minimum(distance, np.square(inside - part).mean(axis=(1, 2)))
        fits = np.abs(np.log(self.aspect_ratios / self.aspect_ratios[one] * region[2] / region[3])) < 0.1
        distance[~fits | ~(self.usual | self.usual[one])] = np.inf
        distance[one] = np.inf
        order = np.argsort(distance, kind="stable")[:_RERANKED]
        return [int(place) for place in order if np.isfinite(distance[place])]

    def _noise(self, one: int, others: np.ndarray, least: float) -> float:
        """Residual between an image and others: the second smallest, so that one of them may be a copy too.

        Args:
            one: the image.
            others: images of other parts.
            least: what matters, grey levels: of a smaller residual not all others are looked at.

        Returns:
            grey levels; nan without others.
        """
        residuals: list[float] = []
        for other in others:
            match = self._register(one, int(other), WHOLE)
            if match is not None:
                residuals = sorted([*residuals, match.residual])
            if len(residuals) > 1 and residuals[1] < least:
                break
        return residuals[min(1, len(residuals) - 1)] if residuals else math.nan

    def _nearest(
        self, one: int, count: int, but: int = -1, exclude_alike: bool = False, among: np.ndarray | None = None
    ) -> np.ndarray:
        """Images that look most like this one.

        Args:
            one: the image.
            count: how many.
            but: one that does not count.
            exclude_alike: leave out all that may be copies of either.
            among: which images count, bool [N]; None = all.
        """
        others = self._references[(self._references != one) & (self._references != but)]
        if among is not None:
            others = others[among[others]]
        for place in (one, but) if exclude_alike else ():
            bits = np.bitwise_count(self.hashes[others] ^ self.hashes[place])
            others = others[bits > radius_for(len(self.hashes))]
        distance = np.square(self.thumbnails[others] - self.thumbnails[one].astype(np.float32)).mean(axis=(1, 2))
        return np.asarray(others[np.argsort(distance, kind="stable")[:count]])

    def _register(self, one: int, other: int, region: Region, hopeless: float = HOPELESS) -> Match | None:
        picture, whole = self._picture(one), self._picture(other)
        if picture is None or whole is None:
            return None
        return register(picture, whole, region, hopeless)

    def _read_picture(self, place: int) -> np.ndarray | None:
        """Grey levels of an image, float32, at most `COMPARED_PX` wide and high; None if it is gone."""
        uri = self._facts[place].uri
        try:
            decoded = decode_file(self._source.read(uri), working_contract(self._white_level, COMPARED_PX), uri)
        except (OSError, ImageError) as error:
            _log.warning("event=image_gone uri=%s error=%s", uri, error)
            return None
        image = decoded.image.convert("L")
        shrink = COMPARED_PX / max(image.size)
        if shrink < 1:
            size = max(1, round(image.width * shrink)), max(1, round(image.height * shrink))
            image = image.resize(size, Image.Resampling.BICUBIC)
        return np.asarray(image, dtype=np.float32)


def _take_confirmed(results: Iterator[NearDuplicate | None], count: int, patience: int) -> Iterator[NearDuplicate]:
    """Those that were confirmed, until so many in a row were not."""
    vain = 0
    for done, result in enumerate(results, start=1):
        if result is not None:
            vain = 0
            yield result
            continue
        vain += 1
        if vain >= patience and done < count:
            _log.info("event=near_duplicate_search_ended compared=%d of=%d the_rest_is_less_alike=true", done, count)
            return
