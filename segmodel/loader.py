"""Batches of augmented samples: a function of the seed and the step alone, whatever the number of loader workers."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from segmodel.data import AugmentedData, DataError


def steps_per_epoch(length: int, batch_size: int) -> int:
    """Whole batches in a set, at least one."""
    return max(1, length // batch_size)


class BatchKeys:
    """Keys (epoch, index) of the batches of steps ``first..last - 1``; a function of the seed and the step alone.

    Each epoch is a permutation without its last incomplete batch; a set smaller than a batch is repeated in it.
    """

    def __init__(self, length: int, batch_size: int, seed: int, first: int, last: int):
        self.length, self.batch_size, self.seed, self.first, self.last = length, batch_size, seed, first, last

    def __len__(self) -> int:
        return max(0, self.last - self.first)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order, of_epoch = np.empty(0, np.int64), -1
        for step in range(self.first, self.last):
            epoch, place = divmod(step, steps_per_epoch(self.length, self.batch_size))
            if epoch != of_epoch:
                order, of_epoch = np.random.default_rng((self.seed, epoch)).permutation(self.length), epoch
            chosen = np.resize(order[place * self.batch_size : (place + 1) * self.batch_size], self.batch_size)
            yield [(epoch, int(index)) for index in chosen]


class _Loadable:
    """The data as a loader worker reads it: what is wrong with a file comes back as a value and is raised at home."""

    def __init__(self, data: AugmentedData):
        self.data = data

    def __getitem__(self, key: tuple[int, int]) -> Any:
        try:
            return self.data[key]
        except DataError as error:
            return error


def _collate(samples: list[Any]) -> tuple[Tensor, Tensor] | DataError:
    for sample in samples:
        if isinstance(sample, DataError):
            return sample
    images = torch.from_numpy(np.stack([sample.image for sample in samples]))
    return images, torch.from_numpy(np.stack([sample.label for sample in samples]))


def _quiet_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the main process decides


def load_batches(data: AugmentedData, keys: BatchKeys, *, workers: int, device: torch.device) -> Iterator[tuple]:
    """Batches of images ``(N, 3, H, W)`` float32 in 0..255, channels last in memory, and labels int64."""
    if workers < 0:
        workers = min(8, (os.cpu_count() or 1) - 1)
    loader: DataLoader[Any] = DataLoader(
        _Loadable(data),  # type: ignore[arg-type]
        batch_sampler=keys,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_quiet_worker,
        pin_memory=device.type == "cuda",
    )
    for batch in loader:
        if isinstance(batch, DataError):
            raise batch
        images, labels = (part.to(device, non_blocking=True) for part in batch)
        yield images.permute(0, 3, 1, 2).float(), labels.long()
