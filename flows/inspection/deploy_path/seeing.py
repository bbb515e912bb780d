"""Turns what is on record of a rollout into what its card shows: in words that need no knowledge of the program."""

from collections.abc import Mapping, Sequence
from typing import Any

from inspection.deploy_path.choosing import Choice
from inspection.deploy_path.publishing import Published
from inspection.deploy_path.view import (
    CheckView,
    ComparisonView,
    DeviceRow,
    DisagreementView,
    PlaceView,
    RolloutView,
    SizeView,
    StageState,
    StageView,
    State,
)
from inspection.fleet.overview import DeviceOverview
from inspection.fleet.reports import VERDICTS
from inspection.fleet.rollout.devices import DeviceView
from inspection.fleet.rollout.plan import RolloutPlan
from inspection.fleet.rollout.timeline import View, sentence

GOOD_ENDS = ("deployed", "unchanged", "went-back")
STATES: Mapping[str, tuple[bool | None, str]] = {
    "done": (True, "well"),
    "waiting": (None, "on its way"),
    "away": (None, "does not answer"),
    "failed": (False, "failed"),
}


def to_rollout_view(
    view: View,
    members: Mapping[str, Sequence[str]],
    choice: Choice,
    published: Published | None,
    seen: Mapping[str, DeviceView],
    overview: Mapping[str, DeviceOverview],
    disagreements: Sequence[DisagreementView] = (),
    told: str = "",
) -> RolloutView:
    """What the card shows.

    Args:
        view: the rollout at one look.
        members: thing group to its devices.
        choice: what the flow was asked for.
        published: what the second step published; None: nothing.
        seen: device to how far it was in its stage when it was last looked at.
        overview: device to how it did at the beginning or at the end.
        disagreements: pictures.
        told: what became of the notification; "" = none yet.
    """
    plan, end = view.plan, view.end
    state = _state(view)
    comparisons = _comparisons(view)
    facts = {"rollout": f"fleet/{plan.line}/rollouts/{view.number:06d}", "asked for by": choice.by}
    facts |= {"reason given": choice.why} if choice.why else {}
    facts |= {"model's archive (sha256)": plan.archive_sha256, "model's contract (sha256)": plan.digest}
    facts |= {"notification": told} if told else {}
    return RolloutView(
        line=plan.line,
        model=plan.model_version,
        champion=plan.champion if plan.champion != plan.model_version else None,
        state=state,
        short=_short(view, members),
        headline=headline(view),
        reasons=[end.reason] if end is not None and end.reason and end.outcome not in GOOD_ENDS else _waits(view),
        advice=advice(view),
        stages=_stages(view, members),
        progress=_progress(view),
        places=_places(plan, members, view),
        sizes=[
            SizeView(one.name, one.version, one.new, one.size_bytes)
            for one in (published.components if published else ())
        ],
        devices=_devices(members, seen, overview),
        comparisons=comparisons,
        disagreements=disagreements,
        timeline=_timeline(view),
        facts=facts,
    )


def headline(view: View) -> str:
    """One sentence: how it stands, or how it ended."""
    plan, end = view.plan, view.end
    model = f"model {plan.model_version}"
    before = f"model {plan.champion}" if plan.champion is not None else "no model"
    if end is None:
        if any(event.what == "rolling-back" for event in view.events):
            return f"Going back: {model} is taken off the devices that have it"
        where = {
            "shadow": f"{model} runs beside {before} and decides nothing",
            "canary": f"{model} serves on the canaries",
        }
        return where.get(view.stage.split(" ")[0], f"{model} goes to group {view.stage.removeprefix('wave ')}")
    missing = len(end.details.get("not_there", ()))
    behind = f"; {missing} devices do not have it yet" if missing else ""
    touched = {event.details["group"] for event in view.events if event.what == "deploying"}
    whole = set(plan.groups) <= touched
    rest = "" if whole else "; the rest of the fleet was never touched"
    if not plan.replaces and end.outcome in ("rolled-back", "aborted"):
        return f"What was new around {model} was taken back, and what was there before serves{rest}{behind}"
    return {
        "deployed": f"{model.capitalize()} serves on the whole fleet",
        "unchanged": f"Every device has {model} already: nothing was changed",
        "rolled-back": f"{model.capitalize()} was taken back, and {before} serves{rest}{behind}",
        "aborted": f"Stopped by a person: {model} was taken back, and {before} serves{rest}{behind}",
        "went-back": f"Back to {model} on the whole fleet{behind}",
    }.get(end.outcome, f"{model.capitalize()}: {end.outcome}")


