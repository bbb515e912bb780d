"""The spool on disk: the database and the image files, as the writer thread sees them."""

import json
import logging
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.results import Result
from edge.spool.files import identity, make_folder, sync_folder, write_synced
from edge.spool.images import FOLDER as IMAGE_FOLDER
from edge.spool.images import SENT_SUFFIX, confirmed_files, image_files
from edge.spool.records import Entry, FoldedCounts, Gap
from edge.spool.rows import find_result, key_of
from edge.spool.schema import FILE, SENT, UNSENT, connect, prepare

CHECK_BYTES = 32_000_000  # a database up to this size is read through after a crash: a second or so on a card

log = logging.getLogger(__name__)


@dataclass
class Batch:
    """What one commit brings to disk."""

    entries: list[Entry] = field(default_factory=list)  # whose results are not stored
    images: list[Entry] = field(default_factory=list)  # whose image files are written
    sent: list[int] = field(default_factory=list)
    folded: list[FoldedCounts] = field(default_factory=list)
    folded_sent: list[int] = field(default_factory=list)  # their last sequences
    gaps: list[Gap] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    additions: dict[int, dict[str, Any]] = field(default_factory=dict)  # to sidecars of images, by sequence
    confirmed: list[int] = field(default_factory=list)  # images that the uploader is done with


