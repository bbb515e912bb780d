"""Settings of the inspector: one dataclass of plain values, from a file, flags or the nucleus, checked once.

Later ones win: defaults, the file (`--config`, TOML or JSON), the nucleus' configuration, flags. A key that nobody
knows is refused, and every fault is named at once. Values may come as strings, as they do from recipes.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import os
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.errors import SettingsError
from edge.line_output import OutputSettings
from edge.metrics import MetricsSettings
from edge.preprocess import MAX_PIXELS
from edge.review import ReviewSettings
from edge.shadow.settings import ShadowSettings
from edge.sources.settings import SourceSettings
from edge.spool.settings import SpoolSettings
from edge.topics import LINE, ROOT, THING
from edge.transports.settings import FileSettings, MqttSettings, SenderSettings
from edge.uploader.settings import UploadSettings

SINKS = ("file", "mqtt", "greengrass", "none")
DEFAULT_STATE = Path(__file__).resolve().parents[1] / ".lineside" / "inspector"


@dataclass(frozen=True)
class InspectorSettings:
    """Everything that can be set on a device."""

    model: str = ""  # folder of the model package, or the link that moves when another is deployed
    challenger: str = ""  # likewise of a package that judges the same parts without deciding; may never appear
    state: str = ""  # folder of the inspector's own (spool, kept images, last good package); .lineside/inspector
    thing: str = ""  # name of this device; empty: the host's name
    line: str = ""  # line that packages must be for; empty: as the first package says
    topic_root: str = "lineside"  # first levels of every topic
    sink: str = "file"  # where messages go: file, mqtt, greengrass or none (they stay in the spool)
    threads: int = 1  # CPU threads for one picture (XNNPACK)
    workers: int = 1  # pictures judged at the same time, each with its own copy of the model in memory
    deadline_ms: float = 2000.0  # a part without a verdict for so long is an error
    max_unacknowledged: int = 500  # parts that may wait for the disk; then a folder waits, a camera is not answered
    max_pixels: int = MAX_PIXELS  # a file with a larger picture is an error; one takes up to 8 bytes a pixel
    metrics_every_s: float = 60.0  # s between two metrics messages
    health_every_s: float = 60.0  # s between two health messages; also at once when something changes
    log_level: str = "info"  # debug, info, warning or error
    source: SourceSettings = field(default_factory=SourceSettings)
    spool: SpoolSettings = field(default_factory=SpoolSettings)
    review: ReviewSettings = field(default_factory=ReviewSettings)
    shadow: ShadowSettings = field(default_factory=ShadowSettings)
    upload: UploadSettings = field(default_factory=UploadSettings)
    output: OutputSettings = field(default_factory=OutputSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    file: FileSettings = field(default_factory=FileSettings)
    mqtt: MqttSettings = field(default_factory=MqttSettings)
    sender: SenderSettings = field(default_factory=SenderSettings)

    @property
    def is_finite(self) -> bool:
        """Whether a run ends by itself."""
        return self.source.is_folder and self.source.folder.once

    def check(self) -> list[str]:
        """Faults in words; none when all is well."""
        faults = []
        for name in ("model", "state"):
            if not getattr(self, name):
                faults.append(f"{name}: want a folder (--{name} FOLDER), found nothing")
        if not THING.fullmatch(self.thing):
            faults.append(f"thing: want {THING.pattern}, found {self.thing!r}")
        if self.line and not LINE.fullmatch(self.line):
            faults.append(f"line: want {LINE.pattern}, found {self.line!r}")
        if not ROOT.fullmatch(self.topic_root):
            faults.append(f"topic_root: want {ROOT.pattern}, found {self.topic_root!r}")
        if self.sink not in SINKS:
            faults.append(f"sink: want one of {', '.join(SINKS)}, found {self.sink!r}")
        if self.log_level not in ("debug", "info", "warning", "error"):
            faults.append(f"log_level: want debug, info, warning or error, found {self.log_level!r}")
        for name, low, high in (
            ("threads", 1, 256),
            ("workers", 1, 256),
            ("deadline_ms", 5, 3_600_000),
            ("max_unacknowledged", 1, 100_000),
            ("max_pixels", 1, MAX_PIXELS),
            ("metrics_every_s", 1, 86_400),
            ("health_every_s", 1, 86_400),
        ):
            number: float = getattr(self, name)
            if not low <= number <= high:
                faults.append(f"{name}: want {low} to {high}, found {number}")
        timeout_ms = self.source.camera.timeout_ms
        if self.source.is_triggered_camera and timeout_ms > self.deadline_ms:
            faults.append(
                f"source.camera.timeout_ms: want at most deadline_ms, {self.deadline_ms:g}, or 0 for as long as that "
                f"allows, found {timeout_ms}: the error of a part without a frame would come too late"
            )
        if not self.source.uri:
            faults.append("source.uri: want a source such as folder:PATH or v4l2:/dev/video0 (--source), found nothing")
        # Those of a transport that is not chosen may be empty.
        chosen = {"file": self.sink == "file", "mqtt": self.sink == "mqtt"}
        for part in dataclasses.fields(self):
            table: Any = getattr(self, part.name)
            if hasattr(table, "check") and chosen.get(part.name, True):
                for fault in table.check():
                    faults.append(fault if fault.startswith(f"{part.name}.") else f"{part.name}.{fault}")
        return faults


def read_settings(*documents: Mapping[str, Any]) -> InspectorSettings:
    """Settings from documents of names and values; later documents win.

    Raises:
        SettingsError: unknown names, values of the wrong type or out of range; all are named.
    """
    faults: list[str] = []
    merged: dict[str, Any] = {"thing": default_thing(), "state": str(DEFAULT_STATE), "file": {}}
    for document in documents:
        merge(merged, document)
    if isinstance(merged["file"], dict):
        merged["file"].setdefault("path", f"{merged['state']}/results.jsonl")
    settings = _read(InspectorSettings, merged, "", faults)
    named = {fault.partition(":")[0] for fault in faults}
    faults += [fault for fault in settings.check() if fault.partition(":")[0] not in named]
    if faults:
        raise SettingsError("the inspector's settings have faults:\n  " + "\n  ".join(faults))
    return typing.cast(InspectorSettings, settings)


def read_file(path: Path) -> dict[str, Any]:
    """A settings file, TOML or JSON by its suffix.

    Raises:
        SettingsError: it cannot be read or parsed, or is TOML on a Python 3.10 without tomli.
    """
    try:
        text = path.read_text(encoding="utf-8")
        document = json.loads(text) if path.suffix == ".json" else _toml().loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot read the settings: {error}") from error
    except ValueError as error:  # both parsers' errors are
        raise SettingsError(f"{path}: cannot parse the settings: {error}") from error
    if not isinstance(document, dict):
        raise SettingsError(f"{path}: want names and values, found {type(document).__name__}")
    return document


def _toml() -> Any:
    for name in ("tomllib", "tomli"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise SettingsError("Python 3.10 reads no TOML by itself: pip install tomli, or write the settings as JSON")


def merge(base: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Put a document over another, table by table."""
    for name, value in more.items():
        if isinstance(value, Mapping) and isinstance(base.get(name), dict):
            merge(base[name], value)
        elif isinstance(value, Mapping):
            base[name] = {}
            merge(base[name], value)
        else:
            base[name] = value


