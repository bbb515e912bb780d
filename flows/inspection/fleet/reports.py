"""What devices say of themselves: the newest health message of each, where the cloud (or this machine) keeps it.

An IoT rule stores each message on `<root>/<line>/<thing>/health` as `<line>/live/<thing>/health.json` in the line's
storage, over the one before; the devices on this machine do the same. So one object tells all that a rollout must know
of a device, and no message that is lost on the way is missed for long. The message itself: `edge.health`.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from inspection.errors import StorageError
from inspection.storage import Storage

READERS = 16  # messages read at once: in a bucket each costs a round trip, and a wave may have thousands of devices
VERDICTS = ("pass", "fail", "review", "error")


@dataclass(frozen=True)
class Figures:
    """Verdicts that one package gave on one device."""

    package: str  # digest of the package's contract
    since: float | None  # unix time of the first
    verdicts: Mapping[str, int]  # pass, fail, review, error

    @property
    def inspected(self) -> int:
        """Parts."""
        return sum(self.verdicts.values())


@dataclass(frozen=True)
class ShadowFigures:
    """What a challenger said of the parts that the champion decided."""

    package: str  # digest of the challenger's contract; "" = none is open
    champion: str  # digest of the package that decided
    state: str  # none, loading, running, refused
    message: str
    pairs: Mapping[tuple[str, str], int]  # (champion's verdict, challenger's verdict) to parts
    skipped: int  # parts that the challenger did not see, since it was busy

    @property
    def parts(self) -> int:
        """Parts that both judged."""
        return sum(self.pairs.values())


@dataclass(frozen=True)
class DeviceReport:
    """The newest health message of a device."""

    thing: str
    at: float  # unix time
    state: str  # ok, degraded, stopped
    serving: str | None  # digest of the package's contract
    deployed: str | None
    version: str | None  # of the package that serves
    self_test: str
    figures: Figures | None
    shadow: ShadowFigures | None
    faults: Mapping[str, str] = field(default_factory=dict)  # component of the inspector to what is wrong with it
    versions: Mapping[str, str] = field(default_factory=dict)
    up_s: float = 0.0

    @property
    def serves_what_is_deployed(self) -> bool:
        """Whether the deployed package serves; it does not unless its self-test passed."""
        return self.serving is not None and self.serving == self.deployed


def health_key(line: str, thing: str) -> str:
    """Storage key of a device's newest health message."""
    return f"{line}/live/{thing}/health.json"


def read_reports(storage: Storage, line: str, things: Iterable[str]) -> dict[str, DeviceReport]:
    """The newest report of each thing that has one.

    A message that is cut or of another major version counts as none: the device then looks silent, which stops a
    rollout, and the next message, or an update of this program, mends it.
    """
    names = list(things)
    if not names:
        return {}

    def read(thing: str) -> DeviceReport | None:
        key = health_key(line, thing)
        try:
            return parse_report(storage.read(key)) if storage.exists(key) else None
        except StorageError:
            if storage.exists(key):
                raise
            return None

    with ThreadPoolExecutor(min(READERS, len(names))) as pool:
        reports = list(pool.map(read, names))
    pairs = zip(names, reports, strict=True)
    return {thing: report for thing, report in pairs if report is not None and report.thing == thing}


def parse_report(data: bytes) -> DeviceReport | None:
    """A health message as a report; None when it cannot be read."""
    try:
        document = json.loads(data)
        if not re.fullmatch(r"1\.\d+", document["schema"]):
            return None
        package = document.get("package") or {}
        return DeviceReport(
            thing=str(document["thing"]),
            at=_number(document["at"]),
            state=str(document["state"]),
            serving=package.get("serving"),
            deployed=package.get("deployed"),
            version=package.get("version"),
            self_test=str(package.get("self_test", "")),
            figures=_figures(document.get("figures")),
            shadow=_shadow(document.get("shadow")),
            faults={
                name: str(component["message"])
                for name, component in document.get("components", {}).items()
                if not component["ok"]
            },
            versions={name: str(value) for name, value in document.get("versions", {}).items()},
            up_s=_number(document.get("up_s", 0)),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _figures(document: dict[str, Any] | None) -> Figures | None:
    if not document:
        return None
    since = document.get("since")
    return Figures(
        str(document["package"]),
        None if since is None else _number(since),
        {verdict: _count(document.get(verdict, 0)) for verdict in VERDICTS},
    )


def _shadow(document: dict[str, Any] | None) -> ShadowFigures | None:
    if not document:
        return None
    pairs = {}
    for name, count in document.get("pairs", {}).items():
        champion, _, challenger = name.partition("/")
        if champion not in VERDICTS or challenger not in VERDICTS:
            raise ValueError(name)
        pairs[champion, challenger] = _count(count)
    return ShadowFigures(
        package=str(document.get("package") or ""),
        champion=str(document.get("champion") or ""),
        state=str(document["state"]),
        message=str(document.get("message", "")),
        pairs=pairs,
        skipped=_count(document.get("skipped", 0)),
    )


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(value)
    return float(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(value)
    return value
