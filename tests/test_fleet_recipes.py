"""Recipes of the Greengrass components, their scripts run for real, and their access control against the double."""

import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ipc_double import IpcDouble
from sending import TOPICS, until
from tiny_wheels import tiny_wheels

from edge.errors import NotAuthorizedError
from edge.settings import read_settings
from edge.transports.nucleus import Nucleus
from edge.transports.opening import open_transport
from edge.transports.settings import FileSettings, MqttSettings
from inspection.errors import RolloutError
from inspection.fleet.components.runtime import build_runtime
from inspection.fleet.components.targets import MACHINES, Target, this_architecture, this_python
from inspection.fleet.recipe_checks import MAX_RECIPE_BYTES, recipe_faults
from inspection.fleet.recipes import (
    SCRIPTS,
    challenger_recipe,
    component_names,
    inspector_recipe,
    model_recipe,
    run_with,
    runtime_recipe,
    script,
)

NO_NETWORK = {
    "PIP_INDEX_URL": "http://127.0.0.1:1/",
    "PIP_TARGET": "/nowhere",  # a device's own settings must not matter
    "PYTHONPATH": "/nowhere",
    "http_proxy": "http://127.0.0.1:1/",
    "PATH": f"{Path(sys.executable).resolve().parent}:{os.environ['PATH']}",
}
SETTINGS = {"source": {"uri": "v4l2:/dev/video0"}, "deadline_ms": 500, "review": {"enabled": True}}


def runtime() -> dict[str, Any]:
    artifacts = {name: f"s3://artifacts-bucket/runtime/{name}/runtime.zip" for name in ("aarch64", "amd64")}
    return runtime_recipe("1.2.0", artifacts, "Somebody")


def model() -> dict[str, Any]:
    return model_recipe("3.0.1", "s3://artifacts-bucket/model.zip", "cookies", "Somebody")


def challenger() -> dict[str, Any]:
    return challenger_recipe("3.0.1", "s3://artifacts-bucket/model.zip", "cookies", "Somebody")


def inspector(**changes: Any) -> dict[str, Any]:
    values = {
        "version": "1.0.0",
        "artifact": "s3://artifacts-bucket/a/inspector.zip",
        "line": "cookies",
        "publisher": "Somebody",
        "runtime_version": "1.2.0",
        "settings": {"source": {"uri": "v4l2:/dev/video0"}},
        **changes,
    }
    return inspector_recipe(**values)


RECIPES = [runtime, model, challenger, inspector]


@pytest.mark.parametrize("make", RECIPES)
def test_a_recipe_is_complete_small_and_has_no_placeholder_left(make: Callable[[], dict[str, Any]]) -> None:
    recipe = make()
    assert recipe_faults(recipe) == []
    text = json.dumps(recipe)
    assert "@" not in text
    assert len(text) < MAX_RECIPE_BYTES


@pytest.mark.parametrize("make", RECIPES)
def test_a_recipe_agrees_with_the_published_schema(make: Callable[[], dict[str, Any]]) -> None:
    path = os.environ.get("INSPECTION_RECIPE_SCHEMA")
    if path is None:
        pytest.skip("INSPECTION_RECIPE_SCHEMA is not set: want recipe_schema.json of the Greengrass development kit")
    jsonschema.validate(_folded(make()), json.loads(Path(path).read_text()))


def _folded(value: Any) -> Any:
    """The published schema knows keys in lower case only, and folds a recipe's before it looks."""
    if isinstance(value, dict):
        return {key.lower(): _folded(item) for key, item in value.items()}
    return [_folded(item) for item in value] if isinstance(value, list) else value


