"""Say which set of wheels this Python takes, or why none; older Pythons (3.6 and later) must be able to run this, too.

Argument: sets.json of the artifact, such as {"machine": "aarch64", "sets": {"cp311": {"glibc": [2, 28]}}}.
"""

import json
import platform
import struct
import sys
from pathlib import Path


def reason_against(machine: str, sets: dict) -> str:
    """Why no set fits; empty when one does."""
    built = f"built are {', '.join(sorted(sets))} for {machine}"
    if platform.python_implementation() != "CPython" or abi() not in sets:
        return f"want another Python ({built}), found {platform.python_implementation()} {platform.python_version()}"
    bits = 8 * struct.calcsize("P")
    if bits != (32 if machine == "armv7l" else 64):
        return f"want a Python of {machine} ({built}), found one of {bits} bits"
    library, version = platform.libc_ver()
    wanted = sets[abi()].get("glibc")
    if wanted and library != "glibc":
        return f"want glibc {wanted[0]}.{wanted[1]} or newer, found {library or 'another libc, such as musl'}"
    if wanted and [int(part) for part in version.split(".")[:2]] < wanted:
        return f"want glibc {wanted[0]}.{wanted[1]} or newer, found {version}"
    return ""


def abi() -> str:
    """Such as cp311."""
    return f"cp{sys.version_info[0]}{sys.version_info[1]}"


def main() -> int:
    """Print the set's name."""
    document = json.loads(Path(sys.argv[1]).read_text())
    reason = reason_against(document["machine"], document["sets"])
    if reason:
        sys.stderr.write(f"event=runtime_refused python={sys.executable} reason='{reason}'\n")
        return 1
    print(abi())
    return 0


if __name__ == "__main__":
    sys.exit(main())
