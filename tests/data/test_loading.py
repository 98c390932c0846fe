"""Loader workers that fail or are killed: one line, soon, and nothing left behind."""

import os
import signal
import time
from collections.abc import Iterator
from multiprocessing import active_children
from pathlib import Path

import pytest
from bad_input_tools import time_limit

from segmodel.data.loading import loaded


@pytest.fixture(autouse=True)
def limited() -> Iterator[None]:
    """Without the check for lost workers half an item is waited for for ever."""
    with time_limit(60):
        yield


class Strange(Exception):
    """Cannot be sent to another process: it takes two arguments."""

    def __init__(self, one: str, other: str):
        super().__init__(one)


def read(key: tuple[str, int]) -> object:
    kind, number = key
    if number == 3 and kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 3 and kind == "exit":
        os._exit(7)
    if number == 3 and kind == "strange":
        raise Strange("torn", "apart")
    return bytes(10**6), number  # more than a pipe holds: what is killed may have written half of it


@pytest.mark.parametrize("kind", ["kill", "exit"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_lost_worker_is_an_error_soon(kind, workers):
    start, before = time.monotonic(), signal.getsignal(signal.SIGCHLD)
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        list(loaded(read, [(kind, number) for number in range(100)], workers=workers))
    assert time.monotonic() - start < 20
    assert signal.getsignal(signal.SIGCHLD) == before
    assert [child for child in active_children() if child.name.startswith("DataLoader")] == []
    assert [number for _, number in loaded(read, [("", number) for number in range(5)], workers=1)] == list(range(5))


def test_a_worker_that_is_killed_from_outside_is_an_error_soon():
    items = loaded(read, [("", number) for number in range(10**4)], workers=2)
    next(items)
    child = int(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()[-1])
    os.kill(child, signal.SIGKILL)
    start = time.monotonic()
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        list(items)
    assert time.monotonic() - start < 20


def test_the_trace_of_a_worker_is_no_part_of_the_line():
    with pytest.raises(RuntimeError) as caught:
        list(loaded(read, [("strange", number) for number in range(5)], workers=1))
    assert str(caught.value) == "Strange in a loader worker: torn"
    assert "in read" in caught.value.__notes__[0]  # for --debug
    with pytest.raises(Strange):
        list(loaded(read, [("strange", 3)], workers=0))
