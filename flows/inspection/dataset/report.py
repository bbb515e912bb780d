"""What a check of a dataset tells a person: counts, findings and what to do next, apart from how it is shown."""

import dataclasses
import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from inspection.dataset.checks import BROKEN
from inspection.dataset.findings import Finding
from inspection.dataset.grouping import Repair
from inspection.dataset.images import SourceImage

if TYPE_CHECKING:
    from inspection.dataset.image_facts import ImageFacts


@dataclass(frozen=True)
class Report:
    """A check's result."""

    location: str
    images: Sequence[SourceImage]  # all that the source lists, those left out too
    facts: "Mapping[str, ImageFacts]"  # by uri, of those that could be decoded
    findings: tuple[Finding, ...]  # what is left after broken images were left out
    faults: Mapping[str, str] = field(default_factory=dict)  # uri to reason, of those that could not be decoded
    dropped: Mapping[str, str] = field(default_factory=dict)  # uri to reason, of those left out
    repair: Repair | None = None  # what grouping near duplicates changed; None = it was not asked for
    refusal: str = ""  # why near duplicates are not grouped though it was asked for
    seconds: float = 0.0
    flags: tuple[str, ...] = ()  # of the command line, that the next commands need too

    @property
    def stops(self) -> bool:
        """Whether the flow would stop."""
        return bool(self.errors or self.refusal)

    @property
    def errors(self) -> list[Finding]:
        """The findings that stop the flow."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def warnings(self) -> list[Finding]:
        """The findings that do not."""
        return [finding for finding in self.findings if finding.severity == "warning"]

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        errors, warnings = len(self.errors), len(self.warnings)
        mind = f"{_plural(warnings, 'warning')} to look at first" if warnings else "nothing to mind"
        if errors:
            also = f", and {_plural(warnings, 'warning')}" if warnings else ""
            return f"{_plural(errors, 'error')}{also}: training would stop here."
        if self.refusal:
            return "The near duplicates cannot be grouped: training would stop here."
        return f"No errors; {mind}." if warnings else "No errors, no warnings: ready to train."


@dataclass(frozen=True)
class ClassCount:
    """How many images a class has."""

    name: str  # good, a type of defect, or bad
    images: int
    train: int  # by the set's own division
    validation: int
    groups: int
    lots: int
    masks: int
    boxes: int


def class_of(image: SourceImage) -> str:
    """What the report calls an image's class: good, its type of defect, or bad."""
    return image.defect_type or "bad" if image.label == "bad" else "good"


def by_class(images: Sequence[SourceImage]) -> dict[str, list[SourceImage]]:
    """The images of each class: good first, then the others by name."""
    classes: dict[str, list[SourceImage]] = defaultdict(list)
    for image in images:
        classes[class_of(image)].append(image)
    return dict(sorted(classes.items(), key=lambda item: (item[0] != "good", item[0])))


def count_classes(images: Sequence[SourceImage]) -> list[ClassCount]:
    """Counts of each class."""
    return [
        ClassCount(
            name=name,
            images=len(members),
            train=sum(image.shipped == "train" for image in members),
            validation=sum(image.shipped == "validation" for image in members),
            groups=len({image.group for image in members}),
            lots=len({image.lot for image in members if image.lot}),
            masks=sum(image.mask is not None for image in members),
            boxes=sum(bool(image.boxes) for image in members),
        )
        for name, members in by_class(images).items()
    ]


def count_lots(images: Sequence[SourceImage]) -> list[tuple[str, int, int]]:
    """Name, good and bad images of each lot, the largest first; images without a lot do not count."""
    counts = Counter((image.lot, image.label) for image in images if image.lot)
    lots = {lot for lot, _ in counts}
    table = [(lot or "", counts[lot, "good"], counts[lot, "bad"]) for lot in lots]
    return sorted(table, key=lambda item: (-item[1] - item[2], item[0]))


def next_steps(report: Report) -> list[str]:
    """What to do now, the gravest first; sentences."""
    findings = (*report.errors, *report.warnings)
    steps = list(dict.fromkeys(f"{finding.title}: {finding.advice}" for finding in findings))
    broken = [finding for finding in report.errors if finding.code in BROKEN]
    if broken and len(broken) == len(report.errors):
        count = len({uri for finding in broken for uri in finding.uris})
        steps.insert(
            len({finding.title for finding in broken}),
            f"Or leave the {_plural(count, 'broken picture')} out: run again with --drop-bad-images.",
        )
    if report.refusal:
        steps.insert(0, f"Grouping near duplicates was refused. {report.refusal}")
    flags = ("--drop-bad-images",) * bool(report.dropped) + ("--group-near-duplicates",) * (report.repair is not None)
    told = [*report.flags, *flags]
    again = " ".join(["lineside dataset check", shlex.quote(report.location), *told])
    train = " ".join([f"python flows/train_flow.py run --data {shlex.quote(report.location)}", *told])
    steps.append(f"When this is done, check again: {again}" if report.stops else f"Then train: {train}")
    return steps


def describe_repair_in_words(repair: Repair) -> list[str]:
    """What grouping near duplicates changed; sentences."""
    if not repair.merged:
        return ["There were no near duplicates to group."]
    count = sum(len(uris) for uris in repair.merged)
    sentences = [
        f"{count} pictures of the same captures were made {_plural(len(repair.merged), 'group')}; each group stays in "
        "one split."
    ]
    if repair.leaks:
        sentences.append(
            f"{_plural(len(repair.leaks), 'of these groups', 'of these groups')} would have lain in several splits."
        )
    else:
        sentences.append("None of them would have been torn apart by the division.")
    if repair.moved:
        sentences.append(f"{_plural(len(repair.moved), 'picture')} changed the split because of it.")
    return sentences


def to_json(report: Report) -> dict[str, Any]:
    """The report for programs."""
    return {
        "schema": "1.0",
        "location": report.location,
        "images": len(report.images),
        "verdict": report.verdict,
        "errors": len(report.errors),
        "warnings": len(report.warnings),
        "classes": [dataclasses.asdict(count) for count in count_classes(report.images)],
        "lots": [{"lot": lot, "good": good, "bad": bad} for lot, good, bad in count_lots(report.images)],
        "findings": [{**dataclasses.asdict(finding), "title": finding.title} for finding in report.findings],
        "dropped": dict(report.dropped),
        "refusal": report.refusal,
        "repair": None if report.repair is None else dataclasses.asdict(report.repair),
        "next": next_steps(report),
        "seconds": round(report.seconds, 3),
    }


def printable(text: str) -> str:
    """A name that may hold anything, safe to show: control characters and the like are written as escapes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )


def _plural(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"
