"""Looking a dataset over before anything is learnt from it: one pass over the images, then everything it tells.

Nothing is changed, moved or deleted: what is found is said.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from inspection.dataset.annotations import find_annotation_faults
from inspection.dataset.composition import find_mixtures, find_pixel_faults, find_too_few
from inspection.dataset.copies import find_copies
from inspection.dataset.duplicates import find_groups_across_splits
from inspection.dataset.findings import CODES, Finding, make_finding
from inspection.dataset.image_facts import ImageFacts
from inspection.dataset.image_faults import Fault
from inspection.dataset.images import Source, SourceImage
from inspection.dataset.label_doubts import find_label_doubts
from inspection.dataset.looking import Target, look_at_all
from inspection.dataset.shortcuts import find_shortcuts
from inspection.settings import Settings

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Examination:
    """What looking at a dataset told."""

    facts: dict[str, ImageFacts]  # by uri, of every image that could be decoded
    faults: dict[str, str]  # by uri: why it could not be used; each is also in a finding
    findings: tuple[Finding, ...]  # errors first, in the order of `CODES`
    seconds: float
    alike: tuple[tuple[str, ...], ...] = ()  # groups of uris that show one capture: the same content or near duplicates

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that stop the flow."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Findings that are worth a look."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")


def examine(
    images: Sequence[SourceImage],
    source: Source,
    settings: Settings,
    workers: int | None = None,
    progress: bool = True,
    suspicious_labels: bool = False,
    known: Mapping[str, ImageFacts] | None = None,
    target: Target | None = None,
) -> Examination:
    """Look at every image once and say what is wrong with the set.

    Args:
        images: as the source lists them.
        source: reads them.
        settings: of the line: its input, its data and its limits.
        workers: threads or processes; default one per core that this process may use.
        progress: show bars on stderr if that is a terminal.
        suspicious_labels: also compare labels with those of similar pictures; loads the line's backbone and torch.
        known: facts by uri of images that did not change since they were taken; these are not read again.
        target: cache that the pixels of the images that are read go into, from the same decoding; None: nowhere.

    Raises:
        DataError: a worker process died.
        StorageError: the cache cannot be written.
        TrainingError: labels are to be compared and the backbone's weights are missing or do not fit.
    """
    started = time.monotonic()
    known = known or {}
    facts = {image.uri: known[image.uri] for image in images if image.uri in known}
    faults: dict[str, Fault] = {}
    unknown = [image for image in images if image.uri not in facts]
    for looked in look_at_all(unknown, source, settings.input.contract(), workers, progress, target):
        if looked.facts is not None:
            facts[looked.uri] = looked.facts
        elif looked.fault is not None:
            faults[looked.uri] = looked.fault
    facts = {image.uri: facts[image.uri] for image in images if image.uri in facts}  # in the order of the source
    usable = [image for image in images if image.uri in facts]
    copies = find_copies(usable, facts, source, settings.input.white_level, workers)
    findings = [
        *_find_faults(faults),
        *find_pixel_faults(facts.values()),
        *find_mixtures(list(facts.values())),
        *copies.findings,
        *find_groups_across_splits(images),
        *find_too_few(usable, settings),
        *find_shortcuts(images, facts),
        *find_annotation_faults(images, facts),
    ]
    if suspicious_labels:
        findings += find_label_doubts(usable, source, settings, copies.alike, workers=workers, progress=progress)
    place = {code: index for index, code in enumerate(CODES)}
    findings.sort(key=lambda finding: (finding.severity != "error", place[finding.code]))
    seconds = time.monotonic() - started
    _log.info(
        "event=dataset_examined images=%d read=%d faults=%d errors=%d warnings=%d seconds=%.1f",
        len(images),
        len(unknown),
        len(faults),
        sum(finding.severity == "error" for finding in findings),
        sum(finding.severity == "warning" for finding in findings),
        seconds,
    )
    reasons = {uri: fault.reason for uri, fault in faults.items()}
    return Examination(facts, reasons, tuple(findings), seconds, copies.alike)


def _find_faults(faults: Mapping[str, Fault]) -> Iterator[Finding]:
    by_code: dict[str, dict[str, str]] = {}
    for uri, fault in sorted(faults.items()):
        by_code.setdefault(fault.code, {})[uri] = fault.reason
    for code, reasons in by_code.items():
        first, reason = next(iter(reasons.items()))
        count = f"{len(reasons)} file{'' if len(reasons) == 1 else 's'}"
        yield make_finding(code, f"{count}, such as {first}: {reason}", ([uri] for uri in reasons), dict(reasons))
