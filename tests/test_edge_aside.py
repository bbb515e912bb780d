"""What is opened aside is there when it is asked for, its error too, and is closed in any case."""

import threading

import pytest

from edge.aside import Aside


class Thing:
    """Counts how often it was closed."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def test_the_caller_goes_on_while_it_is_opened() -> None:
    may_open = threading.Event()
    thing = Thing()

    def open_it() -> Thing:
        assert may_open.wait(30)
        return thing

    aside = Aside(open_it, "opening")
    may_open.set()  # not reached if the constructor waited
    assert aside.result() is thing
    assert aside.result() is thing


def test_its_error_is_raised_where_the_result_is_wanted() -> None:
    def fail() -> Thing:
        raise OSError(5, "Input/output error")

    aside = Aside(fail, "opening")
    with pytest.raises(OSError, match="Input/output"):
        aside.result()
    aside.close()


def test_what_nobody_asked_for_is_closed() -> None:
    thing = Thing()
    Aside(lambda: thing, "opening").close()
    assert thing.closed == 1
