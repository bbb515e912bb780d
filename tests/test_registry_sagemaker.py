"""What is special about the registry in SageMaker; what every registry does is in test_registry_backends.py."""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import boto3
import pytest
from botocore.retries import standard
from sagemaker_server import ACCOUNT, SageMakerServer, backend, serve_sagemaker
from typer.testing import CliRunner, Result

from inspection.cli import app
from inspection.errors import RegistryError
from inspection.registry import sagemaker_api, sagemaker_mirror
from inspection.registry.choosing import choose_approved, choose_version
from inspection.registry.interface import PackageReference
from inspection.registry.local import LocalRegistry
from inspection.registry.opening import open_registry
from inspection.registry.sagemaker import SageMakerRegistry
from inspection.settings import LineSettings, RegistrySettings, Settings
from inspection.storage import LocalStorage, open_storage

pytest_plugins = ["s3_server"]
IMAGE = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/lineside:1"
COUNTER = itertools.count()


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[SageMakerServer, str]]:
    with serve_sagemaker() as pair:
        yield pair


@pytest.fixture
def server(served, s3, monkeypatch, tmp_path) -> Iterator[SageMakerServer]:
    """The server, found by boto3's environment variables; it must have refused nothing of what was asked."""
    application, address = served
    application.reset()
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(standard.ExponentialBackoff, "delay_amount", lambda self, context: 0)
    yield application
    assert application.refused == []


@pytest.fixture
def prefix() -> str:
    return f"plant{next(COUNTER)}"


class FolderAsBucket:
    """A folder that says it is in S3: what SageMaker is told is the same, and most requests of a test are saved."""

    def __init__(self, folder: Path) -> None:
        self._folder = LocalStorage(folder)
        self.root = f"s3://parts/{folder.name}"

    def __getattr__(self, name: str):
        return getattr(self._folder, name)


@pytest.fixture
def in_s3() -> bool:
    return False


@pytest.fixture
def open_one(server, prefix, tmp_path, in_s3) -> Callable[..., SageMakerRegistry]:
    """Open the test's registry once more, as another program would."""

    def make(name: str = "", **changes) -> SageMakerRegistry:
        settings = RegistrySettings(**{"backend": "sagemaker", "prefix": prefix, "container_image": IMAGE} | changes)
        if in_s3:
            return SageMakerRegistry(open_storage(f"s3://parts/{tmp_path.name}", settings.kms_key), settings)
        return SageMakerRegistry(FolderAsBucket(tmp_path / "storage" / f"{tmp_path.name}{name}"), settings)

    return make


@pytest.fixture
def registry(open_one) -> SageMakerRegistry:
    return open_one()


@pytest.fixture
def package(tmp_path) -> Callable[..., PackageReference]:
    def make(content: str = "model", **changes) -> PackageReference:
        archive = tmp_path / f"{content}.zip"
        archive.write_bytes(content.encode())
        fields = {
            "line": "bottles",
            "archive": archive,
            "archive_sha256": hashlib.sha256(content.encode()).hexdigest(),
            "contract_version": f"contract-{content}",
            "metrics": {"auroc": {"value": 0.991, "low": 0.97, "high": 1.0}, "escape_rate": {"value": 0.004}},
            "snapshot": "5" * 64,
            "run": "TrainFlow/17",
            "commit": "abc1234",
            "card": "TrainFlow/17/evaluate/4",
        } | changes
        return PackageReference(**fields)

    return make


def describe(prefix: str, version: int = 1, line: str = "bottles") -> dict:
    """What a person sees of a version in SageMaker."""
    return boto3.client("sagemaker").describe_model_package(ModelPackageName=arn_of(prefix, version, line))


def arn_of(prefix: str, version: int, line: str = "bottles", region: str = "eu-central-1") -> str:
    return f"arn:aws:sagemaker:{region}:{ACCOUNT}:model-package/{prefix}-{line}/{version}"


def decide_in_console(prefix: str, version: int, status: str, reason: str = "") -> None:
    """What the console does when a person updates the status."""
    why = {"ApprovalDescription": reason} if reason else {}
    boto3.client("sagemaker").update_model_package(
        ModelPackageArn=arn_of(prefix, version), ModelApprovalStatus=status, **why
    )


def read_uri(uri: str) -> bytes:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()


