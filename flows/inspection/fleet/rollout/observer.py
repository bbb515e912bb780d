"""Looks at a stage's devices, and says what follows: go on, passed, or undo."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from inspection.fleet.interface import Fleet
from inspection.fleet.reports import read_reports
from inspection.fleet.rollout.comparison import Comparison, Limits, compare_pairs
from inspection.fleet.rollout.devices import (
    DeviceView,
    Watch,
    Wish,
    broken_components,
    look_at,
    refuses_challenger,
)
from inspection.fleet.rollout.live import compare_live
from inspection.fleet.rollout.plan import RolloutPlan
from inspection.fleet.rollout.stages import SKIPPED, Stage, counts_in
from inspection.fleet.rollout.tally import Tally
from inspection.storage import Storage

GUARD_FACTOR = 3.0
"""How much wider the margins of live figures are after a comparison on the same parts. They catch what only shows when
the model decides; a lot with more defects must not roll back a model that judged the same parts like the champion."""
_NAMED = 12  # devices that a reason lists


@dataclass(frozen=True)
class Look:
    """What one look at a stage's devices says."""

    verdict: Literal["continue", "pass", "breach"]
    reason: str
    devices: tuple[DeviceView, ...]
    comparison: Comparison


class Observer:
    """Looks at a stage's devices.

    Args:
        fleet: the fleet.
        storage: of the line.
        plan: the plan.
        stage: the stage.
        before: what `before_stage` gave.
        tally: what was counted so far.
    """

    def __init__(
        self, fleet: Fleet, storage: Storage, plan: RolloutPlan, stage: Stage, before: Mapping[str, Any], tally: Tally
    ) -> None:
        self._fleet, self._storage, self._plan, self._stage, self.tally = fleet, storage, plan, stage, tally
        self._before = before
        self._watch = Watch(before["reported"], stage.silent_s)
        self._refused_at: dict[str, float] = {}

    def look(self, deployment: str, now: float) -> Look:
        """One look.

        Args:
            deployment: id of the stage's deployment.
            now: unix time.
        """
        plan, stage = self._plan, self._stage
        statuses = self._fleet.status(stage.group)
        reports = read_reports(self._storage, plan.line, [status.thing for status in statuses])
        fresh = self._watch.fresh(reports, now)
        arrived = {
            status.thing for status in statuses if (status.deployment, status.state) == (deployment, "succeeded")
        }
        for thing, report in self._watch.of_stage(reports).items():
            counts = counts_in(report, plan, stage.name)
            if stage.name != "shadow" and thing in arrived:
                self.tally.arrive(thing, counts)
            if counts:
                self.tally.update(thing, counts)
            if not refuses_challenger(report, plan.digest):
                self._refused_at.pop(thing, None)
            else:
                self._refused_at.setdefault(thing, report.at)
        wish = Wish(
            deployment=deployment,
            names=plan.our_names,
            digest=plan.digest,
            champion=plan.champion_digest if stage.name == "shadow" else "",
            parts=stage.parts,
            group=stage.group,
            serving_before=self._before["had"],
            refused_at=self._refused_at,
        )
        devices = tuple(
            look_at(status, reports.get(status.thing), fresh.get(status.thing), self._parts(status.thing), wish)
            for status in statuses
        )
        look = self._judge(devices, self._compare(len(devices)))
        later = self._broken_since() if look.verdict != "breach" else ""
        return replace(look, verdict="breach", reason=later) if later else look

    def _broken_since(self) -> str:
        """What broke in the groups of earlier stages since they passed; empty when nothing did."""
        plan, limits = self._plan, Limits.of(self._plan.limits)
        place = plan.groups.index(self._stage.group)
        for group in plan.groups[:place]:
            statuses = self._fleet.status(group)
            broken = [
                DeviceView(status.thing, group, "failed", text)
                for status in statuses
                if (text := broken_components(status, plan.our_names))
            ]
            allowed = 0 if group == plan.canary_group else int(limits.max_failed_devices * len(statuses) + 1e-9)
            if len(broken) > allowed:
                return f"group {group}, which passed before: {_listed(broken, len(statuses), allowed, 'failed')}"
        return ""

    def _parts(self, thing: str) -> int:
        return sum(count for name, count in self.tally.of(thing).items() if name != SKIPPED)

    def _compare(self, members: int) -> Comparison:
        plan, stage, limits = self._plan, self._stage, Limits.of(self._plan.limits)
        counts = {thing: self.tally.of(thing) for thing in self.tally.things}
        if stage.name == "shadow":
            skipped = sum(count.pop(SKIPPED, 0) for count in counts.values())
            return compare_pairs(counts, limits, stage.alpha, skipped)
        if "shadow" in plan.stages:
            limits = limits.widened(GUARD_FACTOR)
        all_rates = plan.comparison != "none"
        wanted = stage.parts * max(1, members - stage.allowed)
        baseline = self._before["baseline"]
        if plan.comparison == "live" and stage.name == "canary" and sum(baseline.values()):
            wanted = max(wanted, limits.shadow_parts)  # this is the comparison: as many parts as side by side
        return compare_live(counts, baseline, limits, stage.alpha, wanted, all_rates)

    def _judge(self, devices: Sequence[DeviceView], comparison: Comparison) -> Look:
        stage, everybody = self._stage, tuple(devices)
        failed = [device for device in devices if device.state == "failed"]
        if len(failed) > stage.allowed:
            return Look("breach", _listed(failed, len(devices), stage.allowed, "failed"), everybody, comparison)
        if comparison.verdict == "rollback":
            return Look("breach", "; ".join(comparison.reasons), everybody, comparison)
        away = [device for device in devices if device.state == "away"]
        waiting = [device for device in devices if device.state == "waiting"]
        enough = comparison.verdict == "promote"
        if not waiting and len(failed) + len(away) <= stage.allowed and devices and enough:
            return Look("pass", _passed(devices, comparison), everybody, comparison)
        return Look("continue", "", everybody, comparison)

    def too_late(self, look: Look) -> Look:
        """The last look of a stage whose time is over: passed when few enough devices are missing."""
        missing = [device for device in look.devices if not device.done]
        stage = self._stage
        if len(missing) <= stage.allowed and look.devices and look.comparison.verdict == "promote":
            return Look("pass", _passed(look.devices, look.comparison), look.devices, look.comparison)
        reasons = []
        if missing or not look.devices:
            reasons.append(_listed(missing, len(look.devices), stage.allowed, "not done"))
        if look.comparison.verdict == "continue":
            reasons.append(f"{look.comparison.parts:,} of {look.comparison.wanted:,} parts were compared")
        reason = f"time is over after {stage.timeout_s / 60:g} minutes: {'; '.join(reasons)}"
        return Look("breach", reason, look.devices, look.comparison)


def _listed(devices: Sequence[DeviceView], members: int, allowed: int, what: str) -> str:
    named = "; ".join(f"{device.thing}: {device.message}" for device in devices[:_NAMED])
    more = f"; and {len(devices) - _NAMED} more" if len(devices) > _NAMED else ""
    return f"{len(devices)} of {members} devices {what}, at most {allowed} may ({named}{more})"


def _passed(devices: Sequence[DeviceView], comparison: Comparison) -> str:
    done = sum(device.done for device in devices)
    found = {
        "shadow": f"{comparison.parts:,} parts were judged by both models and nothing was found beyond the limits",
        "live": f"{comparison.parts:,} parts, and their figures are within the limits",
        "errors": f"{comparison.parts:,} parts, {comparison.figures.get('error', 0):,} of them errors",
    }
    left = [f"{device.thing}: {device.message}" for device in devices if not device.done]
    more = f"; without {'; '.join(left[:_NAMED])}" if left else ""
    return f"{done} of {len(devices)} devices done; {found[comparison.kind]}{more}"
