"""The 3 x 3 systems of Eq. 12 in registers: what narrow and wide windows share, once they have their sums.

A pixel is up to three numbers, one a channel. Of a grey guide only the first counts; the others are copies that the
compiler drops.
"""

import triton
import triton.language as tl

from . import guide_planes

means_at = triton.constexpr_function(guide_planes.means_at)
lower_at = triton.constexpr_function(guide_planes.lower_at)
inverse_at = triton.constexpr_function(guide_planes.inverse_at)
planes_of = triton.constexpr_function(guide_planes.planes_of)


@triton.jit
def three(plane, area, valid, CHANNELS: tl.constexpr):
    """A pixel of three planes that follow one another."""
    first = tl.load(plane, mask=valid, other=0.0)
    if CHANNELS == 1:
        return first, first, first
    return first, tl.load(plane + area, mask=valid, other=0.0), tl.load(plane + 2 * area, mask=valid, other=0.0)


@triton.jit
def factors(means, area, valid, CHANNELS: tl.constexpr):
    """Means, L and 1 / D of windows, of which ``means`` is the first plane; a grey guide has no L."""
    LOWER: tl.constexpr = lower_at(CHANNELS) - means_at(CHANNELS)
    INVERSE: tl.constexpr = inverse_at(CHANNELS) - means_at(CHANNELS)
    found = three(means, area, valid, CHANNELS) + three(means + LOWER * area, area, valid, CHANNELS)
    return found + three(means + INVERSE * area, area, valid, CHANNELS)


@triton.jit
def line(total, y_0, y_1, y_2, factors, CHANNELS: tl.constexpr):
    """b and a of windows, out of their means of p and of I p: L D L^T a = mean(I p) - mu mean(p), b = mean(p) - a mu.

    First L y = the right side, from the first row down, then L^T a = y / D, from the last row up.
    """
    m_0, m_1, m_2, l_10, l_20, l_21, d_0, d_1, d_2 = factors  # d is 1 / D
    y_0 -= m_0 * total
    if CHANNELS == 1:
        a_0 = y_0 * d_0
        return total - a_0 * m_0, a_0, a_0, a_0
    y_1 -= m_1 * total + l_10 * y_0
    y_2 -= m_2 * total + l_20 * y_0 + l_21 * y_1
    a_2 = y_2 * d_2
    a_1 = y_1 * d_1 - l_21 * a_2
    a_0 = y_0 * d_0 - l_10 * a_1 - l_20 * a_2
    return total - a_0 * m_0 - a_1 * m_1 - a_2 * m_2, a_0, a_1, a_2


@triton.jit
def store(slopes, area, valid, b, a_0, a_1, a_2, CHANNELS: tl.constexpr):
    """Planes b, a_0 .. a_C of a label."""
    tl.store(slopes, b, mask=valid)
    tl.store(slopes + area, a_0, mask=valid)
    if CHANNELS == 3:
        tl.store(slopes + 2 * area, a_1, mask=valid)
        tl.store(slopes + 3 * area, a_2, mask=valid)