class TestModelPackage:
    @pytest.fixture
    def in_s3(self) -> bool:
        return True

    def test_a_version_is_a_pending_package_of_its_lines_group_with_the_same_number(self, registry, package, prefix):
        for content in "ab":
            registry.register(package(content))
        registry.register(package("c", line="caps"))
        assert describe(prefix, 2)["ModelPackageVersion"] == 2
        assert describe(prefix, 1, "caps")["ModelApprovalStatus"] == "PendingManualApproval"
        tags = {group.tags[0]["Value"] for name, group in backend().model_package_groups.items() if prefix in name}
        assert tags == {"bottles", "caps"}

    def test_its_archive_is_the_one_in_storage_and_its_image_the_one_of_the_settings(self, registry, package, prefix):
        reference = package()
        registry.register(reference)
        (container,) = describe(prefix)["InferenceSpecification"]["Containers"]
        source = container["ModelDataSource"]["S3DataSource"]
        assert container["Image"] == IMAGE
        assert (source["S3DataType"], source["CompressionType"]) == ("S3Object", "None")
        assert read_uri(source["S3Uri"]) == reference.archive.read_bytes()

    def test_metrics_and_card_are_objects_whose_digests_it_names(self, registry, package, prefix):
        registry.register(package(card_html=b"<html>a good model</html>"))
        reports = describe(prefix)["ModelMetrics"]
        metrics, card = reports["ModelQuality"]["Statistics"], reports["Explainability"]["Report"]
        figures = json.loads(read_uri(metrics["S3Uri"]))
        assert figures["binary_classification_metrics"]["auc"] == {"value": 0.991, "low": 0.97, "high": 1.0}
        assert figures["lineside"]["escape_rate"] == {"value": 0.004}
        assert (metrics["ContentType"], card["ContentType"]) == ("application/json", "text/html")
        assert read_uri(card["S3Uri"]) == b"<html>a good model</html>"
        for report in (metrics, card):
            digest = hashlib.sha256(read_uri(report["S3Uri"])).hexdigest()
            assert report["ContentDigest"] == f"sha256:{digest}"

    def test_metadata_tell_lineage_and_the_figures_at_the_operating_point(self, registry, package, prefix):
        reference = package(tags={"backbone": "resnet18"})
        registry.register(reference)
        found = describe(prefix)
        metadata = found["CustomerMetadataProperties"]
        assert (
            metadata.items()
            >= {
                "lineside-snapshot": "5" * 64,
                "lineside-run": "TrainFlow/17",
                "lineside-commit": "abc1234",
                "lineside-card": "TrainFlow/17/evaluate/4",
                "lineside-archive-sha256": reference.archive_sha256,
                "lineside-metric-escape_rate": "0.004",
                "lineside-metric-auroc-low": "0.97",
                "lineside-tag-backbone": "resnet18",
                "lineside-status": "pending",
            }.items()
        )
        assert found["MetadataProperties"] == {"CommitId": "abc1234", "GeneratedBy": "TrainFlow/17"}

    def test_text_that_sagemaker_would_refuse_is_shortened_and_replaced(self, registry, package, prefix):
        registry.register(
            package(
                run="TrainFlow/1 (tüv) {50 %}, 'x'" + "x" * 300,
                metrics={f"figure {number} µm [%]": number / 7 for number in range(60)},
                tags={"t" * 200: "ü" * 300, "leer": ""},
                contract_version="m" * 2000,
            )
        )
        version = registry.approve("bottles", 1, "Änne (QA)", "gut: 0,2 % < 0,5 % - “passt”" + "!" * 2000)
        assert version.history[0].why.endswith("!" * 2000)  # the history keeps all
        metadata = describe(prefix)["CustomerMetadataProperties"]
        assert len(metadata) == 40
        assert metadata["lineside-decided-by"] == "Änne -QA-"
        assert metadata["lineside-archive-sha256"] == version.archive_sha256

    def test_without_a_card_and_a_commit_the_package_has_none(self, registry, package, prefix):
        registry.register(package(card="", commit=""))
        found = describe(prefix)
        assert "Explainability" not in found["ModelMetrics"]
        assert "CommitId" not in found["MetadataProperties"]

    def test_what_is_stored_is_encrypted_with_the_key_of_the_settings(self, open_one, package, tmp_path):
        key = "alias/lineside"
        registry = open_one(kms_key=key)
        registry.register(package(card_html=b"<html></html>"))
        registry.approve("bottles", 1, "anna", "good")
        client = boto3.client("s3")
        objects = client.list_objects_v2(Bucket="parts", Prefix=f"{tmp_path.name}/")["Contents"]
        heads = {entry["Key"]: client.head_object(Bucket="parts", Key=entry["Key"]) for entry in objects}
        assert len(heads) >= 7
        assert {(head["ServerSideEncryption"], head["SSEKMSKeyId"]) for head in heads.values()} == {("aws:kms", key)}

    def test_settings_open_it(self, server, prefix, tmp_path):
        settings = Settings(
            line=LineSettings(name="bottles", storage=f"s3://parts/{tmp_path.name}"),
            registry=RegistrySettings(backend="sagemaker", prefix=prefix, container_image=IMAGE),
        )
        assert isinstance(open_registry(settings), SageMakerRegistry)

    def test_settings_that_cannot_work_are_refused(self, open_one, tmp_path):
        with pytest.raises(RegistryError, match=r"container_image, found none; see docs/registry\.md"):
            open_one(container_image="")
        with pytest.raises(RegistryError, match=r"want \[line\] storage in S3"):
            SageMakerRegistry(LocalStorage(tmp_path / "folder"), RegistrySettings(container_image=IMAGE))


