"""The stages: begin a rollout or go on with the one that is open, or go back."""

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inspection.deploy_path.choosing import Choice, owner_of
from inspection.deploy_path.publishing import Published
from inspection.errors import InspectionError, RolloutError
from inspection.fleet.opening import open_fleet
from inspection.fleet.recipes import component_names
from inspection.fleet.rollout.opening import open_or_continue
from inspection.fleet.rollout.plan import RolloutPlan
from inspection.fleet.rollout.planning import make_plan
from inspection.fleet.rollout.record import latest_record
from inspection.fleet.rollout.returning import roll_back_to_previous
from inspection.fleet.rollout.rollout import Rollout
from inspection.fleet.rollout.timeline import OnChange, Outcome
from inspection.registry.choosing import choose_approved
from inspection.registry.interface import Registry
from inspection.registry.opening import open_registry
from inspection.settings import Settings
from inspection.storage import open_storage


def run_canary(settings: Settings, choice: Choice, published: Published | None, run: Any, show: OnChange) -> Outcome:
    """Shadow run and canaries; or, when it goes back, all of it.

    Args:
        settings: of the line.
        choice: of the first step.
        published: of the second step; None: it goes back.
        run: Metaflow's `current`.
        show: called after every look at the devices.

    Raises:
        RolloutError: another run deploys to the line, or the fleet cannot be asked or changed.
    """
    try:
        if published is None:
            return _go_back(settings, choice, run, show)
        rollout = _open(settings, choice, published, run, show)
        rollout.shadow()
        return rollout.canary()
    except InspectionError as error:
        raise _unfinished(settings, error) from error


def run_waves(settings: Settings, choice: Choice, published: Published | None, run: Any, show: OnChange) -> Outcome:
    """The rest of the fleet; nothing when the rollout has ended.

    Args and Raises: as `run_canary`.
    """
    try:
        if published is None:
            return _go_back(settings, choice, run, show)
        return _open(settings, choice, published, run, show).waves()
    except InspectionError as error:
        raise _unfinished(settings, error) from error


def contract_digests(registry: Registry, line: str) -> Callable[[int], str]:
    """What gives the digest of a version's contract.json, which devices name the package by."""

    def digest(version: int) -> str:
        with tempfile.TemporaryDirectory(prefix="lineside-champion-") as scratch:
            folder = registry.fetch(line, version, Path(scratch) / "package")
            return hashlib.sha256((folder / "contract.json").read_bytes()).hexdigest()

    return digest


def _open(settings: Settings, choice: Choice, published: Published, run: Any, show: OnChange) -> Rollout:
    storage, fleet, registry = open_storage(settings.storage_root), open_fleet(settings), open_registry(settings)

    def make_new_plan() -> RolloutPlan:
        # A run that is resumed chose its model long ago: what was withdrawn since must not come back by it.
        choose_approved(registry, choice.line, str(published.release.model_version))
        return make_plan(fleet, settings, published.release, contract_digests(registry, choice.line))

    record = open_or_continue(
        storage,
        choice.line,
        published.release.model_version,
        owner_of(run),
        make_new_plan,
        settings.fleet.poll_seconds,
    )
    return Rollout(fleet, storage, settings, record, registry, by=choice.by, on_change=show)


def _go_back(settings: Settings, choice: Choice, run: Any, show: OnChange) -> Outcome:
    registry = open_registry(settings)
    names = component_names(settings.line.name, settings.fleet.component_prefix)
    return roll_back_to_previous(
        open_fleet(settings),
        open_storage(settings.storage_root),
        settings,
        registry,
        owner_of(run),
        names.model,
        names.challenger,
        contract_digests(registry, choice.line),
        by=choice.by,
        why=choice.why or "no reason given",
        to=choice.version,
        on_change=show,
    )


def _unfinished(settings: Settings, error: InspectionError) -> InspectionError:
    """The error, with what it means for the rollout that is open."""
    latest = latest_record(open_storage(settings.storage_root), settings.line.name)
    if latest is None or latest.end() is not None or not isinstance(error, RolloutError):
        return error
    return RolloutError(
        f"{error}\nRollout {latest.number} of line {settings.line.name} stands where it was: the devices keep what "
        "they have. Mend the cause and go on with it: `python flows/deploy_flow.py resume`; or undo it: "
        "`python flows/deploy_flow.py run --rollback`"
    )
