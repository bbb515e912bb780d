"""What one image's file tells, measured on the picture that is decoded for the model.

Decoding is that of `edge.preprocess` under the line's contract, so an image that passes here is one that training and
the device can read. A JPEG is decoded at the scale that the contract allows: all of its data is read, so damage is
found, at a fraction of the cost of its full size. Every worker process imports this, so it imports little.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from edge.contract import InputContract
from edge.preprocess import Loaded, load_file, open_file, whole_picture
from inspection.dataset.annotations import MaskFacts

WORKING_PX = 256  # a picture is halved, to be measured, while its longer side stays at least this
MEASURED_PX = 128  # a JPEG whose decoder was asked for less is decoded once more, for the measuring alone
THUMBNAIL_PX = 32  # side of the small grey picture that near duplicates are looked for with
BLACK_LEVEL = 16  # grey level; ITU-R BT.601 calls it black

Content = bytes  # `ImageFacts` has a field of that name
_LEVELS = np.arange(256, dtype=np.float64)
_EXIF_IFD, _MAKE, _MODEL, _DATE, _DATE_ORIGINAL = 0x8769, 0x010F, 0x0110, 0x0132, 0x9003
_TIME = re.compile(r"((?:19[89]|2\d\d)\d)[:-](\d\d)[:-](\d\d)[ T](\d\d):(\d\d):(\d\d)")
# Mean of the luminance table of ITU-T T.81, annex K.1, which most encoders scale by their quality.
_STANDARD_LUMINANCE_MEAN = 57.625


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


def working_contract(white_level: int = 65535, side_px: int = WORKING_PX) -> InputContract:
    """How pictures are decoded to be measured: whole, at their own aspect ratio, no larger than needed."""
    return InputContract(width=side_px, height=side_px, resize="letterbox", roi=None, white_level=white_level)


def measure(
    uri: str,
    data: bytes,
    contract: InputContract | None = None,
    loaded: Loaded | None = None,
    sha256: str | None = None,
) -> ImageFacts:
    """Measure a picture.

    Args:
        uri: of the image.
        data: its file.
        contract: under which it was decoded; default that of a picture which is decoded for nothing else.
        loaded: the decoded file; None: it is decoded here.
        sha256: of the file, where it is known already.

    Raises:
        ImageError: it cannot be decoded; see `edge.preprocess.prepare_file`.
    """
    contract = contract or working_contract()
    loaded = loaded or load_file(data, contract, uri)
    # the pages of a TIFF are counted by going through them, which a loaded one no longer can
    header = loaded.header if isinstance(loaded.header, JpegImageFile) else open_file(data, uri)
    if loaded.scale > 1 and max(loaded.image.size) < MEASURED_PX:
        contract = working_contract(contract.white_level)
        loaded = load_file(data, contract, uri)
    grey = _grey(loaded, contract, uri)
    counts = np.array(grey.histogram())
    share = counts / counts.sum()
    brightness = float(share @ _LEVELS)
    present = np.flatnonzero(counts)
    thumbnail = grey.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX).tobytes()
    content = b"%dx%d" % (loaded.width_px, loaded.height_px) + counts.tobytes() + thumbnail
    camera, taken_at = _read_exif(header)
    return ImageFacts(
        uri=uri,
        sha256=sha256 or hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        width=loaded.width_px,
        height=loaded.height_px,
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


def _grey(loaded: Loaded, contract: InputContract, uri: str) -> Image.Image:
    """The whole picture in grey, halved while its longer side stays at least `WORKING_PX`."""
    picture = whole_picture(loaded, contract, uri)
    halving = max(1, max(loaded.width_px, loaded.height_px) // WORKING_PX)
    factor = 1 << (halving.bit_length() - 1)
    if factor > loaded.scale:
        picture = picture.reduce(factor // loaded.scale)
    return picture if picture.mode == "L" else picture.convert("L")


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
    """Mean absolute difference between neighbours of a row."""
    pixels = np.asarray(grey)[::2]  # every second row is enough for a mean
    if pixels.shape[1] < 2:
        return 0.0
    left, right = pixels[:, :-1], pixels[:, 1:]
    difference = np.maximum(left, right) - np.minimum(left, right)
    return float(difference.sum(dtype=np.uint32)) / difference.size


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
