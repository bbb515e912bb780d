"""What stands for the cloud on this machine: component versions and what each thing group is to have, as files.

    cloud/components/<name>/<version>/   recipe.json, version.json, artifacts/<file>     never changed
    cloud/deployments/<group>/000001.json                                                never changed
    cloud/deployments/<group>/000001.cancelled

A component version appears as a whole by one rename; of two that publish it at once one succeeds.
"""

import errno
import logging
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.digest import sha256_of
from inspection.errors import RolloutError
from inspection.fleet.interface import ComponentVersion, PublishedVersion
from inspection.fleet.local.documents import (
    COMPONENT,
    FILE,
    GROUP,
    VERSION,
    check_name,
    create_document,
    read_document,
    write_document,
)
from inspection.fleet.recipe_checks import recipe_faults

log = logging.getLogger(__name__)

PROVIDED = "aws.greengrass."
"""Components whose names begin so come with the nucleus: they are part of it here, whatever their version."""
_BUCKET = "s3://lineside-local"


@dataclass(frozen=True)
class Carried:
    """A component in a deployment."""

    version: str
    run_with: Mapping[str, Any] = field(default_factory=dict)
    merge: Mapping[str, Any] = field(default_factory=dict)  # configuration

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        return {"version": self.version, "run_with": dict(self.run_with), "merge": dict(self.merge)}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "Carried":
        """From JSON values."""
        return cls(str(document["version"]), document.get("run_with", {}), document.get("merge", {}))


@dataclass(frozen=True)
class Revision:
    """A group's deployment."""

    id: str
    group: str
    components: Mapping[str, Carried]
    label: str
    at: float  # unix time
    cancelled: bool


