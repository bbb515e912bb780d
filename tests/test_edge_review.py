"""Which images are kept and with what probability; the sidecar; the stuck camera."""

import hashlib
import io
import json
import random
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge.errors import SidecarError
from edge.part import Part
from edge.results import Result
from edge.review import ReviewPolicy, ReviewSettings, StuckCamera
from edge.selection import DAY_S, HOUR_S, Selector, thinning
from edge.sidecar import ImageFacts, Selection, Sidecar, dump_sidecar, parse_sidecar, read_sidecar

PAST = Path(__file__).with_name("golden") / "sidecar-1.0.json"


def a_result(verdict: str = "fail", **changes: Any) -> Result:
    fields: dict[str, Any] = {
        "thing": "press-3",
        "sequence": 0,
        "source_key": "part-17.jpg",
        "line": "tiny",
        "captured_at": 1_770_000_000.5,
        "verdict": verdict,
        "action": {"pass": "accept", "review": "review"}.get(verdict, "reject"),
        "score": 1.5,
        "package": "sha256:abc",
    }
    return Result(**{**fields, **changes})


def jpeg(size: tuple[int, int] = (32, 24), seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=80)
    return stream.getvalue()


def a_part(**changes: Any) -> Part:
    fields: dict[str, Any] = {"source_key": "k", "name": "n", "captured_at": 0.0, "started_s": 0.0, "data": jpeg()}
    return Part(**{**fields, **changes})


def a_policy(**changes: Any) -> ReviewPolicy:
    return ReviewPolicy(ReviewSettings(**changes), seed=1)


# --- the policy


@pytest.mark.parametrize("verdict", ["review", "fail", "error"])
def test_reviews_fails_and_errors_are_kept_byte_by_byte_as_captured(verdict: str) -> None:
    part = a_part()
    image = a_policy(audit_share=0.0).keep(a_result(verdict, label="scratch"), part, 0.0)
    assert image is not None
    assert (image.data, image.suffix, image.reason, image.probability) == (part.data, ".jpg", verdict, 1.0)
    sidecar = read_sidecar(image.sidecar)
    assert sidecar.image == ImageFacts(hashlib.sha256(image.data).hexdigest(), ".jpg", as_captured=True)
    assert sidecar.selection == Selection(
        reason=image.reason, probability=1.0, audit_share=0.0, stratum=f"{verdict}/scratch/{verdict}"
    )


def test_passes_are_kept_as_the_audit_share_says_and_carry_it() -> None:
    policy = a_policy(audit_share=0.1, max_per_hour=100_000, max_per_day=1_000_000)
    images = [policy.keep(a_result("pass"), a_part(), 0.0) for _ in range(3000)]
    kept = [image for image in images if image is not None]
    assert 230 < len(kept) < 370
    assert {(image.reason, image.probability) for image in kept} == {("audit", 0.1)}
    assert policy.counts.kept == {"pass/-/audit": len(kept)}


def test_without_an_audit_share_no_pass_is_kept() -> None:
    policy = a_policy(audit_share=0.0)
    assert all(policy.keep(a_result("pass"), a_part(), 0.0) is None for _ in range(200))


def test_who_is_audited_depends_on_no_verdict_no_time_and_no_cap() -> None:
    def audited(verdicts: list[str], times: list[float], cap: int) -> set[int]:
        selector = Selector(0.2, max_per_hour=cap, max_per_day=100_000, seed=7)
        drawn = set()
        for index, (verdict, now_s) in enumerate(zip(verdicts, times, strict=True)):
            before = sum((selector.counts.kept + selector.counts.thinned + selector.counts.capped).values())
            selector.select(verdict, None, True, now_s)  # type: ignore[arg-type]
            after = sum((selector.counts.kept + selector.counts.thinned + selector.counts.capped).values())
            if verdict == "pass" and after > before:
                drawn.add(index)
        return drawn

    passes = ["pass"] * 400
    mixed = ["fail" if index % 3 == 0 else "pass" for index in range(400)]
    slow, fast = [index * 60.0 for index in range(400)], [0.0] * 400
    everyone = audited(passes, slow, 100_000)
    assert 50 < len(everyone) < 110
    assert audited(passes, fast, 4) == everyone
    assert audited(mixed, slow, 100_000) == {index for index in everyone if index % 3 != 0}


def test_the_seed_repeats_the_draws_and_no_seed_does_not() -> None:
    def drawn(seed: int | None) -> list[bool]:
        selector = Selector(0.5, 10_000, 10_000, seed)
        return [selector.select("pass", None, True, 0.0) is not None for _ in range(200)]

    assert drawn(3) == drawn(3) != drawn(4)
    assert drawn(None) != drawn(None)


