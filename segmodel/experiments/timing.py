"""Measurements: times of calls that take turns, and the resident memory that they need."""

import ctypes
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from segmodel.common.tables import Table

Call = Callable[[], Any]
Times = dict[str, dict[str, float | None]]
"""Figures of each contestant by name."""
Result = TypeVar("Result")


def timed(call: Callable[[], Result]) -> tuple[Result, float]:
    """What a call returns, and the milliseconds it took."""
    start = time.perf_counter()
    result = call()
    return result, 1000 * (time.perf_counter() - start)


def quantiles(values: Sequence[float]) -> dict[str, float | None]:
    return {f"p{percent}": float(np.percentile(values, percent)) for percent in (20, 50, 80)}


def resident(key: str) -> int:
    """Bytes of this process: "VmRSS", resident now, or "VmHWM", the most so far.

    Raises:
        OSError: Linux's counters are missing.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(key)))


def peak_bytes() -> int:
    """The most resident memory of this process so far."""
    try:
        return resident("VmHWM")  # on Linux getrusage would begin with the parent's peak
    except OSError:
        import resource  # Windows has none

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def added_memory(call: Call) -> float | None:
    """MiB by which a call raises the resident memory at most; None where Linux's counters are missing."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # or freed memory of earlier calls would hide what this one takes
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
        before = resident("VmRSS")
        call()
        return round((resident("VmHWM") - before) / 2**20, 1)
    except (OSError, AttributeError, TypeError):
        return None


def compare(calls: Mapping[str, Call], seconds: float) -> Times:
    """Milliseconds of calls that take turns for ``seconds`` each on average, at least five times.

    Returns:
        Of each call "p20", "p50", "p80", "min", "ratio" (of the minima, to the first call), "round_p20", "round_p50",
        "round_p80" (of the ratios to the first call in the same round) and "peak_mib".
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    memory = {name: added_memory(call) for name, call in calls.items()}
    until, rounds = time.perf_counter() + seconds * len(calls), 0
    while time.perf_counter() < until or rounds < 5:
        rounds += 1
        for name, call in calls.items():
            times[name].append(timed(call)[1])
    first = next(iter(times.values()))
    return {
        name: {
            **quantiles(values),
            "min": min(values),
            "ratio": min(values) / min(first),
            **{f"round_{key}": share for key, share in quantiles(np.divide(values, first).tolist()).items()},
            "peak_mib": memory[name],
        }
        for name, values in times.items()
    }


def times_table(title: str, times: Times, note: str = "") -> Table:
    """What ``compare`` found, a row a contestant."""
    keys = list(next(iter(times.values())))
    head = ["", *(key.replace("_mib", " MiB").replace("_", " ") for key in keys)]
    return Table(title, head, [[name, *row.values()] for name, row in times.items()], note)


def picture(images: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Pictures ``(N, 3, H, W)`` with edges and grain, colours in 0..255."""
    coarse = torch.rand(images, 3, -(-height // 16), -(-width // 16), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="nearest")
    return 235 * smooth + 20 * torch.rand(images, 3, height, width, generator=generator)


def inputs(labels: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Scores ``(1, C, H, W)`` and a guide ``(1, 3, H, W)``, see ``picture``."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(1, labels, height, width, generator=generator)
    return scores, picture(1, height, width, generator)
