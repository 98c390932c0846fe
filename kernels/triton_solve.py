"""The C x C systems of Eq. 12 in registers: what narrow and wide windows share, once they have their sums.

A pixel of several planes is a tuple of tensors, one a plane, and a loop over channels is unrolled while compiling.
"""

import triton
import triton.language as tl

from . import guide_planes

means_at = triton.constexpr_function(guide_planes.means_at)
lower_at = triton.constexpr_function(guide_planes.lower_at)
inverse_at = triton.constexpr_function(guide_planes.inverse_at)
planes_of = triton.constexpr_function(guide_planes.planes_of)
FEW = 4  # most channels of a guide that these functions are made for; see ``triton_many``


@triton.jit
def pixel(plane, area, valid, COUNT: tl.constexpr):
    """A pixel of planes that follow one another."""
    values = ()
    for i in tl.static_range(COUNT):
        values += (tl.load(plane + i * area, mask=valid, other=0.0),)
    return values


@triton.jit
def store(plane, area, valid, values, COUNT: tl.constexpr):
    """A pixel into planes that follow one another."""
    for i in tl.static_range(COUNT):
        tl.store(plane + i * area, values[i], mask=valid)


@triton.jit
def plus_products(sums, p, colours, CHANNELS: tl.constexpr):
    """The sums of p and of I p with one pixel more; one fewer if its p is negated."""
    values = (sums[0] + p,)
    for i in tl.static_range(CHANNELS):
        values += (sums[i + 1] + p * colours[i],)
    return values


@triton.jit
def plus(sums, values, sign: tl.constexpr, COUNT: tl.constexpr):
    """One pixel more in every sum, or with a sign of -1 one fewer."""
    found = ()
    for i in tl.static_range(COUNT):
        found += (sums[i] + sign * values[i],)
    return found


@triton.jit
def factors(planes, area, valid, CHANNELS: tl.constexpr):
    """Means, L and 1 / D of windows."""
    return pixel(planes + means_at(CHANNELS) * area, area, valid, planes_of(CHANNELS) - means_at(CHANNELS))


@triton.jit
def line(sums, n, factors, CHANNELS: tl.constexpr):
    """b, a_0 .. a_C of windows, out of their sums of p and of I p, and 1 / n.

    L D L^T a = mean(I p) - mu mean(p) and b = mean(p) - a mu: first L y = the right side, from the first row down, then
    L^T a = y / D, from the last row up.
    """
    FIRST: tl.constexpr = means_at(CHANNELS)  # plane of factors[0]
    mean, y, a = sums[0] * n, (), ()
    for i in tl.static_range(CHANNELS):
        value = sums[i + 1] * n - factors[i] * mean
        for j in tl.static_range(i):
            value -= factors[lower_at(CHANNELS, i, j) - FIRST] * y[j]
        y += (value,)
    b = mean
    for i in tl.static_range(CHANNELS - 1, -1, -1):
        value = y[i] * factors[inverse_at(CHANNELS) - FIRST + i]
        for j in tl.static_range(i + 1, CHANNELS):
            value -= factors[lower_at(CHANNELS, j, i) - FIRST] * a[j - i - 1]
        b -= value * factors[i]
        below, a = a, (value,)
        a += below
    offset = (b,)
    return offset + a
