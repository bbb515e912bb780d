"""How the machine does: temperature, memory, disk."""

import os
from dataclasses import dataclass
from pathlib import Path

_SYS = Path("/sys/class/thermal")
_PROC = Path("/proc/self/statm")
# Words in the type of a thermal zone that is the processor's: "cpu-thermal" (Raspberry Pi), "CPU-therm" (Jetson),
# "x86_pkg_temp" and "acpitz" (PCs; the second is the board's and better than nothing), "soc-thermal".
_PROCESSOR = ("x86_pkg", "cpu", "soc", "acpitz")


@dataclass(frozen=True)
class Vitals:
    """Figures of the machine; None where it does not tell."""

    cpu_temperature_c: float | None
    rss_bytes: int | None  # of this process, now
    disk_free_bytes: int | None  # for an ordinary user, where the spool is
    disk_bytes: int | None


def read_vitals(folder: Path) -> Vitals:
    """Read them all; takes well below a millisecond.

    Args:
        folder: on the disk that matters.
    """
    try:
        disk = os.statvfs(folder)
    except OSError:  # the disk is gone; the spool tells it in words
        return Vitals(cpu_temperature_c(), rss_bytes(), None, None)
    return Vitals(cpu_temperature_c(), rss_bytes(), disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize)


def cpu_temperature_c(zones: Path = _SYS) -> float | None:
    """Temperature of the processor's thermal zone, the hottest when there are several; None when there is none."""
    found: dict[int, list[float]] = {}
    for zone in sorted(zones.glob("thermal_zone*")):
        try:
            kind = (zone / "type").read_text(encoding="ascii").strip().lower()
            degrees = int((zone / "temp").read_text(encoding="ascii")) / 1000
        except (OSError, ValueError):  # zones that are switched off refuse to be read
            continue
        rank = next((index for index, word in enumerate(_PROCESSOR) if word in kind), None)
        if rank is not None:
            found.setdefault(rank, []).append(degrees)
    return max(found[min(found)]) if found else None


def rss_bytes(statm: Path = _PROC) -> int | None:
    """Resident memory of this process now."""
    try:
        return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):  # not Linux
        return None