def test_components_are_as_both_nuclei_need_them() -> None:
    assert "ComponentDependencies" not in runtime()
    assert "ComponentDependencies" not in model()
    assert challenger()["ComponentName"] == component_names("cookies").challenger
    assert challenger()["Manifests"] == model()["Manifests"]
    assert {entry["DependencyType"] for entry in inspector()["ComponentDependencies"].values()} == {"SOFT"}
    assert [manifest["Platform"]["architecture"] for manifest in runtime()["Manifests"]] == ["aarch64", "amd64"]
    for recipe in (runtime(), model()):
        for manifest in recipe["Manifests"]:
            assert manifest["Lifecycle"]["run"]["Script"] == "echo ok"
    for recipe in (runtime(), model(), challenger(), inspector()):
        for artifact in recipe["Manifests"][0]["Artifacts"]:
            assert artifact["Permission"] == {"Read": "ALL", "Execute": "NONE"}, "who owns them differs"
    assert list(inspector()["Manifests"][0]["Lifecycle"]) == ["run"], "an install that fails leaves it dead"
    install = model()["Manifests"][0]["Lifecycle"]["install"]["Script"]
    assert install.endswith("&& ln -sfn {artifacts:decompressedPath}/model/package {work:path}/current")


def test_the_inspector_reads_what_runtime_and_model_link() -> None:
    names = component_names("cookies")
    run = inspector()["Manifests"][0]["Lifecycle"]["run"]["Script"]
    assert f"{{kernel:rootPath}}/work/{names.runtime}/current" in run
    assert f"{{kernel:rootPath}}/work/{names.model}/current" in run
    assert run.endswith(f" {{kernel:rootPath}}/work/{names.challenger}/current 1.2.0")
    assert inspector()["ComponentDependencies"][names.runtime]["VersionRequirement"] == ">=1.2.0 <2.0.0"
    assert set(inspector()["ComponentDependencies"]) == {
        names.runtime,
        names.model,
        "aws.greengrass.TokenExchangeService",
    }


def test_the_default_configuration_is_text_that_the_inspector_reads() -> None:
    settings = {"source": {"uri": "v4l2:/dev/video0"}, "deadline_ms": 500, "threads": 2}
    configuration = inspector(settings=settings)["ComponentConfiguration"]["DefaultConfiguration"]
    assert configuration["deadline_ms"] == "500"
    del configuration["accessControl"]
    read = read_settings(configuration, {"model": "/m", "state": "/s", "sink": "greengrass", "thing": "thing-1"})
    assert (read.deadline_ms, read.threads, read.line) == (500.0, 2, "cookies")


def test_access_is_to_named_operations_and_topics_only() -> None:
    control = inspector()["ComponentConfiguration"]["DefaultConfiguration"]["accessControl"]
    assert set(control) == {"aws.greengrass.ipc.mqttproxy", "aws.greengrass.ipc.pubsub"}
    for policies in control.values():
        for policy in policies.values():
            assert "*" not in policy["operations"]
            assert not any(mark in resource for resource in policy["resources"] for mark in "*#{")


def test_the_access_control_allows_the_inspectors_topics_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with IpcDouble(tmp_path) as double:
        double.access_control = inspector()["ComponentConfiguration"]["DefaultConfiguration"]["accessControl"]
        for name, value in double.environment().items():
            monkeypatch.setenv(name, value)
        transport = open_transport(
            "greengrass", TOPICS, "thing-1", "cookies", FileSettings(), MqttSettings(), Nucleus.connect()
        )
        transport.start()
        heard: list[bytes] = []
        transport.subscribe(TOPICS.trigger, lambda topic, payload: heard.append(payload))
        until(lambda: double.subscribed("SubscribeToIoTCore") and double.subscribed("SubscribeToTopic"))
        for topic in (TOPICS.results, TOPICS.metrics, TOPICS.health, TOPICS.output, f"{TOPICS.trigger}/answer"):
            transport.publish(topic, b"{}", 10)
        assert len(double.published) == 3
        assert {topic for topic, _ in double.published_locally} == {
            TOPICS.local_output,
            f"{TOPICS.local_trigger}/answer",
        }
        for topic in (TOPICS.feedback, "lineside/aliens/thing-1/results", f"{TOPICS.results}/more", "cmd"):
            with pytest.raises(NotAuthorizedError):
                transport.publish(topic, b"{}", 10)
        transport.close()


