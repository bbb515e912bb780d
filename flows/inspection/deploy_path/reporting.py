"""Shows a rollout while it runs and tells its outcome: card, notification, last words."""

import logging
import time
from typing import Any

from inspection.cards.deploy import rollout_components
from inspection.deploy_path.choosing import Choice
from inspection.deploy_path.disagreements import Disagreements
from inspection.deploy_path.publishing import Published
from inspection.deploy_path.seeing import GOOD_ENDS, advice, headline, to_rollout_view
from inspection.errors import RolloutError, StorageError
from inspection.fleet.notify import Notice, Sent, send_notice
from inspection.fleet.opening import open_fleet
from inspection.fleet.overview import DeviceOverview, look_over
from inspection.fleet.rollout.devices import DeviceView
from inspection.fleet.rollout.timeline import OnChange, Outcome, View, read_view
from inspection.settings import Settings
from inspection.storage import open_storage

log = logging.getLogger(__name__)

REFRESH_S = 2.0  # between two drawings of the card
SPEAK_S = 30.0  # between two lines in the log while nothing ends
PICTURES_S = 20.0  # between two searches for pictures of disagreements
SILENT_OUTCOMES = ("unchanged",)  # nobody is told that nothing happened


def watch(card: Any, settings: Settings, choice: Choice, published: Published | None) -> OnChange:
    """What to call as the rollout goes on, so that the card shows it, and its outcome is told.

    Args:
        card: the step's card.
        settings: of the line.
        choice: of the first step.
        published: of the second step.
    """
    last = read_view(open_storage(settings.storage_root), settings.line.name)
    if last is not None:
        tell(settings, last)  # one whose run was killed after its end, and before anybody was told
    return _Watching(card, settings, choice, published).show


def show_outcome(card: Any, settings: Settings, choice: Choice, published: Published | None) -> None:
    """The card of a rollout that has ended, from its record."""
    view = read_view(open_storage(settings.storage_root), settings.line.name)
    if view is not None:
        _Watching(card, settings, choice, published).show(view)


class _Watching:
    """Keeps what the card shows between two looks."""

    def __init__(self, card: Any, settings: Settings, choice: Choice, published: Published | None) -> None:
        self._card, self._settings, self._choice, self._published = card, settings, choice, published
        self._storage = open_storage(settings.storage_root)
        fleet, options = open_fleet(settings), settings.fleet
        self._members = {group: fleet.members(group) for group in (options.canary_group, *options.wave_groups)}
        self._fleet = fleet
        self._overview: dict[str, DeviceOverview] = {}
        self._seen: dict[str, DeviceView] = {}
        self._pictures: Disagreements | None = None
        self._drawn_s = self._searched_s = self._spoke_s = float("-inf")
        self._stage = ""

    def show(self, view: View) -> None:
        """Draw the card anew, not too often; tell the outcome when there is one."""
        self._seen |= {device.thing: device for device in view.devices}
        now_s = time.monotonic()
        if view.end is None and now_s - self._spoke_s >= SPEAK_S:
            self._spoke_s = now_s
            _speak(view)
        if view.end is None and view.stage == self._stage and now_s - self._drawn_s < REFRESH_S:
            return
        if view.end is not None or not self._overview:
            self._look_over()
        self._drawn_s, self._stage = now_s, view.stage
        told = ""
        if view.end is not None:
            sent = tell(self._settings, view)
            told = sent.describe() if sent is not None else ""
        self._card.clear()
        self._card.extend(
            rollout_components(
                to_rollout_view(
                    view,
                    self._members,
                    self._choice,
                    self._published,
                    {} if view.end is not None else self._seen,
                    self._overview,
                    self._find_pictures(view, now_s),
                    told,
                )
            )
        )
        self._card.refresh()

    def _look_over(self) -> None:
        """How all devices do, at the beginning and at the end; in between, those of the stage are looked at."""
        try:
            found = look_over(self._fleet, self._storage, self._settings)
            self._overview = {device.thing: device for device in found}
        except (RolloutError, StorageError) as error:  # the rollout does not hang on its card
            log.warning("event=devices_not_seen error=%r", str(error))

    def _find_pictures(self, view: View, now_s: float) -> list[Any]:
        plan = view.plan
        if "shadow" not in plan.stages:
            return []
        if self._pictures is None:
            since = view.events[0].at if view.events else view.at
            things = self._members[plan.canary_group]
            self._pictures = Disagreements(self._storage, plan.line, things, plan.champion_digest, plan.digest, since)
        if view.end is None and now_s - self._searched_s < PICTURES_S:
            return self._pictures.found
        self._searched_s = now_s
        try:
            return self._pictures.look()
        except StorageError as error:  # the rollout does not hang on its pictures
            log.warning("event=pictures_not_found error=%r", str(error))
            return self._pictures.found