class Cloud:
    """The folder of the cloud; made when something is written.

    Every method raises RolloutError when the disk refuses, or a name cannot be a file's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    # Component versions

    def publish(self, component: ComponentVersion) -> PublishedVersion:
        """Store a component version; the same again is what is there.

        Raises:
            RolloutError: the version is taken by other content, or the component has faults.
        """
        name, version = component.name, component.version
        there = self.find(name, version)
        if there is None:
            _check(component)
            staged = self._folder / "staging" / uuid.uuid4().hex
            place = self._place(name, version)
            try:
                self._stage(component, staged)
                place.parent.mkdir(parents=True, exist_ok=True)
                staged.rename(place)
                log.info("event=component_published name=%s version=%s", name, version)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # else somebody else was faster
                    raise RolloutError(f"{name} {version}: cannot store it in {self._folder}: {error}") from error
            finally:
                shutil.rmtree(staged, ignore_errors=True)
            there = self.find(name, version)
        if there is None or there.digest != component.digest:
            found = "nothing" if there is None else there.digest[:12]
            raise RolloutError(
                f"{name} {version}: is taken by other content: want digest {component.digest[:12]}, found {found}; "
                "publish it under a higher version"
            )
        return there

    def find(self, name: str, version: str) -> PublishedVersion | None:
        """One version; None when there is none."""
        document = self.document(name, version)
        if document is None:
            return None
        return PublishedVersion(name, version, str(document["digest"]), dict(document["tags"]))

    def versions(self, name: str) -> tuple[PublishedVersion, ...]:
        """All versions, lowest first."""
        check_name(COMPONENT, "component name", name)
        folder = self._folder / "components" / name
        found = [entry.name for entry in folder.iterdir() if VERSION.fullmatch(entry.name)] if folder.is_dir() else []
        published = (self.find(name, version) for version in sorted(found, key=version_order))
        return tuple(one for one in published if one is not None)

    def document(self, name: str, version: str) -> dict[str, Any] | None:
        """What was noted of a version: digest, tags, and sha256 of each artifact; None when there is none."""
        return read_document(self._place(name, version) / "version.json")

    def recipe(self, name: str, version: str) -> dict[str, Any]:
        """A version's recipe.

        Raises:
            RolloutError: there is no such version.
        """
        document = read_document(self._place(name, version) / "recipe.json")
        if document is None:
            raise RolloutError(f"{name}: want version {version}, found none; publish it first")
        recipe: dict[str, Any] = document["recipe"]
        return recipe

    def artifact(self, name: str, version: str, file: str) -> Path:
        """Where an artifact lies."""
        return self._place(name, version) / "artifacts" / check_name(FILE, f"{name} {version}: artifact", file)

    def _place(self, name: str, version: str) -> Path:
        check_name(COMPONENT, "component name", name)
        return self._folder / "components" / name / check_name(VERSION, f"{name}: version", version)

    def _stage(self, component: ComponentVersion, staged: Path) -> None:
        (staged / "artifacts").mkdir(parents=True)
        digests = {}
        for file, source in component.artifacts.items():
            target = staged / "artifacts" / file
            shutil.copyfile(source, target)
            target.chmod(0o444)
            digests[file] = sha256_of(target)
        note = {"digest": component.digest, "tags": dict(component.tags), "artifacts": digests, "at": time.time()}
        write_document(staged / "recipe.json", {"recipe": dict(component.recipe)})
        write_document(staged / "version.json", note)

    # Deployments

    def newest(self, group: str) -> Revision | None:
        """A group's newest deployment, cancelled or not; None when it never had one."""
        folder = self._deployments(group)
        if not folder.is_dir():
            return None
        numbers = [path.name for path in folder.iterdir() if path.suffix == ".json" and path.stem.isdecimal()]
        if not numbers:
            return None
        path = folder / max(numbers)
        document = read_document(path)
        if document is None:
            raise RolloutError(f"{path}: was removed while it was read; try again")
        return Revision(
            id=f"{group}-{path.stem}",
            group=group,
            components={name: Carried.of(entry) for name, entry in document["components"].items()},
            label=str(document["label"]),
            at=float(document["at"]),
            cancelled=path.with_suffix(".cancelled").exists(),
        )

    def add(self, group: str, components: Mapping[str, Carried], label: str, after: Revision | None) -> Revision | None:
        """Make a group's next deployment; None when somebody else made one after `after` meanwhile."""
        folder = self._deployments(group)
        number = 1 if after is None else int(after.id.rpartition("-")[2]) + 1
        document = {
            "components": {name: carried.document() for name, carried in sorted(components.items())},
            "label": label,
            "at": time.time(),
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            create_document(folder / f"{number:06d}.json", document)
        except FileExistsError:
            return None
        except OSError as error:
            raise RolloutError(f"{group}: cannot store the deployment in {folder}: {error}") from error
        log.info("event=deployment_made group=%s number=%d label=%r", group, number, label)
        return Revision(f"{group}-{number:06d}", group, dict(components), label, document["at"], False)  # type: ignore[arg-type]

    def cancel(self, revision: Revision) -> None:
        """Keep a deployment from devices that it has not reached."""
        number = revision.id.rpartition("-")[2]
        path = self._deployments(revision.group) / f"{number}.cancelled"
        try:
            path.touch()
        except OSError as error:
            raise RolloutError(f"{revision.id}: cannot mark it as cancelled in {path.parent}: {error}") from error
        log.info("event=deployment_cancelled deployment=%s", revision.id)

    def _deployments(self, group: str) -> Path:
        return self._folder / "deployments" / check_name(GROUP, "[fleet.local] groups: name of a group", group)


def artifact_uri(name: str, version: str, file: str) -> str:
    """The URI that a recipe names an artifact by."""
    check_name(COMPONENT, "component name", name)
    check_name(VERSION, f"{name}: version", version)
    return f"{_BUCKET}/{name}/{version}/{check_name(FILE, f'{name} {version}: artifact', file)}"


def version_order(version: str) -> tuple[tuple[int, ...], bool, str]:
    """Sorts versions by number; one with a suffix comes before the same without."""
    numbers, _, suffix = version.partition("-")
    return tuple(int(number) for number in numbers.split(".")), not suffix, suffix


def _check(component: ComponentVersion) -> None:
    """Refuse what no device could run.

    Raises:
        RolloutError: the recipe has faults, or names other artifacts than there are.
    """
    name, version, recipe = component.name, component.version, dict(component.recipe)
    faults = recipe_faults(recipe)
    if not faults and (recipe["ComponentName"], recipe["ComponentVersion"]) != (name, version):
        found = f"{recipe['ComponentName']} {recipe['ComponentVersion']}"
        faults = [f"ComponentName and ComponentVersion: want {name} {version}, found {found}"]
    if faults:
        raise RolloutError(f"{name} {version}: the recipe has faults:\n  " + "\n  ".join(faults))
    wanted = {artifact["Uri"] for manifest in recipe["Manifests"] for artifact in manifest.get("Artifacts", [])}
    given = {artifact_uri(name, version, file) for file in component.artifacts}
    if wanted != given:
        raise RolloutError(
            f"{name} {version}: want the artifacts that the recipe names ({', '.join(sorted(wanted)) or 'none'}), "
            f"found {', '.join(sorted(given)) or 'none'}"
        )
    missing = [str(path) for path in component.artifacts.values() if not path.is_file()]
    if missing:
        raise RolloutError(f"{name} {version}: want the artifact's file, found none at {', '.join(missing)}")
