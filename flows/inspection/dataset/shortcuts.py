"""Can the label be told without looking at the part?

Each property that has nothing to do with the part (the size of the file, its compression, the light, the camera, the
date) is tried alone as a classifier. Its AUROC is the chance that it ranks a random bad picture apart from a random
good one: 0.5 says nothing, 1 tells every label. Which side is bad does not matter, so max(a, 1 - a) counts.

A small set reaches a high AUROC by chance. So a property is reported only if the AUROC is also too high for chance:
by the Mann-Whitney statistic on independent groups, at a risk that is shared by all properties that are tried.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata

from inspection.dataset.findings import Finding, make_finding
from inspection.dataset.image_facts import ImageFacts
from inspection.dataset.images import SourceImage

SUSPICIOUS_AUROC = 0.9
RISK = 0.01  # of a false alarm by chance, over all properties together
_LEAST_KNOWN = 0.9  # share of images of each class that must have the property
_SMALLEST_KIND = 3  # pictures; rarer cameras or days count together
_EXAMPLES = 3  # pictures of each class

Value = Callable[[ImageFacts], float | None]
Kind = Callable[[ImageFacts], str | None]

NUMBERS: dict[str, Value] = {
    "file size": lambda fact: fact.bytes / 1000,
    "bits per pixel": lambda fact: 8 * fact.bytes / (fact.width * fact.height),
    "brightness": lambda fact: fact.brightness,
    "contrast": lambda fact: fact.contrast,
    "sharpness": lambda fact: fact.sharpness,
    "resolution": lambda fact: fact.megapixels,
    "aspect ratio": lambda fact: fact.aspect_ratio,
    "JPEG quality": lambda fact: fact.jpeg_quality,
    "date": lambda fact: _timestamp(fact.taken_at),
}
UNITS = {"file size": " kB", "resolution": " megapixels", "brightness": " of 255", "contrast": " of 255"}
KINDS: dict[str, Kind] = {
    "file format": lambda fact: fact.format,
    "pixel type": lambda fact: fact.mode,
    "size in px": lambda fact: f"{fact.width}x{fact.height}",
    "camera": lambda fact: fact.camera,
    "day": lambda fact: fact.taken_at[:10] if fact.taken_at else None,
}


@dataclass(frozen=True)
class Shortcut:
    """How well one property alone tells the label."""

    property: str
    auroc: float  # 0.5..1, whichever side is bad
    good: str  # what is typical of good pictures
    bad: str
    beyond_chance: bool  # too high for a set of this size to reach by chance


def measure_shortcuts(images: Sequence[SourceImage], facts: Mapping[str, ImageFacts]) -> list[Shortcut]:
    """The AUROC of every property that the images have, the highest first.

    Args:
        images: of the source.
        facts: by uri; images without are left out.
    """
    known = [(image, facts[image.uri]) for image in images if image.uri in facts]
    bad = np.array([image.label == "bad" for image, _ in known])
    groups = {label: len({image.group for image, _ in known if image.label == label}) for label in ("good", "bad")}
    if min(groups.values()) < 2:
        return []
    tried = len(NUMBERS) + len(KINDS)
    same_size = len({(fact.width, fact.height) for _, fact in known}) == 1
    found = []
    for name, value in NUMBERS.items():
        if same_size and name == "bits per pixel":
            continue  # says what the file's size says
        values = np.array([math.nan if (got := value(fact)) is None else got for _, fact in known])
        if (measured := _try_number(name, values, bad, groups, tried)) is not None:
            found.append(measured)
    for name, kind in KINDS.items():
        if (
            measured := _try_kind(name, [kind(fact) or "unknown" for _, fact in known], bad, groups, tried)
        ) is not None:
            found.append(measured)
    return sorted(found, key=lambda one: -one.auroc)


def find_shortcuts(images: Sequence[SourceImage], facts: Mapping[str, ImageFacts]) -> Iterator[Finding]:
    """One finding for each property that tells the label too well."""
    by_label = {
        label: [image.uri for image in images if image.label == label and image.uri in facts]
        for label in ("good", "bad")
    }
    for one in measure_shortcuts(images, facts):
        if one.auroc <= SUSPICIOUS_AUROC or not one.beyond_chance:
            continue
        yield make_finding(
            "shortcut",
            f"{one.property} alone tells good from bad with an AUROC of {one.auroc:.3f} (0.5 is chance, 1 is every "
            f"time): good pictures {one.good}, bad ones {one.bad}",
            [[*by_label["good"][:_EXAMPLES], *by_label["bad"][:_EXAMPLES]]],
            {"property": one.property, "auroc": round(one.auroc, 4), "good": one.good, "bad": one.bad},
        )


def auroc(scores: np.ndarray, bad: np.ndarray) -> float:
    """Chance that a random bad image scores above a random good one, ties counting half.

    Args:
        scores: float, [N].
        bad: bool, [N], with both values in it.
    """
    ranks = rankdata(scores)
    bad_count, good_count = int(bad.sum()), int((~bad).sum())
    return float((ranks[bad].sum() - bad_count * (bad_count + 1) / 2) / (bad_count * good_count))


def least_beyond_chance(good: int, bad: int, tried: int) -> float:
    """The AUROC that this many independent parts exceed by chance only with probability `RISK / tried`.

    Source: the variance of the Mann-Whitney statistic under no difference, (m + n + 1) / (12 m n).
    """
    spread = math.sqrt((good + bad + 1) / (12 * good * bad))
    return 0.5 + float(ndtri(1 - RISK / (2 * tried))) * spread


def _try_number(
    name: str, values: np.ndarray, bad: np.ndarray, groups: Mapping[str, int], tried: int
) -> Shortcut | None:
    has = ~np.isnan(values)
    if min(has[bad].mean(), has[~bad].mean()) < _LEAST_KNOWN:
        return None
    values, bad = values[has], bad[has]
    area = auroc(values, bad)
    area = max(area, 1 - area)
    good_text, bad_text = (_typical(name, values[chosen]) for chosen in (~bad, bad))
    return Shortcut(name, area, good_text, bad_text, area >= least_beyond_chance(groups["good"], groups["bad"], tried))


def _try_kind(
    name: str, values: Sequence[str], bad: np.ndarray, groups: Mapping[str, int], tried: int
) -> Shortcut | None:
    """Every kind is scored by its share of bad pictures; rare ones share a score, so that they cannot fit by chance."""
    counts = Counter(values)
    merged = np.array([value if counts[value] >= _SMALLEST_KIND else "others" for value in values])
    kinds, codes = np.unique(merged, return_inverse=True)
    if len(kinds) < 2:
        return None
    shares = np.bincount(codes, weights=bad) / np.bincount(codes)
    area = auroc(shares[codes], bad)
    limit = least_beyond_chance(groups["good"], groups["bad"], tried + len(kinds))
    good_text, bad_text = (_most_frequent(merged[chosen]) for chosen in (~bad, bad))
    return Shortcut(name, area, good_text, bad_text, area >= limit)


def _typical(name: str, values: np.ndarray) -> str:
    low, middle, high = np.quantile(values, (0.1, 0.5, 0.9))
    if name == "date":
        return f"around {_date_of(middle)}"
    unit = UNITS.get(name, "")
    if low == high:
        return f"{middle:.4g}{unit}"
    return f"{middle:.4g}{unit} (mostly {low:.4g} to {high:.4g})"


def _most_frequent(values: np.ndarray) -> str:
    (name, count), *_ = Counter(values.tolist()).most_common(1)
    return f"mostly {name} ({count / len(values):.0%})"


def _timestamp(taken_at: str | None) -> float | None:
    if taken_at is None:
        return None
    try:
        return float(np.datetime64(taken_at, "s").astype(np.int64))
    except ValueError:
        return None


def _date_of(timestamp: float) -> str:
    return str(np.datetime64(int(timestamp), "s")).replace("T", " ")