class TestOurDecisions:
    def test_sagemaker_learns_who_decided_what_and_why(self, registry, package, prefix):
        registry.register(package())
        registry.approve("bottles", 1, "anna", "beats the last one on lot 7")
        found = describe(prefix)
        assert found["ModelApprovalStatus"] == "Approved"
        assert found["ApprovalDescription"] == "approved by anna: beats the last one on lot 7"
        assert found["CustomerMetadataProperties"]["lineside-decided-by"] == "anna"

    def test_a_version_that_was_rolled_back_is_rejected_there_and_its_metadata_say_why(self, registry, package, prefix):
        registry.register(package())
        registry.approve("bottles", 1, "anna", "good")
        assert registry.roll_back("bottles", 1, "deploy flow", "reviews doubled").status == "rolled-back"
        found = describe(prefix)
        assert found["ModelApprovalStatus"] == "Rejected"
        metadata = found["CustomerMetadataProperties"]
        assert (metadata["lineside-status"], metadata["lineside-decided-why"]) == ("rolled-back", "reviews doubled")
        assert registry.latest("bottles") is None

    @pytest.mark.parametrize("merges", [True, False])
    def test_what_others_noted_in_the_metadata_stays(self, server, registry, package, prefix, merges):
        server.merges = merges
        registry.register(package())
        mine = {**describe(prefix)["CustomerMetadataProperties"], "ticket": "QA-17"}
        boto3.client("sagemaker").update_model_package(
            ModelPackageArn=arn_of(prefix, 1),
            ModelApprovalStatus="PendingManualApproval",
            CustomerMetadataProperties=mine,
        )
        registry.approve("bottles", 1, "anna", "good")
        metadata = describe(prefix)["CustomerMetadataProperties"]
        assert (metadata["ticket"], metadata["lineside-snapshot"]) == ("QA-17", "5" * 64)

    def test_a_reader_asks_once_for_each_page_when_nothing_changed(self, server, registry, package, monkeypatch):
        for content in "abcde":
            registry.register(package(content))
        registry.approve("bottles", 2, "anna", "good")
        monkeypatch.setattr(sagemaker_api, "PAGE", 2)
        server.asked.clear()
        assert registry.latest("bottles").version == 2
        assert [name for name, _ in server.asked] == ["ListModelPackages"] * 3
        assert [parameters.get("NextToken") is not None for _, parameters in server.asked] == [False, True, True]

    def test_every_page_is_seen_when_a_version_is_registered(self, registry, package, monkeypatch):
        monkeypatch.setattr(sagemaker_api, "PAGE", 2)
        assert [registry.register(package(content)).version for content in "abcdef"] == [1, 2, 3, 4, 5, 6]
        assert registry.approve("bottles", 6, "anna", "good").status == "approved"


