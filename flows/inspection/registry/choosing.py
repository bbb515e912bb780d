"""Finds the version that a person means."""

from inspection.errors import RegistryError
from inspection.registry.interface import ModelVersion, Registry


def choose_version(registry: Registry, line: str, model: str = "") -> ModelVersion:
    """The version that was asked for, or the newest approved one.

    Args:
        registry: of the line.
        line: its name.
        model: number of a version, or with SageMaker the ARN of its model package; "" = the newest approved one.

    Raises:
        RegistryError: there is none; the message says how to get one.
    """
    if model:
        return registry.find(line, model)
    latest = registry.latest(line)
    if latest is not None:
        return latest
    pending = registry.latest(line, "pending")
    if pending is not None:
        raise RegistryError(
            f"line {line}: want an approved model, found version {pending.version} pending; look at it with "
            f"`lineside registry show {line} {pending.version}`, then {_approve(pending)}"
        )
    versions = registry.list(line)
    if versions:
        counts = ", ".join(f"{each.version} {each.status}" for each in versions)
        raise RegistryError(
            f"line {line}: want an approved model, found none (versions: {counts}); train a new one, or approve one "
            f"of these after all with {_approve(versions[-1])}"
        )
    train = "`make run`" if line == "sample" else "`python flows/train_flow.py --config line lines/….toml run`"
    raise RegistryError(f"line {line}: want an approved model, found no version; train one with {train}")


def choose_approved(registry: Registry, line: str, model: str = "") -> ModelVersion:
    """As `choose_version`, and it must be approved.

    Raises:
        RegistryError: there is none, or it is not approved.
    """
    version = choose_version(registry, line, model)
    if version.status == "approved":
        return version
    since = ""
    if version.history:
        last = version.history[-1]
        since = f" (by {last.by}, {last.at:%Y-%m-%d %H:%M} UTC: {last.why})"
    raise RegistryError(
        f"line {line} version {version.version}: want an approved model, found it {version.status}{since}; "
        f"approve it with {_approve(version)}, or name another version"
    )


def parse_number(text: str) -> int:
    """Number of a version.

    Raises:
        RegistryError: it is none.
    """
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise RegistryError(
            f'model {text!r}: want the number of a version such as 7, or, with [registry] backend = "sagemaker", the '
            "ARN of its model package; see `lineside registry list`"
        )
    return int(text)


def _approve(version: ModelVersion) -> str:
    return f'`lineside registry approve {version.line} {version.version} --by "$USER" --why "…"`'
