"""Batches of augmented samples: a function of the seed and the step alone, whatever the number of loader workers."""

import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from segmodel.common import distributed
from segmodel.common.errors import UserError
from segmodel.data import AugmentedData, DataError
from segmodel.data.loading import loaded


def steps_per_epoch(length: int, batch_size: int) -> int:
    """Whole batches in a set, at least one."""
    return max(1, length // batch_size)


class BatchKeys:
    """Keys (epoch, index) of the batches of steps ``first..last - 1``; a function of the seed and the step alone.

    Each epoch is a permutation without its last incomplete batch; a set smaller than a batch is repeated in it, each
    time with an epoch number of its own, so that a sample is augmented in another way.
    With ``share = (rank, processes)`` each of several processes gets its share of every batch, and of each of the
    ``parts`` that a step goes through one after the other.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        first: int,
        last: int,
        *,
        share: tuple[int, int] = (0, 1),
        parts: int = 1,
    ):
        self.length, self.batch_size, self.seed, self.first, self.last = length, batch_size, seed, first, last
        self.share, self.parts = share, parts
        if batch_size % (share[1] * parts):
            raise UserError(
                f"batch_size: expected a multiple of {share[1] * parts} ({share[1]} processes, "
                f"{parts} accumulated parts), got {batch_size}"
            )

    def __len__(self) -> int:
        return max(0, self.last - self.first)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order, of_epoch = np.empty(0, np.int64), -1
        rank, processes = self.share
        repeat = np.arange(self.batch_size) // self.length
        for step in range(self.first, self.last):
            epoch, place = divmod(step, steps_per_epoch(self.length, self.batch_size))
            if epoch != of_epoch:
                order, of_epoch = np.random.default_rng((self.seed, epoch)).permutation(self.length), epoch
            chosen = np.resize(order[place * self.batch_size : (place + 1) * self.batch_size], self.batch_size)
            keys = np.stack([epoch * (1 + repeat[-1]) + repeat, chosen], axis=1)
            mine = keys.reshape(self.parts, processes, -1, 2)[:, rank].reshape(-1, 2)
            yield [(int(number), int(index)) for number, index in mine]


class Batch(NamedTuple):
    """Images ``(N, 3, H, W)`` float32 in 0..255, channels last in memory, labels ``(N, H, W)`` int64, their names."""

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]


def _read_batch(data: AugmentedData, keys: list[tuple[int, int]]) -> Batch:
    samples = [data[key] for key in keys]
    images = torch.from_numpy(np.stack([sample.image for sample in samples]))
    labels = torch.from_numpy(np.stack([sample.label for sample in samples]))
    return Batch(images, labels, tuple(sample.name for sample in samples))


def load_batches(data: AugmentedData, keys: BatchKeys, *, workers: int, device: torch.device) -> Iterator[Batch]:
    """The batches of the keys, on the device; ``workers`` = -1 takes one process for each core but one, at most 8."""
    batches = loaded(
        partial(_read_batch, data),
        keys,
        workers=workers,
        processes=distributed.local_processes(),
        pin_memory=device.type == "cuda",
    )
    for batch in batches:
        if isinstance(batch, DataError):
            raise batch
        images, labels = (part.to(device, non_blocking=True) for part in batch[:2])
        yield Batch(images.permute(0, 3, 1, 2).float(), labels.long(), batch.names)


class Timed:
    """Items of an iterable; ``waited`` is the time in seconds that the last one took to come."""

    def __init__(self, items: Iterable[Any]):
        self.items, self.waited = iter(items), 0.0

    def __iter__(self) -> "Timed":
        return self

    def __next__(self) -> Any:
        asked = time.monotonic()
        item = next(self.items)
        self.waited = time.monotonic() - asked
        return item
