"""The device needs numpy, Pillow and a TFLite runtime, and nothing of the training side."""

import ast
import sys
from pathlib import Path

EDGE = Path(__file__).resolve().parents[1] / "edge"
ALLOWED = {"numpy", "PIL", "edge"}
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