@pytest.mark.parametrize(
    ("spoil", "want"),
    [
        (lambda r: r.update(componentName=r.pop("ComponentName")), "want ComponentName"),
        (lambda r: r.pop("ComponentVersion"), "ComponentVersion: missing"),
        (lambda r: r.update(ComponentVersion="1.0"), "want major.minor.patch"),
        (lambda r: r.update(RecipeFormatVersion="2021-01-01"), "want 2020-01-25"),
        (lambda r: r.update(ComponentName="aws.greengrass.Mine"), "not aws.greengrass"),
        (lambda r: r.update(ComponentDescription="x" * 20_000), "want at most 16000 bytes"),
        (lambda r: r.update(Manifests=[]), "want at least one"),
        (lambda r: r["Manifests"][0]["Platform"].pop("runtime"), "Platform.runtime: missing"),
        (lambda r: r["Manifests"][0]["Platform"].update(runtime="aws_nucleus_lite"), 'want "*"'),
        (lambda r: r["Manifests"][0]["Artifacts"][0].update(URI="s3://x"), "want Uri"),
        (lambda r: r["Manifests"][0]["Artifacts"][0].update(Unarchive="TGZ"), "want ZIP or NONE"),
        (lambda r: r["Manifests"][0]["Artifacts"][0]["Permission"].update(Read="me"), "want NONE, OWNER or ALL"),
        (lambda r: r["Manifests"][0]["Lifecycle"].update(Run={"Script": "x"}), "want run"),
        (lambda r: r["Manifests"][0]["Lifecycle"].update(shutdown={"Script": "x"}), "no such key"),
        (lambda r: r["Manifests"][0]["Lifecycle"]["run"].update(script="x"), "want Script"),
        (lambda r: r["Manifests"][0]["Lifecycle"]["run"].update(Script="echo ${HOME}"), "want no braces"),
        (lambda r: r["Manifests"][0]["Lifecycle"]["run"].update(Script="{Model:artifacts:path}"), "want no braces"),
        (lambda r: r["Manifests"][0]["Lifecycle"]["run"].update(Script="#" * 10_001), "want at most 10000 bytes"),
        (lambda r: r["Manifests"][0]["Lifecycle"]["run"].update(RequiresPrivilege="true"), 'want "false"'),
        (lambda r: r["Manifests"][0]["Lifecycle"]["run"].update(RequiresPrivilege=False), "want str"),
        (lambda r: r["Manifests"][0]["Lifecycle"]["run"].update(Timeout="soon"), "want whole seconds"),
        (lambda r: r["ComponentDependencies"]["lineside.Runtime"].update(DependencyType="HARD"), "want SOFT"),
        (lambda r: r["ComponentDependencies"]["lineside.Runtime"].pop("VersionRequirement"), "missing"),
    ],
)
def test_what_a_nucleus_would_stumble_over_is_found(spoil: Callable[[dict[str, Any]], Any], want: str) -> None:
    recipe = copy.deepcopy(inspector())
    spoil(recipe)
    assert want in "\n".join(recipe_faults(recipe))


@pytest.mark.parametrize(
    ("service", "policy", "want"),
    [
        ("aws.greengrass.ipc.mqttproxy", {"operations": ["*"], "resources": ["a"]}, "want operations by name"),
        (
            "aws.greengrass.ipc.mqttproxy",
            {"operations": ["aws.greengrass#PublishToIoTCore"], "resources": ["a/*"]},
            "want named topics",
        ),
        (
            "aws.greengrass.ipc.pubsub",
            {"operations": ["aws.greengrass#PublishToTopic"], "resources": ["a/+/b"]},
            "knows no wildcard",
        ),
        ("ipc.pubsub", {"operations": [], "resources": []}, "want one of"),
        ("aws.greengrass.ipc.pubsub", {"Operations": [], "resources": []}, "want operations"),
    ],
)
def test_access_that_is_too_wide_or_misspelt_is_found(service: str, policy: dict[str, Any], want: str) -> None:
    recipe = copy.deepcopy(inspector())
    recipe["ComponentConfiguration"]["DefaultConfiguration"]["accessControl"] = {service: {"p": policy}}
    assert want in "\n".join(recipe_faults(recipe))


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "1.0"},
        {"version": "1.0.0; rm -rf /"},
        {"artifact": "s3://artifacts-bucket/inspector.tar.gz"},
        {"artifact": "https://example.com/inspector.zip"},
        {"artifact": "s3://artifacts-bucket/in spector.zip"},
        {"line": "cookies{x}"},
        {"publisher": "a\nb"},
        {"runtime_version": "$(id)"},
        {"settings": {"accessControl": {}}},
        {"settings": {"line": "aliens"}},
    ],
)
def test_values_that_a_recipe_cannot_carry_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(RolloutError, match="want"):
        inspector(**changes)


