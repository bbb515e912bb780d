"""From an approved model to components: the zips, and recipes that wait for a version.

Nothing here talks to a fleet. What is built depends only on the model, the line's settings, `edge/` and the locked
wheels; so the same input gives the same digests on every machine.
"""

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from edge.digest import sha256_of
from edge.errors import PackageError as DevicePackageError
from edge.package import CONTRACT_FILE, Package, verify_package
from inspection.errors import PackageError, RolloutError
from inspection.fleet.components.built import Artifact, Built, BuiltComponent, RecipeMaker, SizeRow
from inspection.fleet.components.configuration import inspector_configuration, needed_extras
from inspection.fleet.components.locks import EDGE
from inspection.fleet.components.runtime import build_runtime
from inspection.fleet.components.targets import targets_of
from inspection.fleet.components.zips import disk_errors, write_zip
from inspection.fleet.interface import MODEL_TAG
from inspection.fleet.recipes import (
    SCRIPTS,
    challenger_recipe,
    component_names,
    inspector_recipe,
    model_recipe,
    runtime_recipe,
    script,
)
from inspection.registry.interface import ModelVersion, Registry
from inspection.settings import REPOSITORY, FleetSettings, Settings

WHEEL_CACHE = REPOSITORY / ".lineside" / "fleet" / "wheels"
"""Where fetched wheels are kept for the next build, whatever the line."""
_NO_VERSION = "0.0.0"
_log = logging.getLogger(__name__)


def build_components(
    settings: Settings,
    registry: Registry,
    version: int,
    scratch: Path,
    cache: Path = WHEEL_CACHE,
    edge_folder: Path = EDGE,
) -> Built:
    """Build all components of a line with one of its models.

    Args:
        settings: of the line.
        registry: that has the model.
        version: of the model, in the registry.
        scratch: folder for the zips, which must stay until they are published; each build needs one of its own.
        cache: folder where fetched wheels are kept.
        edge_folder: the device's code and locks.

    Raises:
        RolloutError: settings, wheels or the device's code are not to be had as needed, or the disk is full.
        PackageError: the model is not what was registered, or is for another line.
        RegistryError: there is no such model.
    """
    fleet, line = settings.fleet, settings.line.name
    configuration = inspector_configuration(settings)  # first: a slip in the settings need not wait for the wheels
    extras = needed_extras(settings)
    with disk_errors(scratch):
        scratch.mkdir(parents=True, exist_ok=True)
    names = component_names(line, fleet.component_prefix)
    model_zip, package, archive_sha256 = _build_model(settings, registry, version, scratch)
    inspector_zip = _build_inspector(scratch, edge_folder)
    runtime_zips = build_runtime(targets_of(fleet), extras, scratch, cache, _wheel_folder(fleet), edge_folder)
    runtime = _component(
        names.runtime,
        tuple(runtime_zips.values()),
        partial(_runtime_recipe, settings=settings, architectures={z.path.name: a for a, z in runtime_zips.items()}),
    )
    make_inspector_recipe = partial(_inspector_recipe, settings=settings, configuration=configuration)
    inspector = _component(
        names.inspector,
        (inspector_zip,),
        partial(make_inspector_recipe, runtime="1.0.0"),
        # A new runtime takes effect only when the inspector is started anew, and that takes another version of it.
        depends_on=runtime.digest,
    )
    tags = {MODEL_TAG: archive_sha256}
    model, challenger = (
        _component(name, (model_zip,), partial(_model_recipe, make=make, settings=settings), tags)
        for name, make in ((names.model, model_recipe), (names.challenger, challenger_recipe))
    )
    return Built(
        line=line,
        model_version=version,
        digest=package,
        runtime=runtime,
        inspector=inspector,
        model=model,
        challenger=challenger,
        sizes=tuple(
            SizeRow(architecture, runtime.sizes[archive.path.name], inspector.size_bytes, model.size_bytes)
            for architecture, archive in runtime_zips.items()
        ),
        make_inspector_recipe=make_inspector_recipe,
    )


def size_table(built: Built) -> list[dict[str, Any]]:
    """Rows for cards and terminals: what a device downloads, bytes."""
    return [
        {
            "architecture": row.architecture,
            "runtime": row.runtime,
            "inspector": row.inspector,
            "model": row.model,
            "first deployment": row.first,
            "new model": row.new_model,
        }
        for row in built.sizes
    ]


def _wheel_folder(fleet: FleetSettings) -> Path | None:
    return REPOSITORY / Path(fleet.wheels).expanduser() if fleet.wheels else None


