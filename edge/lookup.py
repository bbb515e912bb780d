"""Asks the spool for a part's earlier result, but not for long: a card that hangs must not hold up a verdict."""

import threading

from edge.inspection import ResultStore
from edge.results import Result


class _Question:
    def __init__(self, key: str) -> None:
        self.key = key
        self.answered = False
        self.result: Result | None = None
        self.error: Exception | None = None


class Lookup:
    """A thread that asks; `find` belongs to one thread.

    Args:
        store: to ask.
    """

    def __init__(self, store: ResultStore) -> None:
        self._store = store
        self._changed = threading.Condition()
        self._question: _Question | None = None
        self._closed = False
        threading.Thread(target=self._run, name="lookup", daemon=True).start()

    def find(self, key: str, timeout_s: float) -> Result | None:
        """The stored result of this source key; None when there is none.

        Raises:
            TimeoutError: the store does not answer in time, or is still at an earlier question.
            Exception: what the store raised.
        """
        question = _Question(key)
        with self._changed:
            if self._question is not None:
                raise TimeoutError("the spool has not yet answered an earlier question; check the disk")
            self._question = question
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: question.answered, timeout_s):
                raise TimeoutError(f"the spool did not answer within {timeout_s * 1e3:.0f} ms; check the disk")
        if question.error is not None:
            raise question.error
        return question.result

    def close(self) -> None:
        """Ask no more; a question that hangs is left behind."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._question is not None or self._closed)
                question = self._question
            if question is None:
                return
            try:
                question.result = self._store.find(question.key)
            except Exception as error:  # noqa: BLE001  whoever asked gets it
                question.error = error
            with self._changed:
                question.answered = True
                self._question = None
                self._changed.notify_all()
