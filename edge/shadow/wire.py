"""What the inspector and the challenger's process say to each other: lines of JSON over pipes, pictures behind them.

Both ends are of one program and one version, so there is no schema.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, Literal

import numpy as np

from edge.part import Part
from edge.verdict import Verdict


@dataclass(frozen=True)
class Opened:
    """The challenger's package proved good in its process."""

    version: str
    self_test: str


@dataclass(frozen=True)
class Refused:
    """The challenger's package is not run."""

    reason: str
    version: str | None = None


@dataclass(frozen=True)
class Answer:
    """The challenger's judgement of a part."""

    verdict: Verdict | Literal["error"]
    action: Literal["accept", "reject", "review"]
    score: float | None = None  # logit
    label: str | None = None
    error: str | None = None  # code, of an error


def write_part(stream: BinaryIO, part: Part) -> None:
    """Send a part's picture to the challenger.

    Raises:
        OSError: the process is gone.
    """
    picture = part.data if part.data is not None else np.ascontiguousarray(part.frame).data
    shape = None if part.frame is None or part.data is not None else list(part.frame.shape)
    size = len(part.data) if part.data is not None else picture.nbytes if isinstance(picture, memoryview) else 0
    stream.write(json.dumps({"name": part.name, "bytes": size, "shape": shape}).encode() + b"\n")
    stream.write(picture)
    stream.flush()


def read_part(stream: BinaryIO) -> Part | None:
    """The next part; None when the inspector has ended or wants no more."""
    header = stream.readline()
    if not header.endswith(b"\n"):
        return None
    told = json.loads(header)
    picture = stream.read(told["bytes"])
    if len(picture) < told["bytes"]:
        return None
    if told["shape"] is None:
        return Part("", told["name"], 0.0, 0.0, data=picture)
    return Part("", told["name"], 0.0, 0.0, frame=np.frombuffer(picture, np.uint8).reshape(told["shape"]))


def write_message(stream: BinaryIO, message: Opened | Refused | Answer) -> None:
    """Tell the inspector something.

    Raises:
        OSError: the inspector is gone.
    """
    document = {"kind": type(message).__name__, **asdict(message)}
    stream.write(json.dumps(document).encode() + b"\n")
    stream.flush()


def read_message(line: bytes) -> Opened | Refused | Answer:
    """What the challenger's process told.

    Raises:
        ValueError: that is no message.
    """
    kinds: dict[str, Any] = {"Opened": Opened, "Refused": Refused, "Answer": Answer}
    try:
        document = json.loads(line)
        message: Opened | Refused | Answer = kinds[document.pop("kind")](**document)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"want a message of the challenger's process, found {line[:80]!r}") from None
    return message
