"""Which backend runs an operator, and the checks that every operator makes at its public door."""

import os

import torch
from torch import Tensor

BACKENDS = ("auto", "triton", "torch")
BORDERS = ("clipped", "constant")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def choose(backend: str, device: torch.device) -> str:
    """Return "torch" or "triton"; the environment variable SEGMODEL_BACKEND replaces "auto"."""
    if backend == "auto":
        backend = os.environ.get("SEGMODEL_BACKEND", "auto")
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {BACKENDS}, got {backend!r}")
    if backend == "triton":
        raise ValueError(f"backend: Triton was asked for but has no kernel for {device} yet; use 'torch'")
    return "torch"


def statistics_dtype(dtype: torch.dtype) -> torch.dtype:
    """Statistics are float32 for half precision inputs, and float64 stays float64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_map(name: str, x: Tensor, dtypes: tuple[torch.dtype, ...] = FLOATS) -> None:
    """Require a floating point N C H W tensor with at least one pixel and one channel."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name}: expected a tensor, got {type(x).__name__}")
    if x.dim() != 4:
        raise ValueError(f"{name}: expected N C H W, got shape {tuple(x.shape)}")
    if x.dtype not in dtypes:
        raise ValueError(f"{name}: expected one of {', '.join(str(d) for d in dtypes)}, got {x.dtype}")
    if min(x.shape[1:]) < 1:
        raise ValueError(f"{name}: expected at least one channel, row and column, got shape {tuple(x.shape)}")


def check_window(radius: int, border: str) -> None:
    """Require a non-negative integer radius and a known border rule."""
    if not isinstance(radius, int) or isinstance(radius, bool) or radius < 0:
        raise ValueError(f"radius: expected an integer >= 0, got {radius!r}")
    if border not in BORDERS:
        raise ValueError(f"border: expected one of {BORDERS}, got {border!r}")
