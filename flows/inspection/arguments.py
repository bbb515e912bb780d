"""Which line a flow runs for and who runs it, from its command line.

Metaflow resolves `--config line FILE` against the working directory. Here a file name is also found beside the
flow, so that `--config line lines/bottles.toml` means the same from everywhere.
"""

import os
from pathlib import Path

from inspection.errors import SettingsError
from inspection.settings import load_settings

METAFLOW_USERS = ("METAFLOW_USER", "SUDO_USER", "USERNAME", "USER")  # where Metaflow looks; it refuses root
SAMPLE_LINE = "lines/sample.toml"
OWN_LINE = "lines/line.toml"
FLAGS = ("--drop-bad-images", "--group-near-duplicates", "--rollback")  # Metaflow wants a value behind each
MAP, MAPS_JOINED_BY = "--map", ";"  # Metaflow takes an option once


def name_user() -> None:
    """Let root run flows, as in a container: Metaflow wants to know who ran what and refuses that name."""
    if not any(os.environ.get(variable, "root") != "root" for variable in METAFLOW_USERS):
        os.environ["USERNAME"] = "container"  # METAFLOW_USER is read too early for us


def with_line(arguments: list[str], flow_file: Path) -> list[str]:
    """Complete a flow's command line with the settings file of its line.

    Without `--config line`, the built-in sample line is meant, or, when `--data` names images of one's own, the
    defaults of `lines/line.toml`.

    Args:
        arguments: `sys.argv[1:]` of a flow.
        flow_file: the flow's file; relative names are looked up in its folder when they are not in the working
            directory.

    Returns:
        The command line to hand to Metaflow.

    Raises:
        SettingsError: the named file is in neither place.
    """
    if "resume" in arguments or any(argument.startswith("--config-value") for argument in arguments):
        return arguments  # a resumed run keeps the settings that it began with
    folder = flow_file.resolve().parent
    for index, argument in enumerate(arguments):
        if argument == "--config" and arguments[index + 1 : index + 2] == ["line"] and len(arguments) > index + 2:
            found = _find(arguments[index + 2], folder)
            return [*arguments[: index + 2], str(found), *arguments[index + 3 :]]
    own_images = any(argument == "--data" or argument.startswith("--data=") for argument in arguments)
    return ["--config", "line", str(folder / (OWN_LINE if own_images else SAMPLE_LINE)), *arguments]


def check_line(arguments: list[str]) -> None:
    """Check the settings file that a flow's command line names, while its name is known: Metaflow hands on its text.

    Args:
        arguments: as `with_line` completed them.

    Raises:
        SettingsError: the file breaks a rule; names the file and the line.
    """
    for index, argument in enumerate(arguments):
        if argument == "--config" and arguments[index + 1 : index + 2] == ["line"]:
            for name in arguments[index + 2 : index + 3]:  # Metaflow tells when none follows
                load_settings(Path(name))


def with_values(arguments: list[str]) -> list[str]:
    """Write flags the way Metaflow takes them: `--drop-bad-images` becomes `--drop-bad-images True`, and several
    `--map` become one.

    Args:
        arguments: `sys.argv[1:]` of a flow.
    """
    written: list[str] = []
    maps: list[str] = []
    rest = iter(enumerate(arguments))
    for index, argument in rest:
        name, equals, value = argument.partition("=")
        following = arguments[index + 1] if index + 1 < len(arguments) else ""
        if argument in FLAGS and following.lower() not in ("true", "false"):
            written += [argument, "True"]
        elif argument == MAP and following:
            maps.append(following)
            next(rest)
        elif name == MAP and equals:
            maps.append(value)
        else:
            written.append(argument)
    return [*written, MAP, MAPS_JOINED_BY.join(maps)] if maps else written


def _find(name: str, folder: Path) -> Path:
    given = Path(name).expanduser()
    for candidate in (given, folder / given):
        if candidate.is_file():
            return candidate.resolve()
    raise SettingsError(
        f"--config line {name}: want a settings file, found none at {given.absolute()} nor at {folder / given}; "
        f"copy {folder / OWN_LINE} and adapt it"
    )
