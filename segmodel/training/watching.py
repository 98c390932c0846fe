"""What a training says while it runs: once for all of its processes."""

import time
from datetime import timedelta
from typing import Any

import numpy as np
from tqdm import tqdm

from segmodel.common import distributed, terminal
from segmodel.common.tables import Table

EVERY = 30.0
"""Seconds from one line to the next, at least, where no terminal shows a bar."""


def say(*lines: str | Table, error: bool = False) -> None:
    """Prints lines, once for all processes, and at once: a file or a pipe may be watched."""
    if distributed.is_writer():
        terminal.say(*lines, error=error)


def bar(*arguments: Any, **options: Any) -> tqdm:
    """A progress bar on a terminal, one for all processes."""
    return tqdm(*arguments, **options, disable=None if distributed.is_writer() else True)


class StepLog:
    """Shows each step: a bar on a terminal; elsewhere a line, at most every ``EVERY`` seconds."""

    def __init__(self, step: int, total: int, *, steps_per_epoch: int):
        self.bar = bar(total=total, initial=step, desc="train", unit="step")
        self.first, self.total, self.steps_per_epoch = step, total, steps_per_epoch
        self.started = self.said = time.monotonic()
        self.losses: list[float] = []
        self.speeds: list[float] = []

    def add(self, step: int, *, loss: float, rate: float, speed: float, waiting: float) -> None:
        """A step is done: its loss, learning rate, images a second, and share of its time spent waiting for data."""
        self.bar.update()
        words = f"rate {rate:.2g}, {speed:.3g} images/s, {100 * waiting:.0f} % waiting for data"
        self.bar.set_postfix_str(f"loss {loss:.3f}, {words}", refresh=False)
        self.losses.append(loss)
        self.speeds.append(speed)
        now = time.monotonic()
        if not self.bar.disable or now - self.said < EVERY:
            return
        left = (now - self.started) / (step - self.first) * (self.total - step)
        epoch = (step - 1) // self.steps_per_epoch + 1
        say(f"step {step} of {self.total} (epoch {epoch}): loss {np.mean(self.losses):.3f}, rate {rate:.2g}, "
            f"{np.median(self.speeds):.3g} images/s, {timedelta(seconds=round(left))} left")  # fmt: skip
        self.said, self.losses, self.speeds = now, [], []

    def close(self) -> None:
        self.bar.close()
