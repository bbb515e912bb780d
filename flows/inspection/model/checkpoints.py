"""Checkpoints of fine-tuning: where they are kept and what makes one usable."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from inspection.model.storing import decode_state, read_state, write_state

if TYPE_CHECKING:
    from inspection.storage import Storage


class Checkpoints(Protocol):
    """A place that keeps the latest checkpoint of each of several trainings."""

    def save(self, name: str, content: Mapping[str, Any]) -> None:
        """Replace the checkpoint of that name at once."""

    def load(self, name: str) -> Mapping[str, Any] | None:
        """The checkpoint of that name; None when there is none."""


class FolderCheckpoints:
    """Checkpoints in a local folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, name: str, content: Mapping[str, Any]) -> None:
        """See `Checkpoints.save`."""
        write_state(self._folder / f"{name}.pt", content)

    def load(self, name: str) -> Mapping[str, Any] | None:
        """See `Checkpoints.load`."""
        path = self._folder / f"{name}.pt"
        return read_state(path, "checkpoint") if path.exists() else None


class StoredCheckpoints:
    """Checkpoints in the storage root, where a replacement machine finds them."""

    def __init__(self, storage: "Storage", prefix: str) -> None:
        self._storage = storage
        self._prefix = prefix.rstrip("/")

    def save(self, name: str, content: Mapping[str, Any]) -> None:
        """See `Checkpoints.save`."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "checkpoint.pt"
            write_state(path, content)
            self._storage.upload(path, self._key(name))

    def load(self, name: str) -> Mapping[str, Any] | None:
        """See `Checkpoints.load`."""
        key = self._key(name)
        return decode_state(self._storage.read(key), "checkpoint", key) if self._storage.exists(key) else None

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}.pt"


class NamedCheckpoints:
    """A part of another place: every name gets a prefix."""

    def __init__(self, place: Checkpoints, prefix: str) -> None:
        self._place = place
        self._prefix = prefix

    def save(self, name: str, content: Mapping[str, Any]) -> None:
        """See `Checkpoints.save`."""
        self._place.save(self._prefix + name, content)

    def load(self, name: str) -> Mapping[str, Any] | None:
        """See `Checkpoints.load`."""
        return self._place.load(self._prefix + name)


def fingerprint(**parts: object) -> str:
    """Digest of what a training depends on: a checkpoint of another one is not continued."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
