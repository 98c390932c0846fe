"""Whether the loader keeps the training fed: images a second of each alone and of both, and the time spent waiting."""

import time
from collections.abc import Iterable
from pathlib import Path

from segmodel.common.device import choose_device
from segmodel.common.tables import Table
from segmodel.training.batches import Batch, Timed
from segmodel.training.settings import Config
from segmodel.training.trainer import Trainer


def seconds_each(trainer: Trainer, batches: Iterable[Batch], *, train: bool) -> tuple[float, float]:
    """Seconds that a batch takes, and how many of them are spent waiting for it; two batches warm up first."""
    timed = Timed(batches)
    count, waited, start = 0, 0.0, 0.0
    trainer.model.train()
    for number, batch in enumerate(timed):
        if train:
            trainer.train_on(batch, trainer.rate())  # ends with the loss as a number: the device is done
        if number == 1:
            start = time.perf_counter()
        elif number > 1:
            count, waited = count + 1, waited + timed.waited
    return (time.perf_counter() - start) / count, waited / count


def loader_table(config: Config, batches: int) -> Table:
    """Trains for a few steps from the start, in this process alone; nothing is written."""
    trainer = Trainer(config, Path(), choose_device(config.train.device), resume=False)
    size, count = config.train.batch_size, batches + 2
    loading, _ = seconds_each(trainer, trainer.batches(0, count), train=False)
    (first,) = trainer.batches(0, 1)
    training, _ = seconds_each(trainer, [first] * count, train=True)
    both, waited = seconds_each(trainer, trainer.batches(0, count), train=True)
    rows = [
        ["loader alone", size / loading, None],
        ["training alone", size / training, None],
        ["both", size / both, 100 * waited / both],
    ]
    title = f"Loader: {config.train.data}, {size} images a batch, {batches} batches, {trainer.device}"
    return Table(title, ["", "images/s", "waiting for data, %"], rows)
