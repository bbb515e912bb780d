"""From a camera's picture to the model's input: the only definition of preprocessing.

Training, calibration and the device all come through here, so they cannot differ. The steps, in this order:

1. EXIF orientation; then the region of interest is cut out in original pixels. `center-crop` cuts that region further,
   to the aspect ratio of the model's input.
2. Halving (mean over 2x2, 4x4, 8x8, ... pixels) while the picture is at least twice the target in both directions.
3. One antialiased bilinear filter to the target size. `letterbox` keeps the aspect ratio and fills the rest with
   mid-grey (`PADDING`).

A JPEG decoder can do step 2 itself, at a fraction of the cost, by leaving out high frequencies of its 8x8 blocks. That
is allowed only where its grid is the one that step 2 would use, so that a raw frame and its own JPEG give nearly the
same pixels and the same verdict.

What is ignored, always: an alpha channel or a transparent colour (the colour below it counts), colour profiles, every
page or frame but the first.
"""

import functools
import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from edge.contract import InputContract
from edge.errors import ContractError, ImageError, PictureSizeError
from edge.jpeg import Box, decode_jpeg, decoder_scale

PADDING = 128  # grey level around a letterboxed picture
MAX_PIXELS = 89_000_000  # of one picture; just below the size at which Pillow suspects a decompression bomb

