"""Full int8 quantisation of a float TFLite file: 8-bit weights by channel, 8-bit activations, calibrated ranges.

Two things the quantiser does not do by itself are done here. Ranges are the smallest and largest value seen, since
its default (a moving average) forgets the extremes and costs points of accuracy. And channels with almost no weight
but a bias, which pruning batch norms leave behind, are lifted: their bias counts in units of (input scale x weight
scale), so with a tiny weight scale it leaves the 32-bit range and comes back with the wrong sign.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from inspection.errors import ConversionError

SIGNATURE = "serving_default"
BATCH = 16  # calibration images held as floats at once
BIAS_LIMIT = 2**29  # a quantised bias beyond this leaves too little of 32 bits for the sum of products
WEIGHT_LEVELS = 127
INPUT_SCALE, INPUT_ZERO_POINT = 1.0, -128
# Builtin operators with an int8 weight (input 1) and an int32 bias (input 2), and the weight's axis of channels.
WEIGHT_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}

Ranges = dict[str, dict[str, np.ndarray]]


def quantise(source: Path, pixels: np.ndarray, target: Path, threads: int) -> int:
    """Quantise a float model.

    Args:
        source: float32 .tflite, one input [1, H, W, 3] with values 0..255.
        pixels: uint8 [N, H, W, 3] that show the ranges to expect.
        target: receives the int8 .tflite, whose input has scale 1 and zero point -128.
        threads: for the calibration runs.

    Returns:
        How many channels were lifted.

    Raises:
        ConversionError: the quantiser left another input or a float output.
    """
    from ai_edge_litert.tools import flatbuffer_utils
    from ai_edge_quantizer import quantizer, recipe

    ranges = _calibrate(source, pixels, threads)
    model = flatbuffer_utils.read_model_with_mutable_tensors(str(source))
    _set_input_range(model, ranges)
    lifted = lift_dead_channels(model, ranges)
    # The quantiser maps ranges to tensors by name, and lifting changes no name.
    engine = quantizer.Quantizer(flatbuffer_utils.convert_object_to_bytearray(model), recipe.static_wi8_ai8())
    result = engine.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    result.export_model(str(target))
    _check(target)
    return lifted


def _calibrate(source: Path, pixels: np.ndarray, threads: int) -> Ranges:
    """Smallest and largest value of every tensor over all images."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import calibrator, quantizer, recipe
    from ai_edge_quantizer.utils import qsv_utils

    engine = quantizer.Quantizer(str(source), recipe.static_wi8_ai8())
    runner = calibrator.Calibrator(
        str(source),
        num_threads=threads,
        mode=calibrator.CalibrationMode.CALIBRATION_PROFILER_BASED,
        qsv_update_func=qsv_utils.min_max_update,
    )
    (name,) = Interpreter(str(source)).get_signature_list()[SIGNATURE]["inputs"]
    for start in range(0, len(pixels), BATCH):  # the calibrator copies all the data that it is given at once
        images = [{name: image[None].astype(np.float32)} for image in pixels[start : start + BATCH]]
        # `Quantizer.calibrate` cannot be told the update rule, hence the private attribute; its version is pinned.
        runner.calibrate({SIGNATURE: images}, engine._recipe_manager)
    ranges: Ranges = runner.get_model_qsvs()
    return ranges


def _set_input_range(model: Any, ranges: Ranges) -> None:
    """Make the input's range 0..255 whatever the images held: then one step is one grey level, exactly."""
    graph = model.subgraphs[0]
    if len(graph.inputs) != 1:
        raise ConversionError(f"float model: want one input, found {len(graph.inputs)}")
    name = _name(graph.tensors[graph.inputs[0]])
    shape = ranges[name]["min"].shape
    ranges[name] = {"min": np.full(shape, 0.0), "max": np.full(shape, 255.0)}


def lift_dead_channels(model: Any, ranges: Mapping[str, Mapping[str, np.ndarray]]) -> int:
    """Give channels with (almost) no weight one small weight, so that their bias fits its 32 bits.

    The weight is chosen so that the quantised bias is `BIAS_LIMIT`; times any input it is at most
    255 * 127 / 2**29 = 0.006 % of the bias, so the float function stays what it was.

    Args:
        model: a mutable flatbuffer object of a float model; changed in place.
        ranges: smallest and largest value of tensors by name.

    Returns:
        How many channels were changed.
    """
    lifted = 0
    graph = model.subgraphs[0]
    for operator, axis in _weighted_operators(model, graph):
        source, weight, bias = (graph.tensors[index] for index in operator.inputs[:3])
        low, high = (float(np.ravel(ranges[_name(source)][end])[0]) for end in ("min", "max"))
        input_scale = max(max(high, 0.0) - min(low, 0.0), 1e-9) / 255
        values = _values(model, weight).reshape(weight.shape).copy()
        by_channel = np.moveaxis(values, axis, 0).reshape(weight.shape[axis], -1).copy()
        weight_scale = np.maximum(np.abs(by_channel).max(axis=1) / WEIGHT_LEVELS, 1e-30)
        needed = np.abs(_values(model, bias).astype(np.float64)) / input_scale / BIAS_LIMIT
        dead = np.flatnonzero(weight_scale < needed)
        if dead.size == 0:
            continue
        by_channel[dead, 0] = needed[dead] * WEIGHT_LEVELS
        shape = [weight.shape[axis], *(size for index, size in enumerate(weight.shape) if index != axis)]
        changed = np.moveaxis(by_channel.reshape(shape), 0, axis)
        model.buffers[weight.buffer].data = np.frombuffer(np.ascontiguousarray(changed).tobytes(), dtype=np.uint8)
        lifted += int(dead.size)
    return lifted


def _weighted_operators(model: Any, graph: Any) -> Iterator[tuple[Any, int]]:
    """Operators with float weights and a bias, and the axis of their channels."""
    from ai_edge_litert.tools import flatbuffer_utils

    for operator in graph.operators:
        name = flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex)
        constant = len(operator.inputs) > 2 and all(
            index >= 0 and model.buffers[graph.tensors[index].buffer].data is not None for index in operator.inputs[1:3]
        )
        if name in WEIGHT_AXIS and constant:
            yield operator, WEIGHT_AXIS[name]


def _values(model: Any, tensor: Any) -> np.ndarray:
    return np.frombuffer(bytes(model.buffers[tensor.buffer].data), dtype=np.float32)


def _name(tensor: Any) -> str:
    name: bytes | str = tensor.name
    return name.decode() if isinstance(name, bytes) else name


def _check(path: Path) -> None:
    """Make sure that the file is what the device feeds."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    (given,) = interpreter.get_input_details()
    if given["dtype"] != np.int8 or given["quantization"] != (INPUT_SCALE, INPUT_ZERO_POINT):
        raise ConversionError(
            f"int8 model: want an int8 input with scale 1 and zero point -128, found {given['dtype'].__name__} "
            f"{given['quantization']}"
        )
    for output in interpreter.get_output_details():
        if output["dtype"] != np.int8:
            raise ConversionError(f"int8 model: want int8 outputs, found {output['name']} {output['dtype'].__name__}")
