"""Devices on this machine as a fleet: what every fleet does, and what is their own."""

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fleet_contract import FleetContract
from local_fleet import Rig, fleet_of, local_settings, script_component, wait_until

from inspection.errors import RolloutError, SettingsError, StorageError
from inspection.fleet.interface import ComponentSetting, ComponentVersion, DeviceStatus, Fleet
from inspection.fleet.local.delivery import Delivery
from inspection.fleet.local.fleet import LocalFleet
from inspection.fleet.local.processes import processes_of
from inspection.fleet.opening import open_fleet

NAME, OTHER = "com.example.Belt", "com.example.Other"
FOREVER = "exec sleep 1000"


class LocalBench:
    """The bench of the contract: nuclei in a thread."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.fleet: Fleet = rig.fleet
        self.folder = rig.folder / "files"

    def reopen(self) -> Fleet:
        return LocalFleet(self.rig.settings)

    def settle(self, group: str) -> None:
        self.rig.settle(group)

    def offline(self, thing: str) -> None:
        self.rig.fleet.set_online(thing, False)

    def online(self, thing: str) -> None:
        self.rig.fleet.set_online(thing, True)


class TestContract(FleetContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> Iterator[LocalBench]:
        with fleet_of(tmp_path, in_process=True) as rig:
            yield LocalBench(rig)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A fleet whose nuclei run in a thread."""
    with fleet_of(tmp_path, in_process=True) as made:
        yield made


def put(rig: Rig, name: str, version: str, group: str = "canary", **more: Any) -> DeviceStatus:
    """Publish a component of scripts, deploy it, and wait; what became of it on the group's first device."""
    script_component(rig.fleet, rig.folder / "files", name, version, **more)
    return deploy(rig, {name: ComponentSetting(version)}, group)


def deploy(rig: Rig, wanted: dict[str, ComponentSetting | None], group: str = "canary") -> DeviceStatus:
    rig.fleet.deploy(group, wanted, "a test")
    rig.settle(group)
    return rig.fleet.status(group)[0]


def said(rig: Rig, name: str, thing: str = "device-1") -> str:
    return rig.device(thing).log(name).read_text(encoding="utf-8")


def pids(rig: Rig, name: str, thing: str = "device-1") -> set[int]:
    return {one.pid for one in processes_of(rig.device(thing).root, name)}


class TestInstall:
    def test_three_tries_fail_the_deployment_and_leave_what_ran(self, rig: Rig) -> None:
        put(rig, NAME, "1.0.0", run=FOREVER, install="echo installed")
        before = pids(rig, NAME)
        status = put(rig, NAME, "2.0.0", run=FOREVER, install="echo try; echo 'no good' >&2; exit 7")
        assert status.state == "failed"
        assert f"{NAME} 2.0.0: install failed 3 times, exit status 7" in status.error
        assert "no good" in status.error
        assert said(rig, NAME).count("try") == 3
        assert status.components[NAME] == "1.0.0"
        assert pids(rig, NAME) == before
        assert unpacked(rig) == {"1.0.0", "2.0.0"}  # nothing is cleaned up after a failure
        good = put(rig, NAME, "3.0.0", run=FOREVER, install="echo installed")
        assert (good.state, good.error, good.components[NAME]) == ("succeeded", "", "3.0.0")
        assert unpacked(rig) == {"3.0.0"}

    def test_one_that_takes_too_long_is_ended_with_what_it_started(self, rig: Rig) -> None:
        manifest = {"os": "linux", "runtime": "*"}
        step = {"Script": "sleep 1000 & sleep 1000", "Timeout": "1"}
        component = script_component(
            rig.fleet,
            rig.folder / "files",
            NAME,
            "1.0.0",
            Manifests=[{"Platform": manifest, "Lifecycle": {"install": step, "run": {"Script": "echo ok"}}}],
            artifacts=False,
        )
        status = deploy(rig, {NAME: ComponentSetting(component.version)})
        assert "it took longer than 1 s" in status.error
        assert pids(rig, NAME) == set()

    def test_scripts_get_their_variables_and_the_environment_of_a_component(self, rig: Rig) -> None:
        script = (
            "echo a={artifacts:decompressedPath}/files w={work:path} k={kernel:rootPath} t={iot:thingName}\n"
            "echo thing=$AWS_IOT_THING_NAME svc=$SVCUID.\necho pwd=$(pwd)\n"
            "cat {artifacts:decompressedPath}/files/version.txt\n"
            "test -S $AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT && echo socket\n"
            "python3 -c 'import sys; print(sys.version)'"
        )
        assert put(rig, NAME, "1.0.0", install=script).state == "succeeded"
        root = rig.device("device-1").root
        text = said(rig, NAME)
        assert f"a={root}/packages/artifacts-unarchived/{NAME}/1.0.0/files " in text
        assert f"w={root}/work/{NAME} k={root} t=device-1" in text
        assert "thing=device-1 svc=" in text
        assert "svc=.\n" not in text
        assert f"pwd={root}/work/{NAME}\n1.0.0socket\n{sys.version.split()[0]}" in text

    def test_a_manifest_for_another_machine_is_refused(self, rig: Rig) -> None:
        manifest = {
            "Platform": {"os": "linux", "architecture": "riscv64", "runtime": "*"},
            "Lifecycle": {"run": {"Script": "echo ok"}},
        }
        script_component(rig.fleet, rig.folder / "files", NAME, "1.0.0", Manifests=[manifest], artifacts=False)
        status = deploy(rig, {NAME: ComponentSetting("1.0.0")})
        assert status.state == "failed"
        assert "found riscv64" in status.error
        assert "[fleet] architectures" in status.error


