"""Small JSON documents that a registry keeps beside its entries: what was made elsewhere, and who is making it."""

import json
from datetime import UTC, datetime
from typing import Any

from inspection.errors import RegistryError
from inspection.storage import Storage

SCHEMA = "1.0"


def dump_mark(**fields: Any) -> bytes:
    """A document with these fields."""
    return (json.dumps({"schema": SCHEMA, "requires": [], **fields}) + "\n").encode()


def read_mark(storage: Storage, key: str) -> dict[str, Any]:
    """Read a document.

    Raises:
        StorageError: it is missing.
        RegistryError: it is no such document, of another major version, or requires what this program does not know.
    """
    data = storage.read(key)
    try:
        document = json.loads(data)
    except ValueError:
        document = None
    if not isinstance(document, dict) or str(document.get("schema")).split(".")[0] != SCHEMA.split(".")[0]:
        raise RegistryError(
            f"{storage.root}/{key}: want JSON of schema {SCHEMA} or a later minor of it, found {data[:60]!r}; update "
            "this program, or restore this object from a backup"
        )
    if document.get("requires"):
        raise RegistryError(
            f"{storage.root}/{key}: requires {document['requires']!r}, which this program does not know; update it"
        )
    return document


def age_s(document: dict[str, Any]) -> float:
    """Seconds since a document's moment `at`."""
    return (datetime.now(UTC) - datetime.fromisoformat(document["at"])).total_seconds()
