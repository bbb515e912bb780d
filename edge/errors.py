"""The errors of the device side.

EdgeError
├── ImageError           an image cannot be decoded or is not what a camera gives
│   └── PictureSizeError     it has more pixels than are allowed
├── ContractError        a contract is of another version, or data or a model does not fit it
├── PackageError         a model package is incomplete or was changed after it was made
├── SettingsError        the inspector's settings have faults
├── ScoreError           a model gave a score that cannot be trusted
├── ResultError          a result message is of another version, or not whole
├── SpoolError           a spool folder is of another version or in use, or is not what a spool left
├── SidecarError         a kept image's sidecar is of another version, or not whole
├── UploadError          the store of kept images does not take one now
├── OutputError          an output for the line cannot be opened as its settings say
├── SourceError          a source of parts cannot be opened as its settings say
├── TransportError       a message cannot be handed over now; try again later
│   ├── NotAuthorizedError   nor until somebody lets this device speak on the topic
│   └── NucleusError         nor ever in this process: the Greengrass nucleus is gone or refuses it
├── TopicError           a name has a form that topics cannot carry
├── RefusedError         a message will never be taken, though others will
└── RuntimeMissingError  no TFLite runtime is installed
"""


class EdgeError(Exception):
    """Base of every error that the device side raises on purpose."""


class ImageError(EdgeError):
    """An image cannot be decoded or is not what a camera gives."""


class PictureSizeError(ImageError):
    """A picture has more pixels than are allowed, or none."""


class ContractError(EdgeError):
    """A contract is of another version, or data or a model does not fit it."""


class PackageError(EdgeError):
    """A model package is incomplete or was changed after it was made."""


class SettingsError(EdgeError):
    """The inspector's settings have faults; the message names every one."""


class ScoreError(EdgeError):
    """A model gave a score that cannot be trusted."""


class RuntimeMissingError(EdgeError):
    """No TFLite runtime is installed."""


class ResultError(EdgeError):
    """A result message is of another version, or not whole."""


class SpoolError(EdgeError):
    """A spool folder is of another version or in use, or is not what a spool left."""


class SourceError(EdgeError):
    """A source of parts cannot be opened as its settings say."""


class TransportError(EdgeError):
    """A message cannot be handed over now; try again later."""


class NotAuthorizedError(TransportError):
    """This device may not use the topic until somebody changes its policy."""


class NucleusError(TransportError):
    """The Greengrass nucleus is gone or refuses this process; only a new process may connect."""


class TopicError(EdgeError):
    """A topic's root, line or thing has a form that topics cannot carry."""


class RefusedError(EdgeError):
    """A message will never be taken, though others will."""


class SidecarError(EdgeError):
    """A kept image's sidecar is of another version, or not whole."""


class OutputError(EdgeError):
    """An output for the line cannot be opened as its settings say."""


class UploadError(EdgeError):
    """The store of kept images does not take one now.

    Args:
        state: what is wrong, in one word: offline, denied, missing, clock, full, refused or settings.
        message: the same in words, with what to do.
    """

    def __init__(self, state: str, message: str) -> None:
        super().__init__(message)
        self.state = state
