"""Lets the C library keep the memory that a batch frees, for the next batch."""

import ctypes
import functools
import logging
import platform

log = logging.getLogger(__name__)

# Parameters of mallopt. Source: malloc.h of the GNU C library.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER = 2**31 - 1  # bytes; the largest that mallopt takes


@functools.cache
def keep_freed_memory() -> bool:
    """Stop the C library from handing the memory of every feature map back to the kernel.

    A network on the CPU frees and asks for the same hundred megabytes with every batch; the kernel then clears all
    pages anew, which costs a quarter of a training step and half of a forward pass of 32 images (docs/decisions/0002).
    The process keeps what it once needed, until it ends.

    Returns:
        whether this system's C library can be told so; others do without.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    done = library.mallopt(_TRIM_THRESHOLD, _NEVER) == 1 and library.mallopt(_MMAP_MAX, 0) == 1
    log.info("event=freed_memory_kept done=%s", str(done).lower())
    return done
