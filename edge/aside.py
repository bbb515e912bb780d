"""Something slow to open, opened on a thread of its own while the caller goes on."""

import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    """What has to be closed."""

    def close(self) -> object:
        """Let go of it; may be called again."""


T = TypeVar("T", bound=Closable)


class Aside(Generic[T]):
    """Opens at once; `result` waits for it.

    Args:
        open_it: what to call; its error is raised by `result`.
        name: of the thread.
    """

    def __init__(self, open_it: Callable[[], T], name: str) -> None:
        self._open_it = open_it
        self._opened: T | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def result(self) -> T:
        """What was opened.

        Raises:
            Exception: what opening it raised.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._opened is not None
        return self._opened

    def close(self) -> None:
        """Close what was opened, also when nobody asked for it."""
        self._thread.join()
        if self._opened is not None:
            self._opened.close()

    def _run(self) -> None:
        try:
            self._opened = self._open_it()
        except BaseException as error:  # noqa: BLE001  it is raised where the result is wanted
            self._error = error
