"""Reading the spool's rows, on any connection."""

import hashlib
import logging
import sqlite3
from collections import Counter

from edge.errors import ResultError
from edge.results import Result, parse_result
from edge.spool.records import FoldedCounts, Gap

log = logging.getLogger(__name__)


def key_of(source_key: str) -> int:
    """64 bits of the source key's digest: what the index holds, so that a commit writes a short entry."""
    return int.from_bytes(hashlib.blake2b(source_key.encode(), digest_size=8).digest(), "big", signed=True)


def find_result(connection: sqlite3.Connection, source_key: str, thing: str) -> Result | None:
    """The stored result with this source key, or what is still known of it: number, verdict and action."""
    rows = connection.execute("SELECT sequence, body FROM results WHERE key = ?", (key_of(source_key),)).fetchall()
    for sequence, body in rows:
        try:
            result = parse_result(body, f"spool row {sequence}")
        except ResultError as error:  # of a newer program; what cannot be read answers no question
            log.error("event=spool_row_unreadable sequence=%d error=%s", sequence, error)
            continue
        if result.source_key == source_key:
            return result
    return _find_known(connection, source_key, thing)


def _find_known(connection: sqlite3.Connection, source_key: str, thing: str) -> Result | None:
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'known'").fetchone():
        return None  # a file of version 1.0 on a disk that is read-only
    row = connection.execute(
        "SELECT sequence, verdict, action FROM known WHERE key = ?", (key_of(source_key),)
    ).fetchone()
    if row is None:
        return None
    sequence, verdict, action = row
    return Result(
        thing=thing,
        sequence=sequence,
        source_key=source_key,
        line="",
        captured_at=0.0,
        verdict=verdict,
        action=action,
    )


def unsent_rows(connection: sqlite3.Connection, urgent: bool, first: int, limit: int) -> list[tuple[int, str]]:
    """Sequence and body of unsent results, oldest first; of the passes those from `first` on."""
    where = "state = 0 AND verdict <> 'pass'" if urgent else "state = 0 AND verdict = 'pass'"
    return connection.execute(
        f"SELECT sequence, body FROM results WHERE sequence >= ? AND {where} ORDER BY sequence LIMIT ?",
        (0 if urgent else first, limit),
    ).fetchall()


def folded_counts(connection: sqlite3.Connection, thing: str) -> list[FoldedCounts]:
    """Counts of folded results that were not reported, oldest first."""
    rows = connection.execute(
        "SELECT line, hour, package, operating_point, count, first_sequence, last_sequence FROM folded"
        " ORDER BY last_sequence"
    ).fetchall()
    return [FoldedCounts(thing, *row) for row in rows]


def counters(connection: sqlite3.Connection) -> Counter[str]:
    """What was counted since the spool was made."""
    return Counter(dict(connection.execute("SELECT name, count FROM counters").fetchall()))


def gaps(connection: sqlite3.Connection) -> list[Gap]:
    """The gaps in the sequence, oldest first."""
    rows = connection.execute(
        "SELECT first_sequence, next_sequence, lost, reason, noticed_at FROM gaps ORDER BY first_sequence"
    ).fetchall()
    return [Gap(*row) for row in rows]
