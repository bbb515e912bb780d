"""Where the files lie that a source names: in its own folder, in S3, in folders that prefixes are mapped to.

A uri is what the list says, so that it is the same on every machine: relative to the list's folder, or a whole
`s3://bucket/key`. A map says where such a prefix is on this machine; it never becomes part of a uri.
"""

import logging
import posixpath
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from inspection.dataset.files import File, find_file, read_file, walk_folder
from inspection.dataset.s3_mirror import S3Mirror
from inspection.errors import DataError

_log = logging.getLogger(__name__)

_ABSOLUTE = re.compile(r"/|[A-Za-z]:[\\/]|[A-Za-z][A-Za-z0-9+.-]+://")


class Places:
    """Finds and reads files by uri. It is sent to worker processes.

    Args:
        bases: folders or `s3://bucket/prefix` addresses in which a relative uri is looked for, the first first.
        maps: prefix of uris -> folder or address that it stands for.
        store: folder for what comes from S3.
    """

    def __init__(self, bases: Sequence[str], maps: Sequence[tuple[str, str]] = (), store: str = "") -> None:
        self.bases = tuple(base.rstrip("/") or "/" for base in bases)
        longest_first = sorted(maps, key=lambda pair: -len(pair[0]))
        self._maps = [(with_slashes(prefix).rstrip("/"), _target(target)) for prefix, target in longest_first]
        self._store = store

    @cached_property
    def _s3(self) -> S3Mirror:
        return S3Mirror(Path(self._store).expanduser() if self._store else None)

    def walk(self) -> list[File]:
        """Every file below the first base but hidden ones, sorted by uri."""
        base = self.bases[0]
        return self._s3.walk(base) if base.startswith("s3://") else walk_folder(Path(base))

    def uri(self, reference: str, where: str) -> str:
        """The uri of a reference that stands in a list.

        Raises:
            DataError: it is empty, climbs out of the list's folder, or is absolute and not mapped.
        """
        text = with_slashes(reference)
        if text.startswith("file://"):
            text = text.removeprefix("file://")
        if not text:
            raise DataError(f"{where}: want the path of an image, found an empty one")
        for base in self.bases:
            text = text.removeprefix(f"{base}/")  # an absolute path into the list's own folder
        mapped = self._mapped(text)
        if mapped is None and is_absolute(text) and not text.startswith("s3://"):
            raise DataError(
                f"{where}: {reference!r} is an absolute path, which is not the same on another machine; "
                f"say where its folder is, such as --map {posixpath.dirname(text)}=./images"
            )
        prefix = mapped[0] if mapped else ""
        if not prefix and text.startswith("s3://"):
            return text  # a key may hold any part
        rest = text[len(prefix) :].lstrip("/") or "."
        if "//" in rest or "." in (rest[0], rest[-1]) or "/." in rest:
            rest = posixpath.normpath(rest)
        if rest == "." or rest.split("/")[0] == "..":
            root = mapped[1] if mapped else self.bases[0]
            raise DataError(f"{where}: {reference!r} climbs out of {root}; correct the path, or give another --map")
        return f"{prefix}/{rest}" if prefix else rest

    def facts(self, uris: Iterable[str]) -> dict[str, File]:
        """Size and version of each file; those that are not there are left out.

        Raises:
            StorageError: S3 refuses.
        """
        found: dict[str, File] = {}
        remote: list[tuple[str, list[str]]] = []
        for uri in uris:
            addresses = self.addresses(uri)
            if any(address.startswith("s3://") for address in addresses):
                remote.append((uri, addresses))
                continue
            file = next((file for address in addresses if (file := find_file(address, uri))), None)
            if file is not None:
                found[uri] = file
        listed = self._s3.find({address for _, addresses in remote for address in addresses}) if remote else {}
        for uri, addresses in remote:
            for address in addresses:
                if address in listed:
                    found[uri] = File(uri, *listed[address])
                    break
        return found

    def fetch(self, uris: Iterable[str], progress: bool) -> None:
        """Bring what lies in S3 to this machine."""
        remote = [addresses for uri in uris if (addresses := self.addresses(uri))[0].startswith("s3://")]
        if remote:
            listed = self._s3.find({address for addresses in remote for address in addresses})
            wanted = (next((address for address in addresses if address in listed), None) for addresses in remote)
            self._s3.fetch([address for address in wanted if address], progress)

    def read(self, uri: str) -> bytes:
        """The content of a file.

        Raises:
            OSError: it cannot be read.
        """
        *others, last = self.addresses(uri)
        for address in others:
            try:
                return self._read(address)
            except FileNotFoundError:
                pass
        return self._read(last)

    def _read(self, address: str) -> bytes:
        if address.startswith("s3://"):
            return self._s3.read(address)
        return read_file(address)

    def addresses(self, uri: str) -> list[str]:
        """Where the file may lie: paths or s3:// addresses, the likeliest first."""
        mapped = self._mapped(uri)
        if mapped:
            prefix, target = mapped
            return [target + uri[len(prefix) :]]
        return [uri] if uri.startswith("s3://") else [f"{base}/{uri}" for base in self.bases]

    def _mapped(self, text: str) -> tuple[str, str] | None:
        return next((pair for pair in self._maps if text == pair[0] or text.startswith(f"{pair[0]}/")), None)


def with_slashes(reference: str) -> str:
    """A path as Windows writes it with the slashes that everyone reads."""
    if re.match(r"[A-Za-z]:\\|\\\\", reference) or ("\\" in reference and "/" not in reference):
        return reference.replace("\\", "/")
    return reference


def is_absolute(reference: str) -> bool:
    """Whether a reference does not depend on the list's folder."""
    return _ABSOLUTE.match(reference) is not None


def _target(target: str) -> str:
    return target.rstrip("/") if target.startswith("s3://") else str(Path(target).expanduser().resolve())
