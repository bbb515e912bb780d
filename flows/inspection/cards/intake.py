"""The section on what the examination of the images found: warnings with their pictures, and what was left out."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from metaflow.cards import Markdown, MetaflowCardComponent

from inspection.cards.style import make_grid, make_table
from inspection.dataset.report import describe_repair_in_words, printable

if TYPE_CHECKING:
    from inspection.dataset.findings import Finding
    from inspection.dataset.intake_record import Intake

PICTURES_PER_FINDING = 8
LISTED = 50  # names


def pictures_wanted(intake: "Intake") -> list[str]:
    """Uris of the pictures that the card shows."""
    present = {row.uri for row in intake.snapshot.rows}
    return list(dict.fromkeys(uri for finding in intake.findings for uri in _shown(finding, present)))


def intake_components(intake: "Intake", pictures: Mapping[str, np.ndarray]) -> list[MetaflowCardComponent]:
    """Warnings, images that were left out, near duplicates that were grouped.

    Args:
        intake: of the set.
        pictures: uint8 [H, W, 3] by uri, for `pictures_wanted`.
    """
    components: list[MetaflowCardComponent] = []
    if intake.findings:
        components += [
            Markdown(
                "## What to mind about the images\n\nNo errors. These are warnings: the model may turn out worse than "
                "its figures say. `lineside dataset check` shows everything with its pictures."
            ),
            make_table(
                ["what", "found", "what to do"],
                [[finding.title, _quote(finding.summary), finding.advice] for finding in intake.findings],
            ),
        ]
    for title, uris in _by_title(intake).items():
        shown = [(printable(uri), pictures[uri]) for uri in uris if uri in pictures]
        if shown:
            components += [Markdown(f"**{title}**"), make_grid(shown[:PICTURES_PER_FINDING])]
    if intake.dropped:
        names = sorted(intake.dropped.items())
        rows = [[_quote(uri), _quote(reason)] for uri, reason in names[:LISTED]]
        more = f" The first {LISTED}:" if len(names) > LISTED else ""
        components += [
            Markdown(f"## Left out\n\n{len(names)} images that cannot be used are left out, as was asked for.{more}"),
            make_table(["image", "why"], rows),
        ]
    if intake.repair is not None:
        components.append(
            Markdown("## Near duplicates kept together\n\n" + " ".join(describe_repair_in_words(intake.repair)))
        )
    return components


def _by_title(intake: "Intake") -> dict[str, list[str]]:
    """Pictures of each kind of finding, each once."""
    present = {row.uri for row in intake.snapshot.rows}
    titles: dict[str, list[str]] = {}
    for finding in intake.findings:
        uris = titles.setdefault(finding.title, [])
        uris += [uri for uri in _shown(finding, present) if uri not in uris]
    return titles


def _shown(finding: "Finding", present: set[str]) -> Sequence[str]:
    return [uri for uri in finding.uris if uri in present][:PICTURES_PER_FINDING]


def _quote(text: str) -> str:
    """A text from the set, so that Markdown and HTML leave it as it is."""
    safe = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{character}" if character in "\\`*_{}[]()#+!|~" else character for character in safe)
