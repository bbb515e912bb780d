"""What a source hands to the inspector: parts; and what every source can do."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from edge.results import Result


@dataclass(frozen=True, eq=False)
class Part:
    """One part to inspect: an encoded file, a raw frame, or the fault that left it without a picture."""

    source_key: str  # unique name of this inspection: the same key gets the stored result, not a new one
    name: str  # for messages: file name, camera, trigger id
    captured_at: float  # unix seconds, wall clock
    started_s: float  # time.monotonic() when the part was there: `deadline_ms` counts from here
    data: bytes | None = None  # encoded file as captured: JPEG, PNG, ...
    frame: np.ndarray | None = None  # or the raw frame: uint8, shape (H, W, 3), RGB
    fault: tuple[str, str] | None = None  # (error code, message) when there is a part but no picture: verdict error
    part_id: str | None = None
    lot: str | None = None
    station: str | None = None
    view: str | None = None
    handle: object = None  # the source's own
    is_new: bool = False  # its key is made for it: nobody can have inspected it before

    @property
    def picture_bytes(self) -> int:
        """What its picture takes in memory."""
        return (len(self.data) if self.data is not None else 0) + (self.frame.nbytes if self.frame is not None else 0)

    def without_picture(self) -> Part:
        """The part without what takes memory: for its acknowledgement, when many wait for the disk."""
        return replace(self, data=None, frame=None)


@dataclass(frozen=True)
class SourceHealth:
    """How a source does."""

    ok: bool
    message: str
    counts: dict[str, int] = field(default_factory=dict)  # what happened so far, by name: reopened, refused, ...


class Source(Protocol):
    """Where parts come from. All methods are called from one thread, that of the inspector's loop."""

    name: str
    keeps_parts: bool  # True: what is not acknowledged comes again after a restart (a folder); False: a camera

    def next_part(self, timeout_s: float) -> Part | None:
        """The next part, or None when there is none within the timeout."""

    def acknowledge(self, part: Part, result: Result) -> None:
        """The result is durable: move or delete the file, answer the trigger. Parts come back in any order."""

    def finished(self) -> bool:
        """True when a finite source (a folder read once) has no more parts."""

    def health(self) -> SourceHealth:
        """How the source does now."""

    def close(self) -> None:
        """Let go of files and devices."""
