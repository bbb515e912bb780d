"""Makes a rollout's plan from what the fleet has now."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from inspection.errors import RolloutError
from inspection.fleet.interface import ComponentSetting, Deployment, Fleet
from inspection.fleet.rollout.plan import RolloutPlan
from inspection.settings import FleetSettings, Settings


@dataclass(frozen=True)
class Release:
    """What is to be deployed: a model and the components around it, all of them published."""

    model_version: int  # of the registry
    archive_sha256: str  # of the model's archive
    digest: str  # of the model's contract.json
    model: str  # name of the model's component
    challenger: str  # name of the challenger's component
    components: Mapping[str, ComponentSetting]  # ours, by name; the model's among them, the challenger's not
    challenger_version: str = ""  # component version; "" = none was published


def deployed_model(fleet: Fleet, group: str, model: str) -> int | None:
    """Registry version of the model that a group has; None when it has none.

    Args:
        fleet: the fleet.
        group: thing group.
        model: name of the model's component, whose major version is the registry's.
    """
    deployment = fleet.deployed(group)
    version = deployment.components.get(model) if deployment is not None else None
    return None if version is None else model_number(version)


def model_number(version: str) -> int:
    """Registry version that a model's component version stands for.

    Raises:
        RolloutError: it is none that Lineside publishes.
    """
    match = re.fullmatch(r"(\d+)\.0\.\d+", version)
    if match is None:
        raise RolloutError(f"component version of a model: want <registry version>.0.<n>, found {version!r}")
    return int(match[1])


def make_plan(fleet: Fleet, settings: Settings, release: Release, contract_digest: Callable[[int], str]) -> RolloutPlan:
    """What a rollout of this release has to do in this fleet.

    Groups that have all of it already are left out; a plan without stages has nothing to do.

    Args:
        fleet: the fleet.
        settings: of the line.
        release: what is to be deployed.
        contract_digest: gives the digest of contract.json of a registry version; asked for the champion.

    Raises:
        RolloutError: the fleet cannot be asked, or a group has no devices.
    """
    options = settings.fleet
    groups = (options.canary_group, *options.wave_groups)
    newest = {group: fleet.deployed(group) for group in groups}
    for group in groups:
        if not fleet.members(group):
            raise RolloutError(
                f"thing group {group}: want one device or more, found none; add devices to it, or correct "
                "[fleet] canary_group and wave_groups"
            )
    names = {*release.components, release.model, release.challenger}
    champion = deployed_model(fleet, options.canary_group, release.model)
    shadowed = champion is not None and champion != release.model_version
    if options.comparison == "shadow" and shadowed and not release.challenger_version:
        raise RolloutError(
            f'[fleet] comparison = "shadow": want a published version of {release.challenger}, found none'
        )
    return RolloutPlan(
        line=settings.line.name,
        kind="forward",
        model_version=release.model_version,
        archive_sha256=release.archive_sha256,
        digest=release.digest,
        champion=champion,
        champion_digest="" if champion is None else contract_digest(champion),
        model=release.model,
        challenger=release.challenger,
        components=dict(release.components),
        challenger_version=release.challenger_version,
        canary_group=options.canary_group,
        wave_groups=tuple(options.wave_groups),
        skipped_groups=tuple(group for group in groups if _has_all(newest[group], release)),
        comparison=options.comparison,
        before={group: ours_in(newest[group], names) for group in groups},
        limits=comparison_limits(options),
    )


def ours_in(deployment: Deployment | None, names: set[str]) -> dict[str, str]:
    """Our components in a deployment, name to version."""
    if deployment is None:
        return {}
    return {name: version for name, version in sorted(deployment.components.items()) if name in names}


def comparison_limits(options: FleetSettings) -> dict[str, float]:
    """The settings that decide, for the record."""
    names = (
        *("shadow_parts", "canary_parts", "wave_parts", "max_disagreement", "max_reject_shift", "max_review_shift"),
        *("max_error_rate", "false_rollback_rate", "max_failed_devices"),
    )
    return {name: getattr(options, name) for name in names}


def _has_all(deployment: Deployment | None, release: Release) -> bool:
    if deployment is None or not deployment.active or release.challenger in deployment.components:
        return False
    return all(deployment.components.get(name) == setting.version for name, setting in release.components.items())