@pytest.mark.parametrize("merges", [True, False], ids=["merging", "replacing"])
class TestDecisionsInSageMaker:
    """A person or a pipeline updates a package; whether that replaces our metadata or not."""

    @pytest.fixture(autouse=True)
    def _merges(self, server, merges):
        server.merges = merges

    def test_an_approval_counts_with_who_why_and_when(self, registry, package, prefix):
        registry.register(package())
        before = datetime.now(UTC)
        decide_in_console(prefix, 1, "Approved", "looks right to me")
        version = registry.latest("bottles")
        (change,) = version.history
        assert (change.status, change.by) == ("approved", "fake-user-profile-name (in SageMaker)")
        assert change.why == "looks right to me"
        assert abs((change.at - before).total_seconds()) < 60
        assert registry.get("bottles", 1) == version
        assert describe(prefix)["CustomerMetadataProperties"]["lineside-decisions"] == "1"

    @pytest.mark.parametrize(
        ("ours", "theirs", "status"),
        [
            (["reject"], ["Approved"], "approved"),
            (["approve"], ["Rejected"], "rolled-back"),
            (["approve"], ["PendingManualApproval"], "rolled-back"),
            (["approve", "roll_back"], ["Approved"], "approved"),
            ([], ["Rejected"], "rejected"),
            ([], ["Approved", "Rejected", "Approved"], "approved"),
            (["reject"], ["PendingManualApproval"], "rejected"),
            (["approve"], ["Approved"], "approved"),
        ],
    )
    def test_each_status_means_what_it_may_mean_here(self, registry, package, prefix, ours, theirs, status):
        registry.register(package())
        for step in ours:
            getattr(registry, step)("bottles", 1, "anna", step)
        for step in theirs:
            decide_in_console(prefix, 1, step)
            registry.list("bottles")
        version = registry.get("bottles", 1)
        assert version.status == status
        assert registry.list("bottles") == (version,)
        expected = len(ours) + (0 if theirs[-1] == "PendingManualApproval" and ours == ["reject"] else len(theirs))
        assert len(version.history) == (1 if (ours, theirs) == (["approve"], ["Approved"]) else expected)

    def test_a_decision_without_a_reason_does_not_repeat_ours(self, registry, package, prefix):
        registry.register(package())
        registry.reject("bottles", 1, "anna", "misses scratches")
        decide_in_console(prefix, 1, "Approved")
        assert registry.get("bottles", 1).history[-1].why == "no reason given in SageMaker"

    def test_ours_after_theirs_is_refused_or_allowed_as_if_all_were_ours(self, registry, package, prefix):
        registry.register(package())
        decide_in_console(prefix, 1, "Approved", "fine")
        with pytest.raises(RegistryError, match=r"found approved \(by fake-user-profile-name \(in SageMaker\).*fine"):
            registry.reject("bottles", 1, "bert", "no")
        registry.roll_back("bottles", 1, "bert", "reviews doubled")
        assert describe(prefix)["ModelApprovalStatus"] == "Rejected"

    def test_the_champion_of_a_new_version_may_have_been_approved_there(self, registry, package, prefix):
        registry.register(package("a"))
        decide_in_console(prefix, 1, "Approved")
        assert registry.register(package("b")).lineage.champion == 1

    def test_two_readers_at_once_write_one_decision(self, registry, open_one, package, prefix, monkeypatch):
        registry.register(package())
        decide_in_console(prefix, 1, "Approved", "fine")
        other, record = open_one(), registry._local.record

        def late(*arguments):
            other.get("bottles", 1)
            return record(*arguments)

        monkeypatch.setattr(registry._local, "record", late)
        assert len(registry.get("bottles", 1).history) == 1

    def test_characters_that_would_garble_a_listing_are_not_taken_over(self, registry, package, prefix):
        registry.register(package())
        decide_in_console(prefix, 1, "Approved", "fine\x1b[2J")
        assert registry.get("bottles", 1).history[0].why == "fine [2J"

    def test_a_decision_that_sagemaker_was_not_told_wins_over_an_older_one_there(
        self, server, registry, package, prefix
    ):
        registry.register(package())
        decide_in_console(prefix, 1, "Approved", "fine")
        registry.get("bottles", 1)
        server.answer = lambda operation, parameters: (
            (403, "AccessDeniedException", "no") if operation == "UpdateModelPackage" else None
        )
        with pytest.raises(RegistryError, match="sagemaker:UpdateModelPackage"):
            registry.roll_back("bottles", 1, "anna", "reviews doubled")
        server.answer = lambda operation, parameters: None
        assert registry.get("bottles", 1).status == "rolled-back"
        assert describe(prefix)["ModelApprovalStatus"] == "Rejected"


class Killed(BaseException):
    """The process is gone."""


def kill_before(registry: SageMakerRegistry, step: int, monkeypatch) -> list[str]:
    """Let the registry die before its n-th write or question to SageMaker; the steps it took."""
    steps: list[str] = []

    def take(name: str) -> None:
        if len(steps) >= step:
            raise Killed
        steps.append(name)

    for name in ("create", "write", "upload"):
        act = getattr(registry.storage, name)
        monkeypatch.setattr(registry.storage, name, lambda *given, act=act, name=name: (take(name), act(*given))[1])
    registry._api._client.meta.events.register(
        "before-send.sagemaker", lambda event_name, **_: take(event_name.rpartition(".")[2])
    )
    return steps


