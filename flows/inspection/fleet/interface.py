"""What a fleet is, whatever carries it: components that are published once, and thing groups that they are deployed to.

A fleet knows nothing of models and rollouts: it stores component versions, gives a thing group a set of them, and says
what became of it on each device. What is deployed to a group is changed by naming our components only; whatever else
the group has stays. Both back ends (devices on this machine, AWS IoT Greengrass v2) pass the same tests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

DeploymentState = Literal["waiting", "in-progress", "succeeded", "failed", "offline"]
DEPLOYMENT_STATES: tuple[DeploymentState, ...] = get_args(DeploymentState)

DIGEST_TAG = "lineside-digest"  # of what a component version is made from, see BuiltComponent
MODEL_TAG = "lineside-model"  # sha256 of the model's archive in the registry


@dataclass(frozen=True)
class PublishedVersion:
    """A component version that the fleet has."""

    name: str
    version: str  # major.minor.patch
    digest: str  # of what it was made from, hex; "" = it was published by somebody else
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ComponentVersion:
    """A component version, ready to be published."""

    name: str
    version: str
    recipe: Mapping[str, Any]  # its artifacts' URIs are those that `artifact_uri` gave
    artifacts: Mapping[str, Path]  # the zip on this machine, by file name
    digest: str  # of what it was made from, hex
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ComponentSetting:
    """How a deployment carries one component."""

    version: str
    run_with: Mapping[str, Any] | None = None  # limits and user, see `recipes.run_with`; None: as it is
    merge: Mapping[str, Any] | None = None  # configuration to merge; None: as it is (a merge restarts the component)


@dataclass(frozen=True)
class Deployment:
    """What a thing group is to have."""

    id: str
    group: str
    components: Mapping[str, str]  # name to version, all of them, also those of other people
    active: bool  # the group's newest, and not cancelled


@dataclass(frozen=True)
class DeviceStatus:
    """What became of the group's deployment on one device."""

    thing: str
    group: str
    deployment: str  # id of the deployment that the state is about; "" = none reached it
    state: DeploymentState
    components: Mapping[str, str]  # that are installed, name to version
    states: Mapping[str, str]  # of those components: RUNNING, FINISHED, BROKEN, …
    error: str  # what the device says went wrong
    seen_at: float | None  # unix time of its last sign of life; None: never


class Fleet(Protocol):
    """A fleet of devices.

    Every method raises `RolloutError` when the fleet cannot be asked (credentials, region, network) or does not have
    what is named; the message says what to do.
    """

    def check(self, groups: Sequence[str]) -> None:
        """Refuse what could not work, before anything is changed: credentials, permissions, groups that are missing
        or share devices, nuclei that are too old."""
        ...

    def members(self, group: str) -> tuple[str, ...]:
        """Things of a group, sorted."""
        ...

    def newest(self, name: str) -> PublishedVersion | None:
        """The highest version of a component; None when there is none."""
        ...

    def find(self, name: str, version: str) -> PublishedVersion | None:
        """One version of a component; None when there is none."""
        ...

    def versions(self, name: str) -> tuple[PublishedVersion, ...]:
        """All versions of a component, lowest first."""
        ...

    def artifact_uri(self, name: str, version: str, file: str) -> str:
        """The `s3://` URI that a recipe names an artifact by."""
        ...

    def publish(self, component: ComponentVersion) -> PublishedVersion:
        """Store artifacts and recipe and wait until the version can be deployed.

        Publishing the same again returns what is there (a retry); a version is never changed.

        Raises:
            RolloutError: the version exists with another digest, or the fleet refuses the component.
        """
        ...

    def deployed(self, group: str) -> Deployment | None:
        """The group's newest deployment; None when it never had one."""
        ...

    def deploy(
        self,
        group: str,
        wanted: Mapping[str, ComponentSetting | None],
        label: str,
        everywhere_at_once: bool = False,
    ) -> Deployment:
        """Give a group our components; None removes one. All others stay as they are.

        When the newest deployment has exactly that already, it is returned and none is made (a retry).

        Args:
            group: thing group.
            wanted: component name to how it is carried.
            label: for people, such as `bottles model 7: canary`.
            everywhere_at_once: do not spread it over time and do not abort it half-way (a rollback).
        """
        ...

    def cancel(self, group: str) -> None:
        """Stop the group's newest deployment where it has not arrived; without one, nothing."""
        ...

    def status(self, group: str) -> tuple[DeviceStatus, ...]:
        """What became of the group's newest deployment, for every member, sorted by thing."""
        ...
