"""The sidecar: what is known of a kept image, as a `.json` file beside it in the inbox.

The device writes it and the feedback inbox reads it through this module. `schema` is major.minor: a reader refuses
another major, ignores unknown fields of a newer minor, and refuses any name in `requires` that it does not know. The
result inside is a message of its own, with its own schema (`edge.results`).

In an estimate an image counts with the weight 1 / `selection.probability` (Horvitz and Thompson, 1952); see
`edge.selection` for how the probability comes about.
"""

import dataclasses
import json
import math
import re
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from edge.errors import ResultError, SidecarError
from edge.results import Result, dump_result, parse_result
from edge.spool.images import Reason

SCHEMA = "1.1"  # 1.1: the reason and the table `shadow`
SHADOW = "shadow"  # required to read an image with that reason: it is no sample of the line's parts
KNOWN_REQUIREMENTS: frozenset[str] = frozenset({SHADOW})


@dataclass(frozen=True)
class Selection:
    """Why an image was kept, and with what probability a part like it is."""

    reason: Reason  # its verdict; audit: of the random share of the passes; shadow: a challenger disagreed
    probability: float  # of being kept, given all that happened before this part: (0, 1]; shadow: and the disagreement
    audit_share: float  # of the passes, drawn before caps: [0, 1]
    stratum: str  # verdict/label/reason, as the counts of dropped images name it


@dataclass(frozen=True)
class ImageFacts:
    """The image file beside the sidecar."""

    sha256: str  # hex
    suffix: str  # ".jpg", ".png", ...
    as_captured: bool  # True: the file of the source, byte by byte; False: encoded from a raw frame
    damaged: bool = False  # True: when it was sent, the file was no longer what had been kept


@dataclass(frozen=True)
class ShadowVerdict:
    """What a challenger said of the part, against the result's verdict."""

    package: str  # version of the challenger's package
    digest: str  # of its contract: sha256, hex
    champion: str  # of the contract of the package that decided
    verdict: Literal["pass", "fail", "review", "error"]
    action: Literal["accept", "reject", "review"]  # what the line's outlet would have done
    probability: float  # of being drawn among parts on which these two disagree in this way: (0, 1]
    score: float | None = None  # logit
    label: str | None = None
    error: str | None = None  # code, of an error


@dataclass(frozen=True)
class Sidecar:
    """A kept image, the result of its inspection, and why it was kept."""

    result: Result
    image: ImageFacts
    selection: Selection
    shadow: ShadowVerdict | None = None  # None: no challenger, or it agreed, or the part was not drawn


def sidecar_fields(sidecar: Sidecar) -> dict[str, Any]:
    """The sidecar as JSON values."""
    shadow = {} if sidecar.shadow is None else {"shadow": shadow_fields(sidecar.shadow)}
    return {
        "schema": SCHEMA,
        "requires": [SHADOW] if sidecar.selection.reason == SHADOW else [],
        "id": sidecar.result.id,
        "result": json.loads(dump_result(sidecar.result)),
        "image": asdict(sidecar.image),
        "selection": asdict(sidecar.selection),
        **shadow,
    }


def shadow_fields(shadow: ShadowVerdict) -> dict[str, Any]:
    """What a challenger said, as JSON values; what is not known is left out."""
    return {name: value for name, value in asdict(shadow).items() if value is not None}


def dump_sidecar(sidecar: Sidecar) -> str:
    """The sidecar as JSON text, the same for the same sidecar."""
    return json.dumps(sidecar_fields(sidecar), indent=2, sort_keys=True, allow_nan=False) + "\n"


