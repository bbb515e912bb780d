"""Opens a source by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import SourceError
from edge.redaction import redact
from edge.sources.settings import SourceSettings

if TYPE_CHECKING:
    from edge.part import Source
    from edge.transports.interface import Transport

FORMS = "folder:PATH, v4l2:/dev/videoN, rtsp://HOST/PATH, http://HOST/PATH (MJPEG), trigger: (images by message)"
KINDS = ("folder", "v4l2", "rtsp", "rtsps", "http", "https", "trigger")


def open_source(
    text: str,
    settings: SourceSettings,
    transport: Transport | None = None,
    trigger_topic: str = "",
    deadline_ms: Callable[[], float] = lambda: 2000.0,
) -> Source:
    """Open the source that a name stands for.

    Args:
        text: see FORMS.
        settings: of all kinds of sources; those of other kinds are not looked at.
        transport: brings triggers by message; not needed by folders.
        trigger_topic: where triggers come, if the settings name no other topic.
        deadline_ms: tells how long a verdict may take now.

    Raises:
        SourceError: no such kind of source, settings that do not fit, or a library that is not installed. A camera
            that is not there is no such error: it may come.
    """
    faults = settings.check()
    if faults:
        raise SourceError(f"source: {'; '.join(faults)}")
    check_kind(text)
    kind, _, rest = text.partition(":")
    station, view = settings.station or None, settings.view or None
    if kind == "folder":
        if not rest:
            raise SourceError("source: want folder:PATH, found no path")
        from edge.sources.folder import FolderSource

        return FolderSource(Path(rest), settings.folder, station, view)
    from edge.sources.triggered import open_triggered

    return open_triggered(text, settings, transport, trigger_topic, deadline_ms)


def check_kind(text: str) -> None:
    """Refuse what names no kind of source; also before devices are told of it.

    Raises:
        SourceError: it is none of KINDS.
    """
    kind, colon, _ = text.partition(":")
    if not colon or kind not in KINDS:
        raise SourceError(f"source: want one of {FORMS}, found {redact(text)!r}")
