"""Which package serves: the deployed one when it is good, else the last good one."""

import dataclasses
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from golden_package import digests, make_package

import edge.loading
import edge.serving
from edge.contract import OperatingPoint
from edge.errors import PackageError
from edge.last_good import LastGood, package_digest
from edge.package_trial import try_in_child
from edge.serving import Serving

OTHER = OperatingPoint("op-2", lower=-3.0, upper=2.0)


@pytest.fixture
def link(tmp_path: Path) -> Path:
    """The link that a deployment moves; leads to a good package."""
    make_package(tmp_path / "first")
    return deploy(tmp_path, "first")


def deploy(folder: Path, name: str) -> Path:
    link = folder / "current"
    fresh = folder / "fresh"
    fresh.symlink_to(name)
    fresh.replace(link)
    return link


def serving(link: Path, **more: object) -> Serving:
    return Serving(link, link.parent / "keep", trial_in_child=False, **more)  # type: ignore[arg-type]


def tick_until(serving: Serving, done: Callable[[], bool]) -> None:
    """Let it look again and again, as the loop does, in a clock that runs fast."""
    end = time.monotonic() + 60
    now_s = time.monotonic()
    while not done():
        assert time.monotonic() < end, serving.state()
        now_s += 1.1
        serving.tick(now_s)
        time.sleep(0.005)


def rewrite_contract(package: Path, **changes: object) -> None:
    path = package / "contract.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content.update(changes)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_a_good_package_serves_from_a_copy_of_its_own(link: Path) -> None:
    good = serving(link)
    good.start()
    served = good.current()
    assert served is not None
    assert served.package.folder.parent == link.parent / "keep"
    state = good.state()
    assert state.ok
    assert state.serving == state.deployed == package_digest(link)
    assert state.self_test.startswith("passed: 4 images")
    shutil.rmtree(link.parent / "first")  # a deployment deletes the old artifacts
    assert good.current() is served
    again = serving(link)
    again.start()
    assert again.current() is not None
    assert not again.state().ok
    assert again.state().serving == state.serving
    assert again.state().deployed is None
    assert "the last good package serves" in again.state().message


def test_it_waits_for_the_first_package(tmp_path: Path) -> None:
    waits = serving(tmp_path / "current")
    waits.start()
    assert waits.current() is None
    assert not waits.state().ok
    assert "no package at" in waits.state().message
    (tmp_path / "current").symlink_to("gone")  # a link that leads nowhere yet
    waits.tick(time.monotonic() + 5)
    assert waits.current() is None
    make_package(tmp_path / "gone")
    tick_until(waits, lambda: waits.current() is not None)
    assert waits.state().ok


def test_a_new_package_takes_over_without_a_restart(link: Path) -> None:
    two = serving(link, workers=2)
    two.start()
    first = two.current()
    make_package(link.parent / "second", operating_point=OTHER)
    deploy(link.parent, "second")
    tick_until(two, lambda: two.current() is not first)
    served = two.current()
    assert served is not None
    assert served.contract.operating_point.id == "op-2"
    assert two.state().ok
    assert two.state().serving == package_digest(link)
    assert first is not None
    assert first.detector(0) is not served.detector(0)  # the old one is whole until the switch
    kept = {path.name for path in (link.parent / "keep").iterdir()}
    assert kept == {"good", served.digest}


def test_once_a_line_is_known_a_package_of_another_line_is_refused(link: Path) -> None:
    watching = serving(link)
    watching.start()
    watching.hold_to("tiny")
    make_package(link.parent / "second", line="other")
    deploy(link.parent, "second")
    tick_until(watching, lambda: not watching.state().ok)
    assert "want a package of line 'tiny'" in watching.state().message
    current = watching.current()
    assert current is not None
    assert current.contract.line == "tiny"


def test_going_back_to_the_package_before_works(link: Path) -> None:
    two = serving(link)
    two.start()
    first = package_digest(link)
    make_package(link.parent / "second", operating_point=OTHER)
    deploy(link.parent, "second")
    tick_until(two, lambda: two.state().serving != first)
    deploy(link.parent, "first")
    tick_until(two, lambda: two.state().serving == first)
    assert two.state().ok


