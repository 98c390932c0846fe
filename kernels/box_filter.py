"""Windowed means in linear time: the box sums that the guided filter and the context rings are made of."""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import backend as _backend


def window_sum(x: Tensor, size: int, *, dim: int = -1, step: int = 1) -> Tensor:
    """Sums over ``size`` elements ``step`` apart, window i starting at element i; ``(size - 1) * step`` fewer outputs.

    Doubling and tripling need about ``log2(size)`` additions, never subtract, and stay accurate: a cumulative
    sum over a whole float32 image would lose three digits.
    """
    if size == 1:
        return x
    parts = 2 if size % 2 == 0 else 3 if size % 3 == 0 else 0
    part = window_sum(x, size // parts if parts else size - 1, dim=dim, step=step)
    count = x.shape[dim] - (size - 1) * step
    total = part.narrow(dim, 0, count)
    if not parts:
        return total + x.narrow(dim, (size - 1) * step, count)
    for index in range(1, parts):
        total = total + part.narrow(dim, index * (size // parts) * step, count)
    return total


def box_sum(x: Tensor, radius: int) -> Tensor:
    """Sum over the part of the (2 radius + 1)^2 window that lies inside the image."""
    x = F.pad(x, (radius, radius, radius, radius))
    return window_sum(window_sum(x, 2 * radius + 1, dim=-2), 2 * radius + 1, dim=-1)


def window_counts(x: Tensor, radius: int, border: str) -> Tensor:
    """Divisor of every window of ``x``: H x W true pixel counts ("clipped") or the whole area ("constant")."""
    if border == "constant":
        return x.new_full(x.shape[-2:], float((2 * radius + 1) ** 2))
    rows, columns = (_line_counts(size, radius, x) for size in x.shape[-2:])
    return rows[:, None] * columns[None, :]


def _line_counts(size: int, radius: int, like: Tensor) -> Tensor:
    index = torch.arange(size, device=like.device)
    first, last = (index - radius).clamp(min=0), (index + radius).clamp(max=size - 1)
    return (last - first + 1).to(like.dtype)


def box_filter(x: Tensor, *, radius: int, border: str = "clipped", backend: str = "auto") -> Tensor:
    r"""Windowed mean of every channel (Sec. 4.1, Sec. 5).

    Args:
        x: ``N C H W``, any strides, float16, bfloat16 (sums in float32), float32 or float64.
        radius: the window is :math:`(2 r + 1) \times (2 r + 1)`; it may be larger than the map.
        border: "clipped" divides by the true pixel count, "constant" by :math:`(2 r + 1)^2`.
        backend: "auto", "torch" or "triton".

    Returns:
        A tensor of the shape and dtype of ``x``.

    Raises:
        ValueError: on a wrong rank, dtype, radius, border or backend.
    """
    _backend.check_map("x", x)
    _backend.check_window(radius, border)
    _backend.choose(backend, x.device)
    wide = x.to(_backend.statistics_dtype(x.dtype))
    return (box_sum(wide, radius) / window_counts(wide, radius, border)).to(x.dtype)
