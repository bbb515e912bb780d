"""Fixtures for tests of components: `settings`, `registry`, `build`."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from building import line_settings, register_model

from inspection.fleet.components.build import build_components
from inspection.fleet.components.built import Built
from inspection.registry.local import LocalRegistry
from inspection.settings import Settings
from inspection.storage import open_storage


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return line_settings(tmp_path)


@pytest.fixture
def registry(settings: Settings) -> LocalRegistry:
    return LocalRegistry(open_storage(settings.storage_root))


@pytest.fixture
def build(settings: Settings, registry: LocalRegistry, tmp_path: Path) -> Callable[..., Built]:
    """Build with changed `[fleet]` settings; the model is registered when there is none."""

    def make(version: int = 0, scratch: str = "scratch", edge_folder: Path | None = None, **changes: Any) -> Built:
        changed = dataclasses.replace(settings, fleet=dataclasses.replace(settings.fleet, **changes))
        number = version or register_model(registry, tmp_path / "first")
        more = {} if edge_folder is None else {"edge_folder": edge_folder}
        return build_components(changed, registry, number, tmp_path / scratch, tmp_path / "cache", **more)

    return make
