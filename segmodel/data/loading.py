"""Reads data sets by worker processes."""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from traceback import format_exc
from typing import Any, NoReturn

import torch
from torch.utils.data import DataLoader, get_worker_info

from segmodel.common.errors import DataError, UserError, one_line


def loaded(
    read: Callable[[Any], Any], keys: Iterable[Any], *, workers: int, processes: int = 1, pin_memory: bool = False
) -> Iterator[Any]:
    """read(key) for each key, in order; a `DataError` that it raises comes in its place.

    workers: processes that read; 0: this one; -1: one for each core but one, at most 8.
    processes: how many processes with workers of their own share the cores of this machine.
    pin_memory: as of `DataLoader`.
    """
    if workers < 0:
        workers = max(0, min(8, (os.cpu_count() or 1) // processes - 1))
    loader: DataLoader[Any] = DataLoader(
        _Loadable(read),  # type: ignore[arg-type]
        sampler=keys,
        batch_size=None,
        num_workers=workers,
        collate_fn=_unchanged,
        worker_init_fn=_quiet_worker,
        pin_memory=pin_memory,
    )
    with _handler(None):  # not PyTorch's, which would raise wherever the main process is: a training step would be lost
        items = iter(loader)
    while True:
        try:
            with _handler(_check_workers):
                item = next(items)
        except StopIteration:
            return
        except (OSError, EOFError, RuntimeError) as error:
            _end(items)
            if isinstance(error, RuntimeError):
                raise
            # the worker died after it had announced an item
            raise RuntimeError(f"DataLoader worker is lost ({type(error).__name__}: {error})") from error
        if isinstance(item, _Failure):
            item.again()
        if isinstance(item, UserError):
            raise item
        yield item


@contextmanager
def _handler(check: Callable[[], None] | None) -> Iterator[None]:
    """Runs this check now and whenever a child process ends meanwhile; then the handler is that of before.

    A worker that is killed may hold a lock, or have written half an item: without the check both are waited for for
    ever. Windows has no such signal, and only the main thread may handle it: then PyTorch looks every five seconds.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD) or signal.SIG_DFL
    if check:
        signal.signal(signal.SIGCHLD, lambda *_: check())
    try:
        if check:
            check()
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def _check_workers() -> None:
    """RuntimeError if a worker of any loader of this process was killed."""
    torch._C._error_if_any_worker_fails()


def _end(items: Any) -> None:
    """Kills the workers of PyTorch's iterator, whose own way to end them takes locks that a lost one may hold."""
    if not getattr(items, "_workers", None):
        return
    items._shutdown = True
    for worker in items._workers:
        worker.kill()
    for queue in items._index_queues:
        queue.cancel_join_thread()
        queue.close()
    torch._C._remove_worker_pids(id(items))


@dataclass(frozen=True)
class _Failure:
    """An error of a worker that is not one of the data: its kind and line for users, its trace for --debug."""

    text: str
    trace: str

    def again(self) -> NoReturn:
        error = RuntimeError(self.text)
        error.add_note(self.trace)
        raise error


class _Loadable:
    """What a worker reads, errors as values: PyTorch would add the worker's trace to the text of an exception."""

    def __init__(self, read: Callable[[Any], Any]) -> None:
        self.read = read

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.read(key)
        except (DataError, UserError) as error:
            return error
        except Exception as error:  # as a text: not every exception can be sent to another process
            if get_worker_info() is None:
                raise
            return _Failure(f"{type(error).__name__} in a loader worker: {one_line(error)}", format_exc())


def _unchanged(item: Any) -> Any:
    return item


def _quiet_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # a signal to the whole group is for the main process; its own SIGTERM must still end a worker