def test_a_cap_is_never_exceeded_and_a_new_hour_begins_anew() -> None:
    selector = Selector(0.0, max_per_hour=20, max_per_day=50, seed=0)
    kept = [
        [selector.select("fail", None, True, hour * HOUR_S + second * 0.1) is not None for second in range(30_000)]
        for hour in range(4)
    ]
    by_hour = [sum(hour) for hour in kept]
    assert all(10 <= count <= 20 for count in by_hour[:2])
    assert sum(by_hour) <= 50
    counts = selector.counts
    assert sum(counts.kept.values()) + sum(counts.thinned.values()) + sum(counts.capped.values()) == 120_000
    assert selector.select("fail", None, True, DAY_S + 1) is not None


def test_a_clock_that_goes_back_begins_a_new_window() -> None:
    selector = Selector(0.0, max_per_hour=1, max_per_day=1, seed=0)
    assert selector.select("fail", None, True, 1000.0) is not None
    assert selector.select("fail", None, True, 1001.0) is None
    assert selector.select("fail", None, True, 5.0) is not None


def test_reasons_have_their_own_places_so_that_fails_take_none_from_the_audit() -> None:
    selector = Selector(1.0, max_per_hour=4, max_per_day=4, seed=0)
    for _ in range(1000):
        selector.select("fail", "scratch", True, 0.0)
    kept = selector.select("pass", None, True, 0.0)
    assert kept is not None
    assert kept.probability == 1.0


def test_what_caps_dropped_is_counted_by_stratum() -> None:
    selector = Selector(1.0, max_per_hour=2, max_per_day=2, seed=0)
    for label in ("scratch", "scratch", "scratch", "dent"):
        selector.select("fail", label, True, 0.0)
    selector.select("review", "dent", True, 0.0)
    counts = selector.counts
    total = counts.kept + counts.thinned + counts.capped
    assert total == {"fail/scratch/fail": 3, "fail/dent/fail": 1, "review/dent/review": 1}
    assert counts.kept["review/dent/review"] == 1


def test_changed_settings_count_from_the_next_part_and_places_taken_stay_taken() -> None:
    policy = a_policy(audit_share=0.0, max_per_hour=2)
    assert policy.keep(a_result("fail"), a_part(), 0.0) is not None
    policy.change(ReviewSettings(audit_share=1.0, max_per_hour=1))
    assert policy.keep(a_result("fail"), a_part(), 1.0) is None
    image = policy.keep(a_result("pass"), a_part(), 2.0)
    assert image is not None
    assert image.sidecar["selection"]["audit_share"] == 1.0
    camera = StuckCamera(ReviewSettings(stuck_after=5))
    picture = exposure(1, 1.0)
    assert verdicts(camera, [picture, picture]) == [False, False]
    camera.change(ReviewSettings(stuck_after=2))
    assert verdicts(camera, [picture]) == [True]


def test_no_place_at_all_keeps_nothing() -> None:
    selector = Selector(1.0, max_per_hour=0, max_per_day=100, seed=0)
    assert selector.select("fail", None, True, 0.0) is None
    assert selector.counts.capped == {"fail/-/fail": 1}


@pytest.mark.parametrize("places", [1, 2, 3, 10, 100])
def test_thinning_falls_from_one_to_almost_nothing_and_then_to_nothing(places: int) -> None:
    chances = [thinning(taken, places) for taken in range(places + 2)]
    assert chances[0] == 1.0
    assert chances == sorted(chances, reverse=True)
    assert all(2.0**-16 <= chance <= 1 for chance in chances[:places])
    assert chances[places:] == [0.0, 0.0]


def day_of_parts(seed: int) -> list[tuple[str, bool, float]]:
    """Verdict, whether the part is bad, and when it came: a stream in which defects and escapes come in bursts."""
    draw = random.Random(seed)
    parts = []
    for index in range(900):
        now_s = index * 8.0  # two hours
        late = now_s % HOUR_S > 2600  # a tool wears out towards the end of each hour
        bad = draw.random() < (0.4 if late else 0.02)
        verdict = draw.choices(["pass", "review", "fail"], (0.3, 0.3, 0.4) if bad else (0.93, 0.05, 0.02))[0]
        parts.append((verdict, bad, now_s))
    return parts


