"""Looks into a folder: which files wait, oldest first, with memory for a bounded number of them."""

from __future__ import annotations

import heapq
import os
import stat
from collections.abc import Container, Iterator
from dataclasses import dataclass, field

from edge.sources.settings import FolderSettings


@dataclass(frozen=True, order=True)
class Candidate:
    """A file as it was when looked at; in the order of inspection."""

    mtime_ns: int
    name: bytes  # below the source's folder
    size: int = field(compare=False)
    is_link: bool = field(compare=False)

    @property
    def mark(self) -> int:
        """Tells this file from one with another name, time or size; 64 bit, of this process only."""
        return hash((self.name, self.mtime_ns, self.size, self.is_link))


@dataclass
class Listing:
    """What was found."""

    candidates: list[Candidate]  # the oldest that are not taken yet, in order
    more: bool  # there are others, younger than these
    still_there: set[int]  # marks of those taken that are there
    ignored: int  # files of other kinds, hidden ones, no files at all
    unreadable: int = 0  # entries of which the disk or share does not say what they are


def is_wanted(name: bytes, settings: FolderSettings) -> bool:
    """Whether a name is that of a finished picture: no hidden name, no temporary end, one of the suffixes."""
    base = os.path.basename(name)  # noqa: PTH119 - bytes: a name may be no text
    lower = base.lower()
    if base.startswith(b".") or lower.endswith(tuple(os.fsencode(end.lower()) for end in settings.temporary)):
        return False
    return lower.endswith(tuple(os.fsencode(suffix.lower()) for suffix in settings.suffixes))


def look_at(folder: bytes, name: bytes) -> Candidate | None:
    """A name as it is now; None when it is gone or neither a file nor a link.

    Raises:
        OSError: the folder does not answer.
    """
    try:
        status = os.stat(os.path.join(folder, name), follow_symlinks=False)  # noqa: PTH116, PTH118 - bytes
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _candidate(name, status)


def list_folder(
    folder: bytes, settings: FolderSettings, taken: Container[int], limit: int, skip: frozenset[bytes] = frozenset()
) -> Listing:
    """Look at all files, keep the oldest.

    Args:
        folder: absolute path.
        settings: names wanted, whether to go deeper.
        taken: marks of files that were offered already.
        limit: of candidates.
        skip: absolute paths of folders that are not entered.

    Raises:
        OSError: the folder cannot be read.
    """
    listing = Listing([], False, set(), 0)

    def waiting() -> Iterator[Candidate]:
        for candidate in _walk(folder, settings, skip, listing):
            if candidate.mark in taken:
                listing.still_there.add(candidate.mark)
            else:
                yield candidate

    listing.candidates = heapq.nsmallest(limit + 1, waiting())
    listing.more = len(listing.candidates) > limit
    del listing.candidates[limit:]
    return listing


def _walk(folder: bytes, settings: FolderSettings, skip: frozenset[bytes], listing: Listing) -> Iterator[Candidate]:
    pending = [b""]
    while pending:
        below = pending.pop()
        try:
            yield from _enter(folder, below, pending, settings, skip, listing)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            if not below:
                raise
            listing.ignored += 1  # a folder below that vanished or is not for us
        except OSError:
            if not below:
                raise
            listing.unreadable += 1


def _enter(
    folder: bytes,
    below: bytes,
    pending: list[bytes],
    settings: FolderSettings,
    skip: frozenset[bytes],
    listing: Listing,
) -> Iterator[Candidate]:
    """The files of one folder; those below it go to `pending`."""
    with os.scandir(os.path.join(folder, below) if below else folder) as entries:  # noqa: PTH118 - bytes
        for entry in entries:
            name = os.path.join(below, entry.name)  # noqa: PTH118 - bytes
            wanted = is_wanted(entry.name, settings)
            try:
                is_folder = entry.is_dir(follow_symlinks=False)
                status = entry.stat(follow_symlinks=False) if wanted and not is_folder else None
            except FileNotFoundError:
                continue  # gone since the folder was read
            except OSError:  # the other entries are no worse for it
                listing.unreadable += wanted
                listing.ignored += not wanted
                continue
            if is_folder:
                if settings.recursive and entry.path not in skip and not entry.name.startswith(b"."):
                    pending.append(name)
                continue
            candidate = None if status is None else _candidate(name, status)
            if candidate is None:
                listing.ignored += 1
            else:
                yield candidate


def _candidate(name: bytes, status: os.stat_result) -> Candidate | None:
    is_link = stat.S_ISLNK(status.st_mode)
    if not is_link and not stat.S_ISREG(status.st_mode):
        return None
    return Candidate(status.st_mtime_ns, name, status.st_size, is_link)
