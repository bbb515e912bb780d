"""Full int8 quantisation of a float TFLite file: 8-bit weights by channel, 8-bit activations, calibrated ranges.

Some things that the quantiser does not do by itself are done here. The subtraction of one grey level that our models
begin with becomes the zero point of the input: so the pixels, which have 8 bits, are neither rounded again nor touched
at all. Ranges are the smallest and largest value seen, since its default (a moving average) forgets the extremes and
costs points of accuracy. Channels with almost no weight but a bias, which pruning batch norms leave behind, are
lifted: their bias counts in units of (input scale x weight scale), so with a tiny weight scale it leaves the 32-bit
range and comes back with the wrong sign. A map that is almost zero everywhere loses its upper clamp, which it never
reaches and which the older runtime cannot count in its steps. And the head is corrected for the shift of its features
(`correction`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inspection.errors import ConversionError
from inspection.export.correction import correct_head
from inspection.export.flatbuffer import constant_values, operators_with_bias, set_constant, tensor_name, to_bytes

SIGNATURE = "serving_default"
BATCH = 16  # calibration images held as floats at once
BIAS_LIMIT = 2**29  # a quantised bias beyond this leaves too little of 32 bits for the sum of products
WEIGHT_LEVELS = 127
INPUT_SCALE, LEAST_ZERO_POINT = 1.0, -128  # of an input that counts grey levels from black
LEAST_RANGE = 1e-9  # of a tensor that was always the same, so that its scale is not zero
CLAMP = 6.0  # of a fused ReLU6
COUNTABLE = 2**31 - 1  # steps of an output that a clamp may lie at

Ranges = dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class Quantised:
    """What was done beside quantising."""

    lifted_channels: int
    corrected_features: int


def quantise(source: Path, pixels: np.ndarray, target: Path, threads: int) -> Quantised:
    """Quantise a float model.

    Args:
        source: float32 .tflite, one input [1, H, W, 3] with values 0..255.
        pixels: uint8 [N, H, W, 3] that show the ranges to expect.
        target: receives the int8 .tflite, whose input has scale 1: one step is one grey level.
        threads: for the runs over the pixels.

    Raises:
        ConversionError: the quantiser left another input or a float output.
    """
    from ai_edge_litert.tools import flatbuffer_utils
    from ai_edge_quantizer import quantizer, recipe

    ranges = _calibrate(source, pixels, threads)
    model = flatbuffer_utils.read_model_with_mutable_tensors(str(source))
    level = take_raw_pixels(model)
    _set_input_range(model, ranges, level)
    pad_with_least_value(model, ranges)
    lifted = lift_dead_channels(model, ranges)
    drop_unreachable_clamps(model, ranges)

    def make_int8(model: Any) -> bytes:
        # Ranges go to tensors by name, and no name has changed.
        engine = quantizer.Quantizer(bytearray(to_bytes(model)), recipe.static_wi8_ai8())
        result = engine.quantize(dict(ranges), enable_progress_bar=False, enable_progress_report=False)
        return bytes(result.quantized_model)

    corrected = correct_head(model, make_int8, pixels, threads, level)
    target.write_bytes(make_int8(model))
    _check(target, level)
    return Quantised(lifted, corrected)


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


def take_raw_pixels(model: Any) -> int:
    """Remove the subtraction of one grey level that a model begins with, since the input's zero point can do it.

    Args:
        model: a mutable flatbuffer object of a float model; changed in place. It then takes pixels less that level.

    Returns:
        The level, 0..255; 0 when the model begins with something else, and is left as it was.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    graph = model.subgraphs[0]
    (given,) = graph.inputs
    readers = [operator for operator in graph.operators if given in operator.inputs]
    levels = {
        subtracted_level(model, operator, given)
        if flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex) == "SUB"
        else None
        for operator in readers
    }
    level = levels.pop() if len(levels) == 1 else None
    if level is None:
        return 0
    shifted = {operator.outputs[0] for operator in readers}
    graph.operators = [operator for operator in graph.operators if operator not in readers]
    for operator in graph.operators:
        operator.inputs = [given if index in shifted else index for index in operator.inputs]
    return level


def subtracted_level(model: Any, operator: Any, given: int) -> int | None:
    """The one whole grey level that a SUB takes from tensor `given`; None when it does something else."""
    tensor = model.subgraphs[0].tensors[operator.inputs[1]]
    if operator.inputs[0] != given or model.buffers[tensor.buffer].data is None:
        return None
    values = np.unique(constant_values(model, tensor))
    whole = len(values) == 1 and 0 <= values[0] <= 255 and float(values[0]).is_integer()
    return int(values[0]) if whole else None


