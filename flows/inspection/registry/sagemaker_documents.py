"""What is written into SageMaker about a version: the model package, its metadata, its metrics.

Limits of the service (sources: the API's shapes CustomerMetadataMap, CustomerMetadataKey, CustomerMetadataValue,
EntityDescription and ApprovalDescription) are kept by shortening what people only read; what programs compare
(digests, numbers) is always short enough.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from inspection.registry.entries import Entry
from inspection.registry.interface import ModelVersion, Status
from inspection.registry.objects import card_key

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.literals import ModelApprovalStatusType
    from mypy_boto3_sagemaker.type_defs import CreateModelPackageInputTypeDef, ModelMetricsTypeDef

APPROVAL: Mapping[Status, "ModelApprovalStatusType"] = {
    "pending": "PendingManualApproval",
    "approved": "Approved",
    "rejected": "Rejected",
    "rolled-back": "Rejected",  # SageMaker has no such status: the metadata tell the two apart
}
METADATA = 50  # entries of a package
OURS = 40  # of them at most ours, so that others have room
PREFIX = "lineside-"  # of our entries
KEY, VALUE, TEXT = 128, 256, 1024  # characters of a key and value of the metadata, and of a description
DECISIONS = f"{PREFIX}decisions"  # how many decisions of the history SageMaker was told


def metrics_key(line: str, version: int) -> str:
    """Where a version's metrics are, in the form that SageMaker shows."""
    return f"registry/{line}/{version:06d}/metrics.json"


def dump_metrics(metrics: Mapping[str, Any]) -> bytes:
    """Metrics as SageMaker's model quality statistics; what has no number there is under `lineside` with all else."""
    figures = {}
    for name, metric in metrics.items():
        value = metric.get("value", metric.get("rate")) if isinstance(metric, Mapping) else metric
        if isinstance(value, int | float) and not isinstance(value, bool):
            bounds = {end: metric[end] for end in ("low", "high") if end in metric} if value is not metric else {}
            figures["auc" if name == "auroc" else name] = {"value": value, **bounds}
    document = {"version": 0.0, "binary_classification_metrics": figures, "lineside": dict(metrics)}
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


def make_package(
    entry: Entry, group: str, root: str, image: str, metrics: bytes, card: bytes | None
) -> "CreateModelPackageInputTypeDef":
    """The request that makes a version's model package.

    The archive is no `.tar.gz`, so it is named as an uncompressed object, which SageMaker would put into the container
    as it is.

    Args:
        entry: the version.
        group: name of its model package group.
        root: of the storage, an `s3://` URI.
        image: URI of a container image.
        metrics: content of the metrics object.
        card: content of the card object; None = there is none.
    """
    archive = archive_uri(entry.archive, root)
    reports: ModelMetricsTypeDef = {
        "ModelQuality": {
            "Statistics": {
                "ContentType": "application/json",
                "ContentDigest": f"sha256:{hashlib.sha256(metrics).hexdigest()}",
                "S3Uri": f"{root}/{metrics_key(entry.line, entry.version)}",
            }
        }
    }
    if card is not None:
        reports["Explainability"] = {
            "Report": {
                "ContentType": "text/html",
                "ContentDigest": f"sha256:{hashlib.sha256(card).hexdigest()}",
                "S3Uri": f"{root}/{card_key(entry.archive_sha256)}",
            }
        }
    return {
        "ModelPackageGroupName": group,
        "ModelPackageDescription": plain(
            f"Lineside: line {entry.line}, version {entry.version}, model {entry.contract_version}", TEXT
        ),
        "InferenceSpecification": {
            "Containers": [
                {
                    "Image": image,
                    "ModelDataSource": {
                        "S3DataSource": {"S3Uri": archive, "S3DataType": "S3Object", "CompressionType": "None"}
                    },
                }
            ],
            "SupportedContentTypes": ["image/jpeg", "image/png"],
            "SupportedResponseMIMETypes": ["application/json"],
            "SupportedRealtimeInferenceInstanceTypes": ["ml.m5.large"],
            "SupportedTransformInstanceTypes": ["ml.m5.large"],
        },
        "ModelApprovalStatus": "PendingManualApproval",
        "ModelMetrics": reports,
        "MetadataProperties": {
            name: text[:TEXT]
            for name, text in (("CommitId", entry.lineage.commit), ("GeneratedBy", entry.lineage.run))
            if text
        },  # type: ignore[typeddict-item]
        "CustomerMetadataProperties": make_metadata(entry, "pending", 0),
        "Domain": "COMPUTER_VISION",
        "Task": "IMAGE_CLASSIFICATION",
        "SkipModelValidation": "All",  # devices run the model, and the package was verified by their own program
        "ClientToken": hashlib.sha256(f"{group} {entry.version} {archive}".encode()).hexdigest()[:32],
    }