def advice(view: View) -> list[str]:
    """What a person does now."""
    plan, end = view.plan, view.end
    place = f"{plan.line} {plan.model_version}"
    if end is None:
        return [f"nothing; to stop and undo it: `lineside fleet abort {plan.line} --by NAME --why REASON`"]
    away = [f"see to {device}" for device in end.details.get("not_there", ())]
    if not plan.replaces and end.outcome in ("rolled-back", "aborted"):
        return [
            *away,
            f"model {plan.model_version} is not to blame and stays approved: only the program or its settings were "
            "new; see the reason above and [fleet.inspector] in the line's settings",
            "mend that before the next deployment, which otherwise tries the same again",
        ]
    if end.outcome in ("rolled-back", "aborted"):
        return [
            *away,
            "find out why: see the reason above, the parts below on which the models differ, and "
            f"`lineside registry show {place}`",
            "the next deployment leaves this model out; train a better one",
            "or, if the model was right after all: "
            f"`lineside registry approve {place} --by NAME --why REASON`, then `python flows/deploy_flow.py run`",
        ]
    return away


def _state(view: View) -> State:
    if view.end is not None:
        return "done" if view.end.outcome in GOOD_ENDS else "rolled-back"
    return "running"


def _short(view: View, members: Mapping[str, Sequence[str]]) -> str:
    plan, end = view.plan, view.end
    devices = sum(len(things) for things in members.values())
    if end is None:
        return {"shadow": "comparing", "canary": "on the canaries", "back": "going back"}.get(
            view.stage.split(" ")[0], view.stage or "beginning"
        )
    serving = plan.model_version if end.outcome in GOOD_ENDS else plan.champion
    what = "no model serves" if serving is None else f"model {serving} serves"
    missing = len(end.details.get("not_there", ()))
    return f"{what} on {devices - missing} of {devices} devices" if missing else f"{what} on all {devices} devices"


def _waits(view: View) -> list[str]:
    """What the stage that runs waits for."""
    if view.end is not None:
        return []
    return [f"{device.thing}: {device.message}" for device in view.devices if device.message][:6]


def _stages(view: View, members: Mapping[str, Sequence[str]]) -> list[StageView]:
    plan = view.plan
    passed = {event.stage for event in view.events if event.what == "passed"}
    started = [event.stage for event in view.events if event.what in ("started", "deploying")]
    going_back = any(event.what == "rolling-back" for event in view.events)
    stages = []
    for name in ("shadow", "canary", *(f"wave {group}" for group in plan.wave_groups)):
        group = name.removeprefix("wave ") if name.startswith("wave ") else plan.canary_group
        things = members.get(group, ())
        state: StageState = "later"
        note = ""
        if plan.kind == "back":
            if name == "shadow":
                continue
            state = "done" if view.end is not None else "now"
        elif name not in plan.stages:
            if name == "shadow":
                continue
            state, note = "skipped", "has it already"
        elif name in passed:
            state = "done"
        elif name in started:
            state = "failed" if going_back else "now"
        done = len(things) if state == "done" else 0
        if state in ("now", "failed") and view.devices and view.devices[0].group == group:
            done = sum(device.done for device in view.devices)
        compared = view.comparison
        if state == "now" and compared is not None and compared.wanted and view.stage == name:
            note = f"{min(compared.parts, compared.wanted):,} of {compared.wanted:,} parts"
        title = {"shadow": "beside the old", "canary": "canaries"}.get(
            name, f"wave {plan.wave_groups.index(group) + 1 if group in plan.wave_groups else ''}"
        )
        stages.append(StageView(title, group, state, len(things), done, note))
    return stages


def _progress(view: View) -> tuple[int, int, str] | None:
    compared = view.comparison
    if view.end is not None or compared is None or view.stage == "back":
        return None
    what = "parts that both models judged" if compared.kind == "shadow" else "parts that the new model inspected"
    return compared.parts, compared.wanted, what


def _places(plan: RolloutPlan, members: Mapping[str, Sequence[str]], view: View) -> list[PlaceView]:
    deployed = {event.details.get("group") for event in view.events if event.what == "deployed"}
    restored = {event.details.get("group") for event in view.events if event.what == "restored"}
    places = []
    for group in (plan.canary_group, *plan.wave_groups):
        had = plan.before.get(group, {}).get(plan.model)
        before = f"model {had.split('.')[0]}" if had else ""
        state = "not touched"
        if group in plan.skipped_groups:
            state = "has it already"
        elif group in restored:
            state = "as before" if plan.kind == "forward" else "has it"
        elif group in deployed:
            state = "has it"
        places.append(PlaceView(group, tuple(members.get(group, ())), before, f"model {plan.model_version}", state))
    return places


