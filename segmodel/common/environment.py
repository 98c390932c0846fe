"""What a figure depends on beside the code: versions and the machine."""

import importlib
import platform
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

import segmodel


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    return {
        "segmodel": segmodel.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def peer(name: str) -> ModuleType | None:
    """The module, or None if it is not installed (or lacks what it imports)."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def environment() -> dict[str, Any]:
    """Versions and processor, without which a time says nothing."""
    names = ("cv2", "kornia", "pydensecrf", "triton")
    versions = {name: getattr(peer(name), "__version__", "installed") for name in names if peer(name) is not None}
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "versions": {
            "segmodel": segmodel.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            **versions,
        },
        "processor": models[0] if models else platform.processor(),
        "threads": torch.get_num_threads(),
    }
