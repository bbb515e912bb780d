"""`lineside loop`: the whole way once, on this machine: train, approve, deploy, inspect, look at the fleet."""

import getpass
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from inspection.commands.fleet import SAMPLE, ConfigOption, open_line, status
from inspection.commands.output import make_console, print_line
from inspection.errors import RolloutError
from inspection.fleet.local import devices
from inspection.fleet.opening import open_fleet
from inspection.fleet.overview import look_over
from inspection.registry.opening import open_registry
from inspection.settings import REPOSITORY, Settings
from inspection.storage import open_storage

PARTS = 20  # that each device inspects before the fleet is shown
PATIENCE_S = 120.0  # for these parts
REASON = "the first model of this line, approved by `lineside loop`"

KeepOption = Annotated[bool, typer.Option("--keep", help="Leave the devices running at the end.")]


def loop(config: ConfigOption = SAMPLE, keep: KeepOption = False) -> None:
    """Train a model if there is none, approve it, deploy it to the devices on this machine, inspect, show the fleet.

    What was done before is not done again: a second run deploys nothing new.
    """
    settings = open_line(config)
    if settings.fleet.backend != "local":
        raise RolloutError(
            f'{config}: want [fleet] backend = "local", found {settings.fleet.backend!r}; train and deploy this line '
            "with its flows"
        )
    console = make_console()
    try:
        _train(console, settings, config)
        _approve(console, settings)
        _say(console, 3, "deploy it to the devices, in stages")
        _run_flow("deploy_flow.py", config)
        _say(console, 4, "the devices inspect parts")
        _wait_for_parts(settings)
        _say(console, 5, "how the fleet does")
        status(config)
    finally:
        if not keep:
            devices.stop(settings)
            print_line(console, f"\nThe devices are stopped; what they have stays in {settings.local_fleet_folder}.")
            print_line(console, "next: lineside fleet start", style="cyan")


def _train(console: Console, settings: Settings, config: Path) -> None:
    versions = open_registry(settings).list(settings.line.name)
    if versions:
        known = ", ".join(f"{one.version} {one.status}" for one in versions[-5:])
        _say(console, 1, f"no training: line {settings.line.name} has models already ({known})")
        return
    _say(console, 1, "train a model")
    _run_flow("train_flow.py", config)


def _approve(console: Console, settings: Settings) -> None:
    """Approve the newest pending version, unless one is approved: a decision that was made is not made again here."""
    registry, line = open_registry(settings), settings.line.name
    approved, pending = registry.latest(line), registry.latest(line, "pending")
    if approved is not None:
        _say(console, 2, f"no decision to make: version {approved.version} is approved")
    elif pending is not None:
        _say(console, 2, f"approve version {pending.version}")
        registry.approve(line, pending.version, getpass.getuser(), REASON)
    else:
        _say(console, 2, "no version is approved or waits for a decision; see `lineside registry list`")


def _run_flow(name: str, config: Path) -> None:
    """Run a flow as a person would; its words go where ours go."""
    command = [sys.executable, str(REPOSITORY / "flows" / name), "--config", "line", str(config.resolve()), "run"]
    done = subprocess.run(command, cwd=REPOSITORY, env=os.environ, check=False)
    if done.returncode:
        raise RolloutError(f"{name} ended with status {done.returncode}; its last words above say why")


def _wait_for_parts(settings: Settings) -> None:
    """Wait until every device has inspected some parts with the model that serves."""
    fleet, storage = open_fleet(settings), open_storage(settings.storage_root)
    before = {one.thing: one.parts for one in look_over(fleet, storage, settings)}
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        found = look_over(fleet, storage, settings)
        if all(one.parts >= before[one.thing] + PARTS for one in found):
            return
        time.sleep(1.0)


def _say(console: Console, number: int, what: str) -> None:
    print_line(console, f"\n[{number} of 5] {what}", style="bold")
