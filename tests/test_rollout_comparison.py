"""How a challenger is compared with the champion: what counts, what is found, and how it is said."""

import json
from dataclasses import replace
from typing import Any

import pytest
from fake_fleet import LINE, MODEL, OTHER, FakeFleet, MemoryStorage, digest_of
from test_rollout_record import LIMITS as PLANNED
from test_rollout_record import make_plan

from inspection.fleet.interface import DeviceStatus
from inspection.fleet.reports import DeviceReport, Figures, ShadowFigures, health_key, read_reports
from inspection.fleet.rollout.comparison import Comparison, Limits, compare_pairs
from inspection.fleet.rollout.devices import SILENT_S, Watch, Wish, look_at
from inspection.fleet.rollout.live import ENOUGH_PARTS, choose_baseline, compare_live
from inspection.fleet.rollout.stages import before_stage, counts_in, describe_stage, stage_alpha
from inspection.fleet.rollout.tally import Tally
from inspection.settings import FleetSettings

LIMITS = Limits.of(PLANNED)
NEW, OLD = digest_of(7), digest_of(6)
PLAN = replace(make_plan(), digest=NEW, champion_digest=OLD)


def report(thing: str = "a", at: float = 100.0, **more: Any) -> DeviceReport:
    values: dict[str, Any] = {
        **{"thing": thing, "at": at, "state": "ok", "serving": OLD, "deployed": OLD, "version": "6"},
        **{"self_test": "passed: 8", "figures": None, "shadow": None, **more},
    }
    return DeviceReport(**values)


def shadow(package: str = NEW, champion: str = OLD, skipped: int = 0, **pairs: int) -> ShadowFigures:
    found = {(name.split("_")[0], name.split("_")[1]): count for name, count in pairs.items()}
    return ShadowFigures(package, champion, "running", "", found, skipped)


def pairs(**counts: int) -> dict[str, int]:
    return {name.replace("_", "/"): count for name, count in counts.items()}


def compare(**counts: int) -> Comparison:
    return compare_pairs({"a": pairs(**counts)}, LIMITS, 0.01)


# Pairs of verdicts


def test_nothing_is_decided_before_enough_parts() -> None:
    assert compare_pairs({}, LIMITS, 0.01).verdict == "continue"
    assert compare(pass_pass=499).verdict == "continue"
    assert compare(pass_pass=500).verdict == "promote"


def test_parts_of_several_devices_are_one_comparison() -> None:
    found = compare_pairs({"a": pairs(pass_pass=300), "b": pairs(pass_pass=180, fail_fail=20)}, LIMITS, 0.01, skipped=4)
    assert (found.verdict, found.parts, found.devices, found.skipped) == ("promote", 500, {"a": 300, "b": 200}, 4)


@pytest.mark.parametrize(
    ("counts", "name", "words"),
    [
        ({"pass_pass": 300, "pass_fail": 60}, "rejects more", "does not accept 16.7% more of the parts"),
        ({"pass_pass": 300, "fail_pass": 60}, "rejects less", "accepts 16.7% more of the parts"),
        ({"fail_fail": 300, "fail_review": 100}, "reviews more", "sends 25.0% more of the parts to review"),
        ({"pass_pass": 200, "pass_fail": 50, "fail_pass": 50}, "decides differently", "on 33.3% of the parts"),
        ({"fail_fail": 300, "fail_error": 40}, "fails more", "no trustworthy score on 11.8% more of the parts"),
    ],
)
def test_each_way_to_be_worse_is_found_and_said_in_words(counts: dict[str, int], name: str, words: str) -> None:
    found = compare(**counts)
    assert found.verdict == "rollback"
    beyond = {finding.name: finding for finding in found.findings if finding.beyond}
    assert words in beyond[name].text
    assert beyond[name].text in found.reasons
    assert beyond[name].e_value >= beyond[name].needed == pytest.approx(500)


def test_review_fail_and_error_are_all_not_accepted() -> None:
    found = {finding.name: finding for finding in compare(pass_pass=90, fail_review=5, review_error=5).findings}
    assert found["rejects more"].share == 0
    assert found["decides differently"].share == 0
    assert found["reviews more"].share == 0
    assert found["fails more"].share == 0.05


def test_as_many_more_as_fewer_are_no_shift() -> None:
    found = {finding.name: finding for finding in compare(pass_pass=480, pass_fail=10, fail_pass=10).findings}
    assert found["rejects more"].share == 0
    assert found["decides differently"].share == 0.04
    assert not any(finding.beyond for finding in found.values())