def spoil_bytes(package: Path) -> None:
    model = package / "model.tflite"
    model.write_bytes(model.read_bytes()[:-1] + b"!")


def spoil_length(package: Path) -> None:
    model = package / "model.tflite"
    model.write_bytes(model.read_bytes()[:2000])


def spoil_tensors(package: Path) -> None:
    rewrite_contract(package, input={"width": 64, "height": 64})


def spoil_schema(package: Path) -> None:
    rewrite_contract(package, schema="2.0")


def spoil_requires(package: Path) -> None:
    rewrite_contract(package, requires=["telepathy"])


def spoil_golden(package: Path) -> None:
    (package / "golden" / "part-0.png").unlink()


def spoil_scores(package: Path) -> None:
    content = json.loads((package / "contract.json").read_text(encoding="utf-8"))
    content["self_test"]["images"][0]["score"] += 9.0
    rewrite_contract(package, self_test=content["self_test"])


def spoil_model(package: Path) -> None:
    (package / "model.tflite").write_bytes(b"this is no model" * 100)
    rewrite_contract(package, files=digests(package))


def spoil_json(package: Path) -> None:
    (package / "contract.json").write_text('{"schema": "1.0"', encoding="utf-8")


def spoil_line(package: Path) -> None:
    rewrite_contract(package, line="other")


def spoil_kind(package: Path) -> None:
    content = json.loads((package / "contract.json").read_text(encoding="utf-8"))
    rewrite_contract(package, artifact={**content["artifact"], "kind": "float32"})


def spoil_link(package: Path) -> None:
    (package / "provenance.json").unlink()
    (package / "provenance.json").symlink_to("/etc/hostname")


