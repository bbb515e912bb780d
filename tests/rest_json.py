"""Requests and answers of an AWS service of the rest-json kind, held against botocore's own description of it.

Source: the service model that botocore ships, and the Smithy specification of the restJson1 protocol for where members
are bound: URI, query string, header or body.
"""

import base64
import datetime
import functools
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

import botocore.session
from botocore.model import OperationModel, ServiceModel, Shape


class BadRequestError(Exception):
    """What a request lacks or has too much."""


class BadAnswerError(AssertionError):
    """The double itself would answer what the service cannot answer."""


@functools.cache
def _model(service: str) -> ServiceModel:
    return botocore.session.get_session().get_service_model(service)


class RestJson:
    """One service's operations.

    Args:
        service: as botocore calls it.
    """

    def __init__(self, service: str) -> None:
        self.model = _model(service)
        self._routes = []
        for name in self.model.operation_names:
            operation = self.model.operation_model(name)
            pattern = re.sub(
                r"\\\{(\w+)(\\\+)?\\\}",
                lambda found: f"(?P<{found[1]}>{'.+' if found[2] else '[^/]+'})",
                re.escape(operation.http["requestUri"].partition("?")[0]),
            )
            self._routes.append((operation.http["method"], re.compile(pattern), operation))

    def operation(self, method: str, path: str) -> tuple[OperationModel, dict[str, str]]:
        """The operation that a request names, and the members in its path.

        Args:
            method: of HTTP.
            path: as it came, with its percent signs.
        """
        for wanted, pattern, operation in self._routes:
            match = pattern.fullmatch(path) if wanted == method else None
            if match:
                return operation, {name: unquote(value) for name, value in match.groupdict().items()}
        raise BadRequestError(f"no operation is {method} {path}")

    def parse(
        self, operation: OperationModel, path: Mapping[str, str], query: str, headers: Mapping[str, str], body: bytes
    ) -> dict[str, Any]:
        """The request's parameters.

        Raises:
            BadRequestError: a member is missing, unknown, in the wrong place, of the wrong type, or out of range.
        """
        shape = operation.input_shape
        members = shape.members if shape is not None else {}
        try:
            document = json.loads(body) if body else {}
        except ValueError as error:
            raise BadRequestError(f"the body is not JSON: {error}") from None
        if body and headers.get("content-type", "") not in ("application/json", "application/x-amz-json-1.1"):
            raise BadRequestError(f"content-type: want application/json, found {headers.get('content-type')!r}")
        asked = dict(parse_qsl(query, keep_blank_values=True))
        found: dict[str, Any] = {}
        for name, member in members.items():
            place, wire = member.serialization.get("location"), member.serialization.get("name", name)
            if place == "uri" and wire in path:
                found[name] = path[wire]
            elif place == "querystring" and wire in asked:
                found[name] = _from_text(asked.pop(wire), member)
            elif place == "header" and wire.lower() in headers:
                found[name] = _from_text(headers[wire.lower()], member)
            elif place is None and wire in document:
                found[name] = _from_json(document.pop(wire), member)
        if asked or document:
            raise BadRequestError(f"{operation.name} has no {sorted([*asked, *document])}")
        faults = list(shape_faults(found, shape)) if shape is not None else []
        if faults:
            raise BadRequestError("; ".join(faults))
        return found

    def answer(self, operation: OperationModel, content: Mapping[str, Any]) -> tuple[int, bytes]:
        """Status and body of an answer.

        Raises:
            BadAnswerError: the content does not have the operation's output shape.
        """
        shape = operation.output_shape
        if shape is not None:
            self._check(content, shape, operation.name)
        elif content:
            raise BadAnswerError(f"{operation.name} answers nothing, not {content}")
        status = int(operation.http.get("responseCode", 200))
        return status, b"" if status == 204 else json.dumps(_to_json(content)).encode()

    def error(self, operation: OperationModel, code: str, content: Mapping[str, Any]) -> tuple[int, bytes]:
        """Status and body of an error that the operation may answer.

        Raises:
            BadAnswerError: the operation knows no such error, or it has another shape.
        """
        for shape in operation.error_shapes:
            if shape.name == code:
                self._check(content, shape, code)
                return int(shape.metadata["error"]["httpStatusCode"]), json.dumps(_to_json(content)).encode()
        raise BadAnswerError(f"{operation.name} does not answer {code}")

    def _check(self, content: Mapping[str, Any], shape: Shape, where: str) -> None:
        faults = list(shape_faults(content, shape))
        if faults:
            raise BadAnswerError(f"{where}: " + "; ".join(faults))


