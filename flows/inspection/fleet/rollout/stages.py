"""The stages of a rollout: what each asks of its devices, and what is known before it begins."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inspection.fleet.interface import Fleet
from inspection.fleet.reports import DeviceReport, read_reports
from inspection.fleet.rollout.comparison import Limits
from inspection.fleet.rollout.devices import (
    SILENT_REPORTS,
    SILENT_S,
)
from inspection.fleet.rollout.live import choose_baseline
from inspection.fleet.rollout.plan import RolloutPlan
from inspection.settings import FleetSettings
from inspection.storage import Storage

SKIPPED = "skipped"  # among the counters of verdict pairs


@dataclass(frozen=True)
class Stage:
    """A stage and what it asks."""

    name: str  # shadow, canary, wave <group>
    group: str
    parts: int  # that each device must have judged
    allowed: int  # devices that may fail or stay away
    timeout_s: float
    alpha: float  # chance, at most, that its tests roll back a model within limits
    silent_s: float  # a device that gave no sign for longer is away


def describe_stage(plan: RolloutPlan, name: str, settings: FleetSettings, members: int) -> Stage:
    """A stage of the plan.

    Args:
        plan: the plan.
        name: one of its stages.
        settings: `[fleet]` of today: how long to wait may be changed while a rollout runs.
        members: devices in its group.
    """
    limits = Limits.of(plan.limits)
    waves = name.startswith("wave ")
    minutes = settings.wave_timeout_minutes if waves else settings.canary_timeout_minutes
    parts = limits.wave_parts if waves else limits.canary_parts
    if name == "shadow":
        parts = max(1, min(limits.canary_parts, limits.shadow_parts // max(1, members)))
    return Stage(
        name=name,
        group=name.removeprefix("wave ") if waves else plan.canary_group,
        parts=parts,
        allowed=int(limits.max_failed_devices * members + 1e-9) if waves else 0,
        timeout_s=minutes * 60,
        alpha=stage_alpha(plan, name),
        silent_s=max(SILENT_S, SILENT_REPORTS * _report_every_s(settings)),
    )


def _report_every_s(settings: FleetSettings) -> float:
    every = settings.inspector.get("health_every_s", 0.0)
    return float(every) if isinstance(every, int | float) else 0.0


def stage_alpha(plan: RolloutPlan, name: str) -> float:
    """A stage's share of the declared error: half for a shadow run, the rest evenly for the others."""
    alpha = Limits.of(plan.limits).false_rollback_rate
    live = [stage for stage in plan.stages if stage != "shadow"]
    if "shadow" in plan.stages:
        return alpha / 2 if name == "shadow" else alpha / 2 / len(live)
    return alpha / max(1, len(live))


def before_stage(
    storage: Storage, fleet: Fleet, plan: RolloutPlan, stage: str, group: str, canary_baseline: Mapping[str, int]
) -> dict[str, Any]:
    """What devices say before a stage changes them, as JSON values for the record.

    Args:
        storage: of the line.
        fleet: the fleet.
        plan: the plan.
        stage: its name.
        group: its thing group.
        canary_baseline: the champion's figures that the canary stage was compared with; {} before that.
    """
    own = read_reports(storage, plan.line, fleet.members(group))
    others: dict[str, DeviceReport] = {}
    if stage != "shadow" and plan.champion_digest:
        rest = [
            thing for name in (plan.canary_group, *plan.wave_groups) if name != group for thing in fleet.members(name)
        ]
        others = read_reports(storage, plan.line, rest)
    pooled = _champion_figures(others, plan)
    if sum(canary_baseline.values()) > sum(pooled.values()):
        pooled = dict(canary_baseline)
    return {
        "group": group,
        "reported": {thing: report.at for thing, report in own.items()},
        "had": {thing: report.deployed for thing, report in own.items()},
        "counts": {thing: counts for thing, report in own.items() if (counts := counts_in(report, plan, stage))},
        "baseline": {} if stage == "shadow" else choose_baseline(_champion_figures(own, plan), pooled),
    }


def counts_in(report: DeviceReport, plan: RolloutPlan, stage: str) -> dict[str, int]:
    """What a report counts for a stage: nothing unless it is about the plan's packages."""
    if stage == "shadow":
        shadow = report.shadow
        if shadow is None or (shadow.package, shadow.champion) != (plan.digest, plan.champion_digest):
            return {}
        pairs = {f"{champion}/{challenger}": count for (champion, challenger), count in shadow.pairs.items()}
        return {**pairs, SKIPPED: shadow.skipped}
    if report.figures is None or report.figures.package != plan.digest:
        return {}
    return dict(report.figures.verdicts)


def _champion_figures(reports: Mapping[str, DeviceReport], plan: RolloutPlan) -> dict[str, int]:
    sums: dict[str, int] = {}
    for report in reports.values():
        if report.figures is not None and plan.champion_digest and report.figures.package == plan.champion_digest:
            for name, count in report.figures.verdicts.items():
                sums[name] = sums.get(name, 0) + count
    return sums
