"""Goes back to the model before, on every device at once."""

import time
from collections.abc import Callable

from inspection.errors import RolloutError
from inspection.fleet.interface import ComponentSetting, Fleet
from inspection.fleet.rollout.opening import check_free
from inspection.fleet.rollout.owners import Owner
from inspection.fleet.rollout.plan import RolloutPlan
from inspection.fleet.rollout.planning import comparison_limits, deployed_model, ours_in
from inspection.fleet.rollout.record import RolloutRecord, create_record, latest_record
from inspection.fleet.rollout.rollout import Rollout
from inspection.fleet.rollout.timeline import OnChange, Outcome, outcome_of
from inspection.registry.interface import ModelVersion, Registry
from inspection.settings import Settings
from inspection.storage import Storage

_ATTEMPTS = 20


def roll_back_to_previous(
    fleet: Fleet,
    storage: Storage,
    settings: Settings,
    registry: Registry,
    owner: Owner,
    model: str,
    challenger: str,
    contract_digest: Callable[[int], str],
    by: str,
    why: str,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
    on_change: OnChange | None = None,
    to: int | None = None,
) -> Outcome:
    """Go back: undo the rollout that is open and has nobody at it, or else deploy the approved model before.

    All groups get it at once, without a comparison: it served before. The model that goes is marked rolled back.

    Args:
        fleet: the fleet.
        storage: of the line.
        settings: of the line.
        registry: of its models.
        owner: this process.
        model: name of the model's component.
        challenger: name of the challenger's component.
        contract_digest: gives the digest of contract.json of a registry version.
        by: who goes back.
        why: the reason.
        clock: gives the unix time.
        sleep: waits so many seconds.
        on_change: called after every look.
        to: registry version to go back to, when no rollout is open; None: the newest approved one below what serves.

    Raises:
        RolloutError: a rollout is running, there is no model to go back to, or the fleet cannot be changed.
    """
    reason = f"rolled back by {by}: {why}"

    def rollout(record: RolloutRecord) -> Rollout:
        return Rollout(fleet, storage, settings, record, registry, by, clock, sleep, on_change)

    for _ in range(_ATTEMPTS):
        latest = latest_record(storage, settings.line.name, clock)
        if latest is not None and latest.end() is not None:
            owners = latest.owners()
            if any(one.belongs_to(owner) for one, _ in owners):
                return outcome_of(latest)  # a retry of this run: one step back is enough
        elif latest is not None:
            seen = len(latest.owners())
            check_free(latest, owner, settings.fleet.poll_seconds, clock())
            if latest.own(owner, seen):
                latest.beat()
                return rollout(latest).roll_back(reason, "went-back" if latest.plan.kind == "back" else "rolled-back")
            continue
        plan = _plan_back(fleet, settings, registry, model, challenger, contract_digest, to)
        record = create_record(storage, plan, 1 if latest is None else latest.number + 1, clock)
        if record is not None and record.own(owner, 0):
            record.beat()
            return rollout(record).roll_back(reason, "went-back")
    raise RolloutError(f"line {settings.line.name}: no rollout could be opened: other processes were faster each time")


def _plan_back(
    fleet: Fleet,
    settings: Settings,
    registry: Registry,
    model: str,
    challenger: str,
    contract_digest: Callable[[int], str],
    to: int | None,
) -> RolloutPlan:
    options, line = settings.fleet, settings.line.name
    groups = (options.canary_group, *options.wave_groups)
    newest = {group: fleet.deployed(group) for group in groups}
    deployed = [deployed_model(fleet, group, model) for group in groups]
    serving = max((version for version in deployed if version is not None), default=None)
    if serving is None:
        raise RolloutError(f"line {line}: want a deployed model to go back from, found none in {', '.join(groups)}")
    previous = _previous(registry, line, serving, to)
    versions = [found.version for found in fleet.versions(model) if found.version.startswith(f"{previous.version}.0.")]
    if not versions:
        raise RolloutError(
            f"line {line}: want a published {model} of model {previous.version}, found none; deploy it with "
            f"`python flows/deploy_flow.py run --model {previous.version}`"
        )
    return RolloutPlan(
        line=line,
        kind="back",
        model_version=previous.version,
        archive_sha256=previous.archive_sha256,
        digest=contract_digest(previous.version),
        champion=serving,
        champion_digest="",
        model=model,
        challenger=challenger,
        components={model: ComponentSetting(versions[-1])},
        challenger_version="",
        canary_group=options.canary_group,
        wave_groups=tuple(options.wave_groups),
        skipped_groups=(),
        comparison="none",
        before={group: ours_in(newest[group], {model, challenger}) for group in groups},
        limits=comparison_limits(options),
    )


def _previous(registry: Registry, line: str, serving: int, to: int | None) -> ModelVersion:
    before = [found for found in registry.list(line) if found.version < serving and found.status == "approved"]
    chosen = [found for found in before if to in (None, found.version)]
    if not chosen:
        wanted = "an approved model" if to is None else f"model {to}, approved,"
        found = ", ".join(str(one.version) for one in before) or "none"
        raise RolloutError(
            f"line {line}: want {wanted} before {serving}, which serves, to go back to, found {found} approved; see "
            f"`lineside registry list {line}` and `lineside fleet status`, then start a new run"
        )
    return chosen[-1]
