"""Components as folders that the nuclei's own command-line tools deploy by hand, without AWS.

    recipes/<component>-<version>.json
    artifacts/<component>/<version>/<file>.zip

`ggl-cli` (lite) takes such folders as they are; `greengrass-cli` (classic) does so when an artifact's URI in the recipe
ends in the file's name. Both look for an artifact in `artifacts/` before they would fetch it. The folder serves one
architecture or all: the nucleus takes the manifest of its own.

Source: AWS IoT Greengrass V2 developer guide, Greengrass CLI, deployment; the nucleus lite's document on ggl-cli.
"""

import json
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from inspection.errors import RolloutError
from inspection.fleet.components.built import Built, BuiltComponent, RecipeMaker
from inspection.fleet.components.publishing import PublishedSet
from inspection.fleet.components.zips import disk_errors

BUCKET = "artifacts"
"""In URIs of artifacts that are never fetched."""
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


def deploy_command(built: Built, folder: Path, nucleus: str, published: PublishedSet | None = None) -> list[str]:
    """What to type on a device to which the folder was copied.

    Args:
        built: the components.
        folder: where it lies on the device.
        nucleus: lite or classic.
        published: as for `build_folder`.

    Raises:
        RolloutError: another nucleus.
    """
    versions = versions_of(built, published)
    wanted = [f"{name}={versions[name]}" for name in (built.runtime.name, built.model.name, built.inspector.name)]
    recipes, artifacts = str(folder / "recipes"), str(folder / "artifacts")
    if nucleus == "lite":
        command = ["ggl-cli", "deploy", "--recipe-dir", recipes, "--artifacts-dir", artifacts]
        return [*command, *(part for name in wanted for part in ("--add-component", name))]
    if nucleus == "classic":
        command = ["greengrass-cli", "deployment", "create", "--recipeDir", recipes, "--artifactDir", artifacts]
        return [*command, *(part for name in wanted for part in ("--merge", name))]
    raise RolloutError(f"nucleus: want lite or classic, found {nucleus!r}")


def _write(component: BuiltComponent, version: str, make_recipe: RecipeMaker, folder: Path) -> None:
    uris = {file: f"s3://{BUCKET}/{component.name}/{version}/{file}" for file in component.artifacts}
    recipe: Mapping[str, Any] = make_recipe(version, uris)
    with disk_errors(folder):
        place = folder / "artifacts" / component.name / version
        place.mkdir(parents=True, exist_ok=True)
        for file, path in component.artifacts.items():
            shutil.copyfile(path, place / file)
        recipes = folder / "recipes"
        recipes.mkdir(exist_ok=True)
        text = json.dumps(recipe, indent=2) + "\n"
        (recipes / f"{component.name}-{version}.json").write_text(text, encoding="utf-8")
