"""Measurements: calls that take turns, and the memory that they need."""

import ctypes
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

Call = Callable[[], Any]


def percentile(values: Sequence[float], percent: int) -> float:
    return float(np.percentile(values, percent))


def peak_memory(call: Call) -> float | None:
    """MiB by which a call raises the resident memory at most; None where Linux's counters are missing."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # or freed memory of earlier calls would hide what this one takes
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
        before = _resident("VmRSS")
        call()
        return round((_resident("VmHWM") - before) / 1024, 1)
    except (OSError, AttributeError, TypeError):
        return None


def _resident(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def compare(calls: dict[str, Call], seconds: float) -> dict[str, dict[str, float | None]]:
    """Milliseconds of every call, which take turns for ``seconds`` each on average; ratio: of minima, to the first."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    memory = {name: peak_memory(call) for name, call in calls.items()}
    until = time.perf_counter() + seconds * len(calls)
    while time.perf_counter() < until or len(next(iter(times.values()))) < 5:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - start))
    first = min(next(iter(times.values())))
    return {
        name: {
            "p20": percentile(values, 20),
            "p50": statistics.median(values),
            "p80": percentile(values, 80),
            "min": min(values),
            "ratio": min(values) / first,
            "peak_mib": memory[name],
        }
        for name, values in times.items()
    }


def inputs(labels: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Scores and a guide with edges and grain; colours in 0..255."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(1, labels, height, width, generator=generator)
    coarse = torch.rand(1, 3, -(-height // 16), -(-width // 16), generator=generator)
    guide = torch.nn.functional.interpolate(coarse, size=(height, width), mode="nearest")
    return scores, 235 * guide + 20 * torch.rand(1, 3, height, width, generator=generator)