def parse_sidecar(text: str, where: str = "sidecar") -> Sidecar:
    """Read a sidecar, checking its version, types and sense.

    Args:
        text: JSON.
        where: name of the file, for messages.

    Raises:
        SidecarError: not JSON, another major version, an unknown requirement, a field that is missing, of the wrong
            type or without sense.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SidecarError(f"{where}: not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise SidecarError(f"{where}: want a JSON object, found {type(document).__name__}")
    return read_sidecar(document, where)


def read_sidecar(document: Mapping[str, Any], where: str = "sidecar") -> Sidecar:
    """As `parse_sidecar`, of what is JSON values already.

    Raises:
        SidecarError: as `parse_sidecar`.
    """
    _check_schema(document, where)
    image = _read(ImageFacts, document.get("image"), f"{where}: image")
    selection = _read(Selection, document.get("selection"), f"{where}: selection")
    try:
        result = parse_result(json.dumps(document.get("result")), f"{where}: result")
    except ResultError as error:
        raise SidecarError(str(error)) from None
    if re.fullmatch("[0-9a-f]{64}", image.sha256) is None:
        raise SidecarError(f"{where}: image.sha256: want 64 hexadecimal digits, found {image.sha256!r}")
    if re.fullmatch(r"\.[a-z0-9]{1,8}", image.suffix) is None:
        raise SidecarError(f"{where}: image.suffix: want a suffix such as '.jpg', found {image.suffix!r}")
    if not 0 < selection.probability <= 1:
        raise SidecarError(
            f"{where}: selection.probability: want above 0 and up to 1, found {selection.probability}: an image with "
            "probability 0 cannot be in the sample"
        )
    if not 0 <= selection.audit_share <= 1:
        raise SidecarError(f"{where}: selection.audit_share: want 0 to 1, found {selection.audit_share}")
    return Sidecar(result, image, selection, _read_shadow(document.get("shadow"), f"{where}: shadow"))


def _read_shadow(value: Any, where: str) -> ShadowVerdict | None:
    if value is None:
        return None
    shadow: ShadowVerdict = _read(ShadowVerdict, value, where)
    if not 0 < shadow.probability <= 1:
        raise SidecarError(f"{where}.probability: want above 0 and up to 1, found {shadow.probability}")
    return shadow


def _check_schema(document: Mapping[str, Any], where: str) -> None:
    schema = document.get("schema")
    match = re.fullmatch(r"(\d+)\.(\d+)", schema) if isinstance(schema, str) else None
    if match is None:
        raise SidecarError(f"{where}: schema: want major.minor such as {SCHEMA!r}, found {schema!r}")
    if match[1] != SCHEMA.split(".", 1)[0]:
        raise SidecarError(f"{where}: schema {schema} has another major version than {SCHEMA}; update this program")
    requires = document.get("requires", [])
    if not isinstance(requires, list) or any(name not in KNOWN_REQUIREMENTS for name in map(str, requires)):
        raise SidecarError(f"{where}: requires {requires}, which this program does not know; update this program")


def _read(kind: type, value: Any, where: str) -> Any:
    """`value` as a flat dataclass."""
    if not isinstance(value, dict):
        raise SidecarError(f"{where}: want an object, found {value!r}")
    hints, found = typing.get_type_hints(kind), {}
    for entry in dataclasses.fields(kind):
        if entry.name in value:
            found[entry.name] = _scalar(hints[entry.name], value[entry.name], f"{where}.{entry.name}")
        elif entry.default is dataclasses.MISSING:
            raise SidecarError(f"{where}.{entry.name} is missing")
    return kind(**found)


def _scalar(kind: Any, value: Any, where: str) -> Any:
    if typing.get_origin(kind) is typing.Literal:
        if not isinstance(value, str) or value not in typing.get_args(kind):
            raise SidecarError(f"{where}: want one of {list(typing.get_args(kind))}, found {value!r}")
        return value
    kind = next((each for each in typing.get_args(kind) if each is not type(None)), kind)  # of an optional one
    accepted = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise SidecarError(f"{where}: want {kind.__name__}, found {value!r}")
    if kind is float and not abs(value) < math.inf:
        raise SidecarError(f"{where}: want a finite number, found {value}")
    return value
