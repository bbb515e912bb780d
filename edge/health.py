"""Health: what the inspector's parts do, since when, and what went wrong last."""

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from edge.redaction import redact

SCHEMA = "1.2"  # 1.1: figures and shadow, for whoever watches a deployment. 1.2: source_counts
MAX_MESSAGE_BYTES = 5000
_MAX_TEXT = 300  # characters of a message
_MAX_COMPONENTS = 12
_MAX_COUNTS = 40
_WHOLE = ("serving", "deployed", "package", "champion", "state")  # names of values that mean nothing when cut


@dataclass(frozen=True)
class ComponentHealth:
    """How one part of the inspector does."""

    ok: bool
    message: str
    since_s: float  # unix time from which `ok` has been so


class Health:
    """States by the name of the component: model, source, spool, transport, uploader, output, …

    Args:
        line: of this device.
        thing: its name.
        versions: of the programs at work, by name: inspector, runtime, …
    """

    def __init__(self, line: str, thing: str, versions: Mapping[str, str]) -> None:
        self._line = line
        self._thing = thing
        self._versions = {"python": platform.python_version(), **versions}
        self._components: dict[str, ComponentHealth] = {}
        self._package: dict[str, str | None] = {}
        self._figures: Mapping[str, Any] | None = None
        self._shadow: Mapping[str, Any] | None = None
        self._source_counts: dict[str, int] = {}
        self._last_error: dict[str, Any] | None = None
        self._started_s: float | None = None
        self._stopped = False

    def set(self, component: str, ok: bool, message: str, now_s: float) -> bool:
        """Say how a component does.

        Args:
            component: name.
            ok: whether it does what it should.
            message: for people: what is wrong and what to do.
            now_s: unix time.

        Returns:
            Whether it became well or ill: then the message should leave at once.
        """
        before = self._components.get(component)
        state = ComponentHealth(ok, _short(message), now_s)
        if before is not None and before.ok == ok:
            self._components[component] = replace(state, since_s=before.since_s)
            return False
        self._components[component] = state
        return before is not None or not ok

    def set_package(
        self, serving: str | None, deployed: str | None, self_test: str, version: str | None = None
    ) -> None:
        """Say which package serves, which was deployed, and how the self-test went."""
        self._package = {
            "serving": serving,
            "deployed": deployed,
            "version": version,
            "self_test": _short(self_test),
        }

    def set_figures(self, figures: Mapping[str, Any] | None, shadow: Mapping[str, Any] | None) -> None:
        """Say how many verdicts the package gave that serves, and how a challenger does.

        Args:
            figures: of `edge.figures`; None: nothing serves.
            shadow: of `edge.shadow`; None: this device is not set up for challengers.
        """
        self._figures = figures
        self._shadow = None if shadow is None else {name: _cut(value, _MAX_TEXT) for name, value in shadow.items()}

    def set_source_counts(self, counts: Mapping[str, int]) -> None:
        """Say what happened at the source since the program started, by name; what never happened is left out."""
        told = sorted((name, number) for name, number in counts.items() if number)
        self._source_counts = {_short(name): number for name, number in told[:_MAX_COUNTS]}

    def set_version(self, name: str, version: str) -> None:
        """Say a version that was not known at the start, or that changed."""
        self._versions[name] = _short(version)

    def note_error(self, code: str, message: str, now_s: float) -> None:
        """Remember the last error of a part or of the program."""
        self._last_error = {"code": _short(code), "message": _short(message), "at": now_s}

    def stop(self) -> None:
        """The program ends as it should: the next message says so."""
        self._stopped = True

    @property
    def ok(self) -> bool:
        """Whether every component is well and what was deployed serves."""
        agreed = self._package.get("serving") == self._package.get("deployed")
        return agreed and all(component.ok for component in self._components.values())

    def message(self, now_s: float, clock_synced: bool | None = None) -> dict[str, Any]:
        """All of it, as JSON values of at most 5,000 bytes.

        Args:
            now_s: unix time.
            clock_synced: whether `now_s` can be trusted.
        """
        if self._started_s is None:
            self._started_s = now_s
        # Those that are ill are told before those that are well, should there ever be too many.
        order = sorted(self._components.items(), key=lambda item: (item[1].ok, item[0]))[:_MAX_COMPONENTS]
        message: dict[str, Any] = {
            "schema": SCHEMA,
            "thing": self._thing,
            "line": self._line,
            "at": round(now_s, 3),
            "clock_synced": clock_synced,
            "state": "stopped" if self._stopped else "ok" if self.ok else "degraded",
            "up_s": round(max(0.0, now_s - self._started_s)),
            "versions": self._versions,
            "package": self._package,
            **({} if self._figures is None else {"figures": self._figures}),
            **({} if self._shadow is None else {"shadow": self._shadow}),
            **({"source_counts": self._source_counts} if self._source_counts else {}),
            "last_error": self._last_error,
            "components": {
                name: {"ok": state.ok, "message": state.message, "since": round(state.since_s, 3)}
                for name, state in order
            },
        }
        for limit in (150, 70, 30, 15):  # text that JSON escapes takes more bytes than characters
            if len(dump_health(message)) <= MAX_MESSAGE_BYTES:
                break
            for name in ("versions", "package", "shadow", "last_error", "components"):
                if name in message:
                    message[name] = _cut(message[name], limit)
            if limit < 150:  # what is wrong goes before how often
                message.pop("source_counts", None)
        return message


def dump_health(message: Mapping[str, Any]) -> bytes:
    """The message as JSON."""
    return json.dumps(message, separators=(",", ":"), allow_nan=False).encode()


def _short(text: str) -> str:
    text = redact(text)  # before it is cut: half an address hides its password from the eye, not from the reader
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


def _cut(value: Any, limit: int) -> Any:
    """JSON values with every text cut to so many characters, but for digests."""
    if isinstance(value, Mapping):
        return {name: entry if name in _WHOLE else _cut(entry, limit) for name, entry in value.items()}
    if not isinstance(value, str):
        return value
    value = redact(value)
    return value[: limit - 1] + "…" if len(value) > limit else value