def test_weighted_sums_over_kept_images_estimate_escapes_without_bias_though_caps_thin() -> None:
    parts = day_of_parts(seed=11)
    escapes = sum(bad for verdict, bad, _ in parts if verdict == "pass")
    all_bad = sum(bad for _, bad, _ in parts)
    assert escapes > 20
    weighted_escapes, weighted_bad, naive_escapes, thinned = [], [], [], 0
    for seed in range(600):
        selector = Selector(0.3, max_per_hour=40, max_per_day=70, seed=seed)
        of_escapes = of_bad = audited = audited_bad = 0.0
        for verdict, bad, now_s in parts:
            kept = selector.select(verdict, None, True, now_s)  # type: ignore[arg-type]
            if kept is not None:
                of_bad += bad / kept.probability
                if verdict == "pass":
                    of_escapes += bad / kept.probability
                    audited += 1
                    audited_bad += bad
        weighted_escapes.append(of_escapes)
        weighted_bad.append(of_bad)
        naive_escapes.append(audited_bad / audited * sum(verdict == "pass" for verdict, _, _ in parts))
        thinned += sum(selector.counts.thinned.values())
        assert not selector.counts.capped  # else some parts would have no weight to stand for them
    assert thinned > 600 * 50  # the caps did work

    def off(estimates: list[float], truth: float) -> float:
        return abs(statistics.mean(estimates) - truth) / (statistics.stdev(estimates) / len(estimates) ** 0.5)

    assert off(weighted_escapes, escapes) < 4
    assert off(weighted_bad, all_bad) < 4
    assert off(naive_escapes, escapes) > 10  # without the weights the estimate is far off: the test can fail


# --- what the image is


def test_a_raw_frame_becomes_a_jpeg_of_high_quality_without_colour_subsampling() -> None:
    frame = np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8)
    image = a_policy().keep(a_result(), a_part(data=None, frame=frame), 0.0)
    assert image is not None
    assert image.suffix == ".jpg"
    decoded = Image.open(io.BytesIO(image.data))
    assert decoded.size == (48, 40)
    assert decoded.layer[0][1:3] == decoded.layer[1][1:3] == (1, 1)  # type: ignore[attr-defined] # 4:4:4
    tables = decoded.quantization  # type: ignore[attr-defined]
    assert max(max(table) for table in tables.values()) <= 12  # of quality 95
    assert read_sidecar(image.sidecar).image.as_captured is False


def test_a_raw_frame_becomes_a_png_without_loss_when_asked() -> None:
    frame = np.random.default_rng(0).integers(0, 255, (10, 12, 3), dtype=np.uint8)
    image = a_policy(frame_format="png").keep(a_result(), a_part(data=None, frame=frame), 0.0)
    assert image is not None
    assert image.suffix == ".png"
    assert (np.asarray(Image.open(io.BytesIO(image.data))) == frame).all()
    assert read_sidecar(image.sidecar).image.sha256 == hashlib.sha256(image.data).hexdigest()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"data": None, "fault": ("timeout", "no frame")}, "timeout"),
        ({"data": b""}, "decode"),
        ({"data": b"<html>not a picture</html>"}, "decode"),
        ({}, "stuck"),
    ],
)
def test_an_error_without_a_picture_to_look_at_keeps_none_and_is_counted(changes: dict[str, Any], error: str) -> None:
    policy = a_policy()
    assert policy.keep(a_result("error", error=error, score=None), a_part(**changes), 0.0) is None
    assert policy.counts.no_picture == {"error/-/error": 1}


def test_a_damaged_picture_is_kept_so_that_somebody_can_look_into_it() -> None:
    part = a_part(data=jpeg()[:200])
    image = a_policy().keep(a_result("error", error="decode", score=None), part, 0.0)
    assert image is not None
    assert image.data == part.data


@pytest.mark.parametrize(("format", "suffix"), [("PNG", ".png"), ("BMP", ".bmp"), ("TIFF", ".tif"), ("JPEG", ".jpg")])
def test_the_suffix_is_that_of_the_content(format: str, suffix: str) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, format)
    image = a_policy().keep(a_result(), a_part(data=stream.getvalue()), 0.0)
    assert image is not None
    assert image.suffix == suffix


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audit_share": 1.5}, "audit_share: want 0 to 1, found 1.5"),
        ({"max_per_hour": -1}, "max_per_hour: want 0 or more, found -1"),
        ({"frame_format": "gif"}, "frame_format: want jpeg or png, found 'gif'"),
        ({"jpeg_quality": 80}, "jpeg_quality: want 95 to 100"),
        ({"stuck_after": 1}, "stuck_after: want 0"),
        ({"stuck_residual": 3.0}, "stuck_residual: want 0 to 0.5"),
        ({"audit_share": float("nan")}, "audit_share: want 0 to 1, found nan"),
    ],
)
def test_settings_without_sense_are_named(changes: dict[str, Any], message: str) -> None:
    faults = ReviewSettings(**changes).check()
    assert len(faults) == 1
    assert faults[0].startswith(message)
    assert ReviewSettings().check() == []


