"""Opening the spool's database when the one on disk is damaged, or was taken away while it was in use.

A damaged file is moved aside under a name that says so and kept (the newest two), a new one is made, and what can
still be read of the old goes into it.
"""

import logging
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from edge.spool.files import make_folder, sync_folder
from edge.spool.schema import FILE, TABLE_NAMES, connect, is_damaged
from edge.spool.store import Store

KEPT = 2  # damaged databases kept for a person to look at; more would fill the disk

log = logging.getLogger(__name__)


def open_store(folder: Path, wall_clock: Callable[[], float] = time.time) -> tuple[Store, str | None]:
    """Open the database of a spool folder; replace it when it is damaged.

    Returns:
        the store, and what somebody should know: a damaged file was moved aside.

    Raises:
        SpoolError: the database is of another major version.
        sqlite3.Error, OSError: the disk refuses.
    """
    try:
        return Store(folder), None
    except sqlite3.DatabaseError as error:
        if not is_damaged(error):
            raise
        return replace_damaged(folder, error, wall_clock)


def replace_damaged(
    folder: Path, error: Exception, wall_clock: Callable[[], float] = time.time
) -> tuple[Store, str | None]:
    """Move the damaged database aside, make a new one, and bring over what can be read.

    Raises:
        SpoolError, sqlite3.Error, OSError: as `open_store`.
    """
    aside = _move_aside(folder, wall_clock())
    log.error("event=spool_damaged moved_to=%s error=%s", aside.name, error)
    store = Store(folder)
    saved = 0
    try:
        old = connect(aside, writes=True)
        try:
            saved = rescue(old, store)
        finally:
            old.close()
    except sqlite3.Error as unreadable:
        log.error("event=spool_rescue_failed file=%s error=%s", aside.name, unreadable)
    sync_folder(folder)
    notice = f"the spool's database was damaged ({error}); it was moved to {aside.name}, {saved} rows could be saved"
    return store, notice


def rescue(old: sqlite3.Connection, store: Store, tables: tuple[str, ...] = TABLE_NAMES) -> int:
    """Copy what can be read of an old database: forwards to the damage, then backwards to it.

    Returns:
        how many rows came over.

    Raises:
        sqlite3.Error, OSError: the new database cannot be written.
    """
    before = store.connection.total_changes
    for table in tables:
        for order in ("ASC", "DESC"):
            if _copy(old, store.connection, table, order):
                break
    store.recount()
    return store.connection.total_changes - before


def _copy(old: sqlite3.Connection, new: sqlite3.Connection, table: str, order: str) -> bool:
    """True when the table was read to its end."""
    names = [row[1] for row in new.execute(f"PRAGMA table_info({table})").fetchall()]
    columns, places = ", ".join(names), ", ".join("?" * len(names))
    rows: list[tuple[object, ...]] = []
    whole = False
    try:
        if not old.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
            return True  # a file of an older minor
        cursor = old.execute(f"SELECT {columns} FROM {table} ORDER BY {names[0]} {order}")
        for row in cursor:  # one by one: `fetchmany` would lose those it had read when it met the damage
            rows.append(row)
            if len(rows) >= 5000:
                _insert(new, table, columns, places, rows)
                rows = []
        whole = True
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        log.error("event=spool_rescue_stopped table=%s order=%s error=%s", table, order, error)
    _insert(new, table, columns, places, rows)
    return whole


def _insert(new: sqlite3.Connection, table: str, columns: str, places: str, rows: list[tuple[object, ...]]) -> None:
    new.execute("BEGIN IMMEDIATE")
    try:
        new.executemany(f"INSERT OR IGNORE INTO {table}({columns}) VALUES ({places})", rows)
        new.execute("COMMIT")
    except BaseException:
        if new.in_transaction:
            new.execute("ROLLBACK")
        raise


def _move_aside(folder: Path, now: float) -> Path:
    """Give the damaged file another name; the name it has already when an earlier try got no further."""
    make_folder(folder)
    older = _damaged_files(folder)
    if not (folder / FILE).exists() and older:
        return older[-1]
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    aside = folder / f"{FILE}.damaged-{stamp}"
    count = 0
    while aside.exists():
        count += 1
        aside = folder / f"{FILE}.damaged-{stamp}-{count}"
    (folder / FILE).replace(aside)
    log_file = folder / f"{FILE}-wal"
    if log_file.exists():
        log_file.replace(folder / f"{aside.name}-wal")
    (folder / f"{FILE}-shm").unlink(missing_ok=True)
    sync_folder(folder)
    for path in older[: len(older) + 1 - KEPT]:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        log.warning("event=spool_damaged_removed file=%s", path.name)
    return aside


def _damaged_files(folder: Path) -> list[Path]:
    """Oldest first."""
    found = [path for path in folder.glob(f"{FILE}.damaged-*") if not path.name.endswith(("-wal", "-shm"))]
    return sorted(found, key=lambda path: path.stat().st_ctime_ns)