def _build_model(settings: Settings, registry: Registry, version: int, scratch: Path) -> tuple[Artifact, str, str]:
    """The model's zip, the digest of its contract, and the sha256 of its archive in the registry."""
    line = settings.line.name
    registered = registry.get(line, version)
    with disk_errors(scratch):
        work = Path(tempfile.mkdtemp(prefix=".package-", dir=scratch))
        try:
            folder = registry.fetch(line, version, work / "package")
            package = _verify(folder, registered)
            sums = {name: sha256_of(folder / name) for name in (CONTRACT_FILE, *package.contract.files)}
            entries: dict[str, Path | bytes] = {f"package/{name}": folder / name for name in sums}
            entries["SHA256SUMS"] = "".join(f"{sums[name]}  package/{name}\n" for name in sorted(sums)).encode()
            entries[SCRIPTS["model"]] = script("model").encode()
            path = scratch / "model.zip"
            digest = write_zip(path, entries)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    _log.info("event=model_built line=%s version=%d bytes=%d digest=%s", line, version, path.stat().st_size, digest)
    return Artifact(path, digest), sums[CONTRACT_FILE], registered.archive_sha256


def _verify(folder: Path, registered: ModelVersion) -> Package:
    """The package, once more: what the registry's back end unpacked must be what was registered, file by file."""
    where = f"line {registered.line} version {registered.version}"
    try:
        package = verify_package(folder)
    except DevicePackageError as error:
        raise PackageError(f"{where}: {error}") from error
    contract = package.contract
    if contract.line != registered.line or contract.version != registered.contract_version:
        raise PackageError(
            f"{where}: want the package of line {registered.line}, model {registered.contract_version}, found one of "
            f"line {contract.line}, model {contract.version}; it was registered under a wrong name: roll it back"
        )
    return package


def _build_inspector(scratch: Path, edge_folder: Path) -> Artifact:
    files = sorted(path for path in edge_folder.rglob("*.py") if "__pycache__" not in path.parts)
    names = {path.relative_to(edge_folder).as_posix(): path for path in files}
    names = {name: path for name, path in names.items() if not name.startswith("recipes/")}
    if "__main__.py" not in names or "starting.py" not in names:
        raise RolloutError(
            f"{edge_folder}: want the inspector's code (edge/), found no __main__.py; run from a whole checkout"
        )
    entries: dict[str, Path | bytes] = {f"edge/{name}": path for name, path in names.items()}
    entries[SCRIPTS["inspector"]] = script("inspector").encode()
    path = scratch / "inspector.zip"
    digest = write_zip(path, entries)
    _log.info("event=inspector_built files=%d bytes=%d digest=%s", len(names), path.stat().st_size, digest)
    return Artifact(path, digest)


def _component(
    name: str,
    zips: Sequence[Artifact],
    make_recipe: RecipeMaker,
    tags: Mapping[str, str] | None = None,
    depends_on: str = "",
) -> BuiltComponent:
    """A component with its digest: of its artifacts, its recipe without version and URIs, and what it depends on."""
    artifacts = {archive.path.name: archive.path for archive in zips}
    recipe = make_recipe(_NO_VERSION, {file: f"s3://artifacts/{file}" for file in artifacts})
    content = {
        "artifacts": {archive.path.name: archive.digest for archive in zips},
        "recipe": recipe,
        "depends_on": depends_on,
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    sizes = {file: path.stat().st_size for file, path in artifacts.items()}
    return BuiltComponent(name, artifacts, sizes, digest, make_recipe, dict(tags or {}))


def _runtime_recipe(
    version: str, uris: Mapping[str, str], settings: Settings, architectures: Mapping[str, str]
) -> dict[str, Any]:
    artifacts = {architectures[file]: uri for file, uri in uris.items()}
    return runtime_recipe(version, artifacts, settings.fleet.publisher, settings.fleet.component_prefix)


def _inspector_recipe(
    version: str, uris: Mapping[str, str], runtime: str, settings: Settings, configuration: dict[str, Any]
) -> dict[str, Any]:
    (uri,) = uris.values()
    return inspector_recipe(
        version,
        uri,
        settings.line.name,
        settings.fleet.publisher,
        runtime,
        configuration,
        settings.line.topic_root,
        settings.fleet.component_prefix,
    )


def _model_recipe(
    version: str, uris: Mapping[str, str], make: Callable[..., dict[str, Any]], settings: Settings
) -> dict[str, Any]:
    (uri,) = uris.values()
    return make(version, uri, settings.line.name, settings.fleet.publisher, settings.fleet.component_prefix)
