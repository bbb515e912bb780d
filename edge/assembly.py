"""Puts the inspector together from its settings, runs it, and takes it apart in order."""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.aside import Aside
from edge.configuration import Configuration
from edge.errors import EdgeError, PackageError
from edge.figures import Figures
from edge.in_hand import InHand
from edge.inspection import Limits, Pending
from edge.inspector import Inspector
from edge.line_output import open_outputs
from edge.reporting import Parts, Reporting, tell_refusal
from edge.results import Result
from edge.review import USUALLY_STUCK_AFTER, ReviewPolicy, StuckCamera
from edge.sender import Sender
from edge.serving import Serving
from edge.settings import InspectorSettings
from edge.sources.opening import open_source
from edge.spool.spool import Spool
from edge.state_file import StateFile
from edge.state_folder import locked
from edge.summary import Tally, describe
from edge.topics import Topics, topics
from edge.transports.opening import open_transport
from edge.uploader.supervisor import UploadSupervisor

if TYPE_CHECKING:
    from edge.part import Source
    from edge.shadow.shadow import Shadow
    from edge.transports.interface import Transport
    from edge.transports.nucleus import Nucleus

_log = logging.getLogger(__name__)

LOST = 3  # exit status when the nucleus is gone: whoever supervises this process must start it anew
_TICK_S = 0.25  # between two looks at package, uploads and settings
_SHADOW_S = 30.0  # for a challenger to judge what it was handed, at the end of a run that ends by itself
_FLUSH_S = 10.0  # for the last results to leave
_NO_PROGRESS_S = 1.0
_UPLOAD_S = 60.0  # for the images of a run that ends by itself

Show = Callable[[Result, str], None]
"""Called with every new result and its part's name, in order."""


@dataclass
class Run:
    """What became of a run."""

    status: int  # of the process
    tally: Tally = field(default_factory=Tally)
    summary: str = ""


def run(
    configuration: Configuration,
    stopping: threading.Event,
    show: Show | None = None,
    nucleus: Nucleus | None = None,
) -> Run:
    """Inspect until the source is finished, `stopping` is set or the transport is lost for good.

    Args:
        configuration: the settings, and their changes.
        stopping: set it to end after the part in hand.
        show: shows results to a person.
        nucleus: the connection to Greengrass, when there is one.

    Raises:
        EdgeError: something cannot be opened as the settings say.
        OSError: the state folder cannot be used.
    """
    settings = configuration.settings
    state = Path(settings.state)
    with locked(state), contextlib.ExitStack() as stack:
        serving = Serving(Path(settings.model), state / "packages", settings.threads, settings.workers, settings.line)
        stack.callback(serving.close)
        # It waits for the disk while the model is loaded.
        files_stay = settings.source.is_folder and settings.source.folder.after == "keep"
        spool = Aside(
            lambda: Spool(state / "spool", settings.thing, settings.spool, remembers_all=files_stay), "spool-opening"
        )
        stack.callback(spool.close)
        serving.start()
        gc.enable()  # `edge.__main__` put it off: what was made until here stays
        if serving.current() is None and settings.is_finite:
            raise PackageError(serving.state().message)  # nobody waits at a run that ends by itself
        line = _wait_for_line(serving, settings, stopping, nucleus)
        if line is None:
            return Run(LOST if nucleus is not None and nucleus.lost else 0)
        serving.hold_to(line)
        names = topics(settings.topic_root, line, settings.thing)
        transport: Transport | None = None
        if settings.sink != "none":
            transport = open_transport(
                settings.sink, names, settings.thing, line, settings.file, settings.mqtt, nucleus
            )
            stack.callback(transport.close)
        try:
            assembly = _Assembly(configuration, serving, spool, line, stopping, show, nucleus, transport, names, stack)
        except EdgeError as error:
            if transport is not None:
                transport.start()
                tell_refusal(error, transport, names, line, settings.thing, stopping)
            raise
        if transport is not None:
            transport.start()  # not before the source listens: what was kept for this device comes at once
        return assembly.run()


