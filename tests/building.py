"""What tests of components share: a line with a registered tiny model, and tiny wheels."""

import hashlib
import json
from pathlib import Path
from typing import Any

from golden_package import make_package
from tiny_wheels import tiny_wheels

from inspection.export.archive import archive_package
from inspection.registry.interface import PackageReference
from inspection.registry.local import LocalRegistry
from inspection.settings import FleetSettings, LineSettings, Settings


def line_settings(folder: Path, **fleet: Any) -> Settings:
    """The line of the tiny model, with tiny wheels for this machine unless `fleet` says otherwise."""
    fleet.setdefault("wheels", str(tiny_wheels(folder / "wheels")))
    line = LineSettings(name="tiny", storage=str(folder / "storage"))
    return Settings(line=line, fleet=FleetSettings(**fleet))


def register_model(registry: LocalRegistry, folder: Path, kind: str = "int8", **changes: Any) -> int:
    """Register a tiny model of that kind; `changes` replace fields of its contract. Returns its version."""
    package = make_package(folder / "package", kind, **changes)
    digest = archive_package(package, folder / "package.zip")
    contract = json.loads((package / "contract.json").read_text())
    reference = PackageReference(
        contract["line"], folder / "package.zip", digest, contract["version"], {}, "5" * 64, "TrainFlow/1"
    )
    return registry.register(reference).version


def contract_digest(folder: Path, kind: str = "int8") -> str:
    """What devices report of a model that was registered from this folder."""
    return hashlib.sha256((folder / "package" / "contract.json").read_bytes()).hexdigest()
