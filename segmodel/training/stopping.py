"""Signals that stop a training after its step, in all processes together."""

import os
import signal

import torch

from segmodel.common import distributed


class StopSignal:
    """Remembers SIGINT or SIGTERM until the step is done; a second one acts at once."""

    def __init__(self) -> None:
        self.number = 0

    def __enter__(self) -> "StopSignal":
        self.old = {number: signal.signal(number, self._remember) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _: object) -> None:
        if self.number:
            raise KeyboardInterrupt
        self.number = number
        if distributed.is_writer():  # not print: it may be interrupted itself
            os.write(
                2, b"\nstopping after this step; a second time stops at once, and loses the steps since the last save\n"
            )

    def agreed(self, device: torch.device, *, failed: bool = False) -> tuple[bool, bool]:
        """Whether any process was told to stop, and whether any has failed: the same answer in all of them."""
        stops, failures = distributed.total(torch.tensor([self.number > 0, failed], dtype=torch.int64, device=device))
        if stops and not self.number:
            self.number = signal.SIGTERM
        return bool(stops), bool(failures)
