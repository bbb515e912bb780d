"""Correct an int8 head for what rounding in the backbone does to the means of its features.

Rounding hundreds of layers shifts each pooled feature by a nearly constant amount, often by more than the feature
varies from picture to picture. What is constant can be taken out: the difference of means between the float and the
int8 model, over calibration pictures, goes into the bias of the operator that puts the feature out. The same once
more for the score itself.

Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction (2019), section 4.2.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from inspection.export.flatbuffer import constant_values, operators_with_bias, set_constant, tensor_name, to_bytes

IMAGES = 64  # calibration pictures that the means are taken over

Quantise = Callable[[Any], bytes]  # a mutable float model to the content of an int8 file


def correct_head(model: Any, quantise: Quantise, pixels: np.ndarray, threads: int, grey: int = 0) -> int:
    """Correct the biases of a float model's head so that its int8 form has the same means.

    Args:
        model: a mutable flatbuffer object of the float model; biases change in place. Only what is quantised from it
            uses them: the float file that ships is another.
        quantise: makes the int8 model.
        pixels: uint8 [N, H, W, 3], calibration pictures.
        threads: for running both models.
        grey: level that the float model wants subtracted from its pixels.

    Returns:
        How many features were corrected.
    """
    chosen = pixels[np.linspace(0, len(pixels) - 1, min(IMAGES, len(pixels))).astype(int)]
    levels = head_levels(model)
    names = [name for level in levels for name in level]
    wanted = measure(to_bytes(model), names, chosen, threads, grey)
    corrected = 0
    for level in levels:
        found = measure(quantise(model), list(level), chosen, threads)
        for name, bias in level.items():
            error = wanted[name].mean(axis=0) - found[name].mean(axis=0)
            set_constant(model, bias, constant_values(model, bias) + error.astype(np.float32))
            corrected += len(error)
    return corrected


def head_levels(model: Any) -> list[dict[str, Any]]:
    """Operators behind the last feature map, by how many of their kind lie before them.

    Returns:
        For each level, the name of the operator's output and its bias tensor; the last level holds the scores.
    """
    graph = model.subgraphs[0]
    biases = {operator.outputs[0]: graph.tensors[operator.inputs[2]] for operator, _ in operators_with_bias(model)}
    leads_to_map: set[int] = set()  # tensors from which a feature map is reached
    for operator in reversed(graph.operators):
        if any(_is_map(graph.tensors[index]) or index in leads_to_map for index in operator.outputs):
            leads_to_map.update(int(index) for index in operator.inputs)
    depth: dict[int, int] = {}
    levels: list[dict[str, Any]] = []
    for operator in graph.operators:
        output = int(operator.outputs[0])
        before = max((depth.get(int(index), 0) for index in operator.inputs), default=0)
        depth[output] = before
        if output in biases and output not in leads_to_map and not _is_map(graph.tensors[output]):
            depth[output] = before + 1
            if before == len(levels):
                levels.append({})
            levels[before][tensor_name(graph.tensors[output])] = biases[output]
    return levels


def measure(
    content: bytes, names: Sequence[str], pixels: np.ndarray, threads: int, grey: int = 0
) -> Mapping[str, np.ndarray]:
    """Values inside a model.

    Args:
        content: of a .tflite file, float32 or int8.
        names: of the tensors to read.
        pixels: uint8 [N, H, W, 3].
        threads: for running it.
        grey: level that a float model wants subtracted from its pixels.

    Returns:
        float64 [N, C] for each name.
    """
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    graph = model.subgraphs[0]
    index_of = {tensor_name(tensor): index for index, tensor in enumerate(graph.tensors)}
    graph.outputs = [index_of[name] for name in names]  # as outputs, since a runtime reuses the memory of all others
    model.signatureDefs = []
    interpreter = Interpreter(model_content=to_bytes(model), num_threads=threads)
    interpreter.allocate_tensors()
    (given,), outputs = interpreter.get_input_details(), interpreter.get_output_details()
    rows: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for image in pixels:
        feed = (image ^ 0x80).view(np.int8) if given["dtype"] == np.int8 else image.astype(np.float32) - grey
        interpreter.set_tensor(given["index"], feed[None])
        interpreter.invoke()
        for name, output in zip(names, outputs, strict=True):
            scale, zero_point = output["quantization"] if output["dtype"] == np.int8 else (1.0, 0)
            rows[name].append((interpreter.get_tensor(output["index"]).astype(np.float64).ravel() - zero_point) * scale)
    return {name: np.stack(values) for name, values in rows.items()}


def _is_map(tensor: Any) -> bool:
    """Whether a tensor [1, H, W, C] has more than one place."""
    return len(tensor.shape) == 4 and tensor.shape[1] * tensor.shape[2] > 1
