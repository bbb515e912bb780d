"""Models as files: tensors and how to rebuild the graph, read without running any code from the file."""

import dataclasses
import io
import json
import os
import pickle
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from inspection.errors import TrainingError
from inspection.model.classifier import Averaged, Classifier, Design, Scorer

SCHEMA = "2.0"  # 2: the picture is padded with grey before the first convolution


def save_model(model: Scorer, path: Path) -> None:
    """Write a model in one file; an old file of that name is replaced at once or not at all."""
    members = list(model.members) if isinstance(model, Averaged) else [model]
    designs = [dataclasses.asdict(member.design) for member in members if isinstance(member, Classifier)]
    description = {"schema": SCHEMA, "averaged": isinstance(model, Averaged), "designs": designs}
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    write_state(path, {"description": json.dumps(description, sort_keys=True), "state": state})


def load_model(path: Path) -> Scorer:
    """Read a model written by `save_model`; on the CPU, in eval mode.

    Raises:
        TrainingError: the file is missing, is not a model, is of another major schema, or was cut short.
    """
    content = read_state(path, "model")
    try:
        description = json.loads(content["description"])
        major = str(description["schema"]).split(".")[0]
        if major != SCHEMA.split(".")[0]:
            raise TrainingError(
                f"{path}: want a model of schema {SCHEMA}, found {description['schema']}; read it with the version of "
                "this library that wrote it"
            )
        members = [Classifier(_design(fields)) for fields in description["designs"]]
        model: Scorer = Averaged(members) if description["averaged"] else members[0]
        model.load_state_dict(content["state"])
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise TrainingError(
            f"{path}: want a model written by save_model, found one that cannot be rebuilt ({error}); train again"
        ) from error
    return model.eval().to(memory_format=torch.channels_last)  # as in training: the same digits


def write_state(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors and plain values atomically: temporary file, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_state(path: Path, what: str) -> Mapping[str, Any]:
    """Read what `write_state` wrote.

    Raises:
        TrainingError: the file is missing, was cut short or is something else.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TrainingError(f"{path}: cannot read the {what} ({error.strerror or error})") from error
    return decode_state(data, what, str(path))


def decode_state(data: bytes, what: str, where: str) -> Mapping[str, Any]:
    """Read the bytes that `write_state` wrote.

    Raises:
        TrainingError: they were cut short or are something else.
    """
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise TrainingError(
            f"{where}: want a {what}, found a file that is cut short or something else "
            f"({type(error).__name__}); delete it and train again"
        ) from error
    if not isinstance(content, Mapping):
        raise TrainingError(f"{where}: want a {what}, found {type(content).__name__}; delete it and train again")
    return content


def _design(fields: dict[str, Any]) -> Design:
    """A design from its JSON form: lists become tuples."""
    height, width = fields["input_size"]
    return Design(
        fields["backbone"],
        tuple(fields["taps"]),
        pools=tuple(fields["pools"]),
        defect_types=tuple(fields["defect_types"]),
        place_taps=tuple(fields["place_taps"]),
        input_size=(height, width),
    )
