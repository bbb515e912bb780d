"""Opens whatever people have as a source of images: a folder, a list, an export, here or in S3.

What it is, is found by looking (`inspection.dataset.detection`) or said with a format's name. Another kind of place
plugs in with one line in `OPENERS`: a scheme and a function that opens it.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from inspection.dataset.detection import detect
from inspection.dataset.files import shown
from inspection.dataset.formats.reading import Reading
from inspection.dataset.images import MISSING, Source, SourceImage, group_images
from inspection.dataset.options import SourceOptions
from inspection.dataset.places import Places
from inspection.errors import DataError

_log = logging.getLogger(__name__)

__all__ = ["OPENERS", "OpenedSource", "Source", "SourceImage", "open_source"]


@dataclass(frozen=True)
class OpenedSource:
    """Images of a folder or list, in any format that is known here."""

    location: str
    options: SourceOptions = field(default_factory=SourceOptions)

    @cached_property
    def _reading(self) -> Reading:
        return Reading(self.location, self.options)

    @cached_property
    def format(self) -> str:
        """Name of the format that was found or said."""
        return detect(self._reading).name

    def images(self) -> Sequence[SourceImage]:
        """Every image with its label, without reading it."""
        found = detect(self._reading)
        images = self._with_versions(_check_once(found.read(self._reading), self.location))
        if self.options.group_pattern:
            images = group_images(images, self.options.group_pattern, self.location)
        return images

    def fetch(self, uris: Sequence[str], progress: bool = True) -> None:
        """Bring images and masks that lie in S3 to this machine."""
        self._places.fetch(uris, progress)

    def read(self, uri: str) -> bytes:
        """The content of one file."""
        return self._places.read(uri)

    @property
    def _places(self) -> Places:
        return self._reading.places

    def _with_versions(self, images: list[SourceImage]) -> list[SourceImage]:
        """Look up the files that a list names; those that are not there cannot be read later, and are told now."""
        unknown = [image.uri for image in images if not image.version]
        if not unknown:
            return images
        facts = self._places.facts(unknown)
        if not facts:
            raise DataError(
                f"{self.location}: none of the {len(unknown)} images that it names is there, such as {unknown[0]!r}, "
                f"looked for in {', '.join(self._places.addresses(unknown[0]))}; say where a prefix of these names is, "
                "such as --map s3://bucket/x=./images"
            )
        absent = [uri for uri in unknown if uri not in facts]
        if absent:
            _log.warning("event=listed_images_missing count=%d files=%s", len(absent), shown(absent))
        return [
            image
            if image.version
            else replace(image, version=facts[image.uri].version if image.uri in facts else MISSING)
            for image in images
        ]


def _open_folder(location: str, options: SourceOptions) -> Source:
    return OpenedSource(str(Path(location).expanduser().resolve()), options)


def _open_s3(location: str, options: SourceOptions) -> Source:
    return OpenedSource(f"s3:{location}".rstrip("/"), options)


OPENERS: dict[str, Callable[[str, SourceOptions], Source]] = {"folder": _open_folder, "s3": _open_s3}


def open_source(location: str, options: SourceOptions | str = SourceOptions()) -> Source:
    """Open the source at a location.

    Args:
        location: a folder, a list's file, `s3://bucket/prefix` of one, or `scheme:rest` for a scheme in `OPENERS`.
        options: how to understand it; a text alone is the `[data] group_pattern`.

    Raises:
        DataError: the location is empty or nothing opens such an address.
    """
    if isinstance(options, str):
        options = SourceOptions(group_pattern=options)
    if not location:
        raise DataError("no images given: set [data] source in the line's settings, or run with --data FOLDER")
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", location)  # two letters at least: C: is a drive
    scheme = match[1] if match and not Path(location).exists() else "folder"
    opener = OPENERS.get(scheme)
    if opener is None:
        raise DataError(f"{location}: want a folder, a list or one of {sorted(OPENERS)} before ':', found {scheme!r}")
    return opener(location.removeprefix(f"{scheme}:"), options)


def _check_once(images: list[SourceImage], where: str) -> list[SourceImage]:
    """Check that no image is listed twice.

    Raises:
        DataError: some are, or there is none.
    """
    if not images:
        raise DataError(f"{where}: no labelled images here")
    if len({image.uri for image in images}) < len(images):
        twice = [uri for uri, count in Counter(image.uri for image in images).items() if count > 1]
        raise DataError(f"{where}: {len(twice)} images are listed twice: {shown(twice)}; keep one line of each")
    return images
