"""The errors of the device side.

EdgeError
├── ImageError           an image cannot be decoded or is not what a camera gives
├── ContractError        a contract is of another version, or data or a model does not fit it
├── PackageError         a model package is incomplete or was changed after it was made
├── ScoreError           a model gave a score that cannot be trusted
└── RuntimeMissingError  no TFLite runtime is installed
"""


class EdgeError(Exception):
    """Base of every error that the device side raises on purpose."""


class ImageError(EdgeError):
    """An image cannot be decoded or is not what a camera gives."""


class ContractError(EdgeError):
    """A contract is of another version, or data or a model does not fit it."""


class PackageError(EdgeError):
    """A model package is incomplete or was changed after it was made."""


class ScoreError(EdgeError):
    """A model gave a score that cannot be trusted."""


class RuntimeMissingError(EdgeError):
    """No TFLite runtime is installed."""
