"""The section on what ships: agreement of the converted models with the trained one, latency, pictures that flipped."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from metaflow.cards import Markdown, MetaflowCardComponent

from inspection.cards.style import make_grid, make_table
from inspection.decision.rounding import percent

if TYPE_CHECKING:
    from inspection.export.agreement import ParityReport
    from inspection.export.parity import GateError, ParityGate

FLIPS_SHOWN = 8


def pictures_wanted(gate: "ParityGate | GateError") -> list[int]:
    """Pictures given to the gate of which the image or a copy changed sides, the largest difference first."""
    if gate.source_index is None:
        return []
    return list(dict.fromkeys(int(gate.source_index[index]) for one in _reports(gate) for index in _shown(one)))


def parity_components(
    gate: "ParityGate", pictures: Mapping[int, np.ndarray], names: Sequence[str] | None = None
) -> list[MetaflowCardComponent]:
    """What ships and how well it agrees.

    Args:
        gate: the verdict on both converted models.
        pictures: uint8 [H, W, 3] by source picture, for `pictures_wanted`.
        names: of the source pictures; their numbers when not given.
    """
    components: list[MetaflowCardComponent] = [
        Markdown(f"## What ships: the {gate.kind} model\n\nWhy: {gate.reason}."),
        compare_reports(_reports(gate)),
        *show_flips(_reports(gate), gate.source_index, pictures, names),
    ]
    components.append(Markdown("**Speed and memory** of one image, as measured where this flow ran:"))
    components.append(show_devices(gate.devices))
    return components


def failed_parity_components(
    error: "GateError", pictures: Mapping[int, np.ndarray], names: Sequence[str] | None = None
) -> list[MetaflowCardComponent]:
    """The same when no converted model agrees and nothing ships."""
    components: list[MetaflowCardComponent] = [
        Markdown(f"## Nothing ships: no converted model agrees with the trained one\n\n{error}")
    ]
    if error.reports:
        components.append(compare_reports(error.reports))
        components += show_flips(error.reports, error.source_index, pictures, names)
    return components


def compare_reports(reports: Sequence["ParityReport"]) -> MetaflowCardComponent:
    """A column per converted model."""
    rows: list[list[str]] = [
        ["agrees", *("yes" if one.passed else "**no**: " + "; ".join(one.faults) for one in reports)],
        [
            "images compared (different pictures, of parts)",
            *(f"{one.images} ({one.sources}, of {one.groups})" for one in reports),
        ],
        ["same side of the best threshold", *(f"**{percent(1 - one.flip_rate)}**" for one in reports)],
        [
            "flips (the limit is on the share measured)",
            *(
                f"{one.flips}; of further parts like these at most {percent(one.flip_rate_upper)} at "
                f"{percent(one.confidence)} confidence"
                for one in reports
            ),
        ],
        ["correlation of the scores", *(f"{one.correlation:.4f}" for one in reports)],
        [
            "difference of the scores (logits)",
            *(f"mean {one.mean_abs_difference:.3f}, largest {one.max_abs_difference:.3f}" for one in reports),
        ],
        ["AUROC, trained and converted", *(f"{one.auroc_trained:.4f}, {one.auroc_converted:.4f}" for one in reports)],
        [
            "AUROC lost (interval)",
            *(
                f"{one.auroc_loss:.4f} ({one.auroc_loss_interval[0]:.4f} to {one.auroc_loss_interval[1]:.4f})"
                for one in reports
            ),
        ],
    ]
    return make_table(["against the trained model", *(one.kind for one in reports)], rows)


def show_flips(
    reports: Sequence["ParityReport"],
    source_index: np.ndarray | None,
    pictures: Mapping[int, np.ndarray],
    names: Sequence[str] | None,
) -> list[MetaflowCardComponent]:
    """Pictures that lie on the other side of the trained model's threshold; nothing when none does."""
    if source_index is None:
        return []
    shown: dict[tuple[str, int], str] = {}
    for one in reports:
        for index in _shown(one):
            source = int(source_index[index])
            name = names[source] if names is not None else f"training picture {source}"
            shown[one.kind, source] = f"{one.kind}: {name}"
    if not shown:
        return [Markdown("No picture changed sides.")]
    pictured = [(name, pictures[source]) for (_, source), name in shown.items() if source in pictures]
    text = "**Pictures that changed sides**, the largest difference first; a varied copy is shown by its original."
    if not pictured:
        return [Markdown(text), Markdown("\n".join(f"- {name}" for name in shown.values()))]
    return [Markdown(text), make_grid(pictured)]


def show_devices(devices: Mapping[str, Mapping[str, Any]]) -> MetaflowCardComponent:
    """Latency and memory of each kind of model."""
    rows = [
        [
            kind,
            f"{device['p50_ms']:.1f} ms",
            f"{device['p99_ms']:.1f} ms",
            f"{device['rss_bytes'] / 2**20:.0f} MiB",
            f"{device['runtime']}",
        ]
        for kind, device in devices.items()
    ]
    return make_table(["model", "median latency", "99% within", "memory", "runtime"], rows)


def _reports(gate: "ParityGate | GateError") -> tuple["ParityReport", ...]:
    reports = getattr(gate, "reports", None)
    return (gate.float, gate.int8) if reports is None else tuple(reports)  # type: ignore[union-attr]


def _shown(report: "ParityReport") -> tuple[int, ...]:
    return report.flipped[:FLIPS_SHOWN]