def _set_input_range(model: Any, ranges: Ranges, level: int) -> None:
    """Make the input's range that of 0..255 less the level, whatever the images held: one step is one grey level."""
    graph = model.subgraphs[0]
    name = tensor_name(graph.tensors[graph.inputs[0]])
    shape = ranges[name]["min"].shape
    ranges[name] = {"min": np.full(shape, 0.0 - level), "max": np.full(shape, 255.0 - level)}


def pad_with_least_value(model: Any, ranges: Ranges) -> int:
    """Let a padded max-pooling pad with the smallest value there is instead of minus infinity.

    In int8 that is the same; left as it is, minus infinity becomes a scale that ends the runtime's process.

    Args:
        model: a mutable flatbuffer object of a float model; changed in place.
        ranges: smallest and largest value of tensors by name; those of the padded map are changed too.

    Returns:
        How many paddings were changed.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    changed = 0
    graph = model.subgraphs[0]
    for operator in graph.operators:
        if flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex) == "PADV2":
            source, value = graph.tensors[operator.inputs[0]], graph.tensors[operator.inputs[2]]
            least = ranges[tensor_name(source)]["min"].min()
            if constant_values(model, value).min() < least:
                set_constant(model, value, np.full(constant_values(model, value).shape, least))
                for tensor in (value, graph.tensors[operator.outputs[0]]):
                    ranges[tensor_name(tensor)] = dict(ranges[tensor_name(source)])
                changed += 1
    return changed


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
    for operator, axis in operators_with_bias(model):
        source, weight, bias = (graph.tensors[index] for index in operator.inputs[:3])
        low, high = (float(np.ravel(ranges[tensor_name(source)][end])[0]) for end in ("min", "max"))
        input_scale = max(max(high, 0.0) - min(low, 0.0), LEAST_RANGE) / 255
        by_channel = np.moveaxis(constant_values(model, weight), axis, 0).copy()  # [channels, ...]
        flat = by_channel.reshape(len(by_channel), -1)
        weight_scale = np.abs(flat).max(axis=1) / WEIGHT_LEVELS
        needed = np.abs(constant_values(model, bias).astype(np.float64)).ravel() / input_scale / BIAS_LIMIT
        dead = np.flatnonzero(weight_scale < needed)
        if dead.size:
            flat[dead, 0] = needed[dead] * WEIGHT_LEVELS
            set_constant(model, weight, np.moveaxis(flat.reshape(by_channel.shape), 0, axis))
            lifted += int(dead.size)
    return lifted


def drop_unreachable_clamps(model: Any, ranges: Mapping[str, Mapping[str, np.ndarray]]) -> int:
    """Make a fused ReLU6 a ReLU where its 6 lies too many steps of the output away to be counted in 32 bits.

    Such an output's largest 8-bit value is a ten-millionth of the clamp, so both are the same; but tflite-runtime
    refuses the model ("no_integer_overflow_from_quantization was not true"). It takes a map that is zero everywhere,
    or random weights whose signal dies out layer by layer.

    Source: Quantize() and CalculateActivationRangeQuantizedImpl() in tensorflow/lite/kernels/kernel_util.cc, 2.14.

    Args:
        model: a mutable flatbuffer object of a float model; changed in place.
        ranges: smallest and largest value of tensors by name.

    Returns:
        How many operators were changed.
    """
    from ai_edge_litert import schema_py_generated as schema

    activations = schema.ActivationFunctionType
    graph = model.subgraphs[0]
    dropped = 0
    for operator in graph.operators:
        options = operator.builtinOptions
        if getattr(options, "fusedActivationFunction", activations.NONE) != activations.RELU6:
            continue
        found = ranges[tensor_name(graph.tensors[operator.outputs[0]])]
        step = (max(float(found["max"].max()), 0.0) - min(float(found["min"].min()), 0.0)) / 255
        if step * COUNTABLE <= 2 * CLAMP:  # twice, since the quantiser rounds the step
            options.fusedActivationFunction = activations.RELU
            dropped += 1
    return dropped


def _check(path: Path, level: int) -> None:
    """Make sure that the file is what the device feeds."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    (given,) = interpreter.get_input_details()
    want = (INPUT_SCALE, LEAST_ZERO_POINT + level)
    if given["dtype"] != np.int8 or given["quantization"] != want:
        raise ConversionError(
            f"int8 model: want an int8 input with scale and zero point {want}, found {given['dtype'].__name__} "
            f"{given['quantization']}"
        )
    for output in interpreter.get_output_details():
        if output["dtype"] != np.int8:
            raise ConversionError(f"int8 model: want int8 outputs, found {output['name']} {output['dtype'].__name__}")
