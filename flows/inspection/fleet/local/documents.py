"""JSON files that are whole or not there, and names that may become files."""

import json
import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inspection.errors import RolloutError

COMPONENT = re.compile(r"(?!\.)[A-Za-z0-9_.-]{1,128}(?<!\.)")
VERSION = re.compile(r"(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})(-[0-9A-Za-z.-]{1,64})?")
FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")
GROUP = re.compile(r"[A-Za-z0-9:_-]{1,128}")
THING = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_name(kind: re.Pattern[str], what: str, name: str) -> str:
    """The name, if it may become part of a path.

    Raises:
        RolloutError: it may not.
    """
    if not kind.fullmatch(name):
        raise RolloutError(f"{what}: want {kind.pattern}, found {name!r}")
    return name


def write_document(path: Path, document: Mapping[str, Any], sync: bool = True) -> None:
    """Replace a file in one step.

    Args:
        path: of the file; its folder is there.
        document: JSON values.
        sync: wait for the disk: what is written next may rely on it.
    """
    staged = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        _stage(staged, document, sync)
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)


def create_document(path: Path, document: Mapping[str, Any]) -> None:
    """Write a file that may be created only once; of several writers at once exactly one succeeds.

    Raises:
        FileExistsError: it is there.
    """
    staged = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        _stage(staged, document, True)
        os.link(staged, path)
    finally:
        staged.unlink(missing_ok=True)


def read_document(path: Path) -> dict[str, Any] | None:
    """A file's object; None when there is no such file.

    Raises:
        RolloutError: it cannot be read, or is none of ours.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RolloutError(f"{path}: cannot read it ({error.strerror}); set [fleet.local] folder to another") from error
    except ValueError as error:
        raise RolloutError(f"{path}: cannot read it ({error}); remove the file, or the device's folder") from error
    if not isinstance(document, dict) or not re.fullmatch(r"1\.\d+", str(document.get("schema", ""))):
        raise RolloutError(f"{path}: want an object of schema 1.x, found something else; was a newer Lineside here?")
    return document


def _stage(staged: Path, document: Mapping[str, Any], sync: bool) -> None:
    with staged.open("x", encoding="utf-8") as file:
        json.dump({"schema": "1.0", **document}, file)
        file.flush()
        if sync:
            os.fsync(file.fileno())
