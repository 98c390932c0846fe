"""Whether the loader keeps the training fed: images a second of each alone, and the share of time spent waiting.

    python -m segmodel.throughput [settings as for segmodel.train]

Nothing is kept: the model trains for a few steps from its start, in this process alone.
"""

import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from segmodel.common import cli
from segmodel.common.device import choose_device
from segmodel.common.errors import UserError
from segmodel.training.batches import Batch, Timed
from segmodel.training.settings import add_settings, resolve
from segmodel.training.trainer import Trainer


def seconds_each(trainer: Trainer, batches: Iterable[Batch], *, train: bool) -> tuple[float, float]:
    """Seconds that a batch takes, and those of them spent waiting for it; the first two (warming up) do not count."""
    timed = Timed(batches)
    count, waited, start = 0, 0.0, 0.0
    trainer.model.train()
    for number, batch in enumerate(timed):
        if train:
            trainer.train_on(batch)  # ends with the loss as a number: the device is done
        if number == 1:
            start = time.perf_counter()
        elif number > 1:
            count, waited = count + 1, waited + timed.waited
    return (time.perf_counter() - start) / count, waited / count


def main(arguments: Sequence[str]) -> int:
    parser = cli.Parser("throughput", __doc__)
    parser.add_argument("--batches", type=int, default=20, help="batches to time (default: 20)")
    add_settings(parser)
    options = parser.parse_args(arguments)
    if options.batches < 1:
        raise UserError(f"--batches: expected at least 1, got {options.batches}")
    config = resolve(options)
    trainer = Trainer(config, Path(), choose_device(config.train.device), resume=False)
    size, count = config.train.batch_size, options.batches + 2
    loading, _ = seconds_each(trainer, trainer.batches(0, count), train=False)
    (first,) = trainer.batches(0, 1)
    training, _ = seconds_each(trainer, [first] * count, train=True)
    both, waited = seconds_each(trainer, trainer.batches(0, count), train=True)
    print(f"{config.train.data}: {size} images a batch, {options.batches} batches, {trainer.device}")
    print(f"  loader alone        {size / loading:10.1f} images/s")
    print(f"  training alone      {size / training:10.1f} images/s")
    print(
        f"  both                {size / both:10.1f} images/s, {100 * waited / both:.1f} % of the time waiting for data"
    )
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("throughput", main))
