"""The live card of training: curves that grow while the step runs.

In a step: `current.card["training"].clear()`, `.extend(training_components(progress))`, `.refresh()`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from metaflow.cards import Markdown, MetaflowCardComponent, ProgressBar

from inspection.cards.style import BAD, GOOD, INK, make_axes, make_table, to_picture

if TYPE_CHECKING:
    from inspection.model.progress import Epoch, Progress

PHASES = {"features": ("images", "Reading what the backbone sees in each image"), "epochs": ("epochs", "Fine-tuning")}


def training_components(progress: "Progress") -> list[MetaflowCardComponent]:
    """Where training is, for a card that refreshes."""
    unit, what = PHASES.get(progress.phase, ("steps", progress.phase))
    components: list[MetaflowCardComponent] = [
        Markdown(
            f"# Training: recipe `{progress.recipe}`\n\n{what}: {progress.done} of at most {progress.total} {unit}"
        ),
        ProgressBar(max=max(1, progress.total), value=progress.done, label=what, unit=unit),
    ]
    return components + curve_components(progress.curves)


def trained_components(
    recipe: str,
    curves: Sequence["Epoch"],
    seconds: float,
    notes: Sequence[str],
    figures: Mapping[str, float] | None = None,
) -> list[MetaflowCardComponent]:
    """The same card when training has ended.

    Args:
        recipe: that was trained.
        curves: of fine-tuning; none for the frozen recipe.
        seconds: that training took.
        notes: what a person should know of it.
        figures: of the frozen recipe's inner cross-validation.
    """
    components: list[MetaflowCardComponent] = [Markdown(f"# Trained: recipe `{recipe}` in {seconds:.0f} s")]
    components += [Markdown(f"- {note}") for note in notes]
    if figures:
        components.append(
            make_table(["", ""], [[name.replace("_", " "), f"{value:.4g}"] for name, value in figures.items()])
        )
    return components + curve_components(curves)


def curve_components(curves: Sequence["Epoch"]) -> list[MetaflowCardComponent]:
    """Curves and the figures of the last epochs; nothing before the first epoch has ended."""
    if not curves:
        return []
    best = max(curves, key=lambda epoch: (epoch.validation_auroc, -epoch.validation_loss))
    rows = [
        [
            f"**{epoch.epoch}**" if epoch is best else str(epoch.epoch),
            f"{epoch.loss:.4f}",
            f"{epoch.validation_loss:.4f}",
            f"{epoch.validation_auroc:.4f}",
            f"{epoch.images_per_s:.1f}",
        ]
        for epoch in curves[-10:]
    ]
    return [
        to_picture(draw_curves(curves)),
        make_table(["epoch", "training loss", "validation loss", "validation AUROC", "images per second"], rows),
    ]


def draw_curves(curves: Sequence["Epoch"]) -> Figure:
    """Losses and AUROC over the epochs."""
    figure, losses = make_axes(3.0)
    epochs = [epoch.epoch for epoch in curves]
    losses.plot(epochs, [epoch.loss for epoch in curves], "o-", color=INK, markersize=4, label="training loss")
    losses.plot(
        epochs, [epoch.validation_loss for epoch in curves], "s--", color=BAD, markersize=4, label="validation loss"
    )
    losses.set_xlabel("epoch", fontsize=9, color=INK)
    losses.set_ylabel("loss (class-balanced)", fontsize=9, color=INK)
    losses.set_ylim(bottom=0)
    losses.xaxis.set_major_locator(MaxNLocator(integer=True))
    ranking: Axes = losses.twinx()
    ranking.plot(
        epochs, [epoch.validation_auroc for epoch in curves], "D-", color=GOOD, markersize=4, label="validation AUROC"
    )
    ranking.set_ylabel("AUROC", fontsize=9, color=GOOD)
    ranking.set_ylim(min(0.5, *(epoch.validation_auroc for epoch in curves)), 1.0)
    ranking.spines["top"].set_visible(False)
    figure.legend(loc="outside upper right", ncols=3, fontsize=8, frameon=False)
    return figure
