"""The report as one page of HTML that needs nothing else: no script, no font, no picture from elsewhere.

Everything that comes from the set (names, labels, reasons) passes through the template's escaping; the page's own
policy forbids scripts and addresses on top of that.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from inspection.dataset.findings import CODES, Finding
from inspection.dataset.images import SourceImage
from inspection.dataset.report import (
    Report,
    by_class,
    class_of,
    count_classes,
    count_lots,
    describe_repair_in_words,
    next_steps,
    printable,
)
from inspection.dataset.report_charts import Axis, draw_histograms
from inspection.dataset.report_pictures import (
    Reader,
    difference,
    mark_defects,
    read_mask,
    read_thumbnail,
    to_data_uri,
)
from inspection.dataset.report_template import PAGE

PICTURES_PER_CLASS = 6
CLASSES_PICTURED = 24
GROUPS_PER_FINDING = 8  # shown with pictures; the others by name
PICTURES_PER_GROUP = 6
NAMES_PER_FINDING = 200
LOTS = 40
_READERS = 4  # threads; the decoder lets go of the interpreter lock
_MARKED = frozenset({"mask-size", "mask-empty", "mask-on-good", "box-outside", "mask-unreadable"})
_COMPARED = ("near-duplicate",)  # beginnings of codes whose pairs get a picture of their difference


@dataclass(frozen=True)
class Shown:
    """A picture on the page."""

    name: str
    data: str  # data address; empty: the picture cannot be decoded
    lines: tuple[str, ...]  # below the name


@dataclass(frozen=True)
class ShownFinding:
    """The findings of one kind on the page."""

    title: str
    severity: str
    anchor: str
    meaning: str
    summaries: list[str]
    advice: list[str]
    figures: list[dict[str, float | str]]  # that are not about a single picture
    images: int
    groups: list[list[Shown]]
    names: list[str]  # of images that are not pictured
    unnamed: int  # images that are not even named


def render_page(report: Report, source: Reader, white_level: int = 65535) -> str:
    """The page.

    Args:
        report: what to tell.
        source: reads the pictures.
        white_level: `[input] white_level`.
    """
    pictures = _Pictures(report, source, white_level)
    kinds: dict[str, list[Finding]] = defaultdict(list)
    for finding in report.findings:
        kinds[finding.code].append(finding)
    findings = [_show(same, pictures) for same in kinds.values()]
    classes = by_class(report.images)
    samples = [
        (name, len(members), [pictures.show(image.uri, marked=True) for image in _spread(_readable(members, report))])
        for name, members in list(classes.items())[:CLASSES_PICTURED]
    ]
    lots = count_lots(report.images)
    counts = count_classes(report.images)
    return (
        _environment()
        .from_string(PAGE)
        .render(
            report=report,
            made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            counts=counts,
            divided=any(count.train or count.validation for count in counts),
            grouped=any(count.groups != count.images for count in counts),
            located=any(count.masks or count.boxes for count in counts),
            lots=lots[:LOTS],
            more_lots=max(0, len(lots) - LOTS),
            samples=samples,
            more_classes=max(0, len(classes) - CLASSES_PICTURED),
            findings=findings,
            charts=_draw_charts(report),
            dropped=sorted(report.dropped.items()),
            repair=describe_repair_in_words(report.repair) if report.repair else [],
            steps=next_steps(report),
        )
    )


def _environment() -> Environment:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["printable"] = printable
    environment.filters["figure"] = _figure
    return environment


def _figure(value: float | str) -> str:
    return printable(value) if isinstance(value, str) else f"{value:,.3f}".rstrip("0").rstrip(".")


class _Pictures:
    """Thumbnails of a set, each read once."""

    def __init__(self, report: Report, source: Reader, white_level: int) -> None:
        self._report, self._source, self._white_level = report, source, white_level
        self._images = {image.uri: image for image in report.images}
        self._pixels: dict[str, np.ndarray | None] = {}

    def read(self, uris: Iterable[str]) -> None:
        """Read these pictures at once."""
        wanted = [uri for uri in dict.fromkeys(uris) if uri not in self._pixels]
        with ThreadPoolExecutor(_READERS) as pool:
            self._pixels.update(zip(wanted, pool.map(self._decode, wanted), strict=True))

    def show(self, uri: str, marked: bool = False, reason: str = "") -> Shown:
        """A picture with its name and what is known of it; `marked` with its mask and boxes."""
        self.read([uri])
        pixels, image = self._pixels[uri], self._images.get(uri)
        if pixels is None:
            return Shown(uri, "", (reason or "cannot be shown",))
        facts = self._report.facts[uri]
        if marked and image is not None and (image.mask or image.boxes):
            across = (pixels.shape[1], pixels.shape[0])
            mask = read_mask(self._source, image.mask, across, image.mask_colors) if image.mask else None
            pixels = mark_defects(pixels, mask, image.boxes, (facts.width, facts.height))
        kind = [class_of(image)] if image else []
        if image and image.shipped:
            kind.append(image.shipped)
        lines = (", ".join(kind), f"{facts.width} x {facts.height} px, {facts.bytes / 1000:,.0f} kB")
        return Shown(uri, to_data_uri(pixels), tuple(line for line in (*lines, reason) if line))

    def compare(self, one: str, other: str) -> Shown | None:
        """What differs between two pictures; None where one of them cannot be shown."""
        self.read([one, other])
        first, second = self._pixels[one], self._pixels[other]
        if first is None or second is None:
            return None
        return Shown("what differs", to_data_uri(difference(first, second)), ("black: alike; made brighter",))

    def _decode(self, uri: str) -> np.ndarray | None:
        facts = self._report.facts.get(uri)
        if facts is None:
            return None
        return read_thumbnail(self._source, uri, (facts.width, facts.height), self._white_level)


def _show(findings: Sequence[Finding], pictures: _Pictures) -> ShownFinding:
    """Findings of one code: each said in its sentence, their pictures once."""
    code = findings[0].code
    named = list(dict.fromkeys(uri for finding in findings for uri in finding.uris))
    reasons = {uri: str(why) for finding in findings for uri, why in finding.figures.items() if uri in set(named)}
    together = list(dict.fromkeys(group for finding in findings for group in finding.images))
    side_by_side = any(len(group) > 1 for group in together)
    shown = together[: GROUPS_PER_FINDING if side_by_side else GROUPS_PER_FINDING * 2]
    pictured = [list(group[:PICTURES_PER_GROUP]) for group in shown]
    pictures.read(uri for group in pictured for uri in group)
    groups = []
    for uris in pictured:
        group = [pictures.show(uri, code in _MARKED, reasons.get(uri, "")) for uri in uris]
        if len(uris) == 2 and code.startswith(_COMPARED):
            apart = pictures.compare(*uris)
            group += [apart] if apart else []
        groups.append(group)
    if not side_by_side:  # pictures that stand for themselves fill one grid
        groups = [[picture for group in groups for picture in group]] if groups else []
    there = {uri for group in pictured for uri in group}
    names = [uri for uri in named if uri not in there]
    figures = [{name: value for name, value in one.figures.items() if name not in reasons} for one in findings]
    return ShownFinding(
        title=findings[0].title,
        severity=findings[0].severity,
        anchor=code,
        meaning=CODES[code].meaning,
        summaries=[finding.summary for finding in findings],
        advice=list(dict.fromkeys(finding.advice for finding in findings)),
        figures=[one for one in figures if one],
        images=len(named),
        groups=groups,
        names=names[:NAMES_PER_FINDING],
        unnamed=max(0, len(names) - NAMES_PER_FINDING),
    )


def _readable(images: Sequence[SourceImage], report: Report) -> list[SourceImage]:
    return [image for image in images if image.uri in report.facts]


def _spread(images: Sequence[SourceImage]) -> Sequence[SourceImage]:
    """Some images, evenly from the first to the last."""
    if len(images) <= PICTURES_PER_CLASS:
        return images
    places = np.linspace(0, len(images) - 1, PICTURES_PER_CLASS).round().astype(int)
    return [images[place] for place in places]


def _draw_charts(report: Report) -> list[tuple[str, str, Markup]]:
    """Title, how to read it, and the chart."""
    facts = {
        name: [report.facts[image.uri] for image in members if image.uri in report.facts]
        for name, members in by_class(report.images).items()
    }
    return [
        (
            "Brightness",
            "Where one class is brighter than the other, a model may learn the light instead of the part.",
            draw_histograms(
                {name: [one.brightness for one in of_class] for name, of_class in facts.items()},
                Axis("mean brightness", "0 black, 255 white"),
            ),
        ),
        (
            "Size of the picture",
            "The line's camera delivers one size; several mean several cameras, crops or exports.",
            draw_histograms(
                {name: [one.width * one.height / 1e6 for one in of_class] for name, of_class in facts.items()},
                Axis("size", "million pixels", whole=False),
            ),
        ),
        (
            "Size of the file",
            "Classes that were saved with another quality have files of another size.",
            draw_histograms(
                {name: [one.bytes / 1000 for one in of_class] for name, of_class in facts.items()},
                Axis("file size", "kB"),
            ),
        ),
    ]
