"""Names that AWS gives to model packages and their groups."""

import re
from dataclasses import dataclass

from inspection.errors import RegistryError

PACKAGE = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):sagemaker:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):"
    r"model-package/(?P<group>[A-Za-z0-9-]+)(?:/(?P<version>\d{1,9}))?"
)
GROUP = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):sagemaker:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):"
    r"model-package-group/(?P<group>[A-Za-z0-9-]+)"
)
LONGEST_GROUP = 63  # characters; source: the API's EntityName


@dataclass(frozen=True)
class Place:
    """Where a group is."""

    region: str
    account: str
    group: str  # lower case: AWS writes it so in the ARN of a package

    def __str__(self) -> str:
        return f"group {self.group} of account {self.account} in {self.region}"


def group_name(prefix: str, line: str) -> str:
    """Name of a line's model package group.

    Raises:
        RegistryError: it would be longer than SageMaker allows.
    """
    name = f"{prefix}-{line}"
    if len(name) > LONGEST_GROUP:
        raise RegistryError(
            f"model package group {name}: want at most {LONGEST_GROUP} characters, found {len(name)}; "
            "shorten [registry] prefix"
        )
    return name


def parse_package(arn: str) -> tuple[Place, int]:
    """Place and version of a model package.

    Raises:
        RegistryError: it is no ARN of a version in a model package group.
    """
    match = PACKAGE.fullmatch(arn)
    if match is None or match["version"] is None:
        raise RegistryError(
            f"model package {arn!r}: want an ARN with a version, such as "
            "arn:aws:sagemaker:eu-central-1:123456789012:model-package/lineside-bottles/7, found otherwise; copy it "
            "from the version's page in SageMaker, or give the number of the version"
        )
    return Place(match["region"], match["account"], match["group"].lower()), int(match["version"])


def parse_group(arn: str) -> Place:
    """Place of a model package group.

    Raises:
        RegistryError: it is no ARN of one.
    """
    match = GROUP.fullmatch(arn)
    if match is None:
        raise RegistryError(f"model package group {arn!r}: want an ARN of a model package group, found otherwise")
    return Place(match["region"], match["account"], match["group"].lower())