# --- the sidecar


def test_a_sidecar_of_schema_1_0_stays_readable() -> None:
    sidecar = parse_sidecar(PAST.read_text(encoding="utf-8"))
    assert sidecar.result.id == "press-3-41"
    assert sidecar.result.verdict == "pass"
    assert sidecar.result.clock_synced is True
    assert sidecar.selection == Selection("audit", 0.0025, 0.005, "pass/-/audit")
    assert sidecar.image.suffix == ".jpg"
    assert sidecar.image.damaged is False


def test_a_sidecar_reads_back_as_it_was_written() -> None:
    sidecar = Sidecar(
        a_result("review", sequence=9, label="dent", lot="L7", latency_ms={"total": 12.5}),
        ImageFacts("0" * 64, ".png", as_captured=False, damaged=True),
        Selection("review", 0.5, 0.01, "review/dent/review"),
    )
    text = dump_sidecar(sidecar)
    assert parse_sidecar(text) == sidecar
    assert dump_sidecar(parse_sidecar(text)) == text
    assert json.loads(text)["id"] == "press-3-9"


def past(**changes: Any) -> dict[str, Any]:
    return {**json.loads(PAST.read_text(encoding="utf-8")), **changes}


def changed(path: str, value: Any) -> str:
    document = past()
    *parents, name = path.split(".")
    target = document
    for parent in parents:
        target = target[parent]
    target[name] = value
    return json.dumps(document)


def test_a_sidecar_of_a_newer_minor_is_read_and_what_is_unknown_left_out() -> None:
    document = past(schema="1.9", invented="later")
    document["selection"]["invented"] = 1
    document["result"]["invented"] = [1]
    assert parse_sidecar(json.dumps(document)) == parse_sidecar(PAST.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema", "2.0", "schema 2.0 has another major version than 1.1; update"),
        ("schema", 1, r"schema: want major\.minor"),
        ("requires", ["polygons"], "requires .*polygons.*which this program does not know"),
        ("requires", "polygons", "requires polygons, which"),
        ("requires", [["x"]], "does not know"),
        ("result.schema", "3.0", "result: schema 3.0 has another major"),
        ("result.verdict", "good", "verdict: want one of"),
        ("result", None, "result: want a JSON object"),
        ("image", [], r"image: want an object, found \[\]"),
        ("image.sha256", "abc", "image.sha256: want 64 hexadecimal digits"),
        ("image.suffix", "../x", "image.suffix: want a suffix"),
        ("image.as_captured", 1, "image.as_captured: want bool, found 1"),
        ("selection.probability", 0, "selection.probability: want above 0"),
        ("selection.probability", 1.5, "selection.probability: want above 0 and up to 1"),
        ("selection.probability", True, "selection.probability: want float, found True"),
        ("selection.probability", float("nan"), "selection.probability: want a finite number"),
        ("selection.audit_share", -0.1, "selection.audit_share: want 0 to 1"),
        ("selection.reason", "whim", "selection.reason: want one of"),
        ("selection.reason", ["audit"], "selection.reason: want one of"),
    ],
)
def test_a_sidecar_that_makes_no_sense_is_refused_with_the_fields_name(path: str, value: Any, message: str) -> None:
    with pytest.raises(SidecarError, match=message):
        parse_sidecar(changed(path, value), "inbox/x.json")


def test_what_is_no_sidecar_is_refused_with_the_files_name() -> None:
    document = past()
    del document["selection"]["stratum"]
    with pytest.raises(SidecarError, match=r"inbox/x\.json: selection\.stratum is missing"):
        parse_sidecar(json.dumps(document), "inbox/x.json")
    for text in ("", "{", "[]", "null", "[" * 100_000):
        with pytest.raises(SidecarError, match=r"inbox/x\.json: (not valid JSON|want a JSON object)"):
            parse_sidecar(text, "inbox/x.json")


# --- the stuck camera


def exposure(seed: int, noise: float, scene: int = 0, shape: tuple[int, int] = (64, 64)) -> np.ndarray:
    """The same scene, seen with a sensor's noise (standard deviation in grey levels)."""
    still = np.random.default_rng(1000 + scene).uniform(20, 230, (*shape, 3))
    seen = still + np.random.default_rng(seed).normal(0, noise, still.shape)
    return np.clip(np.rint(seen), 0, 255).astype(np.uint8)[np.newaxis]


