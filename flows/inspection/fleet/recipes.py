"""Recipes of the Greengrass components: filled from the templates in `edge/recipes/`, and checked.

Both nuclei read them: lite takes keys in exact case only, and fails in the field on what the cloud accepts.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import edge
from inspection.errors import RolloutError
from inspection.fleet.recipe_checks import recipe_faults

TEMPLATES = Path(edge.__file__).parent / "recipes"
SCRIPTS = {"runtime": "install.sh", "model": "verify.sh", "inspector": "run.sh"}
"""What the script of each component is called inside its artifact."""
CHOOSE = "choose.py"
"""What the runtime's choice among its sets of wheels is called inside its artifact."""

_PLACEHOLDER = re.compile(r"@[A-Z_]+@")
_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?")
_ARTIFACT = re.compile(
    r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/(?P<key>[A-Za-z0-9_./=-]+/)?(?P<stem>[A-Za-z0-9_-]+)\.zip"
)
_ARCHITECTURES = ("aarch64", "amd64", "arm")


@dataclass(frozen=True)
class ComponentNames:
    """What the components of a line are called."""

    runtime: str
    model: str
    inspector: str
    challenger: str


def component_names(line: str, prefix: str = "lineside") -> ComponentNames:
    """The names of a line's components; the runtime is shared by all lines."""
    return ComponentNames(
        f"{prefix}.Runtime", f"{prefix}.Model.{line}", f"{prefix}.Inspector.{line}", f"{prefix}.Challenger.{line}"
    )


def runtime_recipe(version: str, artifacts: dict[str, str], publisher: str, prefix: str = "lineside") -> dict[str, Any]:
    """The recipe of the Python packages.

    Args:
        version: semantic version of the component.
        artifacts: URI of the .zip for each architecture, as Greengrass names it: aarch64, amd64, arm.
        publisher: who makes the component.
        prefix: of all component names.

    Raises:
        RolloutError: a value that recipes cannot carry.
    """
    unknown = sorted(set(artifacts) - set(_ARCHITECTURES))
    if unknown or not artifacts:
        raise RolloutError(f"architectures: want some of {', '.join(_ARCHITECTURES)}, found {unknown or 'none'}")
    recipe: dict[str, Any] = {}
    for architecture, uri in sorted(artifacts.items()):
        one = _fill("runtime", version, uri, {"PUBLISHER": publisher, "ARCHITECTURE": architecture}, "x", prefix)
        if recipe:
            recipe["Manifests"] += one["Manifests"]
        else:
            recipe = one
    return _checked(recipe)


def model_recipe(version: str, artifact: str, line: str, publisher: str, prefix: str = "lineside") -> dict[str, Any]:
    """The recipe of a line's model package.

    Args:
        version: semantic version of the component.
        artifact: URI of the .zip.
        line: name of the line.
        publisher: who makes the component.
        prefix: of all component names.

    Raises:
        RolloutError: a value that recipes cannot carry.
    """
    return _checked(_fill("model", version, artifact, {"PUBLISHER": publisher}, line, prefix))


def challenger_recipe(
    version: str, artifact: str, line: str, publisher: str, prefix: str = "lineside"
) -> dict[str, Any]:
    """The recipe of a model package that the inspector judges by beside the one that decides.

    It is that of the model under another name.

    Raises:
        RolloutError: a value that recipes cannot carry.
    """
    recipe = _fill("model", version, artifact, {"PUBLISHER": publisher}, line, prefix)
    recipe["ComponentName"] = component_names(line, prefix).challenger
    recipe["ComponentDescription"] = f"Model package of the line {line} that is compared with the one that decides"
    return _checked(recipe)


