"""Empties the queue of kept images into a store."""

import hashlib
import logging
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from edge.errors import SidecarError, UploadError
from edge.sidecar import Sidecar, dump_sidecar, read_sidecar
from edge.spool.images import ImageQueue, WaitingImage
from edge.uploader.stores import Store, store_key

_log = logging.getLogger(__name__)

_AT_ONCE = 16  # rows asked for
_MOST_REFUSED = 3  # different images in a row: then it is the store and not the image


@dataclass
class Sent:
    """What an uploader did."""

    images: int = 0
    image_bytes: int = 0
    damaged: int = 0  # sent, though the file was not what had been kept
    gone: int = 0  # the spool needed the room before they were sent
    refused: int = 0  # still waiting: the store refuses this one, or its sidecar is of another version
    state: str = "done"  # or that of the error which ended it
    message: str = ""


def send_all(queue: ImageQueue, store: Store, on_progress: Callable[[], None] = lambda: None) -> Sent:
    """Send until nothing waits or the store takes no more.

    The sidecar goes first: whoever lists the inbox's images finds each one's sidecar in place, and a sidecar without
    image is an upload that is not finished. Only when the store has confirmed both, the local file goes.

    Args:
        queue: of the spool.
        store: where to.
        on_progress: called after each image.

    Returns:
        What was done, and what ended it.
    """
    sent = Sent()
    passed_over: set[int] = set()
    refused_in_a_row = 0
    try:
        while images := _next(queue, passed_over):
            for image in images:
                try:
                    if not _send(image, store, queue, sent):
                        passed_over.add(image.sequence)
                    refused_in_a_row = 0
                except (UploadError, SidecarError) as error:
                    sent.message = str(error)
                    sent.state = error.state if isinstance(error, UploadError) else "refused"
                    if sent.state != "refused":
                        return sent
                    _log.warning("event=image_refused sequence=%d error=%s", image.sequence, error)
                    passed_over.add(image.sequence)
                    sent.refused += 1
                    refused_in_a_row += 1
                    if refused_in_a_row >= _MOST_REFUSED:
                        return sent
                on_progress()
    except (OSError, sqlite3.Error) as error:
        sent.state, sent.message = "spool", f"cannot read or change the spool: {error}; check the device's disk"
    return sent


def _next(queue: ImageQueue, passed_over: set[int]) -> list[WaitingImage]:
    """The oldest images that were not tried yet."""
    waiting = queue.waiting(_AT_ONCE + len(passed_over))
    return [image for image in waiting if image.sequence not in passed_over]


def _send(image: WaitingImage, store: Store, queue: ImageQueue, sent: Sent) -> bool:
    """Send one image; False when there is none any more."""
    sidecar = read_sidecar(image.sidecar, f"sidecar of result {image.sequence}")
    try:
        data = image.path.read_bytes()
    except FileNotFoundError:
        _log.info("event=image_gone sequence=%d", image.sequence)
        sent.gone += 1
        return False
    digest = hashlib.sha256(data).hexdigest()
    if digest != sidecar.image.sha256:
        _log.error("event=image_damaged sequence=%d path=%s", image.sequence, image.path)
        sidecar = replace(sidecar, image=replace(sidecar.image, sha256=digest, damaged=True))
        sent.damaged += 1
    text = dump_sidecar(sidecar).encode()
    store.put(inbox_key(sidecar, ".json"), text, hashlib.sha256(text).hexdigest())
    store.put(inbox_key(sidecar, sidecar.image.suffix), data, digest)
    queue.confirm(image.sequence)
    sent.images += 1
    sent.image_bytes += len(data)
    return True


def inbox_key(sidecar: Sidecar, suffix: str) -> str:
    """`<line>/raw-images-for-review/<thing>/<verdict>/<date>/<id><suffix>`; the date is that of capture, in UTC."""
    result = sidecar.result
    date = datetime.fromtimestamp(result.captured_at, timezone.utc).strftime("%Y-%m-%d")
    return store_key(result.line, result.thing, result.verdict, date, result.id + suffix)