BAD = {
    "tampered": (spoil_bytes, "changed after the package was made"),
    "truncated": (spoil_length, "changed after the package was made"),
    "wrong tensors": (spoil_tensors, "want an input of shape"),
    "another schema": (spoil_schema, "another major version"),
    "an unknown requirement": (spoil_requires, "does not know"),
    "a golden image missing": (spoil_golden, "missing files"),
    "other golden scores": (spoil_scores, "self-test failed"),
    "no model": (spoil_model, "cannot open this model"),
    "half a contract": (spoil_json, "not valid JSON"),
    "another line": (spoil_line, "line 'other'"),
    "another kind": (spoil_kind, "want a model of kind float32"),
    "a link inside": (spoil_link, "is a link"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_package_never_serves_and_the_last_good_one_goes_on(link: Path, fault: str) -> None:
    spoil, reason = BAD[fault]
    good = serving(link, line="tiny")
    good.start()
    served = good.current()
    assert served is not None
    spoil(make_package(link.parent / "bad", operating_point=OTHER))
    deploy(link.parent, "bad")
    tick_until(good, lambda: "refused" in good.state().message)
    state = good.state()
    assert good.current() is served
    assert not state.ok
    assert reason in state.message
    assert state.serving == served.digest
    assert state.deployed == package_digest(link) != state.serving
    # The same after a restart: the bad one is tried, and the last good one is verified again.
    again = serving(link, line="tiny")
    again.start()
    current = again.current()
    assert current is not None
    assert current.digest == served.digest
    assert reason in again.state().message
    assert (again.state().serving, again.state().deployed) == (state.serving, state.deployed)
    # A good one after it is taken.
    make_package(link.parent / "mended", operating_point=dataclasses.replace(OTHER, id="op-3"))
    deploy(link.parent, "mended")
    tick_until(again, lambda: again.state().ok)
    assert again.state().deployed == package_digest(link)


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_first_package_leaves_the_device_without_one(link: Path, fault: str) -> None:
    spoil, reason = BAD[fault]
    spoil(link.parent / "first")
    bad = serving(link, line="tiny")
    bad.start()
    assert bad.current() is None
    assert reason in bad.state().message
    assert "nothing serves" in bad.state().message
    assert bad.state().deployed is not None


def test_a_damaged_copy_is_taken_anew_from_what_was_deployed(link: Path) -> None:
    good = serving(link)
    good.start()
    digest = good.state().serving
    assert digest is not None
    spoil_bytes(link.parent / "keep" / digest)
    again = serving(link)
    again.start()
    assert again.state().ok
    assert again.current() is not None


def test_without_any_good_package_nothing_serves(link: Path) -> None:
    good = serving(link)
    good.start()
    digest = good.state().serving
    assert digest is not None
    spoil_bytes(link.parent / "keep" / digest)
    spoil_bytes(link.parent / "first")
    again = serving(link)
    again.start()
    assert again.current() is None
    assert not again.state().ok


def test_a_refused_package_that_is_repaired_in_place_is_taken(link: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge.serving, "_RETRY_S", (0.01, 0.02))
    whole = (link / "model.tflite").read_bytes()
    spoil_bytes(link.parent / "first")
    late = serving(link)
    late.start()
    assert late.current() is None
    (link / "model.tflite").write_bytes(whole)  # the contract is as it was: only trying again can tell
    tick_until(late, lambda: late.state().ok)


def test_a_disk_that_takes_no_copy_does_not_stop_a_good_package(link: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LastGood, "copy", full)
    direct = serving(link)
    direct.start()
    served = direct.current()
    assert served is not None
    assert served.package.folder == (link.parent / "first").resolve()
    assert "no copy of it could be kept" in direct.state().message


def test_copies_are_whole_or_not_there(link: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = LastGood(link.parent / "keep")
    digest = package_digest(link)
    real = os.fsync
    synced: list[int] = []

    def fails_later(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 3:
            raise OSError(5, "Input/output error")
        real(descriptor)

    monkeypatch.setattr("edge.last_good.os.fsync", fails_later)
    with pytest.raises(OSError, match="Input/output"):
        kept.copy(link.resolve(), digest)
    assert list((link.parent / "keep").iterdir()) == []
    assert kept.get(digest) is None


def test_a_package_that_ends_the_process_is_found_out_in_a_child(link: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def crash(folder: Path, threads: int) -> None:
        tried.append(folder.name)
        raise PackageError(f"{folder}: the self-test in a child process was ended by signal 11")

    good = serving(link)
    good.start()
    monkeypatch.setattr(edge.loading, "try_in_child", crash)
    make_package(link.parent / "second", operating_point=OTHER)
    deploy(link.parent, "second")
    careful = Serving(link, link.parent / "keep")
    careful.start()
    assert tried == [package_digest(link)]
    assert careful.state().serving == good.state().serving
    assert "signal 11" in careful.state().message


def test_the_child_says_what_is_wrong(link: Path) -> None:
    try_in_child(link.resolve(), 1)
    spoil_scores(link.parent / "first")
    with pytest.raises(PackageError, match=r"exited with 1: .*want score"):
        try_in_child(link.resolve(), 1)


def test_after_a_death_while_opening_a_package_a_child_goes_first(link: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = package_digest(link)
    kept = LastGood(link.parent / "keep")
    kept.copy(link.resolve(), digest)
    kept.begin_trial(digest)  # and then the process ended
    tried: list[str] = []
    monkeypatch.setattr(edge.loading, "try_in_child", lambda folder, threads: tried.append(folder.name))
    careful = Serving(link, link.parent / "keep")
    careful.start()
    assert tried == [digest]
    assert careful.state().ok
    assert not kept.died_trying(digest)


def test_a_package_can_be_replaced_in_a_plain_folder(tmp_path: Path) -> None:
    folder = make_package(tmp_path / "package")
    plain = Serving(folder, tmp_path / "keep", trial_in_child=False)
    plain.start()
    first = plain.state().serving
    shutil.rmtree(folder)
    tick_until(plain, lambda: not plain.state().ok)
    assert plain.state().serving == first
    make_package(tmp_path / "other", operating_point=OTHER).rename(folder)
    tick_until(plain, lambda: plain.state().ok)
    assert plain.state().serving == package_digest(folder) != first


def test_a_digest_names_a_package_by_its_contract(link: Path) -> None:
    assert package_digest(link) == hashlib.sha256((link / "contract.json").read_bytes()).hexdigest()


def damage_deployed(link: Path) -> None:
    spoil_bytes(link.resolve())


@pytest.mark.parametrize("fault", [MemoryError(), OSError(24, "Too many open files"), OSError(5, "Input/output error")])
def test_a_fault_that_passes_does_not_cost_the_last_good_package(
    link: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    monkeypatch.setattr(edge.serving, "_RETRY_S", (0.01, 0.02))
    serving(link).start()
    damage_deployed(link)  # only the inspector's own copy is whole
    real = edge.loading.run_self_test
    faults = [fault]

    def fails_once(*arguments: object) -> object:
        if faults:
            raise faults.pop()
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(edge.loading, "run_self_test", fails_once)
    again = serving(link)
    again.start()
    assert again.current() is None
    assert str(fault) in again.state().message
    tick_until(again, lambda: again.current() is not None)
    assert again.state().ok


def test_a_last_good_package_that_could_not_be_opened_is_tried_again_while_nothing_is_deployed(
    link: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.serving, "_RETRY_S", (0.01, 0.02))
    serving(link).start()
    link.unlink()
    real = edge.loading.verify_package
    faults = [OSError(5, "Input/output error")]

    def fails_once(folder: Path) -> object:
        if faults:
            raise faults.pop()
        return real(folder)

    monkeypatch.setattr(edge.loading, "verify_package", fails_once)
    again = serving(link)
    again.start()
    assert again.current() is None
    assert "nothing serves; the last good package: [Errno 5]" in again.state().message
    tick_until(again, lambda: again.current() is not None)
    assert again.state().message.endswith("; the last good package serves")


def test_a_copy_that_cannot_be_read_now_stays(link: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = serving(link)
    first.start()
    digest = first.state().serving
    damage_deployed(link)

    def no_descriptor(folder: Path) -> object:
        raise OSError(24, "Too many open files", str(folder))

    with monkeypatch.context() as patched:
        patched.setattr(edge.loading, "verify_package", no_descriptor)
        serving(link).start()
    assert digest is not None
    assert LastGood(link.parent / "keep").get(digest) is not None
    again = serving(link)
    again.start()
    assert again.state().ok


def test_a_package_that_served_here_is_kept_when_its_self_test_fails(
    link: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = serving(link)
    first.start()

    def fails(*_: object) -> object:
        raise PackageError("the self-test failed: another runtime")

    with monkeypatch.context() as patched:
        patched.setattr(edge.loading, "run_self_test", fails)
        refuses = serving(link)
        refuses.start()
        assert refuses.current() is None
    damage_deployed(link)
    again = serving(link)
    again.start()
    assert again.current() is not None


def test_copies_of_packages_that_are_bad_are_not_kept(link: Path) -> None:
    good = serving(link)
    good.start()
    spoil_scores(make_package(link.parent / "bad", operating_point=OTHER))
    deploy(link.parent, "bad")
    tick_until(good, lambda: "refused" in good.state().message)
    assert {path.name for path in (link.parent / "keep").iterdir()} == {"good", good.state().serving}


def test_further_workers_use_the_model_that_was_verified(link: Path) -> None:
    two = serving(link, workers=2)
    two.start()
    served = two.current()
    assert served is not None
    spoil_bytes(served.package.folder)  # also a substitute, opened after months, must be the model that was tested
    contract = served.contract.input
    pixels = np.full((1, contract.height, contract.width, 3), 90, np.uint8)
    assert served.detector(1).detect(pixels).score == served.detector(0).detect(pixels).score


def test_a_damaged_copy_is_not_taken_for_good_when_the_disk_takes_no_other(
    link: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = serving(link)
    first.start()
    digest = first.state().serving
    assert digest is not None
    spoil_bytes(link.parent / "keep" / digest)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    again = serving(link)
    again.start()
    served = again.current()
    assert served is not None
    assert served.package.folder == link.resolve()
    assert "no copy of it could be kept" in again.state().message


def test_a_disk_that_does_not_answer_holds_up_no_tick(link: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = serving(link)
    good.start()
    release = threading.Event()
    digest = edge.serving.package_digest
    monkeypatch.setattr(edge.serving, "package_digest", lambda folder: release.wait(20) and digest(folder))
    make_package(link.parent / "second", operating_point=OTHER)
    deploy(link.parent, "second")
    began_s = time.monotonic()
    for seconds in range(5):
        assert not good.tick(began_s + seconds)
    assert time.monotonic() - began_s < 5.0
    release.set()
    tick_until(good, lambda: good.state().serving == digest(link))