class TestKilled:
    @pytest.mark.parametrize("action", ["register", "approve", "see"])
    def test_a_call_killed_at_any_step_is_completed_by_the_next_one(
        self, open_one, package, prefix, monkeypatch, action
    ):
        monkeypatch.setattr(sagemaker_mirror, "CLAIM_S", 0)

        def act(registry: SageMakerRegistry, line: str):
            if action == "register":
                return registry.register(package(line=line, card_html=b"card"))
            if action == "approve":
                return registry.approve(line, 1, "anna", "good")
            return registry.get(line, 1)

        for step in itertools.count():
            line = f"line-{step}"
            if action != "register":
                open_one().register(package(line=line))
            if action == "see":
                boto3.client("sagemaker").update_model_package(
                    ModelPackageArn=arn_of(prefix, 1, line), ModelApprovalStatus="Approved"
                )
            doomed = open_one()
            with monkeypatch.context() as patch:
                steps = kill_before(doomed, step, patch)
                try:
                    act(doomed, line)
                except Killed:
                    alive = False
                else:
                    alive = True
            version = act(open_one(), line)
            assert version.status == ("pending" if action == "register" else "approved"), steps
            assert len(version.history) == (0 if action == "register" else 1), steps
            numbers = [found for found in backend().model_packages if f"{prefix}-{line}/" in found]
            assert numbers == [arn_of(prefix, 1, line)], steps
            package_there = describe(prefix, 1, line)
            assert package_there["ModelApprovalStatus"] == (
                "PendingManualApproval" if action == "register" else "Approved"
            )
            if action != "see":  # a reader that finds both alike has nothing to tell
                assert package_there["CustomerMetadataProperties"]["lineside-decisions"] == str(len(version.history))
            if alive:
                assert len(steps) >= 2
                return

    def test_one_who_waits_for_a_killed_caller_goes_on_when_its_claim_has_run_out(
        self, open_one, package, monkeypatch, caplog
    ):
        caplog.set_level("INFO")
        monkeypatch.setattr(sagemaker_mirror, "CLAIM_S", 10**6)
        doomed = open_one()
        with monkeypatch.context() as patch:
            patch.setattr(doomed._api, "create", lambda request: (_ for _ in ()).throw(Killed()))
            patch.setattr(doomed.storage, "write", lambda key, data: None)  # it cannot say that it gives up
            with pytest.raises(Killed):
                doomed.register(package())
        monkeypatch.setattr(
            sagemaker_mirror.time, "sleep", lambda seconds: monkeypatch.setattr(sagemaker_mirror, "CLAIM_S", 0)
        )
        assert open_one().register(package()).version == 1
        assert "event=waiting_for_model_package line=bottles version=1" in caplog.text

    def test_one_who_was_refused_keeps_nobody_waiting(self, server, open_one, package):
        server.answer = lambda operation, parameters: (
            (400, "ResourceLimitExceeded", "1000 model packages") if operation == "CreateModelPackage" else None
        )
        with pytest.raises(RegistryError, match="quota of the account is used up"):
            open_one().register(package())
        server.answer = lambda operation, parameters: None
        assert open_one().register(package()).version == 1

    def test_a_version_whose_package_is_not_made_yet_is_pending_and_reading_makes_none(
        self, server, registry, package, caplog
    ):
        registry.register(package("a"))
        registry._local.register(package("b"))
        server.asked.clear()
        assert [version.status for version in registry.list("bottles")] == ["pending", "pending"]
        assert server.count("CreateModelPackage") == 0
        assert "event=no_model_package_yet line=bottles version=2" in caplog.text

    def test_a_line_that_began_in_a_local_registry_moves_with_its_history(self, registry, package, prefix):
        local = LocalRegistry(registry.storage)
        for content in "abc":
            local.register(package(content))
        local.approve("bottles", 1, "anna", "good")
        local.reject("bottles", 2, "anna", "bad")
        assert registry.latest("bottles").version == 1
        assert registry.register(package("d")).version == 4
        registry.approve("bottles", 2, "anna", "good after all")
        statuses = [describe(prefix, number)["ModelApprovalStatus"] for number in (2, 3, 4)]
        assert statuses == ["Approved", "PendingManualApproval", "PendingManualApproval"]
        registry.list("bottles")
        assert describe(prefix, 1)["ModelApprovalStatus"] == "Approved"


