"""The contract: all that a device needs to know of a model, as `contract.json` in the model package.

The exporter writes it and the device reads it through this module, so the two cannot drift apart. `schema` is
major.minor: a reader refuses another major, ignores unknown fields of a newer minor, and refuses any name in
`requires` that it does not know (devices stay offline for weeks; fleets are always mixed).
"""

import dataclasses
import json
import math
import re
import typing
from dataclasses import dataclass
from typing import Any, Literal

from edge.errors import ContractError

SCHEMA = "1.0"
KNOWN_REQUIREMENTS: frozenset[str] = frozenset()
RESIZE_MODES = ("squash", "letterbox", "center-crop")


@dataclass(frozen=True)
class Roi:
    """Region of interest in original pixels, after the EXIF orientation has been applied."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class InputContract:
    """How a picture becomes the model's input; `edge.preprocess` is its only reader."""

    width: int  # px
    height: int  # px
    resize: Literal["squash", "letterbox", "center-crop"] = "squash"
    roi: Roi | None = None
    white_level: int = 65535  # 16-bit images: raw value that becomes 255
    filter: Literal["bilinear"] = "bilinear"  # of the last step, antialiased

    def digest_fields(self) -> dict[str, Any]:
        """The fields as JSON values, for digests of what was prepared under this contract."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Range:
    """A closed interval."""

    low: float
    high: float


@dataclass(frozen=True)
class InputGuard:
    """What a picture must look like for its score to be trusted; learnt from the training images.

    Statistics are those of `edge.statistics.image_statistics` on the model's input.
    """

    brightness: Range  # mean luma, 0..255
    contrast: Range  # standard deviation of luma, 0..255
    sharpness: Range  # mean absolute Laplacian of luma, 0..255
    aspect_ratio: Range  # width / height of the whole upright picture
    min_width: int  # px, of the whole upright picture
    min_height: int  # px


@dataclass(frozen=True)
class Artifact:
    """The model file that ships."""

    file: str
    kind: Literal["int8", "float32"]


@dataclass(frozen=True)
class Calibration:
    """Score to probability: p(bad) = sigmoid(score / temperature), at the calibration set's prevalence."""

    temperature: float
    prevalence: float  # share of bad images in the calibration split


@dataclass(frozen=True)
class OperatingPoint:
    """Thresholds on the score (a logit) and what follows from a verdict."""

    id: str
    lower: float  # pass if score < lower
    upper: float  # fail if score > upper; else review
    review_action: Literal["review", "fail", "pass"] = "review"
    on_error: Literal["reject", "review"] = "reject"
    autonomous: bool = True  # False: this model would send more than half of the parts to review


@dataclass(frozen=True)
class GoldenImage:
    """A picture with the score that `edge` gave it when the package was made."""

    file: str
    score: float  # logit


@dataclass(frozen=True)
class SelfTest:
    """What a device must reproduce before it serves this package."""

    tolerance: float  # largest difference of a score, in logits
    images: tuple[GoldenImage, ...]


@dataclass(frozen=True)
class DriftReference:
    """What the calibration images looked like to the device's code, to compare live images with.

    A quantile list holds the values at 0, 10, …, 100 %.
    """

    score: tuple[float, ...]
    brightness: tuple[float, ...]
    contrast: tuple[float, ...]
    sharpness: tuple[float, ...]


@dataclass(frozen=True)
class Contract:
    """`contract.json` of a model package."""

    schema: str
    requires: tuple[str, ...]
    line: str
    version: str  # names the model: digest of the model file, so that a name never means two models
    task: Literal["classify"]
    defect_types: tuple[str, ...]  # names of the type outputs, in their order; () = the model has none
    artifact: Artifact
    input: InputContract
    guard: InputGuard
    calibration: Calibration
    operating_point: OperatingPoint
    self_test: SelfTest
    drift_reference: DriftReference
    files: dict[str, str]  # every other file of the package: relative path to sha256 (hex)
    signature: str | None = None  # reserved


def dump_contract(contract: Contract) -> str:
    """The contract as JSON text, the same for the same contract."""
    return json.dumps(dataclasses.asdict(contract), indent=2, sort_keys=True, allow_nan=False) + "\n"


