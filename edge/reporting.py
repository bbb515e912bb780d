"""Tells how the device does: metrics once a minute, health when it changes and now and then."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge import __version__
from edge.clock import Clock
from edge.errors import EdgeError, OutputError, RefusedError, SourceError, SpoolError, TransportError
from edge.figures import Figures
from edge.health import Health, dump_health
from edge.metrics import FOLDED_AT_ONCE, Around, Metrics, dump_metrics
from edge.polled import Polled
from edge.results import Result
from edge.settings import InspectorSettings
from edge.state_file import StateFile
from edge.statistics import ImageStatistics
from edge.vitals import read_vitals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge.inspector import Inspector
    from edge.line_output import Outputs
    from edge.part import Source
    from edge.sender import Sender
    from edge.serving import Serving
    from edge.shadow.shadow import Shadow
    from edge.spool.records import FoldedCounts, SpoolFigures
    from edge.spool.spool import Spool
    from edge.topics import Topics
    from edge.transports.interface import Transport
    from edge.uploader.supervisor import UploadSupervisor

_log = logging.getLogger(__name__)

_LOOK_S = 1.0  # between two looks at the components
_METRICS_KEPT = 120  # messages that may wait for the network: two hours
_REFUSAL_S = 10.0  # for telling why the program does not start
_COMPONENTS = {SpoolError: "spool", SourceError: "source", OutputError: "output"}
_RECENT_S = 300.0  # a fault of the program counts as a present one for so long


@dataclass(frozen=True)
class Parts:
    """What is reported on."""

    serving: Serving
    source: Source
    spool: Spool
    transport: Transport | None
    sender: Sender | None
    uploader: UploadSupervisor
    outputs: Outputs
    inspector: Inspector
    shadow: Shadow | None = None


class Reporting:
    """Gathers and offers the messages. All methods belong to the loop's thread.

    Args:
        settings: names and intervals.
        line: of this device.
        topics: where to.
        parts: what is reported on.
        figures: of the package that serves.
        kept: where figures are kept over a restart.
    """

    def __init__(
        self,
        settings: InspectorSettings,
        line: str,
        topics: Topics,
        parts: Parts,
        figures: Figures,
        kept: StateFile,
    ) -> None:
        self._settings = settings
        self._topics = topics
        self._parts = parts
        self._figures = figures
        self._kept = kept
        self._clock = Clock()
        self._health = Health(line, settings.thing, {"inspector": __version__})
        self._metrics = Metrics(line, settings.thing, settings.metrics)
        self._stored = self._ask_spool()  # as of its last answer
        self._spool_asked = Polled(self._ask_spool, "spool-figures")
        self._metrics.begin(self._stored[0])
        now_s = time.monotonic()
        self._look_at_s = self._health_at_s = now_s
        self._metrics_at_s = now_s + settings.metrics_every_s
        self._restart_for: list[str] = []  # changed settings that are not taken up
        self._digest = ""
        self._shadow_state = "none"
        self._faults = 0
        self._fault_at_s: float | None = None
        self._folded_offered = False
        self._folded_sent: set[str] = set()  # ids of counts that the spool's last answer may still hold

    def take_up(self, settings: InspectorSettings, later: list[str]) -> None:
        """Follow changed settings; `later` need a restart."""
        self._settings = settings
        self._restart_for = sorted({*self._restart_for, *later})
        self._look_at_s = self._health_at_s = 0.0  # tell it at once

    def record(self, result: Result, statistics: ImageStatistics | None, package: str | None) -> None:
        """Count a part.

        Args:
            result: of the part.
            statistics: of the model's input.
            package: digest of what judged it.
        """
        self._metrics.record(result, statistics)
        self._figures.count(package, result.verdict)
        if result.error is not None:
            self._health.note_error(result.error, result.detail or "", time.time())

    def tick(self, now_s: float, settings_fault: str) -> None:
        """Look at the components; offer what is due.

        The spool's database is asked on another thread, for the next look: this one does not wait for the disk.

        Args:
            now_s: time.monotonic().
            settings_fault: why a change of settings was refused, or "".
        """
        if now_s < self._look_at_s:
            return
        self._look_at_s = now_s + _LOOK_S
        self._stored = self._spool_asked.take() or self._stored
        self._spool_asked.ask()
        figures = self._parts.spool.refreshed(self._stored[0])
        changed = self._look(now_s, figures, settings_fault)
        if changed or now_s >= self._health_at_s:
            self._health_at_s = now_s + self._settings.health_every_s
            self._offer_health()
        if now_s >= self._metrics_at_s:
            self._metrics_at_s = now_s + self._settings.metrics_every_s
            self._offer_metrics(figures)

    def finish(self, reason: str | None) -> None:
        """The last messages of a run."""
        self._spool_asked.close()
        self._stored = self._ask_spool()
        self._look(time.monotonic(), self._stored[0], "")
        self._health.set("inspector", reason is None, reason or "stopped", time.time())
        if reason is None:
            self._health.stop()
        self._offer_metrics(self._stored[0])
        self._offer_health()
        self._kept.close(self._to_keep())

    def _ask_spool(self) -> tuple[SpoolFigures, list[FoldedCounts]]:
        """What has to be read from the disk. Runs in a thread of its own, but for the first and the last time."""
        return self._parts.spool.figures(), self._parts.spool.folded()

    def _look(self, now_s: float, figures: SpoolFigures, settings_fault: str) -> bool:
        """Note how every component does; True when one became well or ill, or another package serves."""
        parts = self._parts
        serving = parts.serving.state()
        self._health.set_package(serving.serving, serving.deployed, serving.self_test, serving.serving_version)
        changed = serving.serving is not None and serving.serving != self._digest
        served = parts.serving.current()
        if changed and served is not None:
            self._digest = served.digest
            self._health.set_version("runtime", served.runtime)
            self._metrics.use_model(served.contract.version, served.contract.drift_reference)
        changed |= self._set("model", serving.ok, serving.message)
        changed |= self._look_at_shadow()
        source = parts.source.health()
        changed |= self._set("source", source.ok, source.message)
        self._health.set_source_counts(source.counts)
        changed |= self._set("spool", figures.state == "ok", figures.reason or figures.notice or _queue(figures))
        if parts.transport is not None and parts.sender is not None:
            transport, error = parts.transport.state(), parts.sender.figures().error
            changed |= self._set("transport", transport.connected and not error, error or transport.message)
        upload = parts.uploader.state()
        changed |= self._set("uploader", upload.ok, upload.message or upload.state)
        changed |= self._look_at_output()
        changed |= self._look_at_program(now_s)
        restart = f"a restart takes up {', '.join(self._restart_for)}" if self._restart_for else "in effect"
        return self._set("settings", not settings_fault, settings_fault or restart) or changed

    def _look_at_shadow(self) -> bool:
        """A challenger changes nothing about how this device does; whoever sent it wants to hear at once."""
        shadow = self._parts.shadow
        before = self._shadow_state
        self._shadow_state = "none" if shadow is None else shadow.state
        return self._shadow_state != before

    def _look_at_output(self) -> bool:
        outputs = self._parts.outputs
        faults = outputs.faults()
        if outputs.alarm.raised:
            faults.append(f"alarm: {outputs.alarm.in_a_row} parts in a row were rejected; look at the line")
        return self._set("output", not faults, "; ".join(faults) or "ok")

    def _look_at_program(self, now_s: float) -> bool:
        """The loop itself: faults that it caught, workers that hang."""
        inspector = self._parts.inspector
        total = inspector.counts.faults.total()
        if total > self._faults:
            self._faults, self._fault_at_s = total, now_s
        recent = self._fault_at_s is not None and now_s - self._fault_at_s < _RECENT_S
        faults = ", ".join(f"{place} {number}" for place, number in inspector.counts.faults.items())
        totals = "; ".join(f"{name.replace('_', ' ')}: {number}" for name, number in self._program().items())
        message = f"{totals}; faults by place: {faults or 'none'}"
        return self._set("inspector", not recent and inspector.pool.substitutes == 0, message)

    def _program(self) -> dict[str, int]:
        """What went wrong in the program since its start."""
        parts, inspector = self._parts, self._parts.inspector
        totals = {
            "faults": inspector.counts.faults.total(),
            "late": inspector.pool.late,
            "stuck": inspector.pool.substitutes,
            "unacknowledged": inspector.counts.unacknowledged,
            "packages_refused": parts.serving.refusals,
        }
        if parts.sender is not None:
            sent = parts.sender.figures()
            totals |= {"results_refused": sent.refused, "messages_dropped": sent.dropped}
        return totals

    def _set(self, component: str, ok: bool, message: str) -> bool:
        changed = self._health.set(component, ok, message, time.time())
        if changed:
            _log.log(
                logging.INFO if ok else logging.WARNING, "event=health component=%s ok=%s message=%r",
                component, ok, message,
            )  # fmt: skip
        return changed

    def _offer_health(self) -> None:
        shadow = self._parts.shadow
        self._health.set_figures(self._figures.message(), None if shadow is None else shadow.message())
        self._kept.write(self._to_keep())
        if self._parts.sender is not None:
            self._parts.sender.offer(
                self._topics.health, dump_health(self._health.message(time.time(), self._clock.synced()))
            )

    def _to_keep(self) -> dict[str, Any]:
        shadow = self._parts.shadow
        return {"figures": self._figures.dump(), "shadow": None if shadow is None else shadow.dump()}

    def _offer_metrics(self, figures: SpoolFigures) -> None:
        sender, spool = self._parts.sender, self._parts.spool
        if sender is None:
            return
        # One report of folded passes is under way at a time; repeats would be dropped by their id, but cost bytes.
        folded: Sequence[FoldedCounts] = [] if self._folded_offered else self._unreported()[:FOLDED_AT_ONCE]
        around = Around(
            spool=figures,
            review=self._parts.inspector.review.counts,
            upload=self._parts.uploader.state(),
            vitals=read_vitals(Path(self._settings.state)),
            folded=folded,
            degraded=not self._health.ok,
            program=self._program(),
        )
        message = self._metrics.message(time.time(), around)
        carried = {entry["id"] for entry in message.get("folded", ())}

        def sent() -> None:
            self._folded_sent |= carried
            spool.mark_folded_sent([counts for counts in folded if counts.id in carried])
            self._folded_offered = False

        def dropped() -> None:
            self._folded_offered = False  # the next message carries them

        self._folded_offered = self._folded_offered or bool(carried)
        hears = (sent, dropped) if carried else (None, None)
        sender.offer(self._topics.metrics, dump_metrics(message), _METRICS_KEPT, *hears)

    def _unreported(self) -> list[FoldedCounts]:
        """Counts of folded passes in the spool's last answer, which may be older than their report."""
        found = self._stored[1]
        self._folded_sent &= {counts.id for counts in found}
        return [counts for counts in found if counts.id not in self._folded_sent]


