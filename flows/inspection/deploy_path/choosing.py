"""The first step: which version goes out, and whether all that it takes is there."""

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inspection.errors import RegistryError, RolloutError, SettingsError
from inspection.fleet.components.configuration import inspector_configuration
from inspection.fleet.interface import Fleet
from inspection.fleet.notify import check_topic
from inspection.fleet.opening import open_fleet
from inspection.fleet.recipes import component_names
from inspection.fleet.rollout.opening import check_free, check_goal
from inspection.fleet.rollout.owners import Owner
from inspection.fleet.rollout.planning import deployed_model
from inspection.fleet.rollout.record import RolloutRecord, latest_record
from inspection.registry.choosing import choose_approved
from inspection.registry.interface import ModelVersion, Registry, check_person
from inspection.registry.opening import open_registry
from inspection.settings import Settings
from inspection.storage import open_storage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What the flow was asked for."""

    model: str  # version or ARN; "" = the newest approved
    rollback: bool
    by: str
    why: str


@dataclass(frozen=True)
class Choice:
    """What goes out, decided once for the whole run."""

    line: str
    version: int | None  # of the registry: what is to serve; None: no model, as before the rollout that is undone
    archive_sha256: str  # of its archive; "" = goes back
    back: bool  # to a version that served before, to all groups at once
    withdrawn: int | None  # version that is taken back; None: none
    by: str
    why: str


def choose(settings: Settings, request: Request, run: Any) -> Choice:
    """Decide which version goes out, and refuse what could not work.

    Devices on this machine are started if they do not run.

    Args:
        settings: of the line.
        request: of the user.
        run: Metaflow's `current`.

    Raises:
        RegistryError: there is no such version, or it may not be deployed.
        RolloutError: the fleet is not ready, or another rollout of the line runs.
        SettingsError: the request contradicts itself.
    """
    line = settings.line.name
    check_person(request.by, request.why or "none given")
    if request.rollback and request.model:
        raise SettingsError("--rollback and --model: want one of them; --rollback finds the version before by itself")
    registry = open_registry(settings)
    # Before the fleet: it is the commonest slip, and the cheapest look.
    wanted = None if request.rollback else choose_approved(registry, line, request.model)
    inspector_configuration(settings)
    fleet = open_fleet(settings)
    fleet.check([settings.fleet.canary_group, *settings.fleet.wave_groups])
    check_topic(settings.fleet)
    undone = open_rollout(settings, owner_of(run), wanted.version if wanted is not None else None)
    serving = serving_model(fleet, settings)
    if wanted is not None and undone is not None and goes_back_to(undone, wanted.version):
        wanted = None  # what is half undone is finished: that brings the version that is wanted
    if wanted is not None:
        # What was withdrawn is nothing to compare with, and must not serve a minute longer than needed.
        back = serving is not None and serving > wanted.version and not _is_approved(registry, line, serving)
        version: int | None = wanted.version
        choice = Choice(
            line,
            version,
            "" if back else wanted.archive_sha256,
            back,
            serving if back else None,
            request.by,
            request.why,
        )
    elif undone is not None:
        plan = undone.plan
        after, gone = (
            (plan.champion, plan.model_version) if plan.kind == "forward" else (plan.model_version, plan.champion)
        )
        choice = Choice(line, after, "", True, gone, request.by, request.why)
    else:
        withdrawn, before = version_before(registry, line, serving)
        choice = Choice(line, before.version, "", True, withdrawn, request.by, request.why)
    if settings.fleet.backend == "local":
        from inspection.fleet.local.devices import start

        start(settings)
    log.info("event=version_chosen line=%s version=%s back=%s serving=%s", line, choice.version, choice.back, serving)
    return choice


def tags(choice: Choice) -> Sequence[str]:
    """What the run is found by."""
    return [f"line:{choice.line}", f"model:{choice.version}", *(["rollback"] if choice.back else [])]


def owner_of(run: Any) -> Owner:
    """Who runs a rollout: this run of the flow, whatever step of it.

    The process that counts is the one that runs all steps; where each step is a machine of its own, the run's name and
    its signs of life tell whether it lives.

    Args:
        run: Metaflow's `current`.
    """
    origin = run.origin_run_id
    return Owner.here(f"{run.flow_name}/{run.run_id}", f"{run.flow_name}/{origin}" if origin else "", os.getppid())


def open_rollout(settings: Settings, owner: Owner, version: int | None) -> RolloutRecord | None:
    """The line's rollout that has not ended and that nobody is at; None when there is none.

    Args:
        settings: of the line.
        owner: this run.
        version: that is to be deployed; None: the open rollout, if there is one, is to be undone.

    Raises:
        RolloutError: another run is at it, or it is about another model; says what to do.
    """
    latest = latest_record(open_storage(settings.storage_root), settings.line.name)
    if latest is None or latest.end() is not None:
        return None
    check_free(latest, owner, settings.fleet.poll_seconds, time.time())
    if version is not None and not goes_back_to(latest, version):
        check_goal(latest, version, owner)
    return latest


def goes_back_to(record: RolloutRecord, version: int) -> bool:
    """Whether an open rollout was decided to go back, and this version serves when it has.

    Args:
        record: of the rollout.
        version: of the registry.
    """
    plan = record.plan
    if plan.kind == "back":
        return plan.model_version == version
    return plan.champion == version != plan.model_version and any(
        event.what == "rolling-back" for event in record.events()
    )


def serving_model(fleet: Fleet, settings: Settings) -> int | None:
    """The highest registry version that a group of the line has; None when none has any."""
    names, options = component_names(settings.line.name, settings.fleet.component_prefix), settings.fleet
    found = [deployed_model(fleet, group, names.model) for group in (options.canary_group, *options.wave_groups)]
    return max((version for version in found if version is not None), default=None)


def version_before(registry: Registry, line: str, serving: int | None) -> tuple[int, ModelVersion]:
    """What `--rollback` withdraws, and what serves then: the newest approved version below it.

    Raises:
        RolloutError: nothing serves.
        RegistryError: there is no approved version below it.
    """
    if serving is None:
        raise RolloutError(
            f"line {line}: --rollback: want a deployed model, found none in its thing groups; deploy one with "
            "`python flows/deploy_flow.py run`"
        )
    below = [one for one in registry.list(line) if one.version < serving and one.status == "approved"]
    if not below:
        raise RegistryError(
            f"line {line}: --rollback: want an approved version below {serving}, which serves now, found none; approve "
            f"one of `lineside registry list {line}`, or deploy another with --model"
        )
    return serving, below[-1]


def _is_approved(registry: Registry, line: str, number: int) -> bool:
    return any(one.version == number and one.status == "approved" for one in registry.list(line))
