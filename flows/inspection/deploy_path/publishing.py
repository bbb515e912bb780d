"""The second step: build what the devices get, and publish what the fleet does not have."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inspection.deploy_path.choosing import Choice
from inspection.fleet.components.build import WHEEL_CACHE, build_components
from inspection.fleet.components.publishing import publish_all
from inspection.fleet.interface import ComponentSetting
from inspection.fleet.opening import open_fleet
from inspection.fleet.recipes import component_names, run_with
from inspection.fleet.rollout.planning import Release
from inspection.registry.opening import open_registry
from inspection.settings import FleetSettings, Settings


@dataclass(frozen=True)
class PublishedComponent:
    """A component version that the rollout may deploy."""

    name: str
    version: str
    new: bool  # False: it was there already
    size_bytes: int  # what a device downloads of it, at most


@dataclass(frozen=True)
class Published:
    """All that a rollout of one model needs in the fleet."""

    digest: str  # of the model's contract.json, which devices name it by
    components: tuple[PublishedComponent, ...]
    release: Release


def publish(settings: Settings, choice: Choice) -> Published | None:
    """Build the components of the chosen model and publish those that are new.

    Built and published in one step, since the next step may run on another machine. A retry builds the same again and
    finds what was published.

    Args:
        settings: of the line.
        choice: of the first step.

    Returns:
        None when it goes back: what served before was published then.

    Raises:
        RolloutError: something cannot be built, or the fleet refuses it.
        PackageError: the model's archive is not what was registered.
    """
    if choice.back or choice.version is None:
        return None
    names = component_names(settings.line.name, settings.fleet.component_prefix)
    with tempfile.TemporaryDirectory(prefix="lineside-components-") as scratch:
        built = build_components(settings, open_registry(settings), choice.version, Path(scratch), WHEEL_CACHE)
        done = publish_all(open_fleet(settings), built)
    versions = {
        names.runtime: done.runtime,
        names.inspector: done.inspector,
        names.model: done.model,
        names.challenger: done.challenger,
    }
    return Published(
        digest=done.digest,
        components=tuple(
            PublishedComponent(name, version, name in done.new, done.sizes[name]) for name, version in versions.items()
        ),
        release=Release(
            model_version=choice.version,
            archive_sha256=choice.archive_sha256,
            digest=done.digest,
            model=names.model,
            challenger=names.challenger,
            components=_settings_of(
                settings.fleet, {name: versions[name] for name in versions if name != names.challenger}, names.inspector
            ),
            challenger_version=done.challenger,
        ),
    )


def _settings_of(fleet: FleetSettings, versions: Mapping[str, str], inspector: str) -> dict[str, ComponentSetting]:
    """How a deployment carries each component: only the inspector does work, so only it has limits."""
    limits = run_with(fleet.memory_mb, fleet.cpus)
    return {
        name: ComponentSetting(version, run_with=limits if name == inspector else None)
        for name, version in versions.items()
    }
