"""Reading the spool's rows, on any connection."""

import hashlib
import sqlite3
from collections import Counter

from edge.results import Result, parse_result
from edge.spool.records import FoldedCounts, Gap


def key_of(source_key: str) -> int:
    """64 bits of the source key's digest: what the index holds, so that a commit writes a short entry."""
    return int.from_bytes(hashlib.blake2b(source_key.encode(), digest_size=8).digest(), "big", signed=True)


def find_result(connection: sqlite3.Connection, source_key: str) -> Result | None:
    """The stored result with this source key."""
    rows = connection.execute("SELECT sequence, body FROM results WHERE key = ?", (key_of(source_key),)).fetchall()
    for sequence, body in rows:
        result = parse_result(body, f"spool row {sequence}")
        if result.source_key == source_key:
            return result
    return None


def unsent_rows(connection: sqlite3.Connection, urgent: bool, first: int, limit: int) -> list[tuple[int, str]]:
    """Sequence and body of unsent results, oldest first; of the passes those from `first` on."""
    if urgent:
        where, values = "state = 0 AND verdict <> 'pass'", (limit,)
    else:
        where, values = "sequence >= ? AND state = 0 AND verdict = 'pass'", (first, limit)
    return connection.execute(
        f"SELECT sequence, body FROM results WHERE {where} ORDER BY sequence LIMIT ?", values
    ).fetchall()


def captured_at(connection: sqlite3.Connection, sequence: int) -> float | None:
    """When a stored result was captured, unix seconds."""
    row = connection.execute("SELECT captured_at FROM results WHERE sequence = ?", (sequence,)).fetchone()
    return None if row is None else float(row[0])


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
