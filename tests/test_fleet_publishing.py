"""Versions of published components: what is new, what is the same, what is taken."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fake_fleet import FakeFleet
from golden_package import make_package
from tiny_wheels import tiny_wheels

from inspection.export.archive import archive_package
from inspection.fleet.components.build import build_components
from inspection.fleet.components.built import Built
from inspection.fleet.components.publishing import publish_all
from inspection.fleet.interface import MODEL_TAG
from inspection.registry.interface import PackageReference
from inspection.registry.local import LocalRegistry
from inspection.settings import FleetSettings, LineSettings, Settings
from inspection.storage import open_storage


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    line = LineSettings(name="tiny", storage=str(tmp_path / "storage"))
    return Settings(line=line, fleet=FleetSettings(wheels=str(tiny_wheels(tmp_path / "wheels"))))


@pytest.fixture
def registry(settings: Settings) -> LocalRegistry:
    return LocalRegistry(open_storage(settings.storage_root))


def register(registry: LocalRegistry, folder: Path, kind: str = "int8") -> int:
    """A model of the line tiny; returns its version."""
    package = make_package(folder / kind, kind)
    digest = archive_package(package, folder / f"{kind}.zip")
    contract = hashlib.sha256((package / "model.tflite").read_bytes()).hexdigest()[:12]
    reference = PackageReference("tiny", folder / f"{kind}.zip", digest, contract, {}, "5" * 64, "TrainFlow/1")
    return registry.register(reference).version


@pytest.fixture
def build(settings: Settings, registry: LocalRegistry, tmp_path: Path) -> Callable[..., Built]:
    def make(version: int, **changes) -> Built:
        changed = replace(settings, fleet=replace(settings.fleet, **changes))
        return build_components(changed, registry, version, tmp_path / "scratch", tmp_path / "cache")

    return make


def test_the_first_of_everything_is_published_and_the_same_again_is_not(
    build: Callable[..., Built], registry: LocalRegistry, tmp_path: Path
) -> None:
    version = register(registry, tmp_path)
    fleet = FakeFleet()
    first = publish_all(fleet, build(version))
    assert (first.runtime, first.inspector, first.model, first.challenger) == ("1.0.0", "1.0.0", "1.0.0", "1.0.0")
    assert len(first.new) == 4
    model = fleet.published["lineside.Model.tiny"]["1.0.0"]
    assert model.tags[MODEL_TAG] == registry.get("tiny", version).archive_sha256
    calls = len(fleet.calls)
    again = publish_all(fleet, build(version))
    assert again == replace(first, new=())
    assert len(fleet.calls) == calls
