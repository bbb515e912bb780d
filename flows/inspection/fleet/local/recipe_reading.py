"""A recipe as a nucleus reads it: the manifest for this machine, its scripts with their variables filled."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inspection.errors import RolloutError
from inspection.fleet.local.folders import DeviceFolder, architecture

DEFAULT_TIMEOUT_S = 120.0
"""Of an install script. Source: component recipe reference, `Timeout`."""


@dataclass(frozen=True)
class Step:
    """A script of a component's life cycle."""

    script: str  # for the shell, variables filled
    timeout_s: float
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Archive:
    """An artifact of the manifest."""

    file: str
    unpack: bool


@dataclass(frozen=True)
class ComponentRecipe:
    """What the nucleus must know of a component version."""

    name: str
    version: str
    artifacts: tuple[Archive, ...]
    install: Step | None
    run: Step | None
    configuration: Mapping[str, Any]  # the defaults


def read_recipe(recipe: Mapping[str, Any], folder: DeviceFolder, thing: str) -> ComponentRecipe:
    """Choose the manifest of this machine and fill its scripts.

    Args:
        recipe: without faults, see `recipe_checks`.
        folder: of the device.
        thing: name of the device.

    Raises:
        RolloutError: no manifest is for this machine.
    """
    name, version = recipe["ComponentName"], recipe["ComponentVersion"]
    manifest = _choose(recipe)
    values = {
        "{artifacts:path}": str(folder.artifacts(name, version)),
        "{artifacts:decompressedPath}": str(folder.unpacked(name, version)),
        "{kernel:rootPath}": str(folder.root),
        "{work:path}": str(folder.work(name)),
        "{iot:thingName}": thing,
    }
    lifecycle = manifest["Lifecycle"]
    artifacts = tuple(
        Archive(str(entry["Uri"]).rpartition("/")[2], entry.get("Unarchive", "NONE") == "ZIP")
        for entry in manifest.get("Artifacts", [])
    )
    defaults = recipe.get("ComponentConfiguration", {}).get("DefaultConfiguration", {})
    return ComponentRecipe(
        name, version, artifacts, _step(lifecycle, "install", values), _step(lifecycle, "run", values), defaults
    )


def _choose(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    here = architecture()
    for manifest in recipe["Manifests"]:
        platform = manifest["Platform"]
        if platform.get("os") in ("linux", "*", "all") and platform.get("architecture", "*") in (here, "*"):
            chosen: Mapping[str, Any] = manifest
            return chosen
    found = sorted({manifest["Platform"].get("architecture", "*") for manifest in recipe["Manifests"]})
    raise RolloutError(
        f"{recipe['ComponentName']} {recipe['ComponentVersion']}: want a manifest for linux on {here}, found "
        f"{', '.join(found)}; build it for this device, see [fleet] architectures"
    )


def _step(lifecycle: Mapping[str, Any], phase: str, values: Mapping[str, str]) -> Step | None:
    step = lifecycle.get(phase)
    if step is None:
        return None
    script = step["Script"]
    for variable, value in values.items():
        script = script.replace(variable, value)
    return Step(script, float(step.get("Timeout", DEFAULT_TIMEOUT_S)), dict(step.get("Setenv", {})))
