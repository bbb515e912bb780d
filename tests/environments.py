"""Which of the device's environments a test needs."""

from importlib.util import find_spec
from pathlib import Path

import pytest

once_is_enough = pytest.mark.skipif(
    find_spec("ai_edge_litert") is None,
    reason="long, and the TFLite runtime plays no part: runs in the environment with ai-edge-litert only",
)


def device_python(environment: str) -> Path:
    """The interpreter of one of the device's environments; skips the test where it is not set up."""
    python = Path(__file__).resolve().parents[1] / environment / "bin" / "python"
    if not python.is_file():
        pytest.skip(f"{environment} is not here: run `make test`")
    return python
