"""Components as folders that the nuclei's own command-line tools deploy by hand, without a fleet.

    recipes/<component>-<version>.json
    artifacts/<component>/<version>/<zip's stem>/…        what the zip holds
    versions.json                                          what was written here before, so that versions rise

The artifacts lie unpacked, and the recipes name their place by `{artifacts:path}` and list no artifact: nucleus lite
unpacks nothing that did not come from AWS (it looks for a component's ARN, and without one takes what is on the disk),
and the classic nucleus would ask S3 for what a recipe lists. Both tools copy folders as they are.

Source: AWS IoT Greengrass V2 developer guide, Greengrass CLI, deployment create; nucleus lite, ggl-cli and
ggdeploymentd.
"""

import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from inspection.errors import RolloutError
from inspection.fleet.components.built import Built, BuiltComponent, RecipeMaker
from inspection.fleet.components.publishing import model_choice, rising_choice
from inspection.fleet.components.zips import disk_errors
from inspection.fleet.interface import PublishedVersion
from inspection.fleet.recipe_checks import recipe_faults

Nucleus = Literal["lite", "classic"]
RECORD = "versions.json"


@dataclass(frozen=True)
class HandFolder:
    """Components that are ready to be deployed by hand."""

    folder: Path
    versions: Mapping[str, str]  # component to version, in the order in which they are named to the tools

    def command(self, nucleus: Nucleus, place: Path | None = None) -> list[str]:
        """What to type on a device.

        Args:
            nucleus: on the device.
            place: where the folder was copied to; None = where it is.

        Raises:
            RolloutError: another nucleus.
        """
        if nucleus not in get_args(Nucleus):
            raise RolloutError(f"nucleus: want lite or classic, found {nucleus!r}")
        folder = place or self.folder.absolute()
        recipes, artifacts = str(folder / "recipes"), str(folder / "artifacts")
        if nucleus == "lite":
            command = ["ggl-cli", "deploy", "--recipe-dir", recipes, "--artifacts-dir", artifacts]
            flag = "--add-component"
        else:
            command = ["greengrass-cli", "deployment", "create", "--recipeDir", recipes, "--artifactDir", artifacts]
            flag = "--merge"
        return [*command, *(part for name, version in self.versions.items() for part in (flag, f"{name}={version}"))]


def build_folder(built: Built, folder: Path, challenger: bool = False) -> HandFolder:
    """Write recipes and artifacts for deployments by hand.

    A component that differs from what was written there before gets the next version, by the rules for publishing; the
    older one is removed.

    Args:
        built: the components.
        folder: for `recipes/` and `artifacts/`.
        challenger: whether to write it, too, for a comparison with the model that is there.

    Raises:
        RolloutError: the disk is full, the folder cannot be written, or it holds another model of that version.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        written = _Written(folder)
        versions: dict[str, str] = {}
        versions[built.runtime.name] = rising_choice(written, built.runtime)[0]
        versions[built.model.name] = model_choice(written, built.model, built.model_version)[0]
        if challenger:
            versions[built.challenger.name] = model_choice(written, built.challenger, built.model_version)[0]
        versions[built.inspector.name] = rising_choice(written, built.inspector)[0]
        make_inspector = partial(built.make_inspector_recipe, runtime=versions[built.runtime.name])
        for component in (built.runtime, built.model, built.challenger, built.inspector):
            if component.name in versions:
                make_recipe = make_inspector if component is built.inspector else component.make_recipe
                _write(component, versions[component.name], make_recipe, folder)
                written.note(component, versions[component.name])
    return HandFolder(folder, versions)


class _Written:
    """What a folder holds; answers as a fleet does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / RECORD
        self._known: dict[str, Any] = {}
        if self._path.exists():
            try:
                self._known = json.loads(self._path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise RolloutError(f"{self._path}: cannot read it ({error}); write to another folder") from None

    def versions(self, name: str) -> tuple[PublishedVersion, ...]:
        """The one version that is there, if any."""
        known = self._known.get(name)
        return () if known is None else (PublishedVersion(name, known["version"], known["digest"], known["tags"]),)

    def newest(self, name: str) -> PublishedVersion | None:
        """Likewise."""
        return next(iter(self.versions(name)), None)

    def note(self, component: BuiltComponent, version: str) -> None:
        """Remember what was written, and remove the version before."""
        for older in self.versions(component.name):
            if older.version != version:
                (self._folder / "recipes" / f"{component.name}-{older.version}.json").unlink(missing_ok=True)
                shutil.rmtree(self._folder / "artifacts" / component.name / older.version, ignore_errors=True)
        self._known[component.name] = {"version": version, "digest": component.digest, "tags": dict(component.tags)}
        self._path.write_text(json.dumps(self._known, indent=2) + "\n", encoding="utf-8")


def _write(component: BuiltComponent, version: str, make_recipe: RecipeMaker, folder: Path) -> None:
    recipe = unpacked_recipe(make_recipe(version, {file: f"s3://artifacts/{file}" for file in component.artifacts}))
    for file, path in component.artifacts.items():
        place = folder / "artifacts" / component.name / version / Path(file).stem
        shutil.rmtree(place, ignore_errors=True)  # of a run that was killed
        _unpack(path, place)
    recipes = folder / "recipes"
    recipes.mkdir(exist_ok=True)
    target = recipes / f"{component.name}-{version}.json"
    target.write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    target.chmod(0o644)


def unpacked_recipe(recipe: dict[str, Any]) -> dict[str, Any]:
    """The same recipe for artifacts that lie unpacked where a nucleus keeps packed ones.

    Raises:
        RolloutError: it has faults then.
    """
    changed: dict[str, Any] = json.loads(json.dumps(recipe))
    for manifest in changed["Manifests"]:
        manifest.pop("Artifacts", None)
        for step in manifest["Lifecycle"].values():
            step["Script"] = step["Script"].replace("{artifacts:decompressedPath}", "{artifacts:path}")
    if faults := recipe_faults(changed):
        raise RolloutError("the recipe has faults:\n  " + "\n  ".join(faults))
    return changed


def _unpack(archive: Path, place: Path) -> None:
    """Unpack one of our own zips, readable for everybody whatever this program's umask."""
    with zipfile.ZipFile(archive) as source:
        source.extractall(place)
    for path in (place, *place.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
