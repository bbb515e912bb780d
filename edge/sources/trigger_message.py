"""Reads a trigger message: which part is there, and perhaps its picture.

A message is a JSON object, all of whose fields may be missing:

    {"schema": "1.1", "id": "unique", "sent_at": 1796055119.86, "part_id": "…", "lot": "…", "station": "…", "view": "…",
     "image": "<base64>"}

or, over plain MQTT, an image file as it is (JPEG, PNG, BMP, TIFF). Messages come from anywhere: nothing in them is
believed before it is checked.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import json
from dataclasses import dataclass
from typing import Any

SCHEMA = "1.1"  # 1.1: sent_at
_KNOWN_REQUIREMENTS: frozenset[str] = frozenset()
_MAX_ID = 128  # characters
_MAX_NAME = 96  # characters
_LATEST_S = 1e11  # unix seconds: larger numbers are milliseconds
_IMAGE_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class TriggerMessage:
    """What a message says."""

    id: str | None = None
    part_id: str | None = None
    lot: str | None = None
    station: str | None = None
    view: str | None = None
    image: bytes | None = None
    sent_at: float | None = None  # unix seconds, by the sender's clock


class BadTriggerError(Exception):
    """A message that is no trigger.

    Attributes:
        id: of the trigger it wanted to be, if that can be told.
    """

    def __init__(self, reason: str, id: str | None = None) -> None:
        super().__init__(reason)
        self.id = id


def read_trigger(payload: bytes, images: bool = True) -> TriggerMessage:
    """Read a message.

    Args:
        payload: as received.
        images: whether this transport may bring images.

    Raises:
        BadTriggerError: the message is no trigger.
    """
    if payload.startswith(_IMAGE_STARTS):
        if not images:
            raise BadTriggerError("images come over plain MQTT only; send part_id and lot, and let a camera look")
        return TriggerMessage(image=payload)
    document = _load(payload)
    trigger_id = _id(document.get("id"))
    try:
        _check_version(document)
        names = {name: _name(name, document.get(name)) for name in ("part_id", "lot", "station", "view")}
        image = _image(document.get("image"), images)
        sent_at = _sent_at(document.get("sent_at"))
    except ValueError as error:
        raise BadTriggerError(str(error), trigger_id) from None
    return TriggerMessage(trigger_id, image=image, sent_at=sent_at, **names)


def _load(payload: bytes) -> dict[str, Any]:
    try:
        document = json.loads(payload.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError:
        raise BadTriggerError("want a JSON object, found JSON that is nested too deep") from None
    except ValueError as error:
        raise BadTriggerError(f"want a JSON object or an image file, found neither: {str(error)[:120]}") from None
    if not isinstance(document, dict):
        raise BadTriggerError(f"want a JSON object, found {type(document).__name__}")
    return document


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


def _id(value: object) -> str | None:
    if value is None:
        return None
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not 1 <= len(text) <= _MAX_ID or not text.isprintable():
        raise BadTriggerError(f"id: want 1 to {_MAX_ID} printable characters or a whole number, found {_shown(value)}")
    return text


def _name(name: str, value: object) -> str | None:
    if value is None or value == "":
        return None
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or len(text) > _MAX_NAME or not text.isprintable():
        raise ValueError(f"{name}: want up to {_MAX_NAME} printable characters, found {_shown(value)}")
    return text


def _image(value: object, images: bool) -> bytes | None:
    if value is None:
        return None
    if not images:
        raise ValueError("image: images come over plain MQTT only; let a camera look")
    if not isinstance(value, str) or not value:
        raise ValueError(f"image: want the file in base64, found {_shown(value)}")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"image: want the file in base64: {error}") from None


def _sent_at(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, str):
        text = value[:-1] + "+00:00" if value.endswith("Z") else value  # Python 3.10 reads no Z
        try:
            moment = datetime.datetime.fromisoformat(text)
        except ValueError:
            moment = None
        if moment is not None and moment.tzinfo is not None:
            return moment.timestamp()
    elif isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _LATEST_S:
        return float(value)
    raise ValueError(
        f"sent_at: want unix seconds, or a time such as 2026-11-23T10:15:00.250+00:00, found {_shown(value)}"
    )


def _check_version(document: dict[str, Any]) -> None:
    schema = document.get("schema", SCHEMA)
    if not isinstance(schema, str) or schema.split(".")[0] != SCHEMA.split(".")[0]:
        raise ValueError(f"schema: want {SCHEMA}, found {_shown(schema)}; update this device or the sender")
    requires = document.get("requires", [])
    if not isinstance(requires, list) or any(str(name) not in _KNOWN_REQUIREMENTS for name in requires):
        raise ValueError(f"requires: unknown here: {_shown(requires)}; update this device")


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else type(value).__name__
    return repr(text[:40])
