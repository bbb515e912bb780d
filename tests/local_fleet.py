"""Devices on this machine for tests: settings, a registry with a few versions of a tiny model, ready devices.

    with fleet_of(tmp_path) as rig:            # settings, storage, registry, fleet, devices that run
        rig.publish_runtime_and_inspector()
        rig.publish_model(1)
        rig.fleet.deploy("canary", rig.wanted(model="1.0.0"), "first")
        rig.feed("device-1", 5)
        wait_until(lambda: rig.report("device-1") is not None, 90)

Devices are real processes and run the real inspector in the device's environment; `in_process=True` runs the nuclei in
a thread instead, which is enough where no process is killed.
"""

import asyncio
import contextlib
import dataclasses
import hashlib
import io
import json
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from golden_package import GOLDEN, KNOWN, make_package, tolerance_of
from PIL import Image

from edge.contract import GoldenImage, OperatingPoint, SelfTest
from inspection.export.archive import archive_package
from inspection.fleet.components import build
from inspection.fleet.components.built import Artifact
from inspection.fleet.components.targets import this_architecture
from inspection.fleet.components.zips import write_zip
from inspection.fleet.interface import ComponentSetting, ComponentVersion, PublishedVersion
from inspection.fleet.local import devices
from inspection.fleet.local.cloud import Carried
from inspection.fleet.local.device_settings import device_settings
from inspection.fleet.local.devices import device_folder
from inspection.fleet.local.fleet import LocalFleet
from inspection.fleet.local.folders import DeviceFolder
from inspection.fleet.local.holding import locked
from inspection.fleet.local.memory import Memory
from inspection.fleet.local.nucleus import Nucleus
from inspection.fleet.recipes import component_names
from inspection.fleet.reports import DeviceReport, read_reports
from inspection.registry.interface import ModelVersion, PackageReference
from inspection.registry.opening import open_registry
from inspection.settings import REPOSITORY, Settings, parse_settings
from inspection.storage import open_storage

LINE = "tiny"
NAMES = component_names(LINE)
THINGS = ("device-1", "device-2", "device-3")
GOOD, BAD = "part-2.jpg", "part-1.png"  # the tiny model passes one and fails the other
DEVICE_PYTHON = REPOSITORY / ".venv-edge" / "bin" / "python"


def local_settings(folder: Path, line: str = LINE, **fleet: Any) -> Settings:
    """Settings of a line with three devices below the folder; `fleet` goes into `[fleet]`."""
    local = {
        "groups": {"canary": ["device-1"], "fleet": ["device-2", "device-3"]},
        **fleet.pop("local", {}),
    }
    inspector = {
        "deadline_ms": 60000.0,
        "health_every_s": 1.0,
        "source": {"folder": {"interval_s": 0.2, "settle_ms": 0}},
    }
    document = {
        "line": {"name": line, "storage": str(folder / "storage")},
        "fleet": {"poll_seconds": 0.2, "inspector": inspector, **fleet, "local": local},
    }
    return parse_settings(document, "a test")


def tiny_package(folder: Path, kind: str = "good") -> Path:
    """A package of the tiny model.

    Args:
        folder: for it, new.
        kind: "good"; "other" (the same model, thresholds that fail what the good one passes); "float" (the float
            model); "tampered" (its golden images were given other scores: the self-test fails on the device).
    """
    if kind == "float":
        return make_package(folder, "float32")
    if kind == "other":
        return make_package(folder, operating_point=OperatingPoint("op-2", lower=-50.0, upper=-40.0))
    if kind == "tampered":
        scores = {name: known["score"] + 5.0 for name, known in KNOWN["int8"]["pictures"].items()}
        images = tuple(GoldenImage(f"golden/{name}", score) for name, score in scores.items())
        return make_package(folder, self_test=SelfTest(tolerance=tolerance_of("int8"), images=images))
    assert kind == "good"
    return make_package(folder)


def register(settings: Settings, folder: Path, kind: str = "good", approve: bool = True) -> ModelVersion:
    """Register a package of `tiny_package`, and approve it."""
    package = tiny_package(folder / f"package-{kind}", kind)
    archive = folder / f"{kind}.zip"
    digest = archive_package(package, archive)
    contract = json.loads((package / "contract.json").read_text(encoding="utf-8"))
    registry = open_registry(settings)
    reference = PackageReference(
        line=LINE,
        archive=archive,
        archive_sha256=digest,
        contract_version=contract["version"],
        metrics={"auroc": {"value": 0.99, "low": 0.97, "high": 1.0}, "images": 400},
        snapshot="5" * 64,
        run="TrainFlow/17",
        commit="abc1234",
    )
    version = registry.register(reference)
    return registry.approve(LINE, version.version, "tester", "for a test") if approve else version


