"""Who may run a rollout, and what is kept of it."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from fake_fleet import CHALLENGER, LINE, MODEL, MemoryStorage

from inspection.errors import RolloutError
from inspection.fleet.interface import ComponentSetting
from inspection.fleet.rollout.comparison import Limits
from inspection.fleet.rollout.opening import open_or_continue, request_abort
from inspection.fleet.rollout.owners import Owner, process_start
from inspection.fleet.rollout.plan import RolloutPlan, dump_plan, parse_plan
from inspection.fleet.rollout.record import RolloutRecord, create_record, latest_record, rollout_numbers
from inspection.storage import LocalStorage

NOW = 1_800_000_000.0
LIMITS = {
    **{"shadow_parts": 500, "canary_parts": 50, "wave_parts": 1, "max_disagreement": 0.05, "max_reject_shift": 0.02},
    **{"max_review_shift": 0.05, "max_error_rate": 0.01, "false_rollback_rate": 0.01, "max_failed_devices": 0.0},
}


def make_plan(version: int = 7, kind: str = "forward") -> RolloutPlan:
    return RolloutPlan(
        line=LINE,
        kind=kind,  # type: ignore[arg-type]
        model_version=version,
        archive_sha256="ab" * 32,
        digest="cd" * 32,
        champion=6,
        champion_digest="ef" * 32,
        model=MODEL,
        challenger=CHALLENGER,
        components={MODEL: ComponentSetting(f"{version}.0.0"), "x.Inspector": ComponentSetting("1.0.0", {"a": 1}, {})},
        challenger_version=f"{version}.0.0",
        canary_group="canary",
        wave_groups=("fleet",),
        skipped_groups=(),
        comparison="shadow",
        before={"canary": {MODEL: "6.0.0"}, "fleet": {}},
        limits=LIMITS,
    )


def open_as(
    storage: MemoryStorage, owner: Owner, version: int = 7, now: float = NOW, poll_s: float = 5.0
) -> RolloutRecord:
    return open_or_continue(storage, LINE, version, owner, lambda: make_plan(version), poll_s, lambda: now)


def elsewhere(run: str, origin: str = "") -> Owner:
    """An owner on a machine that cannot be looked into."""
    return Owner(run, origin, "far/boot/pid:[1]", 4711, "123")


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


def test_a_plan_comes_back_as_it_was_written() -> None:
    plan = make_plan()
    assert parse_plan(dump_plan(plan, NOW), "here") == plan


def test_what_a_stage_deploys_and_what_restores_it() -> None:
    plan = make_plan()
    assert plan.stages == ("shadow", "canary", "wave fleet")
    assert plan.target("shadow") == {
        "x.Inspector": plan.components["x.Inspector"],
        CHALLENGER: ComponentSetting("7.0.0"),
    }
    assert plan.target("canary") == {**plan.components, CHALLENGER: None}
    assert plan.restored("canary") == {MODEL: ComponentSetting("6.0.0"), "x.Inspector": None, CHALLENGER: None}
    assert replace(plan, champion=None).stages == ("canary", "wave fleet")
    assert replace(plan, champion=7).stages == ("canary", "wave fleet")
    assert replace(plan, comparison="live").stages == ("canary", "wave fleet")
    assert replace(plan, skipped_groups=("canary",)).stages == ("wave fleet",)
    assert replace(plan, skipped_groups=("canary", "fleet")).stages == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "2.0"}, "schema: want 1.0 or a later minor of it, found '2.0'; update"),
        ({"requires": ["magic"]}, "requires .'magic'., which this program does not know"),
        ({"digest": 5}, "digest: want str, found 5"),
        ({"kind": "sideways"}, "kind: want one of"),
        ({"components": {"a": 1}}, "components.a: want a JSON object"),
        ({"champion": "six"}, "champion: want int, found 'six'"),
        ({"before": {"canary": 7}}, "before: canary: want dict, found 7"),
    ],
)
def test_a_plan_that_cannot_be_read_says_what_and_where(change: dict[str, object], message: str) -> None:
    document = {**json.loads(dump_plan(make_plan(), NOW)), **change}
    with pytest.raises(RolloutError, match=f"here: .*{message}|here: {message}"):
        parse_plan(json.dumps(document).encode(), "here")


def test_a_plan_of_a_later_minor_is_read() -> None:
    document = {**json.loads(dump_plan(make_plan(), NOW)), "schema": "1.7", "colour": "green"}
    assert parse_plan(json.dumps(document).encode(), "here") == make_plan()


def test_a_limit_that_is_missing_is_named() -> None:
    with pytest.raises(RolloutError, match="limits: want numbers for max_review_shift, found none"):
        Limits.of({name: value for name, value in LIMITS.items() if name != "max_review_shift"})


def test_a_plan_that_is_cut_says_where(storage: MemoryStorage) -> None:
    open_as(storage, elsewhere("A/1"))
    storage.write("fleet/dots/rollouts/000001/plan.json", b'{"schema": "1.0"')
    with pytest.raises(RolloutError, match=r"memory/fleet/dots/rollouts/000001/plan.json: want a rollout document"):
        latest_record(storage, LINE)


def test_rollouts_are_numbered_and_one_begins_when_the_one_before_has_ended(storage: MemoryStorage) -> None:
    first = open_as(storage, elsewhere("A/1"))
    first.finish("deployed", "good")
    second = open_as(storage, elsewhere("A/2"), 8)
    assert (first.number, second.number) == (1, 2)
    assert rollout_numbers(storage, LINE) == (1, 2)


def test_a_second_run_is_refused_while_the_first_lives_and_told_who_and_what_to_do(storage: MemoryStorage) -> None:
    open_as(storage, elsewhere("DeployFlow/17"))
    with pytest.raises(
        RolloutError,
        match=r"DeployFlow/17 \(process 4711 on far\) has been deploying model 7 since 2027-01-15 08:00.*abort dots",
    ):
        open_as(storage, elsewhere("DeployFlow/18"), now=NOW + 50)


def test_the_same_run_goes_on_at_once_and_so_does_one_that_resumes_it(storage: MemoryStorage) -> None:
    open_as(storage, elsewhere("A/1"))
    assert open_as(storage, elsewhere("A/1"), now=NOW + 1).token == 2
    assert open_as(storage, elsewhere("A/2", origin="A/1"), now=NOW + 2).token == 3
    with pytest.raises(RolloutError, match="A/2"):
        open_as(storage, elsewhere("A/3"), now=NOW + 3)


def test_a_run_that_says_nothing_for_long_may_be_continued_for_the_same_model(storage: MemoryStorage) -> None:
    open_as(storage, elsewhere("A/1"))
    with pytest.raises(RolloutError):
        open_as(storage, elsewhere("A/2"), now=NOW + 59)
    record = open_as(storage, elsewhere("A/2"), now=NOW + 61)
    assert (record.number, record.token) == (1, 2)
    open_as(storage, elsewhere("A/3"), now=NOW + 200).beat()
    with pytest.raises(RolloutError, match="A/3"):
        open_as(storage, elsewhere("A/4"), now=NOW + 250)


def test_slow_polls_take_longer_to_look_dead(storage: MemoryStorage) -> None:
    open_as(storage, elsewhere("A/1"), poll_s=60)
    with pytest.raises(RolloutError):
        open_as(storage, elsewhere("A/2"), now=NOW + 170, poll_s=60)
    assert open_as(storage, elsewhere("A/2"), now=NOW + 190, poll_s=60).token == 2


def test_a_heartbeat_counts_as_a_sign_of_life(storage: MemoryStorage) -> None:
    record = open_as(storage, elsewhere("A/1"))
    record.clock = lambda: NOW + 1000
    record.beat()
    with pytest.raises(RolloutError, match="last sign of life 30 s ago"):
        open_as(storage, elsewhere("A/2"), now=NOW + 1030)


def test_another_model_is_refused_with_both_ways_out(storage: MemoryStorage) -> None:
    open_as(storage, elsewhere("A/1"))
    with pytest.raises(
        RolloutError, match=r"(?s)want to deploy model 8, found rollout 1 of model 7.*--model 7.*--rollback"
    ):
        open_as(storage, elsewhere("A/2"), 8, now=NOW + 500)
    assert rollout_numbers(storage, LINE) == (1,)


def test_a_way_back_that_is_unfinished_is_finished_first(storage: MemoryStorage) -> None:
    create_record(storage, make_plan(6, kind="back"), 1)
    with pytest.raises(RolloutError, match=r"rollout 1 back to model 6 unfinished .*finish it: .*--rollback"):
        open_as(storage, elsewhere("A/1"), 6)


def test_a_process_that_is_gone_needs_no_waiting(storage: MemoryStorage) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        dead = Owner.here("A/1", pid=child.pid)
        assert not dead.is_dead
        open_as(storage, dead)
        with pytest.raises(RolloutError, match=f"process {child.pid}"):
            open_as(storage, Owner.here("A/2"))
    finally:
        child.communicate(timeout=60)
    assert dead.is_dead
    assert open_as(storage, Owner.here("A/2")).token == 2


def test_a_process_number_that_is_used_again_is_not_the_same_process() -> None:
    here = Owner.here("A/1")
    assert not here.is_dead
    assert replace(here, started="1").is_dead
    assert not replace(here, started="1", host="elsewhere").is_dead
    assert not replace(here, started="").is_dead
    assert process_start(os.getpid()) == here.started


def test_an_owner_that_was_replaced_finds_out_before_it_changes_anything(storage: MemoryStorage) -> None:
    first = open_as(storage, elsewhere("A/1"))
    open_as(storage, elsewhere("A/2"), now=NOW + 500)
    with pytest.raises(RolloutError, match=r"A/2 .*has taken it over"):
        first.check_owner()
    with pytest.raises(RolloutError, match="has taken it over"):
        first.finish("deployed", "good")
    with pytest.raises(RolloutError, match="has taken it over"):
        first.add("canary", "deployed")
    assert first.end() is None
    assert first.events() == ()


def test_of_two_that_open_at_once_one_gets_it(storage: MemoryStorage) -> None:
    def meddled() -> RolloutPlan:
        if not rollout_numbers(storage, LINE):
            open_as(storage, elsewhere("A/2"))
        return make_plan()

    with pytest.raises(RolloutError, match="A/2"):
        open_or_continue(storage, LINE, 7, elsewhere("A/1"), meddled, 5.0, lambda: NOW)
    assert rollout_numbers(storage, LINE) == (1,)


def test_of_many_that_open_at_once_one_gets_it_and_the_others_are_told_who(tmp_path: Path) -> None:
    def attempt(number: int) -> str:
        try:
            open_or_continue(LocalStorage(tmp_path), LINE, 7, elsewhere(f"A/{number}"), make_plan, 5.0, lambda: NOW)
        except RolloutError as error:
            return str(error)
        return "mine"

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(attempt, range(8)))
    winner = found.index("mine")
    assert found.count("mine") == 1
    assert all(f"A/{winner} (process" in text for number, text in enumerate(found) if number != winner)
    assert rollout_numbers(LocalStorage(tmp_path), LINE) == (1,)


def test_one_that_came_between_the_look_and_the_taking_keeps_it(storage: MemoryStorage) -> None:
    found = create_record(storage, make_plan(), 1)
    assert found is not None
    other = open_as(storage, elsewhere("A/2"))
    assert not found.own(elsewhere("A/1"), seen=0)
    other.check_owner()


def test_a_rollout_that_ended_meanwhile_is_planned_anew(storage: MemoryStorage) -> None:
    plans: list[int] = []

    def meddled() -> RolloutPlan:
        plans.append(1)
        if len(plans) == 1:
            open_as(storage, elsewhere("A/2")).finish("deployed", "good")
        return make_plan()

    record = open_or_continue(storage, LINE, 7, elsewhere("A/1"), meddled, 5.0, lambda: NOW)
    assert (record.number, len(plans)) == (2, 2)


def test_a_plan_whose_writer_died_before_it_owned_it_is_anybodys(storage: MemoryStorage) -> None:
    assert create_record(storage, make_plan(), 1) is not None
    record = open_as(storage, elsewhere("A/1"))
    assert (record.number, record.token) == (1, 1)


def test_a_step_of_the_same_run_finds_the_end_instead_of_a_new_rollout(storage: MemoryStorage) -> None:
    open_as(storage, elsewhere("A/1")).finish("rolled-back", "bad")
    again = open_as(storage, elsewhere("A/1"))
    assert again.number == 1
    assert again.end() is not None
    assert open_as(storage, elsewhere("A/2")).number == 2


def test_events_come_back_in_order_and_the_end_stays(storage: MemoryStorage) -> None:
    record = open_as(storage, elsewhere("A/1"))
    for number in range(12):
        record.add("canary", "looked", number=number)
    assert [event.details["number"] for event in record.events()] == list(range(12))
    assert record.finish("deployed", "good").reason == "good"
    assert record.finish("rolled-back", "other").reason == "good"


def test_an_abort_is_kept_with_who_and_why_and_the_first_counts(storage: MemoryStorage) -> None:
    record = open_as(storage, elsewhere("A/1"))
    assert "A/1 (process 4711 on far) undoes rollout 1" in request_abort(
        storage, LINE, "ann", "smoke", 5.0, lambda: NOW
    )
    request_abort(storage, LINE, "bob", "too", 5.0, lambda: NOW)
    assert record.abort_request() == "aborted by ann: smoke"


def test_an_abort_that_nobody_will_read_says_so(storage: MemoryStorage) -> None:
    open_as(storage, elsewhere("A/1"))
    assert "nobody is at rollout 1: undo it with" in request_abort(storage, LINE, "ann", "x", 5.0, lambda: NOW + 900)


def test_going_back_is_not_aborted(storage: MemoryStorage) -> None:
    create_record(storage, make_plan(kind="back"), 1)
    with pytest.raises(RolloutError, match="is not stopped half-way"):
        request_abort(storage, LINE, "ann", "x", 5.0, lambda: NOW)


def test_a_record_lives_in_a_folder_as_well(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    record = open_or_continue(storage, LINE, 7, elsewhere("A/1"), make_plan, 5.0, lambda: NOW)
    record.add("canary", "started", group="canary")
    record.keep_tally({"stage": "canary", "counters": {}})
    latest = latest_record(storage, LINE)
    assert latest is not None
    assert [event.what for event in latest.events()] == ["started"]
    assert latest.tally()["stage"] == "canary"
    assert sorted(path.name for path in (tmp_path / "fleet/dots/rollouts/000001").iterdir()) == [
        *("events", "owners", "plan.json", "tally.json"),
    ]
