"""How training tells where it is: records of each epoch, a callback for live cards, a bar in a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """One epoch of fine-tuning."""

    epoch: int  # 1, 2, ...
    loss: float  # class-balanced logistic loss on the training part, mean over the epoch
    validation_loss: float  # the same on the inner validation part
    validation_auroc: float
    images_per_s: float  # trained on, without the validation


@dataclass(frozen=True)
class Progress:
    """Where training is, for whoever watches."""

    recipe: str
    phase: str  # "features" or "epochs"
    done: int  # images or epochs
    total: int  # at most
    curves: tuple[Epoch, ...] = ()  # all epochs so far


ProgressCallback = Callable[[Progress], None]


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """Show a bar on standard error when it is a terminal; yields advance(steps, note)."""
    if not sys.stderr.isatty():
        yield lambda steps, note: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total, note="")
        yield lambda steps, note: bar.update(task, advance=steps, note=note)