def picture(seed: int, name: str = GOOD) -> bytes:
    """A PNG of one of the golden pictures under a little noise: no two are alike."""
    pixels = np.asarray(Image.open(GOLDEN / name).convert("RGB"))
    noise = np.random.default_rng(seed).integers(-2, 3, pixels.shape)
    stream = io.BytesIO()
    Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def ready_runtime(scratch: Path, python: Path | None = None) -> dict[str, Artifact]:
    """The runtime's artifact with an install script that only points at an environment which is there.

    In place of `inspection.fleet.components.build.build_runtime`, whose arguments a caller may pass on.

    Returns:
        this machine's architecture to the zip.
    """
    python = python or (DEVICE_PYTHON if DEVICE_PYTHON.is_file() else Path(sys.executable))
    path = scratch / f"runtime-{this_architecture()}.zip"
    install = (
        'set -eu\nnew=$2/$3\nmkdir -p "$new/bin"\n'
        f'printf \'#!/bin/sh\\nexec {python} "$@"\\n\' >"$new/bin/python"\n'
        'chmod +x "$new/bin/python"\nln -sfn "$new" "$2/current"\n'
    )
    return {this_architecture(): Artifact(path, write_zip(path, {"install.sh": install.encode()}))}


def provision(settings: Settings, thing: str, version: str = "1.0.0", python: Path | None = None) -> None:
    """Give a device that does not run yet a runtime, so that a deployment with this version of it installs nothing."""
    folder = device_folder(settings, thing)
    name = component_names(settings.line.name, settings.fleet.component_prefix).runtime
    place = folder.work(name) / version / "bin"
    place.mkdir(parents=True)
    python = python or (DEVICE_PYTHON if DEVICE_PYTHON.is_file() else Path(sys.executable))
    (place / "python").write_text(f'#!/bin/sh\nexec {python} "$@"\n', encoding="utf-8")
    (place / "python").chmod(0o755)
    (folder.work(name) / "current").symlink_to(place.parent)
    memory = Memory.load(folder)
    memory.installed[name] = Carried(version)
    memory.save(folder)


@dataclass
class Rig:
    """A local fleet with everything within reach."""

    folder: Path
    settings: Settings
    fleet: LocalFleet

    def __post_init__(self) -> None:
        self.storage = open_storage(self.settings.storage_root)
        self.registry = open_registry(self.settings)
        self.built: dict[int, Any] = {}

    def register(self, *kinds: str) -> None:
        """Register and approve packages: the first is version 1 of the line."""
        for kind in kinds:
            register(self.settings, self.folder / "packages", kind)

    def publish(self, version: int) -> Any:
        """Build and publish all components with a registered model, with a runtime that is there already.

        Returns:
            the `PublishedSet`.
        """
        from inspection.fleet.components.publishing import publish_all

        real = build.build_runtime
        build.build_runtime = lambda targets, extras, scratch, *rest: ready_runtime(scratch)  # type: ignore[assignment]
        try:
            self.built[version] = build.build_components(
                self.settings, self.registry, version, self.folder / f"scratch-{version}", self.folder / "wheels"
            )
        finally:
            build.build_runtime = real
        return publish_all(self.fleet, self.built[version])

    def wanted(self, published: Any, challenger: bool = False) -> dict[str, ComponentSetting | None]:
        """What a deployment of published components names."""
        wanted: dict[str, ComponentSetting | None] = {
            NAMES.runtime: ComponentSetting(published.runtime),
            NAMES.inspector: ComponentSetting(published.inspector),
        }
        name, version = (NAMES.challenger, published.challenger) if challenger else (NAMES.model, published.model)
        return {**wanted, name: ComponentSetting(version)}

    def device(self, thing: str) -> DeviceFolder:
        """A device's folder."""
        return device_folder(self.settings, thing)

    def feed(self, thing: str, count: int, name: str = GOOD, first: int = 0) -> None:
        """Put pictures of parts into a device's inbox."""
        inbox = self.device(thing).inbox
        inbox.mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            staged = inbox / f".{name}-{number}"
            staged.write_bytes(picture(number, name))
            staged.rename(inbox / f"{Path(name).stem}-{number}.png")

    def report(self, thing: str) -> DeviceReport | None:
        """A device's newest health message."""
        return read_reports(self.storage, LINE, [thing]).get(thing)

    def settle(self, group: str, timeout_s: float = 120.0) -> None:
        """Wait until every device of the group that is online is done with the newest deployment."""
        newest = self.fleet._cloud.newest(group)

        def done() -> bool:
            return all(
                one.state in ("succeeded", "failed")
                or self.device(one.thing).offline.exists()
                or (newest is not None and newest.cancelled and one.deployment != newest.id)
                for one in self.fleet.status(group)
            )

        wait_until(done, timeout_s, lambda: str(self.fleet.status(group)))


