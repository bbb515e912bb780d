"""A fleet in memory: it keeps what is published, and nothing else."""

from collections.abc import Mapping, Sequence

from inspection.errors import RolloutError
from inspection.fleet.interface import ComponentSetting, ComponentVersion, Deployment, DeviceStatus, PublishedVersion


class MemoryFleet:
    """Stores components as both back ends do; nothing can be deployed."""

    def __init__(self) -> None:
        self.published: dict[str, dict[str, ComponentVersion]] = {}
        self.calls: list[tuple[str, str]] = []

    def check(self, groups: Sequence[str]) -> None:
        pass

    def members(self, group: str) -> tuple[str, ...]:
        return ()

    def newest(self, name: str) -> PublishedVersion | None:
        versions = self.versions(name)
        return versions[-1] if versions else None

    def find(self, name: str, version: str) -> PublishedVersion | None:
        return next((known for known in self.versions(name) if known.version == version), None)

    def versions(self, name: str) -> tuple[PublishedVersion, ...]:
        known = self.published.get(name, {}).values()
        found = [PublishedVersion(name, each.version, each.digest, each.tags) for each in known]
        return tuple(sorted(found, key=lambda each: tuple(map(int, each.version.split(".")))))

    def artifact_uri(self, name: str, version: str, file: str) -> str:
        return f"s3://artifacts/components/{name}/{version}/{file}"

    def publish(self, component: ComponentVersion) -> PublishedVersion:
        versions = self.published.setdefault(component.name, {})
        known = versions.setdefault(component.version, component)
        if known.digest != component.digest:
            raise RolloutError(f"{component.name} {component.version}: taken by other content")
        self.calls.append((component.name, component.version))
        return PublishedVersion(component.name, component.version, component.digest, component.tags)

    def deployed(self, group: str) -> Deployment | None:
        return None

    def deploy(
        self,
        group: str,
        wanted: Mapping[str, ComponentSetting | None],
        label: str,
        everywhere_at_once: bool = False,
    ) -> Deployment:
        raise RolloutError(f"{group}: nothing can be deployed to a fleet in memory")

    def cancel(self, group: str) -> None:
        pass

    def status(self, group: str) -> tuple[DeviceStatus, ...]:
        return ()