def archive_uri(archive: str, root: str) -> str:
    """Where SageMaker finds an archive."""
    return f"{root}/{archive}"


def package_uri(package: Mapping[str, Any]) -> str:
    """Where a model package says its archive is; "" when it says nothing. It is what tells our packages from others."""
    containers = package.get("InferenceSpecification", {}).get("Containers", [])
    source = containers[0].get("ModelDataSource", {}).get("S3DataSource", {}) if containers else {}
    return cast(str, source.get("S3Uri", ""))


def make_metadata(version: Entry | ModelVersion, status: Status, decisions: int) -> dict[str, str]:
    """Customer metadata of a version: its status and lineage, its figures at the operating point.

    Returns:
        At most 40 entries, the most important first: the bounds of metrics and tags are left out where there are many.
    """
    lineage, history = version.lineage, getattr(version, "history", ())
    entries = {
        "decisions": str(decisions),
        "status": status,
        "decided-by": history[-1].by if history else "",
        "decided-why": history[-1].why if history else "",
        "line": version.line,
        "version": str(version.version),
        "model": version.contract_version,
        "archive-sha256": version.archive_sha256,
        "snapshot": lineage.snapshot,
        "run": lineage.run,
        "commit": lineage.commit,
        "card": lineage.card,
        "champion": str(lineage.champion or ""),
    }
    bounds: dict[str, str] = {}
    for name, metric in version.metrics.items():
        value = metric.get("value", metric.get("rate")) if isinstance(metric, Mapping) else metric
        if isinstance(value, str | int | float):
            entries[f"metric-{name}"] = _format(value)
            if isinstance(metric, Mapping):
                bounds |= {f"metric-{name}-{end}": _format(metric[end]) for end in ("low", "high") if end in metric}
    entries |= bounds | {f"tag-{name}": str(value) for name, value in version.tags.items()}
    fitting = {plain_word(PREFIX + name, KEY): plain_word(value, VALUE) for name, value in entries.items()}
    return dict([(name, value) for name, value in fitting.items() if value][:OURS])


def merge_metadata(ours: Mapping[str, str], found: Mapping[str, str]) -> dict[str, str]:
    """Our metadata beside what others added: right whether an update merges or replaces.

    Where others leave less room, the least important of ours give way.
    """
    others = {name: value for name, value in found.items() if not name.startswith(PREFIX)}
    room = max(METADATA - len(others), 1)
    return dict(list(ours.items())[:room]) | others


def describe_decision(version: ModelVersion) -> str:
    """The last decision as the text beside the approval status; "" while there is none."""
    if not version.history:
        return ""
    last = version.history[-1]
    return plain(f"{last.status} by {last.by}: {last.why}", TEXT)


def plain(text: str, length: int) -> str:
    """Printable text of at most this many characters."""
    text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def plain_word(text: str, length: int) -> str:
    """Text of the characters that metadata may have: letters, digits, spaces and _.:/=+-@"""
    return re.sub(r"[^\w .:/=+\-@]", "-", plain(text, length))[:length].strip()


def _format(value: str | int | float) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
