"""Opens the registry that a line's settings name."""

from inspection.registry.interface import Registry
from inspection.registry.local import LocalRegistry
from inspection.settings import Settings
from inspection.storage import open_storage


def open_registry(settings: Settings) -> Registry:
    """The registry of a line.

    Raises:
        RegistryError: it cannot be reached.
    """
    storage = open_storage(settings.storage_root, settings.registry.kms_key)
    if settings.registry.backend == "sagemaker":
        from inspection.registry.sagemaker import SageMakerRegistry

        return SageMakerRegistry(storage, settings.registry)
    return LocalRegistry(storage)
