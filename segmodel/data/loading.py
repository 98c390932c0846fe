"""Samples read by worker processes."""

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from segmodel.common.errors import DataError, UserError


def loaded(data: Any, *, workers: int, processes: int = 1, **options: Any) -> Iterator[Any]:
    """The items of a `DataLoader` over `data` with these options; what is wrong with a file comes as a `DataError`.

    Args:
        data: gives a sample for each key of the sampler.
        workers: processes that read, 0: none besides this; -1: one for each core but one, at most 8.
        processes: processes on this machine that load in this way, which share its cores.
    """
    if workers < 0:
        workers = max(0, min(8, (os.cpu_count() or 1) // processes - 1))
    loader: DataLoader[Any] = DataLoader(
        _Loadable(data),  # type: ignore[arg-type]
        num_workers=workers,
        worker_init_fn=_quiet_worker,
        **options,
    )
    for item in _iterator(loader):
        if isinstance(item, UserError):
            raise item
        yield item


class _Loadable:
    """Samples for a worker process: PyTorch would add the worker's trace to the text of an exception."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.data[key]
        except (DataError, UserError) as error:
            return error


def _quiet_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # a signal to the whole group is for the main process; its own SIGTERM must still end a worker


def _iterator(loader: DataLoader[Any]) -> Iterator[Any]:
    """The loader's iterator; the loss of a worker is reported where the next item is waited for.

    PyTorch's own handler would raise wherever the main process is: in the middle of a training step, which would be
    lost.
    """
    if not hasattr(signal, "SIGCHLD"):  # on Windows there is none, and PyTorch has no handler
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    items = iter(loader)
    if before is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, before)
    return items
