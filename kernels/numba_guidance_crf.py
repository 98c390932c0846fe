"""The steps of Algorithm 1 that lie between two filters, each one pass over all labels of some pixels, by numba.

Maps are [L, P], labels and pixels. A thread works on a range of pixels so short that all labels stay in its cache.
"""

import math

import numpy as np
import torch
from numba import types
from numba.extending import overload
from torch import Tensor

from .numba_guided_filter import parts
from .numba_rows import OPTIONS, compiled, inner
from .threads import share

VALUES = 2**13  # of one map in a range of pixels


def exponential(x):
    """exp(x) for x <= 0, in the type of x: exp(f) 2^n with |f| <= log(2) / 2, by Taylor's polynomial.

    It is vectorised, which a call of the C library is not. Results below the smallest normal number stay there; NaN
    stays NaN.
    """
    raise NotImplementedError  # compiled code takes one of the next two


def exponential64(x):
    x = -708.0 if x < -708.0 else x
    shifted = np.float64(x * 1.4426950408889634 + 6755399441055744.0)  # + 1.5 * 2^52: its last bits are n
    n = shifted - 6755399441055744.0
    f = (x - n * 0.6931471803691238) - n * 1.9082149292705877e-10  # log(2) in two parts
    value = f * (1 / 479001600) + 1 / 39916800
    value = value * f + 1 / 3628800
    value = value * f + 1 / 362880
    value = value * f + 1 / 40320
    value = value * f + 1 / 5040
    value = value * f + 1 / 720
    value = value * f + 1 / 120
    value = value * f + 1 / 24
    value = value * f + 1 / 6
    value = value * f + 1 / 2
    value = value * f + 1
    value = value * f + 1
    return value * np.int64((shifted.view(np.int64) << 52) + 4607182418800017408).view(np.float64)  # + bits of 1.0


LEAST, LOG2E, SHIFT = np.float32(-87), np.float32(1.4426950408889634), np.float32(3 << 22)  # 1.5 * 2^23
LOG2 = np.float32(0.693359375), np.float32(-2.12194440e-4)  # in two parts
C1, C2, C3, C4, C5, C6, C7 = (np.float32(1 / math.factorial(k)) for k in range(1, 8))


def exponential32(x):
    x = LEAST if x < LEAST else x
    shifted = np.float32(x * LOG2E + SHIFT)  # its last bits are n
    n = shifted - SHIFT
    f = (x - n * LOG2[0]) - n * LOG2[1]
    value = f * C7 + C6
    value = value * f + C5
    value = value * f + C4
    value = value * f + C3
    value = value * f + C2
    value = value * f + C1
    value = value * f + C1
    return value * np.int32((shifted.view(np.int32) << 23) + 1065353216).view(np.float32)  # + bits of 1.0


@overload(exponential, jit_options=OPTIONS)  # type: ignore[arg-type]
def _exponential(x):
    return exponential32 if x == types.float32 else exponential64


@inner
def softmax(phi, out, begin, end):
    """Softmax over the labels of phi in these pixels; ``out`` may be phi."""
    most, total = np.empty(end - begin, phi.dtype), np.zeros(end - begin, phi.dtype)
    for x in range(end - begin):
        most[x] = phi[0, begin + x]
    for label in range(1, len(phi)):
        row = phi[label, begin:end]
        for x in range(len(row)):
            most[x] = most[x] if row[x] < most[x] else row[x]
    for label in range(len(phi)):
        row, target = phi[label, begin:end], out[label, begin:end]
        for x in range(len(row)):
            target[x] = exponential(row[x] - most[x])
            total[x] += target[x]
    for label in range(len(phi)):
        target = out[label, begin:end]
        for x in range(len(target)):
            target[x] /= total[x]


@compiled
def normalise(scores, out, pixels):
    softmax(scores, out, pixels[0], pixels[1])


