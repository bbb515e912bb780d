"""Which of the device's environments a test needs."""

from importlib.util import find_spec

import pytest

once_is_enough = pytest.mark.skipif(
    find_spec("ai_edge_litert") is None,
    reason="long, and the TFLite runtime plays no part: runs in the environment with ai-edge-litert only",
)
