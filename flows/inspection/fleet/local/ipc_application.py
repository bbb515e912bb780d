"""What stands behind a nucleus' socket, as the socket sees it."""

from collections.abc import Mapping
from typing import Any, Protocol


class RefusalError(Exception):
    """An error that the nucleus answers with.

    Args:
        code: name of the error in Greengrass' IPC model, such as ServiceError.
        message: what went wrong.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Application(Protocol):
    """What stands behind the socket."""

    def component(self, token: str) -> str | None:
        """Which component has this token; None: nobody."""
        ...

    def configuration(self, component: str) -> Mapping[str, Any]:
        """The configuration of a component."""
        ...

    def access_control(self, component: str) -> Mapping[str, Any] | None:
        """Its policies by service; None: everything is allowed."""
        ...

    def is_online(self) -> bool:
        """Whether IoT Core can be reached."""
        ...

    async def publish(self, component: str, topic: str, payload: bytes) -> bool:
        """Hand a message to IoT Core; returns when that has it. False: it never answers.

        Raises:
            RefusalError: it does not take it.
        """
        ...

    def heard_locally(self, component: str, topic: str, payload: bytes) -> None:
        """A component said something on the device's bus."""
        ...

    def state_reported(self, component: str, state: str) -> None:
        """A component told how it does: RUNNING or ERRORED."""
        ...
