"""The device needs numpy, Pillow and a TFLite runtime, and nothing of the training side."""

import ast
import sys
from pathlib import Path

EDGE = Path(__file__).resolve().parents[1] / "edge"
ALLOWED = {"numpy", "PIL", "edge"}


def test_edge_imports_nothing_beyond_its_own_packages() -> None:
    files = sorted(EDGE.rglob("*.py"))
    assert len(files) > 10
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                top = name.split(".")[0]
                assert top in ALLOWED or top in sys.stdlib_module_names, f"{file.name} imports {name}"