# Plugins are called by their own name: `Image.open` would warn about a large picture before its size can be checked.
_FORMATS: tuple[tuple[bytes, type[ImageFile.ImageFile]], ...] = (
    (b"\xff\xd8\xff", JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
    (b"BM", BmpImageFile),
    (b"II*\0", TiffImageFile),
    (b"MM\0*", TiffImageFile),
    (b"II+\0", TiffImageFile),
    (b"MM\0+", TiffImageFile),
)
# What Pillow raises on files that are damaged. Warning: an interpreter may turn warnings into errors.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    ArithmeticError,
    Image.DecompressionBombError,
    struct.error,
    zlib.error,
    Warning,
)
_GREY_MODES = {"1", "L", "LA", "La"}
_COLOUR_MODES = {"RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "CMYK", "YCbCr"}
_GREY16_MODES = {"I;16", "I;16L", "I;16B", "I;16N"}
_ORIENTATION_TAG = 0x0112
_SWAPPING = (5, 6, 7, 8)  # orientations in which rows and columns change places
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Prepared:
    """A picture as the model takes it, and the size it had."""

    pixels: np.ndarray  # uint8, shape (1, height, width, 3), RGB
    image: Image.Image  # the same pixels, mode RGB or L: what looks at them with Pillow need not copy them
    width_px: int  # of the whole original picture, EXIF orientation applied
    height_px: int


@dataclass(frozen=True)
class Plan:
    """What happens to a picture of one size."""

    region: Box  # of the oriented original
    factor: int  # of halving: 1, 2, 4, ...
    size: tuple[int, int]  # width, height after the filter
    offset: tuple[int, int]  # left, top of the result in the model's input


@dataclass(frozen=True)
class Loaded:
    """A picture as its file stores it: decoded, but neither cut nor turned upright."""

    header: ImageFile.ImageFile  # what the file says of itself
    image: Image.Image
    deep: bool  # the file holds 16 bits per channel
    orientation: int  # of EXIF, still to be applied
    box: Box  # where the plan's region lies in the picture as stored, before it was shrunk
    plan: Plan
    scale: int  # by which the JPEG decoder has shrunk it
    width_px: int  # of the whole original picture, EXIF orientation applied
    height_px: int


@dataclass(frozen=True)
class Decoded:
    """A picture half-way: upright, cut to its region, 8-bit, not yet at the model's size."""

    image: Image.Image  # mode L or RGB
    plan: Plan
    scale: int  # by which the JPEG decoder has shrunk it already
    width_px: int  # of the whole original picture, EXIF orientation applied
    height_px: int


def prepare_file(data: bytes, contract: InputContract, where: str = "image") -> Prepared:
    """Decode an image file to the model's input.

    Takes JPEG, PNG, BMP and TIFF; 1-bit, 8- and 16-bit grey, RGB, palette, CMYK and YCbCr. 16-bit grey is scaled so
    that `contract.white_level` becomes 255; 16-bit colour keeps its upper 8 bits.

    Args:
        data: the file's content.
        contract: size, region and filter that the model was trained with.
        where: name of the file, for messages.

    Raises:
        ImageError: the file is empty, damaged, truncated, of another format or pixel type, too large, or does not
            hold the region of interest.
    """
    return finish(decode_file(data, contract, where), contract)


def decode_file(data: bytes, contract: InputContract, where: str = "image", max_pixels: int = MAX_PIXELS) -> Decoded:
    """The first half of `prepare_file`, apart so that its time can be measured: all that depends on the format.

    Args:
        data: the file's content.
        contract: as `prepare_file`.
        where: name of the file, for messages.
        max_pixels: a larger picture is refused before it takes memory; at most `MAX_PIXELS`.

    Raises:
        ImageError: as `prepare_file`.
    """
    return cut(load_file(data, contract, where, max_pixels), contract, where)


def load_file(data: bytes, contract: InputContract, where: str = "image", max_pixels: int = MAX_PIXELS) -> Loaded:
    """Decode a file to the picture that is stored in it.

    Raises:
        ImageError: as `prepare_file`, but for pixel types.
    """
    image = open_file(data, where, max_pixels)
    deep = _is_16_bit(image)
    try:
        # Pillow turns a TIFF upright itself, while loading.
        orientation = 1 if isinstance(image, TiffImageFile) else image.getexif().get(_ORIENTATION_TAG, 1)
        width, height = image.size[::-1] if orientation in _SWAPPING else image.size
        plan = _plan(width, height, contract, where)
        box = _stored_box(plan.region, image.size, orientation)
        scale = 1
        decoded: Image.Image = image
        if isinstance(image, JpegImageFile):
            scale = decoder_scale(image.size, box, orientation, plan.factor)
            decoded = decode_jpeg(data, image, scale)
        else:
            image.load()
    except _DECODE_ERRORS as error:
        raise _cannot_decode(image, error, where) from error
    return Loaded(image, decoded, deep, orientation, box, plan, scale, width, height)


def cut(loaded: Loaded, contract: InputContract, where: str = "image") -> Decoded:
    """The region of a decoded file that its plan asks for, 8-bit and upright.

    Raises:
        ImageError: its pixel type is not supported.
    """
    box = tuple(-(-edge // loaded.scale) for edge in loaded.box)  # rounds up, as the decoder does
    region = _turned(loaded, box, contract, where)
    return Decoded(region, loaded.plan, loaded.scale, loaded.width_px, loaded.height_px)


def whole_picture(loaded: Loaded, contract: InputContract, where: str = "image") -> Image.Image:
    """All of a decoded file, 8-bit (mode L or RGB) and upright, shrunk by `loaded.scale`.

    Raises:
        ImageError: its pixel type is not supported.
    """
    return _turned(loaded, (0, 0, *loaded.image.size), contract, where)


def _turned(loaded: Loaded, box: tuple[int, ...], contract: InputContract, where: str) -> Image.Image:
    try:
        region = _to_8_bit(_crop(loaded.image, box), loaded.deep, contract, where)
    except _DECODE_ERRORS as error:
        raise _cannot_decode(loaded.header, error, where) from error
    if loaded.orientation in _TRANSPOSE:
        region = region.transpose(_TRANSPOSE[loaded.orientation])
    return region


def _cannot_decode(image: ImageFile.ImageFile, error: Exception, where: str) -> ImageError:
    return ImageError(f"{where}: cannot decode this {image.format}: {error}; take or copy the picture again")


def finish(decoded: Decoded, contract: InputContract) -> Prepared:
    """The second half of `prepare_file`: halve what is left to halve, filter to size, pad."""
    pixels, image = _resize(decoded.image, decoded.plan, decoded.scale, contract)
    return Prepared(pixels, image, decoded.width_px, decoded.height_px)


def to_model_input(frame: np.ndarray, contract: InputContract) -> np.ndarray:
    """Resize an RGB frame to the model's input.

    Pixels stay 8-bit: normalisation is the model's first layer.

    Args:
        frame: uint8, shape (H, W, 3), RGB, 0..255.
        contract: the size, region and filter that the model was trained with.

    Returns:
        uint8, shape (1, height, width, 3).

    Raises:
        ContractError: the frame is not uint8 RGB.
        ImageError: the frame does not hold the region of interest.
    """
    return prepare_frame(frame, contract).pixels


def prepare_frame(frame: np.ndarray, contract: InputContract) -> Prepared:
    """Bring an RGB frame to the model's input, as `prepare_file` does a file.

    Args:
        frame: uint8, shape (H, W, 3), RGB, 0..255.
        contract: the size, region and filter that the model was trained with.

    Raises:
        ContractError: the frame is not uint8 RGB.
        ImageError: the frame does not hold the region of interest.
    """
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        raise ContractError(f"frame: want uint8 RGB of shape (H, W, 3), found {frame.dtype} {frame.shape}")
    plan = _plan(frame.shape[1], frame.shape[0], contract, "frame")
    left, top, right, bottom = plan.region
    pixels, image = _resize(Image.fromarray(frame[top:bottom, left:right]), plan, 1, contract)
    return Prepared(pixels, image, frame.shape[1], frame.shape[0])


def open_file(data: bytes, where: str, max_pixels: int = MAX_PIXELS) -> ImageFile.ImageFile:
    """The picture behind the data, not yet decoded: its format, size and pixel type are known, no memory is taken.

    Raises:
        ImageError: the file is empty, of another format, has a damaged header, or too many pixels.
    """
    if not data:
        raise ImageError(f"{where}: the file is empty; take or copy the picture again")
    plugin = next((plugin for magic, plugin in _FORMATS if data.startswith(magic)), None)
    if plugin is None:
        raise ImageError(f"{where}: want a JPEG, PNG, BMP or TIFF picture, found data that begins with {data[:12]!r}")
    try:
        image = plugin(io.BytesIO(data))
    except _DECODE_ERRORS as error:
        raise ImageError(
            f"{where}: cannot read this {plugin.format}: {error}; take or copy the picture again"
        ) from error
    width, height = image.size
    if not 0 < width * height <= max_pixels:
        raise PictureSizeError(
            f"{where}: want 1 to {max_pixels} pixels, found {width}x{height}; crop or shrink the picture at its source"
        )
    return image


def _plan(width: int, height: int, contract: InputContract, where: str) -> Plan:
    """Regions and sizes for a picture of `width` x `height` px."""
    left, top, right, bottom = 0, 0, width, height
    if contract.roi is not None:
        roi = contract.roi
        left, top, right, bottom = roi.left, roi.top, roi.left + roi.width, roi.top + roi.height
        if left < 0 or top < 0 or right > width or bottom > height or left >= right or top >= bottom:
            raise ImageError(
                f"{where}: the region of interest (left {left}, top {top}, {roi.width}x{roi.height} px) is not inside "
                f"this picture of {width}x{height} px; correct the region or the camera's resolution"
            )
    region_w, region_h = right - left, bottom - top
    size, offset = (contract.width, contract.height), (0, 0)
    if contract.resize == "center-crop":
        cut_w = max(1, min(region_w, round(region_h * contract.width / contract.height)))
        cut_h = max(1, min(region_h, round(region_w * contract.height / contract.width)))
        left, top = left + (region_w - cut_w) // 2, top + (region_h - cut_h) // 2
        region_w, region_h = cut_w, cut_h
    elif contract.resize == "letterbox":
        scale = min(contract.width / region_w, contract.height / region_h)
        size = max(1, round(region_w * scale)), max(1, round(region_h * scale))
        offset = (contract.width - size[0]) // 2, (contract.height - size[1]) // 2
    whole = max(1, min(region_w // size[0], region_h // size[1]))
    factor = 1 << (whole.bit_length() - 1)  # the largest power of two that is not above it
    return Plan((left, top, left + region_w, top + region_h), factor, size, offset)


def _stored_box(region: Box, stored: tuple[int, int], orientation: int) -> Box:
    """Where a region of the oriented picture lies in the picture as stored.

    Source: Exif 2.32, tag 0x0112.
    """
    left, top, right, bottom = region
    if orientation in _SWAPPING:
        left, top, right, bottom = top, left, bottom, right
    width, height = stored
    if orientation in (2, 3, 7, 8):
        left, right = width - right, width - left
    if orientation in (3, 4, 6, 7):
        top, bottom = height - bottom, height - top
    return left, top, right, bottom


def _crop(image: Image.Image, box: tuple[int, ...]) -> Image.Image:
    return image if box == (0, 0, *image.size) else image.crop((box[0], box[1], box[2], box[3]))


def _is_16_bit(image: ImageFile.ImageFile) -> bool:
    """Whether the file (not yet loaded) holds 16 bits per channel: its raw mode is then such as `RGB;16B`."""
    return any(";16" in str(tile[3]) for tile in image.tile)


def _to_8_bit(image: Image.Image, deep: bool, contract: InputContract, where: str) -> Image.Image:
    """The picture as L or RGB.

    Args:
        image: as decoded.
        deep: whether the file holds 16 bits per channel.
        contract: for its white level.
        where: name of the file, for messages.
    """
    if image.mode in _GREY16_MODES:
        return Image.fromarray(_white_level_table(contract.white_level)[np.asarray(image)])
    if image.mode not in _GREY_MODES | _COLOUR_MODES:
        raise ImageError(
            f"{where}: want 8- or 16-bit grey, RGB, palette, CMYK or YCbCr pixels, found Pillow's mode {image.mode!r}; "
            "save the picture as 8-bit RGB or 16-bit grey"
        )
    if deep and contract.white_level != 65535:
        raise ImageError(
            f"{where}: 16-bit colour keeps only its upper 8 bits, which cannot follow white_level = "
            f"{contract.white_level}; save the picture as 8-bit RGB or set white_level to 65535"
        )
    mode = "L" if image.mode in _GREY_MODES else "RGB"
    if image.mode == mode:
        return image
    image.info.pop("transparency", None)  # Pillow warns when it drops a transparent colour by itself
    return image.convert(mode)


@functools.lru_cache(maxsize=4)
def _white_level_table(white_level: int) -> np.ndarray:
    """uint8 value of each 16-bit value, rounded, shape (65536,)."""
    values = np.arange(65536, dtype=np.int64)
    return np.minimum(255, (values * 510 + white_level) // (2 * white_level)).astype(np.uint8)


def _resize(region: Image.Image, plan: Plan, scale: int, contract: InputContract) -> tuple[np.ndarray, Image.Image]:
    """Halve what is left to halve, filter to size, pad.

    Args:
        region: L or RGB, already shrunk by `scale`.

    Returns:
        uint8 (1, height, width, 3), and the same as a picture, mode L or RGB.
    """
    width, height = plan.region[2] - plan.region[0], plan.region[3] - plan.region[1]
    if plan.factor > scale:
        region = region.reduce(plan.factor // scale)
    # A last column that stands for fewer original columns counts for that much less. Columns first, then rows: in one
    # call the order is Pillow's, which changed in version 13 and with it the rounding of tall pictures.
    columns = plan.size[0]
    box = (0.0, 0.0, width / plan.factor, float(region.height))
    region = region.resize((columns, region.height), Image.Resampling.BILINEAR, box=box)
    region = region.resize(plan.size, Image.Resampling.BILINEAR, box=(0.0, 0.0, float(columns), height / plan.factor))
    if plan.size != (contract.width, contract.height):
        canvas = Image.new(
            region.mode, (contract.width, contract.height), PADDING if region.mode == "L" else (PADDING,) * 3
        )
        canvas.paste(region, plan.offset)
        region = canvas
    coloured = region.convert("RGB") if region.mode == "L" else region
    return np.array(coloured)[np.newaxis], region
