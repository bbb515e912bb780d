"""Opens the registry that a command was pointed at: by a line's settings, or by the storage alone."""

from pathlib import Path
from typing import Annotated

import typer

from inspection.commands.output import check_there, open_root
from inspection.registry.interface import Registry
from inspection.registry.local import LocalRegistry
from inspection.registry.opening import open_registry
from inspection.settings import REPOSITORY, load_settings, override_settings

FLOWS = REPOSITORY / "flows"

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings of the line, such as lines/bottles.toml: its storage and its registry. --storage beats its own.",
        show_default=False,
    ),
]


def open_models(storage: str, config: Path | None) -> Registry:
    """The registry that a command was pointed at.

    Args:
        storage: the flag `--storage`.
        config: the flag `--config`, also looked for in `flows/`; None = the registry is objects in the storage.

    Raises:
        SettingsError: the file is missing or wrong.
        StorageError: the storage is a folder that is not there: reading must not make it.
    """
    if config is None:
        return LocalRegistry(open_root(storage))
    given = config.expanduser()
    settings = load_settings(FLOWS / given if not given.exists() and (FLOWS / given).is_file() else given)
    if storage:
        settings = override_settings(settings, storage=storage, where="--storage")
    if settings.line.storage:
        check_there(settings.storage_root, f"--storage {storage}" if storage else f"{config}: [line] storage")
    return open_registry(settings)
