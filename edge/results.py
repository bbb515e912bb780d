"""The result of one inspection: the message that a device sends and the row that its spool keeps.

As JSON a result is one object of at most 5 kB: the fields below (those that are None are left out), `schema`
(major.minor), `requires` (names that a reader must know to understand it) and `id`. A reader refuses another major
and an unknown requirement, and ignores fields of a newer minor: devices stay offline for weeks, fleets are mixed.
"""

import dataclasses
import hashlib
import json
import math
import re
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from edge.errors import ResultError

SCHEMA = "1.0"
KNOWN_REQUIREMENTS: frozenset[str] = frozenset()
MAX_MESSAGE_BYTES = 5000  # Source: 5 kB is what every transport takes and what IoT Core bills as one message
MAX_KEY_BYTES = 512
MAX_NAME_BYTES = 96
MAX_DETAIL_BYTES = 400
URGENT_VERDICTS = ("fail", "review", "error")  # never wait for a batch

_NAMES: tuple[str, ...] = ("thing", "line", "label", "error", "package", "operating_point", "artifact", "runtime")
_NAMES += ("image_sha256", "part_id", "lot", "station", "view")


@dataclass(frozen=True, kw_only=True)
class Result:
    """One part's verdict and what it rests on.

    Text that is too long is cut and marked with an ellipsis: a part never goes without a result for its name.
    """

    thing: str
    sequence: int  # assigned by the spool; never repeats for a thing
    source_key: str  # unique name of this inspection; see canonical_key
    line: str
    captured_at: float  # unix seconds, wall clock
    verdict: Literal["pass", "fail", "review", "error"]
    action: Literal["accept", "reject", "review"]  # what the line's outlet does
    clock_synced: bool | None = None  # None: not known
    score: float | None = None  # logit; None when there is no trustworthy one
    probability: float | None = None  # of being bad, 0..1
    label: str | None = None  # likeliest defect type
    error: str | None = None  # code, of an error
    detail: str | None = None  # message, of an error
    package: str = ""  # version of the model package
    operating_point: str = ""  # id
    artifact: str = ""  # int8 or float32
    runtime: str = ""  # name and version
    image_sha256: str | None = None
    part_id: str | None = None
    lot: str | None = None
    station: str | None = None
    view: str | None = None
    latency_ms: dict[str, float] = field(default_factory=dict)  # by stage: queue, decode, preprocess, detect, total

    def __post_init__(self) -> None:
        for name in ("captured_at", "score", "probability"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ResultError(f"{name}: want a finite number, found {value}; a result without a score is an error")
        object.__setattr__(self, "source_key", canonical_key(self.source_key))
        if self.detail is not None:
            object.__setattr__(self, "detail", _shorten(self.detail, MAX_DETAIL_BYTES))
        for name in _NAMES:
            value = getattr(self, name)
            if value is not None and not _is_plain(value, MAX_NAME_BYTES):
                object.__setattr__(self, name, _shorten(value, MAX_NAME_BYTES))

    @property
    def id(self) -> str:
        """Names this result everywhere: receivers drop repeats by it."""
        return f"{self.thing}-{self.sequence}"

    @property
    def urgent(self) -> bool:
        """Whether it is sent at once instead of in a batch."""
        return self.verdict in URGENT_VERDICTS


def canonical_key(text: str) -> str:
    """A source key that every store takes: printable text of at most 512 bytes; the same text gives the same key.

    File names may hold bytes that are no text, and may be long: those are escaped, and a long key ends in its digest.
    """
    if _is_plain(text, MAX_KEY_BYTES):
        return text
    text = _printable(text)
    data = text.encode()
    if len(data) <= MAX_KEY_BYTES:
        return text
    return f"{data[: MAX_KEY_BYTES - 100].decode('utf-8', 'ignore')}…sha256:{hashlib.sha256(data).hexdigest()}"


def dump_result(result: Result) -> str:
    """The result as JSON text on one line, the same for the same result."""
    document: dict[str, Any] = {
        name: value for name, value in vars(result).items() if value is not None and value != {}
    }
    document["schema"] = SCHEMA
    document["requires"] = []
    document["id"] = result.id
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def parse_result(text: str, where: str = "result") -> Result:
    """Read a result, checking its version and types.

    Args:
        text: JSON of one result.
        where: names the message, for errors.

    Raises:
        ResultError: not JSON, another major version, an unknown requirement, a field missing or of the wrong type.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ResultError(f"{where}: not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise ResultError(f"{where}: want a JSON object, found {type(document).__name__}")
    schema = document.get("schema")
    match = re.fullmatch(r"(\d+)\.(\d+)", schema) if isinstance(schema, str) else None
    if match is None:
        raise ResultError(f"{where}: schema: want major.minor such as {SCHEMA!r}, found {schema!r}")
    if match[1] != SCHEMA.split(".", 1)[0]:
        raise ResultError(f"{where}: schema {schema} has another major version than {SCHEMA}; update this program")
    requires = document.get("requires", [])
    if not isinstance(requires, list) or any(name not in KNOWN_REQUIREMENTS for name in map(str, requires)):
        raise ResultError(f"{where}: requires {requires}, which this program does not know; update this program")
    values = {}
    for entry in dataclasses.fields(Result):
        if entry.name in document:
            values[entry.name] = _checked(_HINTS[entry.name], document[entry.name], f"{where}: {entry.name}")
        elif entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING:
            raise ResultError(f"{where}: {entry.name} is missing")
    return Result(**values)


_HINTS = typing.get_type_hints(Result)


def _checked(kind: Any, value: Any, where: str) -> Any:
    """`value` if it is of `kind`: a scalar, an optional scalar, a literal or a dict of numbers."""
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        if not isinstance(value, str) or value not in arguments:
            raise ResultError(f"{where}: want one of {list(arguments)}, found {value!r}")
        return value
    if typing.get_origin(kind) is dict:
        if not isinstance(value, dict):
            raise ResultError(f"{where}: want an object, found {value!r}")
        return {str(key): _checked(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if type(None) in arguments:
        if value is None:
            return None
        kind = next(argument for argument in arguments if argument is not type(None))
    accepted = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ResultError(f"{where}: want {kind.__name__}, found {value!r}")
    return value


def _is_plain(text: str, limit: int) -> bool:
    return len(text) <= limit and text.isascii() and text.isprintable()


def _printable(text: str) -> str:
    """The text with what is no printable character (also bytes of a file name that are no text) escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def _shorten(text: str, limit: int) -> str:
    """The text printable, in at most `limit` bytes of UTF-8; an ellipsis says that it was cut."""
    text = text if _is_plain(text, limit) else _printable(text)
    data = text.encode()
    return text if len(data) <= limit else data[: limit - 3].decode("utf-8", "ignore") + "…"
