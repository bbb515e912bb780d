"""A component that is built but has no version yet, and how large it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Artifact:
    """A zip on this machine."""

    path: Path
    digest: str  # of what is in it, hex


class RecipeMaker(Protocol):
    """Makes the recipe of a version."""

    def __call__(self, version: str, uris: Mapping[str, str]) -> dict[str, Any]:
        """The recipe; `uris` names each artifact file's `s3://` URI."""
        ...


@dataclass(frozen=True)
class BuiltComponent:
    """All of a component but its version."""

    name: str
    artifacts: Mapping[str, Path]  # the zip on this machine, by file name
    sizes: Mapping[str, int]  # of each, bytes
    digest: str  # of artifacts and recipe without version and URIs, hex
    make_recipe: RecipeMaker
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """What one device downloads of it, at most."""
        return max(self.sizes.values())


@dataclass(frozen=True)
class SizeRow:
    """What a device of one architecture downloads, bytes."""

    architecture: str
    runtime: int
    inspector: int
    model: int

    @property
    def first(self) -> int:
        """For the first deployment."""
        return self.runtime + self.inspector + self.model

    @property
    def new_model(self) -> int:
        """For a new model, when runtime and inspector stay."""
        return self.model


@dataclass(frozen=True)
class Built:
    """The components of a line with one model."""

    line: str
    model_version: int  # in the registry
    digest: str  # sha256 (hex) of the package's contract.json, which devices report
    runtime: BuiltComponent
    inspector: BuiltComponent  # its recipe is for the first runtime; see `publishing.publish_all`
    model: BuiltComponent
    challenger: BuiltComponent
    sizes: tuple[SizeRow, ...]
    make_inspector_recipe: "InspectorRecipeMaker"


class InspectorRecipeMaker(Protocol):
    """Makes the inspector's recipe for a version of the runtime."""

    def __call__(self, version: str, uris: Mapping[str, str], runtime: str) -> dict[str, Any]:
        """The recipe; `runtime` is the version that the inspector waits for."""
        ...
