"""Windowed means in linear time (Sec. 4.1): the context rings are made of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor

from . import backend as _backend
from .flat_planes import FlatPlanes, window_counts, window_sum
from .registration import register

_pooled = ContextVar("pooled", default=False)


@contextmanager
def pooled_means() -> Iterator[None]:
    """Within, box means are exported as average pooling: two nodes in place of sixty, and as fast in onnxruntime.

    In torch pooling takes four times as long as sums.
    """
    token = _pooled.set(True)
    try:
        yield
    finally:
        _pooled.reset(token)


def box_sum(x: Tensor, radius: int) -> Tensor:
    """Sum over the part of every window that lies inside the image, in standard differentiable operators."""
    if torch.compiler.is_exporting() and x.dtype == torch.float64:  # with digits enough to subtract
        return _difference_of_sums(_difference_of_sums(x, radius).mT, radius).mT
    down = across = radius
    if not torch.compiler.is_compiling():  # a program for maps of any size cannot ask for theirs
        down, across = min(radius, x.shape[-2] - 1), min(radius, x.shape[-1] - 1)
    x = F.pad(x, (across, across, down, down))
    return window_sum(window_sum(x, 2 * down + 1, dim=-2), 2 * across + 1, dim=-1)


def _difference_of_sums(x: Tensor, radius: int) -> Tensor:
    """Window sums along the last dimension in four nodes of a graph."""
    total, side = F.pad(x, (radius + 1, radius)).cumsum(-1), 2 * radius + 1
    return total[..., side:] - total[..., :-side]


def box_mean(x: Tensor, radius: int, border: str) -> Tensor:
    """Windowed mean of every channel in standard differentiable operators."""
    if _pooled.get():
        whole, side = border == "constant", 2 * radius + 1
        x = F.avg_pool2d(x, (side, 1), 1, (radius, 0), count_include_pad=whole)
        return F.avg_pool2d(x, (1, side), 1, (0, radius), count_include_pad=whole)
    return box_sum(x, radius) / window_counts(x, radius, border)


def box_filter(x: Tensor, *, radius: int, border: str = "clipped", backend: str = "auto") -> Tensor:
    r"""Windowed mean of every channel (Sec. 4.1, Sec. 5).

    Twice differentiable. There is no form in Triton or numba, and to ask for one is an error: the rings' maps are small
    (1/16 of the image's side) beside the convolutions that read them. That is a judgement: nothing was measured on a
    GPU.

    Args:
        x: ``N C H W``, any strides, float16, bfloat16 (sums in float32), float32 or float64.
        radius: the window is :math:`(2 r + 1) \times (2 r + 1)`; it may be larger than the map.
        border: "clipped" divides by the true pixel count, "constant" by :math:`(2 r + 1)^2`.
        backend: "auto" or "torch".

    Returns a tensor of the shape and dtype of ``x``.

    Raises:
        ValueError: on a wrong rank, dtype, radius, border or backend.
    """
    _backend.check_map("x", x)
    radius = _backend.check_window(radius, border)
    _backend.requested(backend)
    if backend not in ("auto", "torch"):
        raise ValueError(f"backend: box_filter has no {backend.capitalize()} form; use 'torch' or 'auto'")
    if torch.compiler.is_exporting():
        wide = x.to(_backend.statistics_dtype(x.dtype))
        return box_mean(wide, radius, border).to(x.dtype)
    return torch.ops.segmodel.box_filter(x, radius, border, False).to(x.dtype)


def blocked_box_filter(x: Tensor, radius: int, border: str, adjoint: bool) -> Tensor:
    """D^-1 S x, or the adjoint S D^-1 x, some planes at a time."""
    layout = FlatPlanes(x.shape[-2], x.shape[-1], radius)
    planes = x.reshape(-1, *x.shape[-2:])
    out = torch.empty_like(planes, memory_format=torch.contiguous_format)
    wide = x.new_empty(0, dtype=_backend.statistics_dtype(x.dtype))
    inverse, one = 1 / window_counts(wide.new_empty(x.shape[-2:]), radius, border), wide.new_ones(())
    before, after = (inverse, one) if adjoint else (one, inverse)
    block = layout.block(len(planes), x.device)
    buffer = layout.padded(block, wide)
    for first in range(0, len(planes), block):
        source = planes[first : first + block]
        padded = buffer[: len(source)]
        torch.mul(source, before, out=layout.pixels(layout.core(padded)))
        torch.mul(layout.pixels(layout.box_sum(padded)), after, out=out[first : first + block])
    return out.view(x.shape)


def _fake(x: Tensor, radius: int, border: str, adjoint: bool) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _setup(ctx, inputs, output) -> None:
    _, ctx.radius, ctx.border, ctx.adjoint = inputs


def _backward(ctx, grad: Tensor):
    return torch.ops.segmodel.box_filter(grad, ctx.radius, ctx.border, not ctx.adjoint), None, None, None


register(blocked_box_filter, "box_filter", fake=_fake, setup=_setup, backward=_backward)
