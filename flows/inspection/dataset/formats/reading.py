"""What every format works with: a location that is looked at, and how a format is made known."""

import json
import logging
import posixpath
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from inspection.dataset.files import File, shown
from inspection.dataset.images import SourceImage
from inspection.dataset.options import SourceOptions
from inspection.dataset.places import Places
from inspection.errors import DataError

_log = logging.getLogger(__name__)

LISTS = (".manifest", ".jsonl", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml")  # a location that ends so is a file
_MOST_DOCUMENTS = 10  # JSON files of a folder; more are not lists, but belong to one image each
_PROBED = 20  # references that tell in which folder a list's files are


class Reading:
    """A location that a format looks at and reads: a folder, or one list file.

    Args:
        location: folder, file, or the `s3://` address of one.
        options: what a person said of it.
    """

    def __init__(self, location: str, options: SourceOptions) -> None:
        self.location = location
        self.options = options
        is_remote = location.startswith("s3://")
        self.is_list = location.lower().endswith(LISTS) if is_remote else Path(location).is_file()
        folder, _, name = location.rstrip("/").rpartition("/")
        self.list_name = name if self.is_list else ""
        # a list often lies in a folder of its own, beside the images
        bases = [folder or "/", posixpath.dirname(folder)] if self.is_list else [location]
        if is_remote and self.is_list and bases[1] == "s3:/":
            bases.pop()
        self.places = Places(bases, options.maps, options.store)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("files", "_parsed")}

    @cached_property
    def files(self) -> list[File]:
        """Every file of a folder, sorted by uri; empty for a list."""
        return [] if self.is_list else self.places.walk()

    @property
    def pictures(self) -> list[File]:
        """Those of the files that are named like images."""
        return [file for file in self.files if file.is_image]

    def lists(self, *suffixes: str, folders: Sequence[str] = ("",)) -> list[str]:
        """Uris of the location's lists with such a suffix: the location itself, or files in these of its folders."""
        if self.is_list:
            return [self.list_name] if self.list_name.lower().endswith(suffixes) else []
        return [
            file.uri
            for file in self.files
            if file.uri.lower().endswith(suffixes) and posixpath.dirname(file.uri) in folders
        ]

    def documents(self, folders: Sequence[str] = ("",)) -> list[str]:
        """Uris of the location's JSON files that may be lists."""
        found = self.lists(".json", folders=folders)
        counts = Counter(posixpath.dirname(uri) for uri in found)
        return [uri for uri in found if counts[posixpath.dirname(uri)] <= _MOST_DOCUMENTS]

    def name(self, uri: str) -> str:
        """A list as messages name it."""
        return self.location if self.is_list else f"{self.location}/{uri}"

    def text(self, uri: str) -> str:
        """The content of a list, without its byte-order mark.

        Raises:
            DataError: it cannot be read or is not UTF-8 (UTF-16 is taken where a byte-order mark says so).
        """
        try:
            data = self.places.read(uri)
        except OSError as error:
            raise DataError(f"{self.name(uri)}: cannot read the list ({error.strerror or error})") from error
        encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        try:
            return data.decode(encoding)
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise DataError(
                f"{self.name(uri)}: line {line}: want UTF-8, found the byte {data[error.start]:#04x}; "
                "save the list as UTF-8"
            ) from None

    def rows(self, uri: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """The objects of a list of JSON lines with their line numbers; empty lines are left out.

        Raises:
            DataError: a line is not a JSON object.
        """
        for number, line in enumerate(self.text(uri).split("\n"), start=1):
            if not line.strip():
                continue
            where = f"{self.name(uri)}: line {number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{where}: want one JSON object per line, found {line[:60]!r} ({error})") from None
            if not isinstance(row, dict):
                raise DataError(f"{where}: want a JSON object, found {line[:60]!r}")
            yield number, row

    @cached_property
    def _parsed(self) -> dict[str, Any]:
        return {}

    def document(self, uri: str) -> Any:
        """The content of a JSON file, read once.

        Raises:
            DataError: it is not JSON.
        """
        if uri not in self._parsed:
            try:
                self._parsed[uri] = json.loads(self.text(uri))
            except ValueError as error:
                raise DataError(f"{self.name(uri)}: not valid JSON ({error}); export it again") from None
        return self._parsed[uri]

    def folder_of(self, references: Sequence[str], folders: Sequence[str]) -> str:
        """In which of these folders a list's files are; the first where there are none."""
        probed = list(references)[:_PROBED]
        for folder in folders:
            uris = [posixpath.normpath(posixpath.join(folder, reference)) for reference in probed]
            if self.places.facts([uri for uri in uris if not uri.startswith("..")]):
                return folder
        return folders[0]

    def describe(self) -> str:
        """What is here, for a message."""
        if self.is_list:
            return self.list_name
        if not self.files:
            return "nothing"
        folders = Counter(posixpath.dirname(file.uri) for file in self.pictures)
        loose = folders.pop("", 0)
        found = [f"{name}/ ({count} images)" for name, count in sorted(folders.items())]
        found += [f"{loose} images in no folder"] if loose else []
        found += [file.uri for file in self.files if not file.is_image]
        return shown(found)


@dataclass(frozen=True)
class Format:
    """A way in which people keep labelled images."""

    name: str  # for `--format`
    wants: str  # what it looks like, for messages
    fits: Callable[[Reading], bool]  # whether the location looks like it; cheap
    read: Callable[[Reading], list[SourceImage]]  # images without a version get theirs afterwards


def stem(uri: str) -> str:
    """A file's name without folder and suffix."""
    return PurePosixPath(uri).stem
