"""Devices, precisions and modes: where and how a module runs."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from segmodel.common.errors import UserError

AnyModule = TypeVar("AnyModule", bound=nn.Module)
Precision = Literal["auto", "float32", "bfloat16", "float16", "float64"]


def choose_device(name: str) -> torch.device:
    """ "auto" is a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"--device: {name!r} cannot be used here ({str(error).splitlines()[0]:.200})") from error
    return torch.device(name)


def autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype | None:
    """ "auto": bfloat16 where the processor multiplies it (AMX, AVX512-BF16, recent GPUs), else float32 (None)."""
    if precision != "auto":
        return {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # newer than torch 2.11
    fast = capabilities.get("amx_bf16") or capabilities.get("avx512_bf16")
    return torch.bfloat16 if device.type == "cpu" and fast else None


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager:
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, and then each of its parts in its own again: some may be frozen in it."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        model.train(modes[model])  # some of timm's modules drop there what they keep for evaluation
        for module, training in modes.items():
            module.training = training


def place(model: AnyModule, device: torch.device) -> AnyModule:
    """The model on a device, its filters channels last in memory (faster on CPUs and tensor cores alike)."""
    return model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def to_batch(images: np.ndarray, device: torch.device) -> Tensor:
    """uint8 ``(N, H, W, 3)`` -> float32 ``(N, 3, H, W)`` in 0..255, channels last in memory."""
    return torch.from_numpy(np.array(images)).to(device).permute(0, 3, 1, 2).float()