class _Assembly:
    """Everything that runs, tied together."""

    def __init__(
        self,
        configuration: Configuration,
        serving: Serving,
        spool: Aside[Spool],
        line: str,
        stopping: threading.Event,
        show: Show | None,
        nucleus: Nucleus | None,
        transport: Transport | None,
        names: Topics,
        stack: contextlib.ExitStack,
    ) -> None:
        settings = configuration.settings
        self._configuration = configuration
        self._settings = settings
        self._serving = serving
        self._stopping = stopping
        self._show = show
        self._nucleus = nucleus
        self._tally = Tally()
        self._tick_at_s = 0.0
        spool_folder = Path(settings.state) / "spool"
        self._transport = transport
        self._spool = spool.result()
        stack.callback(self._spool.close)
        self._uploader = UploadSupervisor(settings.upload, spool_folder, self._spool.upload_backlog)
        stack.callback(self._uploader.close)
        self._sender: Sender | None = None
        if self._transport is not None:
            self._sender = Sender(self._spool, self._transport, names, settings.sender)
            self._spool.on_committed = self._sender.wake
        self._outputs = open_outputs(settings.output, self._transport, names.output)
        stack.callback(self._outputs.close)
        self._source: Source = open_source(
            settings.source.uri, settings.source, self._transport, names.trigger, lambda: self._settings.deadline_ms
        )
        stack.callback(self._source.close)
        kept = StateFile(Path(settings.state) / "figures.json")
        before = kept.read()
        self._figures = Figures(_table(before, "figures"))
        review = ReviewPolicy(settings.review)
        self._shadow = _open_shadow(settings, line, review, self._spool, _table(before, "shadow"))
        if self._shadow is not None:
            stack.callback(self._shadow.close)
        self._follow_package()
        self._spool.sends_from_memory = not self._source.keeps_parts
        in_hand = InHand(Path(settings.state)) if self._source.keeps_parts else None
        if in_hand is not None:
            stack.callback(in_hand.close)
        self._inspector = Inspector(
            self._source,
            serving,
            self._spool,
            self._outputs,
            review,
            StuckCamera(settings.review, 0 if settings.source.is_folder else USUALLY_STUCK_AFTER),
            settings.thing,
            line,
            settings.workers,
            _limits(settings),
            on_result=self._on_result,
            on_turn=self._on_turn,
            stopping=stopping,
            on_judged=self._shadow.judged if self._shadow is not None else None,
            in_hand=in_hand,
        )
        parts = Parts(
            serving,
            self._source,
            self._spool,
            self._transport,
            self._sender,
            self._uploader,
            self._outputs,
            self._inspector,
            self._shadow,
        )
        self._reporting = Reporting(settings, line, names, parts, self._figures, kept)

    def run(self) -> Run:
        """Inspect, then let everything out in order."""
        if self._sender is not None:
            self._sender.start()
        if self._nucleus is not None:
            self._nucleus.report_state("RUNNING")
        _log.info(
            "event=inspection_begins source=%r sink=%s thing=%s",
            self._source.name,
            self._settings.sink,
            self._settings.thing,
        )
        reason = self._inspector.run()
        verdicts = " ".join(f"{name}={count}" for name, count in sorted(self._tally.verdicts.items()))
        _log.info("event=inspection_ended parts=%d %s", self._tally.verdicts.total(), verdicts)
        if reason is not None:
            _log.error("event=transport_lost reason=%r", reason)
        elif not self._stopping.is_set():
            if self._shadow is not None:
                self._shadow.finish(_SHADOW_S)
            self._finish_uploads()
            self._finish_sending()
        self._reporting.finish(reason)
        if self._sender is not None:
            self._sender.close(_FLUSH_S if reason is None else 0.0)
        return Run(LOST if reason is not None else 0, self._tally, self._describe())

    def _on_result(self, pending: Pending, result: Result) -> None:
        self._tally.record(result)
        self._reporting.record(result, pending.statistics, pending.package)
        if self._show is not None:
            self._show(result, pending.part.name)

    def _on_turn(self, now_s: float) -> str | None:
        """What has to be looked after, many times a second; why the program must end, or None."""
        if self._inspector.pool.keeps_time:
            self._outputs.heartbeat(time.time())
        if now_s < self._tick_at_s:
            return None
        self._tick_at_s = now_s + _TICK_S
        self._serving.tick(now_s)
        champion = self._follow_package()
        if self._shadow is not None:
            self._shadow.tick(now_s, champion)
        self._uploader.tick(now_s)
        changed = self._configuration.poll()
        if changed is not None:
            self._take_up(*changed)
        self._reporting.tick(now_s, self._configuration.fault)
        state = self._transport.state() if self._transport is not None else None
        return state.message if state is not None and state.fatal else None

    def _follow_package(self) -> str | None:
        """Count for the package that serves now, before any part that it judges is counted; returns its digest."""
        served = self._serving.current()
        digest = served.digest if served is not None else None
        self._figures.begin(digest)
        return digest

    def _take_up(self, settings: InspectorSettings, later: list[str]) -> None:
        """Follow changed settings where that is safe."""
        self._inspector.limits = _limits(settings)
        if settings.review != self._settings.review:
            self._inspector.review.change(settings.review)
            self._inspector.stuck.change(settings.review)
        self._outputs.alarm.change(settings.output.alarm_after)
        logging.getLogger().setLevel(settings.log_level.upper())
        self._settings = settings
        self._reporting.take_up(settings, later)

    def _finish_uploads(self) -> None:
        """A run that ends by itself sends its images, if that goes well."""
        end_s = time.monotonic() + _UPLOAD_S
        last = False  # whether the child at work, or the one before, began after the run's last image was stored
        self._spool.flush(_FLUSH_S)
        while time.monotonic() < end_s:
            state = self._uploader.state()
            if state.state != "running":
                if last or not state.ok or state.state == "off" or not self._spool.upload_backlog():
                    return
                self._uploader.hurry()
                last = True
            self._uploader.tick(time.monotonic())
            if self._stopping.wait(_TICK_S):
                return

    def _finish_sending(self) -> None:
        """A run that ends by itself waits for its results to arrive, as long as that goes on."""
        least, since_s = self._spool.figures().queue_length, time.monotonic()
        while self._sender is not None and least and not self._stopping.wait(0.05):
            left, now_s = self._spool.figures().queue_length, time.monotonic()
            if left < least:
                least, since_s = left, now_s
            elif now_s - since_s > _NO_PROGRESS_S:  # offline, or the rest of a batch, which closing sends
                return

    def _describe(self) -> str:
        serving = self._serving.state()
        package = serving.message if serving.ok else f"{serving.serving_version or 'none'}: {serving.message}"
        counts = self._inspector.counts
        late = self._inspector.pool.late
        return describe(self._tally, counts.repeated, late, counts.faults, package, self._describe_waiting())

    def _describe_waiting(self) -> list[str]:
        """What was not delivered, though there is where to."""
        figures, upload, waiting = self._spool.figures(), self._uploader.state(), []
        if self._transport is not None and figures.queue_length:
            why = self._transport.state().message
            waiting.append(f"{figures.queue_length:,} results are in the spool, the next run sends them: {why}")
        if not upload.ok:
            waiting.append(f"{figures.upload_backlog:,} images are in the spool: {upload.message}")
        return waiting


def _wait_for_line(
    serving: Serving, settings: InspectorSettings, stopping: threading.Event, nucleus: Nucleus | None
) -> str | None:
    """The line's name: of the settings, else of the first package, which is waited for; None when told to end."""
    while not settings.line and serving.current() is None:
        if stopping.wait(_TICK_S) or (nucleus is not None and nucleus.lost):
            return None
        serving.tick(time.monotonic())
    served = serving.current()
    return settings.line or (served.contract.line if served is not None else None)


def _open_shadow(
    settings: InspectorSettings, line: str, review: ReviewPolicy, spool: Spool, kept: Mapping[str, Any]
) -> Shadow | None:
    """What looks after challengers, where the settings name a place for them."""
    if not settings.challenger:
        return None
    from edge.shadow.disagreements import Disagreements
    from edge.shadow.shadow import Shadow

    keep = Disagreements(settings.shadow, review, spool).keep
    return Shadow(Path(settings.challenger), line, settings.shadow, keep, kept)


def _table(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = document.get(name)
    return found if isinstance(found, dict) else {}


def _limits(settings: InspectorSettings) -> Limits:
    return Limits(settings.deadline_ms, settings.max_unacknowledged, settings.max_pixels)