def _speak(view: View) -> None:
    """One line on how far the stage is, for who watches a terminal and not the card."""
    compared = view.comparison
    parts = "" if compared is None else f" parts={compared.parts}/{compared.wanted}"
    waits = "; ".join(f"{device.thing}: {device.message}" for device in view.devices if device.message)
    log.info(
        "event=waiting line=%s rollout=%d stage=%r devices=%d/%d%s for=%r",
        view.plan.line,
        view.number,
        view.stage,
        sum(device.done for device in view.devices),
        len(view.devices),
        parts,
        waits[:300],
    )


def tell(settings: Settings, view: View) -> Sent | None:
    """Send the outcome, once; None when there is nothing to tell."""
    if view.end is None or view.end.outcome in SILENT_OUTCOMES:
        return None
    return send_notice(open_storage(settings.storage_root), settings.fleet, notice_of(view))


def notice_of(view: View) -> Notice:
    """The message about an outcome."""
    plan, end = view.plan, view.end
    assert end is not None
    said = headline(view)
    lines = [f"{said}.", ""]
    if end.outcome not in GOOD_ENDS:
        lines += [f"Why: {end.reason}", ""]
    lines += [f"Line {plan.line}, rollout {view.number}, groups {', '.join(plan.groups) or 'none'}."]
    lines += [f"- {one}" for one in advice(view)]
    serving = plan.model_version if end.outcome in GOOD_ENDS else plan.champion
    return Notice(
        line=plan.line,
        rollout=view.number,
        outcome=end.outcome,
        at=end.at,
        subject=f"Line {plan.line}: {said}",
        text="\n".join(lines),
        facts={
            "line": plan.line,
            "rollout": view.number,
            "outcome": end.outcome,
            "reason": end.reason,
            "model": plan.model_version,
            "serving": serving,
            "groups": list(plan.groups),
            "not_there": list(end.details.get("not_there", ())),
        },
    )


def summarise(settings: Settings, choice: Choice, outcome: Outcome, run_id: str) -> str:
    """The text that the flow ends with; a notification that did not get through is tried once more."""
    line = settings.line.name
    table: list[tuple[str, str]] = []
    view = read_view(open_storage(settings.storage_root), line)
    if view is not None and view.number == outcome.number:
        table.append(("outcome", headline(view)))
        if view.end is not None and view.end.outcome not in GOOD_ENDS:
            table.append(("why", outcome.reason))
        table += [("mind", one) for one in advice(view)]
        sent = tell(settings, view)
        if sent is not None:
            table.append(("told" if sent.sent else "ATTENTION", sent.describe().removeprefix("told ")))
    table += [
        ("rollout", f"{outcome.number} of line {line}, asked for by {choice.by}"),
        ("report", f"python flows/deploy_flow.py card view {run_id}/fleet"),
        ("next", "lineside fleet status"),
    ]
    if settings.fleet.backend == "local":
        table.append(("next", "lineside fleet stop   (the devices on this machine run on until then)"))
    return "\n".join(f"{name:<10}| {text}" for name, text in table)  # Metaflow strips spaces before a line


def refuse_unless_deployed(choice: Choice, outcome: Outcome) -> None:
    """End a run in red whose model was taken back, unless that is what was asked for.

    Raises:
        RolloutError: it was.
    """
    if not outcome.good and not (choice.back and outcome.ended):
        raise RolloutError(
            f"line {outcome.line}: model {outcome.model_version} was not deployed ({outcome.outcome}): "
            f"{outcome.reason}; the card of step fleet shows why"
        )
