"""The errors of the library behind the flows.

    InspectionError
    ├── SettingsError      a line's settings are wrong
    ├── DataError          images, labels, splits or the cache are wrong
    ├── StorageError       an object is missing, changed or cannot be written
    ├── TrainingError      weights are missing or do not fit, training cannot go on
    ├── ConversionError    a model cannot be converted or quantised
    ├── ParityError        no converted model decides as the trained one does
    ├── PackageError       a model package is incomplete or was changed
    ├── RegistryError      a version does not exist or may not change so
    └── RolloutError       a deployment failed

A message states what was wanted, what was found, where, and what to do.
"""


class InspectionError(Exception):
    """Base of every error that Lineside raises on purpose."""


class SettingsError(InspectionError):
    """A line's settings are wrong."""


class DataError(InspectionError):
    """Images, labels, splits or the cache are wrong."""


class StorageError(InspectionError):
    """An object in storage is missing, changed or cannot be written."""


class TrainingError(InspectionError):
    """Weights are missing or do not fit, or training cannot go on."""


class ConversionError(InspectionError):
    """A model cannot be converted or quantised."""


class ParityError(InspectionError):
    """No converted model decides as the trained one does."""


class PackageError(InspectionError):
    """A model package is incomplete or was changed after it was made."""


class RegistryError(InspectionError):
    """A registry version does not exist or may not change as asked."""


class RolloutError(InspectionError):
    """A deployment failed."""
