"""A new model on a device: bytes against a one-component package, build time, and time until the fleet is healthy.

    python bench/deploy.py [--config FILE] [--rounds 3] [--here] [--no-fleet]

Bytes: ours is the model's component, since runtime and inspector stay. The peer is the usual way: one component with
the Python packages, the code and the model, for one architecture and one Python. Build: everything from the registry
to finished zips, cold (an empty cache: every wheel comes from the package index) and warm. Fleet: three devices on this
machine, each with a virtual environment of its own and the real inspector; the clock runs from the approval until the
last device reports that it serves the model and has passed its self-test, for a first deployment and for the next
model, which runs beside the first one before it takes over. That takes as many parts as the settings ask for, so the
figure is with `[fleet]` of the sample line; the parts come at 240 a minute for each device.

Takes the newest approved model of the line (the sample's by default, `make run` makes one) and copies it to a storage
of its own; the line's fleet is not touched.
"""

import argparse
import dataclasses
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from edge.contract import dump_contract, parse_contract
from inspection.errors import InspectionError
from inspection.export.archive import archive_package
from inspection.fleet.components.build import build_components
from inspection.fleet.components.built import Built
from inspection.fleet.components.locks import EDGE
from inspection.fleet.components.runtime import build_runtime
from inspection.fleet.components.targets import Target, this_architecture, this_python
from inspection.fleet.components.zips import write_zip
from inspection.fleet.local.devices import stop
from inspection.fleet.reports import read_reports
from inspection.registry.interface import PackageReference, Registry
from inspection.registry.local import LocalRegistry
from inspection.registry.opening import open_registry
from inspection.settings import REPOSITORY, Settings, load_settings
from inspection.storage import open_storage

FLOW = REPOSITORY / "flows" / "deploy_flow.py"
MOST_OF_PEER = 1 / 10  # bytes for a new model, of the one-component package
SLOWEST_S = 1800.0