class TestRun:
    def test_a_crash_in_a_loop_fails_the_deployment_with_the_last_words(self, tmp_path: Path) -> None:
        # No success by living long enough, however slow this machine is.
        with fleet_of(tmp_path, in_process=True, device={"settle_s": 300.0}) as rig:
            status = put(rig, NAME, "1.0.0", run="echo start; echo 'no camera' >&2; exit 3")
            assert status.state == "failed"
            assert f"{NAME} 1.0.0: run ended with exit status 3" in status.error
            assert "no camera" in status.error
            assert status.states[NAME] == "BROKEN"
            assert said(rig, NAME).count("start") == 3
            mended = put(rig, NAME, "1.0.1", run="echo well")
            assert (mended.state, mended.states[NAME], mended.error) == ("succeeded", "FINISHED", "")

    def test_one_that_breaks_later_is_told_by_its_state_and_error(self, rig: Rig) -> None:
        script = "while ! test -e {work:path}/now; do sleep 0.1; done; echo 'belt torn'; exit 4"
        assert put(rig, NAME, "1.0.0", run=script).state == "succeeded"
        (rig.device("device-1").work(NAME) / "now").touch()
        wait_until(lambda: rig.fleet.status("canary")[0].states[NAME] == "BROKEN")
        status = rig.fleet.status("canary")[0]
        assert status.state == "succeeded"  # of the deployment
        assert "belt torn" in status.error
        (rig.device("device-1").work(NAME) / "now").unlink()
        later = put(rig, OTHER, "1.0.0")  # tries it again
        assert (later.state, later.states[NAME], later.error) == ("succeeded", "RUNNING", "")

    @pytest.mark.parametrize("name", ["KILL", "SEGV"])
    def test_one_that_is_killed_is_started_again(self, rig: Rig, name: str) -> None:
        put(rig, NAME, "1.0.0", run=FOREVER)
        (before,) = pids(rig, NAME)
        os.kill(before, getattr(signal, f"SIG{name}"))
        wait_until(lambda: len(pids(rig, NAME)) == 1 and before not in pids(rig, NAME))

    @pytest.mark.parametrize("script", ["exit 0", FOREVER])
    def test_one_that_ends_well_is_not_started_again(self, rig: Rig, script: str) -> None:
        put(rig, NAME, "1.0.0", run=f"echo start; {script}")
        for pid in pids(rig, NAME):
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: rig.fleet.status("canary")[0].states[NAME] == "FINISHED")
        put(rig, OTHER, "1.0.0")  # time passes
        assert said(rig, NAME).count("start") == 1

    def test_a_component_whose_version_stays_is_not_restarted(self, rig: Rig) -> None:
        put(rig, NAME, "1.0.0", run=FOREVER)
        before = pids(rig, NAME)
        put(rig, OTHER, "1.0.0")
        assert put(rig, OTHER, "2.0.0").components == {NAME: "1.0.0", OTHER: "2.0.0"}
        assert pids(rig, NAME) == before

    def test_a_new_version_takes_the_place_of_one_that_does_not_listen(self, rig: Rig) -> None:
        put(rig, NAME, "1.0.0", run="trap 'echo asked' TERM; echo one; while true; do sleep 0.1; done")
        before = pids(rig, NAME)
        status = put(rig, NAME, "2.0.0", run=f"echo two; {FOREVER}")
        assert status.states[NAME] == "RUNNING"
        assert not before & pids(rig, NAME)
        text = said(rig, NAME)
        assert text.index("one") < text.index("asked") < text.index("two")

    def test_a_removed_component_ends_with_its_children_and_its_artifacts_go(self, rig: Rig) -> None:
        put(rig, NAME, "1.0.0", run=f"setsid sh -c '{FOREVER}' & {FOREVER}")
        wait_until(lambda: len(pids(rig, NAME)) >= 2)
        status = deploy(rig, {NAME: None})
        assert NAME not in status.components
        assert pids(rig, NAME) == set()
        assert unpacked(rig) == set()

    def test_a_merged_configuration_restarts_the_component_once(self, rig: Rig) -> None:
        put(rig, NAME, "1.0.0", run=f"echo start; {FOREVER}")
        for _ in range(2):
            deploy(rig, {NAME: ComponentSetting("1.0.0", merge={"metrics": {"group": "canary"}})})
        deploy(rig, {NAME: ComponentSetting("1.0.0")})  # as it is
        assert said(rig, NAME).count("start") == 2