class TestOthers:
    def test_a_group_that_holds_versions_of_others_is_refused_before_anything_is_stored(
        self, registry, package, prefix
    ):
        client = boto3.client("sagemaker")
        client.create_model_package_group(ModelPackageGroupName=f"{prefix}-bottles")
        client.create_model_package(ModelPackageGroupName=f"{prefix}-bottles")
        with pytest.raises(RegistryError, match=r"numbers no longer agree.*set another \[registry\] prefix"):
            registry.register(package())
        assert registry.storage.list("") == []

    def test_an_empty_group_that_was_made_before_is_used(self, registry, package, prefix):
        boto3.client("sagemaker").create_model_package_group(ModelPackageGroupName=f"{prefix}-bottles")
        assert registry.register(package()).version == 1

    def test_a_package_that_somebody_adds_later_stops_the_next_registration_and_not_the_reading(
        self, registry, package, prefix
    ):
        registry.register(package("a"))
        registry.approve("bottles", 1, "anna", "good")
        boto3.client("sagemaker").create_model_package(ModelPackageGroupName=f"{prefix}-bottles")
        assert registry.latest("bottles").version == 1
        with pytest.raises(RegistryError, match=f"{prefix}-bottles/2, which is not version 2 of this line"):
            registry.register(package("b"))
        assert len(registry.list("bottles")) == 1

    def test_one_who_adds_a_package_at_the_same_moment_is_noticed(self, server, registry, package, prefix):
        registry.register(package("a"))
        added = []

        def add(operation, parameters):
            if operation == "CreateModelPackage" and not added:
                added.append(1)
                boto3.client("sagemaker").create_model_package(ModelPackageGroupName=f"{prefix}-bottles")

        server.answer = add
        with pytest.raises(RegistryError, match=f"{prefix}-bottles/3, which is not version 2"):
            registry.register(package("b"))

    def test_two_storages_cannot_share_a_group(self, registry, open_one, package):
        registry.register(package("a"))
        with pytest.raises(RegistryError, match="another storage or another program registers in this group"):
            open_one("-other").register(package("b"))

    def test_another_prefix_leads_out(self, registry, open_one, package, prefix):
        registry.register(package("a"))
        registry.approve("bottles", 1, "anna", "good")
        boto3.client("sagemaker").create_model_package(ModelPackageGroupName=f"{prefix}-bottles")
        registry = open_one(prefix=f"{prefix}-new")
        assert registry.register(package("b")).version == 2
        registry.list("bottles")
        assert describe(f"{prefix}-new", 1)["ModelApprovalStatus"] == "Approved"

    def test_a_package_that_points_to_another_archive_is_never_served(self, registry, package, prefix):
        registry.register(package())
        there = backend().model_packages[arn_of(prefix, 1)]
        source = there.inference_specification["Containers"][0]["ModelDataSource"]["S3DataSource"]
        source["S3Uri"] = "s3://elsewhere/packages/x.zip"
        decide_in_console(prefix, 1, "Approved")
        with pytest.raises(RegistryError, match="which is not version 1 of this line"):
            registry.latest("bottles")

    @pytest.mark.parametrize(("steps", "status"), [([], "rejected"), (["approve"], "rolled-back")])
    def test_a_version_whose_package_was_deleted_does_not_serve(
        self, registry, package, prefix, monkeypatch, steps, status
    ):
        monkeypatch.setattr(sagemaker_mirror, "FRESH_S", 0)
        registry.register(package("a"))
        registry.register(package("b"))
        for step in steps:
            getattr(registry, step)("bottles", 1, "anna", step)
        del backend().model_packages[arn_of(prefix, 1)]
        (first, _) = registry.list("bottles")
        assert (first.status, first.history[-1].by) == (status, "SageMaker")
        assert "was deleted" in first.history[-1].why
        with pytest.raises(RegistryError, match="deleted in SageMaker; such a version cannot be approved again"):
            registry.approve("bottles", 1, "anna", "good")

    def test_a_fresh_package_that_is_not_shown_yet_is_not_taken_for_deleted(self, registry, package, prefix, caplog):
        registry.register(package("a"))
        registry.register(package("b"))
        del backend().model_packages[arn_of(prefix, 2)]
        assert [version.status for version in registry.list("bottles")] == ["pending", "pending"]
        assert "event=model_package_not_visible_yet line=bottles version=2" in caplog.text

    def test_a_roll_back_does_not_wait_for_a_group_of_our_own(self, registry, package, prefix):
        registry.register(package())
        registry.approve("bottles", 1, "anna", "good")
        boto3.client("sagemaker").create_model_package(ModelPackageGroupName=f"{prefix}-bottles")
        assert registry.roll_back("bottles", 1, "deploy flow", "reviews doubled").status == "rolled-back"
        assert describe(prefix)["ModelApprovalStatus"] == "Rejected"

    def test_a_decision_made_on_the_storage_alone_reaches_sagemaker(self, registry, package, prefix):
        registry.register(package())
        LocalRegistry(registry.storage).approve("bottles", 1, "anna", "good")
        assert registry.latest("bottles").history[0].by == "anna"
        assert describe(prefix)["ApprovalDescription"] == "approved by anna: good"

    @pytest.mark.parametrize(
        ("mark", "message"),
        [
            (b'{"sch', "restore this object"),
            (b'{"schema": "2.0"}', "update this"),
            (b'{"schema": "1.1", "requires": ["x"]}', "x"),
        ],
    )
    def test_a_mark_that_cannot_be_understood_is_named(self, registry, open_one, package, prefix, mark, message):
        registry.register(package())
        registry.storage.write(f"registry/bottles/sagemaker/{prefix}-bottles.json", mark)
        with pytest.raises(RegistryError, match=rf"registry/bottles/sagemaker/{prefix}-bottles\.json: .*{message}"):
            open_one().list("bottles")

    def test_histories_that_lost_a_decision_are_noticed(self, registry, open_one, package, prefix):
        registry.register(package())
        boto3.client("sagemaker").update_model_package(
            ModelPackageArn=arn_of(prefix, 1),
            ModelApprovalStatus="Approved",
            CustomerMetadataProperties={"lineside-decisions": "3"},
        )
        with pytest.raises(RegistryError, match=r"want the 3 decisions that .* found 0 in the history; restore"):
            registry.get("bottles", 1)


class TestPlaces:
    @pytest.mark.parametrize("group_there", [False, True])
    def test_the_wrong_region_is_told_and_deletes_nothing(self, registry, open_one, package, prefix, group_there):
        registry.register(package())
        if group_there:
            client = boto3.client("sagemaker", region_name="us-east-1")
            client.create_model_package_group(ModelPackageGroupName=f"{prefix}-bottles")
        lost = open_one(region="us-east-1")
        for call in (lambda: lost.list("bottles"), lambda: lost.approve("bottles", 1, "anna", "good")):
            with pytest.raises(RegistryError, match=r"in eu-central-1.*check \[registry\] region and AWS_PROFILE"):
                call()
        assert registry.get("bottles", 1).history == ()

    def test_another_account_is_told(self, registry, open_one, package, monkeypatch):
        registry.register(package())
        role = boto3.client("sts").assume_role(
            RoleArn="arn:aws:iam::111122223333:role/other", RoleSessionName="someone"
        )["Credentials"]
        stray = open_one()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", role["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", role["SecretAccessKey"])
        monkeypatch.setenv("AWS_SESSION_TOKEN", role["SessionToken"])
        stray._api._client = boto3.Session().client("sagemaker")
        with pytest.raises(RegistryError, match=f"of account {ACCOUNT} in eu-central-1.*AWS_PROFILE"):
            stray.list("bottles")

    def test_a_group_that_was_deleted_is_told(self, registry, package, prefix):
        registry.register(package())
        del backend().model_package_groups[f"{prefix}-bottles"]
        del backend().model_packages[arn_of(prefix, 1)]
        with pytest.raises(
            RegistryError, match=r"found no such group in eu-central-1.*set another \[registry\] prefix"
        ):
            registry.get("bottles", 1)

    def test_a_group_name_that_is_too_long_is_refused(self, open_one, package):
        with pytest.raises(RegistryError, match=r"at most 63 characters, found 64; shorten \[registry\] prefix"):
            open_one(prefix="x" * 56).register(package())


