"""Where images come from. A source lists its images with their labels and reads them one by one.

Folders are the source here. Another kind plugs in with one line in `OPENERS`: a scheme and a function that opens it.
"""

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from inspection.dataset.folders import find_images
from inspection.dataset.manifest import Label
from inspection.errors import DataError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SourceImage:
    """An image of a source before it was read: what the manifest row will say of it, but for digest and size."""

    uri: str  # unique in the source, '/' between its parts
    version: str  # changes when the file's content does, so that an unchanged image is not read again
    label: Label
    defect_type: str | None
    mask: str | None
    group: str
    lot: str | None = None
    station: str | None = None
    view: str | None = None
    boxes: tuple[tuple[float, float, float, float], ...] = ()  # left, top, width, height in px
    shipped: str = ""  # "train" or "validation" where the source itself divides its images, else ""


class Source(Protocol):
    """A set of labelled images. It is sent to worker processes, so it must be picklable."""

    @property
    def location(self) -> str:
        """Folder or address, to open the source again."""

    def images(self) -> Sequence[SourceImage]:
        """Every image with its label, without reading it.

        Raises:
            DataError: nothing is there, or not in a form that this source understands.
        """

    def read(self, uri: str) -> bytes:
        """The content of one image's file, or of its mask.

        Raises:
            OSError: it cannot be read.
        """


@dataclass(frozen=True)
class FolderSource:
    """Images in folders named by their labels; see `inspection.dataset.folders` for the layouts."""

    location: str
    group_pattern: str = ""  # `[data] group_pattern`

    def images(self) -> Sequence[SourceImage]:
        """Every image below the folder with its label, without reading it."""
        found = find_images(Path(self.location))
        images = [
            SourceImage(
                uri=item.uri,
                version=f"{item.size}-{item.mtime_ns}",
                label=item.label,
                defect_type=item.defect_type,
                mask=item.mask,
                group=item.uri,
                shipped=item.shipped,
            )
            for item in found
        ]
        return group_images(images, self.group_pattern, self.location) if self.group_pattern else images

    def read(self, uri: str) -> bytes:
        """The content of one file."""
        return (Path(self.location) / uri).read_bytes()


def group_images(images: Sequence[SourceImage], pattern: str, where: str) -> list[SourceImage]:
    """Name the group, and the lot if the pattern has a part of that name, from each image's uri.

    Args:
        images: as a source lists them.
        pattern: regular expression, searched in the uri. The group is its part `(?P<group>…)`, else its first part;
            the lot is its part `(?P<lot>…)`.
        where: location, for messages.

    Raises:
        DataError: no image matches.
    """
    compiled = re.compile(pattern)
    name = "group" if "group" in compiled.groupindex else 1
    grouped, unmatched = [], []
    for image in images:
        match = compiled.search(image.uri)
        if match is None or not match[name]:
            unmatched.append(image.uri)
            grouped.append(image)
            continue
        lot = match["lot"] if "lot" in compiled.groupindex else None
        grouped.append(replace(image, group=match[name], lot=lot))
    if len(unmatched) == len(images):
        raise DataError(
            f"{where}: [data] group_pattern {pattern!r} matches none of {len(images)} images, such as "
            f"{unmatched[0]!r}; correct the pattern or remove it"
        )
    if unmatched:
        _log.warning(
            "event=images_without_group count=%d first=%s each_is_its_own_group=true", len(unmatched), unmatched[:20]
        )
    return grouped


def _open_folder(location: str, group_pattern: str) -> Source:
    return FolderSource(str(Path(location).expanduser().resolve()), group_pattern)


OPENERS: dict[str, Callable[[str, str], Source]] = {"folder": _open_folder}


def open_source(location: str, group_pattern: str = "") -> Source:
    """Open the source at a location.

    Args:
        location: a folder, or `scheme:rest` for a scheme in `OPENERS`.
        group_pattern: `[data] group_pattern`.

    Raises:
        DataError: the location is empty or nothing opens such an address.
    """
    if not location:
        raise DataError("no images given: set [data] source in the line's settings, or run with --data FOLDER")
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", location)  # two letters at least: C: is a drive
    scheme = match[1] if match and not Path(location).exists() else "folder"
    opener = OPENERS.get(scheme)
    if opener is None:
        raise DataError(f"{location}: want a folder or one of {sorted(OPENERS)} before ':', found {scheme!r}")
    return opener(location.removeprefix(f"{scheme}:"), group_pattern)
