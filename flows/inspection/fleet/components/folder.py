"""Components as folders that the nuclei's own command-line tools deploy by hand, without AWS.

    recipes/<component>-<version>.json
    artifacts/<component>/<version>/<zip's stem>/…        what the zip holds

The artifacts lie unpacked, and the recipes name their place by `{artifacts:path}` and list no artifact: nucleus lite
unpacks nothing that did not come from AWS (it looks for a component's ARN, and without one takes what is on the disk),
and the classic nucleus would ask S3 for what a recipe lists. Both tools copy folders as they are.

Source: AWS IoT Greengrass V2 developer guide, Greengrass CLI, deployment create; nucleus lite, ggl-cli and
ggdeploymentd.
"""

import json
import zipfile
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from inspection.errors import RolloutError
from inspection.fleet.components.built import Built, BuiltComponent, RecipeMaker
from inspection.fleet.components.publishing import PublishedSet
from inspection.fleet.components.zips import disk_errors
from inspection.fleet.recipe_checks import recipe_faults

Nucleus = Literal["lite", "classic"]
BUCKET = "artifacts"
"""Stands in URIs until they are taken out."""
FIRST = PublishedSet("1.0.0", "1.0.0", "", "", "")


def build_folder(built: Built, folder: Path, published: PublishedSet | None = None, challenger: bool = False) -> Path:
    """Write recipes and artifacts for deployments by hand.

    Args:
        built: the components.
        folder: for `recipes/` and `artifacts/`; versions of ours that are there are replaced, other files stay.
        published: the versions, so that a folder and a fleet agree; None = the first ones.
        challenger: whether to write it, too, for a comparison with the model that is there.

    Returns:
        The folder.

    Raises:
        RolloutError: the disk is full, or the folder cannot be written.
    """
    versions = versions_of(built, published)
    make_inspector = partial(built.make_inspector_recipe, runtime=versions[built.runtime.name])
    parts: list[tuple[BuiltComponent, RecipeMaker]] = [
        (built.runtime, built.runtime.make_recipe),
        (built.inspector, make_inspector),
        (built.model, built.model.make_recipe),
    ]
    if challenger:
        parts.append((built.challenger, built.challenger.make_recipe))
    for component, make_recipe in parts:
        _write(component, versions[component.name], make_recipe, folder)
    return folder


def versions_of(built: Built, published: PublishedSet | None = None) -> dict[str, str]:
    """Component to version, as `build_folder` names them."""
    number = f"{built.model_version}.0.0"
    found = published or FIRST
    return {
        built.runtime.name: found.runtime,
        built.inspector.name: found.inspector,
        built.model.name: found.model or number,
        built.challenger.name: found.challenger or number,
    }


def deploy_command(built: Built, folder: Path, nucleus: Nucleus, published: PublishedSet | None = None) -> list[str]:
    """What to type on a device to which the folder was copied.

    Args:
        built: the components.
        folder: where it lies on the device.
        nucleus: on the device.
        published: as for `build_folder`.

    Raises:
        RolloutError: another nucleus.
    """
    if nucleus not in get_args(Nucleus):
        raise RolloutError(f"nucleus: want lite or classic, found {nucleus!r}")
    versions = versions_of(built, published)
    wanted = [f"{name}={versions[name]}" for name in (built.runtime.name, built.model.name, built.inspector.name)]
    recipes, artifacts = str(folder / "recipes"), str(folder / "artifacts")
    if nucleus == "lite":
        command = ["ggl-cli", "deploy", "--recipe-dir", recipes, "--artifacts-dir", artifacts]
        return [*command, *(part for name in wanted for part in ("--add-component", name))]
    command = ["greengrass-cli", "deployment", "create", "--recipeDir", recipes, "--artifactDir", artifacts]
    return [*command, *(part for name in wanted for part in ("--merge", name))]


def _write(component: BuiltComponent, version: str, make_recipe: RecipeMaker, folder: Path) -> None:
    uris = {file: f"s3://{BUCKET}/{file}" for file in component.artifacts}
    recipe = unpacked_recipe(make_recipe(version, uris))
    with disk_errors(folder):
        for file, path in component.artifacts.items():
            _unpack(path, folder / "artifacts" / component.name / version / Path(file).stem)
        recipes = folder / "recipes"
        recipes.mkdir(parents=True, exist_ok=True)
        place = recipes / f"{component.name}-{version}.json"
        place.write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
        place.chmod(0o644)


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
