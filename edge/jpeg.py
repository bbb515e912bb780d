"""Decodes JPEGs strictly: what the decoder only warns of is an error here.

A JPEG that lost bytes, as it happens on a bad cable or a full disk, still decodes: the rest of the picture comes out
grey or shifted, and a defect in it is gone. Pillow says nothing of it. simplejpeg asks the same library, libjpeg-turbo,
gives the same pixels, and tells.
"""

import os
import threading

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

# There are no wheels for 32-bit ARM. There Pillow decodes, and only a file that ends too early is noticed.
HAS_STRICT_DECODER = os.uname().machine != "armv7l"
if HAS_STRICT_DECODER:
    import simplejpeg

_SPACES = {"L": "GRAY", "RGB": "RGB"}  # Pillow's mode to the decoder's
_UNKNOWN_LAYOUT = "subsampling level"  # in its message for a rare one, which Pillow decodes, unchecked
_KEPT_BYTES = (
    8 << 20
)  # of memory for pixels, at most, that a thread keeps for its next picture: fresh memory costs time
_SCALES = (8, 4, 2)  # by which the decoder can shrink a picture as halving does

_kept = threading.local()

Box = tuple[int, int, int, int]  # left, top, right, bottom; px


def decoder_scale(size: tuple[int, int], box: Box, orientation: int, factor: int) -> int:
    """By how much the decoder may shrink a picture, where that equals halving the box.

    Args:
        size: of the picture as stored, px.
        box: the region that is wanted of it.
        orientation: of EXIF.
        factor: of the halving that is wanted: 1, 2, 4, ...

    Returns:
        1, 2, 4 or 8, a divisor of `factor`.
    """
    width, height = size
    for scale in _SCALES:
        if factor % scale:
            continue
        # Halving averages what there is at the far edges; upright, so does the decoder.
        edges = [box[0], box[1]]
        edges += [edge for edge, end in ((box[2], width), (box[3], height)) if edge != end or orientation != 1]
        if all(edge % scale == 0 for edge in edges):
            return scale
    return 1


def decode_jpeg(data: bytes, header: JpegImageFile, scale: int) -> Image.Image:
    """The picture of a JPEG file.

    Args:
        data: the file.
        header: the same file, opened and not decoded; it may be decoded here.
        scale: to shrink by: 1, 2, 4 or 8.

    Returns:
        mode L, RGB or CMYK, each side divided by `scale` and rounded up.

    Raises:
        ValueError: the data is damaged.
        OSError: likewise, found by Pillow.
    """
    try:
        picture = _decode_strictly(data, header, scale) if HAS_STRICT_DECODER else None
    except ValueError as error:
        if _UNKNOWN_LAYOUT not in str(error):
            raise
        picture = None
    if picture is not None:
        return picture
    if scale > 1:
        header.draft(None, (header.size[0] // scale, header.size[1] // scale))
    header.load()
    return header


def _decode_strictly(data: bytes, header: JpegImageFile, scale: int) -> Image.Image | None:
    """The picture, or None when its data is whole but only Pillow knows what to make of it.

    Raises:
        ValueError: the data is damaged, or of a layout that the decoder does not know.
    """
    if header.mode not in _SPACES:  # CMYK, which Pillow also inverts where Adobe did
        simplejpeg.decode_jpeg(data, "CMYK", min_height=1, min_width=1, strict=True)
        return None
    width, height = (-(-side // scale) for side in header.size)
    space = _SPACES[header.mode]
    room = _room(width * height * 3) if space == "RGB" else None  # of grey pixels Pillow makes no copy
    pixels = simplejpeg.decode_jpeg(data, space, min_height=height, min_width=width, buffer=room, strict=True)
    if pixels.shape[:2] != (height, width):
        raise ValueError(f"want {width}x{height} px at 1/{scale}, found {pixels.shape[1]}x{pixels.shape[0]}")
    return Image.fromarray(pixels[:, :, 0] if header.mode == "L" else pixels)


def _room(size: int) -> np.ndarray:
    """Memory for so many bytes, uint8 [>= size]; this thread's next picture may use it again."""
    room: np.ndarray | None = getattr(_kept, "room", None)
    if room is None or len(room) < size:
        room = np.empty(size, np.uint8)
        if size <= _KEPT_BYTES:
            _kept.room = room
    return room