def inspector_recipe(
    version: str,
    artifact: str,
    line: str,
    publisher: str,
    runtime_version: str,
    settings: dict[str, Any],
    topic_root: str = "lineside",
    prefix: str = "lineside",
) -> dict[str, Any]:
    """The recipe of a line's inspector.

    Args:
        version: semantic version of the component.
        artifact: URI of the .zip.
        line: name of the line.
        publisher: who makes the component.
        runtime_version: of the runtime that it is deployed with; a later minor will do, too.
        settings: of the inspector, see `edge.settings`; they become its default configuration. The line, the topic
            root and the access control are not among them.
        topic_root: first levels of every topic.
        prefix: of all component names.

    Raises:
        RolloutError: a value that recipes cannot carry.
    """
    reserved = sorted({"line", "topic_root", "accessControl"} & set(settings))
    if reserved:
        raise RolloutError(f"settings: want none of {', '.join(reserved)}, which come from the line itself")
    match = _VERSION.fullmatch(runtime_version)
    if match is None:
        raise RolloutError(f"runtime_version: want major.minor.patch, found {runtime_version!r}")
    values = {
        "PUBLISHER": publisher,
        "ROOT": topic_root,
        "RUNTIME_VERSION": runtime_version,
        "RUNTIME_VERSIONS": f">={runtime_version} <{int(match[1]) + 1}.0.0",
    }
    recipe = _fill("inspector", version, artifact, values, line, prefix)
    # Text only; the inspector coerces.
    recipe["ComponentConfiguration"]["DefaultConfiguration"].update(as_text(settings))
    return _checked(recipe)


def run_with(memory_mb: int, cpus: float, user: str | None = None) -> dict[str, Any]:
    """What a deployment's component entry says under `runWith`: resource limits, and the user if it is not the default.

    Args:
        memory_mb: RAM in MB that the inspector and its uploader may use together.
        cpus: CPU cores.
        user: `user:group` of the device.

    Source: AWS IoT Greengrass V2 API reference, ComponentRunWith and SystemResourceLimits (memory in kB).
    """
    if memory_mb < 64 or not 0 < cpus <= 256:
        raise RolloutError(f"limits: want memory >= 64 MB and cpus in (0, 256], found {memory_mb} MB and {cpus}")
    entry: dict[str, Any] = {"systemResourceLimits": {"memory": memory_mb * 1024, "cpus": cpus}}
    if user is not None:
        entry["posixUser"] = user
    return entry


def script(component: str) -> str:
    """The script that goes into a component's artifact under the name that `SCRIPTS` gives.

    Args:
        component: runtime, model or inspector.
    """
    return (TEMPLATES / f"{component}-{SCRIPTS[component]}").read_text(encoding="utf-8")


def choose_script() -> str:
    """What goes into the runtime's artifact as `CHOOSE`."""
    return (TEMPLATES / f"runtime-{CHOOSE}").read_text(encoding="utf-8")


def _fill(template: str, version: str, artifact: str, values: dict[str, str], line: str, prefix: str) -> dict[str, Any]:
    match = _ARTIFACT.fullmatch(artifact)
    if match is None:
        raise RolloutError(f"artifact: want s3://bucket/key/name.zip, found {artifact!r}")
    if not _VERSION.fullmatch(version):
        raise RolloutError(f"version: want major.minor.patch, found {version!r}")
    names = component_names(line, prefix)
    values = {
        **values,
        "RUNTIME": names.runtime,
        "MODEL": names.model,
        "INSPECTOR": names.inspector,
        "CHALLENGER": names.challenger,
        "LINE": line,
        "VERSION": version,
        "ARTIFACT": artifact,
        "STEM": match["stem"],
    }
    for name, value in values.items():
        if re.search(r"[{}@\"'`$\\\n]", value):
            raise RolloutError(f"{name.lower()}: want text without braces, quotes and $, found {value!r}")
    recipe = json.loads((TEMPLATES / f"{template}.json").read_text(encoding="utf-8"))
    filled: dict[str, Any] = _replace(recipe, values)
    return filled


def _replace(value: Any, values: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {_replace(key, values): _replace(item, values) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace(item, values) for item in value]
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda found: values[found.group()[1:-1]], value)
    return value


def as_text(value: Any) -> Any:
    """Settings as a recipe carries them: numbers, which come back as floats from some nuclei, as text."""
    if isinstance(value, dict):
        return {key: as_text(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_text(item) for item in value]
    return str(value).lower() if isinstance(value, bool) else str(value)


def _checked(recipe: dict[str, Any]) -> dict[str, Any]:
    faults = recipe_faults(recipe)
    if faults:
        raise RolloutError("the recipe has faults:\n  " + "\n  ".join(faults))
    return recipe
