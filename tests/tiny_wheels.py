"""Makes tiny wheels in the place of the real ones, so that components are built in tests without a package index.

With `site`, what is installed from them is what that environment has: the real inspector runs on them.
"""

import hashlib
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from inspection.fleet.components.locks import EDGE, Pin, read_pins
from inspection.fleet.components.targets import Target, this_architecture, this_python
from inspection.fleet.components.wheels import SUMS

MODULES = {"pillow": "PIL", "awsiotsdk": "awsiot"}  # where the module is not called as the package
SHARED = ("awscrt", "protobuf")  # abi3
PURE = ("awsiotsdk", "backports-strenum", "flatbuffers", "tqdm", "typing-extensions", "boto3", "botocore", "s3transfer")
PURE = (*PURE, "jmespath", "python-dateutil", "six", "urllib3")
HERE = Path(sys.prefix) / "lib" / f"python{this_python()}" / "site-packages"


def tiny_wheels(
    folder: Path,
    targets: Sequence[Target] = (),
    extras: Sequence[str] = (),
    site: Path | None = None,
    edge_folder: Path = EDGE,
) -> Path:
    """A folder for `[fleet] wheels` with a wheel for every pin of every target (this machine's by default).

    Args:
        folder: made when it is not there.
        targets: the devices.
        extras: as for `read_pins`.
        site: site-packages whose packages are found by who installs numpy; None: the modules are empty.
        edge_folder: with `locks/`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for target in targets or (Target(this_architecture(), this_python()),):
        for pin in read_pins(target, extras, edge_folder):
            tiny_wheel(folder, pin, target, site if pin.name == "numpy" else None, empty=site is None)
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in sorted(folder.glob("*.whl"))]
    (folder / SUMS).write_text("\n".join(sums) + "\n")
    return folder


def tiny_wheel(folder: Path, pin: Pin, target: Target, site: Path | None = None, empty: bool = True) -> Path:
    """One wheel: a module without content, or only a way to another environment's packages."""
    tag = f"{target.abi}-{target.abi}-manylinux_2_28_{target.machine}"
    if pin.name in SHARED:
        tag = f"cp310-abi3-manylinux2014_{target.machine}"
    if pin.name in PURE:
        tag = "py3-none-any"
    name = pin.name.replace("-", "_")
    path = folder / f"{name}-{pin.version}-{tag}.whl"
    info = f"{name}-{pin.version}.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {pin.name}\nVersion: {pin.version}\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    if empty:
        files[f"{MODULES.get(pin.name, name)}/__init__.py"] = ""
    if empty and name in ("ai_edge_litert", "tflite_runtime"):
        files[f"{name}/interpreter.py"] = ""
    if site is not None:
        files["zz_site.pth"] = f"{site}\n"
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in files.items():
            wheel.writestr(zipfile.ZipInfo(file, (1980, 1, 1, 0, 0, 0)), text)
    return path
