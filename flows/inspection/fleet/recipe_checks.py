"""What is wrong with a recipe, before a device finds out.

Source: AWS IoT Greengrass component recipe reference (format 2020-01-25) for names, types and which keys must be there;
the schema that AWS publishes with its development kit folds case, nucleus lite does not, so case is exact here. What
the reference does not say was observed on nucleus lite 2.6.0.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

MAX_RECIPE_BYTES = 16_000
"""Source: AWS IoT Greengrass V2 quotas, size of a component recipe, 16 kB."""
MAX_SCRIPT_BYTES = 10_000
MAX_POLICY_BYTES = 4000
"""Of one service's access control: nucleus lite reads it into 4 kB."""
VARIABLES = ("artifacts:path", "artifacts:decompressedPath", "kernel:rootPath", "iot:thingName", "work:path")
"""Known to both nuclei in scripts."""

_TOP = {
    "RecipeFormatVersion": (str, True),
    "ComponentName": (str, True),
    "ComponentVersion": (str, True),
    "ComponentDescription": (str, False),
    "ComponentPublisher": (str, True),
    "ComponentConfiguration": (dict, False),
    "ComponentDependencies": (dict, False),
    "Manifests": (list, True),
}
_DEPENDENCY = {"VersionRequirement": (str, True), "DependencyType": (str, True)}
_MANIFEST = {"Name": (str, False), "Platform": (dict, True), "Artifacts": (list, False), "Lifecycle": (dict, True)}
_ARTIFACT = {"Uri": (str, True), "Unarchive": (str, False), "Permission": (dict, False)}
_PERMISSION = {"Read": (str, False), "Execute": (str, False)}
_LIFECYCLE = {"install": (dict, False), "run": (dict, True)}
_STEP = {
    "Script": (str, True),
    "RequiresPrivilege": (str, False),
    "Timeout": (str, False),
    "Setenv": (dict, False),
}
_POLICY = {"policyDescription": (str, False), "operations": (list, True), "resources": (list, True)}
_OPERATIONS = {
    "aws.greengrass.ipc.mqttproxy": {"aws.greengrass#PublishToIoTCore", "aws.greengrass#SubscribeToIoTCore"},
    "aws.greengrass.ipc.pubsub": {"aws.greengrass#PublishToTopic", "aws.greengrass#SubscribeToTopic"},
}
_Shape = Mapping[str, tuple[type, bool]]


def recipe_faults(recipe: dict[str, Any]) -> list[str]:
    """Every fault in words; none when both nuclei can run it."""
    faults = list(_keys(recipe, _TOP, "recipe"))
    if faults:
        return faults
    faults += _identity(recipe)
    for name, dependency in recipe.get("ComponentDependencies", {}).items():
        where = f"ComponentDependencies.{name}"
        found = list(_keys(dependency, _DEPENDENCY, where))
        if not found and dependency["DependencyType"] != "SOFT":
            found.append(f"{where}.DependencyType: want SOFT, found {dependency['DependencyType']}; HARD stops both")
        faults += found
    configuration = recipe.get("ComponentConfiguration", {})
    faults += _keys(configuration, {"DefaultConfiguration": (dict, False)}, "ComponentConfiguration")
    if not faults:
        faults += _access(configuration.get("DefaultConfiguration", {}).get("accessControl", {}))
    for number, manifest in enumerate(recipe["Manifests"]):
        faults += _manifest(manifest, f"Manifests[{number}]")
    if not recipe["Manifests"]:
        faults.append("Manifests: want at least one, found none")
    return faults