class Store:
    """An open spool database with its image folder.

    Args:
        folder: made when it is not there.

    Raises:
        SpoolError: the database is of another major version.
        sqlite3.Error, OSError: the disk refuses, or the database is damaged (`schema.is_damaged`).
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self.images = folder / IMAGE_FOLDER
        make_folder(self.images)
        if not os.access(folder, os.W_OK):  # SQLite would only say that it is unable to open the file
            raise PermissionError(f"{folder}: the file system is read-only, or the folder belongs to another user")
        self.connection = connect(self.path, writes=True)
        try:
            prepare(self.connection, self.path)
            self._identity = identity(self.path)
            self.page_bytes: int = self._number("PRAGMA page_size")
            self.recount()
            self.first_pass = 0  # no unsent pass result has a smaller sequence
            self.forgot = False  # source keys that should have been remembered
        except BaseException:
            self.connection.close()
            raise

    def recount(self) -> None:
        """Count rows anew."""
        self.urgent = self._number("SELECT count(*) FROM results WHERE state = 0 AND verdict <> 'pass'")
        self.settled = self._number("SELECT count(*) FROM results WHERE state <> 0")
        self.unsent = self._number("SELECT count(*) FROM results") - self.settled
        self.known = self._number("SELECT count(*) FROM known")
        self.image_bytes = self._number("SELECT total(bytes) FROM images")
        self.image_count = self._number("SELECT count(*) FROM images")

    def highest(self) -> int | None:
        """The largest sequence in the database."""
        row = self.connection.execute(
            "SELECT max(top) FROM (SELECT max(sequence) AS top FROM results UNION ALL SELECT max(sequence) FROM images"
            " UNION ALL SELECT max(last_sequence) FROM folded UNION ALL SELECT max(next_sequence) - 1 FROM gaps"
            " UNION ALL SELECT max(sequence) FROM known)"
        ).fetchone()
        return None if row[0] is None else int(row[0])

    def check_content(self) -> None:
        """Read the database through, when that is quick.

        Raises:
            sqlite3.DatabaseError: it is damaged.
        """
        if self.path.stat().st_size > CHECK_BYTES:
            return
        found = self.connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(f"database disk image is malformed: {found}")

    def tidy_images(self) -> Counter[str]:
        """Bring files and rows of images into agreement after a crash; returns what was found, by name."""
        found: Counter[str] = Counter()
        rows = {row[0]: row[1] for row in self.connection.execute("SELECT sequence, suffix FROM images")}
        files, confirmed = image_files(self.images), confirmed_files(self.images)
        known = {*files, *confirmed}
        for sequence, name in files.items():
            if rows.get(sequence) is None or name != f"{sequence}{rows[sequence]}":
                (self.images / name).unlink(missing_ok=True)
                found["image-file-without-row"] += 1
        lost = [sequence for sequence in rows if sequence not in known]
        found["lost-image"] += len(lost)
        if lost or confirmed:
            self.commit(Batch(confirmed=lost + confirmed, counts=Counter({"lost-image": len(lost)})))
        return +found

    def is_in_place(self) -> bool:
        """Whether the open file is still the one in the folder.

        Raises:
            OSError: the disk refuses.
        """
        return identity(self.path) == self._identity

    def write_image(self, entry: Entry) -> None:
        """Write an entry's image file, synced; the folder is synced by `commit`.

        Raises:
            OSError: the disk refuses.
        """
        assert entry.image is not None
        write_synced(self.image_path(entry), entry.image.data)

    def commit(self, batch: Batch) -> dict[int, Result]:
        """Bring a batch to disk, all of it or nothing.

        Returns:
            by sequence: the stored results of entries whose source key was stored before, under another sequence.

        Raises:
            sqlite3.Error, OSError: the disk refuses.
        """
        if batch.images:
            sync_folder(self.images)
        known: dict[int, Result] = {}
        run = self.connection.execute
        run("BEGIN IMMEDIATE")
        try:
            unsent, urgent = self._insert_results(batch.entries, known)
            images = [entry for entry in batch.images if entry.result.sequence not in known]
            image_bytes = self._insert_images(images)
            self._add_to_sidecars(batch.additions)
            newly_sent, urgent_sent = self._mark_sent(batch.sent)
            self.insert_folded(batch.folded)
            for last in batch.folded_sent:
                run("DELETE FROM folded WHERE last_sequence = ?", (last,))
            for gap in batch.gaps:
                values = (gap.first_sequence, gap.next_sequence, gap.lost, gap.reason, gap.noticed_at)
                run("INSERT OR IGNORE INTO gaps VALUES (?, ?, ?, ?, ?)", values)
            freed = self._forget_images(batch.confirmed)
            self.count(batch.counts)
            run("COMMIT")
        except BaseException:
            self.roll_back()
            raise
        if not self.is_in_place():
            raise FileNotFoundError(f"{self.path}: was removed or replaced while it was in use")
        self.unsent += unsent - newly_sent
        self.urgent += urgent - urgent_sent
        self.settled += newly_sent
        self.image_bytes += image_bytes - freed[1]
        self.image_count += len(images) - freed[0]
        for sequence in batch.confirmed:
            (self.images / f"{sequence}{SENT_SUFFIX}").unlink(missing_ok=True)
        for entry in batch.images:
            if entry.result.sequence in known:
                self.image_path(entry).unlink(missing_ok=True)
        return known

    def image_path(self, entry: Entry) -> Path:
        """Where an entry's image lies."""
        assert entry.image is not None
        return self.images / f"{entry.result.sequence}{entry.image.suffix}"

    def count(self, counts: Counter[str]) -> None:
        """Add to the counters, inside a transaction."""
        self.connection.executemany(
            "INSERT INTO counters VALUES (?, ?) ON CONFLICT(name) DO UPDATE SET count = count + excluded.count",
            counts.items(),
        )

    def roll_back(self) -> None:
        """End a transaction that failed; SQLite may have ended it already."""
        if self.connection.in_transaction:
            try:
                self.connection.execute("ROLLBACK")
            except sqlite3.Error as error:
                log.debug("event=spool_rollback_failed error=%r", error)

    def used_bytes(self) -> int:
        """Bytes that rows and images take; pages of the database that are free to be used again do not count."""
        pages = self._number("PRAGMA page_count") - self._number("PRAGMA freelist_count")
        return pages * self.page_bytes + self.image_bytes

    def file_bytes(self) -> int:
        """Bytes of the database's file and the images."""
        return self._number("PRAGMA page_count") * self.page_bytes + self.image_bytes

    def shrink(self, pages: int) -> None:
        """Give free pages of the database back to the file system."""
        # Not `execute`: the statement gives a row without columns for each page, and a cursor takes only the first.
        self.connection.executescript(f"PRAGMA incremental_vacuum({pages});")

    def close(self) -> None:
        """Let go of the file; the last one to do so makes SQLite fold its log into the database."""
        self.connection.close()

    def _number(self, statement: str) -> int:
        return int(self.connection.execute(statement).fetchone()[0])

    def _insert_results(self, entries: Iterable[Entry], known: dict[int, Result]) -> tuple[int, int]:
        """Returns how many are unsent, and how many of those are urgent."""
        unsent = urgent = 0
        for entry in entries:
            result = entry.result
            stored = find_result(self.connection, result.source_key, result.thing)
            if stored is not None:
                if stored.sequence != result.sequence:  # else an earlier commit failed after it had reached the disk
                    known[result.sequence] = stored
                continue
            state = SENT if entry.sent else UNSENT
            self.connection.execute(
                "INSERT INTO results(sequence, key, verdict, state, captured_at, body) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    result.sequence,
                    key_of(result.source_key),
                    result.verdict,
                    state,
                    result.captured_at,
                    entry.body,
                ),
            )
            unsent += 1
            urgent += result.urgent
            if result.sequence < self.first_pass:
                self.first_pass = result.sequence
        return unsent, urgent

    def _insert_images(self, entries: Iterable[Entry]) -> int:
        """Returns their bytes."""
        total = 0
        for entry in entries:
            assert entry.image is not None
            image, result = entry.image, entry.result
            sidecar = {**image.sidecar, "id": result.id, "result": json.loads(entry.body)}
            self.connection.execute(
                "INSERT OR REPLACE INTO images(sequence, suffix, reason, probability, bytes, verdict, captured_at,"
                " thing, line, sidecar) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    result.sequence,
                    image.suffix,
                    image.reason,
                    image.probability,
                    len(image.data),
                    result.verdict,
                    result.captured_at,
                    result.thing,
                    result.line,
                    _dump(sidecar),
                ),
            )
            total += len(image.data)
        return total

    def _add_to_sidecars(self, additions: Mapping[int, Mapping[str, Any]]) -> None:
        for sequence, fields in additions.items():
            row = self.connection.execute("SELECT sidecar FROM images WHERE sequence = ?", (sequence,)).fetchone()
            if row is not None:
                sidecar = _dump({**json.loads(row[0]), **fields})
                self.connection.execute("UPDATE images SET sidecar = ? WHERE sequence = ?", (sidecar, sequence))

    def _mark_sent(self, sequences: Sequence[int]) -> tuple[int, int]:
        """Returns how many were unsent, and how many of those are urgent."""
        marked = urgent = 0
        for sequence in sequences:
            row = self.connection.execute(
                "SELECT verdict FROM results WHERE sequence = ? AND state = 0", (sequence,)
            ).fetchone()
            if row is not None:
                self.connection.execute("UPDATE results SET state = ? WHERE sequence = ?", (SENT, sequence))
                marked += 1
                urgent += row[0] != "pass"
        return marked, urgent

    def insert_folded(self, counts: Iterable[FoldedCounts]) -> None:
        """Add counts of folded results, inside a transaction; the same counts only once."""
        for count in counts:
            self.connection.execute(
                "INSERT OR IGNORE INTO folded(last_sequence, first_sequence, hour, line, package, operating_point,"
                " count) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    count.last_sequence,
                    count.first_sequence,
                    count.hour,
                    count.line,
                    count.package,
                    count.operating_point,
                    count.count,
                ),
            )

    def _forget_images(self, sequences: Iterable[int]) -> tuple[int, int]:
        """Returns how many rows are gone, and the bytes of their images."""
        number = total = 0
        for sequence in sequences:
            row = self.connection.execute("SELECT bytes FROM images WHERE sequence = ?", (sequence,)).fetchone()
            if row is not None:
                self.connection.execute("DELETE FROM images WHERE sequence = ?", (sequence,))
                number, total = number + 1, total + row[0]
        return number, total


def _dump(sidecar: Mapping[str, Any]) -> str:
    return json.dumps(sidecar, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
