"""The device needs numpy, Pillow and a TFLite runtime, and nothing of the training side."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from golden_package import GOLDEN, make_package

EDGE = Path(__file__).resolve().parents[1] / "edge"
ALLOWED = {"numpy", "PIL", "simplejpeg", "edge"}
# What only these files may import besides; they are loaded when they are chosen.
EXTRAS = {
    "transports/mqtt.py": {"awscrt"},
    "transports/mqtt_connection.py": {"awscrt"},
    "transports/nucleus.py": {"awscrt", "awsiot"},
    "transports/greengrass.py": {"awsiot"},
    "uploader/s3.py": {"boto3", "botocore"},
}


def test_edge_imports_nothing_beyond_its_own_packages() -> None:
    files = sorted(EDGE.rglob("*.py"))
    assert len(files) > 10
    for file in files:
        allowed = ALLOWED | EXTRAS.get(file.relative_to(EDGE).as_posix(), set())
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                top = name.split(".")[0]
                assert top in allowed or top in sys.stdlib_module_names, f"{file.name} imports {name}"


HEAVY = ("torch", "metaflow", "boto3", "botocore", "cv2", "tensorflow", "scipy", "pandas", "sklearn", "matplotlib")
# What a run over a folder needs neither to begin nor to end.
NOT_FOR_A_FOLDER = (
    "awsiot",
    "awscrt",
    "ssl",
    "asyncio",
    "http",
    "email",
    "importlib.metadata",
    "multiprocessing",
    "socket",
)

# Notes every module that is looked for, found or not: most of the heavy ones are not installed on a device.
WATCH = """
import sys
asked = set()
class Watch:
    def find_spec(self, name, path=None, target=None):
        asked.add(name)
sys.meta_path.insert(0, Watch())
"""


def asked_for(program: str, *arguments: str) -> set[str]:
    """Names of the modules that a fresh interpreter of this environment looked for."""
    tell = "\nprint('asked:', *sorted(asked))\n"
    command = [sys.executable, "-c", WATCH + program + tell, *arguments]
    done = subprocess.run(command, cwd=EDGE.parent, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def of(names: Iterable[str], asked: set[str]) -> set[str]:
    return {name for name in names if any(one == name or one.startswith(name + ".") for one in asked)}


def test_importing_everything_on_the_way_to_a_verdict_brings_in_nothing_heavy() -> None:
    files = [file for file in EDGE.rglob("*.py") if file.relative_to(EDGE).as_posix() not in EXTRAS]
    modules = sorted(
        ".".join(file.relative_to(EDGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for file in files
        if "recipes" not in file.parts
    )
    assert "edge.pool" in modules
    asked = asked_for("".join(f"import {module}\n" for module in modules))
    assert "numpy" in asked
    assert of(HEAVY, asked) == set()
    assert of(("awsiot", "awscrt", "ssl", "asyncio"), asked) == set()


def test_a_run_loads_only_what_it_needs(tmp_path: Path) -> None:
    package = make_package(tmp_path / "package")
    (tmp_path / "incoming").mkdir()
    shutil.copy(GOLDEN / "part-2.jpg", tmp_path / "incoming")
    run = "from edge.__main__ import main\nassert main(sys.argv[1:]) == 0\n"
    source = ["--source", f"folder:{tmp_path / 'incoming'}", "--state", str(tmp_path / "state"), "--once", "--json"]
    for arguments in (["--self-test"], source):
        asked = asked_for(run, "--model", str(package), *arguments)
        assert "edge.detector" in asked
        assert of((*HEAVY, *NOT_FOR_A_FOLDER), asked) == set()
    assert (tmp_path / "state" / "results.jsonl").exists()