def test_a_breach_counts_also_when_enough_parts_are_there() -> None:
    assert compare(pass_pass=5000, pass_fail=1000).verdict == "rollback"


def test_every_finding_says_the_smallest_change_that_would_be_found() -> None:
    for finding in compare(pass_pass=10).findings:
        assert finding.finds is not None
        assert finding.limit < finding.finds < 0.2


def test_a_comparison_can_be_kept_as_json_and_shown_as_a_table() -> None:
    found = compare(pass_pass=10, pass_fail=2, review_error=1)
    json.dumps(found.to_document(), allow_nan=False)
    assert found.pair_table() == [[10, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]


def test_overwhelming_evidence_is_still_a_number() -> None:
    json.dumps(compare(pass_fail=1_000_000).to_document(), allow_nan=False)


# What counts


def test_only_pairs_of_the_plans_two_packages_count() -> None:
    good = report(shadow=shadow(pass_pass=5, skipped=2))
    assert counts_in(good, PLAN, "shadow") == {"pass/pass": 5, "skipped": 2}
    assert counts_in(report(shadow=shadow(package=digest_of(5), pass_pass=5)), PLAN, "shadow") == {}
    assert counts_in(report(shadow=shadow(champion=digest_of(5), pass_pass=5)), PLAN, "shadow") == {}
    assert counts_in(report(), PLAN, "shadow") == {}


def test_only_figures_of_the_new_package_count_on_canaries() -> None:
    verdicts = {"pass": 4, "fail": 1, "review": 0, "error": 0}
    assert counts_in(report(figures=Figures(NEW, None, verdicts)), PLAN, "canary") == verdicts
    assert counts_in(report(figures=Figures(OLD, None, verdicts)), PLAN, "canary") == {}
    assert counts_in(report(), PLAN, "canary") == {}


def test_a_counter_that_was_there_before_the_stage_is_taken_off() -> None:
    tally = Tally()
    tally.begin("a", {"pass/pass": 100, "pass/fail": 9})
    tally.update("a", {"pass/pass": 130, "pass/fail": 9, "fail/pass": 1})
    assert tally.of("a") == {"fail/pass": 1, "pass/fail": 0, "pass/pass": 30}


def test_a_device_that_begins_to_count_anew_keeps_what_it_had() -> None:
    tally = Tally()
    tally.begin("a", {"pass": 100})
    tally.update("a", {"pass": 150, "fail": 2})
    tally.update("a", {"pass": 5, "fail": 0})
    tally.update("a", {"pass": 8, "fail": 1})
    assert tally.of("a") == {"fail": 3, "pass": 58}
    tally.update("a", {"pass": 2})
    assert tally.of("a") == {"fail": 3, "pass": 60}


def test_a_counter_that_began_anew_before_the_first_look_counts_what_it_shows() -> None:
    tally = Tally()
    tally.begin("a", {"pass": 100})
    tally.update("a", {"pass": 7})
    assert tally.of("a") == {"pass": 7}


def test_a_tally_goes_on_after_a_crash() -> None:
    tally = Tally()
    tally.begin("a", {"pass": 100})
    tally.update("a", {"pass": 150})
    tally.update("a", {"pass": 5})
    again = Tally(json.loads(json.dumps(tally.to_document())))
    again.update("a", {"pass": 9})
    again.update("b", {"fail": 2})
    assert again.total() == {"fail": 2, "pass": 59}
    assert again.things == ("a", "b")
    assert again.of("c") == {}


# Which reports are believed


def test_a_report_from_before_the_stage_is_not_of_it() -> None:
    watch = Watch({"a": 100.0})
    assert watch.fresh({"a": report(at=100.0)}, 101.0) == {}
    assert set(watch.fresh({"a": report(at=102.0)}, 103.0)) == {"a"}


def test_an_old_report_is_not_believed_and_a_wrong_clock_is_when_it_moves() -> None:
    watch = Watch({})
    assert watch.fresh({"a": report(at=100.0)}, 100.0 + SILENT_S + 1) == {}
    assert set(watch.fresh({"a": report(at=160.0)}, 5000.0)) == {"a"}
    assert watch.fresh({"a": report(at=160.0)}, 5000.0 + SILENT_S + 1) == {}


def test_a_report_from_the_future_is_not_believed_for_ever() -> None:
    watch = Watch({})
    assert watch.fresh({"a": report(at=1e9)}, 100.0) == {}


def test_reports_of_many_devices_are_read_and_those_that_are_cut_are_none() -> None:
    storage = MemoryStorage()
    fleet = FakeFleet(storage, {"canary": [f"d{number}" for number in range(40)]})
    fleet.tick()
    storage.write(health_key(LINE, "d3"), b'{"schema": "1.0"')
    found = read_reports(storage, LINE, [*fleet.groups["canary"], "unknown"])
    assert len(found) == 39
    assert list(found)[:4] == ["d0", "d1", "d2", "d4"]
    assert read_reports(storage, LINE, []) == {}


@pytest.mark.parametrize(
    ("change", "seen", "state", "message"),
    [
        ({}, {}, "done", ""),
        ({"state": "failed", "error": "no space"}, {}, "failed", "the deployment failed: no space"),
        ({"state": "failed", "deployment": "old", "error": "no space"}, {}, "waiting", "has not reached it"),
        ({"states": {MODEL: "BROKEN"}, "error": "exit 1"}, {}, "failed", f"{MODEL} does not stay up"),
        ({"states": {MODEL: "BROKEN"}, "state": "in-progress"}, {}, "waiting", "the deployment is in-progress"),
        ({"states": {OTHER: "BROKEN"}}, {}, "done", ""),
        ({"states": {MODEL: "ERRORED"}}, {}, "waiting", "had an error and is started again"),
        ({"state": "offline"}, {}, "away", "offline since 1970-01-01 00:00 UTC"),
        ({}, {"serving": OLD}, "waiting", "it serves package"),
        ({}, {"deployed": OLD}, "waiting", "package 000000000000 is deployed, and 000000000000 serves"),
        ({}, {"serving": OLD, "deployed": OLD}, "waiting", "it serves package"),
        ({}, {"serving": OLD, "faults": {"model": "bad"}}, "failed", "it refuses the model: bad"),
        ({}, {"serving": OLD, "deployed": OLD, "faults": {"model": "bad"}}, "waiting", "(model: bad)"),
        ({}, {"serving": OLD, "deployed": None, "faults": {"model": "bad"}}, "failed", "it refuses the model: bad"),
        ({}, {"state": "stopped"}, "waiting", "its inspector has stopped"),
        ({}, {"self_test": "failed: 3 images"}, "waiting", "its self-test: failed: 3 images"),
        ({}, {"faults": {"source": "no camera"}}, "done", ""),
    ],
)
def test_how_far_a_device_is(change: dict[str, Any], seen: dict[str, Any], state: str, message: str) -> None:
    values: dict[str, Any] = {
        **{"thing": "a", "group": "canary", "deployment": "new", "state": "succeeded", "components": {}},
        **{"states": {}, "error": "", "seen_at": 0.0, **change},
    }
    found = report(**{"serving": NEW, "deployed": NEW, **seen})
    wish = Wish("new", (MODEL,), NEW, "", 50, "canary", serving_before={"a": OLD})
    view = look_at(DeviceStatus(**values), found, found, 50, wish)
    assert (view.state, message in view.message) == (state, True), view


def test_a_device_that_does_not_say_what_is_asked_is_told_apart() -> None:
    status = DeviceStatus("a", "canary", "new", "succeeded", {}, {}, "", 0.0)
    wish = Wish("new", (MODEL,), NEW, "", 50, "canary")
    good = report(serving=NEW, deployed=NEW)
    assert "it has sent no health message" in look_at(status, None, None, 50, wish).message
    assert "no health message since" in look_at(status, good, None, 50, wish).message
    assert look_at(status, good, good, 12, wish).message == "12 of 50 parts"
    beside = replace(wish, champion=OLD)
    old = report()
    assert "says nothing of a challenger" in look_at(status, old, old, 50, beside).message
    other = report(shadow=shadow(package=digest_of(5)))
    assert "the challenger beside it is" in look_at(status, other, other, 50, beside).message
    loading = report(shadow=replace(shadow(), state="loading"))
    assert "the challenger beside it is loading" in look_at(status, loading, loading, 50, beside).message
    running = report(shadow=shadow(pass_pass=50))
    assert look_at(status, running, running, 50, beside).done


def test_devices_that_are_set_to_report_rarely_are_given_time() -> None:
    rare = FleetSettings(inspector={"health_every_s": 3600})
    assert describe_stage(PLAN, "canary", rare, 1).silent_s == 3 * 3600
    assert describe_stage(PLAN, "canary", FleetSettings(), 1).silent_s == SILENT_S


# Live figures


def test_without_a_champion_only_errors_are_tested() -> None:
    found = compare_live({"a": {"fail": 50}}, {}, LIMITS, 0.01, wanted=50)
    assert (found.kind, found.verdict) == ("errors", "promote")
    assert [finding.name for finding in found.findings] == ["fails more"]
    assert compare_live({"a": {"error": 50}}, {}, LIMITS, 0.01, wanted=50).verdict == "rollback"


def test_live_figures_are_held_against_the_champions_bound() -> None:
    known = {"pass": 950, "fail": 50, "review": 0, "error": 0}
    good = compare_live({"a": {"pass": 475, "fail": 25}}, known, LIMITS, 0.01, wanted=500)
    assert (good.kind, good.verdict) == ("live", "promote")
    bad = compare_live({"a": {"pass": 350, "fail": 150}}, known, LIMITS, 0.01, wanted=500)
    assert bad.verdict == "rollback"
    assert "30.0% of the parts are not accepted (150 of 500); want at most" in bad.reasons[0]
    assert "(the champion: 5.0% of 1,000)" in bad.reasons[0]
    less = compare_live({"a": {"pass": 500}}, {"pass": 500, "fail": 500}, LIMITS, 0.01, wanted=500)
    assert less.verdict == "rollback"
    assert "of the parts are accepted" in less.reasons[0]


def test_a_few_parts_of_the_champion_make_a_wide_limit() -> None:
    bad = {"a": {"pass": 70, "fail": 30}}
    assert compare_live(bad, {"pass": 19, "fail": 1}, LIMITS, 0.01, wanted=100).verdict == "promote"
    assert compare_live(bad, {"pass": 1900, "fail": 100}, LIMITS, 0.01, wanted=100).verdict == "rollback"


def test_without_a_comparison_errors_are_held_against_the_champions_all_the_same() -> None:
    known = {"pass": 900, "error": 100}
    found = compare_live({"a": {"pass": 450, "fail": 450, "error": 100}}, known, LIMITS, 0.01, 500, all_rates=False)
    assert [finding.name for finding in found.findings] == ["fails more"]
    assert found.verdict == "promote"


def test_the_baseline_is_the_stages_own_devices_when_they_saw_enough() -> None:
    own, others = {"pass": ENOUGH_PARTS}, {"pass": 10, "fail": 5000}
    assert choose_baseline(own, others) == own
    assert choose_baseline({"pass": 10}, others) == {"fail": 5000, "pass": 20}


def test_the_baseline_of_a_stage_is_what_devices_did_with_the_champion() -> None:
    storage = MemoryStorage()
    fleet = FakeFleet(storage, {"canary": ["a"], "fleet": ["b", "c"]})
    for thing, digest in (("a", OLD), ("b", OLD), ("c", digest_of(5))):
        device = fleet.devices[thing]
        device.serving = device.deployed = digest
        device.figures = {"pass": 20}
    fleet.tick()
    before = before_stage(storage, fleet, PLAN, "canary", "canary", {})
    assert sum(before["baseline"].values()) == 60, "30 of a and 30 of b, none of c, which serves another model"
    assert before["had"] == {"a": OLD}
    assert before_stage(storage, fleet, PLAN, "wave fleet", "fleet", {"pass": 900})["baseline"]["pass"] > 900


# Stages


def test_the_declared_error_is_shared_by_the_stages() -> None:
    for plan in (PLAN, replace(PLAN, comparison="live"), replace(PLAN, champion=None, wave_groups=("x", "y", "z"))):
        total = sum(stage_alpha(plan, stage) for stage in plan.stages)
        assert total == pytest.approx(LIMITS.false_rollback_rate)


def test_each_canary_has_its_part_in_the_shadow_run() -> None:
    options = FleetSettings()
    assert describe_stage(PLAN, "shadow", options, 1).parts == 50
    assert describe_stage(PLAN, "shadow", options, 100).parts == 5
    assert describe_stage(PLAN, "shadow", options, 10_000).parts == 1
    assert describe_stage(PLAN, "canary", options, 100).parts == 50


def test_a_share_of_a_wave_is_whole_devices() -> None:
    plan = replace(PLAN, limits={**PLANNED, "max_failed_devices": 0.1})
    assert describe_stage(plan, "wave fleet", FleetSettings(), 30).allowed == 3
    assert describe_stage(plan, "wave fleet", FleetSettings(), 9).allowed == 0
    assert describe_stage(plan, "canary", FleetSettings(), 30).allowed == 0
