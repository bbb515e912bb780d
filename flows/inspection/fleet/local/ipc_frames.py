"""Frames of Greengrass IPC (AWS event stream), as nucleus lite takes them.

Big-endian: u32 total, u32 length of headers, u32 crc32 of these 8, headers, payload, u32 crc32 of all before; a header
is u8 length of its name, name, u8 type (4: int32, 7: text with u16 length), value.
Only the standard library is imported, so that tests in the devices' own environments can use it.
"""

import asyncio
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

MAX_FRAME_BYTES = 10_000
"""Source: observed on nucleus lite 2.6.0; a larger one closes the connection."""

APPLICATION, ERROR, CONNECT, CONNECT_ACK = 0, 1, 4, 5  # types of messages
ACCEPTED, TERMINATE = 1, 2  # flags


class FrameError(ConnectionError):
    """What came is no frame, or too large a one: the connection ends."""


async def read_frame(reader: asyncio.StreamReader) -> tuple[dict[str, Any], bytes]:
    """The next frame's headers and payload.

    Raises:
        FrameError: it is too large or damaged.
        asyncio.IncompleteReadError: the other side is gone.
    """
    prelude = await reader.readexactly(12)
    total, headers_length, crc = struct.unpack(">III", prelude)
    if not 16 <= total <= MAX_FRAME_BYTES or headers_length > total - 16 or crc != zlib.crc32(prelude[:8]):
        raise FrameError("the frame is too large or damaged: the nucleus closes the connection")
    rest = await reader.readexactly(total - 12)
    if struct.unpack(">I", rest[-4:])[0] != zlib.crc32(prelude + rest[:-4]):
        raise FrameError("the frame's checksum is wrong")
    try:
        return dict(_headers(rest[:headers_length])), rest[headers_length:-4]
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise FrameError("the frame's headers cannot be read") from error


def pack_frame(headers: Mapping[str, int | str], payload: bytes) -> bytes:
    """A frame as bytes."""
    packed = b""
    for name, value in headers.items():
        packed += struct.pack(">B", len(name)) + name.encode()
        if isinstance(value, int):
            packed += struct.pack(">Bi", 4, value)
        else:
            packed += struct.pack(">BH", 7, len(value)) + value.encode()
    start = struct.pack(">II", 16 + len(packed) + len(payload), len(packed))
    frame = start + struct.pack(">I", zlib.crc32(start)) + packed + payload
    return frame + struct.pack(">I", zlib.crc32(frame))


def _headers(packed: bytes) -> Iterator[tuple[str, Any]]:
    at = 0
    while at < len(packed):
        length = packed[at]
        name = packed[at + 1 : at + 1 + length].decode()
        at += 1 + length
        kind = packed[at]
        if kind == 4:
            yield name, struct.unpack_from(">i", packed, at + 1)[0]
            at += 5
        elif kind == 7:
            (size,) = struct.unpack_from(">H", packed, at + 1)
            yield name, packed[at + 3 : at + 3 + size].decode()
            at += 3 + size
        else:
            raise FrameError(f"a header of type {kind}")