class TestArtifacts:
    def test_a_zip_that_was_changed_after_it_was_published_fails(self, rig: Rig) -> None:
        put(rig, NAME, "1.0.0", run=FOREVER)
        script_component(rig.fleet, rig.folder / "files", NAME, "2.0.0")
        archive = rig.settings.local_fleet_folder / "cloud" / "components" / NAME / "2.0.0" / "artifacts" / "files.zip"
        archive.chmod(0o644)
        with archive.open("ab") as file:
            file.write(b"more")
        status = deploy(rig, {NAME: ComponentSetting("2.0.0")})
        assert status.state == "failed"
        assert "files.zip: want sha256" in status.error
        assert (status.components[NAME], status.states[NAME]) == ("1.0.0", "RUNNING")

    @pytest.mark.parametrize("entry", ["../../escaped.txt", "/tmp/escaped.txt", "a/../../escaped.txt", "a\\b"])
    def test_a_zip_that_leads_elsewhere_fails(self, rig: Rig, entry: str) -> None:
        status = put(rig, NAME, "1.0.0", files={entry: "x"})
        assert status.state == "failed"
        assert "want plain files below the archive" in status.error
        assert list(rig.folder.rglob("escaped.txt")) == []
        assert unpacked(rig) == set()

    def test_a_full_disk_fails_the_deployment_and_the_next_one_finds_room(
        self, rig: Rig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(rig, NAME, "1.0.0", run=FOREVER)

        def full(*arguments: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "files.zip")

        with monkeypatch.context() as patch:
            patch.setattr("inspection.fleet.local.artifacts._unpack", full)
            status = put(rig, NAME, "2.0.0", run=FOREVER)
        assert (status.state, status.components[NAME], status.states[NAME]) == ("failed", "1.0.0", "RUNNING")
        assert "No space left on device" in status.error
        assert list(rig.device("device-1").staging.iterdir()) == []
        assert put(rig, NAME, "3.0.0", run=FOREVER).state == "succeeded"

    @pytest.mark.parametrize("name", ["../up", "..", "a/b", ".hidden", "a.", "a" * 129, ""])
    def test_a_component_whose_name_is_a_path_is_refused(self, rig: Rig, name: str) -> None:
        component = ComponentVersion(name, "1.0.0", {}, {}, "d")
        for ask in (
            lambda: rig.fleet.publish(component),
            lambda: rig.fleet.find(name, "1.0.0"),
            lambda: rig.fleet.versions(name),
            lambda: rig.fleet.artifact_uri(name, "1.0.0", "a.zip"),
            lambda: rig.fleet.deploy("canary", {name: ComponentSetting("1.0.0")}, "bad"),
        ):
            with pytest.raises(RolloutError, match="component name: want"):
                ask()

    @pytest.mark.parametrize("version", ["1.0", "../1.0.0", "1.0.0/..", "01.0.0", "1.0.0 "])
    def test_a_version_that_is_none_is_refused(self, rig: Rig, version: str) -> None:
        with pytest.raises(RolloutError, match="version: want"):
            rig.fleet.publish(ComponentVersion(NAME, version, {}, {}, "d"))

    def test_a_recipe_with_faults_is_refused_before_anything_is_stored(self, rig: Rig) -> None:
        with pytest.raises(RolloutError, match=r"Manifests\[0\]\.Lifecycle\.Run: no such key; want run"):
            script_component(
                rig.fleet,
                rig.folder / "files",
                NAME,
                "1.0.0",
                Manifests=[{"Platform": {"os": "linux", "runtime": "*"}, "Lifecycle": {"Run": {"Script": "a"}}}],
                artifacts=False,
            )
        assert rig.fleet.versions(NAME) == ()

    def test_many_who_publish_at_once_make_one_version(self, rig: Rig) -> None:
        def publish(number: int) -> str:
            with contextlib.suppress(RolloutError):  # taken by other content
                folder = rig.folder / str(number)
                return script_component(rig.fleet, folder, NAME, "1.0.0", files={"n": str(number)}).digest
            return ""

        with ThreadPoolExecutor(6) as pool:
            won = {digest for digest in pool.map(publish, range(6)) if digest}
        assert [one.digest for one in rig.fleet.versions(NAME)] == list(won)


class TestGroups:
    def test_a_device_of_two_groups_has_what_both_want(self, tmp_path: Path) -> None:
        groups = {"canary": ["device-1"], "fleet": ["device-2"], "all": ["device-1", "device-2"]}
        with fleet_of(tmp_path, in_process=True, local={"groups": groups}) as rig:
            put(rig, NAME, "1.0.0")
            put(rig, OTHER, "1.0.0", "all")
            assert rig.fleet.status("canary")[0].components == {NAME: "1.0.0", OTHER: "1.0.0"}
            assert rig.fleet.status("fleet")[0].components == {OTHER: "1.0.0"}
            clash = put(rig, NAME, "2.0.0", "all")
            assert clash.state == "failed"
            assert "group all wants version 2.0.0, group canary wants 1.0.0" in clash.error
            assert {one.thing: one.state for one in rig.fleet.status("all")} == {
                "device-1": "failed",
                "device-2": "succeeded",
            }
            assert rig.fleet.status("canary")[0].state == "succeeded"
            with pytest.raises(RolloutError, match="each device in one group only, found device-1 in canary and all"):
                rig.fleet.check(["canary", "all"])

    def test_stock_components_come_with_the_nucleus(self, rig: Rig) -> None:
        status = deploy(rig, {"aws.greengrass.TokenExchangeService": ComponentSetting("2.0.3")})
        assert status.state == "succeeded"
        assert status.components == {"aws.greengrass.TokenExchangeService": "2.0.3"}
        assert status.states == {"aws.greengrass.TokenExchangeService": "RUNNING"}

    def test_deployments_made_at_once_are_all_kept(self, rig: Rig) -> None:
        for number in range(6):
            script_component(rig.fleet, rig.folder / "files", f"{NAME}{number}", "1.0.0")
        with ThreadPoolExecutor(6) as pool:
            list(
                pool.map(lambda n: rig.fleet.deploy("canary", {f"{NAME}{n}": ComponentSetting("1.0.0")}, "x"), range(6))
            )
        deployed = rig.fleet.deployed("canary")
        assert deployed is not None
        assert len(deployed.components) == 6

    def test_devices_that_never_ran_are_offline_and_a_folder_that_cannot_be_made_is_refused(
        self, tmp_path: Path
    ) -> None:
        fleet = open_fleet(local_settings(tmp_path))
        assert [(one.state, one.seen_at, one.components) for one in fleet.status("fleet")] == [
            ("offline", None, {})
        ] * 2
        (tmp_path / "taken").write_text("a file")
        taken = open_fleet(local_settings(tmp_path, local={"folder": str(tmp_path / "taken" / "devices")}))
        with pytest.raises(RolloutError, match=r"cannot make the folder of the devices.*set \[fleet\.local\] folder"):
            taken.check(["canary"])
        with pytest.raises(RolloutError, match=r"set \[fleet\.local\] folder"):
            script_component(taken, tmp_path / "files", NAME, "1.0.0")

    @pytest.mark.parametrize(
        ("groups", "message"),
        [
            ({"canary": ["cloud"], "fleet": ["b"]}, "want another name than cloud"),
            ({"canary": ["a"], "fleet": ["b"], "../x": ["a"]}, "as a group's name"),
            ({"canary": ["a/b"], "fleet": ["b"]}, "as a device's name"),
        ],
    )
    def test_names_that_cannot_be_folders_are_refused(self, tmp_path: Path, groups: Any, message: str) -> None:
        with pytest.raises(SettingsError, match=message):
            local_settings(tmp_path, local={"groups": groups})


def unpacked(rig: Rig, name: str = "") -> set[str]:
    folder = rig.device("device-1").root / "packages" / "artifacts-unarchived" / (name or NAME)
    return {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()


class TestDelivery:
    @pytest.fixture
    def delivery(self, tmp_path: Path) -> Delivery:
        return Delivery(str(tmp_path / "storage"), "plant/a", "device-1")

    def test_the_newest_health_message_and_every_result_are_kept(self, delivery: Delivery, tmp_path: Path) -> None:
        for number in (1, 2):
            assert delivery.deliver("plant/a/dots/device-1/health", b'{"n": %d}' % number)
        assert delivery.deliver("plant/a/dots/device-1/results", b'[{"id": 1}, {"id": 2}]')
        assert delivery.deliver("plant/a/dots/device-1/results", b'{"id": 3}')
        assert delivery.deliver("plant/a/dots/device-1/metrics", b"{}")  # nobody keeps them here
        folder = tmp_path / "storage" / "dots" / "live" / "device-1"
        assert (folder / "health.json").read_bytes() == b'{"n": 2}'
        assert (folder / "results.jsonl").read_text() == '{"id": 1}\n{"id": 2}\n{"id": 3}\n'
        assert {path.name for path in folder.iterdir()} == {"health.json", "results.jsonl"}

    @pytest.mark.parametrize(
        "topic",
        [
            "plant/a/dots/device-2/health",
            "plant/b/dots/device-1/health",
            "plant/a/device-1/health",
            "plant/a/x/dots/device-1/health",
            "plant/a/dots/device-1/more/health",
            "health",
        ],
    )
    def test_a_topic_of_somebody_else_is_refused(self, delivery: Delivery, topic: str) -> None:
        assert not delivery.deliver(topic, b"{}")

    @pytest.mark.parametrize("kind", ["health", "results"])
    def test_a_line_that_is_a_path_is_refused(self, delivery: Delivery, tmp_path: Path, kind: str) -> None:
        with pytest.raises(StorageError, match="stays below root"):
            delivery.deliver(f"plant/a/../device-1/{kind}", b"{}")
        assert not (tmp_path / "live").exists()

    def test_results_take_a_bounded_part_of_the_disk(
        self, delivery: Delivery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("inspection.fleet.local.delivery.RESULTS_BYTES", 1000)
        for number in range(500):
            delivery.deliver("plant/a/dots/device-1/results", b'{"id": "%05d"}' % number)
        folder = tmp_path / "storage" / "dots" / "live" / "device-1"
        assert sum(path.stat().st_size for path in folder.iterdir()) < 2100
        assert "00499" in (folder / "results.jsonl").read_text()


class TestLogs:
    def test_a_component_that_talks_without_end_does_not_fill_the_disk(
        self, rig: Rig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("inspection.fleet.local.lifecycle.MAX_LOG_BYTES", 20_000)
        put(rig, NAME, "1.0.0", run=f"while true; do echo {'many words ' * 100}; sleep 0.01; done")
        log = rig.device("device-1").log(NAME)
        wait_until(lambda: log.with_name(f"{log.name}.1").exists())
        wait_until(lambda: log.stat().st_size > 1000)  # it writes on
        assert b"\0" not in log.read_bytes()
