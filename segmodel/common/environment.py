"""What a result depends on beside the code: versions and the machine."""

import importlib
import platform
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

import segmodel

PEERS = ("cv2", "kornia", "numba", "pydensecrf", "triton")
"""Modules that are not required; some are compared with."""


def versions() -> dict[str, str]:
    """Versions of what every result depends on."""
    return {
        "segmodel": segmodel.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def environment() -> dict[str, Any]:
    """What times depend on: "versions" (also those of ``PEERS`` that are installed), "processor" and "threads"."""
    peers = {name: getattr(module, "__version__", "installed") for name in PEERS if (module := peer(name))}
    return {"versions": versions() | peers, "processor": processor(), "threads": torch.get_num_threads()}


def processor() -> str:
    """The name of this machine's processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def peer(name: str) -> ModuleType | None:
    """The module, or None if it is not installed or cannot be imported."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
