"""A question that is asked again and again beside the loop: a disk that hangs must not hold up a verdict."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Polled(Generic[T]):
    """A thread that asks when told to. All methods belong to one other thread, and return at once.

    Args:
        question: may take any time; what it raises is logged.
        name: of the thread, which begins with the first question.
    """

    def __init__(self, question: Callable[[], T], name: str) -> None:
        self._question = question
        self._name = name
        self._answers: deque[T] = deque(maxlen=1)
        self._told = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def ask(self) -> None:
        """Have it asked anew; while it is being asked, once more after that."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            thread.start()
            self._thread = thread
        self._told.set()

    def take(self) -> T | None:
        """The last answer, once; None when there is no newer one."""
        return self._answers.popleft() if self._answers else None

    def close(self) -> None:
        """Ask no more; a question that hangs is left behind."""
        self._closed = True
        self._told.set()

    def _run(self) -> None:
        while True:
            self._told.wait()
            if self._closed:
                return
            self._told.clear()
            try:
                self._answers.append(self._question())
            except Exception as error:  # noqa: BLE001  the next question may get an answer
                _log.error("event=no_answer thread=%s error=%r", self._name, error)
