"""Health by component: what is told, since when, and within 5 kB."""

import json

from edge.health import MAX_MESSAGE_BYTES, Health, dump_health


def a_health() -> Health:
    return Health("tiny", "press-3", {"inspector": "0.1.0"})


def test_all_well_says_ok_with_versions_and_package() -> None:
    health = a_health()
    health.set("source", True, "folder in", 100.0)
    health.set_package("abc", "abc", "3 golden images, largest difference 0.01", "int8-abc")
    message = health.message(160.0, clock_synced=True)
    assert message["state"] == "ok"
    assert (message["thing"], message["line"], message["clock_synced"]) == ("press-3", "tiny", True)
    assert message["versions"]["inspector"] == "0.1.0"
    assert message["versions"]["python"]
    assert message["package"]["self_test"].startswith("3 golden images")
    assert message["components"]["source"] == {"ok": True, "message": "folder in", "since": 100.0}
    assert message["last_error"] is None


def test_one_ill_component_degrades_the_whole() -> None:
    health = a_health()
    health.set("source", True, "", 0.0)
    health.set("spool", False, "the disk is full; results are in memory", 5.0)
    assert not health.ok
    assert health.message(6.0)["state"] == "degraded"
    health.set("spool", True, "", 7.0)
    assert health.ok


def test_a_package_that_serves_without_being_the_deployed_one_degrades() -> None:
    health = a_health()
    health.set_package("old", "new", "passed")
    assert not health.ok
    health.set_package("new", "new", "passed")
    assert health.ok


def test_since_tells_when_the_state_began_and_messages_may_change_meanwhile() -> None:
    health = a_health()
    health.set("transport", False, "broker away, try 1", 10.0)
    health.set("transport", False, "broker away, try 2", 70.0)
    told = health.message(80.0)["components"]["transport"]
    assert (told["since"], told["message"]) == (10.0, "broker away, try 2")
    health.set("transport", True, "connected", 90.0)
    assert health.message(95.0)["components"]["transport"]["since"] == 90.0


def test_a_change_is_told_apart_from_a_repetition() -> None:
    health = a_health()
    assert not health.set("source", True, "", 0.0)  # well from the start: nobody needs to know at once
    assert health.set("source", False, "camera gone", 1.0)
    assert not health.set("source", False, "camera still gone", 2.0)
    assert health.set("source", True, "", 3.0)
    assert health.set("uploader", False, "no bucket", 3.0)


def test_the_last_error_stays_until_the_next() -> None:
    health = a_health()
    health.note_error("decode", "part-3.jpg: truncated", 50.0)
    health.note_error("stuck", "the same picture", 60.0)
    assert health.message(100.0)["last_error"] == {"code": "stuck", "message": "the same picture", "at": 60.0}


def test_time_up_is_told_and_a_clock_that_went_back_makes_it_no_less_than_nothing() -> None:
    health = a_health()
    assert health.message(1000.0)["up_s"] == 0
    assert health.message(1060.0)["up_s"] == 60
    assert health.message(5.0)["up_s"] == 0


def test_what_happened_at_the_source_is_counted() -> None:
    health = a_health()
    assert "source_counts" not in health.message(0.0)
    health.set_source_counts({"parts": 7, "vanished": 0, "triggers_invalid": 2})
    assert health.message(1.0)["source_counts"] == {"parts": 7, "triggers_invalid": 2}


def test_counts_give_way_to_what_is_wrong() -> None:
    health = a_health()
    health.set_source_counts({f"count-{index:03d}-{'x' * 60}": 10**12 for index in range(100)})
    message = health.message(1.0)
    assert len(message["source_counts"]) == 40
    assert len(dump_health(message)) <= MAX_MESSAGE_BYTES
    for index in range(12):
        health.set(f"component-{index:02d}", False, "what is wrong and what to do " * 20, 0.0)
    message = health.message(2.0)
    assert len(dump_health(message)) <= MAX_MESSAGE_BYTES
    assert "source_counts" not in message
    assert len(message["components"]["component-00"]["message"]) >= 70


def test_endless_messages_and_odd_characters_stay_within_the_limit() -> None:
    health = a_health()
    for index in range(40):
        health.set(f"component-{index:02d}", index % 5 != 0, "\U0001f4a5" * 10_000, 0.0)
    health.note_error("decode", "\x00" * 10_000, 0.0)
    health.set_package("a" * 64, "b" * 64, "\u00e9" * 1000)
    health.set_version("runtime", "v" * 5000)
    message = health.message(1.0)
    assert len(dump_health(message)) <= MAX_MESSAGE_BYTES
    assert not any(component["ok"] for component in list(message["components"].values())[:8])  # the ill ones first
    assert json.loads(dump_health(message))["thing"] == "press-3"
