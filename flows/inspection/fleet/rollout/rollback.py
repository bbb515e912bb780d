"""Undoes a rollout: every group that was touched gets back what it had, and the registry learns why."""

import logging
from collections.abc import Callable

from inspection.errors import InspectionError, RegistryError, RolloutError, StorageError
from inspection.fleet.interface import DeviceStatus, Fleet
from inspection.fleet.reports import DeviceReport, read_reports
from inspection.fleet.rollout.devices import STOPPED
from inspection.fleet.rollout.events import Event
from inspection.fleet.rollout.plan import RolloutPlan
from inspection.fleet.rollout.record import RolloutRecord, TakenOverError
from inspection.registry.interface import Registry

_log = logging.getLogger(__name__)
ATTEMPTS = 5  # at undoing everything before the run fails, and its retry goes on
BACK_WAIT_S = 900.0  # for devices to have what they had; those that are away get it when they come back
_MAX_WHY = 500  # characters of a reason in the registry


def changed_groups(plan: RolloutPlan, events: tuple[Event, ...]) -> tuple[str, ...]:
    """Groups that going back changes: those that were, or may have been, given something."""
    if plan.kind == "back":
        return plan.groups
    return tuple(dict.fromkeys(event.details["group"] for event in events if event.what == "deploying"))


def served_after(plan: RolloutPlan, events: tuple[Event, ...]) -> dict[str, str]:
    """What the devices of each group that going back changes are to serve then: group to digest; "" = not known."""
    groups = changed_groups(plan, events)
    if plan.kind == "back":
        return dict.fromkeys(groups, plan.digest)
    had = {group: plan.before[group].get(plan.model) for group in (*groups, plan.canary_group)}
    champion = had[plan.canary_group]
    return {group: plan.champion_digest if champion and had[group] == champion else "" for group in groups}


def undo(
    fleet: Fleet,
    registry: Registry,
    record: RolloutRecord,
    by: str,
    reason: str,
    sleep: Callable[[float], None],
    poll_s: float,
) -> None:
    """Give every touched group what it had, and withdraw the model; what was done already is not done again.

    Everything is tried, however much of it fails, and tried again.

    Args:
        fleet: the fleet.
        registry: of the line's models.
        record: of the rollout.
        by: who withdraws the model.
        reason: why.
        sleep: waits so many seconds.
        poll_s: between two attempts.

    Raises:
        RolloutError: something could not be undone; run the flow again.
        TakenOverError: another process does it now.
    """
    errors: list[str] = []
    for attempt in range(ATTEMPTS):
        if attempt:
            sleep(poll_s)
        record.beat()
        errors = _undo_once(fleet, registry, record, by, reason)
        if not errors:
            return
        _log.warning("event=undo_failed line=%s attempt=%d errors=%r", record.line, attempt + 1, errors)
    record.add("back", "restore-failed", reason="; ".join(errors))
    raise RolloutError(
        f"line {record.line}: rollout {record.number} of model {record.plan.model_version} is to be undone ({reason}), "
        f"but not all of it could be: {'; '.join(errors)}; mend that and run "
        "`python flows/deploy_flow.py run --rollback`, which goes on with it"
    )


def _undo_once(fleet: Fleet, registry: Registry, record: RolloutRecord, by: str, reason: str) -> list[str]:
    plan, events, errors = record.plan, record.events(), []
    restored = {event.details["group"] for event in events if event.what == "restored"}
    withdrawn = plan.champion if plan.kind == "back" else plan.model_version
    for group in changed_groups(plan, events):
        if group in restored:
            continue
        wanted = plan.target("back") if plan.kind == "back" else plan.restored(group)
        try:
            record.check_owner()
            label = f"{plan.line}: back from model {withdrawn}"
            deployment = fleet.deploy(group, wanted, label, everywhere_at_once=True)
            record.add("back", "restored", group=group, id=deployment.id)
        except TakenOverError:
            raise
        except (RolloutError, StorageError) as error:
            errors.append(f"group {group}: {error}")
    if withdrawn is not None and plan.replaces and not any(event.what == "withdrawn" for event in events):
        try:
            record.check_owner()
            withdraw(registry, plan.line, withdrawn, by, reason)
            record.add("back", "withdrawn", version=withdrawn)
        except TakenOverError:
            raise
        except (RegistryError, StorageError) as error:
            errors.append(f"registry: {error}")
    return errors


def withdraw(registry: Registry, line: str, version: int, by: str, why: str) -> None:
    """Mark a model rolled back, unless it is not approved any more.

    Args:
        registry: of the line's models.
        line: name of the line.
        version: of the registry.
        by: who withdraws it.
        why: the reason.

    Raises:
        RegistryError: the registry cannot be changed.
    """
    if registry.get(line, version).status == "approved":
        registry.roll_back(line, version, by, one_line(why))


def one_line(text: str) -> str:
    """A reason as the registry takes it: printable, on one line, not too long."""
    plain = "".join(character if character.isprintable() else " " for character in text)
    plain = " ".join(plain.split())
    return plain if len(plain) <= _MAX_WHY else plain[: _MAX_WHY - 1] + "…"


def wait_for_devices(
    fleet: Fleet,
    record: RolloutRecord,
    digests: dict[str, str],
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    poll_s: float,
    show: Callable[[], None],
) -> tuple[str, ...]:
    """Wait until the devices of the groups that were given something at last have it.

    Args:
        fleet: the fleet.
        record: of the rollout.
        digests: group to the digest that its devices are to serve; "" = whatever they do.
        clock: gives the unix time.
        sleep: waits so many seconds.
        poll_s: between two looks.
        show: called after each look.

    Returns:
        Devices that do not have it, with why; those that are away, or failed, are not waited for.
    """
    until = clock() + BACK_WAIT_S
    while True:
        record.check_owner()
        record.beat()
        missing, pending = [], False
        for group, digest in digests.items():
            try:
                newest, statuses = fleet.deployed(group), fleet.status(group)
                reports = read_reports(record.storage, record.line, [status.thing for status in statuses])
            except InspectionError as error:
                missing.append(f"group {group}: {error}")
                pending = True
                continue
            for status in statuses:
                report = reports.get(status.thing)
                arrived = newest is not None and status.deployment == newest.id
                lacks = _still(status, arrived, report, digest)
                if lacks:
                    missing.append(f"{status.thing}: {lacks}")
                    pending |= status.state != "offline" and not (arrived and status.state == "failed")
        show()
        if not pending or clock() >= until:
            return tuple(missing)
        sleep(poll_s)


def _still(status: DeviceStatus, arrived: bool, report: DeviceReport | None, digest: str) -> str:
    """What is missing until a device has what it is to have, in words; empty when nothing is."""
    if status.state == "offline":
        return "offline; it gets it when it comes back"
    if not arrived:
        return "the deployment has not reached it"
    if status.state == "failed":
        return f"the deployment failed: {status.error or 'the device gives no reason'}"
    if status.state != "succeeded":
        return f"the deployment is {status.state}"
    if not digest:
        return ""
    if report is None:
        return "it has sent no health message"
    if report.state == STOPPED:
        return "its inspector does not run yet"
    if report.serving != digest:
        return f"it serves package {(report.serving or 'none')[:12]}, want {digest[:12]}"
    return ""