def _devices(
    members: Mapping[str, Sequence[str]], seen: Mapping[str, DeviceView], overview: Mapping[str, DeviceOverview]
) -> list[DeviceRow]:
    rows = []
    for group, things in members.items():
        for thing in things:
            device, known = seen.get(thing), overview.get(thing)
            if device is not None:
                good, state = STATES.get(device.state, (None, device.state))
                rows.append(DeviceRow(thing, group, state, good, device.parts, device.message))
            elif known is not None:
                serves = f", model {known.model} serves" if known.model is not None else ""
                good = True if known.well else False if known.state in ("failed", "degraded", "stopped") else None
                rows.append(DeviceRow(thing, group, known.state + serves, good, known.parts, known.error))
    return rows


def _comparisons(view: View) -> list[ComparisonView]:
    """The comparison on the same parts, and the newest of live figures."""
    documents: dict[str, Mapping[str, Any]] = {}
    for event in view.events:
        if event.details.get("comparison"):
            documents[_kind(event.details["comparison"])] = event.details["comparison"]
    if view.comparison is not None:
        document = view.comparison.to_document()
        documents[_kind(document)] = document
    return [_comparison(documents[kind], view.plan) for kind in ("shadow", "live") if kind in documents]


def _kind(document: Mapping[str, Any]) -> str:
    return "shadow" if document["kind"] == "shadow" else "live"


def _comparison(document: Mapping[str, Any], plan: RolloutPlan) -> ComparisonView:
    paired = document["kind"] == "shadow"
    pairs: dict[tuple[str, str], int] = {}
    champion, challenger = dict(document["baseline"]), dict(document["figures"])
    if paired:
        champion, challenger = dict.fromkeys(VERDICTS, 0), dict.fromkeys(VERDICTS, 0)
        for name, count in document["pairs"].items():
            old, _, new = name.partition("/")
            pairs[old, new] = count
            champion[old] += count
            challenger[new] += count
    promoted = document["verdict"] == "promote"
    allowed = plan.limits.get("false_rollback_rate", 0.01)
    return ComparisonView(
        paired=paired,
        champion=champion,
        challenger=challenger,
        pairs=pairs,
        parts=document["parts"],
        wanted=document["wanted"],
        skipped=document["skipped"],
        checks=_checks(document["findings"], champion, challenger, paired, promoted),
        reasons=[
            *(f"**{reason}**" for reason in document["reasons"]),
            f"One may look after every part: a model that keeps to these limits is taken back by mistake in at most "
            f"{allowed:.0%} of all rollouts. A change smaller than the last column says may stay unseen.",
        ],
    )


def _checks(
    findings: Sequence[Mapping[str, Any]],
    champion: Mapping[str, int],
    challenger: Mapping[str, int],
    paired: bool,
    promoted: bool,
) -> list[CheckView]:
    by_name = {found["name"]: found for found in findings}
    old, new = sum(champion.values()), sum(challenger.values())

    def share(counts: Mapping[str, int], total: int, *kinds: str) -> float | None:
        return sum(counts.get(kind, 0) for kind in kinds) / total if total else None

    rows = []
    for names, title, kinds, limit in (
        (("rejects more", "rejects less"), "not accepted", ("fail", "review", "error"), "{} more or less"),
        (("reviews more",), "to review", ("review",), "{} more"),
        (("fails more",), "without a trustworthy score", ("error",), "{} more"),
        (("decides differently",), "accepted by one, not by the other", (), "{}"),
    ):
        found = [by_name[name] for name in names if name in by_name]
        if not found:
            continue
        beyond = any(one["beyond"] for one in found)
        verdict = "**beyond**" if beyond else "within" if promoted else "nothing found so far"
        finds = max((one["finds"] for one in found if one["finds"] is not None), default=None)
        if paired:
            text = limit.format(f"at most {found[0]['limit']:.1%}")
        else:
            text = f"at most {found[0]['limit']:.1%}"
            if len(found) == 2:
                text += f", at least {max(0.0, 1 - found[1]['limit']):.1%}"
        rows.append(
            CheckView(
                name=title,
                champion=share(champion, old, *kinds) if kinds else None,
                challenger=share(challenger, new, *kinds) if kinds else found[0]["share"],
                limit=text,
                verdict=verdict,
                finds="too few parts to be sure of any"
                if finds is None
                else f"{finds:.1%}"
                + (" more or less" if len(found) == 2 and paired else " more" if paired and kinds else " or more"),
            )
        )
    return rows


def _timeline(view: View) -> list[tuple[float, str]]:
    """What happened; an intention that is followed by the deed is left out."""
    told = [(event.at, sentence(event)) for event in view.events if event.what != "deploying"]
    if view.end is not None:
        words = {"deployed": "done", "unchanged": "nothing to do", "went-back": "back"}
        told.append((view.end.at, words.get(view.end.outcome, view.end.outcome.replace("-", " "))))
    return told
