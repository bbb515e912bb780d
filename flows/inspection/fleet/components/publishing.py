"""Gives built components their versions and publishes what the fleet does not have.

A model's version is that of the registry: 7.0.0, and 7.0.1 when only our packing of it changed. Runtime and inspector
count up (1.0.0, 1.1.0, …) whenever they differ from the newest that is published. What is unchanged is not published
again, and of two who publish at once the second takes the next version.
"""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from inspection.errors import RolloutError
from inspection.fleet.components.built import Built, BuiltComponent
from inspection.fleet.interface import MODEL_TAG, ComponentVersion, Fleet, PublishedVersion

ATTEMPTS = 10  # each lost one means that somebody else published a version meanwhile

Choice = tuple[str, bool]  # a version, and whether it has to be published
NextVersion = Callable[[Fleet, BuiltComponent], Choice]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """A component that the fleet has now."""

    name: str
    version: str
    new: bool  # False: it was there already
    size_bytes: int  # what one device downloads of it, at most


@dataclass(frozen=True)
class PublishedSet:
    """Versions of all components for one model."""

    runtime: str
    inspector: str
    model: str
    challenger: str
    digest: str  # sha256 (hex) of the package's contract.json, which devices report
    sizes: Mapping[str, int] = field(default_factory=dict)  # component to what one device downloads, bytes
    new: tuple[str, ...] = ()  # components that were published just now


def publish_all(fleet: Fleet, built: Built) -> PublishedSet:
    """Publish all components that are new.

    Raises:
        RolloutError: the fleet refuses one, or the model's version is taken by another model.
    """
    number = built.model_version
    # The model first: when its version is taken, nothing has been changed yet.
    model = publish_component(fleet, built.model, partial(model_choice, number=number))
    challenger = publish_component(fleet, built.challenger, partial(model_choice, number=number))
    runtime = publish_component(fleet, built.runtime, rising_choice)
    make_recipe = partial(built.make_inspector_recipe, runtime=runtime.version)
    inspector = publish_component(fleet, replace(built.inspector, make_recipe=make_recipe), rising_choice)
    all_of_them = (runtime, inspector, model, challenger)
    return PublishedSet(
        runtime=runtime.version,
        inspector=inspector.version,
        model=model.version,
        challenger=challenger.version,
        digest=built.digest,
        sizes={published.name: published.size_bytes for published in all_of_them},
        new=tuple(published.name for published in all_of_them if published.new),
    )


def publish_component(fleet: Fleet, built: BuiltComponent, choose: NextVersion) -> Published:
    """Publish one component unless the fleet has it.

    Args:
        fleet: where to.
        built: the component.
        choose: its version, `rising_choice` or `model_choice`.

    Raises:
        RolloutError: the fleet refuses it.
    """
    for _ in range(ATTEMPTS):
        version, new = choose(fleet, built)
        if not new:
            _log.info("event=component_unchanged name=%s version=%s", built.name, version)
            return Published(built.name, version, False, built.size_bytes)
        uris = {file: fleet.artifact_uri(built.name, version, file) for file in built.artifacts}
        recipe = built.make_recipe(version, uris)
        component = ComponentVersion(built.name, version, recipe, built.artifacts, built.digest, built.tags)
        try:
            fleet.publish(component)
        except RolloutError:
            taken = fleet.find(built.name, version)
            if taken is None or taken.digest == built.digest:
                raise
            continue  # somebody published this version meanwhile
        _log.info("event=component_published name=%s version=%s bytes=%d", built.name, version, built.size_bytes)
        return Published(built.name, version, True, built.size_bytes)
    raise RolloutError(
        f"{built.name}: no version could be had in {ATTEMPTS} attempts, somebody else was faster each time; see who "
        "publishes components of that name and run again"
    )


class Versions(Protocol):
    """What tells published versions."""

    def newest(self, name: str) -> PublishedVersion | None:
        """As `Fleet` says."""
        ...

    def versions(self, name: str) -> tuple[PublishedVersion, ...]:
        """As `Fleet` says."""
        ...


def rising_choice(fleet: Versions, built: BuiltComponent) -> Choice:
    """The newest version when it is the same, else the next minor one."""
    newest = fleet.newest(built.name)
    if newest is None:
        return "1.0.0", True
    if newest.digest == built.digest:
        return newest.version, False
    major, minor, _ = _numbers(newest)
    return f"{major}.{minor + 1}.0", True


def model_choice(fleet: Versions, built: BuiltComponent, number: int) -> Choice:
    """The newest version of this model when it is the same, else its next patch.

    Raises:
        RolloutError: a version of that number holds another model.
    """
    archive = built.tags[MODEL_TAG]
    mine = [version for version in fleet.versions(built.name) if _numbers(version)[0] == number]
    for version in mine:
        found = version.tags.get(MODEL_TAG, "")
        if found != archive:
            raise RolloutError(
                f"{built.name} {version.version}: taken by other content: want the model whose archive has sha256 "
                f"{archive}, found {found or 'one that is not from this registry'}; versions are never changed: use "
                "another [fleet] component_prefix, or the registry that the published ones came from"
            )
    if not mine:
        return f"{number}.0.0", True
    newest = max(mine, key=_numbers)
    if newest.digest == built.digest:
        return newest.version, False
    return f"{number}.0.{_numbers(newest)[2] + 1}", True


def _numbers(published: PublishedVersion) -> tuple[int, int, int]:
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", published.version)
    if match is None:
        raise RolloutError(f"{published.name}: want versions major.minor.patch, found {published.version!r}")
    return int(match[1]), int(match[2]), int(match[3])