def tell_refusal(
    error: EdgeError, transport: Transport, topics: Topics, line: str, thing: str, stopping: threading.Event
) -> None:
    """Say on the health topic why this program does not start, if the message gets through in a short time.

    Args:
        error: what is wrong.
        transport: started.
        topics: where to.
        line: of this device.
        thing: its name.
        stopping: set when the program is told to end at once.
    """
    health = Health(line, thing, {"inspector": __version__})
    health.set(_COMPONENTS.get(type(error), "inspector"), False, str(error), time.time())
    payload = dump_health(health.message(time.time(), Clock().synced()))
    end_s = time.monotonic() + _REFUSAL_S
    while (left_s := end_s - time.monotonic()) > 0:
        try:
            if transport.state().connected:
                transport.publish(topics.health, payload, left_s)
                return
        except TransportError as reason:
            _log.warning("event=refusal_not_told reason=%r", str(reason))
        except RefusedError as reason:
            _log.error("event=refusal_not_told reason=%r", str(reason))
            return
        if stopping.wait(min(left_s, 0.5)):
            return


def _queue(figures: SpoolFigures) -> str:
    waits = f"{figures.queue_length} results and {figures.upload_backlog} images wait"
    return f"{waits}; lost: {figures.lost}" if figures.lost else waits
