"""What one image's file tells: read once, decoded once, measured.

Decoding is that of `edge.preprocess`, so an image that passes here is one that training and the device can read. A
JPEG is decoded at the smallest scale that still fills `WORKING_PX`: all of its data is read, so damage is found, at a
fraction of the cost of its full size. Every worker process imports this, so it imports little.
"""

import hashlib
import io
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from edge.contract import InputContract
from edge.errors import ImageError
from edge.preprocess import decode_file, open_file
from inspection.dataset.annotations import MaskFacts, measure_mask
from inspection.dataset.images import SourceImage

WORKING_PX = 256  # the longer side of the picture that is measured is at least this, unless the original is smaller
THUMBNAIL_PX = 32  # side of the small grey picture that near duplicates are looked for with
BLACK_LEVEL = 16  # grey level; ITU-R BT.601 calls it black

Content = bytes  # `ImageFacts` has a field of that name
_LEVELS = np.arange(256, dtype=np.float64)
_EXIF_IFD, _MAKE, _MODEL, _DATE, _DATE_ORIGINAL = 0x8769, 0x010F, 0x0110, 0x0132, 0x9003
_TIME = re.compile(r"((?:19[89]|2\d\d)\d)[:-](\d\d)[:-](\d\d)[ T](\d\d):(\d\d):(\d\d)")
# Mean of the luminance table of ITU-T T.81, annex K.1, which most encoders scale by their quality.
_STANDARD_LUMINANCE_MEAN = 57.625
_KNOWN_CONTENT = (  # beginning, what it is
    (b"GIF8", "a GIF"),
    (b"RIFF", "a WebP picture"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x00\x00\x00", "a HEIC picture or a film"),
)


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What reading an image's file told."""

    uri: str
    sha256: str  # of the file, hex
    bytes: int  # size of the file
    width: int  # px, upright
    height: int  # px, upright
    format: str  # JPEG, PNG, BMP, TIFF
    mode: str  # Pillow's name of the pixel type in the file: L, RGB, P, I;16 …
    frames: int  # pages of a TIFF, frames of an animated PNG; only the first is read
    jpeg_quality: float | None  # 1..100, estimated from the quantisation table; None: not a JPEG
    camera: str | None  # maker and model, from EXIF
    taken_at: str | None  # ISO 8601, from EXIF, in the camera's own time
    brightness: float  # mean luma, 0..255
    contrast: float  # standard deviation of luma
    darkest: int  # luma, 0..255
    lightest: int
    sharpness: float  # mean absolute difference of neighbouring pixels, of the picture as measured
    pixel_digest: str  # of size, histogram and thumbnail: equal pictures have equal ones; others hardly ever
    thumbnail: Content  # uint8 [32, 32], grey, the whole picture squeezed into a square
    mask: MaskFacts | None = None  # None: the image has no mask

    @property
    def megapixels(self) -> float:
        """Number of pixels, in millions."""
        return self.width * self.height / 1e6

    @property
    def aspect_ratio(self) -> float:
        """Width by height."""
        return self.width / self.height


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an image cannot be used."""

    code: str  # of `inspection.dataset.findings`
    reason: str


@dataclass(frozen=True, slots=True)
class Looked:
    """One image that was looked at."""

    uri: str
    facts: ImageFacts | None = None  # None: see the fault
    fault: Fault | None = None


def working_contract(white_level: int, side_px: int = WORKING_PX) -> InputContract:
    """How pictures are decoded to be measured: whole, at their own aspect ratio, no larger than needed."""
    return InputContract(width=side_px, height=side_px, resize="letterbox", roi=None, white_level=white_level)


def look_at(image: SourceImage, read: Callable[[str], bytes], contract: InputContract) -> Looked:
    """Read and measure one image and its mask.

    Args:
        image: which.
        read: gives the content of a uri; raises OSError.
        contract: the model's input: its white level, and its region, which the picture must hold.
    """
    try:
        data = read(image.uri)
    except OSError as error:
        return Looked(image.uri, fault=Fault("unreadable-file", error.strerror or str(error)))
    if not data:
        return Looked(image.uri, fault=Fault("empty-file", "the file is empty"))
    try:
        facts = measure(image.uri, data, contract.white_level)
    except ImageError as error:
        return Looked(image.uri, fault=_explain(data, str(error).removeprefix(f"{image.uri}: ")))
    roi = contract.roi
    if roi and (roi.left + roi.width > facts.width or roi.top + roi.height > facts.height):
        reason = (
            f"the region of interest (left {roi.left}, top {roi.top}, {roi.width}x{roi.height} px) is not inside this "
            f"picture of {facts.width}x{facts.height} px"
        )
        return Looked(image.uri, fault=Fault("outside-region", reason))
    if image.mask is not None:
        facts = _with_mask(facts, measure_mask(image.mask, read, image.mask_colors))
    return Looked(image.uri, facts)


def measure(uri: str, data: bytes, white_level: int = 65535) -> ImageFacts:
    """Decode an image file and measure it.

    Raises:
        ImageError: it cannot be decoded; see `edge.preprocess.prepare_file`.
    """
    header = open_file(data, uri)
    decoded = decode_file(data, working_contract(white_level), uri)
    picture = decoded.image
    if decoded.plan.factor > decoded.scale:
        picture = picture.reduce(decoded.plan.factor // decoded.scale)
    grey = picture if picture.mode == "L" else picture.convert("L")
    counts = np.array(grey.histogram())
    share = counts / counts.sum()
    brightness = float(share @ _LEVELS)
    present = np.flatnonzero(counts)
    thumbnail = grey.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX).tobytes()
    content = b"%dx%d" % (decoded.width_px, decoded.height_px) + counts.tobytes() + thumbnail
    camera, taken_at = _read_exif(header)
    return ImageFacts(
        uri=uri,
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        width=decoded.width_px,
        height=decoded.height_px,
        format=str(header.format),
        mode=header.mode,
        frames=int(getattr(header, "n_frames", 1)),
        jpeg_quality=estimate_jpeg_quality(header.quantization) if isinstance(header, JpegImageFile) else None,
        camera=camera,
        taken_at=taken_at,
        brightness=brightness,
        contrast=math.sqrt(max(0.0, float(share @ (_LEVELS - brightness) ** 2))),
        darkest=int(present[0]),
        lightest=int(present[-1]),
        sharpness=_sharpness(grey),
        pixel_digest=hashlib.sha256(content).hexdigest()[:32],
        thumbnail=thumbnail,
    )


def estimate_jpeg_quality(tables: Mapping[int, list[int]]) -> float | None:
    """The quality, 1..100, at which an encoder with the standard table would have written this one.

    Args:
        tables: quantisation tables by number; number 0 is that of the luminance.

    Source: the scaling of the Independent JPEG Group's library, inverted: table = standard * scale / 100, with
    scale = 5000 / quality below 50 and 200 - 2 * quality above.
    """
    if 0 not in tables:
        return None
    mean = sum(tables[0]) / len(tables[0])
    scale = 100 * mean / _STANDARD_LUMINANCE_MEAN
    if mean <= 1:
        return 100.0
    return round(max(1.0, 5000 / scale if scale > 100 else (200 - scale) / 2), 1)


def _sharpness(grey: Image.Image) -> float:
    """Mean absolute difference between neighbours, in both directions."""
    pixels = np.asarray(grey)[::2].astype(np.int16)  # every second row is enough for a mean
    if pixels.shape[1] < 2:
        return 0.0
    return float(np.abs(np.diff(pixels, axis=1)).mean())


def _read_exif(header: ImageFile.ImageFile) -> tuple[str | None, str | None]:
    """Camera and time; a damaged EXIF block tells neither and harms nothing."""
    if "exif" not in header.info and header.format != "TIFF":
        return None, None
    try:
        tags = Image.Exif()
        if header.format == "TIFF":
            tags = header.getexif()
        else:
            tags.load(header.info["exif"])
        inner = tags.get_ifd(_EXIF_IFD)
        names = [str(tags[tag]).strip("\0 ") for tag in (_MAKE, _MODEL) if tag in tags]
        taken = inner.get(_DATE_ORIGINAL) or tags.get(_DATE)
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError, Warning):
        return None, None
    return " ".join(name for name in names if name) or None, _iso_time(taken)


def _iso_time(taken: object) -> str | None:
    """`2022:08:11 16:19:53` as ISO 8601; None if the camera's clock was never set or wrote something else."""
    if not isinstance(taken, str):
        return None
    found = _TIME.match(taken.strip("\0 "))
    if found is None:
        return None
    try:
        return datetime(*map(int, found.groups())).isoformat()  # type: ignore[arg-type]
    except ValueError:
        return None


def _explain(data: bytes, reason: str) -> Fault:
    """What kind of fault a decoder's message tells of, in words for someone who knows no decoder."""
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


def _with_mask(facts: ImageFacts, mask: MaskFacts) -> ImageFacts:
    values = {name: getattr(facts, name) for name in ImageFacts.__slots__}
    return ImageFacts(**{**values, "mask": mask})
