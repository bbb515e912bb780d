"""What goes when the spool is over its quota: the least valuable first, counted.

1. results that were sent or evicted before, down to the newest thousand: they serve only to know their source keys
2. pass results: folded into counts by hour, model and operating point
3. images of a shadow run and of the random audit
4. images of reviews and errors
5. images of fails
6. review and error results
7. fail results
8. the rest of 1

Within a class the oldest go first. What the sender has in hand stays (`edge.spool.handed`). An evicted result leaves a
short row behind, so that its source key is still known until `keep_sent` newer ones were sent or evicted. One call of
`make_room` frees one bounded portion, so that commits of new results come in between.

Where parts stay at their source for good, a result that is forgotten leaves a row of 55 bytes in `known`; those are the
last to go.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from edge.errors import ResultError
from edge.results import Result, dump_result, parse_result
from edge.spool.handed import Handed
from edge.spool.records import FoldedCounts
from edge.spool.rows import key_of
from edge.spool.schema import EVICTED
from edge.spool.store import Store

PORTION = 1000  # results at a time
IMAGE_PORTION = 20
TRIM = 500  # settled results beyond the limit before they are deleted: not a few in every commit
SETTLED_FLOOR = 1000  # results whose source keys are known even when room is short
KNOWN_LIMIT = 1_000_000  # forgotten results whose source keys are known all the same
HOUR_S = 3600
PASSES = "verdict = 'pass'"

log = logging.getLogger(__name__)


def trim_settled(store: Store, keep: int, remember: bool) -> None:
    """Forget the oldest results that were sent or evicted, beyond `keep`.

    Args:
        store: open.
        keep: how many results stay whole.
        remember: the source keys of the others too.

    Raises:
        sqlite3.Error: the disk refuses.
    """
    if store.settled >= keep + TRIM:
        _delete_settled(store, min(store.settled - keep, 2 * PORTION), remember)
    if store.known >= KNOWN_LIMIT + TRIM:
        _delete_known(store, min(store.known - KNOWN_LIMIT, 2 * PORTION))


def make_room(store: Store, handed: Handed, remember: bool) -> bool:
    """Free one portion of the least valuable; False when nothing is left.

    Args:
        store: over its quota.
        handed: what the sender has in hand.
        remember: as in `trim_settled`.

    Raises:
        sqlite3.Error, OSError: the disk refuses.
    """
    if store.settled > SETTLED_FLOOR:
        _delete_settled(store, min(store.settled - SETTLED_FLOOR, PORTION), remember)
        return True
    return (
        _evict_results(store, handed, PASSES)
        or _evict_images(store, "reason IN ('shadow', 'audit')")
        or _evict_images(store, "reason IN ('review', 'error')")
        or _evict_images(store, "1")
        or _evict_results(store, handed, "verdict IN ('review', 'error')")
        or _evict_results(store, handed, "1")
        or (store.settled > 0 and _delete_settled(store, min(store.settled, PORTION), remember))
        or (store.known > 0 and _delete_known(store, min(store.known, PORTION)))
    )


def fold(results: Iterable[Result]) -> list[FoldedCounts]:
    """Count pass results by hour of capture, model and operating point."""
    groups: dict[tuple[str, str, int, str, str], list[Result]] = {}
    for result in results:
        hour = int(result.captured_at // HOUR_S) * HOUR_S
        key = (result.thing, result.line, hour, result.package, result.operating_point)
        groups.setdefault(key, []).append(result)
    folded = []
    for (thing, line, hour, package, operating_point), group in groups.items():
        sequences = [result.sequence for result in group]
        folded.append(
            FoldedCounts(thing, line, hour, package, operating_point, len(group), min(sequences), max(sequences))
        )
    return folded


def shortened(result: Result) -> Result:
    """What is kept of an evicted result: enough to answer a re-inspection with."""
    return replace(
        result,
        detail=None,
        probability=None,
        label=None,
        artifact="",
        runtime="",
        image_sha256=None,
        part_id=None,
        lot=None,
        station=None,
        view=None,
        latency_ms={},
    )


def _delete_settled(store: Store, number: int, remember: bool) -> bool:
    connection = store.connection
    known: list[tuple[int, int, str, str]] = []
    if remember:
        rows = connection.execute(
            "SELECT sequence, body FROM results WHERE state <> 0 ORDER BY sequence LIMIT ?", (number,)
        ).fetchall()
        known = [(one.sequence, key_of(one.source_key), one.verdict, one.action) for one in _read(rows)[0]]
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(
            "DELETE FROM results WHERE sequence IN"
            " (SELECT sequence FROM results WHERE state <> 0 ORDER BY sequence LIMIT ?)",
            (number,),
        )
        connection.executemany("INSERT OR IGNORE INTO known(sequence, key, verdict, action) VALUES (?, ?, ?, ?)", known)
        connection.execute("COMMIT")
    except BaseException:
        store.roll_back()
        raise
    store.settled -= number
    store.known += len(known)
    return True


def _delete_known(store: Store, number: int) -> bool:
    connection = store.connection
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(
            "DELETE FROM known WHERE sequence IN (SELECT sequence FROM known ORDER BY sequence LIMIT ?)", (number,)
        )
        connection.execute("COMMIT")
    except BaseException:
        store.roll_back()
        raise
    store.known -= number
    store.forgot = True
    return True


def _evict_results(store: Store, handed: Handed, where: str) -> bool:
    found = store.connection.execute(
        f"SELECT sequence, body FROM results WHERE sequence >= ? AND state = 0 AND {where} ORDER BY sequence LIMIT ?",
        (store.first_pass if where == PASSES else 0, PORTION + handed.count()),
    ).fetchall()
    with handed.evicting([row[0] for row in found], PORTION) as free:
        rows = [row for row in found if row[0] in free]
        if not rows:
            return False
        _shorten(store, rows, where)
    if where == PASSES:
        store.first_pass = next((row[0] for row in found if row[0] not in free), rows[-1][0] + 1)
    return True


def _shorten(store: Store, rows: list[tuple[int, str]], where: str) -> None:
    """Count results, and leave of each what answers a re-inspection."""
    connection = store.connection
    results, unreadable = _read(rows)
    counts = Counter(result.verdict for result in results)
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Deleted and inserted, not updated: rows that only shrink in place free no page.
        connection.executemany("DELETE FROM results WHERE sequence = ?", [(row[0],) for row in rows])
        connection.executemany(
            "INSERT INTO results(sequence, key, verdict, state, captured_at, body) VALUES (?, ?, ?, ?, ?, ?)",
            [
                (
                    result.sequence,
                    key_of(result.source_key),
                    result.verdict,
                    EVICTED,
                    result.captured_at,
                    dump_result(shortened(result)),
                )
                for result in results
            ],
        )
        store.insert_folded(fold(result for result in results if result.verdict == "pass"))
        store.count(Counter(counts) + Counter(unreadable=len(unreadable)))
        connection.execute("COMMIT")
    except BaseException:
        store.roll_back()
        raise
    store.unsent -= len(rows)
    store.settled += len(results)
    if where != PASSES:
        store.urgent -= len(rows)
    log.warning("event=spool_evicted results=%s first=%d last=%d", json.dumps(counts), rows[0][0], rows[-1][0])


def _read(rows: list[tuple[int, str]]) -> tuple[list[Result], list[int]]:
    """The results of rows, and the sequences of rows that a newer program wrote and this one cannot read."""
    results, unreadable = [], []
    for sequence, body in rows:
        try:
            results.append(parse_result(body, f"spool row {sequence}"))
        except ResultError as error:
            log.error("event=spool_row_unreadable sequence=%d error=%s", sequence, error)
            unreadable.append(sequence)
    return results, unreadable


def _evict_images(store: Store, where: str) -> bool:
    connection = store.connection
    rows = connection.execute(
        f"SELECT sequence, suffix, reason, bytes FROM images WHERE {where} ORDER BY sequence LIMIT ?", (IMAGE_PORTION,)
    ).fetchall()
    if not rows:
        return False
    counts = Counter(f"{reason}-image" for _, _, reason, _ in rows)
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.executemany("DELETE FROM images WHERE sequence = ?", [(row[0],) for row in rows])
        store.count(counts)
        connection.execute("COMMIT")
    except BaseException:
        store.roll_back()
        raise
    for sequence, suffix, _, size in rows:
        (store.images / f"{sequence}{suffix}").unlink(missing_ok=True)
        store.image_bytes -= size
        store.image_count -= 1
    log.warning("event=spool_evicted images=%s first=%d last=%d", json.dumps(counts), rows[0][0], rows[-1][0])
    return True
