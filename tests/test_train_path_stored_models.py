"""Models between the steps: the one that was stored, or a clear refusal."""

from pathlib import Path

import pytest

from inspection.errors import StorageError
from inspection.storage import LocalStorage
from inspection.train_path.stored_models import fetch_model, store_model


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "store")


def model(folder: Path, content: bytes) -> Path:
    path = folder / "model.tflite"
    path.write_bytes(content)
    return path


def test_a_model_comes_back_as_it_was_stored(storage: LocalStorage, tmp_path: Path) -> None:
    stored = store_model(storage, model(tmp_path, b"first"), "checkpoints/a/model-int8")
    assert fetch_model(storage, stored.key, stored.sha256, "export").read_bytes() == b"first"


def test_another_model_of_the_same_settings_replaces_none(storage: LocalStorage, tmp_path: Path) -> None:
    first = store_model(storage, model(tmp_path, b"first"), "checkpoints/a/model-int8")
    second = store_model(storage, model(tmp_path, b"second"), "checkpoints/a/model-int8")
    assert first.key != second.key
    assert fetch_model(storage, first.key, first.sha256, "export").read_bytes() == b"first"


def test_a_changed_model_is_refused_with_what_was_wanted_found_and_what_to_do(storage, tmp_path: Path) -> None:
    stored = store_model(storage, model(tmp_path, b"first"), "checkpoints/a/model")
    storage.write(stored.key, b"other")
    with pytest.raises(StorageError, match=rf"{stored.key}: want sha256 {stored.sha256}.*found .*resume train"):
        fetch_model(storage, stored.key, stored.sha256, "train")


def test_a_missing_model_is_told_with_the_step_that_makes_it(storage) -> None:
    with pytest.raises(StorageError, match=r"checkpoints/a/model-1\.pt.*found none.*resume train"):
        fetch_model(storage, "checkpoints/a/model-1.pt", "0" * 64, "train")