def shape_faults(value: Any, shape: Shape, where: str = "") -> Iterable[str]:
    """What is wrong with a value, in words: required members, types, enums, patterns, lengths and ranges.

    botocore's own validator of parameters leaves enums, patterns and upper bounds to the service.
    """
    kind = shape.type_name
    here = where or shape.name
    if kind == "structure":
        if not isinstance(value, Mapping):
            yield f"{here}: want a structure, found {value!r}"
            return
        for name in shape.required_members:
            if name not in value:
                yield f"{here}.{name}: is required"
        for name, item in value.items():
            if name not in shape.members:
                yield f"{here}.{name}: is unknown"
            elif item is None:
                yield f"{here}.{name}: want a value, found null"
            else:
                yield from shape_faults(item, shape.members[name], f"{here}.{name}")
        return
    if kind == "list":
        if not isinstance(value, list):
            yield f"{here}: want a list, found {value!r}"
            return
        for number, item in enumerate(value):
            yield from shape_faults(item, shape.member, f"{here}[{number}]")
    elif kind == "map":
        if not isinstance(value, Mapping):
            yield f"{here}: want a map, found {value!r}"
            return
        for key, item in value.items():
            yield from shape_faults(key, shape.key, f"{here} key")
            yield from shape_faults(item, shape.value, f"{here}.{key}")
    elif not _is_of(kind, value):
        yield f"{here}: want {kind}, found {value!r}"
        return
    yield from _constraint_faults(value, shape, here)


def _constraint_faults(value: Any, shape: Shape, here: str) -> Iterable[str]:
    metadata = shape.metadata
    if metadata.get("enum") and value not in metadata["enum"]:
        yield f"{here}: want one of {metadata['enum']}, found {value!r}"
    if metadata.get("pattern") and not matches(metadata["pattern"], value):
        yield f"{here}: want {metadata['pattern']}, found {value!r}"
    size = value if isinstance(value, int | float) else len(value) if hasattr(value, "__len__") else None
    if size is not None and not isinstance(value, bool):
        if "min" in metadata and size < metadata["min"]:
            yield f"{here}: want at least {metadata['min']}, found {size}"
        if "max" in metadata and size > metadata["max"]:
            yield f"{here}: want at most {metadata['max']}, found {size}"


def matches(pattern: str, value: str) -> bool:
    """Whether a string has the form that a service's description asks for: the whole of it, as the services do it.

    Python knows no Unicode categories in patterns, so both sides use ASCII characters in the place of others.
    """
    for category, characters in _CATEGORIES.items():
        pattern = pattern.replace(rf"\p{{{category}}}", characters)
    pattern = re.sub(r"\$\{\d+,\d+\}$", "$", pattern)  # SageMaker repeats an anchor, which Python refuses to
    examples = {"L": "a", "N": "0", "Z": " ", "S": "$", "P": "!", "M": "\u0300"}
    plain = "".join(
        character if character.isascii() else examples.get(unicodedata.category(character)[0], "\0")
        for character in value
    )
    return re.fullmatch(pattern, plain) is not None


_CATEGORIES = {
    "L": "a-zA-Z",
    "N": "0-9",
    "Z": " ",
    "S": "$+<=>^`|~",
    "P": r"!-#%-*,-/:;?@\[-\]_{}",
    "M": "\u0300",
}


def _is_of(kind: str, value: Any) -> bool:
    if kind == "boolean":
        return isinstance(value, bool)
    if kind in ("integer", "long"):
        return isinstance(value, int) and not isinstance(value, bool)
    if kind in ("float", "double"):
        return isinstance(value, int | float) and not isinstance(value, bool)
    kinds: dict[str, type] = {"string": str, "blob": bytes, "timestamp": datetime.datetime}
    return isinstance(value, kinds[kind])


def _from_text(text: str, shape: Shape) -> Any:
    try:
        if shape.type_name in ("integer", "long"):
            return int(text)
        if shape.type_name == "boolean":
            return {"true": True, "false": False}[text]
    except (ValueError, KeyError):
        raise BadRequestError(f"{shape.name}: want {shape.type_name}, found {text!r}") from None
    return text


def _from_json(value: Any, shape: Shape) -> Any:
    if shape.type_name == "blob" and isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except ValueError:
            raise BadRequestError(f"{shape.name}: want base64, found {value[:40]!r}") from None
    return value


def _to_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _to_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_to_json(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.datetime):
        return value.timestamp()
    return value
