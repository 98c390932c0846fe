"""Which backend runs an operator, and the checks that every operator makes at its public door."""

import functools
import importlib.util
import math
import os
from collections.abc import Callable
from typing import Any, SupportsIndex

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

BACKENDS = ("auto", "triton", "numba", "torch")
BORDERS = ("clipped", "constant")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
VARIABLE = "SEGMODEL_BACKEND"
TRITON, NUMBA = (importlib.util.find_spec(name) is not None for name in ("triton", "numba"))
MOST_PIXELS = 2**27  # of an image in Triton, whose kernels count within an image in 32 bits


def requested(backend: str) -> str:
    """The backend that a call asks for, where SEGMODEL_BACKEND stands in for "auto"; a ValueError if it is unknown."""
    source = "backend"
    if backend == "auto":
        source, backend = VARIABLE, os.environ.get(VARIABLE, "auto")
    if backend not in BACKENDS:
        raise ValueError(f"{source}: expected one of {BACKENDS}, got {backend!r}")
    return backend


def choose(backend: str, x: Tensor) -> str:
    """The backend that runs this call: "triton", "numba" or "torch".

    Raises:
        ValueError: the name is unknown, or what is asked for cannot run.
    """
    backend = requested(backend)
    if backend == "auto":
        backend = "triton" if x.device.type == "cuda" else "numba"
        return "torch" if _obstacle(backend, x) else backend
    if obstacle := _obstacle(backend, x):
        raise ValueError(f"backend: {backend!r} cannot run here: {obstacle}; {advice(backend)}")
    return backend


def advice(backend: str) -> str:
    """What to do where a backend was asked for and cannot run: the end of an error message."""
    unset = f" without {VARIABLE}={backend}" if os.environ.get(VARIABLE) == backend else ""
    return f"use 'torch' or 'auto'{unset}"


def on_its_gpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes the GPU of the first argument the current one for a call, because Triton launches there."""

    @functools.wraps(function)
    def launch(x: Tensor, *arguments: Any) -> Any:
        with torch.cuda.device_of(x):
            return function(x, *arguments)

    return launch


def _obstacle(backend: str, x: Tensor) -> str | None:
    """Why a backend cannot run on ``x``, or None."""
    if backend == "torch":
        return None
    if backend == "numba":
        if not NUMBA:
            return "the package numba is not installed (pip install segmodel[cpu])"
        return None if x.device.type == "cpu" else f"the tensor is on {x.device}, not on a CPU"
    if not TRITON:
        return "the package triton is not installed"
    if x.dtype == torch.float64:
        return "its kernels have no float64"
    if x.shape[-2] * x.shape[-1] > MOST_PIXELS:
        return f"its kernels take images of at most {MOST_PIXELS} pixels"
    if x.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"the tensor is on {x.device}, not on a CUDA or ROCm GPU"
    return None


def statistics_dtype(dtype: torch.dtype) -> torch.dtype:
    """Statistics are float32 for half precision inputs, and float64 stays float64."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_map(name: str, x: Tensor, dtypes: tuple[torch.dtype, ...] = FLOATS) -> None:
    """Require an N C H W tensor with at least one channel, row and column."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name}: expected a tensor, got {type(x).__name__}")
    if x.layout != torch.strided:
        raise ValueError(f"{name}: expected a dense tensor, got {x.layout}")
    if x.dim() != 4:
        raise ValueError(f"{name}: expected N C H W, got shape {tuple(x.shape)}")
    if x.dtype not in dtypes:
        raise ValueError(f"{name}: expected one of {', '.join(str(d) for d in dtypes)}, got {x.dtype}")
    if min(x.shape[1:]) < 1:
        raise ValueError(f"{name}: expected at least one channel, row and column, got shape {tuple(x.shape)}")
    check_no_tangent(name, x)


def check_no_tangent(name: str, x: Tensor) -> None:
    """Refuse forward mode: a custom operator would drop the tangent without a word."""
    if not torch.compiler.is_compiling() and forward_ad.unpack_dual(x).tangent is not None:
        raise NotImplementedError(f"{name}: forward mode differentiation is not supported")


def check_window(radius: int, border: str) -> int:
    """The radius: require a non-negative integer, and a known border rule."""
    if border not in BORDERS:
        raise ValueError(f"border: expected one of {BORDERS}, got {border!r}")
    return check_count("radius", radius)


def check_count(name: str, value: SupportsIndex) -> int:
    """The value as an int: require an integer >= 0, of Python or numpy."""
    if isinstance(value, bool | np.bool | Tensor) or not hasattr(value, "__index__") or int(value) < 0:
        raise ValueError(f"{name}: expected an integer >= 0, got {value!r}")
    return int(value)


def check_eps(eps: float) -> float:
    """Require a finite number above 0."""
    try:
        number = float(eps)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < math.inf:
        raise ValueError(f"eps: expected a finite number > 0, got {eps!r}")
    return number
