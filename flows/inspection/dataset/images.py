"""What a source of images yields, and what is said of images wherever they come from."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from inspection.dataset.manifest import Box, ImageRow, Label
from inspection.errors import DataError

_log = logging.getLogger(__name__)

MISSING = "missing"  # version of an image that a list names and that is not there: reading it fails
Shipped = Literal["train", "validation", ""]


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
    boxes: tuple[Box, ...] = ()  # left, top, width, height in px
    shipped: str = ""  # "train" or "validation" where the source itself divides its images, else ""
    box_types: tuple[str, ...] = ()  # defect type of each box; empty when the source names none
    mask_colors: tuple[tuple[str, str], ...] = ()  # colours that are defects: "#rrggbb", type; () = all but black
    confidence: float | None = None  # 0..1, of whoever or whatever labelled it
    human_annotated: bool | None = None  # False: labelled by a machine


class Source(Protocol):
    """A set of labelled images. It is sent to worker processes, so it must be picklable."""

    @property
    def location(self) -> str:
        """Folder, list or address, to open the source again."""

    def images(self) -> Sequence[SourceImage]:
        """Every image with its label, without reading it.

        Raises:
            DataError: nothing is there, or not in a form that this source understands.
            StorageError: S3 refuses.
        """

    def fetch(self, uris: Sequence[str], progress: bool = True) -> None:
        """Bring these images and masks to this machine, many at once, where `read` finds them.

        What is here already stays; nothing happens where all is local. Without it `read` fetches one by one.

        Raises:
            DataError: a file changed while it was fetched.
            StorageError: S3 refuses, the disk is full.
        """

    def read(self, uri: str) -> bytes:
        """The content of one image's file, or of its mask.

        Raises:
            OSError: it cannot be read.
        """


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
        lot = match["lot"] if "lot" in compiled.groupindex else image.lot
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


def leave_undivided(images: Sequence[SourceImage], where: str) -> list[SourceImage]:
    """Forget a shipped division whose training part has good images only.

    Benchmarks of anomaly detection are divided so. A classifier must see defects to learn them, so their test part
    cannot be the holdout: all images are divided anew.
    """
    train = [image for image in images if image.shipped == "train"]
    if not train or any(image.label == "bad" for image in train):
        return list(images)
    _log.warning(
        "event=shipped_division_not_used where=%s training_images=%d bad=0 all_images_are_divided_anew=true",
        where,
        len(train),
    )
    return [replace(image, shipped="") for image in images]


def main_type(types: Sequence[str]) -> str | None:
    """The type of an image that has several boxes: the most frequent, of equals the first by name."""
    return min(types, key=lambda name: (-types.count(name), name)) if types else None


def make_row(image: SourceImage, sha256: str, width: int, height: int, masks: Mapping[str, str]) -> ImageRow:
    """The manifest's row of an image, not yet in a split.

    Args:
        image: as its source lists it.
        sha256: of its file, hex.
        width: px, upright; 0 = not known.
        height: likewise.
        masks: digest of each mask that can be read, by its uri.
    """
    return ImageRow(
        uri=image.uri,
        sha256=sha256,
        width=width,
        height=height,
        label=image.label,
        defect_type=image.defect_type,
        mask=image.mask,
        boxes=image.boxes,
        group=image.group,
        lot=image.lot,
        station=image.station,
        view=image.view,
        mask_sha256=masks.get(image.mask) if image.mask is not None else None,
        box_types=image.box_types,
        mask_colors=image.mask_colors,
        confidence=image.confidence,
        human_annotated=image.human_annotated,
    )
