"""A rollout's JSON documents carry `schema` and `requires`.

A reader refuses another major and any requirement that it does not know, and ignores unknown fields of a newer minor,
so that programs of different ages look after one fleet.
"""

import json
import re
from typing import Any, TypeVar

from inspection.errors import RolloutError

SCHEMA = "1.0"
KNOWN_REQUIREMENTS: frozenset[str] = frozenset()
T = TypeVar("T")


def dump_document(fields: dict[str, Any]) -> bytes:
    """The document in JSON."""
    document = {"schema": SCHEMA, "requires": [], **fields}
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


def parse_document(data: bytes, where: str) -> dict[str, Any]:
    """Read a document.

    Args:
        data: JSON.
        where: key of the object, for messages.

    Raises:
        RolloutError: not JSON, another major version, an unknown requirement.
    """
    try:
        document = json.loads(data)
    except ValueError as error:
        raise RolloutError(
            f"{where}: want a rollout document in JSON, found {len(data)} bytes that are not ({error}); "
            "restore this object from a backup"
        ) from None
    if not isinstance(document, dict):
        raise RolloutError(f"{where}: want a JSON object, found {type(document).__name__}")
    schema = document.get("schema")
    match = re.fullmatch(r"(\d+)\.(\d+)", schema) if isinstance(schema, str) else None
    if match is None or match[1] != SCHEMA.split(".", 1)[0]:
        raise RolloutError(
            f"{where}: schema: want {SCHEMA} or a later minor of it, found {schema!r}; update the program"
        )
    requires = document.get("requires", [])
    if not isinstance(requires, list) or any(name not in KNOWN_REQUIREMENTS for name in requires):
        raise RolloutError(f"{where}: requires {requires!r}, which this program does not know; update this program")
    return document


def take(document: dict[str, Any], name: str, kind: type[T], where: str) -> T:
    """A field of a document.

    Raises:
        RolloutError: it is missing or of another type.
    """
    value = document.get(name)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        found = repr(value) if name in document else "nothing"
        raise RolloutError(f"{where}: {name}: want {kind.__name__}, found {found}")
    return value