def test_architectures_and_limits_are_checked() -> None:
    with pytest.raises(RolloutError, match="architectures"):
        runtime_recipe("1.0.0", {"x86_64": "s3://bucket-name/a.zip"}, "Somebody")
    with pytest.raises(RolloutError, match="architectures"):
        runtime_recipe("1.0.0", {}, "Somebody")
    assert run_with(512, 2) == {"systemResourceLimits": {"memory": 524_288, "cpus": 2}}
    assert run_with(512, 0.5, "inspector:inspector")["posixUser"] == "inspector:inspector"
    with pytest.raises(RolloutError, match="limits"):
        run_with(1, 1)


def _run(name: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a nucleus does; `_lay` has put it into the artifact."""
    return subprocess.run(
        ["sh", name, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **environment},
        check=False,
    )


def _lay(component: str, artifact: Path) -> str:
    artifact.mkdir(parents=True, exist_ok=True)
    path = artifact / SCRIPTS[component]
    path.write_text(script(component))
    return str(path)


def _package(artifact: Path) -> None:
    (artifact / "package").mkdir(parents=True)
    files = {"contract.json": b"{}", "model.tflite": b"model"}
    sums = ""
    for name, data in files.items():
        (artifact / "package" / name).write_bytes(data)
        sums += f"{hashlib.sha256(data).hexdigest()}  package/{name}\n"
    (artifact / "SHA256SUMS").write_text(sums)


def test_a_model_package_is_verified_and_one_changed_on_the_way_is_refused(tmp_path: Path) -> None:
    verify = _lay("model", tmp_path)
    _package(tmp_path)
    assert _run(verify, tmp_path).returncode == 0
    (tmp_path / "package" / "model.tflite").write_bytes(b"other")
    done = _run(verify, tmp_path)
    assert done.returncode == 1
    assert "package/model.tflite: FAILED" in done.stderr
    (tmp_path / "package" / "model.tflite").unlink()
    assert _run(verify, tmp_path).returncode == 1


def test_a_model_package_without_its_contract_is_refused(tmp_path: Path) -> None:
    verify = _lay("model", tmp_path)
    _package(tmp_path)
    (tmp_path / "package" / "contract.json").unlink()
    (tmp_path / "SHA256SUMS").write_text(f"{hashlib.sha256(b'model').hexdigest()}  package/model.tflite\n")
    done = _run(verify, tmp_path)
    assert done.returncode == 1
    assert "contract.json" in done.stderr


def test_the_inspector_waits_for_its_runtime_and_takes_its_place(tmp_path: Path) -> None:
    artifact, work = tmp_path / "inspector", tmp_path / "work"
    run = _lay("inspector", artifact)
    work.mkdir()
    (artifact / "edge").mkdir()
    (artifact / "edge" / "__init__.py").touch()
    (artifact / "edge" / "__main__.py").write_text("import sys, os\nprint(os.getpid(), *sys.argv[1:])\nsys.exit(3)\n")
    process = subprocess.Popen(
        [
            "sh",
            run,
            str(artifact),
            str(tmp_path / "current"),
            "model/current",
            str(work),
            "challenger/current",
            "1.0.0",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "event=waiting_for_runtime" in process.stdout.readline()
    (tmp_path / "1.0.0" / "bin").mkdir(parents=True)
    python = tmp_path / "1.0.0" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (tmp_path / "current").symlink_to(tmp_path / "1.0.0")
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 3, "the nucleus must see why the inspector ended"
    pid, *arguments = rest.splitlines()[-1].split()
    assert int(pid) == process.pid, "the nucleus' signals must reach the inspector"
    flags = {"--sink": "greengrass", "--model": "model/current", "--challenger": "challenger/current"}
    flags["--state"] = f"{work}/state"
    assert dict(zip(arguments[::2], arguments[1::2], strict=True)) == flags


@pytest.mark.slow
def test_the_runtime_is_installed_without_internet_and_keeps_the_one_before(tmp_path: Path) -> None:
    artifact, work = _runtime_artifact(tmp_path), tmp_path / "work"
    work.mkdir()
    for older in ("0.8.0", "0.9.0"):
        (work / older / "bin").mkdir(parents=True)
        shutil.copy("/bin/true", work / older / "bin" / "python")
    (work / "current").symlink_to(work / "0.9.0")
    done = _run(str(artifact / "install.sh"), artifact, work, "1.0.0", **NO_NETWORK)
    assert done.returncode == 0, done.stderr
    assert (work / "current").resolve() == work / "1.0.0"
    assert sorted(path.name for path in work.iterdir()) == ["0.9.0", "1.0.0", "current"], "0.9.0 may still be running"
    (work / "1.0.0" / "mark").touch()
    (work / "current").unlink()
    (work / "current").symlink_to(work / "0.9.0")
    again = _run(str(artifact / "install.sh"), artifact, work, "1.0.0", **NO_NETWORK)
    assert "event=runtime_is_there" in again.stdout
    assert (work / "current").resolve() == work / "1.0.0"
    assert (work / "1.0.0" / "mark").exists(), "an inspector may be running in it"
    next((artifact / "wheels").glob("*/numpy-*.whl")).unlink()
    done = _run(str(artifact / "install.sh"), artifact, work, "1.1.0", **NO_NETWORK)
    assert done.returncode == 1
    assert "event=runtime_refused" in done.stderr
    assert (work / "current").resolve() == work / "1.0.0", "what was current stays"
    assert not (work / "1.1.0").exists(), "what is half made is of no use"


def _runtime_artifact(folder: Path) -> Path:
    """What a device unpacks of the runtime, with tiny wheels for this Python."""
    target = Target(this_architecture(), this_python())
    wheels = tiny_wheels(folder / "tiny", [target])
    (archive,) = build_runtime([target], (), folder / "built", folder / "cache", wheels).values()
    with zipfile.ZipFile(archive.path) as file:
        file.extractall(folder / "runtime")
    return folder / "runtime"


def _refusal(artifact: Path, sets: dict[str, Any], machine: str = "") -> str:
    document = {"machine": machine or MACHINES[this_architecture()], "sets": sets}
    (artifact / "sets.json").write_text(json.dumps(document))
    done = _run(str(artifact / "install.sh"), artifact, artifact / "work", "1.0.0", **NO_NETWORK)
    assert done.returncode == 1
    assert not (artifact / "work").exists()
    return done.stderr


def test_a_device_without_a_fitting_python_is_told_what_there_is(tmp_path: Path) -> None:
    artifact = _runtime_artifact(tmp_path)
    said = _refusal(artifact, {"cp32": {"glibc": None}, "cp33": {"glibc": None}})
    assert "event=runtime_refused" in said
    assert f"built are cp32, cp33 for {MACHINES[this_architecture()]}" in said
    assert f"found CPython {this_python()}." in said
    mine = "cp" + this_python().replace(".", "")
    assert "want glibc 9.1 or newer, found 2." in _refusal(artifact, {mine: {"glibc": [9, 1]}})
    assert "found one of 64 bits" in _refusal(artifact, {mine: {"glibc": None}}, "armv7l")


def test_an_inspector_waits_for_its_runtime_and_not_for_an_older_one(tmp_path: Path) -> None:
    text = script("inspector").replace("wait_for_version_s=300", "wait_for_version_s=4")
    (tmp_path / "run.sh").write_text(text)
    (tmp_path / "edge").mkdir()
    (tmp_path / "edge" / "__main__.py").write_text("import sys\nprint(sys.executable)\n")
    (tmp_path / "work").mkdir()
    link = tmp_path / "current"

    def start(installed: str, want: str) -> str:
        python = tmp_path / installed / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\necho "by {installed}"\n')
        python.chmod(0o755)
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / installed)
        done = _run(str(tmp_path / "run.sh"), tmp_path, link, "model", tmp_path / "work", "challenger", want)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith(f"by {installed}\n")
        return done.stdout + done.stderr

    assert "waiting" not in start("1.10.0", "1.9.0")
    assert "waiting" not in start("2.0.0", "2.0.0")
    said = start("1.9.0", "1.10.0")
    assert "event=waiting_for_runtime" in said
    assert "event=runtime_is_old" in said, "the line must run, also when the new runtime could not be installed"
