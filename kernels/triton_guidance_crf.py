"""The steps of Algorithm 1 that lie between two filters, each one pass over all labels of a pixel, in Triton."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .backend import on_its_gpu

LAUNCH = {"num_warps": 4, "enable_fp_fusion": True}


@triton.jit
def _update(
    unary, message, weight, out, labels, area,
    POTTS: tl.constexpr, SOFTMAX: tl.constexpr, LABELS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Steps 3, 4 and 1: phi = unary - weight m, and q = softmax(phi) if SOFTMAX. With POTTS m is sum(g) - g."""
    label, pixel = tl.arange(0, LABELS)[:, None], tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)[None, :]
    at = tl.program_id(1).to(tl.int64) * labels * area + label.to(tl.int64) * area + pixel
    valid = (label < labels) & (pixel < area)
    m = tl.load(message + at, mask=valid, other=0.0)  # [LABELS, PIXELS]
    if POTTS:
        m = tl.sum(m, axis=0)[None, :] - m
    phi = tl.load(unary + at, mask=valid, other=0.0).to(tl.float32) - tl.load(weight) * m
    if SOFTMAX:
        phi = tl.where(label < labels, phi, float("-inf"))
        phi = tl.exp(phi - tl.max(phi, axis=0)[None, :])
        phi /= tl.sum(phi, axis=0)[None, :]
    tl.store(out + at, phi.to(out.dtype.element_ty), mask=valid)


@triton.jit
def _update_backward(
    h, q, weight, step, total, d_weight, labels, area,
    POTTS: tl.constexpr, LABELS: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Gradient of one softmax, added to the total, and with POTTS this tile's part of the weight's gradient."""
    label, pixel = tl.arange(0, LABELS)[:, None], tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)[None, :]
    at = tl.program_id(1).to(tl.int64) * labels * area + label.to(tl.int64) * area + pixel
    valid = (label < labels) & (pixel < area)
    gradient = tl.load(h + at, mask=valid, other=0.0)  # mu^T h, and h itself with POTTS
    belief = tl.load(q + at, mask=valid, other=0.0)
    if POTTS:
        part = tl.sum(tl.sum(gradient * belief - gradient, axis=1), axis=0)
        tl.store(d_weight + tl.program_id(1) * tl.num_programs(0) + tl.program_id(0), part)
        gradient *= tl.load(weight)
    else:
        gradient *= -tl.load(weight)
    gradient = belief * (gradient - tl.sum(belief * gradient, axis=0)[None, :])
    tl.store(step + at, gradient, mask=valid)
    tl.store(total + at, tl.load(total + at, mask=valid, other=0.0) + gradient, mask=valid)


def tiling(labels: int) -> tuple[int, int]:
    """Labels, padded to a power of two, and pixels of one program: 16 values in each of 128 threads."""
    padded = triton.next_power_of_2(labels)
    return padded, max(16, 2048 // padded)


@on_its_gpu
def update(unary: Tensor, message: Tensor, weight: Tensor, potts: bool, softmax: bool, out: Tensor) -> Tensor:
    """``unary - weight * mu g`` into ``out``, and its softmax if wanted; ``message`` is g with Potts, else mu g."""
    images, labels, height, width = unary.shape
    padded, pixels = tiling(labels)
    grid = (triton.cdiv(height * width, pixels), images)
    if images:
        sizes = (labels, height * width, potts, softmax, padded, pixels)
        _update[grid](unary, message, weight, out, *sizes, **LAUNCH)
    return out


@on_its_gpu
def update_backward(h: Tensor, q: Tensor, weight: Tensor, potts: bool, total: Tensor) -> tuple[Tensor, Tensor]:
    """The next step of the backward, added to ``total``; and d_weight, which is 0 unless Potts."""
    images, labels, height, width = q.shape
    padded, pixels = tiling(labels)
    grid = (triton.cdiv(height * width, pixels), images)
    step, d_weight = torch.empty_like(q), q.new_zeros((images, grid[0]))
    if images:
        sizes = (labels, height * width, potts, padded, pixels)
        _update_backward[grid](h, q, weight, step, total, d_weight, *sizes, **LAUNCH)
    return step, d_weight.sum()
