"""Runs a model file: 8-bit pixels in, the defect score out."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edge.contract import InputContract
from edge.errors import ContractError
from edge.runtime import load_interpreter

_SIGNATURE = "serving_default"


@dataclass(frozen=True)
class Detection:
    """What a model says of one picture."""

    score: float  # logit of "defective"
    type_logits: np.ndarray | None  # float32, shape (T,); None when the model tells no types


class Detector:
    """A TFLite model, opened and checked; one thread at a time may use it.

    An int8 model takes scale 1, so that the pixels need no arithmetic but a flipped top bit; its zero point says which
    grey level counts as zero (docs/decisions/0014). A float model takes 0..255. Normalisation is inside the model.

    Attributes:
        kind: how the model calculates.
        score_step: difference of two neighbouring scores, in logits; 0.0 for a float output.
        runtime: name and version of the TFLite runtime.
    """

    kind: Literal["int8", "float32"]
    score_step: float
    runtime: str

    def __init__(
        self,
        model: Path,
        input: InputContract,
        defect_types: tuple[str, ...] = (),
        threads: int = 1,
        content: bytes | None = None,
    ) -> None:
        """Open a model and run it once.

        Args:
            model: a .tflite file.
            input: the size that the model must take.
            defect_types: names of its type outputs; () when it has none.
            threads: CPU threads for one picture.
            content: the file's content, when it was read already; the file is then not looked at.

        Raises:
            ContractError: the file is no model, the runtime cannot run it, or it does not fit the contract.
            RuntimeMissingError: no TFLite runtime is installed.
        """
        self._name = model.name
        self._shape = (1, input.height, input.width, 3)
        self._interpreter, self.runtime = open_interpreter(model, threads, content)
        (entry,) = self._expect(self._interpreter.get_input_details(), 1, "input")
        self.kind = self._check_input(entry)
        outputs = self._expect(_outputs_in_order(self._interpreter), 2 if defect_types else 1, "output")
        self._check_output(outputs[0], (1, 1), "score")
        if defect_types:
            self._check_output(outputs[1], (1, len(defect_types)), "defect types")
        self._write = self._interpreter.tensor(entry["index"])
        self._outputs = [(self._interpreter.tensor(output["index"]), *_scale(output)) for output in outputs]
        self.score_step = self._outputs[0][1] if outputs[0]["dtype"] == np.int8 else 0.0
        try:
            self.detect(np.zeros(self._shape, np.uint8))
        except RuntimeError as error:
            raise ContractError(
                f"{model}: {self.runtime} cannot run this model: {str(error).strip()}; export it again"
            ) from error

    def detect(self, pixels: np.ndarray) -> Detection:
        """Score one picture.

        Args:
            pixels: uint8, shape (1, height, width, 3), RGB, as `edge.preprocess` gives them.

        Raises:
            ContractError: the pixels are of another type or shape.
        """
        if pixels.dtype != np.uint8 or pixels.shape != self._shape:
            raise ContractError(
                f"pixels for {self._name}: want uint8 {self._shape}, found {pixels.dtype} {pixels.shape}"
            )
        # Straight into the model's memory. No name may hold that view while the model runs.
        if self.kind == "int8":
            np.bitwise_xor(pixels, np.uint8(0x80), out=self._write().view(np.uint8))
        else:
            np.copyto(self._write(), pixels)
        self._interpreter.invoke()
        values = [(read().astype(np.float32)[0] - zero_point) * scale for read, scale, zero_point in self._outputs]
        return Detection(float(values[0][0]), values[1].astype(np.float32) if len(values) > 1 else None)

    def _expect(self, details: list[dict[str, Any]], count: int, what: str) -> list[dict[str, Any]]:
        if len(details) != count:
            raise ContractError(f"{self._name}: want {count} {what}(s), found {len(details)}; export the model again")
        return details

    def _check_input(self, entry: dict[str, Any]) -> Literal["int8", "float32"]:
        """The model's kind, by its input."""
        shape = tuple(int(size) for size in entry["shape"])
        if shape != self._shape:
            raise ContractError(f"{self._name}: want an input of shape {self._shape}, found {shape}")
        if entry["dtype"] == np.float32:
            return "float32"
        if entry["dtype"] != np.int8:
            raise ContractError(f"{self._name}: want an int8 or float32 input, found {np.dtype(entry['dtype'])}")
        scale, zero_point = entry["quantization"]
        if not math.isclose(scale, 1.0, abs_tol=1e-6):
            raise ContractError(
                f"{self._name}: want an int8 input with scale 1, found scale {scale} and zero point {zero_point}; set "
                "the input's range to 0..255, less the grey level that counts as zero, when quantising"
            )
        return "int8"

    def _check_output(self, output: dict[str, Any], want: tuple[int, ...], what: str) -> None:
        shape = tuple(int(size) for size in output["shape"])
        if shape != want or output["dtype"] not in (np.int8, np.float32):
            raise ContractError(
                f"{self._name}: want the output for {what} as int8 or float32 of shape {want}, "
                f"found {np.dtype(output['dtype'])} {shape}"
            )


