"""The rollout card: what goes where, how the new model does beside the old one, and what became of it.

The same card is drawn again while a step runs (`.clear()`, `.extend(rollout_components(view))`, `.refresh()`).
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from metaflow.cards import Markdown, MetaflowCardComponent, ProgressBar

from inspection.cards.deploy_charts import VERDICTS, draw_result, draw_shares, draw_way
from inspection.cards.style import GRID_WIDTH, make_table, to_picture, to_thumbnail

if TYPE_CHECKING:
    from inspection.deploy_path.view import (
        CheckView,
        ComparisonView,
        DeviceRow,
        DisagreementView,
        RolloutView,
        SizeView,
    )

DEVICES_SHOWN = 50
EVENTS_SHOWN = 60
DISAGREEMENTS_SHOWN = 12
CALLED = {"pass": "pass", "review": "review", "fail": "fail", "error": "error"}


def rollout_components(view: "RolloutView") -> list[MetaflowCardComponent]:
    """The whole card, from the result down to the evidence.

    Args:
        view: of one moment.
    """
    components: list[MetaflowCardComponent] = _describe_result(view)
    components.append(to_picture(draw_way(view), "The way of the model, stage by stage"))
    if view.progress is not None:
        done, total, what = view.progress
        components.append(ProgressBar(max=max(1, total), value=min(done, total), label=what))
    for compared in view.comparisons:
        components += _describe_comparison(view, compared)
        if compared.paired:
            components += _describe_disagreements(view.disagreements, compared)
    components += _describe_places(view)
    components += _describe_devices(view.devices)
    components += _describe_sizes(view.sizes)
    components += _describe_timeline(view.timeline)
    if view.facts:
        components.append(Markdown("## Where this comes from"))
        components.append(make_table(["", ""], [[name, f"`{value}`"] for name, value in view.facts.items()]))
    return components


def _describe_result(view: "RolloutView") -> list[MetaflowCardComponent]:
    components: list[MetaflowCardComponent] = [
        Markdown(f"# Line {view.line}: model {view.model}"),
        to_picture(draw_result(view)),
        Markdown(f"## {view.headline}"),
    ]
    if view.reasons:
        components.append(Markdown("\n".join(f"- {reason}" for reason in view.reasons)))
    if view.advice:
        components.append(Markdown("**What to do now**\n\n" + "\n".join(f"- {one}" for one in view.advice)))
    return components


def _describe_comparison(view: "RolloutView", compared: "ComparisonView") -> list[MetaflowCardComponent]:
    how = (
        f"Both models judged the same **{compared.parts:,} parts** on the canaries; only model {view.champion} decided "
        "what the line did with them."
        if compared.paired
        else f"The new model decided on **{compared.parts:,} parts** of the group that got it last. The old model's "
        "figures are from before, on other parts: they show only coarse faults."
        if compared.champion
        else f"The new model decided on **{compared.parts:,} parts** of the group that got it last; no model was there."
    )
    if compared.skipped:
        how += f" {compared.skipped:,} more were not compared, since the device was busy or had no picture of them."
    title = "The new model beside the old one" if compared.paired else "The new model on the line"
    components: list[MetaflowCardComponent] = [Markdown(f"## {title}"), Markdown(how)]
    rows = [(f"new: model {view.model}", compared.challenger)]
    if compared.champion:
        rows.insert(0, (f"old: model {view.champion}", compared.champion))
    if any(sum(counts.values()) for _, counts in rows):
        components.append(to_picture(draw_shares(rows)))
    if compared.checks:
        components.append(_tabulate_checks(view, compared.checks))
    if compared.reasons:
        components.append(Markdown("\n".join(f"- {reason}" for reason in compared.reasons)))
    if compared.pairs:
        components += _tabulate_pairs(view, compared)
    return components


def _tabulate_checks(view: "RolloutView", checks: "Sequence[CheckView]") -> MetaflowCardComponent:
    rows = [
        [
            check.name,
            *([_percent(check.champion)] if view.champion is not None else []),
            f"**{_percent(check.challenger)}**",
            check.limit,
            check.verdict,
            check.finds,
        ]
        for check in checks
    ]
    heads = ["", *([f"model {view.champion}"] if view.champion is not None else []), f"model {view.model}"]
    return make_table([*heads, "limit", "verdict", "it would find"], rows)


def _tabulate_pairs(view: "RolloutView", compared: "ComparisonView") -> list[MetaflowCardComponent]:
    said = [name for name in VERDICTS if any(name in pair for pair in compared.pairs)]
    rows = []
    for champion in said:
        cells = []
        for challenger in said:
            count = compared.pairs.get((champion, challenger), 0)
            text = f"{count:,}" if count else "·"
            cells.append(text if champion == challenger or not count else f"**{text}**")
        rows.append([f"model {view.champion} says **{champion}**", *cells])
    agreed = sum(count for (old, new), count in compared.pairs.items() if old == new)
    total = sum(compared.pairs.values())
    return [
        Markdown(
            f"**Part by part:** the two models say the same of {agreed:,} of {total:,} parts "
            f"({_percent(agreed / total if total else None)}). Bold: they differ."
        ),
        make_table(["parts", *(f"model {view.model} says {name}" for name in said)], rows),
    ]


def _describe_disagreements(
    found: "Sequence[DisagreementView]", compared: "ComparisonView"
) -> list[MetaflowCardComponent]:
    differ = sum(count for (old, new), count in compared.pairs.items() if old != new)
    if not differ and not found:
        return []
    if not found:
        return [
            Markdown(
                "**Pictures of parts on which they differ:** none has arrived from the devices yet. They come with the "
                "images for review."
            )
        ]
    cells: list[object] = [
        to_thumbnail(one.picture, f"{one.thing}: old {CALLED.get(one.champion, one.champion)}, new {one.challenger}")
        for one in found[:DISAGREEMENTS_SHOWN]
    ]
    width = min(GRID_WIDTH, len(cells))
    cells += [""] * (-len(cells) % width)
    return [
        Markdown("### Parts on which they differ\n\nWho is right? Look before you trust either."),
        make_table([""] * width, [cells[start : start + width] for start in range(0, len(cells), width)]),
    ]


def _describe_places(view: "RolloutView") -> list[MetaflowCardComponent]:
    if not view.places:
        return []
    rows = [
        [
            f"**{place.group}**",
            _list_some(place.things),
            place.before or "nothing",
            place.after or "nothing",
            place.state,
        ]
        for place in view.places
    ]
    return [
        Markdown("## What goes where"),
        make_table(["thing group", "devices", "before", "after", "state"], rows),
    ]


def _describe_devices(devices: "Sequence[DeviceRow]") -> list[MetaflowCardComponent]:
    if not devices:
        return []
    order = sorted(devices, key=lambda device: (device.good is not False, device.good is None, device.thing))
    marks = {True: "✔", False: "✖", None: "…"}
    rows = [
        [
            f"{marks[device.good]} {device.thing}",
            device.group,
            device.state,
            f"{device.parts:,}",
            device.note,
        ]
        for device in order[:DEVICES_SHOWN]
    ]
    shown = (
        f" The first {DEVICES_SHOWN} of {len(devices)}, those with trouble on top."
        if len(devices) > DEVICES_SHOWN
        else ""
    )
    return [
        Markdown(f"## Devices\n\n{sum(device.good is True for device in devices)} of {len(devices)} are well.{shown}"),
        make_table(["device", "thing group", "state", "parts", ""], rows),
    ]


def _describe_sizes(sizes: "Sequence[SizeView]") -> list[MetaflowCardComponent]:
    if not sizes:
        return []
    rows = [
        [one.component, one.version, "new" if one.new else "as before", _megabytes(one.size_bytes), one.note]
        for one in sizes
    ]
    fetched = sum(one.size_bytes for one in sizes if one.new)
    return [
        Markdown(
            "## What was published\n\n"
            + (
                f"A device that has the earlier versions fetches at most {_megabytes(fetched)}."
                if fetched
                else "Nothing new: every version was there already."
            )
        ),
        make_table(["component", "version", "", "size", ""], rows),
    ]


def _describe_timeline(timeline: Sequence[tuple[float, str]]) -> list[MetaflowCardComponent]:
    if not timeline:
        return []
    began = timeline[0][0]
    rows = [[_clock(at), _after(at - began), text] for at, text in timeline]
    left_out = len(rows) - EVENTS_SHOWN
    if left_out > 0:
        rows = [*rows[: EVENTS_SHOWN // 2], ["…", "", f"{left_out} more"], *rows[-EVENTS_SHOWN // 2 :]]
    return [Markdown("## Timeline"), make_table(["time (UTC)", "after", "what happened"], rows)]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}\u00a0%"  # noqa: RUF001


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1e5 else f"{size_bytes / 1e3:.1f} kB"


def _clock(at: float) -> str:
    then, now = time.gmtime(at), time.gmtime()
    return time.strftime("%H:%M:%S" if then[:3] == now[:3] else "%Y-%m-%d %H:%M:%S", then)


def _after(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f}\u00a0s"
    return f"{seconds / 60:.0f}\u00a0min" if seconds < 5400 else f"{seconds / 3600:.1f}\u00a0h"


def _list_some(names: Sequence[str]) -> str:
    if len(names) <= 6:
        return ", ".join(names) or "none"
    return f"{', '.join(names[:4])} and {len(names) - 4} more ({len(names)} devices)"
