"""Why an image cannot be used, in words for someone who knows no decoder."""

import io
from dataclasses import dataclass

from PIL import Image

from edge.contract import InputContract

_KNOWN_CONTENT = (  # beginning, what it is
    (b"GIF8", "a GIF"),
    (b"RIFF", "a WebP picture"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x00\x00\x00", "a HEIC picture or a film"),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an image cannot be used."""

    code: str  # of `inspection.dataset.findings`
    reason: str


def find_outside_region(width: int, height: int, contract: InputContract) -> Fault | None:
    """What is wrong if the region of interest is not inside a picture of this size in px; None if it is inside."""
    roi = contract.roi
    if roi is None or (roi.left + roi.width <= width and roi.top + roi.height <= height):
        return None
    reason = (
        f"the region of interest (left {roi.left}, top {roi.top}, {roi.width}x{roi.height} px) is not inside this "
        f"picture of {width}x{height} px"
    )
    return Fault("outside-region", reason)


def explain(data: bytes, reason: str) -> Fault:
    """What kind of fault a decoder's message tells of.

    Args:
        data: the file.
        reason: the message, without the file's name.
    """
    if "pixels, found" in reason:
        return Fault("too-large", reason)
    if data.startswith(b"GIF8"):
        return _explain_gif(data)
    if not reason.startswith("want a JPEG"):
        return Fault("damaged", reason)
    known = next((name for beginning, name in _KNOWN_CONTENT if data.startswith(beginning)), None)
    if known is None:
        try:
            data[:512].decode()
            known = "text"
        except UnicodeDecodeError:
            known = f"data that begins with {data[:12]!r}"
    return Fault("not-a-picture", f"want a JPEG, PNG, BMP or TIFF picture, found {known}")


def _explain_gif(data: bytes) -> Fault:
    try:
        with Image.open(io.BytesIO(data), formats=["GIF"]) as image:
            frames = int(getattr(image, "n_frames", 1))
    except (OSError, SyntaxError, ValueError, EOFError, LookupError, Image.DecompressionBombError, Warning):
        return Fault("damaged", "a damaged GIF; want a JPEG, PNG, BMP or TIFF picture")
    if frames > 1:
        return Fault("animation", f"an animated GIF of {frames} pictures; want one JPEG, PNG, BMP or TIFF picture")
    return Fault("not-a-picture", "a GIF; want a JPEG, PNG, BMP or TIFF picture")
