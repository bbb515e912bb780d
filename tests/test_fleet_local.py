"""Devices on this machine as a fleet: what every fleet does, and what is their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_contract import FleetContract
from local_fleet import Rig, fleet_of

from inspection.fleet.interface import Fleet
from inspection.fleet.local.fleet import LocalFleet


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
