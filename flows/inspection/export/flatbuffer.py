"""Read and change a TFLite model in memory: the few things that quantisation needs of its flatbuffer."""

from collections.abc import Iterator
from typing import Any

import numpy as np

# Builtin operators with a weight (input 1) and a bias (input 2), and the weight's axis of output channels.
WEIGHT_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}


def operators_with_bias(model: Any) -> Iterator[tuple[Any, int]]:
    """Operators whose weight and bias are constants, and the weight's axis of output channels."""
    from ai_edge_litert.tools import flatbuffer_utils

    graph = model.subgraphs[0]
    for operator in graph.operators:
        name = flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex)
        constant = len(operator.inputs) > 2 and all(
            index >= 0 and model.buffers[graph.tensors[index].buffer].data is not None for index in operator.inputs[1:3]
        )
        if name in WEIGHT_AXIS and constant:
            yield operator, WEIGHT_AXIS[name]


def constant_values(model: Any, tensor: Any) -> np.ndarray:
    """Values of a float32 constant, in its shape."""
    data = bytes(model.buffers[tensor.buffer].data)
    return np.frombuffer(data, dtype=np.float32).reshape(tensor.shape)


def set_constant(model: Any, tensor: Any, values: np.ndarray) -> None:
    """Replace a float32 constant; a buffer that other tensors share with it is left to them."""
    from ai_edge_litert import schema_py_generated as schema

    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(values, dtype=np.float32).tobytes(), dtype=np.uint8)
    model.buffers.append(buffer)
    tensor.buffer = len(model.buffers) - 1


def tensor_name(tensor: Any) -> str:
    """A tensor's name as text."""
    name: bytes | str = tensor.name
    return name.decode() if isinstance(name, bytes) else name


def to_bytes(model: Any) -> bytes:
    """The content of a .tflite file."""
    from ai_edge_litert.tools import flatbuffer_utils

    for buffer in model.buffers:  # a list would be written value by value, which takes seconds
        if isinstance(buffer.data, list):
            buffer.data = np.array(buffer.data, dtype=np.uint8)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))
