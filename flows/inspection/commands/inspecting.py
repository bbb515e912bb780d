"""`lineside inspect`: the device's program on this machine, with the newest approved model of a line.

It is the same program that a device runs, in the device's own environment; what is added here is to fetch the model
and, for the built-in sample line, to make parts that no training has seen and to count what the verdicts were worth.
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from inspection.commands.opening import ConfigOption, open_models
from inspection.commands.output import (
    DEFAULT_STORAGE,
    StorageOption,
    make_console,
    print_line,
    print_next,
)
from inspection.errors import RegistryError
from inspection.export.device import device_interpreter
from inspection.registry.choosing import choose_version
from inspection.registry.interface import ModelVersion, Registry
from inspection.settings import REPOSITORY, ExportSettings

SAMPLE = "sample"
VERDICTS = ("pass", "review", "fail", "error", "none")  # "none": no result in the file
PARTS = 60  # of the sample line, good and bad together

SourceOption = Annotated[
    str,
    typer.Option(
        "--source",
        help="Where parts come from, as the device's program takes it: folder:PATH, v4l2:/dev/video0, … "
        "The sample line without: freshly made parts.",
        show_default=False,
    ),
]
SinkOption = Annotated[
    str,
    typer.Option("--sink", help="Where results go: file:PATH, mqtt:HOST:PORT. Default: a file.", show_default=False),
]
OnceOption = Annotated[bool, typer.Option("--once", help="End when the source's folder holds no more files.")]
VersionOption = Annotated[
    int, typer.Option("--version", min=0, help="Of the model; 0: the newest approved one.", show_default=False)
]
SeedOption = Annotated[
    int, typer.Option("--seed", min=-1, help="Of the sample line's new parts; -1: another one each time.")
]


def inspect(
    line: Annotated[str, typer.Argument(metavar="[LINE]", help="Name of the line.")] = SAMPLE,
    source: SourceOption = "",
    sink: SinkOption = "",
    once: OnceOption = False,
    version: VersionOption = 0,
    seed: SeedOption = -1,
    storage: StorageOption = "",
    config: ConfigOption = None,
) -> None:
    """Inspect parts on this machine with a line's newest approved model: verdicts stream by, then a summary."""
    console = make_console()
    registry = open_models(storage, config)
    chosen = choose_version(registry, line, str(version or ""))
    root = registry.storage.root
    place = (DEFAULT_STORAGE if root.startswith("s3://") else Path(root)) / "inspect" / line
    package = fetch_once(registry, chosen, place / "models")
    if not source and line != SAMPLE:
        raise RegistryError(
            f"line {line}: want --source, such as --source folder:PATH, found none; see python -m edge -h"
        )
    print_line(console, f"line {line}, model version {chosen.version} ({chosen.status})", style="bold")
    with tempfile.TemporaryDirectory(prefix="lineside-parts-") as scratch:
        truth: dict[str, bool] = {}
        if not source:
            seed = secrets.randbelow(10**6) + 1000 if seed < 0 else seed
            truth = make_parts(Path(scratch) / "parts", PARTS, seed)
            bad = sum(truth.values())
            print_line(console, f"{len(truth)} new parts of the sample line, {bad} of them bad (--seed {seed})")
            source = f"folder:{Path(scratch) / 'parts'}"
            sink = sink or f"file:{place / f'results-{seed}.jsonl'}"
        arguments = ["--model", str(package), "--source", source, "--line", line, "--state", str(place / "state")]
        arguments += ["--sink", sink] if sink else []
        arguments += ["--once"] if truth or once else []
        status = run_inspector([*arguments, "--thing", socket.gethostname(), "--log-level", "warning"])
        if truth and sink.startswith("file:"):
            for text in describe_worth(Path(sink.removeprefix("file:")), truth):
                print_line(console, text)
    print_next(console, storage, f"registry show {line} {chosen.version}", config=config)
    raise typer.Exit(status)


def fetch_once(registry: Registry, version: ModelVersion, folder: Path) -> Path:
    """The version's package in a folder of its own; the device's program verifies it each time it opens it."""
    target = folder / f"{version.version:06d}-{version.archive_sha256[:12]}"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        registry.fetch(version.line, version.version, target)
    return target


def make_parts(folder: Path, count: int, seed: int) -> dict[str, bool]:
    """New pictures of the sample line in one folder, without a word on what they are.

    Returns:
        file name to whether the part is bad.
    """
    from inspection.sample import make_sample

    made = make_sample(folder.parent / "made", count, seed)
    folder.mkdir()
    truth = {}
    pictures = sorted(path for path in made.glob("*/*.jpg"))
    for number, picture in enumerate(sorted(pictures, key=lambda path: path.stem)):
        name = f"part-{number:04d}.jpg"
        shutil.move(picture, folder / name)
        truth[name] = picture.parent.name != "good"
    return truth


def run_inspector(arguments: list[str]) -> int:
    """Run the device's program in the device's environment; its exit status."""
    python, _ = device_interpreter(ExportSettings())
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen([str(python), "-m", "edge", *arguments], env=environment)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the terminal told the inspector too: it finishes the part in hand
            continue


def describe_worth(results: Path, truth: dict[str, bool]) -> list[str]:
    """What the verdicts were worth, since the sample's parts are known."""
    verdicts: dict[str, str] = {}
    for text in results.read_text(encoding="utf-8").splitlines():
        record = json.loads(text)
        for result in record["payload"] if isinstance(record.get("payload"), list) else [record.get("payload", record)]:
            name = str(result.get("source_key", ""))
            verdicts |= {part: result["verdict"] for part in truth if part in name and "verdict" in result}
    lines = []
    for bad, name in ((True, "bad"), (False, "good")):
        of_kind = [verdicts.get(part, "none") for part, is_bad in truth.items() if is_bad == bad]
        found = [verdict for verdict in VERDICTS if verdict in of_kind]
        counts = ", ".join(f"{of_kind.count(verdict)} {verdict}" for verdict in found)
        lines.append(f"{len(of_kind)} {name} parts: {counts}")
    return lines
