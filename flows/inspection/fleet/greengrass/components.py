"""Component versions in AWS IoT Greengrass: found, published once, never changed."""

import hashlib
import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from inspection.errors import RolloutError
from inspection.fleet.greengrass.artifacts import ArtifactStore, check_artifacts, check_digests
from inspection.fleet.greengrass.clients import Clients
from inspection.fleet.greengrass.errors import DOCUMENT, code_of, explained, is_missing, message_of
from inspection.fleet.interface import DIGEST_TAG, ComponentVersion, PublishedVersion

_log = logging.getLogger(__name__)

DEPLOYABLE_WITHIN_S = 300.0
_READY = frozenset({"DEPLOYABLE", "DEPRECATED"})
_ON_ITS_WAY = frozenset({"REQUESTED", "INITIATED"})
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True)
class _Found:
    """A version as the service describes it."""

    published: PublishedVersion
    state: str
    why: str  # it cannot be deployed
    created: str


class ComponentStore:
    """The component versions of the account and region.

    Args:
        clients: of the fleet.
        artifacts: where their zips lie.
        sleep: seconds; tests give their own.
    """

    def __init__(self, clients: Clients, artifacts: ArtifactStore, sleep: Callable[[float], None] = time.sleep) -> None:
        self._clients = clients
        self._artifacts = artifacts
        self._sleep = sleep

    def newest(self, name: str) -> PublishedVersion | None:
        """The highest version that can be deployed."""
        return next(self._ready(name), None)

    def versions(self, name: str) -> tuple[PublishedVersion, ...]:
        """All versions that can be deployed, lowest first."""
        return tuple(reversed(list(self._ready(name))))

    def find(self, name: str, version: str) -> PublishedVersion | None:
        """One version, if it can be deployed.

        A version that failed or is not ready is as good as none: publishing it again replaces or awaits it.
        """
        found = self._describe(name, version)
        return found.published if found is not None and found.state in _READY else None

    def publish(self, component: ComponentVersion) -> PublishedVersion:
        """Store artifacts and recipe, and wait until the version can be deployed.

        Raises:
            RolloutError: the version has other content, or the service refuses the component.
        """
        name, version = component.name, component.version
        if (component.recipe.get("ComponentName"), component.recipe.get("ComponentVersion")) != (name, version):
            raise RolloutError(
                f"{name} {version}: want a recipe of it, found one of {component.recipe.get('ComponentName')} "
                f"{component.recipe.get('ComponentVersion')}"
            )
        place = {file: self._artifacts.uri(name, version, file) for file in component.artifacts}
        check_artifacts(component.recipe, place)
        there = self._describe(name, version)
        again = ""
        if there is not None and there.state == "FAILED" and there.published.digest:
            # It never could be deployed, so nobody has it: what made it fail may be mended by now
            self._delete(name, version, there.why)
            again, there = there.created, None
        if there is None:
            self._artifacts.upload(name, version, component.artifacts)
            self._create(component, again)
        else:
            _refuse_other_content(component, there)
        published = self._await(component)
        check_digests(self._recipe(name, version), component.artifacts, place)
        return published

    def _create(self, component: ComponentVersion, again: str) -> None:
        """Make the version, unless somebody makes the same at this moment.

        Args:
            component: what is published.
            again: when the failed one before was created; "" = there was none.
        """
        name, version = component.name, component.version
        recipe = json.dumps(component.recipe).encode()
        tags = {**component.tags, DIGEST_TAG: component.digest}
        token = hashlib.sha256(json.dumps([name, version, tags, again], sort_keys=True).encode() + recipe).hexdigest()
        doing = f"publishing {name} {version}"
        try:
            self._clients.greengrass.create_component_version(inlineRecipe=recipe, tags=tags, clientToken=token)
            _log.info("event=component_created name=%s version=%s", name, version)
        except ClientError as error:
            code = code_of(error)
            if code in ("ConflictException", "RequestAlreadyInProgressException"):
                return  # what is there now is compared when it is awaited
            if code == "ValidationException" and "Artifacts" in message_of(error):
                raise RolloutError(
                    f"{doing} in {self._clients.region}: the service cannot read an artifact; these credentials need "
                    f"s3:GetObject on it (and kms:Decrypt if it is encrypted by a key), see {DOCUMENT}. AWS says: "
                    f"{message_of(error)}"
                ) from error
            with explained(doing, self._clients.region):
                raise

    def _await(self, component: ComponentVersion) -> PublishedVersion:
        """The version when it can be deployed."""
        name, version = component.name, component.version
        waited, pause = 0.0, 0.25
        while True:
            found = self._describe(name, version)
            if found is not None:
                _refuse_other_content(component, found)
                if found.state in _READY:
                    return found.published
            if found is not None and found.state not in _ON_ITS_WAY:
                raise RolloutError(
                    f"{name} {version}: the service made it {found.state} in {self._clients.region}: {found.why}; "
                    "mend that and run again: the failed version is then replaced"
                )
            if waited >= DEPLOYABLE_WITHIN_S:
                raise RolloutError(
                    f"{name} {version}: want it DEPLOYABLE within {DEPLOYABLE_WITHIN_S:.0f} s, found "
                    f"{found.state if found else 'nothing'}; run again later: it goes on where it stopped"
                )
            self._sleep(pause)
            waited, pause = waited + pause, min(2 * pause, 5.0)

    def _ready(self, name: str) -> Iterator[PublishedVersion]:
        """Versions that can be deployed, highest first."""
        for version in self.numbers(name):
            found = self.find(name, version)
            if found is not None:
                yield found

    def numbers(self, name: str) -> list[str]:
        """Version numbers of a component, highest first; those that are not major.minor.patch are others' business."""
        arn = self._clients.component_arn(name)
        with explained(f"listing the versions of {name}", self._clients.region):
            try:
                pages = self._clients.greengrass.get_paginator("list_component_versions").paginate(arn=arn)
                found = [entry["componentVersion"] for page in pages for entry in page.get("componentVersions", [])]
            except ClientError as error:
                if not is_missing(error):
                    raise
                found = []
        return sorted((number for number in found if _VERSION.fullmatch(number)), key=_key, reverse=True)

    def _describe(self, name: str, version: str) -> _Found | None:
        with explained(f"looking for {name} {version}", self._clients.region):
            try:
                answer = self._clients.greengrass.describe_component(arn=self._arn(name, version))
            except ClientError as error:
                if is_missing(error):
                    return None
                raise
        tags = answer.get("tags", {})
        status = answer.get("status", {})
        reasons = [status.get("message", ""), *(f"{what}: {why}" for what, why in status.get("errors", {}).items())]
        return _Found(
            PublishedVersion(name, version, tags.get(DIGEST_TAG, ""), tags),
            status.get("componentState", "DEPLOYABLE"),
            "; ".join(reason for reason in reasons if reason) or "no reason given",
            str(answer.get("creationTimestamp", "")),
        )

    def _recipe(self, name: str, version: str) -> dict[str, Any]:
        with explained(f"reading the recipe of {name} {version}", self._clients.region):
            answer = self._clients.greengrass.get_component(arn=self._arn(name, version), recipeOutputFormat="JSON")
        recipe: dict[str, Any] = json.loads(answer["recipe"])
        return recipe

    def _delete(self, name: str, version: str, why: str) -> None:
        with explained(f"replacing {name} {version}, which failed ({why})", self._clients.region):
            self._clients.greengrass.delete_component(arn=self._arn(name, version))
        _log.info("event=failed_component_deleted name=%s version=%s why=%s", name, version, why)

    def _arn(self, name: str, version: str) -> str:
        return f"{self._clients.component_arn(name)}:versions:{version}"


def _refuse_other_content(component: ComponentVersion, there: _Found) -> None:
    if there.published.digest != component.digest:
        raise RolloutError(
            f"{component.name} {component.version}: is taken by other content: want digest {component.digest}, found "
            f"{there.published.digest or 'none (somebody else published it)'}; a version is never changed: choose "
            "another [fleet] component_prefix, or delete that version if no device has it"
        )


def _key(version: str) -> tuple[int, ...]:
    match = _VERSION.fullmatch(version)
    return tuple(int(part) for part in match.groups()) if match else ()
