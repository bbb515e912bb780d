"""The spool's database file: its version, its tables, and opening it.

`user_version` is 1000 * major + minor. A file of another major is refused, one of an older minor is brought up to
date, one of a newer minor is used as it is (a minor only adds what may be left out). `meta.requires` holds names that
a program must know to use the file, as in every schema of this project.

Write-ahead log with `synchronous=FULL`: SQLite syncs the log in every commit, so what is committed survives a power
loss, and a commit costs one sync. (With NORMAL a power loss takes the last commits.) Pages of 2 KiB: measured, they
wear a card less than 4 KiB, because a commit writes whole pages.
"""

import json
import sqlite3
from pathlib import Path

from edge.errors import SpoolError
from edge.spool.files import sync_folder

FILE = "spool.db"
MAJOR, MINOR = 1, 1  # 1.1: known
APPLICATION_ID = 0x4C535031  # "LSP1": marks the file as a spool
KNOWN_REQUIREMENTS: frozenset[str] = frozenset()
PAGE_BYTES = 2048
LOG_PAGES = 1000  # of the log, until SQLite copies it into the database
LOG_LIMIT_BYTES = 4_000_000
LOCK_TIMEOUT_S = 5.0

UNSENT, SENT, EVICTED = 0, 1, 2  # results.state

# Of results that were deleted and whose parts are still there: 55 bytes for each.
KNOWN = """
CREATE TABLE known(
    sequence INTEGER PRIMARY KEY,
    key INTEGER NOT NULL,
    verdict TEXT NOT NULL,
    action TEXT NOT NULL
);
CREATE INDEX known_key ON known(key);
"""
TABLES = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE results(
    sequence INTEGER PRIMARY KEY,
    key INTEGER NOT NULL,
    verdict TEXT NOT NULL,
    state INTEGER NOT NULL,
    captured_at REAL NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX results_key ON results(key);
CREATE INDEX results_urgent ON results(sequence) WHERE state = 0 AND verdict <> 'pass';
CREATE INDEX results_settled ON results(sequence) WHERE state <> 0;
CREATE TABLE images(
    sequence INTEGER PRIMARY KEY,
    suffix TEXT NOT NULL,
    reason TEXT NOT NULL,
    probability REAL NOT NULL,
    bytes INTEGER NOT NULL,
    verdict TEXT NOT NULL,
    captured_at REAL NOT NULL,
    thing TEXT NOT NULL,
    line TEXT NOT NULL,
    sidecar TEXT NOT NULL
);
CREATE TABLE folded(
    last_sequence INTEGER PRIMARY KEY,
    first_sequence INTEGER NOT NULL,
    hour INTEGER NOT NULL,
    line TEXT NOT NULL,
    package TEXT NOT NULL,
    operating_point TEXT NOT NULL,
    count INTEGER NOT NULL
);
CREATE TABLE gaps(
    first_sequence INTEGER PRIMARY KEY,
    next_sequence INTEGER NOT NULL,
    lost INTEGER NOT NULL,
    reason TEXT NOT NULL,
    noticed_at REAL NOT NULL
);
CREATE TABLE counters(name TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
"""
TABLE_NAMES = ("results", "images", "folded", "gaps", "counters", "known")

MIGRATIONS: dict[int, str] = {1: KNOWN}  # minor -> the statements that bring a file of the minor before it up to it


def connect(path: Path, writes: bool, frozen: bool = False) -> sqlite3.Connection:
    """Open the database file; only a writer makes a missing one. Frozen: nobody changes it, not even its log."""
    mode = "ro&immutable=1" if frozen else "rwc" if writes else "rw"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=LOCK_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        if not writes:
            connection.execute("PRAGMA query_only = 1")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make a new file a spool, or bring an older one up to date; sets what holds for the connection.

    Raises:
        SpoolError: the file is of another major version, or no spool at all.
        sqlite3.Error: the disk refuses, or the file is damaged.
    """
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    new = version == 0 and tables == 0
    if not new:
        check_version(connection, path)
    if new:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {LOG_LIMIT_BYTES}")
    statements: list[str] = []
    if new:
        statements = [TABLES, KNOWN, f"PRAGMA application_id = {APPLICATION_ID};", _stamp(MINOR)]
        statements.append("INSERT INTO meta VALUES ('requires', '[]');")
    elif version % 1000 < MINOR:
        statements = [MIGRATIONS[minor] for minor in range(version % 1000 + 1, MINOR + 1)] + [_stamp(MINOR)]
    if statements:
        connection.executescript("BEGIN IMMEDIATE;\n" + "\n".join(statements) + "\nCOMMIT;")
        sync_folder(path.parent)  # SQLite syncs the entry of its log, not that of the database


def check_version(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file that this program must not touch.

    Raises:
        SpoolError: another major version, an unknown requirement, or no spool at all.
    """
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise SpoolError(f"{path}: is a database of something else, not a spool; give the spool a folder of its own")
    if version // 1000 != MAJOR:
        raise SpoolError(
            f"{path}: schema {version // 1000}.{version % 1000} has another major version than {MAJOR}.{MINOR}; update "
            "this program, or move the folder away and start with an empty one"
        )
    row = connection.execute("SELECT value FROM meta WHERE name = 'requires'").fetchone()
    requires = json.loads(row[0]) if row else []
    if not isinstance(requires, list) or any(name not in KNOWN_REQUIREMENTS for name in map(str, requires)):
        raise SpoolError(f"{path}: requires {requires}, which this program does not know; update this program")


def is_damaged(error: Exception) -> bool:
    """Whether SQLite says that the file's content is broken, unlike a disk that refuses.

    By the message: the error's code has been there only since Python 3.11.
    """
    signs = ("malformed", "not a database", "Could not decode to UTF-8")
    return isinstance(error, sqlite3.DatabaseError) and any(sign in str(error) for sign in signs)


def _stamp(minor: int) -> str:
    return f"PRAGMA user_version = {MAJOR * 1000 + minor};"
