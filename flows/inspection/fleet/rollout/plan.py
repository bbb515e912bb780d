"""What a rollout is to do, written down before it does anything."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from inspection.errors import RolloutError
from inspection.fleet.interface import ComponentSetting
from inspection.fleet.rollout.documents import dump_document, parse_document, take

Kind = Literal["forward", "back"]
Stage = Literal["shadow", "canary", "wave", "back"]


@dataclass(frozen=True)
class RolloutPlan:
    """What goes where, and what was there before."""

    line: str
    kind: Kind  # forward: a model in stages; back: an earlier model to all groups at once
    model_version: int  # of the registry: what is to serve
    archive_sha256: str  # of the model's archive
    digest: str  # of the model's contract.json, which devices name it by
    champion: int | None  # registry version that the canary group has; None: it has no model
    champion_digest: str  # of the champion's contract.json; "" = no champion
    model: str  # name of the model's component
    challenger: str  # name of the component that carries a model beside the champion
    components: Mapping[str, ComponentSetting]  # ours at the end, the model's among them; others stay as they are
    challenger_version: str  # component version; "" = there is none
    canary_group: str
    wave_groups: tuple[str, ...]
    skipped_groups: tuple[str, ...]  # that have all of it already
    comparison: str  # shadow, live or none
    before: Mapping[str, Mapping[str, str]]  # group to our components that it had: name to version
    limits: Mapping[str, float] = field(default_factory=dict)  # of the comparison, for people who read it later

    @property
    def replaces(self) -> bool:
        """Whether the canaries change their model; otherwise a fault is not the model's."""
        return self.champion != self.model_version

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups that change, in order."""
        return tuple(name for name in (self.canary_group, *self.wave_groups) if name not in self.skipped_groups)

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages that come, in order."""
        if self.kind == "back":
            return ("back",)
        canary = self.canary_group not in self.skipped_groups
        shadow = canary and self.replaces and self.champion is not None and self.comparison == "shadow"
        waves = [f"wave {name}" for name in self.wave_groups if name not in self.skipped_groups]
        return (*(["shadow"] if shadow else []), *(["canary"] if canary else []), *waves)

    @property
    def our_names(self) -> tuple[str, ...]:
        """Names of the components that this rollout may change."""
        return tuple(sorted({*self.components, self.model, self.challenger}))

    def target(self, stage: str) -> dict[str, ComponentSetting | None]:
        """What a stage deploys.

        Args:
            stage: one of `stages`.
        """
        if stage == "shadow":
            beside = {name: setting for name, setting in self.components.items() if name != self.model}
            return {**beside, self.challenger: ComponentSetting(self.challenger_version)}
        return {**self.components, self.challenger: None}

    def is_in(self, components: Mapping[str, str], stage: str) -> bool:
        """Whether a deployment has all that a stage asks of our components.

        Args:
            components: of the deployment, name to version.
            stage: one of `stages`.
        """
        return all(
            components.get(name) == (None if setting is None else setting.version)
            for name, setting in self.target(stage).items()
        )

    def restored(self, group: str) -> dict[str, ComponentSetting | None]:
        """What gives a group back what it had; the challenger always goes."""
        had = {name: version for name, version in self.before[group].items() if name != self.challenger}
        return {name: ComponentSetting(had[name]) if name in had else None for name in self.our_names}


def dump_plan(plan: RolloutPlan, at: float) -> bytes:
    """The plan as a JSON document.

    Args:
        plan: the plan.
        at: unix time.
    """
    fields = {name: getattr(plan, name) for name in RolloutPlan.__dataclass_fields__}
    fields["components"] = {
        name: {
            "version": setting.version,
            "run_with": None if setting.run_with is None else dict(setting.run_with),
            "merge": None if setting.merge is None else dict(setting.merge),
        }
        for name, setting in plan.components.items()
    }
    fields["before"] = {group: dict(had) for group, had in plan.before.items()}
    fields |= {"limits": dict(plan.limits), "at": at}
    return dump_document(fields)


def parse_plan(data: bytes, where: str) -> RolloutPlan:
    """Read a plan.

    Raises:
        RolloutError: it cannot be read.
    """
    document = parse_document(data, where)
    kind = next((known for known in get_args(Kind) if known == document.get("kind")), None)
    if kind is None:
        raise RolloutError(f"{where}: kind: want one of {get_args(Kind)}, found {document.get('kind')!r}")
    before = take(document, "before", dict, where)
    return RolloutPlan(
        kind=kind,
        champion=None if document.get("champion") is None else take(document, "champion", int, where),
        model_version=take(document, "model_version", int, where),
        components={
            name: _setting(entry, f"{where}: components.{name}")
            for name, entry in take(document, "components", dict, where).items()
        },
        before={
            group: {name: str(version) for name, version in take(before, group, dict, f"{where}: before").items()}
            for group in before
        },
        wave_groups=tuple(take(document, "wave_groups", list, where)),
        skipped_groups=tuple(take(document, "skipped_groups", list, where)),
        limits=take(document, "limits", dict, where),
        **{name: take(document, name, str, where) for name in _TEXTS},
    )


_TEXTS = (
    *("line", "archive_sha256", "digest", "champion_digest", "model", "challenger", "challenger_version"),
    *("canary_group", "comparison"),
)


def _setting(entry: Any, where: str) -> ComponentSetting:
    if not isinstance(entry, dict):
        raise RolloutError(f"{where}: want a JSON object, found {entry!r}")
    return ComponentSetting(take(entry, "version", str, where), entry.get("run_with"), entry.get("merge"))
