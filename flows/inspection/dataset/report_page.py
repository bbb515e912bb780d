"""The report as one page of HTML that needs nothing else: no script, no font, no picture from elsewhere.

Everything that comes from the set (names, labels, reasons) passes through the template's escaping; the page's own
policy forbids scripts and addresses on top of that.
"""

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

PICTURES_PER_CLASS = 8
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
    """A finding on the page."""

    finding: Finding
    anchor: str
    meaning: str
    groups: list[list[Shown]]
    more: int  # groups that are not pictured
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
    findings = [_show(finding, number, pictures) for number, finding in enumerate(report.findings, 1)]
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

    def show(self, uri: str, marked: bool = False) -> Shown:
        """A picture with its name and what is known of it; `marked` with its mask and boxes."""
        self.read([uri])
        pixels, image = self._pixels[uri], self._images.get(uri)
        if pixels is None:
            return Shown(uri, "", (self._report.dropped.get(uri, "cannot be shown"),))
        facts = self._report.facts[uri]
        if marked and image is not None and (image.mask or image.boxes):
            across = (pixels.shape[1], pixels.shape[0])
            mask = read_mask(self._source, image.mask, across, image.mask_colors) if image.mask else None
            pixels = mark_defects(pixels, mask, image.boxes, (facts.width, facts.height))
        kind = [class_of(image)] if image else []
        if image and image.shipped:
            kind.append(image.shipped)
        lines = (", ".join(kind), f"{facts.width} x {facts.height} px, {facts.bytes / 1000:,.0f} kB")
        return Shown(uri, to_data_uri(pixels), tuple(line for line in lines if line))

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


def _show(finding: Finding, number: int, pictures: _Pictures) -> ShownFinding:
    shown = finding.images[:GROUPS_PER_FINDING] if any(len(group) > 1 for group in finding.images) else ()
    single = not shown
    if single:  # pictures that stand for themselves fill one grid
        shown = tuple(finding.images[: GROUPS_PER_FINDING * 2])
    pictured = [list(group[:PICTURES_PER_GROUP]) for group in shown]
    pictures.read(uri for group in pictured for uri in group)
    marked = finding.code in _MARKED
    groups = []
    for uris in pictured:
        group = [pictures.show(uri, marked) for uri in uris]
        if len(uris) == 2 and finding.code.startswith(_COMPARED):
            apart = pictures.compare(*uris)
            group += [apart] if apart else []
        groups.append(group)
    if single:
        groups = [[picture for group in groups for picture in group]] if groups else []
    there = {uri for group in pictured for uri in group}
    names = [uri for uri in finding.uris if uri not in there]
    return ShownFinding(
        finding,
        f"finding-{number}",
        CODES[finding.code].meaning,
        groups,
        len(finding.images) - len(shown),
        names[:NAMES_PER_FINDING],
        max(0, len(names) - NAMES_PER_FINDING),
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
