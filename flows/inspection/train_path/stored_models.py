"""Models on their way from step to step: stored under their content's digest, verified whenever they are read.

Thresholds, promise and evaluation are of one very model, so none but that one may ship.
"""

from dataclasses import dataclass
from pathlib import Path

from edge.digest import sha256_of
from inspection.errors import StorageError
from inspection.storage import Storage

KEY_DIGITS = 16  # of the sha256 that name an object


@dataclass(frozen=True)
class StoredModel:
    """A model in storage."""

    key: str
    sha256: str  # of its content, hex


def store_model(storage: Storage, path: Path, prefix: str) -> StoredModel:
    """Store a model's file under its content's digest, so that nothing ever has to replace it.

    Args:
        storage: of the line.
        path: the file.
        prefix: of the key; the digest and the file's suffix follow.
    """
    sha256 = sha256_of(path)
    key = f"{prefix}-{sha256[:KEY_DIGITS]}{path.suffix}"
    storage.upload(path, key)
    return StoredModel(key, sha256)


def fetch_model(storage: Storage, key: str, sha256: str, step: str) -> Path:
    """A local file of a stored model, with the very content that its step wrote.

    Args:
        storage: of the line.
        key: of the model.
        sha256: of its content, hex.
        step: of the train flow that wrote it, for the message.

    Raises:
        StorageError: it is gone or was changed.
    """
    again = f"run the step `{step}` again: python flows/train_flow.py resume {step}"
    if not storage.exists(key):
        raise StorageError(f"{key}: want the model that `{step}` stored, found none in storage {storage.root}; {again}")
    path = storage.local_copy(key)
    found = sha256_of(path)
    if found != sha256:
        raise StorageError(
            f"{key}: want sha256 {sha256}, the model that `{step}` stored in {storage.root} and that everything after "
            f"it speaks of, found {found}: changed since; {again}"
        )
    return path
