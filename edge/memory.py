"""How much memory this process has used."""

import resource
import sys
from pathlib import Path


def peak_rss_bytes() -> int:
    """Largest resident memory of this process so far.

    On Linux from the kernel's own mark of this program: `getrusage` would tell the parent's peak when that was larger,
    since it outlives the call that replaces the program.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
