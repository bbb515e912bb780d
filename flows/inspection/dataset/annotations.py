"""Masks and boxes: do they fit the image that they belong to?"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageColor

from edge.errors import ImageError
from edge.preprocess import open_file
from inspection.dataset.findings import Finding, make_finding
from inspection.dataset.images import SourceImage

if TYPE_CHECKING:
    from inspection.dataset.image_facts import ImageFacts

_JPEG_TOLERANCE = 40  # grey levels by which a colour may be off in a mask that was saved as JPEG
_BOX_TOLERANCE_PX = 1.0  # a box may be rounded outwards
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, TypeError, EOFError, LookupError, ArithmeticError, Warning)


@dataclass(frozen=True, slots=True)
class MaskFacts:
    """What reading a mask told."""

    width: int  # px
    height: int  # px
    marked: float  # share of its pixels that mark a defect
    fault: str = ""  # why it could not be read; the rest is then 0


def measure_mask(uri: str, read: Callable[[str], bytes], colors: Sequence[tuple[str, str]]) -> MaskFacts:
    """Read a mask and see how much it marks.

    Args:
        uri: of the mask.
        read: gives its content; raises OSError.
        colors: those that mark a defect, as "#rrggbb" and its type; empty = all but black.
    """
    try:
        data = read(uri)
    except OSError as error:
        return MaskFacts(0, 0, 0.0, error.strerror or str(error))
    try:
        marked = decode_mask(data, uri, [color for color, _ in colors])
    except ImageError as error:
        return MaskFacts(0, 0, 0.0, str(error).removeprefix(f"{uri}: "))
    return MaskFacts(marked.shape[1], marked.shape[0], float(marked.mean()))


def decode_mask(data: bytes, uri: str, colors: Sequence[str]) -> np.ndarray:
    """Where a mask marks a defect.

    Args:
        data: the mask's file.
        uri: its name, for messages.
        colors: "#rrggbb" of what is a defect; empty = all but black.

    Returns:
        bool, shape (H, W).

    Raises:
        ImageError: it cannot be decoded.
    """
    with open_file(data, uri) as image:
        lossy = image.format == "JPEG"
        try:
            image.load()
            return _marked(image, colors, lossy)
        except _DECODE_ERRORS as error:
            raise ImageError(f"{uri}: cannot decode this mask: {error}") from error


def find_annotation_faults(images: Iterable[SourceImage], facts: Mapping[str, "ImageFacts"]) -> Iterator[Finding]:
    """Masks and boxes that do not fit.

    Args:
        images: of the source.
        facts: by uri, of those that could be decoded.
    """
    known = [(image, facts[image.uri]) for image in images if image.uri in facts]
    masked = [(image, fact, fact.mask) for image, fact in known if image.mask is not None and fact.mask is not None]
    unreadable = {image.uri: mask.fault for image, _, mask in masked if mask.fault}
    if unreadable:
        first, reason = next(iter(unreadable.items()))
        yield make_finding(
            "mask-unreadable",
            f"{_count(unreadable, 'mask')} cannot be read; that of {first}: {reason}",
            ([uri] for uri in unreadable),
            dict(unreadable),
        )
    masked = [entry for entry in masked if not entry[2].fault]
    sizes = {
        image.uri: f"mask {mask.width}x{mask.height}, picture {fact.width}x{fact.height}"
        + (", turned" if (mask.height, mask.width) == (fact.width, fact.height) else "")
        for image, fact, mask in masked
        if (mask.width, mask.height) != (fact.width, fact.height)
    }
    if sizes:
        first, reason = next(iter(sizes.items()))
        yield make_finding(
            "mask-size",
            f"{_count(sizes, 'mask')} of another size than the picture, such as that of {first}: {reason}",
            ([uri] for uri in sizes),
            dict(sizes),
        )
    empty = [image.uri for image, _, mask in masked if image.label == "bad" and mask.marked == 0]
    if empty:
        yield make_finding(
            "mask-empty", f"{_count(empty, 'bad picture')} with nothing marked", ([uri] for uri in empty)
        )
    marked = {
        image.uri: f"{mask.marked:.1%} of the picture"
        for image, _, mask in masked
        if image.label == "good" and mask.marked
    }
    marked |= {image.uri: f"{len(image.boxes)} boxes" for image, _ in known if image.label == "good" and image.boxes}
    if marked:
        yield make_finding(
            "mask-on-good",
            f"{_count(marked, 'good picture')} with a defect marked",
            ([uri] for uri in marked),
            dict(marked),
        )
    outside = {image.uri: text for image, fact in known if (text := _outside(image, fact))}
    if outside:
        first, reason = next(iter(outside.items()))
        yield make_finding(
            "box-outside",
            f"{_count(outside, 'picture')} with boxes that reach beyond it or are empty, such as {first}: {reason}",
            ([uri] for uri in outside),
            dict(outside),
        )


def _marked(image: Image.Image, colors: Sequence[str], lossy: bool) -> np.ndarray:
    """Where a mask marks a defect; bool [H, W]."""
    tolerance = _JPEG_TOLERANCE if lossy else 0
    if image.mode.startswith(("I", "F")):
        return np.asarray(image) != 0
    image.info.pop("transparency", None)  # Pillow warns when it drops a transparent colour by itself
    if not colors:
        if image.mode in ("1", "L"):
            return np.asarray(image.convert("L")) > tolerance
        return np.asarray(image.convert("RGB")).max(axis=2) > tolerance
    pixels = np.asarray(image.convert("RGB")).astype(np.int16)
    found = np.zeros(pixels.shape[:2], dtype=bool)
    for color in colors:
        found |= np.abs(pixels - np.array(ImageColor.getrgb(color)[:3])).max(axis=2) <= tolerance
    return found


def _outside(image: SourceImage, fact: "ImageFacts") -> str:
    """What is wrong with the image's boxes; empty if nothing is."""
    for left, top, width, height in image.boxes:
        text = f"left {left:g}, top {top:g}, {width:g}x{height:g} px on {fact.width}x{fact.height}"
        if not (width > 0 and height > 0):
            return f"empty box: {text}"
        right, bottom = left + width - fact.width, top + height - fact.height
        if max(-left, -top, right, bottom) > _BOX_TOLERANCE_PX:
            return text
    return ""


def _count(things: Sequence[str] | Mapping[str, str], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"
