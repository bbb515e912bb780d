"""Devices on this machine as processes: the real inspector on them, and kills at the worst moments."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from local_fleet import BAD, GOOD, NAMES, Rig, fleet_of, local_settings, provision, script_component, wait_until

from inspection.errors import RolloutError
from inspection.fleet.interface import ComponentSetting
from inspection.fleet.local import devices
from inspection.fleet.local.device_settings import device_settings
from inspection.fleet.local.feeder import feed
from inspection.fleet.local.folders import DeviceFolder, socket_path
from inspection.fleet.local.holding import holder
from inspection.fleet.local.processes import Identity, identify, processes_of

NAME = "com.example.Belt"
ONE = {"groups": {"canary": ["device-1"], "fleet": ["device-2"]}}


def kill_nucleus(rig: Rig, thing: str = "device-1") -> Identity:
    """Kill it as a crash would: its components go on."""
    nucleus = holder(rig.device(thing))
    assert nucleus is not None
    os.kill(nucleus.pid, signal.SIGKILL)
    wait_until(lambda: holder(rig.device(thing)) is None)
    return nucleus


def inspected(rig: Rig, thing: str = "device-1") -> int:
    report = rig.report(thing)
    return 0 if report is None or report.figures is None else report.figures.inspected


@pytest.mark.slow
def test_the_real_inspector_runs_is_shadowed_replaced_killed_and_rolled_back(tmp_path: Path) -> None:
    with fleet_of(tmp_path, start=False, local=ONE) as rig:
        rig.register("good", "other", "tampered")
        devices.start(rig.settings, ["device-1"])
        first, second, third = (rig.publish(version) for version in (1, 2, 3))
        assert (first.runtime, second.runtime, third.inspector) == ("1.0.0", "1.0.0", "1.0.0")
        say = lambda: f"{rig.report('device-1')} {rig.fleet.status('canary')}"  # noqa: E731

        # First deployment: health and results come to the storage, pictures to review too.
        rig.fleet.deploy("canary", rig.wanted(first), "first")
        rig.settle("canary")
        status = rig.fleet.status("canary")[0]
        assert (status.state, status.error) == ("succeeded", "")
        assert status.states == {NAMES.runtime: "FINISHED", NAMES.inspector: "RUNNING", NAMES.model: "FINISHED"}
        rig.feed("device-1", 4)
        rig.feed("device-1", 2, BAD)
        wait_until(lambda: inspected(rig) == 6, 120, say)
        report = rig.report("device-1")
        assert report is not None
        assert report.serves_what_is_deployed
        assert report.serving == first.digest
        assert report.figures is not None
        assert (report.figures.verdicts["pass"], report.figures.verdicts["fail"]) == (4, 2)
        results = Path(rig.storage.root) / "tiny" / "live" / "device-1" / "results.jsonl"
        wait_until(lambda: len(ids(results)) == 6, 60, say)

        # Shadow: both judge, the champion decides, disagreements land where people look.
        rig.fleet.deploy("canary", rig.wanted(second, challenger=True), "shadow")
        rig.settle("canary")
        wait_until(
            lambda: (r := rig.report("device-1")) is not None and r.shadow is not None and r.shadow.state == "running",
            120,
            say,
        )
        rig.feed("device-1", 3, first=10)
        wait_until(
            lambda: (r := rig.report("device-1")) is not None and r.shadow is not None and r.shadow.parts == 3, 120, say
        )
        report = rig.report("device-1")
        assert report is not None
        assert report.shadow is not None
        assert report.shadow.pairs == {("pass", "fail"): 3}
        assert report.serving == first.digest
        review = Path(rig.storage.root) / "tiny" / "raw-images-for-review" / "device-1"
        wait_until(lambda: len(list(review.rglob("*.png"))) >= 5, 120, say)  # 2 fails, 3 disagreements

        # The inspector is killed: it comes back, and so do its figures.
        before = {one.pid for one in processes_of(rig.device("device-1").root, NAMES.inspector)}
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        rig.feed("device-1", 1, first=20)
        wait_until(lambda: inspected(rig) == 10, 120, say)

        # The nucleus is killed, and the device starts again: no second inspector, same state.
        kill_nucleus(rig)
        assert rig.fleet.status("canary")[0].state == "succeeded"  # the last thing that was heard
        devices.start(rig.settings, ["device-1"])
        rig.feed("device-1", 1, first=30)
        wait_until(lambda: inspected(rig) == 11, 120, say)
        (before_the_last,) = inspectors(rig)

        # A model that fails its self-test: installed, never serving; the one before is put back.
        rig.fleet.deploy("canary", {**rig.wanted(third), NAMES.challenger: None}, "tampered")
        rig.settle("canary")
        wait_until(lambda: (r := rig.report("device-1")) is not None and r.deployed == third.digest, 120, say)
        report = rig.report("device-1")
        assert report is not None
        assert report.serving == first.digest
        assert not report.serves_what_is_deployed
        rig.fleet.deploy("canary", {NAMES.model: ComponentSetting(first.model)}, "back", everywhere_at_once=True)
        rig.settle("canary")
        wait_until(lambda: (r := rig.report("device-1")) is not None and r.serves_what_is_deployed, 120, say)

        # Off the network nothing is told; what happened meanwhile comes later.
        rig.fleet.set_online("device-1", False)
        told = rig.report("device-1")
        rig.feed("device-1", 2, first=40)
        wait_until(lambda: not any(rig.device("device-1").inbox.glob("*.png")), 60, say)
        time.sleep(2.5)
        assert rig.report("device-1") == told
        rig.fleet.set_online("device-1", True)
        wait_until(lambda: len(ids(results)) == 13, 120, say)
        assert said_broken(rig) == []

        # Another version of the inspector: one process takes the place of the other, and counts on.
        assert inspectors(rig) == [before_the_last]
        changed = {**rig.settings.fleet.inspector, "review": {"audit_share": 0.5}}
        rig.settings = local_settings(tmp_path, local=ONE, inspector=changed)
        newer = rig.publish(1)
        assert (newer.inspector, newer.runtime) == ("1.1.0", "1.0.0")
        rig.fleet.deploy("canary", rig.wanted(newer), "another inspector")
        rig.settle("canary")
        status = rig.fleet.status("canary")[0]
        assert (status.state, status.components[NAMES.inspector]) == ("succeeded", "1.1.0")
        assert not before_the_last.is_alive()
        assert len(inspectors(rig)) == 1
        rig.feed("device-1", 1, first=50)
        wait_until(lambda: inspected(rig) == 14, 120, say)


def ids(results: Path) -> set[str]:
    """Of the results there: one that was not acknowledged before a kill comes twice."""
    lines = results.read_text(encoding="utf-8").splitlines() if results.is_file() else []
    return {json.loads(line)["id"] for line in lines}


def said_broken(rig: Rig) -> list[str]:
    return [name for name, state in rig.fleet.status("canary")[0].states.items() if state == "BROKEN"]


def inspectors(rig: Rig) -> list[Identity]:
    """Main processes of the inspector, without its uploader."""
    found = processes_of(rig.device("device-1").root, NAMES.inspector)
    return [one for one in found if b"-m\0edge\0" in _command(one)]


def _command(process: Identity) -> bytes:
    try:
        return Path(f"/proc/{process.pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with fleet_of(tmp_path, start=False, local=ONE) as made:
        devices.start(made.settings, ["device-1"])
        yield made


def test_a_nucleus_killed_in_a_deployment_begins_it_anew(rig: Rig) -> None:
    install = "echo try; test -e {work:path}/go || sleep 1000"
    script_component(rig.fleet, rig.folder / "files", NAME, "1.0.0", install=install, run="exec sleep 1000")
    rig.fleet.deploy("canary", {NAME: ComponentSetting("1.0.0")}, "killed")
    log = rig.device("device-1").log(NAME)
    wait_until(lambda: log.exists() and "try" in log.read_text())
    orphans = processes_of(rig.device("device-1").root, NAME)
    assert orphans
    kill_nucleus(rig)
    assert rig.fleet.status("canary")[0].state == "offline"
    (rig.device("device-1").work(NAME) / "go").touch()
    devices.start(rig.settings, ["device-1"])
    rig.settle("canary")
    status = rig.fleet.status("canary")[0]
    assert (status.state, status.states) == ("succeeded", {NAME: "RUNNING"})
    assert not any(orphan.is_alive() for orphan in orphans)


def test_a_kill_at_any_moment_leaves_nothing_half_unpacked_in_use(rig: Rig) -> None:
    files = {f"{number}.txt": str(number) * 20000 for number in range(60)}
    check = "test $(ls {artifacts:decompressedPath}/files | wc -l) = 61"
    for round, delay_s in enumerate((0.0, 0.02, 0.05, 0.1, 0.3)):
        version = f"{round + 1}.0.0"
        script_component(rig.fleet, rig.folder / "files", NAME, version, install=check, files=files)
        rig.fleet.deploy("canary", {NAME: ComponentSetting(version)}, "killed")
        staging = rig.device("device-1").staging
        wait_until(lambda: staging.is_dir() or rig.fleet.status("canary")[0].state != "waiting")  # noqa: B023
        time.sleep(delay_s)
        kill_nucleus(rig)
        devices.start(rig.settings, ["device-1"])
        rig.settle("canary")
        status = rig.fleet.status("canary")[0]
        assert (status.state, status.error, status.components) == ("succeeded", "", {NAME: version})
        assert not staging.exists() or list(staging.iterdir()) == []


def test_stopping_ends_everything_and_starting_brings_it_back(rig: Rig) -> None:
    script_component(rig.fleet, rig.folder / "files", NAME, "1.0.0", run="setsid sleep 1000 & exec sleep 1000")
    rig.fleet.deploy("canary", {NAME: ComponentSetting("1.0.0")}, "x")
    rig.settle("canary")
    (device,) = devices.start(rig.settings, ["device-1"])  # once more changes nothing
    nucleus = holder(rig.device("device-1"))
    assert nucleus is not None
    assert (device.pid, device.runs, device.online, device.groups) == (nucleus.pid, True, True, ("canary",))
    everything = [nucleus, *processes_of(rig.device("device-1").root)]
    assert len(everything) == 3
    (stopped,) = devices.stop(rig.settings, ["device-1"])
    assert not stopped.runs
    assert not any(one.is_alive() for one in everything)
    devices.stop(rig.settings)  # also those that never ran
    devices.start(rig.settings, ["device-1"])
    wait_until(lambda: rig.fleet.status("canary")[0].states == {NAME: "RUNNING"})
    assert len(processes_of(rig.device("device-1").root, NAME)) == 2


def test_a_device_whose_folder_is_deleted_ends(rig: Rig) -> None:
    script_component(rig.fleet, rig.folder / "files", NAME, "1.0.0", run="exec sleep 1000")
    rig.fleet.deploy("canary", {NAME: ComponentSetting("1.0.0")}, "x")
    rig.settle("canary")
    nucleus = holder(rig.device("device-1"))
    assert nucleus is not None
    everything = [nucleus, *processes_of(rig.device("device-1").root)]
    rig.device("device-1").root.rename(rig.folder / "away")  # in one step; it writes there all the time
    wait_until(lambda: not any(one.is_alive() for one in everything))
    (device,) = devices.start(rig.settings, ["device-1"])  # as new
    assert device.runs
    rig.settle("canary")
    assert rig.fleet.status("canary")[0].components == {NAME: "1.0.0"}


def test_two_who_start_a_device_at_once_start_one(tmp_path: Path) -> None:
    with fleet_of(tmp_path, start=False, local=ONE) as rig, ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: devices.start(rig.settings, ["device-1"]), range(3)))
        assert len({device.pid for (device,) in found}) == 1
        root = rig.device("device-1").root
        assert "another nucleus" not in (root / "logs" / "nucleus.log").read_text(encoding="utf-8")


def test_a_second_nucleus_on_a_folder_is_refused(rig: Rig) -> None:
    command = [sys.executable, "-m", "inspection.fleet.local.nucleus", str(rig.device("device-1").root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "another nucleus runs this device; stop it first" in done.stderr
    assert holder(rig.device("device-1")) is not None


def test_changed_settings_restart_a_device_and_others_lines_are_refused(rig: Rig, tmp_path: Path) -> None:
    before = holder(rig.device("device-1"))
    assert before is not None
    changed = local_settings(tmp_path, local={**ONE, "parts_per_minute": 1.0})
    (device,) = devices.start(changed, ["device-1"])
    assert device.pid != before.pid
    folder = str(rig.settings.local_fleet_folder)
    other = local_settings(tmp_path / "other", local={**ONE, "folder": folder}, line="dots")
    with pytest.raises(RolloutError, match="want a device of line dots, found one of line tiny"):
        devices.start(other, ["device-1"])
    with pytest.raises(RolloutError, match="no such device; want some of device-1, device-2"):
        devices.stop(changed, ["device-9"])


def test_a_device_whose_memory_is_damaged_says_so(tmp_path: Path) -> None:
    with fleet_of(tmp_path, start=False, local=ONE) as rig:
        state = rig.device("device-1").state
        state.parent.mkdir(parents=True)
        state.write_text('{"schema": "1.0", "instal', encoding="utf-8")
        with pytest.raises(RolloutError, match=r"(?s)does not start.*state\.json: cannot read it.*remove"):
            devices.start(rig.settings, ["device-1"])
        state.write_text('{"schema": "2.0"}', encoding="utf-8")
        with pytest.raises(RolloutError, match=r"(?s)state\.json.*newer Lineside"):
            devices.start(rig.settings, ["device-1"])


def test_a_provisioned_device_installs_no_runtime_and_a_deep_folder_has_a_short_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    with fleet_of(deep, start=False, local=ONE) as rig:
        assert len(str(rig.device("device-1").root)) > 107
        assert len(str(socket_path(rig.device("device-1").root))) < 100
        provision(rig.settings, "device-1")
        script_component(rig.fleet, rig.folder / "files", NAMES.runtime, "1.0.0", install="echo installed; exit 1")
        devices.start(rig.settings, ["device-1"])
        rig.fleet.deploy("canary", {NAMES.runtime: ComponentSetting("1.0.0")}, "x")
        rig.settle("canary")
        status = rig.fleet.status("canary")[0]
        assert (status.state, status.states) == ("succeeded", {NAMES.runtime: "FINISHED"})
        assert "installed" not in rig.device("device-1").log(NAMES.runtime).read_text()
        python = rig.device("device-1").work(NAMES.runtime) / "current" / "bin" / "python"
        assert os.access(python, os.X_OK)


def test_a_process_is_known_by_more_than_its_pid() -> None:
    me = identify(os.getpid())
    assert me is not None
    assert me.is_alive()
    stranger = Identity(me.pid, me.started - 1)  # had this pid before
    assert not stranger.is_alive()
    stranger.send(signal.SIGKILL)  # nothing happens to this process
    assert identify(2**22) is None


def test_a_folder_of_pictures_goes_round_under_new_names_and_waits_for_the_inspector(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("b.png", "a.PNG", "notes.txt"):
        (pictures / name).write_bytes(name.encode())
    settings = local_settings(tmp_path, local={**ONE, "parts": str(pictures), "parts_per_minute": 60_000.0})
    folder = DeviceFolder(tmp_path / "device")
    folder.inbox.mkdir(parents=True)
    dropped: list[bytes] = []

    def go_on() -> bool:
        waiting = sorted(folder.inbox.glob("[!.]*"))
        if len(waiting) >= 20 and not dropped:
            time.sleep(0.05)  # a feeder that does not wait would have gone on
            dropped.extend(path.read_bytes() for path in sorted(folder.inbox.glob("[!.]*")))
        return not dropped

    feed(folder, device_settings(settings, "device-1"), go_on)
    assert dropped == [b"a.PNG", b"b.png"] * 10
    empty = local_settings(tmp_path, local={**ONE, "parts": str(tmp_path / "empty")})
    with pytest.raises(RolloutError, match=r"\[fleet\.local\] parts: want a folder of pictures .*found none in"):
        feed(folder, device_settings(empty, "device-1"), lambda: True)


@pytest.mark.slow
def test_parts_of_the_sample_line_are_never_alike(tmp_path: Path) -> None:
    settings = local_settings(tmp_path, local={**ONE, "parts": "sample", "parts_per_minute": 60_000.0})
    folder = DeviceFolder(tmp_path / "device")
    folder.inbox.mkdir(parents=True)
    seen: set[bytes] = set()
    count = 0

    def go_on() -> bool:
        nonlocal count
        for path in folder.inbox.glob("[!.]*"):
            seen.add(path.read_bytes())
            path.unlink()
            count += 1
        return count < 150

    feed(folder, device_settings(settings, "device-1"), go_on)
    assert len(seen) == count >= 150
    assert all(data.startswith(b"\xff\xd8\xff") for data in seen)
    assert GOOD.endswith(".jpg")