def _identity(recipe: dict[str, Any]) -> Iterator[str]:
    if recipe["RecipeFormatVersion"] != "2020-01-25":
        yield f"RecipeFormatVersion: want 2020-01-25, found {recipe['RecipeFormatVersion']!r}"
    name = recipe["ComponentName"]
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", name) or name.startswith("aws.greengrass"):
        yield f"ComponentName: want 1 to 128 letters, digits, _ . - and not aws.greengrass, found {name!r}"
    if not re.fullmatch(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?", recipe["ComponentVersion"]):
        yield f"ComponentVersion: want major.minor.patch, found {recipe['ComponentVersion']!r}"
    size = len(json.dumps(recipe).encode())
    if size > MAX_RECIPE_BYTES:
        yield f"recipe: want at most {MAX_RECIPE_BYTES} bytes, found {size}"


def _manifest(manifest: Any, where: str) -> Iterator[str]:
    faults = list(_keys(manifest, _MANIFEST, where))
    if faults:
        yield from faults
        return
    platform = manifest["Platform"]
    yield from _keys(
        platform, {"os": (str, True), "architecture": (str, False), "runtime": (str, True)}, f"{where}.Platform"
    )
    if platform.get("runtime") != "*":
        yield f'{where}.Platform.runtime: want "*", which both nuclei take, found {platform.get("runtime")!r}'
    for number, artifact in enumerate(manifest.get("Artifacts", [])):
        at = f"{where}.Artifacts[{number}]"
        yield from _keys(artifact, _ARTIFACT, at)
        yield from _keys(artifact.get("Permission", {}), _PERMISSION, f"{at}.Permission")
        if artifact.get("Unarchive", "NONE") not in ("ZIP", "NONE"):
            yield f"{at}.Unarchive: want ZIP or NONE, found {artifact['Unarchive']!r}"
        for what, who in artifact.get("Permission", {}).items():
            if who not in ("NONE", "OWNER", "ALL"):
                yield f"{at}.Permission.{what}: want NONE, OWNER or ALL, found {who!r}"
    yield from _keys(manifest["Lifecycle"], _LIFECYCLE, f"{where}.Lifecycle")
    for phase, step in manifest["Lifecycle"].items():
        yield from _step(step, f"{where}.Lifecycle.{phase}")


def _step(step: Any, where: str) -> Iterator[str]:
    faults = list(_keys(step, _STEP, where))
    if faults:
        yield from faults
        return
    script = step["Script"]
    if len(script.encode()) > MAX_SCRIPT_BYTES:
        yield f"{where}.Script: want at most {MAX_SCRIPT_BYTES} bytes, found {len(script.encode())}"
    if step.get("RequiresPrivilege", "false") != "false":
        yield f'{where}.RequiresPrivilege: want "false", found {step["RequiresPrivilege"]!r}'
    if not step.get("Timeout", "1").isdigit():
        yield f"{where}.Timeout: want whole seconds as text, found {step['Timeout']!r}"
    rest = script
    for variable in VARIABLES:
        rest = rest.replace("{" + variable + "}", "")
    if "{" in rest or "}" in rest:
        yield f"{where}.Script: want no braces but {', '.join(VARIABLES)}, found {script!r}"


def _access(control: Any) -> Iterator[str]:
    for service, policies in control.items():
        where = f"accessControl.{service}"
        if service not in _OPERATIONS:
            yield f"{where}: want one of {', '.join(_OPERATIONS)}"
            continue
        if len(json.dumps(policies).encode()) > MAX_POLICY_BYTES:
            yield f"{where}: want at most {MAX_POLICY_BYTES} bytes, found {len(json.dumps(policies).encode())}"
        for name, policy in policies.items():
            yield from _keys(policy, _POLICY, f"{where}.{name}")
            for operation in policy.get("operations", []):
                if operation not in _OPERATIONS[service]:
                    yield f"{where}.{name}: want operations by name, found {operation!r}"
            for resource in policy.get("resources", []):
                if "*" in resource or "#" in resource or "{" in resource:
                    yield f"{where}.{name}: want named topics (+ for the thing), found {resource!r}"
                elif service.endswith("pubsub") and "+" in resource:
                    yield f"{where}.{name}: the local bus knows no wildcard +, found {resource!r}"


def _keys(value: Any, shape: _Shape, where: str) -> Iterator[str]:
    """Unknown, missing and mistyped keys; a key in another case is unknown, and the right one is told."""
    if not isinstance(value, dict):
        yield f"{where}: want an object, found {value!r}"
        return
    exact = {name.lower(): name for name in shape}
    for name, item in value.items():
        if name not in shape:
            yield f"{where}.{name}: no such key; want {exact.get(name.lower(), ', '.join(shape))}"
        elif not isinstance(item, shape[name][0]):
            yield f"{where}.{name}: want {shape[name][0].__name__}, found {item!r}"
    for name, (_, required) in shape.items():
        if required and name not in value:
            yield f"{where}.{name}: missing"