def set_value(document: dict[str, Any], name: str, value: Any) -> None:
    """Set `table.name` in a document."""
    *tables, last = name.split(".")
    for table in tables:
        document = document.setdefault(table, {})
    document[last] = value


def changes(old: InspectorSettings, new: InspectorSettings) -> dict[str, Any]:
    """What differs, as `table.name` and new value."""
    before, after = _flat(old, ""), _flat(new, "")
    return {name: value for name, value in after.items() if before[name] != value}


def default_thing() -> str:
    """The host's name in the form that topics take."""
    name = os.uname().nodename.split(".")[0]
    return "".join(letter if THING.fullmatch(letter) else "-" for letter in name)[:128] or "device"


def _flat(value: Any, prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for entry in dataclasses.fields(value):
        inner = getattr(value, entry.name)
        if dataclasses.is_dataclass(inner):
            flat |= _flat(inner, f"{prefix}{entry.name}.")
        else:
            flat[prefix + entry.name] = inner
    return flat


def _read(kind: Any, document: Any, where: str, faults: list[str]) -> Any:
    """A dataclass from a table; faults are collected, and the default stands in."""
    if not isinstance(document, Mapping):
        faults.append(f"{where.rstrip('.')}: want a table, found {document!r}")
        return kind()
    hints = typing.get_type_hints(kind)
    known = {entry.name for entry in dataclasses.fields(kind)}
    for name in document:
        if name not in known:
            faults.append(f"{where}{name}: no such setting; want one of {', '.join(sorted(known))}")
    values = {}
    for name in known & set(document):
        value, hint = document[name], hints[name]
        if dataclasses.is_dataclass(hint):
            values[name] = _read(hint, value, f"{where}{name}.", faults)
            continue
        try:
            values[name] = _coerce(hint, value)
        except (ValueError, TypeError, KeyError, OverflowError):
            wanted = getattr(hint, "__name__", str(hint))
            faults.append(f"{where}{name}: want {'a list' if wanted == 'tuple' else wanted}, found {value!r}")
    return kind(**values)


def _coerce(kind: Any, value: Any) -> Any:
    """A value as `kind`; numbers and lists may come as text.

    Raises:
        ValueError, TypeError, KeyError, OverflowError: it is none.
    """
    arguments = typing.get_args(kind)
    if type(None) in arguments:
        inner = next(argument for argument in arguments if argument is not type(None))
        return None if value is None or value == "" else _coerce(inner, value)
    if typing.get_origin(kind) is tuple:
        if isinstance(value, str):
            text = value.strip()
            value = json.loads(text) if text.startswith("[") else [item.strip() for item in text.split(",") if item]
        if not isinstance(value, list | tuple):
            raise TypeError
        return tuple(_coerce(arguments[0], item) for item in value)
    if kind is bool:
        if isinstance(value, str):
            return {"true": True, "false": False}[value.strip().lower()] if value.strip() else _refuse()
        return value if isinstance(value, bool) else _refuse()
    if isinstance(value, bool):
        raise TypeError
    if kind is str:
        return value if isinstance(value, str) else _refuse()
    number = float(value) if not isinstance(value, int) else value
    if not math.isfinite(number):
        raise ValueError
    if kind is float:
        return float(number)
    return int(number) if number == int(number) else _refuse()


def _refuse() -> typing.NoReturn:
    raise ValueError
