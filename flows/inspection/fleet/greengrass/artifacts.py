"""Where the zips of component versions lie in S3."""

import base64
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from edge.digest import sha256_of
from inspection.errors import RolloutError
from inspection.fleet.greengrass.clients import Clients
from inspection.fleet.greengrass.errors import code_of, explained

_log = logging.getLogger(__name__)


class ArtifactStore:
    """Artifacts below `<storage>/fleet/components/`.

    Args:
        clients: of the fleet.
        root: the line's storage, `s3://bucket/prefix`.
        kms_key: key that encrypts them; "" = the bucket's default.

    Raises:
        RolloutError: the storage is not in S3.
    """

    def __init__(self, clients: Clients, root: str, kms_key: str) -> None:
        match = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*?))?/*", root)
        if match is None:
            raise RolloutError(
                f"artifacts: want [line] storage = s3://bucket/prefix, where the devices fetch them, found {root!r}"
            )
        self.bucket = match[1]
        self._prefix = f"{match[2]}/" if match[2] else ""
        self._clients = clients
        self._kms_key = kms_key

    def uri(self, name: str, version: str, file: str) -> str:
        """Where an artifact lies; each version of each component has a place of its own."""
        return f"s3://{self.bucket}/{self._key(name, version, file)}"

    def upload(self, name: str, version: str, artifacts: Mapping[str, Path]) -> None:
        """Store the artifacts of a version that does not exist yet.

        Raises:
            RolloutError: S3 refuses them.
        """
        encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self._kms_key} if self._kms_key else {}
        for file, path in sorted(artifacts.items()):
            key = self._key(name, version, file)
            with explained(f"storing {path.name} as s3://{self.bucket}/{key}", self._clients.region, "s3"):
                self._clients.s3.upload_file(str(path), self.bucket, key, ExtraArgs=dict(encryption))
            _log.info("event=artifact_stored uri=s3://%s/%s bytes=%d", self.bucket, key, path.stat().st_size)

    def check_region(self) -> None:
        """Refuse a bucket of another region: the service fetches artifacts from its own region only.

        Raises:
            RolloutError: the bucket is elsewhere, or cannot be asked.
        """
        with explained(f"looking for the bucket {self.bucket}", self._clients.region, "s3"):
            try:
                head = self._clients.s3.head_bucket(Bucket=self.bucket)
            except ClientError as error:
                if code_of(error) not in ("404", "NoSuchBucket"):
                    raise
                raise RolloutError(
                    f"artifacts: there is no bucket {self.bucket!r}; create it in {self._clients.region} or correct "
                    "[line] storage"
                ) from error
        found = head.get("BucketRegion") or self._clients.region
        if found != self._clients.region:
            raise RolloutError(
                f"artifacts: want the bucket {self.bucket} in {self._clients.region}, the region of the fleet, found "
                f"it in {found}; set [fleet] region = {found!r} or [line] storage to a bucket there"
            )

    def _key(self, name: str, version: str, file: str) -> str:
        return f"{self._prefix}fleet/components/{name}/{version}/{file}"


def check_artifacts(recipe: Mapping[str, Any], wanted: Mapping[str, str]) -> None:
    """Refuse a recipe that names other artifacts than there are.

    Args:
        recipe: of the component version.
        wanted: file name to the URI that it will have.

    Raises:
        RolloutError: they differ.
    """
    named = {artifact["Uri"] for artifact in _artifacts(recipe)}
    if named != set(wanted.values()):
        raise RolloutError(
            f"{recipe.get('ComponentName')} {recipe.get('ComponentVersion')}: want a recipe that names "
            f"{', '.join(sorted(wanted.values())) or 'no artifact'}, found {', '.join(sorted(named)) or 'none'}; use "
            "artifact_uri() for its URIs"
        )


def check_digests(recipe: Mapping[str, Any], wanted: Mapping[str, Path], place: Mapping[str, str]) -> None:
    """Refuse a published recipe whose artifacts the service found other than the files here.

    Args:
        recipe: as the service has it, with the digests that it took.
        wanted: file name to the file here.
        place: file name to its URI.

    Raises:
        RolloutError: somebody wrote the artifact at the same time, or it was damaged on the way.
    """
    found = {artifact["Uri"]: artifact.get("Digest") for artifact in _artifacts(recipe)}
    for file, path in wanted.items():
        digest = found.get(place[file])
        if digest is not None and digest != _sha256(path):
            raise RolloutError(
                f"{recipe.get('ComponentName')} {recipe.get('ComponentVersion')}: {file} was changed on its way to "
                f"{place[file]}: the service found sha256 {digest}, want {_sha256(path)}; is another deployment "
                "publishing at the same time? Delete the version with `aws greengrassv2 delete-component` and run again"
            )


def _artifacts(recipe: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for manifest in recipe.get("Manifests", []):
        yield from manifest.get("Artifacts", [])


def _sha256(path: Path) -> str:
    """As the service writes it: base64."""
    return base64.b64encode(bytes.fromhex(sha256_of(path))).decode()
