"""What a set is made of: sizes, pixel types, light, compression, and how many images of what."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from inspection.dataset.findings import Finding, make_finding
from inspection.dataset.image_facts import BLACK_LEVEL, ImageFacts
from inspection.dataset.images import SourceImage
from inspection.decision.bounds import groups_needed
from inspection.decision.promise import first_confidences
from inspection.settings import Settings

CONSTANT_RANGE = 2  # grey levels; a decoder's rounding stays below
NEARLY_BLACK_CONTRAST = 8.0  # grey levels
SAME_ASPECT = 0.02  # relative difference up to which two aspect ratios count as one
LEAST_QUALITY = 60.0  # of a JPEG; below, blocks and lost detail are seen at the size of a fine defect
LEAST_OF_TYPE = 10  # images of a defect type, so that each split gets some
_SHOWN_KINDS = 6


def find_pixel_faults(facts: Iterable[ImageFacts]) -> Iterator[Finding]:
    """Pictures on which hardly anything can be seen, files with more than one picture, strong compression."""
    constant, black, frames, compressed = {}, {}, {}, {}
    for fact in facts:
        if fact.lightest - fact.darkest <= CONSTANT_RANGE:
            constant[fact.uri] = f"grey level {fact.brightness:.0f} of 255"
        elif fact.brightness < BLACK_LEVEL and fact.contrast < NEARLY_BLACK_CONTRAST:
            black[fact.uri] = f"mean grey level {fact.brightness:.1f} of 255, contrast {fact.contrast:.1f}"
        if fact.frames > 1:
            frames[fact.uri] = f"{fact.frames} pictures in a {fact.format}"
        if fact.jpeg_quality is not None and fact.jpeg_quality < LEAST_QUALITY:
            compressed[fact.uri] = f"quality about {fact.jpeg_quality:.0f} of 100"
    for code, found in (
        ("constant", constant),
        ("nearly-black", black),
        ("extra-frames", frames),
        ("overcompressed", compressed),
    ):
        if found:
            first, reason = next(iter(found.items()))
            count = f"{len(found)} picture{'' if len(found) == 1 else 's'}"
            yield make_finding(code, f"{count}, such as {first}: {reason}", ([uri] for uri in found), dict(found))


def find_mixtures(facts: Sequence[ImageFacts]) -> Iterator[Finding]:
    """Sizes, aspect ratios and pixel types that are mixed; one image of each kind is named."""
    sizes = _kinds(facts, [f"{fact.width}x{fact.height}" for fact in facts])
    if len(sizes) > 1:
        yield _mixture("mixed-sizes", "sizes in px", sizes)
    ratios: list[float] = []
    names = []
    for fact in sorted(facts, key=lambda fact: fact.aspect_ratio):
        if not ratios or fact.aspect_ratio > ratios[-1] * (1 + SAME_ASPECT):
            ratios.append(fact.aspect_ratio)
        names.append((fact, f"{ratios[-1]:.2f}"))
    if len(ratios) > 1:
        yield _mixture("mixed-aspect-ratios", "ratios of width to height", _kinds(*zip(*names, strict=True)))
    modes = _kinds(facts, [_pixel_type(fact.mode) for fact in facts])
    if len(modes) > 1:
        yield _mixture("mixed-modes", "pixel types", modes)


def find_too_few(images: Sequence[SourceImage], settings: Settings) -> Iterator[Finding]:
    """Classes and defect types with too few images, and how many more are needed."""
    least = settings.data.min_images_per_class
    counts = Counter(str(image.label) for image in images)
    for label, other in (("good", "bad"), ("bad", "good")):
        if not counts[label]:
            yield make_finding("one-class", f"{counts[other]} {other} pictures and not one {label}")
        elif counts[label] < least:
            missing = least - counts[label]
            yield make_finding(
                "too-few-images",
                f"{counts[label]} {label} pictures; want at least {least}: add {missing} more",
                [[image.uri for image in images if image.label == label]],
                {"found": float(counts[label]), "wanted": float(least), "missing": float(missing)},
            )
    yield from _find_few_for_promise(images, settings)
    types = Counter(image.defect_type for image in images if image.defect_type)
    few = {name: count for name, count in sorted(types.items()) if count < LEAST_OF_TYPE}
    if few:
        listed = ", ".join(f"{name}: {count}, add {LEAST_OF_TYPE - count}" for name, count in few.items())
        examples = ([image.uri for image in images if image.defect_type == name] for name in few)
        yield make_finding(
            "few-of-defect-type",
            f"fewer than {LEAST_OF_TYPE} pictures of {len(few)} of {len(types)} defect types: {listed}",
            examples,
            {f"{name} missing": float(LEAST_OF_TYPE - count) for name, count in few.items()},
        )


def _find_few_for_promise(images: Sequence[SourceImage], settings: Settings) -> Iterator[Finding]:
    """Whether the limits on escapes and overkill can be proven at all with so many independent parts."""
    point, share = settings.operating_point, settings.data.calibration_fraction
    escape, overkill = first_confidences(point)
    for label, limit, confidence, what in (
        ("bad", point.max_escape_rate, escape, "escapes"),
        ("good", point.max_overkill_rate, overkill, "overkill"),
    ):
        groups = len({image.group for image in images if image.label == label})
        wanted = math.ceil(groups_needed(limit, confidence) / share)
        if 0 < groups < wanted:
            yield make_finding(
                "few-images",
                f"{groups} independent {label} parts; to prove at most {limit:.1%} {what} at {point.confidence:.0%} "
                f"confidence takes about {wanted}, since {share:.0%} of them set the threshold: add {wanted - groups}",
                figures={"found": float(groups), "wanted": float(wanted), "missing": float(wanted - groups)},
            )


def _kinds(facts: Iterable[ImageFacts], names: Iterable[str]) -> dict[str, list[str]]:
    """Uris by kind, the most frequent first."""
    found: dict[str, list[str]] = defaultdict(list)
    for fact, name in zip(facts, names, strict=True):
        found[name].append(fact.uri)
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


def _mixture(code: str, what: str, kinds: Mapping[str, Sequence[str]]) -> Finding:
    listed = ", ".join(f"{len(uris)} of {name}" for name, uris in list(kinds.items())[:_SHOWN_KINDS])
    more = f" and {len(kinds) - _SHOWN_KINDS} more" if len(kinds) > _SHOWN_KINDS else ""
    examples = [uris[0] for uris in list(kinds.values())[:_SHOWN_KINDS]]
    return make_finding(
        code,
        f"{len(kinds)} {what}: {listed}{more}",
        [examples],
        {name: float(len(uris)) for name, uris in kinds.items()},
    )


def _pixel_type(mode: str) -> str:
    """Pillow's mode in words."""
    if mode.startswith("I;16"):
        return "16-bit grey"
    return {"1": "1-bit", "L": "8-bit grey", "LA": "8-bit grey", "CMYK": "CMYK"}.get(mode, "8-bit colour")