def parse_contract(text: str, where: str = "contract.json") -> Contract:
    """Read a contract, checking its version, types and sense.

    Args:
        text: JSON.
        where: name of the file, for messages.

    Raises:
        ContractError: not JSON, another major version, an unknown requirement, a field that is missing or of the
            wrong type, thresholds that are not in order.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ContractError(f"{where}: not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise ContractError(f"{where}: want a JSON object, found {type(document).__name__}")
    _check_schema(document, where)
    contract = typing.cast(Contract, _read(Contract, document, where))
    _check_sense(contract, where)
    return contract


def _check_schema(document: dict[str, Any], where: str) -> None:
    schema = document.get("schema")
    match = re.fullmatch(r"(\d+)\.(\d+)", schema) if isinstance(schema, str) else None
    if match is None:
        raise ContractError(f"{where}: schema: want major.minor such as {SCHEMA!r}, found {schema!r}")
    if match[1] != SCHEMA.split(".", 1)[0]:
        raise ContractError(f"{where}: schema {schema} has another major version than {SCHEMA}; update this program")
    requires = document.get("requires", [])
    unknown = (
        [name for name in requires if name not in KNOWN_REQUIREMENTS] if isinstance(requires, list) else [requires]
    )
    if unknown:
        raise ContractError(f"{where}: requires {unknown}, which this program does not know; update this program")


def _check_sense(contract: Contract, where: str) -> None:
    point = contract.operating_point
    if not point.lower <= point.upper:
        raise ContractError(f"{where}: operating_point: want lower <= upper, found {point.lower} and {point.upper}")
    if not contract.calibration.temperature > 0:
        raise ContractError(f"{where}: calibration.temperature: want > 0, found {contract.calibration.temperature}")
    if not contract.self_test.images:
        raise ContractError(f"{where}: self_test.images: want at least one golden image, found none")
    if contract.input.width < 1 or contract.input.height < 1:
        raise ContractError(
            f"{where}: input: want a positive size, found {contract.input.width}x{contract.input.height}"
        )
    if not 1 <= contract.input.white_level <= 65535:
        raise ContractError(f"{where}: input.white_level: want 1 to 65535, found {contract.input.white_level}")
    roi = contract.input.roi
    if roi is not None and (roi.left < 0 or roi.top < 0 or roi.width < 1 or roi.height < 1):
        raise ContractError(f"{where}: input.roi: want a region inside the picture, found {roi}")
    if contract.self_test.tolerance < 0:
        raise ContractError(f"{where}: self_test.tolerance: want >= 0, found {contract.self_test.tolerance}")


def _read(kind: Any, value: Any, where: str) -> Any:
    """`value` (from JSON) as `kind`: a dataclass, a tuple, a dict, an optional, a literal or a scalar."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(typing.cast(type, kind), value, where)
    if origin is Literal:
        if value not in arguments or isinstance(value, bool):
            raise ContractError(f"{where}: want one of {list(arguments)}, found {value!r}")
        return value
    if type(None) in arguments:
        inner = next(argument for argument in arguments if argument is not type(None))
        return None if value is None else _read(inner, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ContractError(f"{where}: want a list, found {value!r}")
        return tuple(_read(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise ContractError(f"{where}: want an object, found {value!r}")
        return {str(key): _read(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    return _read_scalar(kind, value, where)


def _read_dataclass(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ContractError(f"{where}: want an object, found {value!r}")
    hints = typing.get_type_hints(kind)
    arguments = {}
    for entry in dataclasses.fields(kind):
        if entry.name in value:
            arguments[entry.name] = _read(hints[entry.name], value[entry.name], f"{where}: {entry.name}")
        elif entry.default is dataclasses.MISSING:
            raise ContractError(f"{where}: {entry.name} is missing")
    return kind(**arguments)


def _read_scalar(kind: Any, value: Any, where: str) -> Any:
    accepted = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ContractError(f"{where}: want {kind.__name__}, found {value!r}")
    if kind is float:
        try:
            number = float(value)
        except OverflowError:  # a whole number of more than 308 digits
            number = math.inf
        if not math.isfinite(number):
            raise ContractError(f"{where}: want a finite number, found {number}")
        return number
    return value
