"""Starts a rollout, or goes on with the one that is open, or refuses: one at a time for each line."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

from inspection.errors import RolloutError
from inspection.fleet.rollout.owners import Owner
from inspection.fleet.rollout.plan import RolloutPlan
from inspection.fleet.rollout.record import RolloutRecord, create_record, latest_record
from inspection.storage import Storage

_QUIET_S = 60.0  # an owner that was silent for less is alive, however short the polls are
_ATTEMPTS = 20


def open_or_continue(
    storage: Storage,
    line: str,
    model_version: int,
    owner: Owner,
    make_plan: Callable[[], RolloutPlan],
    poll_s: float,
    clock: Callable[[], float] = time.time,
) -> RolloutRecord:
    """The rollout that this process is to run: the line's open one, with its recorded plan, or a new one.

    Args:
        storage: of the line.
        line: its name.
        model_version: registry version that is to be deployed.
        owner: this process.
        make_plan: looks at the fleet and gives the plan; called only when no rollout is open.
        poll_s: time between two looks of whoever runs it, s.
        clock: gives the unix time.

    Raises:
        RolloutError: another process runs one, or the open one is about another model; the message says what to do.
    """
    for _ in range(_ATTEMPTS):
        latest = latest_record(storage, line, clock)
        if latest is not None:
            owners = latest.owners()
            if latest.end() is not None:
                # A step of a run that had it, after the end, also when another one ended it meanwhile.
                had_it = any(one.belongs_to(owner) for one, _ in owners)
                if had_it and latest.plan.model_version == model_version:
                    return _reader(latest, len(owners))
            else:
                check_free(latest, owner, poll_s, clock())
                check_goal(latest, model_version, owner)
                if latest.own(owner, len(owners)):
                    latest.beat()
                    return latest
                continue
        created = create_record(storage, make_plan(), 1 if latest is None else latest.number + 1, clock)
        if created is not None and created.own(owner, 0):
            created.beat()
            return created
    raise RolloutError(f"line {line}: no rollout could be opened in {_ATTEMPTS} attempts: other processes were faster")


def request_abort(
    storage: Storage, line: str, by: str, why: str, poll_s: float, clock: Callable[[], float] = time.time
) -> str:
    """Ask whoever runs the line's rollout to stop and undo it.

    Args:
        storage: of the line.
        line: its name.
        by: who asks.
        why: the reason.
        poll_s: time between two looks of whoever runs it, s.
        clock: gives the unix time.

    Returns:
        What happens now, for people.

    Raises:
        RolloutError: there is nothing to abort.
    """
    record = latest_record(storage, line, clock)
    if record is None or record.end() is not None:
        raise RolloutError(
            f"line {line}: want an open rollout to abort, found none; to go back to the model before: "
            "`python flows/deploy_flow.py run --rollback`"
        )
    if record.plan.kind == "back":
        raise RolloutError(
            f"line {line}: rollout {record.number} goes back to model {record.plan.model_version} and is not stopped "
            "half-way; deploy another model when it has ended"
        )
    asked = record.request_abort(by, why)
    beat, owners = record.last_beat(), record.owners()
    if not owners or owners[-1][0].is_dead or beat is None or clock() - beat > max(3 * poll_s, _QUIET_S):
        return (
            f"{asked}; nobody is at rollout {record.number}: undo it with `python flows/deploy_flow.py run --rollback`"
        )
    return f"{asked}; {owners[-1][0]} undoes rollout {record.number} at its next look, within about {poll_s:.0f} s"


def check_free(record: RolloutRecord, owner: Owner, poll_s: float, now: float) -> None:
    """Refuse an open rollout that another process runs.

    It may be had by the run that has it, by anybody when its process is known to be gone, and by anybody when it gave
    no sign of life for three polls and a minute.

    Raises:
        RolloutError: another process runs it.
    """
    owners = record.owners()
    if not owners or owners[-1][0].belongs_to(owner) or owners[-1][0].is_dead:
        return
    beat = record.last_beat()
    if beat is None or now - beat > max(3 * poll_s, _QUIET_S):
        return
    raise RolloutError(
        f"line {record.line}: {owners[-1][0]} has been deploying model {record.plan.model_version} since "
        f"{_moment(record.started_at())} (rollout {record.number}, last sign of life {max(0, now - beat):.0f} s ago); "
        f"wait until it has ended, or stop and undo it with "
        f"`lineside fleet abort {record.line} --why REASON`"
    )


def check_goal(record: RolloutRecord, model_version: int, owner: Owner) -> None:
    """Refuse to deploy a model while the open rollout is about another one.

    Raises:
        RolloutError: it is, and another run began it.
    """
    owners = record.owners()
    same_run = bool(owners) and owners[-1][0].belongs_to(owner)
    if (record.plan.model_version, record.plan.kind) != (model_version, "forward") and not same_run:
        raise RolloutError(_other_model(record, model_version))


def _reader(record: RolloutRecord, token: int) -> RolloutRecord:
    record.token = token
    return record


def _other_model(record: RolloutRecord, model_version: int) -> str:
    plan = record.plan
    found = (
        f"line {record.line}: want to deploy model {model_version}, found rollout {record.number} "
        f"{'back to' if plan.kind == 'back' else 'of'} model {plan.model_version} unfinished since "
        f"{_moment(record.started_at())}, with nobody at it any more; "
    )
    if plan.kind == "back" or any(event.what == "rolling-back" for event in record.events()):
        return f"{found}finish it: `python flows/deploy_flow.py run --rollback`; then deploy the other model"
    return (
        f"{found}go on with it: `python flows/deploy_flow.py run --model {plan.model_version}`, or undo it: "
        "`python flows/deploy_flow.py run --rollback`; then deploy the other model"
    )


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"