@contextlib.contextmanager
def fleet_of(
    folder: Path, start: bool = True, in_process: bool = False, device: Mapping[str, Any] | None = None, **fleet: Any
) -> Iterator[Rig]:
    """A fleet below the folder; its devices are stopped at the end, with all their processes.

    Args:
        folder: for everything.
        start: all devices; else call `devices.start` where it is wanted.
        in_process: nuclei in a thread of this process.
        device: then changes these of the devices' settings.
        fleet: into `[fleet]` of the settings.
    """
    settings = local_settings(folder, **fleet)
    rig = Rig(folder, settings, LocalFleet(settings))
    try:
        with nuclei_in_a_thread(settings, **device or {}) if start and in_process else contextlib.nullcontext():
            if start and not in_process:
                devices.start(settings)
            yield rig
    finally:
        devices.stop(settings)


@contextlib.contextmanager
def nuclei_in_a_thread(settings: Settings, **changes: Any) -> Iterator[None]:
    """Run every device's nucleus in one thread of this process; `changes` go into the devices' settings."""
    running: list[Nucleus] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        for thing in devices.things_of(settings):
            folder = device_folder(settings, thing)
            values = {"look_s": 0.05, "settle_s": 0.5, "patience_s": 5.0, **changes}
            quick = dataclasses.replace(device_settings(settings, thing), **values)
            devices.prepare(folder, quick)
            stack.enter_context(locked(folder))
            running.append(Nucleus(folder, quick))
        tasks = [asyncio.ensure_future(nucleus.run()) for nucleus in running]
        ready.set()
        await asyncio.gather(*tasks)

    def serve() -> None:
        try:
            loop.run_until_complete(run())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            ready.set()
            loop.close()

    thread = threading.Thread(target=serve)
    with contextlib.ExitStack() as stack:
        thread.start()
        try:
            assert ready.wait(60)
            folders = [device_folder(settings, thing) for thing in devices.things_of(settings)]
            wait_until(lambda: all(folder.status.exists() for folder in folders))
            yield
        finally:
            for nucleus in running:
                loop.call_soon_threadsafe(nucleus.stopping.set)
            thread.join(90)
            for thing in devices.things_of(settings):  # this process lives on, the devices do not
                device_folder(settings, thing).lock.unlink(missing_ok=True)
            assert not thread.is_alive()


def script_component(
    fleet: LocalFleet,
    folder: Path,
    name: str,
    version: str,
    run: str = "echo ok",
    install: str | None = None,
    files: Mapping[str, str] | None = None,
    artifacts: bool = True,
    **recipe: Any,
) -> PublishedVersion:
    """Publish a component of shell scripts.

    Args:
        fleet: where to.
        folder: for the zip.
        name: of the component.
        version: of it.
        run: script; `{artifacts:decompressedPath}/files/` holds the files.
        install: script; None: the component has none.
        files: of the artifact, name to text.
        artifacts: whether it has that artifact; without, `recipe` brings its own manifests.
        recipe: top-level keys of the recipe.
    """
    archive = folder / name / version / "files.zip"
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w") as file:
        for entry, text in {"version.txt": version, **(files or {})}.items():
            file.writestr(zipfile.ZipInfo(entry, (1980, 1, 1, 0, 0, 0)), text)
    lifecycle: dict[str, Any] = {"run": {"Script": run}}
    if install is not None:
        lifecycle["install"] = {"Script": install, "Timeout": "60"}
    document = {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": name,
        "ComponentVersion": version,
        "ComponentPublisher": "Tests",
        "Manifests": [
            {
                "Platform": {"os": "linux", "runtime": "*"},
                "Artifacts": [{"Uri": fleet.artifact_uri(name, version, "files.zip"), "Unarchive": "ZIP"}],
                "Lifecycle": lifecycle,
            }
        ],
        **recipe,
    }
    digest = hashlib.sha256(archive.read_bytes() + json.dumps(document).encode()).hexdigest()
    return fleet.publish(ComponentVersion(name, version, document, {"files.zip": archive} if artifacts else {}, digest))


def wait_until(done: Callable[[], bool], timeout_s: float = 90.0, say: Callable[[], str] = lambda: "") -> None:
    """Wait; the message of a failure says how things stand."""
    end = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < end, f"it did not happen in time: {say()}"
        time.sleep(0.02)
