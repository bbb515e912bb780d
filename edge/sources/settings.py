"""Settings of the sources."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

_AFTER = ("move", "keep", "delete")
_FORMATS = ("mjpeg", "yuyv", "grey", "rgb24", "any")
_TRIGGERS = ("interval", "topic", "gpio")
_EDGES = ("rising", "falling")
_BIASES = ("as-is", "disabled", "pull-up", "pull-down")


@dataclass(frozen=True)
class FolderSettings:
    """A folder of image files."""

    after: str = "move"  # what happens to a finished file: "move" to done/<verdict>/, "keep" where it is, or "delete"
    done: str = ""  # folder for moved files; empty: `done` inside the source's folder
    once: bool = False  # True: end when no file is left; False: wait for more
    recursive: bool = False  # also folders below; these are polled only
    watch: bool = True  # let the kernel tell of new files (inotify); polling goes on beside it
    interval_s: float = 2.0  # s between two looks at the folder: a network share tells of nothing
    settle_ms: int = 500  # a file found by looking is taken when size and time stayed the same for so long
    empty_after_ms: int = 10_000  # an empty file is waited for so long, then it is an error
    suffixes: tuple[str, ...] = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")  # others are ignored; any case
    temporary: tuple[str, ...] = (
        ".tmp",
        ".part",
        ".partial",
        ".filepart",
        ".crdownload",
        "~",
    )  # ends of unfinished ones
    max_file_bytes: int = 64 * 1024 * 1024  # a larger file is an error, unread

    def check(self) -> list[str]:
        """Faults, in words."""
        faults = _choice("after", self.after, _AFTER)
        faults += _within("interval_s", self.interval_s, 0.05, 3600)
        faults += _within("settle_ms", self.settle_ms, 0, 600_000)
        faults += _within("empty_after_ms", self.empty_after_ms, 0, 3_600_000)
        faults += _within("max_file_bytes", self.max_file_bytes, 1, 2**31)
        if not self.suffixes or not all(suffix.startswith(".") and len(suffix) > 1 for suffix in self.suffixes):
            faults.append(f"suffixes: want one or more such as '.jpg', found {list(self.suffixes)}")
        if not all(self.temporary):
            faults.append("temporary: want ends of names, found an empty one, which every name ends with")
        return faults


@dataclass(frozen=True)
class CameraSettings:
    """A V4L2 camera or a network stream."""

    width: int = 0  # px; 0: as the camera has it (V4L2 only)
    height: int = 0  # px; 0: as the camera has it (V4L2 only)
    format: str = "mjpeg"  # pixel format asked of the camera: mjpeg, yuyv, grey, rgb24, any (V4L2 only)
    fps: float = 0.0  # frames per second; 0: as the camera has it (V4L2 only)
    buffers: int = 2  # frames that the driver may hold; as many are skipped when it gives no times (V4L2 only)
    timeout_ms: int = 0  # a trigger without a frame for so long is an error; 0: as long as deadline_ms allows
    delay_ms: int = 0  # a frame is that much older than its arrival: a stream's latency, with some to spare
    stall_s: float = 10.0  # a camera without a frame for so long is opened again
    reopen_max_s: float = 30.0  # the longest wait between two attempts to open; they begin at 0.5 s

    def check(self) -> list[str]:
        """Faults, in words."""
        faults = _choice("format", self.format, _FORMATS)
        faults += _within("width", self.width, 0, 65_535) + _within("height", self.height, 0, 65_535)
        faults += _within("fps", self.fps, 0, 10_000) + _within("buffers", self.buffers, 1, 32)
        faults += _within("timeout_ms", self.timeout_ms, 0, 600_000) + _within("delay_ms", self.delay_ms, 0, 60_000)
        faults += _within("stall_s", self.stall_s, 0.1, 3600) + _within("reopen_max_s", self.reopen_max_s, 0.5, 3600)
        if (self.width == 0) != (self.height == 0):
            faults.append(f"width and height: want both or neither, found {self.width} and {self.height}")
        return faults


@dataclass(frozen=True)
class TriggerSettings:
    """What says that a part is there, for cameras and for images that come by message."""

    kind: str = "interval"  # "interval", "topic" (a message) or "gpio" (an edge on a line)
    interval_s: float = 1.0  # s between two pictures; 0: every frame
    topic: str = ""  # empty: the `trigger` topic of this thing
    max_age_ms: int = 2000  # a camera follows no message whose sent_at is older: another part is there by now
    repeat_within_s: float = 10.0  # s; a camera's trigger with the same id and names within this time is a repeat
    max_waiting: int = 256  # messages that may wait; more are dropped and counted
    max_message_bytes: int = 24 * 1024 * 1024  # a larger message is an error
    max_waiting_bytes: int = 96 * 1024 * 1024  # of all waiting messages together; images above it are errors
    gpio_chip: str = "/dev/gpiochip0"  # that has the line
    gpio_line: int = 0  # offset of the line on its chip
    gpio_edge: str = "rising"  # rising or falling
    gpio_bias: str = "as-is"  # as-is, disabled, pull-up, pull-down
    gpio_debounce_ms: float = 2.0  # ms; shorter pulses are no trigger

    def check(self) -> list[str]:
        """Faults, in words."""
        faults = _choice("kind", self.kind, _TRIGGERS)
        faults += _within("interval_s", self.interval_s, 0, 86_400)
        faults += _within("max_age_ms", self.max_age_ms, 1, 3_600_000)
        faults += _within("repeat_within_s", self.repeat_within_s, 0, 3600)
        faults += _within("max_waiting", self.max_waiting, 1, 100_000)
        faults += _within("max_message_bytes", self.max_message_bytes, 256, 256 * 1024 * 1024)
        faults += _within("max_waiting_bytes", self.max_waiting_bytes, 256, 2**33)
        faults += _within("gpio_line", self.gpio_line, 0, 1023) + _choice("gpio_edge", self.gpio_edge, _EDGES)
        faults += _choice("gpio_bias", self.gpio_bias, _BIASES)
        faults += _within("gpio_debounce_ms", self.gpio_debounce_ms, 0, 10_000)
        if any(sign in self.topic for sign in "+#\0"):
            faults.append(f"topic: want one topic, found the filter {self.topic!r}")
        return faults


@dataclass(frozen=True)
class SourceSettings:
    """Everything about where parts come from."""

    uri: str = ""  # folder:PATH, v4l2:DEVICE, rtsp://…, rtsps://…, http(s)://… (MJPEG), trigger: (images by message)
    station: str = ""  # where on the line this camera is; goes into results
    view: str = ""  # which side of the part it sees; goes into results
    folder: FolderSettings = field(default_factory=FolderSettings)
    camera: CameraSettings = field(default_factory=CameraSettings)
    trigger: TriggerSettings = field(default_factory=TriggerSettings)

    @property
    def is_folder(self) -> bool:
        """Whether parts come as files in a folder."""
        return self.uri.startswith("folder:")

    @property
    def is_triggered_camera(self) -> bool:
        """Whether somebody who wants a verdict in time says when a camera has to look."""
        return not self.is_folder and not self.uri.startswith("trigger:") and self.trigger.kind != "interval"

    def check(self) -> list[str]:
        """Faults, in words; those of a part begin with its name."""
        faults = []
        for name in ("station", "view"):
            value = getattr(self, name)
            if len(value) > 64 or not (value.isprintable()):
                faults.append(f"{name}: want up to 64 printable characters, found {value[:80]!r}")
        for name in ("folder", "camera", "trigger"):
            faults += [f"{name}.{fault}" for fault in getattr(self, name).check()]
        return faults


def _choice(name: str, value: str, allowed: tuple[str, ...]) -> list[str]:
    return [] if value in allowed else [f"{name}: want one of {', '.join(allowed)}, found {value!r}"]


def _within(name: str, value: float, low: float, high: float) -> list[str]:
    if isinstance(value, bool) or not math.isfinite(value) or not low <= value <= high:
        return [f"{name}: want {low:g} to {high:g}, found {value}"]
    return []
