"""What every registry back end must do; a later one joins by adding itself to the `backend` fixture."""

import dataclasses
import hashlib
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import registry_writer
from golden_package import make_package
from registry_writer import write

from edge.package import open_package
from inspection.errors import PackageError, RegistryError, StorageError
from inspection.export.archive import archive_package
from inspection.registry.interface import PackageReference, Registry
from inspection.registry.local import LocalRegistry
from inspection.registry.opening import open_registry
from inspection.settings import LineSettings, RegistrySettings, Settings
from inspection.storage import open_storage

pytest_plugins = ["s3_server"]
WRITERS = 6
IMAGE = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/lineside:1"
COUNTER = itertools.count()  # a group of SageMaker for each test


@dataclass
class Backend:
    """A fresh registry, how to open it again, and the root under which other processes find the same one."""

    open: Callable[[], Registry]
    root: str

    def __post_init__(self) -> None:
        self.registry = self.open()


@pytest.fixture(params=["folder", "s3", "sagemaker"])
def backend(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backend:
    if request.param == "folder":
        root = str(tmp_path / "storage")
    else:
        root = f"s3://{request.getfixturevalue('s3')}/{tmp_path.name}"
        monkeypatch.setenv("HOME", str(tmp_path / "home"))  # where local copies of objects go
    if request.param == "sagemaker":
        from inspection.registry.sagemaker import SageMakerRegistry

        settings = RegistrySettings(backend="sagemaker", prefix=f"test{next(COUNTER)}", container_image=IMAGE)
        return Backend(lambda: SageMakerRegistry(open_storage(root), settings), root)
    return Backend(lambda: LocalRegistry(open_storage(root)), root)


@pytest.fixture
def package(tmp_path: Path) -> Callable[..., PackageReference]:
    """Make a reference to a small archive; different `content` is a different package."""

    def make(content: str = "model", line: str = "bottles", **changes) -> PackageReference:
        data = f"archive of {content}".encode()
        archive = tmp_path / "packages" / f"{content}.zip"
        archive.parent.mkdir(exist_ok=True)
        archive.write_bytes(data)
        fields = {
            "line": line,
            "archive": archive,
            "archive_sha256": hashlib.sha256(data).hexdigest(),
            "contract_version": f"contract-of-{content}",
            "metrics": {"auroc": {"value": 0.99, "low": 0.97, "high": 1.0}, "images": 400},
            "snapshot": "5" * 64,
            "run": "TrainFlow/17",
            "commit": "abc1234",
            "card": "TrainFlow/17/evaluate/4",
            "tags": {"backbone": "resnet18", "kind": "int8"},
        } | changes
        return PackageReference(**fields)

    return make


def run_writers(backend: Backend, folder: Path, action: str) -> list[str]:
    """What six writers answered that were let loose at once.

    They are processes where the file system must keep them apart, and threads where a server must.
    """
    folder.mkdir()
    with ThreadPoolExecutor(WRITERS) as pool:
        if backend.root.startswith("s3://"):
            registries = [backend.open() for _ in range(WRITERS)]
            futures = [pool.submit(write, registry, folder, action, me) for me, registry in enumerate(registries)]
        else:
            command = [sys.executable, registry_writer.__file__, backend.root, str(folder), action]
            futures = [pool.submit(_run_process, [*command, str(me)]) for me in range(WRITERS)]
        deadline = time.monotonic() + 60
        while len(list(folder.glob("*.ready"))) < WRITERS and time.monotonic() < deadline:
            time.sleep(0.01)
        (folder / "go").touch()
        return [answer for future in futures for answer in future.result(timeout=60)]


def _run_process(command: list[str]) -> list[str]:
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()


class TestRegister:
    def test_a_new_package_is_the_first_version_and_pending(self, backend, package):
        before = datetime.now(UTC)
        version = backend.registry.register(package())
        assert (version.line, version.version, version.status, version.history) == ("bottles", 1, "pending", ())
        assert version.created_at.utcoffset() == timedelta(0)
        assert before <= version.created_at <= datetime.now(UTC)

    def test_everything_that_was_registered_reads_back(self, backend, package):
        reference = package()
        backend.registry.register(reference)
        version = backend.registry.get("bottles", 1)
        assert version.archive_sha256 == reference.archive_sha256
        assert version.contract_version == "contract-of-model"
        assert version.metrics == {"auroc": {"value": 0.99, "low": 0.97, "high": 1.0}, "images": 400}
        assert version.tags == {"backbone": "resnet18", "kind": "int8"}
        lineage = version.lineage
        assert (lineage.snapshot, lineage.run, lineage.commit) == ("5" * 64, "TrainFlow/17", "abc1234")
        assert lineage.card == "TrainFlow/17/evaluate/4"

    def test_versions_count_up_within_a_line_and_lines_count_apart(self, backend, package):
        versions = [
            backend.registry.register(package(content, line)).version
            for content, line in [("a", "bottles"), ("b", "bottles"), ("c", "caps")]
        ]
        assert versions == [1, 2, 1]
        assert backend.registry.lines() == ("bottles", "caps")

    def test_a_line_whose_name_begins_with_another_ones_stays_apart(self, backend, package):
        backend.registry.register(package("a", "cap"))
        backend.registry.register(package("b", "caps"))
        assert [version.contract_version for version in backend.registry.list("cap")] == ["contract-of-a"]

    def test_registering_an_archive_again_returns_its_version(self, backend, package):
        first = backend.registry.register(package("a"))
        backend.registry.register(package("b"))
        again = backend.registry.register(package("a", run="TrainFlow/18"))
        assert again == first
        assert len(backend.registry.list("bottles")) == 2

    def test_registering_an_archive_again_does_not_undo_a_rejection(self, backend, package):
        backend.registry.register(package())
        backend.registry.reject("bottles", 1, "anna", "misses scratches")
        assert backend.registry.register(package()).status == "rejected"

    def test_the_same_archive_may_serve_two_lines(self, backend, package):
        backend.registry.register(package("a", "left"))
        assert backend.registry.register(package("a", "right")).version == 1

    def test_the_champion_of_the_moment_is_remembered(self, backend, package):
        backend.registry.register(package("a"))
        backend.registry.approve("bottles", 1, "anna", "good")
        second = backend.registry.register(package("b"))
        assert backend.registry.lineage("bottles", 1).champion is None
        assert second.lineage.champion == 1

    def test_an_archive_that_changed_since_it_was_made_is_refused_with_both_digests(self, backend, package):
        reference = package()
        reference.archive.write_bytes(b"something else")
        found = hashlib.sha256(b"something else").hexdigest()
        with pytest.raises(PackageError, match=f"want sha256 {reference.archive_sha256}, found {found}"):
            backend.registry.register(reference)
        assert backend.registry.list("bottles") == ()

    def test_a_missing_archive_is_refused(self, backend, package, tmp_path):
        with pytest.raises(PackageError, match="found no file; build the package again"):
            backend.registry.register(package(archive=tmp_path / "gone.zip"))

    @pytest.mark.parametrize("metrics", [{"auroc": float("nan")}, {"auroc": object()}])
    def test_metrics_that_are_not_json_are_refused_before_anything_is_stored(self, backend, package, metrics):
        with pytest.raises(RegistryError, match="want JSON values and finite numbers"):
            backend.registry.register(package(metrics=metrics))
        assert open_storage(backend.root).list("") == []

    @pytest.mark.parametrize("field", ["contract_version", "snapshot", "run"])
    def test_a_package_without_lineage_is_refused(self, backend, package, field):
        with pytest.raises(RegistryError, match=field):
            backend.registry.register(package(**{field: ""}))

    @pytest.mark.parametrize("line", ["", "../bottles", "Bottles", "-bottles", "a/b", "x" * 33])
    def test_a_name_that_no_line_may_have_is_refused(self, backend, package, line):
        with pytest.raises(RegistryError, match="line: want"):
            backend.registry.register(package(line=line))
        with pytest.raises(RegistryError, match="line: want"):
            backend.registry.get(line, 1)

    def test_many_writers_at_once_never_share_a_number(self, backend, tmp_path):
        answers = run_writers(backend, tmp_path / "writers", "different")
        numbers = list(range(1, 3 * WRITERS + 1))
        assert sorted(map(int, answers)) == numbers
        versions = backend.registry.list("bottles")
        assert [version.version for version in versions] == numbers
        assert len({version.archive_sha256 for version in versions}) == len(numbers)

    def test_many_writers_of_one_archive_make_one_version(self, backend, tmp_path):
        assert run_writers(backend, tmp_path / "writers", "same") == ["1"] * WRITERS
        assert len(backend.registry.list("bottles")) == 1


class TestDecisions:
    def test_approval_is_recorded_with_who_why_and_when(self, backend, package):
        backend.registry.register(package())
        version = backend.registry.approve("bottles", 1, "anna", "beats the last one on lot 7")
        assert version.status == "approved"
        (change,) = version.history
        assert (change.status, change.by, change.why) == ("approved", "anna", "beats the last one on lot 7")
        assert timedelta(0) <= datetime.now(UTC) - change.at < timedelta(minutes=1)
        assert backend.registry.get("bottles", 1) == version

    def test_a_version_goes_every_allowed_way_and_its_history_keeps_all(self, backend, package):
        registry = backend.registry
        registry.register(package())
        registry.reject("bottles", 1, "anna", "misses scratches")
        registry.approve("bottles", 1, "bert", "the scratches were dust")
        registry.roll_back("bottles", 1, "carl", "reviews doubled")
        version = registry.approve("bottles", 1, "anna", "the lamp was broken")
        assert [change.status for change in version.history] == ["rejected", "approved", "rolled-back", "approved"]
        assert [change.by for change in version.history] == ["anna", "bert", "carl", "anna"]

    @pytest.mark.parametrize(
        ("path", "refused", "remedy"),
        [
            ([], "roll_back", "`lineside registry approve bottles 1` or `lineside registry reject bottles 1`"),
            (["approve"], "reject", "`lineside registry roll-back bottles 1`"),
            (["approve"], "approve", "found approved"),
            (["reject"], "reject", "found rejected"),
            (["reject"], "roll_back", "`lineside registry approve bottles 1`"),
            (["approve", "roll_back"], "reject", "`lineside registry approve bottles 1`"),
            (["approve", "roll_back"], "roll_back", "found rolled-back"),
        ],
    )
    def test_a_change_that_is_not_allowed_is_refused_with_what_is(self, backend, package, path, refused, remedy):
        backend.registry.register(package())
        for step in path:
            getattr(backend.registry, step)("bottles", 1, "anna", step)
        before = backend.registry.get("bottles", 1)
        with pytest.raises(RegistryError) as error:
            getattr(backend.registry, refused)("bottles", 1, "bert", "because")
        assert remedy in str(error.value)
        if path:
            assert "by anna" in str(error.value)
        assert backend.registry.get("bottles", 1) == before

    def test_the_same_decision_again_is_the_retry_of_a_lost_answer(self, backend, package):
        backend.registry.register(package())
        first = backend.registry.approve("bottles", 1, "retrain flow", "beats version 0")
        assert backend.registry.approve("bottles", 1, "retrain flow", "beats version 0") == first

    @pytest.mark.parametrize(("by", "why", "named"), [("", "x", "by"), ("  ", "x", "by"), ("x", "", "why")])
    def test_a_decision_without_a_name_or_a_reason_is_refused(self, backend, package, by, why, named):
        backend.registry.register(package())
        with pytest.raises(RegistryError, match=f"^{named}: want"):
            backend.registry.approve("bottles", 1, by, why)
        assert backend.registry.get("bottles", 1).status == "pending"

    def test_control_characters_cannot_enter_the_history(self, backend, package):
        backend.registry.register(package())
        with pytest.raises(RegistryError, match="printable"):
            backend.registry.approve("bottles", 1, "anna", "fine\x1b[2J")

    def test_of_many_who_decide_at_once_one_wins_and_the_others_are_told_who(self, backend, package, tmp_path):
        backend.registry.register(package())
        answers = run_writers(backend, tmp_path / "writers", "decide")
        history = backend.registry.get("bottles", 1).history
        # approve after reject is allowed, so a rejection may be followed by one approval; nothing else is recorded
        assert [change.status for change in history] in (["approved"], ["rejected", "approved"], ["rejected"])
        assert answers.count("won") == len(history)
        assert all("by person" in answer for answer in answers if answer != "won")


class TestQueries:
    def test_latest_is_the_highest_version_of_that_status(self, backend, package):
        registry = backend.registry
        assert registry.latest("bottles") is None
        for content in "abc":
            registry.register(package(content))
        assert registry.latest("bottles") is None
        assert registry.latest("bottles", "pending").version == 3
        registry.approve("bottles", 2, "anna", "good")
        registry.approve("bottles", 1, "anna", "good too")
        assert registry.latest("bottles").version == 2

    def test_after_a_roll_back_the_version_before_is_the_latest(self, backend, package):
        for number, content in enumerate("ab", start=1):
            backend.registry.register(package(content))
            backend.registry.approve("bottles", number, "anna", "good")
        backend.registry.roll_back("bottles", 2, "anna", "reviews doubled")
        assert backend.registry.latest("bottles").version == 1
        assert backend.registry.latest("bottles", "rolled-back").version == 2

    def test_latest_finds_an_approved_version_far_below_the_newest(self, tmp_path, package):
        registry = LocalRegistry(open_storage(str(tmp_path / "storage")))
        for number in range(40):
            registry.register(package(str(number)))
        registry.approve("bottles", 2, "anna", "good")
        assert registry.latest("bottles").version == 2
        assert registry.latest("bottles", "pending").version == 40
        assert registry.latest("bottles", "rejected") is None

    def test_a_line_without_versions_lists_none(self, backend):
        assert backend.registry.list("bottles") == ()
        assert backend.registry.lines() == ()

    def test_a_version_that_is_not_there_names_those_that_are(self, backend, package):
        backend.registry.register(package("a"))
        backend.registry.register(package("b"))
        with pytest.raises(RegistryError, match="want version 9, found versions 1 to 2"):
            backend.registry.get("bottles", 9)
        with pytest.raises(RegistryError, match="want version 0"):
            backend.registry.get("bottles", 0)

    def test_a_line_that_is_not_there_names_those_that_are(self, backend, package):
        backend.registry.register(package("a"))
        with pytest.raises(RegistryError, match=r"lines there: bottles.*train_flow"):
            backend.registry.approve("botles", 1, "anna", "good")


class TestFetch:
    @pytest.fixture
    def real_package(self, tmp_path, package) -> PackageReference:
        """A whole package of the line bottles around the tiny model."""
        folder = make_package(tmp_path / "built", line="bottles", version="tiny-model")
        archive = tmp_path / "built.zip"
        digest = archive_package(folder, archive)
        return package(archive=archive, archive_sha256=digest, contract_version="tiny-model")

    def test_a_package_comes_back_whole(self, backend, real_package, tmp_path):
        backend.registry.register(real_package)
        folder = backend.registry.fetch("bottles", 1, tmp_path / "fetched")
        assert folder == tmp_path / "fetched"
        assert open_package(folder).contract.version == "tiny-model"
        for path in (tmp_path / "built").rglob("*.*"):
            assert (folder / path.relative_to(tmp_path / "built")).read_bytes() == path.read_bytes()

    def test_a_tampered_archive_is_refused_with_both_digests_and_nothing_is_unpacked(
        self, backend, real_package, tmp_path
    ):
        version = backend.registry.register(real_package)
        data = bytearray(real_package.archive.read_bytes())
        data[len(data) // 2] ^= 1
        open_storage(backend.root).write(version.archive, bytes(data))
        found = hashlib.sha256(data).hexdigest()
        with pytest.raises(PackageError, match=f"want sha256 {real_package.archive_sha256}, found {found}"):
            backend.registry.fetch("bottles", 1, tmp_path / "fetched")
        assert not (tmp_path / "fetched").exists()

    def test_a_missing_archive_is_named(self, backend, tmp_path, package):
        backend.registry.register(package())
        _tamper(backend, "registry/bottles/000001.json", archive="packages/gone.zip")
        with pytest.raises(PackageError, match=r"packages/gone\.zip: the archive is missing"):
            backend.registry.fetch("bottles", 1, tmp_path / "fetched")
        assert not (tmp_path / "fetched").exists()

    def test_an_archive_that_is_no_package_is_refused(self, backend, package, tmp_path):
        backend.registry.register(package())
        with pytest.raises(PackageError, match="cannot be unpacked"):
            backend.registry.fetch("bottles", 1, tmp_path / "fetched")
        assert not (tmp_path / "fetched").exists()

    @pytest.mark.parametrize("wrong", [{"line": "caps"}, {"contract_version": "another"}])
    def test_a_package_registered_under_a_wrong_name_is_refused(self, backend, real_package, tmp_path, wrong):
        reference = dataclasses.replace(real_package, **wrong)
        backend.registry.register(reference)
        with pytest.raises(PackageError, match="found one of line bottles, model tiny-model"):
            backend.registry.fetch(reference.line, 1, tmp_path / "fetched")
        assert not (tmp_path / "fetched").exists()

    def test_a_folder_that_is_there_is_left_alone(self, backend, real_package, tmp_path):
        backend.registry.register(real_package)
        with pytest.raises(PackageError, match="exists already"):
            backend.registry.fetch("bottles", 1, tmp_path / "built")


def test_status_changes_leave_every_object_as_it_was(backend, package):
    storage = open_storage(backend.root)
    backend.registry.register(package())
    before = {key: storage.read(key) for key in storage.list("")}
    backend.registry.approve("bottles", 1, "anna", "good")
    after = {key: storage.read(key) for key in storage.list("")}
    assert set(after) - set(before) == {"registry/bottles/000001/events/0001.json"}
    assert {key: after[key] for key in before} == before


def test_a_registration_killed_before_its_entry_leaves_nothing_visible_and_can_be_retried(backend, package, tmp_path):
    reference = package()
    script = """
import os, signal, sys
from pathlib import Path
from inspection.registry.interface import PackageReference
from inspection.registry.local import LocalRegistry
from inspection.storage import open_storage

storage = open_storage(sys.argv[1])
storage.create = lambda key, data: os.kill(os.getpid(), signal.SIGKILL)
LocalRegistry(storage).register(PackageReference("bottles", Path(sys.argv[2]), sys.argv[3], "v", {}, "s", "r"))
"""
    arguments = [backend.root, str(reference.archive), reference.archive_sha256]
    killed = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60)
    assert killed.returncode == -9, killed.stderr
    assert open_storage(backend.root).list("") == [f"packages/{reference.archive_sha256}.zip"]
    assert backend.registry.list("bottles") == ()
    assert backend.registry.register(reference).version == 1


def test_an_archive_that_was_damaged_in_storage_is_replaced_when_it_is_registered_again(backend, package, caplog):
    reference = package()
    version = backend.registry.register(reference)
    storage = open_storage(backend.root)
    storage.write(version.archive, b"damaged")
    backend.registry.register(reference)
    assert storage.read(version.archive) == reference.archive.read_bytes()
    assert "event=archive_replaced" in caplog.text


def _tamper(backend: Backend, key: str, **changes) -> None:
    storage = open_storage(backend.root)
    storage.write(key, json.dumps(json.loads(storage.read(key)) | changes).encode())


class TestDocuments:
    ENTRY = "registry/bottles/000001.json"
    EVENT = "registry/bottles/000001/events/0001.json"

    @pytest.fixture
    def backend(self, tmp_path, package) -> Backend:
        """A folder with one approved version."""
        root = str(tmp_path / "storage")
        registry = LocalRegistry(open_storage(root))
        registry.register(package())
        registry.approve("bottles", 1, "anna", "good")
        return Backend(lambda: registry, root)

    @pytest.mark.parametrize("key", [ENTRY, EVENT])
    def test_a_newer_minor_version_with_unknown_fields_is_read(self, backend, key):
        _tamper(backend, key, schema="1.9", colour="blue")
        assert backend.registry.get("bottles", 1).status == "approved"

    @pytest.mark.parametrize("key", [ENTRY, EVENT])
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"schema": "2.0"}, "found 2.0; update this program"),
            ({"schema": None}, "want major.minor"),
            ({"requires": ["quorum"]}, r"requires \['quorum'\]"),
        ],
    )
    def test_what_this_program_cannot_understand_is_refused(self, backend, key, changes, message):
        _tamper(backend, key, **changes)
        with pytest.raises(RegistryError, match=message) as error:
            backend.registry.list("bottles")
        assert key in str(error.value)

    @pytest.mark.parametrize(
        ("key", "changes", "message"),
        [
            (ENTRY, {"archive_sha256": "abc"}, "want 64 hexadecimal digits"),
            (ENTRY, {"metrics": None}, "metrics: want dict, found None"),
            (ENTRY, {"created_at": "yesterday"}, "want a time with its zone"),
            (ENTRY, {"created_at": "2026-11-22T10:00:00"}, "want a time with its zone"),
            (ENTRY, {"lineage": {}}, "lineage: snapshot: want str, found nothing"),
            (ENTRY, {"version": 2}, "want the entry of line bottles version 1, found that of line bottles version 2"),
            (EVENT, {"status": "blessed"}, "found 'blessed'"),
            (EVENT, {"by": None}, "by: want str, found None"),
        ],
    )
    def test_a_damaged_document_is_named_with_the_field(self, backend, key, changes, message):
        _tamper(backend, key, **changes)
        with pytest.raises(RegistryError, match=message) as error:
            backend.registry.get("bottles", 1)
        assert f"{backend.root}/{key}" in str(error.value)

    def test_a_document_that_is_not_json_is_named(self, backend):
        open_storage(backend.root).write(self.ENTRY, b'{"schema": "1.')
        with pytest.raises(RegistryError, match=r"registry/bottles/000001\.json: want a registry document in JSON"):
            backend.registry.get("bottles", 1)


def test_a_decision_that_was_deleted_is_noticed(tmp_path, package):
    registry = LocalRegistry(open_storage(str(tmp_path)))
    registry.register(package())
    registry.reject("bottles", 1, "anna", "bad")
    registry.approve("bottles", 1, "anna", "good")
    (tmp_path / "registry/bottles/000001/events/0001.json").unlink()
    with pytest.raises(StorageError, match=r"registry/bottles/000001/events/0001\.json: .*does not exist"):
        registry.get("bottles", 1)


def test_settings_open_the_registry_of_their_storage(tmp_path):
    registry = open_registry(Settings(line=LineSettings(name="bottles", storage=str(tmp_path / "store"))))
    assert registry.storage.root == str(tmp_path / "store")
