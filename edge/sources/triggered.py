"""Parts that are announced: a trigger says that one is there, a camera (or the trigger itself) brings its picture."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from edge.errors import SourceError
from edge.part import Part, SourceHealth
from edge.sources.camera import Camera, Capture, Shot
from edge.sources.gpio import GpioTriggers
from edge.sources.messages import TopicTriggers
from edge.sources.opencv import StreamCapture, V4l2Capture, load_opencv, without_secrets
from edge.sources.settings import SourceSettings
from edge.sources.triggers import IntervalTriggers, Trigger, Triggers

if TYPE_CHECKING:
    from edge.results import Result
    from edge.transports.interface import Transport


_SILENT_S = 2.0  # without a frame for so long a camera is silent, where the settings leave that open
_SPARE = 0.1  # of the deadline, and at most
_SPARE_S = 0.01  # so much time is left for the verdict of a part without a frame: twice what telling the line gets


class TriggeredSource:
    """Exactly one part per trigger: with a picture taken after it, or with the reason why there is none.

    Args:
        name: for messages and results.
        triggers: say that a part is there.
        camera: looks at it; None: messages bring the pictures.
        settings: of the source.
        deadline_ms: tells how long a verdict may take now, from its trigger on.
    """

    keeps_parts = False

    def __init__(
        self,
        name: str,
        triggers: Triggers,
        camera: Camera | None,
        settings: SourceSettings,
        deadline_ms: Callable[[], float] = lambda: 2000.0,
    ) -> None:
        self.name = name
        self._triggers, self._camera, self._settings = triggers, camera, settings
        self._deadline_ms = deadline_ms
        self._current: Trigger | None = None  # waits for its frame
        self._counts: Counter[str] = Counter()

    def next_part(self, timeout_s: float) -> Part | None:
        """The next part, or None when there is none within the timeout."""
        end_s = time.monotonic() + timeout_s
        while True:
            trigger = self._current or self._triggers.wait(max(0.0, end_s - time.monotonic()))
            if trigger is None:
                return None
            self._current = None
            part = self._follow(trigger, end_s)
            if part is not None:
                self._counts["parts"] += 1
                return part
            if self._current is not None or time.monotonic() >= end_s:
                return None

    def acknowledge(self, part: Part, result: Result) -> None:
        """Answer the trigger."""
        if not isinstance(part.handle, Trigger):
            raise SourceError(f"{part.name}: not a part of {self.name}")
        self._triggers.answer(part.handle, result)

    def finished(self) -> bool:
        """Never: cameras and triggers have no end."""
        return False

    def health(self) -> SourceHealth:
        """Whether the camera gives frames and no trigger was lost."""
        counts, problems = {**self._counts, **self._triggers.counts()}, [self._triggers.problem()]
        if self._camera is not None:
            state = self._camera.state()
            counts.update(state.counts)
            problems.append(state.error)
            silent = not state.error and (state.frame_age_s or 0.0) > self._silent_s()
            problems.append(f"{self.name}: no frame for {state.frame_age_s:.0f} s" if silent else "")
        problem = "; ".join(text for text in problems if text)
        return SourceHealth(not problem, problem or f"{self.name} works", counts)

    def close(self) -> None:
        """Let go of the camera and the triggers."""
        self._triggers.close()
        if self._camera is not None:
            self._camera.close()

    def _follow(self, trigger: Trigger, end_s: float) -> Part | None:
        """The part of a trigger; None when it has to wait (it is then the current one) or there is no part."""
        if trigger.fault is not None:
            return self._part(trigger, fault=trigger.fault)
        if trigger.message.image is not None:
            return self._part(trigger, Shot(trigger.arrived_s, trigger.message.image))
        if self._camera is None:
            return self._part(trigger, fault=("trigger_without_image", "want an image in the message, found none"))
        now = time.monotonic()
        last_s = trigger.arrived_s + self._wait_s(trigger)
        # A late frame may be of the next part already: what did not come in time is an error.
        shot = self._camera.capture(trigger.arrived_s, min(end_s, last_s) - now) if now < last_s else None
        if shot is not None:
            return self._part(trigger, shot)
        gone = self._camera.gone
        if not gone and time.monotonic() < last_s:
            self._current = trigger
            return None
        if not trigger.promised:
            self._counts["without_frame"] += 1
            if gone:  # the loop asks again at once; the camera needs its pause
                time.sleep(max(0.0, min(end_s - time.monotonic(), 0.2)))
            return None
        if gone:
            return self._part(trigger, fault=("camera_gone", gone))
        wait_ms = self._wait_s(trigger) * 1e3
        return self._part(trigger, fault=("camera_timeout", f"{self.name}: no frame within {wait_ms:.0f} ms"))

    def _silent_s(self) -> float:
        return self._settings.camera.timeout_ms / 1e3 or _SILENT_S

    def _wait_s(self, trigger: Trigger) -> float:
        """How long to wait for a frame: who waits for a verdict gets it by the deadline, also when it is an error."""
        if not trigger.promised:  # the deadline begins with the frame
            return self._silent_s()
        deadline_s = self._deadline_ms() / 1e3
        left_s = deadline_s - min(_SPARE_S, _SPARE * deadline_s)
        timeout_s = self._settings.camera.timeout_ms / 1e3
        return min(timeout_s, left_s) if timeout_s else left_s

    def _part(self, trigger: Trigger, shot: Shot | None = None, fault: tuple[str, str] | None = None) -> Part:
        if fault is not None:
            self._counts[fault[0]] += 1
        message = trigger.message
        picture = None if shot is None else shot.picture
        captured_s = trigger.arrived_s if shot is None else shot.captured_s
        return Part(
            source_key=trigger.key,
            name=f"{self.name} {message.id}" if message.id else self.name,
            captured_at=trigger.arrived_at + (captured_s - trigger.arrived_s),
            started_s=trigger.arrived_s if trigger.promised else captured_s,
            data=picture if isinstance(picture, bytes) else None,
            frame=None if isinstance(picture, bytes) else picture,
            fault=fault,
            part_id=message.part_id,
            lot=message.lot,
            station=message.station or self._settings.station or None,
            view=message.view or self._settings.view or None,
            handle=replace(trigger, message=replace(message, image=None)),  # kept until the result is durable
            is_new=message.id is None,
        )


def open_triggered(
    text: str,
    settings: SourceSettings,
    transport: Transport | None,
    trigger_topic: str,
    deadline_ms: Callable[[], float],
) -> TriggeredSource:
    """Open a camera, a stream or the images of messages, with the triggers that the settings name; see `open_source`.

    Raises:
        SourceError: settings that do not fit, or a library that is not installed.
    """
    kind, _, rest = text.partition(":")
    if kind == "trigger":
        if rest:
            raise SourceError(f"source: want 'trigger:' and nothing after it, found {text!r}; the topic is a setting")
        return TriggeredSource("trigger", _topic_triggers(settings, transport, trigger_topic, False), None, settings)
    cv2, camera_settings = load_opencv(), settings.camera
    if kind == "v4l2":
        if not rest.startswith("/dev/"):
            raise SourceError(f"source: want v4l2:/dev/videoN or v4l2:/dev/v4l/by-id/NAME, found {text!r}")
        name = text

        def open_capture() -> Capture:
            return V4l2Capture(rest, camera_settings, cv2)
    else:
        name = without_secrets(text)

        def open_capture() -> Capture:
            return StreamCapture(text, camera_settings, cv2)

    triggers = _open_triggers(settings, transport, trigger_topic)
    delay_s = camera_settings.delay_ms / 1000
    camera = Camera(name, open_capture, delay_s, camera_settings.reopen_max_s)
    return TriggeredSource(name, triggers, camera, settings, deadline_ms)


def _open_triggers(settings: SourceSettings, transport: Transport | None, topic: str) -> Triggers:
    if settings.trigger.kind == "interval":
        return IntervalTriggers(settings.trigger.interval_s)
    if settings.trigger.kind == "gpio":
        return GpioTriggers(settings.trigger)
    return _topic_triggers(settings, transport, topic, True)


def _topic_triggers(settings: SourceSettings, transport: Transport | None, topic: str, camera: bool) -> TopicTriggers:
    topic = settings.trigger.topic or topic
    if transport is None or not topic:
        raise SourceError("source: triggers by message need a transport and a topic; set a sink such as mqtt:HOST:PORT")
    return TopicTriggers(transport, topic, settings.trigger, camera)
