"""Core devices for the Greengrass double: they take up deployments as the two kinds of nucleus do.

They fetch artifacts from S3, compare the digest that the service took, unpack and run the `install` script; `run` is
taken for granted. As observed on nucleus lite 2.6.0: a failing install leaves the other components and the old
processes as they are, and the device gives no reason. As documented for the classic nucleus: it goes back by itself
when the deployment says ROLLBACK, and tells codes.
"""

import base64
import datetime
import hashlib
import io
import subprocess
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DONE = frozenset({"SUCCEEDED", "COMPLETED", "FAILED", "TIMED_OUT", "CANCELED", "REJECTED"})


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@dataclass
class Installed:
    """A component on a device."""

    version: str
    state: str = "FINISHED"
    root: bool = True
    details: str = ""
    codes: list[str] = field(default_factory=list)
    changed: datetime.datetime = field(default_factory=now)

    def listed(self, name: str) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "componentName": name,
            "componentVersion": self.version,
            "lifecycleState": self.state,
            "isRoot": self.root,
            "lastStatusChangeTimestamp": self.changed,
            "lastReportedTimestamp": self.changed,
        }
        if self.details:
            entry["lifecycleStateDetails"] = self.details
        if self.codes:
            entry["lifecycleStatusCodes"] = list(self.codes)
        return entry


@dataclass
class Execution:
    """A deployment on one device."""

    status: str = "QUEUED"
    reason: str = ""
    errors: list[str] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    created: datetime.datetime = field(default_factory=now)
    modified: datetime.datetime = field(default_factory=now)

    def move(self, status: str) -> None:
        self.status, self.modified = status, now()


@dataclass
class CoreDevice:
    """A thing with a nucleus.

    Attributes:
        online: whether deployments reach it.
        breaks: component that starts and then breaks, name to what the device says.
        hangs: it takes up a deployment and never ends it.
        passes: components whose install script is not run.
        root: the nucleus' folder; None = scripts that name it, or a work folder, cannot run.
        accepted: deployment that it has last taken up, by target.
    """

    thing: str
    runtime: str = "aws_nucleus_lite"
    version: str = "2.6.0"
    online: bool = True
    hangs: bool = False
    breaks: dict[str, str] = field(default_factory=dict)
    passes: set[str] = field(default_factory=set)
    root: Path | None = None
    seen: datetime.datetime = field(default_factory=now)
    installed: dict[str, Installed] = field(default_factory=dict)
    executions: dict[str, Execution] = field(default_factory=dict)
    accepted: dict[str, str] = field(default_factory=dict)

    @property
    def status(self) -> str:
        broken = any(component.state in ("BROKEN", "ERRORED") for component in self.installed.values())
        return "UNHEALTHY" if broken else "HEALTHY"

    def leave(self) -> None:
        """Off the network, for two days already as the service sees it."""
        self.online = False
        self.seen = now() - datetime.timedelta(days=2)

    def come_back(self) -> None:
        self.online = True
        self.seen = now()

    def apply(self, wanted: dict[str, dict[str, Any]], policy: str, s3: Any, execution: Execution) -> None:
        """Bring the device to what its deployments want.

        Args:
            wanted: component name to `version`, `root` and `recipe`.
            policy: failureHandlingPolicy of the deployment.
            s3: client.
            execution: is moved to what becomes of it.
        """
        before = dict(self.installed)
        failed = ""
        for name, component in wanted.items():
            there = self.installed.get(name)
            if there is not None and there.version == component["version"] and there.state not in ("BROKEN", "ERRORED"):
                continue
            said = self._install(component["recipe"], s3) if name not in self.passes else None
            if said is None:
                self.installed[name] = Installed(component["version"], root=component["root"])
            else:
                self.installed[name] = Installed(component["version"], "BROKEN", component["root"])
                if self.runtime == "aws_nucleus_classic":
                    self.installed[name].details = said
                    self.installed[name].codes = ["INSTALL_ERROR"]
                failed = name
        for name, said in self.breaks.items():
            if name in wanted:
                version = wanted[name]["version"]
                self.installed[name] = Installed(version, "BROKEN", wanted[name]["root"], said, ["RUN_ERROR"])
        self.seen = now()
        if failed:
            execution.move("FAILED")
            if self.runtime == "aws_nucleus_classic":
                execution.errors = ["DEPLOYMENT_FAILURE", "COMPONENT_UPDATE_ERROR", "COMPONENT_BROKEN"]
                execution.types = ["COMPONENT_ERROR"]
                execution.reason = f"FAILED_NO_STATE_CHANGE: {failed} in broken state after deployment"
                if policy == "ROLLBACK":
                    execution.reason = f"FAILED_ROLLBACK_COMPLETE: {failed} in broken state after deployment"
                    self.installed = before
            return
        for name in set(self.installed) - set(wanted):
            del self.installed[name]
        execution.move("SUCCEEDED")

    def _install(self, recipe: dict[str, Any], s3: Any) -> str | None:
        """Fetch, unpack and install a component; None, or what went wrong."""
        manifests = recipe.get("Manifests", [])
        if not manifests:
            return None
        with tempfile.TemporaryDirectory() as scratch:
            name, root = recipe["ComponentName"], self.root or Path(scratch)
            folder = root / "packages" / "artifacts-unarchived" / name / recipe["ComponentVersion"]
            for artifact in manifests[0].get("Artifacts", []):
                bucket, _, key = artifact["Uri"].removeprefix("s3://").partition("/")
                body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
                found = base64.b64encode(hashlib.sha256(body).digest()).decode()
                if found != artifact["Digest"]:
                    return f"digest of {artifact['Uri']}: want {artifact['Digest']}, found {found}"
                with zipfile.ZipFile(io.BytesIO(body)) as archive:
                    archive.extractall(folder / Path(key).stem)
            script = manifests[0].get("Lifecycle", {}).get("install", {}).get("Script", "")
            work = root / "work" / name
            work.mkdir(parents=True, exist_ok=True)
            for variable, value in {
                "{artifacts:decompressedPath}": folder,
                "{kernel:rootPath}": root,
                "{work:path}": work,
                "{iot:thingName}": self.thing,
            }.items():
                script = script.replace(variable, str(value))
            done = subprocess.run(
                ["sh", "-c", script or "true"], cwd=work, capture_output=True, text=True, timeout=60, check=False
            )
        return None if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"