class TestChoosing:
    def test_a_version_is_found_by_its_number_or_its_arn(self, registry, package, prefix):
        registry.register(package())
        for name in ("1", "001", arn_of(prefix, 1)):
            assert registry.find("bottles", name).version == 1

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            (
                "arn:aws:sagemaker:us-east-1:123456789012:model-package/{prefix}-bottles/1",
                "found one of .* in us-east-1",
            ),
            ("arn:aws:sagemaker:eu-central-1:999999999999:model-package/{prefix}-bottles/1", "account 999999999999"),
            ("arn:aws:sagemaker:eu-central-1:123456789012:model-package/{prefix}-caps/1", "group .*-caps of account"),
            (
                "arn:aws:sagemaker:eu-central-1:123456789012:model-package/{prefix}-bottles/8",
                "want version 8, found ver",
            ),
            (
                "arn:aws:sagemaker:eu-central-1:123456789012:model-package/{prefix}-bottles",
                "want an ARN with a version",
            ),
            ("arn:aws:s3:::bucket/key", "want an ARN with a version"),
            ("v7", "want the number of a version such as 7"),
            ("7²", "want the number of a version such as 7"),
        ],
    )
    def test_a_name_that_means_no_version_of_the_line_is_refused(self, registry, package, prefix, name, message):
        registry.register(package())
        with pytest.raises(RegistryError, match=message):
            registry.find("bottles", name.format(prefix=prefix))

    def test_an_arn_of_a_line_without_versions_is_refused(self, registry, prefix):
        with pytest.raises(RegistryError, match="has no model package group yet"):
            registry.find("bottles", arn_of(prefix, 1))

    def test_a_local_registry_knows_no_arns(self, tmp_path):
        with pytest.raises(RegistryError, match='set backend = "sagemaker"'):
            LocalRegistry(open_storage(str(tmp_path))).find("bottles", arn_of("x", 1))

    def test_only_an_approved_version_is_chosen_for_devices(self, registry, package):
        with pytest.raises(RegistryError, match="found no version; train one"):
            choose_version(registry, "bottles")
        registry.register(package())
        with pytest.raises(RegistryError, match=r"found version 1 pending.*registry approve bottles 1"):
            choose_approved(registry, "bottles")
        with pytest.raises(RegistryError, match=r"version 1: want an approved model, found it pending; approve it"):
            choose_approved(registry, "bottles", "1")
        registry.reject("bottles", 1, "anna", "misses scratches")
        with pytest.raises(RegistryError, match=r"found it rejected \(by anna.*misses scratches\)"):
            choose_approved(registry, "bottles", "1")
        with pytest.raises(RegistryError, match=r"found none \(versions: 1 rejected\)"):
            choose_approved(registry, "bottles")
        registry.approve("bottles", 1, "anna", "good after all")
        assert choose_approved(registry, "bottles").version == choose_approved(registry, "bottles", "1").version == 1


