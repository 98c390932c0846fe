"""The steps of Algorithm 1 that lie between two filters, in Triton: a thread a pixel, its labels in registers.

Many labels are gone through twice, some at a time. Up to MOST there is one block, its loops vanish, and what the second
one would read again is still there.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .backend import on_its_gpu

LAUNCH = {"num_warps": 2, "enable_fp_fusion": True}
PIXELS = 32 * LAUNCH["num_warps"]
MOST = 24  # labels of a block


@triton.jit
def _block(x, first, area, valid, other, LABELS: tl.constexpr, BLOCK: tl.constexpr):
    """A pixel of labels that follow one another; ``other`` stands for those beyond the last."""
    values = ()
    for i in tl.static_range(BLOCK):
        value = tl.load(x + (first + i) * area, mask=valid & (first + i < LABELS), other=other)
        values += (value.to(tl.float32),)
    return values


@triton.jit(do_not_specialize=["area"])
def _update(
    unary, message, weight, out, area,
    POTTS: tl.constexpr, SOFTMAX: tl.constexpr,
    LABELS: tl.constexpr, BLOCK: tl.constexpr, BLOCKS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Steps 3, 4 and 1: phi = unary - weight m, and q = softmax(phi) if SOFTMAX. With POTTS m is sum(g) - g."""
    pixel, area = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS), area.to(tl.int64)
    valid, at = pixel < area, tl.program_id(1).to(tl.int64) * LABELS * area + pixel
    unary, message, out = unary + at, message + at, out + at
    rate = tl.load(weight) * (1.0 if POTTS else -1.0)
    zero = tl.zeros((PIXELS,), tl.float32)
    total, norm, top = zero, zero, zero + float("-inf")
    for block in range(BLOCKS):
        g = _block(message, block * BLOCK, area, valid, 0.0, LABELS, BLOCK)
        if SOFTMAX:
            s = _block(unary, block * BLOCK, area, valid, float("-inf"), LABELS, BLOCK)
            before = top
            for i in tl.static_range(BLOCK):
                top = tl.maximum(top, s[i] + rate * g[i])
            shift = tl.where(top == float("-inf"), 0.0, top)  # so far no label may have been possible
            norm *= tl.exp(before - shift)
            for i in tl.static_range(BLOCK):
                norm += tl.exp(s[i] + rate * g[i] - shift)
        elif POTTS:  # what is the same for all labels vanishes in the softmax
            for i in tl.static_range(BLOCK):
                total += g[i]
    top, norm = tl.where(top == float("-inf"), 0.0, top), 1.0 / norm
    for block in range(BLOCKS):
        g = _block(message, block * BLOCK, area, valid, 0.0, LABELS, BLOCK)
        s = _block(unary, block * BLOCK, area, valid, float("-inf"), LABELS, BLOCK)
        for i in tl.static_range(BLOCK):
            label, phi = block * BLOCK + i, s[i] + rate * (g[i] - total)
            if SOFTMAX:
                phi = tl.exp(phi - top) * norm
            tl.store(out + label * area, phi.to(out.dtype.element_ty), mask=valid & (label < LABELS))


@triton.jit(do_not_specialize=["area"])
def _update_backward(
    h, q, weight, step, total, d_weight, area,
    POTTS: tl.constexpr, LABELS: tl.constexpr, BLOCK: tl.constexpr, BLOCKS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Gradient of one softmax, added to the total, and with POTTS this program's part of the weight's gradient.

    ``h`` is mu^T h; with POTTS it is h itself, for what is the same for all labels vanishes.
    """
    pixel, area = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS), area.to(tl.int64)
    valid, at = pixel < area, tl.program_id(1).to(tl.int64) * LABELS * area + pixel
    h, q, step, total = h + at, q + at, step + at, total + at
    mean, plain = tl.zeros((PIXELS,), tl.float32), tl.zeros((PIXELS,), tl.float32)
    for block in range(BLOCKS):
        gradient = _block(h, block * BLOCK, area, valid, 0.0, LABELS, BLOCK)
        belief = _block(q, block * BLOCK, area, valid, 0.0, LABELS, BLOCK)
        for i in tl.static_range(BLOCK):
            mean += belief[i] * gradient[i]
            plain += gradient[i]
    rate = tl.load(weight) * (1.0 if POTTS else -1.0)
    for block in range(BLOCKS):
        gradient = _block(h, block * BLOCK, area, valid, 0.0, LABELS, BLOCK)
        belief = _block(q, block * BLOCK, area, valid, 0.0, LABELS, BLOCK)
        before = _block(total, block * BLOCK, area, valid, 0.0, LABELS, BLOCK)
        for i in tl.static_range(BLOCK):
            label, value = block * BLOCK + i, belief[i] * rate * (gradient[i] - mean)
            here = valid & (label < LABELS)
            tl.store(step + label * area, value, mask=here)
            tl.store(total + label * area, before[i] + value, mask=here)
    if POTTS:  # no store earlier: what was loaded could not be kept over it
        tl.store(d_weight + tl.program_id(1) * tl.num_programs(0) + tl.program_id(0), tl.sum(mean - plain, axis=0))


def blocks(labels: int) -> dict[str, int]:
    """How the labels are cut: as many blocks as needed, as even as possible."""
    count = triton.cdiv(labels, MOST)
    return {"LABELS": labels, "BLOCK": triton.cdiv(labels, count), "BLOCKS": count, "PIXELS": PIXELS}


@on_its_gpu
def update(unary: Tensor, message: Tensor, weight: Tensor, potts: bool, softmax: bool, out: Tensor) -> Tensor:
    """``unary - weight * mu g`` into ``out``, and its softmax if wanted; ``message`` is g with Potts, else mu g."""
    images, labels, height, width = unary.shape
    grid = (triton.cdiv(height * width, PIXELS), images)
    if images:
        _update[grid](
            unary, message, weight, out, height * width, POTTS=potts, SOFTMAX=softmax, **blocks(labels), **LAUNCH
        )
    return out


@on_its_gpu
def update_backward(h: Tensor, q: Tensor, weight: Tensor, potts: bool, total: Tensor) -> tuple[Tensor, Tensor]:
    """The next step of the backward, added to ``total``; and d_weight, which is 0 unless Potts."""
    images, labels, height, width = q.shape
    grid = (triton.cdiv(height * width, PIXELS), images)
    step, d_weight = torch.empty_like(q), q.new_zeros((images, grid[0]))
    if images:
        _update_backward[grid](
            h, q, weight, step, total, d_weight, height * width, POTTS=potts, **blocks(labels), **LAUNCH
        )
    return step, d_weight.sum()
