"""Component versions of the Greengrass double."""

import base64
import hashlib
import json
import re
from typing import Any

from botocore.exceptions import ClientError
from greengrass_devices import now
from greengrass_failures import ServiceError, conflict, missing

MAX_RECIPE_BYTES = 16_000
PUBLIC = {  # some of AWS's own, as far as anybody needs them
    "aws.greengrass.TokenExchangeService": ("2.0.0", "2.0.3"),
    "aws.greengrass.SystemLogForwarder": ("2.0.0", "2.1.0"),
    "aws.greengrass.LogManager": ("2.2.9", "2.3.10", "3.0.0"),
}
_STATES = ("REQUESTED", "INITIATED", "DEPLOYABLE")


class Components:
    """Versions of the account and of AWS.

    Attributes:
        looks: so many times a version is described before it moves to its next state.
        failing: component name to the message with which its versions end as FAILED.
        forgetful: descriptions that still say that a new version does not exist.
        unknown_is_empty: what is not there is listed as nothing, instead of as missing.
    """

    def __init__(self, region: str, account: str, s3: Any) -> None:
        self._region = region
        self._account = account
        self._s3 = s3
        self._found: dict[str, dict[str, Any]] = {}
        self.looks = 0
        self.failing: dict[str, str] = {}
        self.forgetful = 0
        self.unknown_is_empty = False
        for name, versions in PUBLIC.items():
            for version in versions:
                recipe = {"ComponentName": name, "ComponentVersion": version, "Manifests": []}
                self._store(self._arn(name, version), recipe, {}, "DEPLOYABLE")

    def create(self, inline: bytes, tags: dict[str, str] | None) -> dict[str, Any]:
        recipe = self._checked(inline)
        name, version = recipe["ComponentName"], recipe["ComponentVersion"]
        arn = self._arn(name, version)
        if arn in self._found:
            raise conflict(f"Component [{name} : {version}] for account already exists", arn, "component")
        self._take_digests(recipe)
        self._store(arn, recipe, tags or {}, "REQUESTED")
        return {
            "arn": arn,
            "componentName": name,
            "componentVersion": version,
            "creationTimestamp": self._found[arn]["created"],
            "status": {"componentState": "REQUESTED", "message": "NONE", "errors": {}},
        }

    def describe(self, arn: str) -> dict[str, Any]:
        found = self._get(arn)
        if self.forgetful > 0:
            self.forgetful -= 1
            raise missing("Component does not exist.", arn, "component")
        recipe = found["recipe"]
        answer = {
            "arn": arn,
            "componentName": recipe["ComponentName"],
            "componentVersion": recipe["ComponentVersion"],
            "creationTimestamp": found["created"],
            "publisher": recipe.get("ComponentPublisher", "AWS"),
            "status": self._status(found),
            "platforms": [{"attributes": manifest.get("Platform", {})} for manifest in recipe["Manifests"]],
        }
        if found["tags"]:
            answer["tags"] = found["tags"]
        self._move(found)
        return answer

    def get(self, arn: str, form: str) -> dict[str, Any]:
        found = self._get(arn)
        if form != "JSON":
            raise ServiceError("ValidationException", {"message": "the double speaks JSON only"})
        answer = {"recipeOutputFormat": "JSON", "recipe": json.dumps(found["recipe"]).encode()}
        return {**answer, "tags": found["tags"]} if found["tags"] else answer

    def delete(self, arn: str) -> None:
        self._get(arn)
        if ":aws:components:" in arn:
            raise conflict("A component of AWS cannot be deleted", arn, "component")
        del self._found[arn]

    def versions(self, arn: str) -> list[dict[str, Any]]:
        """Greater versions first."""
        name = arn.rpartition(":")[2]
        found = [
            {"componentName": name, "componentVersion": version, "arn": f"{arn}:versions:{version}"}
            for version in sorted(self._numbers(arn), key=_order, reverse=True)
        ]
        if not found and not self.unknown_is_empty:
            raise missing("Component does not exist.", arn, "component")
        return found

    def all(self, scope: str) -> list[dict[str, Any]]:
        public = scope == "PUBLIC"
        arns = {arn.partition(":versions:")[0] for arn in self._found if (":aws:components:" in arn) == public}
        return [{"arn": arn, "componentName": arn.rpartition(":")[2]} for arn in sorted(arns)]

    def newest(self, name: str) -> str | None:
        return max(self._numbers(self._arn(name, "").partition(":versions:")[0]), key=_order, default=None)

    def recipe(self, name: str, version: str) -> dict[str, Any]:
        found: dict[str, Any] = self._get(self._arn(name, version))["recipe"]
        return found

    def require(self, name: str, version: str) -> None:
        """Refuse what cannot be deployed."""
        if self._get(self._arn(name, version))["state"] != "DEPLOYABLE":
            raise ServiceError("ValidationException", {"message": f"Component {name} {version} is not DEPLOYABLE"})

    def _checked(self, inline: bytes) -> dict[str, Any]:
        """The recipe.

        Source: AWS IoT Greengrass V2 developer guide, component recipe reference.
        """
        try:
            recipe: dict[str, Any] = json.loads(inline)
        except ValueError:
            raise ServiceError("ValidationException", {"message": "Invalid Input: the recipe is not JSON"}) from None
        name, version = str(recipe.get("ComponentName", "")), str(recipe.get("ComponentVersion", ""))
        faults = []
        if len(inline) > MAX_RECIPE_BYTES:
            faults.append(f"the recipe has {len(inline)} bytes")
        if recipe.get("RecipeFormatVersion") != "2020-01-25":
            faults.append("RecipeFormatVersion is not 2020-01-25")
        if not re.fullmatch(r"[a-zA-Z0-9-_.]{1,128}", name) or name.startswith("aws.greengrass"):
            faults.append(f"ComponentName {name!r}")
        if not re.fullmatch(r"\d{1,6}\.\d{1,6}\.\d{1,6}(-[0-9A-Za-z.-]+)?", version):
            faults.append(f"ComponentVersion {version!r}")
        if not recipe.get("Manifests"):
            faults.append("no Manifests")
        if faults:
            raise ServiceError("ValidationException", {"message": f"Invalid Input: {'; '.join(faults)}"})
        return recipe

    def _take_digests(self, recipe: dict[str, Any]) -> None:
        refused = []
        for manifest in recipe["Manifests"]:
            for artifact in manifest.get("Artifacts", []):
                uri = artifact.get("Uri", artifact.get("URI", ""))
                bucket, _, key = uri.removeprefix("s3://").partition("/")
                try:
                    body = self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()
                except ClientError:
                    refused.append(f"{uri} = Specified artifact resource cannot be accessed")
                    continue
                artifact["Digest"] = base64.b64encode(hashlib.sha256(body).digest()).decode()
                artifact["Algorithm"] = "SHA-256"
        if refused:
            said = f"Invalid Input: Encountered following errors in Artifacts: {{{', '.join(refused)}}}"
            raise ServiceError("ValidationException", {"message": said})

    def _store(self, arn: str, recipe: dict[str, Any], tags: dict[str, str], state: str) -> None:
        self._found[arn] = {"recipe": recipe, "tags": dict(tags), "state": state, "looks": self.looks, "created": now()}

    def _move(self, found: dict[str, Any]) -> None:
        """To the next state, when it was looked at often enough."""
        if found["state"] not in _STATES[:2]:
            return
        found["looks"] -= 1
        if found["looks"] <= 0:
            found["looks"] = self.looks
            found["state"] = _STATES[_STATES.index(found["state"]) + 1]
            if found["state"] == "DEPLOYABLE" and found["recipe"]["ComponentName"] in self.failing:
                found["state"] = "FAILED"

    def _status(self, found: dict[str, Any]) -> dict[str, Any]:
        if found["state"] != "FAILED":
            return {"componentState": found["state"], "message": "NONE", "errors": {}, "vendorGuidance": "ACTIVE"}
        said = self.failing.get(found["recipe"]["ComponentName"], "it failed")
        uri = found["recipe"]["Manifests"][0]["Artifacts"][0]["Uri"]
        return {"componentState": "FAILED", "message": said, "errors": {uri: "cannot be accessed"}}

    def _numbers(self, arn: str) -> list[str]:
        return [one.partition(":versions:")[2] for one in self._found if one.startswith(f"{arn}:versions:")]

    def _get(self, arn: str) -> dict[str, Any]:
        if arn not in self._found:
            raise missing("Component does not exist.", arn, "component")
        return self._found[arn]

    def _arn(self, name: str, version: str) -> str:
        owner = "aws" if name.startswith("aws.greengrass.") else self._account
        return f"arn:aws:greengrass:{self._region}:{owner}:components:{name}:versions:{version}"


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.partition("-")[0].split("."))
