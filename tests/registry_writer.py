"""One of many writers to a registry, let loose at the same moment; a script, so that each can be a process."""

import hashlib
import sys
import time
from pathlib import Path

from inspection.errors import RegistryError
from inspection.registry.interface import PackageReference, Registry
from inspection.registry.local import LocalRegistry
from inspection.storage import open_storage


def write(registry: Registry, folder: Path, action: str, me: int) -> list[str]:
    """Wait for the others, act, and say what came of it.

    Args:
        registry: the registry that all write to.
        folder: where writers say that they are ready and wait for the file `go`.
        action: "different" registers three packages of its own, "same" registers the one that all register, "decide"
            approves or rejects version 1.
        me: number of this writer.
    """
    (folder / f"{me}.ready").touch()
    while not (folder / "go").exists():
        time.sleep(0.002)
    if action == "different":
        return [str(registry.register(_reference(folder, me, f"{me} {number}")).version) for number in range(3)]
    if action == "same":
        return [str(registry.register(_reference(folder, me, "one and the same")).version)]
    decide = registry.approve if me % 2 == 0 else registry.reject
    try:
        decide("bottles", 1, f"person {me}", "I was first")
    except RegistryError as error:
        return [f"lost: {error}"]
    return ["won"]


def _reference(folder: Path, me: int, content: str) -> PackageReference:
    data = content.encode()
    archive = folder / f"{me}.zip"
    archive.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    return PackageReference("bottles", archive, digest, content, {}, "snapshot", f"TrainFlow/{me}")


if __name__ == "__main__":
    root, place, task, number = sys.argv[1:]
    print("\n".join(write(LocalRegistry(open_storage(root)), Path(place), task, int(number))))
