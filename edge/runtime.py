"""Which TFLite runtime runs the models: ai-edge-litert, else tflite-runtime, else TensorFlow."""

import importlib
import importlib.util
from typing import Any

from edge.errors import RuntimeMissingError

# (module with the Interpreter, package), best first: docs/decisions/0003-device-runtimes.md has the figures.
_RUNTIMES = (
    ("ai_edge_litert.interpreter", "ai-edge-litert"),
    ("tflite_runtime.interpreter", "tflite-runtime"),
    ("tensorflow.lite.python.interpreter", "tensorflow"),
)


def load_interpreter() -> tuple[Any, str]:
    """The Interpreter class of the best runtime installed, and the runtime's name and version.

    A runtime that is installed but broken raises its own error: falling back would hide it.

    Raises:
        RuntimeMissingError: there is none.
    """
    for module, package in _RUNTIMES:
        top = module.partition(".")[0]
        if importlib.util.find_spec(top) is None:
            continue
        interpreter = importlib.import_module(module).Interpreter
        # Not by importlib.metadata: to import it takes as long as to import the runtime.
        return interpreter, f"{package} {importlib.import_module(top).__version__}"
    names = ", ".join(package for _, package in _RUNTIMES)
    raise RuntimeMissingError(f"no TFLite runtime (want one of {names}): pip install -r edge/requirements.txt")
