"""What every test gets: a name for Metaflow, no AWS account, and the folders of real images when they are there.

This file also serves the device's environments, so it imports nothing beyond pytest.
"""

import os
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole flows and real images first: what takes minutes must not begin when the other cores are done."""
    items.sort(key=lambda item: not ("flow" in item.path.name or "real" in item.path.name))


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests never reach an AWS account, and Metaflow knows a user even when that user is root."""
    monkeypatch.setenv("USERNAME", os.environ.get("USERNAME", "tester"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)


def _folder(variable: str) -> Path:
    value = os.environ.get(variable, "")
    if not value:
        pytest.skip(f"{variable} is not set: real material is not here")
    folder = Path(value)
    assert folder.is_dir(), f"{variable} names {folder}, which is not a folder"
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with `cookies/` and `aliens/`."""
    return _folder("INSPECTION_REAL_DATA")


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """State dict of an ImageNet MobileNetV2."""
    return _folder("INSPECTION_WEIGHTS") / "mobilenet_v2_from_torchvision_qnnpack_f32.pth"