@compiled
def step(unary, message, out, pixels, weight, potts, normalised):
    """phi = unary - weight mu g into out, or its softmax; with ``potts`` the message is g, and mu g = sum g - g."""
    begin, end = pixels
    total = np.zeros(end - begin, unary.dtype)
    for label in range(len(unary)):
        row = message[label, begin:end]
        for x in range(len(row)):
            total[x] += row[x]
    for label in range(len(unary)):
        row, score, phi = message[label, begin:end], unary[label, begin:end], out[label, begin:end]
        if potts:
            for x in range(len(row)):
                phi[x] = score[x] - weight * (total[x] - row[x])
        else:
            for x in range(len(row)):
                phi[x] = score[x] - weight * row[x]
    if normalised:
        softmax(out, out, begin, end)


@compiled
def step_backward(h, q, total, pixels, factor, d_weight):
    """The gradient factor * h of q -> that of the softmax, into h and added to total; sum of h (q - 1) to d_weight."""
    begin, end = pixels
    inside, part = np.zeros(end - begin, h.dtype), 0.0
    for label in range(len(q)):
        row, belief = h[label, begin:end], q[label, begin:end]
        for x in range(len(row)):
            inside[x] += row[x] * belief[x]
    for label in range(len(q)):
        row, belief, sums = h[label, begin:end], q[label, begin:end], total[label, begin:end]
        outside = np.float64(0)
        for x in range(len(row)):
            outside += row[x]
            row[x] = factor * belief[x] * (row[x] - inside[x])
            sums[x] += row[x]
        part -= outside
    for x in range(len(inside)):
        part += inside[x]
    d_weight[0] = part


def maps(x: Tensor) -> np.ndarray:
    return x.detach().flatten(2).numpy()  # [N, L, P]


def ranges(x: Tensor) -> list[tuple[int, int]]:
    """Ranges of pixels of N L H W: a multiple of the threads, so that all have as much to do."""
    threads, pixels = torch.get_num_threads(), x.shape[2] * x.shape[3]
    return parts(pixels, threads * -(-x[0].numel() // (threads * VALUES)) if len(x) else 1)


def beliefs(scores: Tensor, out: Tensor) -> Tensor:
    """The softmax of the scores, into ``out``."""
    wide = scores.to(out.dtype)
    tasks = [(*images, pixels) for images in zip(maps(wide), maps(out), strict=True) for pixels in ranges(wide)]
    share(normalise, tasks, torch.get_num_threads())
    return out


def update(unary: Tensor, message: Tensor, weight: Tensor, potts: bool, softmax: bool, out: Tensor) -> Tensor:
    """``unary - weight * mu g`` into ``out``, and its softmax if wanted; ``message`` is g with Potts, else mu g."""
    wide, result = unary.to(message.dtype), out if out.dtype == message.dtype else torch.empty_like(message)
    options = (message.numpy().dtype.type(weight.detach().item()), potts, softmax)
    images = zip(maps(wide), maps(message), maps(result), strict=True)
    tasks = [(*image, pixels, *options) for image in images for pixels in ranges(message)]
    share(step, tasks, torch.get_num_threads())
    return out if result is out else out.copy_(result)


def update_backward(h: Tensor, q: Tensor, weight: Tensor, potts: bool, total: Tensor) -> tuple[Tensor, Tensor]:
    """The next step of the backward, added to ``total``; and d_weight, which is 0 unless Potts. Overwrites h."""
    factor, pixels = h.numpy().dtype.type(weight.detach().item() * (1 if potts else -1)), ranges(h)
    d_weight = np.zeros((len(h) * len(pixels), 1))
    images = [(*image, part) for image in zip(maps(h), maps(q), maps(total), strict=True) for part in pixels]
    tasks = [(*image, factor, part) for image, part in zip(images, d_weight, strict=True)]
    share(step_backward, tasks, torch.get_num_threads())
    return h, weight.new_tensor(d_weight.sum() if potts else 0.0)