def verdicts(camera: StuckCamera, pictures: list[np.ndarray]) -> list[bool]:
    return [camera.check(picture) is not None for picture in pictures]


def test_a_camera_that_repeats_its_picture_is_stuck_until_a_new_one_comes() -> None:
    camera = StuckCamera(ReviewSettings(stuck_after=3))
    old, new = exposure(1, 1.0), exposure(2, 1.0)
    assert verdicts(camera, [old, old, old, old, new, new, new]) == [False, False, True, True, False, False, True]
    message = camera.check(new)
    assert message is not None
    assert message.startswith("the same picture came 4 times in a row")


def test_a_repeat_with_single_flipped_pixels_is_still_the_same_exposure() -> None:
    camera = StuckCamera(ReviewSettings(stuck_after=3))
    first = exposure(1, 1.0)
    second = first.copy()
    second[0, ::16, ::16, 0] ^= 1
    assert verdicts(camera, [first, second, first]) == [False, False, True]


@pytest.mark.parametrize("order", ["ABABABAB", "AABABBAB", "ABCABCABCABC", "ABCDEFGH" * 3], ids=str)
def test_a_ring_of_buffers_that_is_no_longer_filled_is_a_stuck_camera(order: str) -> None:
    camera = StuckCamera(ReviewSettings(stuck_after=3))
    ring = {letter: exposure(seed, 1.0) for seed, letter in enumerate("ABCDEFGH")}
    message = [camera.check(ring[letter]) for letter in order][-1]
    assert message is not None
    assert message.startswith(f"the same {len(set(order))} pictures came again and again")
    assert camera.check(exposure(99, 1.0)) is None  # it is filled again


def test_parts_that_look_like_one_of_the_last_are_never_a_ring() -> None:
    camera = StuckCamera(ReviewSettings(stuck_after=2))
    scenes = [exposure(seed, 0.1, scene=seed % 2) for seed in range(40)]  # two still parts in turn
    assert not any(verdicts(camera, scenes))
    empty = exposure(1, 0.0)  # a saturated background between parts comes back to the bit
    assert not any(
        verdicts(camera, [picture for seed in range(20) for picture in (empty, exposure(seed, 1.0, scene=3))])
    )


@pytest.mark.parametrize("noise", [0.03, 0.1, 0.5, 2.0])
def test_a_part_that_lies_still_is_never_taken_for_a_stuck_camera(noise: float) -> None:
    camera = StuckCamera(ReviewSettings(stuck_after=2))
    assert not any(verdicts(camera, [exposure(seed, noise) for seed in range(40)]))


def test_dark_surroundings_without_noise_do_not_hide_that_a_part_is_new() -> None:
    def part_in_the_dark(seed: int) -> np.ndarray:
        picture = np.zeros((1, 64, 64, 3), np.uint8)
        picture[:, 28:34, 28:34] = exposure(seed, 0.1, shape=(6, 6))
        return picture

    assert not any(verdicts(StuckCamera(ReviewSettings(stuck_after=2)), [part_in_the_dark(seed) for seed in range(20)]))


def test_similar_parts_are_never_the_same() -> None:
    camera = StuckCamera(ReviewSettings(stuck_after=2))
    good = exposure(1, 0.0)
    scratched = good.copy()
    scratched[0, 10, 10:40] = 255  # identical but for a scratch of one pixel's width
    speck = good.copy()
    speck[0, 30, 30, 0] ^= 128
    assert verdicts(camera, [good, scratched, good, speck, good]) == [False] * 5


def test_cameras_are_told_apart_and_another_size_is_another_picture() -> None:
    camera = StuckCamera(ReviewSettings(stuck_after=2))
    left, right = exposure(1, 1.0), exposure(2, 1.0)
    assert camera.check(left, "left") is None
    assert camera.check(right, "right") is None
    assert camera.check(left, "left") is not None
    assert camera.check(left[:, :32], "left") is None


def test_the_callers_memory_may_be_used_again() -> None:
    camera = StuckCamera(ReviewSettings(stuck_after=2))
    memory = exposure(1, 1.0)
    assert camera.check(memory) is None
    memory[:] = exposure(2, 1.0)
    assert camera.check(memory) is None


def test_zero_turns_the_watch_off_and_many_cameras_take_bounded_memory() -> None:
    picture = exposure(1, 1.0)
    assert not any(verdicts(StuckCamera(ReviewSettings(stuck_after=0)), [picture] * 5))
    camera = StuckCamera(ReviewSettings(stuck_after=2))
    for index in range(200):
        assert camera.check(picture, str(index)) is None
    assert len(camera._seen) <= 16
