"""How every device of a line does, from what the fleet knows and what the devices say of themselves."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inspection.fleet.interface import DeviceStatus, Fleet
from inspection.fleet.recipes import component_names
from inspection.fleet.reports import DeviceReport, read_reports
from inspection.fleet.rollout.devices import SILENT_S
from inspection.fleet.rollout.planning import model_number
from inspection.fleet.rollout.record import RolloutRecord, rollout_numbers
from inspection.settings import Settings
from inspection.storage import Storage

_PLANS_READ = 20  # newest rollouts that tell which digest is which model


@dataclass(frozen=True)
class DeviceOverview:
    """One device."""

    thing: str
    group: str
    state: str  # ok, updating, degraded, failed, offline, silent, stopped, no model, nothing deployed
    model: int | None  # registry version that serves; None: none, or one that no rollout of this line brought
    serving: str  # the same as a digest of contract.json; "" = none serves
    since: float | None  # unix time of the first part that it inspected with it
    parts: int  # that it inspected with it
    verdicts: Mapping[str, int]  # of these parts
    components: Mapping[str, str]  # ours and other people's, name to version
    seen_at: float | None  # unix time of its last sign of life
    error: str  # what is wrong, for people; "" = nothing

    @property
    def well(self) -> bool:
        """Whether it serves what is deployed to it."""
        return self.state == "ok"


def look_over(
    fleet: Fleet, storage: Storage, settings: Settings, groups: Sequence[str] = (), now: float | None = None
) -> tuple[DeviceOverview, ...]:
    """Every device of a line's thing groups, in their order.

    Args:
        fleet: the fleet.
        storage: of the line.
        settings: of the line.
        groups: thing groups; (): all of the line.
        now: unix time.

    Raises:
        RolloutError: the fleet cannot be asked.
        StorageError: the storage cannot be read.
    """
    options, line = settings.fleet, settings.line.name
    statuses = [
        status for group in groups or (options.canary_group, *options.wave_groups) for status in fleet.status(group)
    ]
    reports = read_reports(storage, line, [status.thing for status in statuses])
    models = known_models(storage, line)
    model_component = component_names(line, options.component_prefix).model
    moment = time.time() if now is None else now
    return tuple(_look(status, reports.get(status.thing), models, model_component, moment) for status in statuses)


def known_models(storage: Storage, line: str) -> dict[str, int]:
    """Digest of contract.json to registry version, of the models that the newest rollouts were about."""
    models = {}
    for number in rollout_numbers(storage, line)[-_PLANS_READ:]:
        plan = RolloutRecord(storage, line, number).plan
        models[plan.digest] = plan.model_version
        if plan.champion is not None and plan.champion_digest:
            models[plan.champion_digest] = plan.champion
    return models


def _look(
    status: DeviceStatus, report: DeviceReport | None, models: Mapping[str, int], model_component: str, now: float
) -> DeviceOverview:
    serving = (report.serving if report is not None else None) or ""
    model = models.get(serving)
    installed = status.components.get(model_component)
    if model is None and report is not None and report.serves_what_is_deployed and installed is not None:
        model = model_number(installed)
    state, error = _judge(status, report, now)
    figures = report.figures if report is not None and report.figures and report.figures.package == serving else None
    seen = [at for at in (status.seen_at, report.at if report is not None else None) if at is not None]
    return DeviceOverview(
        thing=status.thing,
        group=status.group,
        state=state,
        model=model,
        serving=serving,
        since=figures.since if figures else None,
        parts=figures.inspected if figures else 0,
        verdicts=dict(figures.verdicts) if figures else {},
        components=dict(status.components),
        seen_at=max(seen, default=None),
        error=error,
    )


def _judge(status: DeviceStatus, report: DeviceReport | None, now: float) -> tuple[str, str]:
    """State and what is wrong."""
    if status.state == "offline":
        return "offline", ""
    if status.state == "failed":
        return "failed", status.error or "the device gives no reason"
    if not status.deployment:
        return "nothing deployed", ""
    if status.state != "succeeded":
        return "updating", status.error
    if report is None:
        return "silent", "it has sent no health message; see whether its inspector runs"
    if abs(now - report.at) > SILENT_S:
        return "silent", "no health message lately; see whether its inspector runs"
    faults = "; ".join(f"{name}: {message}" for name, message in sorted(report.faults.items()))
    if report.state == "stopped":
        return "stopped", faults
    if report.serving is None:
        return "no model", faults
    if not report.serves_what_is_deployed:
        return "degraded", faults or "another package serves than the one that is deployed"
    return ("ok", "") if report.state == "ok" and not status.error else ("degraded", faults or status.error)