LINE = """\
[line]
name = "{name}"
storage = "{storage}"

[fleet]
shadow_parts = 120
canary_parts = 20
wave_parts = 5
poll_seconds = 1.0

[fleet.local]
parts = "sample"
parts_per_minute = 240.0
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=REPOSITORY / "flows" / "lines" / "sample.toml", help="the line")
    parser.add_argument("--rounds", type=int, default=1, help="of the builds")
    parser.add_argument("--here", action="store_true", help="build for this machine's kind of device only")
    parser.add_argument("--no-fleet", action="store_true", help="leave out the deployments")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lineside-bench-") as name:
        folder = Path(name)
        try:
            settings, registry, version = copy_model(load_settings(arguments.config), folder)
        except InspectionError as error:
            sys.exit(f"{error}\nwant an approved model; make one with `make run`, see `lineside registry list`")
        kinds = {} if arguments.here else {"architectures": ["aarch64", "amd64"], "pythons": ["3.11", "3.13"]}
        fleet = dataclasses.replace(settings.fleet, **kinds)
        cache = folder / "cache"
        built = measure_builds(dataclasses.replace(settings, fleet=fleet), registry, version, folder, arguments.rounds)
        missed = compare_bytes(built, folder, cache)
        if not arguments.no_fleet:
            measure_fleet(settings, folder)
    sys.exit(1 if missed else 0)


def copy_model(line: Settings, folder: Path) -> tuple[Settings, LocalRegistry, int]:
    """The newest approved model in a registry of its own, with its settings; it is not approved there yet."""
    found = open_registry(line).latest(line.line.name)
    if found is None:
        raise InspectionError(f"line {line.line.name}: no approved model in {line.storage_root}")
    package = open_registry(line).fetch(line.line.name, found.version, folder / "package")
    path = folder / "line.toml"
    path.write_text(LINE.format(name=line.line.name, storage=folder / "storage"))
    settings = load_settings(path)
    registry = LocalRegistry(open_storage(settings.storage_root))
    return settings, registry, register(registry, package, folder / "first.zip")


def register(registry: Registry, package: Path, archive: Path) -> int:
    digest = archive_package(package, archive)
    contract = parse_contract((package / "contract.json").read_text())
    reference = PackageReference(contract.line, archive, digest, contract.version, {}, "0" * 64, "bench")
    return registry.register(reference).version


def measure_builds(settings: Settings, registry: Registry, version: int, folder: Path, rounds: int) -> Built:
    """Cold and warm builds, alternating; prints their medians."""
    took: dict[str, list[float]] = {"cold": [], "warm": []}
    for _ in range(rounds):
        shutil.rmtree(folder / "cache", ignore_errors=True)
        for kind in took:
            begin = time.perf_counter()
            built = build_components(settings, registry, version, folder / "scratch", folder / "cache")
            took[kind].append(time.perf_counter() - begin)
    cold, warm = (statistics.median(took[kind]) for kind in ("cold", "warm"))
    devices = ", ".join(row.architecture for row in built.sizes)
    print(f"build for {devices}: cold {cold:.1f} s, warm {warm:.1f} s, ratio {warm / cold:.3f}", flush=True)
    return built


def compare_bytes(built: Built, folder: Path, cache: Path) -> int:
    """Print what a device downloads for a new model; returns how many claims were missed."""
    missed = 0
    print(f"{'MB for a new model':22}{'ours':>8}{'one component':>15}{'ratio':>8}    first deployment: {'ours':>6}")
    for row in built.sizes:
        python = this_python() if row.architecture == this_architecture() else "3.11"
        peer = one_component(built, row.architecture, python, folder, cache)
        ratio = row.new_model / peer
        met = ratio <= MOST_OF_PEER
        missed += not met
        print(
            f"{'ok    ' if met else 'MISSED'} {row.architecture + ', ' + python:15}{row.new_model / 1e6:8.2f}"
            f"{peer / 1e6:15.2f}{ratio:8.3f}{row.first / 1e6:29.2f}",
            flush=True,
        )
    return missed


def one_component(built: Built, architecture: str, python: str, folder: Path, cache: Path) -> int:
    """Bytes of one zip with everything, packed as ours is."""
    runtime = build_runtime([Target(architecture, python)], (), folder / "peer", cache)[architecture].path
    parts: dict[str, Path | bytes] = {"runtime.zip": runtime}
    parts |= {f"edge/{path.relative_to(EDGE).as_posix()}": path for path in EDGE.rglob("*.py")}
    parts |= {file: path for file, path in built.model.artifacts.items()}
    write_zip(folder / "peer" / "all.zip", parts)
    return (folder / "peer" / "all.zip").stat().st_size


def measure_fleet(settings: Settings, folder: Path) -> None:
    """A first deployment to three devices, then the next model; prints both times."""
    registry = LocalRegistry(open_storage(settings.storage_root))
    try:
        for what, package in (("first deployment", folder / "package"), ("next model", another_model(folder))):
            version = register(registry, package, folder / f"{package.name}.zip")
            took = deploy(settings, registry, package, version, folder)
            print(f"{what}: {took:.0f} s from its approval to the last of 3 devices healthy", flush=True)
    finally:
        stop(settings)


def another_model(folder: Path) -> Path:
    """The same model under another name: what is compared agrees, so it is never taken back."""
    package = folder / "another"
    shutil.copytree(folder / "package", package)
    contract = parse_contract((package / "contract.json").read_text())
    point = dataclasses.replace(contract.operating_point, id=f"{contract.operating_point.id}-again")
    (package / "contract.json").write_text(dump_contract(dataclasses.replace(contract, operating_point=point)))
    return package


def deploy(settings: Settings, registry: Registry, package: Path, version: int, folder: Path) -> float:
    """Approve, run the deploy flow, and watch the devices; returns seconds until the last one is healthy."""
    digest = hashlib.sha256((package / "contract.json").read_bytes()).hexdigest()
    things = sorted({thing for group in settings.fleet.local.groups.values() for thing in group})
    storage = open_storage(settings.storage_root)
    environment = {**os.environ, "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(folder), "METAFLOW_USER": "bench"}
    command = [sys.executable, str(FLOW), "--config", "line", str(folder / "line.toml"), "run"]
    begin = time.perf_counter()
    registry.approve(settings.line.name, version, "bench", "to be measured")
    ended: list[subprocess.CompletedProcess[str]] = []
    flow = threading.Thread(
        target=lambda: ended.append(
            subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=SLOWEST_S)
        )
    )
    flow.start()
    healthy = 0.0
    while flow.is_alive():
        time.sleep(0.2)
        reports = read_reports(storage, settings.line.name, things)
        well = [one for one in reports.values() if one.serving == digest and one.serves_what_is_deployed]
        if not healthy and len(well) == len(things):
            healthy = time.perf_counter() - begin
    flow.join()
    if not ended or ended[0].returncode or not healthy:
        sys.exit(
            f"the deployment failed:\n{ended[0].stdout[-4000:] if ended else ''}\n{ended[0].stderr if ended else ''}"
        )
    return healthy


if __name__ == "__main__":
    main()