def open_interpreter(model: Path, threads: int, content: bytes | None = None) -> tuple[Any, str]:
    """An interpreter with its memory allocated, and the runtime's name and version.

    Args:
        model: a .tflite file.
        threads: CPU threads for one picture.
        content: the file's content, when it was read already; the file is then not looked at.

    Raises:
        ContractError: the file is no TFLite model, or the runtime does not know its operators.
        RuntimeMissingError: no TFLite runtime is installed.
    """
    if content is None and not model.is_file():
        raise ContractError(f"{model}: no such model file")
    interpreter_class, runtime = load_interpreter()
    source: dict[str, Any] = {"model_path": str(model)} if content is None else {"model_content": content}
    try:
        interpreter = interpreter_class(**source, num_threads=threads)
        _check_scales(interpreter, model)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ContractError(
            f"{model}: {runtime} cannot open this model: {str(error).strip()}; export it again"
        ) from error
    return interpreter, runtime


def _check_scales(interpreter: Any, model: Path) -> None:
    """Refuse a model that would end this process: runtimes crash on a quantisation scale that is not a number."""
    for tensor in interpreter.get_tensor_details():
        if not np.isfinite(tensor["quantization_parameters"]["scales"]).all():
            raise ContractError(
                f"{model}: the quantisation scale of {tensor['name']!r} is not finite, which crashes the runtime; "
                "keep infinities out of the model (a padded max pooling has them) and quantise again"
            )


def read_sizes(model: Path) -> tuple[InputContract, tuple[str, ...]]:
    """An input contract and made-up defect type names that fit a model file which came without a contract.

    Raises:
        ContractError: the file is no model of ours.
    """
    interpreter, _ = open_interpreter(model, 1)
    shape = [int(size) for size in interpreter.get_input_details()[0]["shape"]]
    if len(shape) != 4:
        raise ContractError(f"{model}: want an input of shape (1, height, width, 3), found {tuple(shape)}")
    outputs = _outputs_in_order(interpreter)
    types = int(outputs[1]["shape"][-1]) if len(outputs) > 1 else 0
    return InputContract(width=shape[2], height=shape[1]), tuple(f"type {index}" for index in range(types))


def _outputs_in_order(interpreter: Any) -> list[dict[str, Any]]:
    """Details of output_0, output_1, ... by the signature's names; in the file's order when there is no signature."""
    if _SIGNATURE not in interpreter.get_signature_list():
        return list(interpreter.get_output_details())
    named = interpreter.get_signature_runner(_SIGNATURE).get_output_details()
    return [named[name] for name in sorted(named)]


def _scale(output: dict[str, Any]) -> tuple[float, int]:
    """Scale and zero point of an output; 1 and 0 for a float one."""
    if output["dtype"] == np.float32:
        return 1.0, 0
    scale, zero_point = output["quantization"]
    return float(scale), int(zero_point)
