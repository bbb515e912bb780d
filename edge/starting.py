"""From the command line's options to a running inspector."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from edge.assembly import LOST, Show, run
from edge.configuration import Configuration
from edge.errors import NucleusError, SettingsError
from edge.logs import set_up_logs
from edge.printing import Printer
from edge.redaction import redact
from edge.results import Result, dump_result
from edge.settings import DEFAULT_STATE, read_file, set_value
from edge.summary import verdict_line
from edge.transports.opening import parse_sink

if TYPE_CHECKING:
    from edge.transports.nucleus import Nucleus

_DRAIN_S = 5.0  # for the last lines, when somebody reads them
_FLAGS = {
    "source": "source.uri",
    "cert": "mqtt.certificate",
    "key": "mqtt.key",
    "ca": "mqtt.ca",
    "challenger": "challenger",
    "thing": "thing",
    "line": "line",
    "state": "state",
    "upload": "upload.to",
    "threads": "threads",
    "workers": "workers",
    "deadline_ms": "deadline_ms",
    "log_level": "log_level",
}


def inspect(options: argparse.Namespace) -> int:
    """Inspect as the command line says; returns the exit status.

    Raises:
        EdgeError: the settings have faults, or something cannot be opened as they say.
        OSError: the state folder cannot be used.
    """
    shown = options.json or ((sys.stdout.isatty() or options.once) and not options.quiet)
    printer, errors = Printer(sys.stdout, warn=shown), Printer(sys.stderr, warn=False)
    set_up_logs("warning", errors)
    stopping = _stop_on_signals()
    try:
        configuration, nucleus = _configure(options, stopping)
        if configuration is None:
            return 0
        if not shown:  # else stdout is for verdicts
            set_up_logs(configuration.settings.log_level, printer)
        done = run(configuration, stopping, _show(options.json, printer) if shown else None, nucleus)
        if shown and not options.quiet:
            (errors if options.json else printer).write(redact(f"{done.summary}\n"))
        return done.status
    except NucleusError as error:
        errors.write(redact(f"edge: {error}\n"))
        return LOST
    finally:
        printer.drain(_DRAIN_S)
        errors.drain(_DRAIN_S)


def _configure(options: argparse.Namespace, stopping: threading.Event) -> tuple[Configuration | None, Nucleus | None]:
    """The settings of flags, file and nucleus, and the connection to the nucleus if there is to be one.

    Returns:
        None for the settings when told to stop before the nucleus had any without faults.
    """
    flags: dict[str, Any] = {}
    sink = None
    if options.sink is not None:
        sink, values = parse_sink(options.sink)
        flags["sink"] = sink
        for name, value in values.items():
            set_value(flags, f"{sink}.{name}", value)
    for flag, name in _FLAGS.items():
        if getattr(options, flag) is not None:
            set_value(flags, name, getattr(options, flag))
    if options.model is not None:
        flags["model"] = str(options.model)
    if options.once:
        set_value(flags, "source.folder.once", True)
    for name, value in options.set:
        set_value(flags, name, value)
    if sink is None and options.config is not None:
        sink = read_file(options.config).get("sink")
    if sink != "greengrass":
        return Configuration(flags, options.config), None
    from edge.transports.nucleus import Nucleus

    if "thing" not in flags and os.environ.get("AWS_IOT_THING_NAME"):
        flags["thing"] = os.environ["AWS_IOT_THING_NAME"]  # that the nucleus gives to its components
    nucleus = Nucleus.connect()
    return _await_configuration(nucleus, flags, options.config, stopping), nucleus


def _await_configuration(
    nucleus: Nucleus, flags: dict[str, Any], file: Path | None, stopping: threading.Event
) -> Configuration | None:
    """The settings once the nucleus has a configuration without faults; to exit would only have it try thrice.

    Raises:
        NucleusError: the nucleus is gone.
    """
    known = nucleus.read_configuration()
    offered: SimpleQueue[dict[str, Any]] = SimpleQueue()
    listeners: list[Callable[[dict[str, Any]], None]] = [offered.put]
    nucleus.on_configuration_change(lambda document: listeners[0](document), known)
    memory = Path(flags.get("state", DEFAULT_STATE)) / "nucleus.json"
    while True:
        try:
            configuration = Configuration(flags, file, known, memory)
            break
        except SettingsError as error:
            logging.getLogger(__name__).error("event=waiting_for_configuration reason=%r", str(error))
        while offered.empty():
            if nucleus.lost:
                raise NucleusError(nucleus.lost)
            if stopping.wait(0.2):
                return None
        known = offered.get()
    listeners[0] = configuration.offer
    while not offered.empty():
        configuration.offer(offered.get())
    return configuration


def _stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set; a second SIGINT ends the program at once."""
    stopping = threading.Event()

    def stop(number: int, frame: object) -> None:
        stopping.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
    return stopping


def _show(as_json: bool, printer: Printer) -> Show:
    """Prints results; when whoever reads them is gone or does not read, inspection goes on."""
    colour = sys.stdout.isatty()

    def show(result: Result, name: str) -> None:
        printer.write((dump_result(result) if as_json else verdict_line(result, name, colour)) + "\n")

    return show
