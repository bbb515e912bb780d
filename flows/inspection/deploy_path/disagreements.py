"""Pictures of parts on which champion and challenger disagree, as the devices sent them to the images for review."""

import io
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from PIL import Image, UnidentifiedImageError

from edge.errors import SidecarError
from edge.sidecar import Sidecar, parse_sidecar
from inspection.deploy_path.view import DisagreementView
from inspection.errors import StorageError
from inspection.fleet.reports import VERDICTS
from inspection.storage import Storage

log = logging.getLogger(__name__)

WANTED = 12
MOST_DAYS = 7  # that are looked through, the newest
MOST_READ = 400  # sidecars read at one look: with a camera that keeps much, those of one day are thousands
SIDE_PX = 400  # of a picture that is kept in memory, longer side


class Disagreements:
    """Finds them as they arrive; each sidecar is read once.

    Args:
        storage: of the line.
        line: its name.
        things: devices of the canary group.
        champion: digest of its contract.
        challenger: digest of its contract.
        since: unix time at which the comparison began.
    """

    def __init__(
        self, storage: Storage, line: str, things: Sequence[str], champion: str, challenger: str, since: float
    ) -> None:
        self._storage, self._line, self._things = storage, line, tuple(things)
        self._digests = (champion, challenger)
        self._since = datetime.fromtimestamp(since, UTC)
        self._read: set[str] = set()
        self.found: list[DisagreementView] = []  # so far

    def look(self) -> list[DisagreementView]:
        """Those that are there by now, in the order in which they were found.

        Raises:
            StorageError: the storage cannot be read.
        """
        read = 0
        for prefix in self._prefixes() if len(self.found) < WANTED else ():
            for key in self._storage.list(prefix):
                if not key.endswith(".json") or key in self._read:
                    continue
                if len(self.found) >= WANTED or read >= MOST_READ:
                    return self.found
                read += 1
                self._read.add(key)
                found = self._open(key)
                if found is not None:
                    self.found.append(found)
        return self.found

    def _prefixes(self) -> list[str]:
        today = datetime.now(UTC).date() + timedelta(days=1)  # a device's clock may be ahead
        first = max(self._since.date() - timedelta(days=1), today - timedelta(days=MOST_DAYS))
        days = [first + timedelta(days=number) for number in range((today - first).days + 1)]
        return [
            f"{self._line}/raw-images-for-review/{thing}/{verdict}/{day:%Y-%m-%d}/"
            for day in reversed(days)
            for thing in self._things
            for verdict in VERDICTS
        ]

    def _open(self, key: str) -> DisagreementView | None:
        """The part of a sidecar; None when it is about other models, or cannot be shown."""
        try:
            sidecar = parse_sidecar(self._storage.read(key).decode("utf-8"), key)
            if not self._is_ours(sidecar) or sidecar.shadow is None:
                return None
            picture = self._storage.read(key.removesuffix(".json") + sidecar.image.suffix)
            with Image.open(io.BytesIO(picture)) as image:
                image.draft("RGB", (SIDE_PX, SIDE_PX))
                small = image.convert("RGB")
                small.thumbnail((SIDE_PX, SIDE_PX))
        except (SidecarError, StorageError, UnicodeDecodeError, UnidentifiedImageError, OSError) as error:
            log.info("event=disagreement_not_shown key=%s reason=%r", key, str(error))
            return None
        result = sidecar.result
        return DisagreementView(np.asarray(small), result.thing, result.verdict, sidecar.shadow.verdict)

    def _is_ours(self, sidecar: Sidecar) -> bool:
        shadow = sidecar.shadow
        return shadow is not None and (shadow.champion, shadow.digest) == self._digests
