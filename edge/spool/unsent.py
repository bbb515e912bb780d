"""Lists the results that wait to be sent: those on disk, and in memory those that the disk refuses."""

import logging
from collections.abc import Callable
from typing import Any

from edge.errors import ResultError
from edge.results import Result, parse_result
from edge.spool import rows
from edge.spool.reader import Reader
from edge.spool.records import Entry
from edge.spool.writer import Writer

MARKS_LIMIT = 20_000  # sent results that are not yet noted on disk

log = logging.getLogger(__name__)


class Unsent:
    """The sender's side of the spool.

    Args:
        writer: of the spool.
        reader: of its database.
        read: asks the reader; gives its second argument while the database cannot be read.
    """

    def __init__(self, writer: Writer, reader: Reader, read: Callable[[Callable[..., Any], Any], Any]) -> None:
        self._writer = writer
        self._reader = reader
        self._read = read
        self._first_pass = (0, 0)  # of which opening of the file; no unsent pass has a smaller sequence
        self._unreadable: set[int] = set()

    def take(self, urgent: bool, limit: int) -> list[Result]:
        """Results for the sender, which has them in hand until it takes some again: see `Spool.unsent`."""
        writer = self._writer
        while True:
            with writer.lock:
                changes = writer.handed.changes
            results, entries = self.look(urgent, limit)
            with writer.lock:
                if changes != writer.handed.changes:
                    continue  # an eviction began or ended: some of these may be gone
                gone = {entry.result.sequence for entry in entries if entry.dropped}
                results = [
                    result
                    for result in results
                    if result.sequence not in gone and not writer.handed.leaves(result.sequence)
                ]
                writer.handed.take(urgent, [result.sequence for result in results])
                return results

    def look(self, urgent: bool, limit: int) -> tuple[list[Result], list[Entry]]:
        """Results that were not marked as sent, oldest first; and the entries of those that only memory holds.

        Args:
            urgent: as in `Spool.unsent`.
            limit: how many at most.
        """
        writer = self._writer
        with writer.lock:
            marked = set(writer.marks)
            held = (
                [entry for entry in writer.waiting.entries.values() if entry.result.urgent == urgent]
                if writer.refusal() is not None and not writer.waiting.keeps_results
                else []
            )
            first = writer.waiting.lowest(writer.numbering.next)  # the results of all below have left memory
        hidden = marked | self._unreadable
        # While marks cannot be noted on disk they pile up; then what is stored waits for the disk.
        found = self._rows(urgent, limit + len(hidden), first) if len(marked) < MARKS_LIMIT else []
        results = self._parse([row for row in found if row[0] not in hidden])
        listed = {result.sequence for result in results}
        results += [
            entry.result
            for entry in held
            if not entry.sent and entry.result.sequence not in marked and entry.result.sequence not in listed
        ]
        return sorted(results, key=lambda result: result.sequence)[:limit], held

    def _rows(self, urgent: bool, limit: int, first: int) -> list[tuple[int, str]]:
        """Rows not sent; remembers where the passes begin, so that sent ones are not passed over each time."""
        generation = self._reader.generation
        start = self._first_pass[1] if self._first_pass[0] == generation else 0
        nothing: list[tuple[int, str]] | None = None
        found = self._read(lambda connection: rows.unsent_rows(connection, urgent, start, limit), nothing)
        if found is None:
            return []
        if not urgent and self._reader.generation == generation:
            self._first_pass = (generation, found[0][0] if found else first)
        return found

    def _parse(self, found: list[tuple[int, str]]) -> list[Result]:
        results = []
        for sequence, body in found:
            try:
                results.append(parse_result(body, f"spool row {sequence}"))
            except ResultError as error:  # written by a newer program: stays for one that can read it
                log.error("event=spool_row_unreadable sequence=%d error=%s", sequence, error)
                self._unreadable.add(sequence)
        return results