class TestFaults:
    @pytest.mark.parametrize(
        "fault",
        [
            (400, "ThrottlingException", "Rate exceeded"),
            (429, "TooManyRequestsException", "slow down"),
            (500, "InternalFailure", "oops"),
        ],
    )
    def test_what_passes_by_itself_is_repeated(self, server, open_one, package, prefix, fault):
        counts: dict[str, int] = {}

        def answer(operation, parameters):
            counts[operation] = counts.get(operation, 0) + 1
            return fault if counts[operation] <= 3 else None

        server.answer = answer
        registry = open_one()
        registry.register(package())
        registry.approve("bottles", 1, "anna", "good")
        assert set(counts) >= {"CreateModelPackage", "UpdateModelPackage", "ListModelPackages", "DescribeModelPackage"}
        assert len(backend().model_packages.get(arn_of(prefix, 1)).customer_metadata_properties) > 5

    def test_a_lost_answer_makes_no_second_package(self, server, open_one, package, prefix):
        lost = []

        def lose(operation, parameters):
            if operation == "CreateModelPackage" and not lost:
                lost.append(parameters["ClientToken"])
                return True
            return False

        server.loses = lose
        registry = open_one()
        registry.register(package())
        created = [parameters for name, parameters in server.asked if name == "CreateModelPackage"]
        assert [parameters["ClientToken"] for parameters in created] == lost * 2
        assert [version.version for version in registry.list("bottles")] == [1]
        assert len([arn for arn in backend().model_packages if f":model-package/{prefix}-" in arn]) == 1

    @pytest.mark.parametrize("operation", ["CreateModelPackage", "UpdateModelPackage"])
    def test_a_conflict_with_another_change_is_repeated(self, server, registry, package, operation, monkeypatch):
        monkeypatch.setattr(sagemaker_api.time, "sleep", lambda seconds: None)
        left = [1, 2]
        server.answer = lambda asked, parameters: (
            (400, "ConflictException", "another change") if asked == operation and left and left.pop() else None
        )
        registry.register(package())
        assert registry.approve("bottles", 1, "anna", "good").status == "approved"
        assert left == []

    @pytest.mark.parametrize(
        ("status", "code", "message"),
        [
            (400, "ExpiredTokenException", "credentials have expired; sign in again"),
            (400, "UnrecognizedClientException", "does not know these credentials"),
            (400, "AccessDeniedException", r"need sagemaker:ListModelPackages, see the policy in docs/registry\.md"),
            (400, "ThrottlingException", "still throttles after 8 attempts"),
            (500, "InternalFailure", "AWS has a fault of its own, 8 attempts failed"),
            (400, "ValidationException", "ValidationException: as the test wants"),
        ],
    )
    def test_what_does_not_pass_is_one_sentence_that_says_what_to_do(
        self, server, registry, package, status, code, message
    ):
        server.answer = lambda operation, parameters: (status, code, "as the test wants")
        with pytest.raises(RegistryError, match=rf"^SageMaker Model Registry in eu-central-1: .*{message}") as error:
            registry.register(package())
        assert "\n" not in str(error.value)
        assert registry.storage.list("") == []

    def test_no_credentials_and_no_region_are_told(self, open_one, monkeypatch):
        registry = open_one()
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        registry._api._client = boto3.Session().client("sagemaker")
        with pytest.raises(RegistryError, match=r"no AWS credentials .*; run `aws configure` or set AWS_PROFILE"):
            registry._api.find_group("x")
        monkeypatch.delenv("AWS_DEFAULT_REGION")
        monkeypatch.delenv("AWS_REGION", raising=False)
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
        with pytest.raises(RegistryError, match=r"no AWS region; set \[registry\] region or AWS_REGION"):
            sagemaker_api.SageMakerApi("")

    def test_a_region_that_is_none_is_told(self, server):
        with pytest.raises(RegistryError, match=r"check \[registry\] region"):
            sagemaker_api.SageMakerApi("eu central")

    def test_a_server_that_cannot_be_reached_is_told(self, server, monkeypatch):
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with pytest.raises(RegistryError, match=r"Could not connect.*check the network and \[registry\] region"):
            sagemaker_api.SageMakerApi("eu-central-1").find_group("x")


class TestCommands:
    """`lineside registry … --config` with a line whose registry is SageMaker's."""

    @pytest.fixture
    def in_s3(self) -> bool:
        return True

    @pytest.fixture
    def run(self, registry, prefix, tmp_path) -> Callable[..., Result]:
        config = tmp_path / "bottles.toml"
        config.write_text(
            f'[line]\nname = "bottles"\nstorage = "s3://parts/{tmp_path.name}"\n'
            f'[registry]\nbackend = "sagemaker"\nprefix = "{prefix}"\ncontainer_image = "{IMAGE}"\n'
        )
        return lambda *arguments: CliRunner().invoke(app, ["registry", *arguments, "--config", str(config)])

    def test_a_person_approves_and_sagemaker_knows(self, run, registry, package, prefix):
        registry.register(package())
        result = run("approve", "bottles", "1", "--by", "anna", "--why", "holdout escape 0.2 %")
        assert result.exit_code == 0, result.output
        assert "pending -> approved (by anna: holdout escape 0.2 %)" in result.stdout
        assert describe(prefix)["ModelApprovalStatus"] == "Approved"

    def test_a_listing_shows_who_decided_in_the_console(self, run, registry, package, prefix):
        registry.register(package())
        decide_in_console(prefix, 1, "Rejected", "misses scratches")
        assert "fake-user-profile-name (in SageMaker)" in run("list").stdout
        assert "misses scratches" in run("show", "bottles", "1").stdout

    def test_an_empty_registry_says_how_to_fill_it(self, run):
        assert "no model versions in s3://parts/" in run("list").stdout

    def test_a_fault_is_one_line(self, run, server, registry, package):
        registry.register(package())
        server.answer = lambda operation, parameters: (400, "ExpiredTokenException", "expired")
        result = run("list")
        (line,) = result.stderr.splitlines()
        assert result.exit_code == 1
        assert line.startswith("error: SageMaker Model Registry in eu-central-1: listing")
        assert "sign in again" in line
