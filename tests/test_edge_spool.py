"""The spool while all goes well: numbers, commits, what is found, what is sent, what makes room."""

import re
import sqlite3
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from spool_writer import image, quick_folder, result

import edge.spool.eviction
from edge.errors import SpoolError
from edge.spool import ImageQueue, KeptImage, Spool, SpoolSettings
from edge.spool.ages import LIMIT, Ages

FAST = SpoolSettings(durable_within_ms=10, retry_min_s=0.02, retry_max_s=0.1)
SLOW = SpoolSettings(durable_within_ms=60_000)  # nothing is committed unless somebody asks


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with quick_folder() as folder:
        yield folder


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Spool]]:
    """Opens spools in one folder, and closes what a test left open."""
    spools: list[Spool] = []

    def open_spool(settings: SpoolSettings = FAST, thing: str = "press-3", **more: Any) -> Spool:
        spools.append(Spool(tmp_path / "spool", thing, settings, **more))
        return spools[-1]

    yield open_spool
    for spool in spools:
        spool.close()


def rows(folder: Path, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(folder / "spool.db")
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def test_a_result_gets_thing_and_number_at_once_and_is_durable_within_the_time_set(
    opened: Callable[..., Spool], tmp_path: Path
) -> None:
    spool = opened()
    tickets = [spool.put(replace(result(f"k{i}"), thing="somebody else")) for i in range(20)]
    sequences = [ticket.result.sequence for ticket in tickets]
    assert sequences == list(range(sequences[0], sequences[0] + 20))
    assert tickets[3].result.id == f"press-3-{sequences[3]}"
    end = time.monotonic() + 20
    while not all(ticket.durable for ticket in tickets) and time.monotonic() < end:
        time.sleep(0.005)
    assert all(ticket.done() and not ticket.dropped for ticket in tickets)
    assert [row[0] for row in rows(tmp_path / "spool", "SELECT sequence FROM results ORDER BY sequence")] == sequences


def test_passes_wait_for_others_and_a_fail_does_not(opened: Callable[..., Spool]) -> None:
    spool = opened(SLOW)
    first = spool.put(result("a"))
    time.sleep(0.1)
    assert not first.durable
    urgent = spool.put(result("b", "fail"))
    end = time.monotonic() + 20
    while not urgent.durable and time.monotonic() < end:
        time.sleep(0.005)
    assert urgent.durable
    assert first.durable  # it shared the commit
    assert spool.figures().commits == 1


def test_who_waits_for_a_ticket_has_it_committed_at_once(opened: Callable[..., Spool]) -> None:
    ticket = opened(SLOW).put(result("a"))
    assert ticket.wait(20)
    assert ticket.wait(0)


def test_put_does_not_wait_for_a_disk_that_hangs(opened: Callable[..., Spool], tmp_path: Path) -> None:
    spool = opened()
    assert spool.put(result("first")).wait(20)
    blocker = sqlite3.connect(tmp_path / "spool" / "spool.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")  # the writer now hangs in its commit
    ticket = spool.put(result("hangs", "fail"))
    took = []
    for number in range(300):
        start = time.perf_counter()
        spool.put(result(f"k{number}"))
        took.append(time.perf_counter() - start)
    assert not ticket.durable
    blocker.execute("ROLLBACK")
    blocker.close()
    assert ticket.wait(20)
    assert statistics.median(took) < 0.01  # a commit that hangs would show as seconds


def test_a_source_key_is_known_from_put_on_and_after_a_restart(opened: Callable[..., Spool]) -> None:
    spool = opened(SLOW)
    waiting = spool.put(result("waits"))
    assert spool.find("waits") == waiting.result
    assert spool.find("never seen") is None
    assert spool.put(result("waits", "fail")).result == waiting.result
    assert spool.flush(20)
    assert spool.find("waits") == waiting.result
    spool.close()
    again = opened(SLOW)
    assert again.find("waits") == waiting.result
    assert again.figures().queue_length == 1


def test_a_source_key_that_is_stored_keeps_its_result_whatever_is_put_later(opened: Callable[..., Spool]) -> None:
    spool = opened()
    first = spool.put(result("key"))
    assert first.wait(20)
    second = spool.put(result("key", "fail"), image("key"))
    assert second.wait(20)
    assert second.result == first.result
    figures = spool.figures()
    assert (figures.duplicates, figures.queue_length, figures.upload_backlog) == (1, 1, 0)


@pytest.mark.parametrize("key", ["\udcff\udcfe.jpg", "x" * 5000, "tab\t\x00.jpg", "漢字.png"])
def test_any_file_name_can_be_a_source_key(opened: Callable[..., Spool], key: str) -> None:
    spool = opened()
    ticket = spool.put(result(key))
    assert ticket.wait(20)
    assert spool.find(key) == ticket.result


def test_numbers_go_on_without_a_gap_after_a_clean_end(opened: Callable[..., Spool]) -> None:
    spool = opened()
    last = spool.put(result("a")).result.sequence
    assert spool.close()
    again = opened()
    assert again.put(result("b")).result.sequence == last + 1
    assert again.gaps() == []


def test_a_number_may_be_taken_before_its_result_is_put(opened: Callable[..., Spool]) -> None:
    spool = opened()
    early, late = spool.reserve(), spool.reserve()
    assert spool.put(result("other")).result.sequence == late + 1
    assert spool.flush(20)
    assert [found.source_key for found in spool.unsent(False, 10)] == ["other"]
    spool.put(replace(result("late"), sequence=late), reserved=True)
    ticket = spool.put(replace(result("early"), sequence=early), reserved=True)
    assert ticket.result.id == f"press-3-{early}"
    assert spool.flush(20)
    assert [found.source_key for found in spool.unsent(False, 10)] == ["early", "late", "other"]
    assert spool.close()
    again = opened()
    assert again.next_sequence == late + 2
    assert again.gaps() == []


def test_a_number_whose_result_was_never_put_is_in_a_gap_after_the_next_start(opened: Callable[..., Spool]) -> None:
    spool = opened()
    spool.put(result("a"))
    lost = spool.reserve()
    assert spool.flush(20)
    spool.close()
    (gap,) = opened().gaps()
    assert gap.first_sequence <= lost < gap.next_sequence


def test_a_device_with_a_new_disk_does_not_begin_again_at_its_old_numbers(tmp_path: Path) -> None:
    old = Spool(tmp_path / "old", "press-3", FAST, wall_clock=lambda: 1_790_000_000.0)
    last = max(old.put(result(f"k{i}")).result.sequence for i in range(50))
    old.close()
    new = Spool(tmp_path / "new", "press-3", FAST, wall_clock=lambda: 1_790_000_001.0)
    assert new.put(result("k")).result.sequence > last
    new.close()


def test_a_clock_that_was_never_set_makes_no_number_repeat(tmp_path: Path) -> None:
    firsts = set()
    for name in ("one", "two", "three"):
        spool = Spool(tmp_path / name, "press-3", FAST, wall_clock=lambda: 12.0)
        firsts.add(spool.put(result("k")).result.sequence)
        spool.close()
    assert len(firsts) == 3
    assert max(firsts) < 2**53  # exact in every JSON reader


def test_clock_jumps_reorder_and_lose_nothing(opened: Callable[..., Spool]) -> None:
    clock = [1_790_000_000.0]
    spool = opened(wall_clock=lambda: clock[0])
    keys = []
    for number, jump in enumerate((0.0, 3600.0, -7200.0, 1e8, -1.7e9)):
        clock[0] += jump
        keys.append(f"k{number}")
        spool.put(replace(result(keys[-1]), captured_at=clock[0]))
    assert spool.flush(20)
    assert [found.source_key for found in spool.unsent(False, 10)] == keys
    age = spool.figures().oldest_age_s
    assert age is not None
    assert 0 <= age < 60
    spool.close()
    again = opened(wall_clock=lambda: 0.0)
    again.put(result("last"))
    assert again.flush(20)
    assert [found.source_key for found in again.unsent(False, 10)] == [*keys, "last"]
    assert again.figures().oldest_age_s is not None


def test_unsent_lists_oldest_first_by_urgency_until_it_is_marked(opened: Callable[..., Spool]) -> None:
    spool = opened()
    for number, verdict in enumerate(("pass", "fail", "pass", "review", "error", "pass")):
        spool.put(result(f"{number}-{verdict}", verdict))
    assert spool.unsent(False, 10) == [] or spool.flush(20)
    assert spool.flush(20)
    urgent, passes = spool.unsent(True, 10), spool.unsent(False, 10)
    assert [found.source_key for found in urgent] == ["1-fail", "3-review", "4-error"]
    assert [found.source_key for found in passes] == ["0-pass", "2-pass", "5-pass"]
    spool.mark_sent([urgent[1].sequence, passes[0].sequence])
    assert [found.source_key for found in spool.unsent(True, 2)] == ["1-fail", "4-error"]
    assert [found.source_key for found in spool.unsent(False, 1)] == ["2-pass"]
    assert spool.figures().queue_length == 4
    assert spool.close()
    again = opened()
    assert [found.source_key for found in again.unsent(False, 10)] == ["2-pass", "5-pass"]
    assert again.find("3-review") is not None


def test_marks_of_things_that_are_not_there_do_no_harm(opened: Callable[..., Spool]) -> None:
    spool = opened()
    spool.mark_sent([1, 2, 10**18, -5])
    assert spool.flush(20)
    assert spool.figures().queue_length == 0


def test_sent_results_are_forgotten_beyond_the_number_kept(
    opened: Callable[..., Spool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.spool.eviction, "TRIM", 10)
    spool = opened(replace(FAST, keep_sent=100))
    for number in range(150):
        spool.put(result(f"k{number:03d}"))
    assert spool.flush(20)
    spool.mark_sent([found.sequence for found in spool.unsent(False, 140)])
    assert spool.flush(20)
    end = time.monotonic() + 20
    while spool.find("k000") is not None and time.monotonic() < end:
        time.sleep(0.01)
    assert spool.find("k000") is None
    assert spool.find("k139") is not None
    assert [found.source_key for found in spool.unsent(False, 100)] == [f"k{number}" for number in range(140, 150)]


def test_on_committed_wakes_a_sender(opened: Callable[..., Spool]) -> None:
    spool, woken = opened(), threading.Event()
    spool.on_committed = woken.set
    spool.put(result("a", "fail"))
    assert woken.wait(20)
    assert spool.unsent(True, 1)


def test_results_from_many_threads_all_arrive_under_numbers_of_their_own(opened: Callable[..., Spool]) -> None:
    spool = opened()
    threads = [
        threading.Thread(target=lambda who=who: [spool.put(result(f"{who}-{i}")) for i in range(100)])
        for who in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert spool.flush(20)
    found = spool.unsent(False, 1000)
    assert len({stored.sequence for stored in found}) == len(found) == 600


def let_it_make_room(spool: Spool) -> None:
    """Making room goes on in portions after the commits."""
    assert spool.flush(30)
    end = time.monotonic() + 30
    while spool._writer._evicting and time.monotonic() < end:
        time.sleep(0.002)


def fill_until_evicted(spool: Spool, verdict: str, until: Callable[[Spool], bool]) -> int:
    """Put results until something happened; returns how many."""
    number = 0
    while not until(spool) and number < 20_000:
        for _ in range(200):
            spool.put(result(f"{verdict}-{number}", verdict))
            number += 1
        let_it_make_room(spool)
    return number


def test_room_is_made_in_order_of_value_and_every_eviction_is_counted(
    opened: Callable[..., Spool], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(edge.spool.eviction, "SETTLED_FLOOR", 100)
    monkeypatch.setattr(edge.spool.eviction, "PORTION", 100)
    spool = opened(replace(FAST, quota_bytes=600_000, keep_sent=100))
    for number in range(8):
        spool.put(result(f"audit-{number}"), image(f"audit-{number}", "audit", 20_000))
        spool.put(result(f"review-{number}", "review"), image(f"review-{number}", "review", 20_000))
        spool.put(result(f"fail-{number}", "fail"), image(f"fail-{number}", "fail", 10_000))
    put = fill_until_evicted(spool, "pass", lambda s: s.figures().folded > 300)
    evicted = spool.figures().evicted
    assert set(evicted) == {"pass"}
    folded = spool.folded()
    assert sum(counts.count for counts in folded) == evicted["pass"]
    assert sum(counts.count for counts in folded) + len(spool.unsent(False, 10_000)) == put + 8
    assert spool.unsent(False, 0) == []  # nothing is in hand any more
    assert len({counts.id for counts in folded}) == len(folded)
    reported = evicted["pass"]
    spool.mark_folded_sent(folded)
    assert spool.folded() == []
    # Fails push out all else, in this order.
    caplog.clear()
    number = 0
    while "fail" not in spool.figures().evicted and number < 30_000:
        for _ in range(100):
            spool.put(result(f"flood-{number}", "fail"))
            number += 1
        let_it_make_room(spool)
    logged = [record.getMessage() for record in caplog.records if "event=spool_evicted" in record.getMessage()]
    order = list(dict.fromkeys(name for message in logged for name in re.findall(r'"([a-z-]+)": \d', message)))
    assert order == ["pass", "audit-image", "review-image", "fail-image", "review", "fail"]
    counted = spool.figures().evicted
    assert (counted["audit-image"], counted["review-image"], counted["fail-image"], counted["review"]) == (8, 8, 8, 8)
    assert counted["pass"] == put + 8
    assert list((tmp_path / "spool" / "images").iterdir()) == []
    assert len(spool.unsent(True, 100_000)) == number + 8 - counted["fail"]
    assert spool.flush(20)
    assert sum(counts.count for counts in spool.folded()) == put + 8 - reported
    spool.close()
    again = opened()
    assert again.figures().evicted == counted


def test_an_evicted_result_is_still_found_by_its_source_key(
    opened: Callable[..., Spool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.spool.eviction, "PORTION", 50)
    spool = opened(replace(FAST, quota_bytes=1_000_000))
    first = spool.put(replace(result("first"), detail="gone when evicted")).result
    fill_until_evicted(spool, "pass", lambda s: s.figures().folded > 0)
    found = spool.find("first")
    assert found is not None
    assert (found.sequence, found.verdict, found.action, found.score) == (first.sequence, "pass", "accept", first.score)
    assert found.detail is None
    assert first.sequence not in [unsent.sequence for unsent in spool.unsent(False, 5)]


def test_the_file_shrinks_when_images_need_the_room_of_rows(
    opened: Callable[..., Spool], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(edge.spool.eviction, "TRIM", 10)
    spool = opened(replace(FAST, quota_bytes=1_000_000, keep_sent=100))
    for number in range(1000):
        spool.put(result(f"k{number}"))
    assert spool.flush(30)
    grown = (tmp_path / "spool" / "spool.db").stat().st_size + (tmp_path / "spool" / "spool.db-wal").stat().st_size
    spool.mark_sent([found.sequence for found in spool.unsent(False, 1000)])
    for number in range(40):
        spool.put(result(f"fail-{number}", "fail"), image(f"fail-{number}", "fail", 20_000))
        assert spool.flush(30)
    figures = spool.figures()
    assert grown > 600_000
    assert figures.bytes <= 1_000_000
    assert figures.evicted == {}
    assert figures.upload_backlog == 40


def test_images_lie_on_disk_with_their_sidecar_until_the_store_confirms(
    opened: Callable[..., Spool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.spool.writer.TIDY_EVERY_S", 0.05)
    spool = opened()
    tickets = [spool.put(result(f"k{i}", "review"), image(f"k{i}")) for i in range(4)]
    assert tickets[-1].wait(20)
    queue = ImageQueue(tmp_path / "spool")
    waiting = queue.waiting(3)
    assert [kept.sequence for kept in waiting] == [ticket.result.sequence for ticket in tickets[:3]]
    kept = waiting[0]
    assert kept.path.read_bytes() == image("k0").data
    assert kept.sidecar["id"] == tickets[0].result.id
    assert kept.sidecar["result"]["sequence"] == tickets[0].result.sequence
    assert kept.sidecar["why"] == "review"
    assert (kept.verdict, kept.thing, kept.line) == ("review", "press-3", "sample")
    queue.confirm(kept.sequence)
    queue.confirm(kept.sequence)
    queue.confirm(123)
    assert kept.sequence not in [left.sequence for left in queue.waiting(10)]
    assert queue.figures().waiting == 3
    end = time.monotonic() + 20
    while spool.figures().upload_backlog != 3 and time.monotonic() < end:
        spool.put(result(f"more-{time.monotonic()}"))
        time.sleep(0.02)
    assert spool.figures().upload_backlog == 3
    assert len(list((tmp_path / "spool" / "images").iterdir())) == 3
    assert spool.figures().evicted == {}
    queue.close()


def test_an_image_queue_without_a_spool_is_empty(tmp_path: Path) -> None:
    queue = ImageQueue(tmp_path / "none")
    assert queue.waiting(10) == []
    assert queue.figures().waiting == 0
    queue.close()


def test_files_and_rows_of_images_that_a_crash_left_alone_are_tidied_and_counted(
    opened: Callable[..., Spool], tmp_path: Path
) -> None:
    spool = opened()
    tickets = [spool.put(result(f"k{i}", "review"), image(f"k{i}")) for i in range(3)]
    spool.close()
    images = tmp_path / "spool" / "images"
    (images / f"{tickets[0].result.sequence}.jpg").unlink()
    (images / "999.jpg").write_bytes(b"never committed")
    (images / "998.png").write_bytes(b"")
    again = opened()
    assert again.figures().evicted == {"lost-image": 1}
    assert again.figures().upload_backlog == 2
    assert sorted(path.name for path in images.iterdir()) == sorted(f"{t.result.sequence}.jpg" for t in tickets[1:])


@pytest.mark.parametrize(
    "kept",
    [
        KeptImage(b"x", "../../etc/passwd", "review", 1.0, {}),
        KeptImage(b"x", ".sent", "review", 1.0, {}),
        KeptImage(b"x", "jpg", "review", 1.0, {}),
        KeptImage(b"x", ".jpg", "review", 1.0, {"score": float("nan")}),
        KeptImage(b"x", ".jpg", "review", 1.0, {"what": object()}),
    ],
)
def test_an_image_that_cannot_be_stored_is_refused_at_once(opened: Callable[..., Spool], kept: KeptImage) -> None:
    spool = opened()
    with pytest.raises(SpoolError, match="image"):
        spool.put(result("k", "review"), kept)
    assert spool.figures().in_memory == 0


def test_two_inspectors_cannot_use_one_folder(opened: Callable[..., Spool]) -> None:
    opened()
    with pytest.raises(SpoolError, match="another inspector"):
        opened()


def test_a_closed_spool_takes_nothing(opened: Callable[..., Spool]) -> None:
    spool = opened()
    spool.close()
    with pytest.raises(SpoolError, match="closed"):
        spool.put(result("k"))
    assert spool.close()


def test_ages_stay_few_and_true_over_a_year() -> None:
    ages = Ages(0.0)
    for hour in range(24 * 365):
        ages.note(hour * 10, hour * 3600.0)
    assert len(ages._times) <= LIMIT + 1
    month_ago = (24 * 365 - 24 * 30) * 10
    assert ages.age_s(month_ago, 24 * 365 * 3600.0, 0.0) == pytest.approx(30 * 86400, rel=0.01)


def test_settings_name_every_fault() -> None:
    assert SpoolSettings().check() == []
    faults = SpoolSettings(quota_bytes=5, durable_within_ms=-1, retry_min_s=9.0, retry_max_s=2.0).check()
    assert [fault.split(":")[0] for fault in faults] == ["quota_bytes", "durable_within_ms", "retry_min_s"]


@pytest.mark.parametrize("disk", ["takes", "refuses"])
def test_what_the_sender_has_in_hand_is_not_folded(opened: Callable[..., Spool], tmp_path: Path, disk: str) -> None:
    if disk == "refuses":
        (tmp_path / "spool").write_text("no folder")
    settings = replace(FAST, quota_bytes=600_000, memory_bytes=200_000, durable_within_ms=0)
    spool = opened(settings)
    for number in range(40):
        spool.put(result(f"pass-{number}"))
    spool.flush(20)
    in_hand = spool.unsent(False, 10)  # their message is under way
    assert len(in_hand) == 10
    number = 0
    while spool.figures().folded < 30:
        spool.put(result(f"flood-{number}", "fail"), image(f"flood-{number}", "fail", 20_000))
        spool.flush(20)
        number += 1
        assert number < 200
    spool.mark_sent([sent.sequence for sent in in_hand])
    assert sum(counts.count for counts in spool.folded()) == spool.figures().folded == 30
    assert spool.unsent(False, 100) == []


def test_nothing_is_both_delivered_and_folded_while_room_is_made_all_the_time(
    opened: Callable[..., Spool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.spool.eviction, "PORTION", 20)
    monkeypatch.setattr(edge.spool.eviction, "SETTLED_FLOOR", 50)
    spool = opened(replace(FAST, quota_bytes=300_000, keep_sent=100))
    delivered: set[int] = set()
    done = threading.Event()

    def send() -> None:
        while not done.is_set():
            batch = [found.sequence for found in spool.unsent(False, 7)]
            time.sleep(0.001)  # on its way
            delivered.update(batch)
            spool.mark_sent(batch)

    sender = threading.Thread(target=send)
    sender.start()
    put = 0
    while put < 6000:
        for _ in range(100):
            spool.put(result(f"k{put}"))
            put += 1
        assert spool.flush(30)
    done.set()
    sender.join()
    let_it_make_room(spool)
    left = spool.figures().queue_length
    assert len(delivered) > 0
    assert spool.figures().folded > 0
    assert len(delivered) + spool.figures().folded + left == put


def test_source_keys_of_parts_that_stay_are_known_for_good(
    opened: Callable[..., Spool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.spool.eviction, "TRIM", 10)
    spool = opened(replace(FAST, keep_sent=100), remembers_all=True)
    sequences = {f"k{n}": spool.put(result(f"k{n}", "fail" if n % 2 else "pass")).result.sequence for n in range(400)}
    assert spool.flush(20)
    for urgent in (True, False):
        spool.mark_sent([found.sequence for found in spool.unsent(urgent, 400)])
        assert spool.flush(20)
    assert spool._writer.store is not None
    end = time.monotonic() + 20
    while spool._writer.store.settled >= 110 and time.monotonic() < end:
        spool.mark_sent([0])  # something to commit
        spool.flush(20)
    assert spool.close()
    again = opened()
    assert again._writer.store is not None
    assert again._writer.store.settled < 110
    for key, sequence in sequences.items():
        found = again.find(key)
        assert found is not None
        verdict = "fail" if int(key[1:]) % 2 else "pass"
        assert (found.id, found.verdict) == (f"press-3-{sequence}", verdict)
    repeated = again.put(result("k0"))
    assert repeated.wait(20)
    assert repeated.result.sequence == sequences["k0"]
    assert again.put(result("new")).result.sequence > max(sequences.values())
    assert again.figures().notice is None


def test_more_parts_that_stay_than_are_remembered_are_told(
    opened: Callable[..., Spool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.spool.eviction, "TRIM", 10)
    monkeypatch.setattr(edge.spool.eviction, "KNOWN_LIMIT", 200)
    spool = opened(replace(FAST, keep_sent=100), remembers_all=True)
    for number in range(500):
        spool.put(result(f"k{number}"))
    assert spool.flush(20)
    spool.mark_sent([found.sequence for found in spool.unsent(False, 500)])
    end = time.monotonic() + 20
    while spool.figures().notice is None and time.monotonic() < end:
        spool.mark_sent([0])
        spool.flush(20)
    assert "inspected again" in (spool.figures().notice or "")
    assert spool.find("k0") is None
    assert spool.find("k499") is not None
