"""Reads data sets by worker processes."""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from traceback import format_exc
from typing import Any, NoReturn

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
    # The loss of a worker is reported where the next item is waited for: PyTorch's own handler would raise wherever the
    # main process is, and the training step it is in would be lost. Windows has neither signal nor handler.
    before = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    items = iter(loader)
    if before is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, before)
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except (OSError, EOFError) as error:  # the worker died after it had announced an item
            raise RuntimeError(f"DataLoader worker is lost ({type(error).__name__}: {error})") from error
        if isinstance(item, _Failure):
            item.again()
        if isinstance(item, UserError):
            raise item
        yield item


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
