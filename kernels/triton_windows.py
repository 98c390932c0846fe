"""What every kernel of the guided filter needs of windows: tiles, counts, and differences of prefix sums."""

import triton
import triton.language as tl

LAUNCH = {"num_warps": 1, "enable_fp_fusion": True}  # one warp: lanes exchange values by shuffles alone
LANES = 32
VALUES = 16  # that a lane keeps of one row: of a tile of 128 columns, four of each of the four sums of a colour guide


@triton.jit
def tile(width, ROWS: tl.constexpr, COLUMNS: tl.constexpr, LOST: tl.constexpr):
    """First row of this program, its columns [1, COLUMNS], and which of them it is to write."""
    USEFUL: tl.constexpr = COLUMNS - LOST
    strips = tl.cdiv(width, USEFUL)
    index = tl.arange(0, COLUMNS)[None, :]
    column = tl.program_id(0) % strips * USEFUL + index
    return tl.program_id(0) // strips * ROWS, column, (index < USEFUL) & (column < width)


@triton.jit
def counts(index, size, RADIUS: tl.constexpr):
    """How many of the 2 RADIUS + 1 rows (or columns) around this one are in the image; at least 1, also outside it."""
    return tl.maximum(tl.minimum(index + RADIUS, size - 1) - tl.maximum(index - RADIUS, 0) + 1, 1)


@triton.jit
def reciprocal(index, size, RADIUS: tl.constexpr, CLIPPED: tl.constexpr):
    """One over the rows (or columns) of the window: 1 / n is the product of both."""
    if CLIPPED:
        return 1.0 / (1.0 * counts(index, size, RADIUS))
    return 1.0 / (2 * RADIUS + 1) + 0.0 * index


# Prefix sums along a row start afresh in every tile, so that their error does not grow with the width. A tile is at
# least as wide as a window, so that a window lies in two tiles at most and three of them give its sum:
#
#     tile       |        A         |        B         |
#     window              [--------------]
#     columns            low      middle high             sum = B(high) - A(low) + A(middle)
#
# If it lies in one tile, middle comes before low and does not count; at the left border neither counts.


@triton.jit
def ends(column, width, RADIUS: tl.constexpr, COLUMNS: tl.constexpr):
    """high, low and middle of the windows around these columns, and whether low and middle count."""
    high, low = tl.minimum(column + RADIUS, width - 1), column - RADIUS - 1
    middle = high // COLUMNS * COLUMNS - 1
    return high, low, middle, low >= 0, (low >= 0) & (middle >= low)


@triton.jit
def difference(x, valid, places):
    """Sums over windows along a row of prefix sums; ``places`` are its ``ends``."""
    high, low, middle, has_low, has_middle = places
    value = tl.load(x + high, mask=valid, other=0.0) - tl.load(x + low, mask=valid & has_low, other=0.0)
    return value + tl.load(x + middle, mask=valid & has_middle, other=0.0)


def columns_of_tile(radius: int) -> int:
    """A lane each, or at least one window (see ``ends``)."""
    return max(LANES, triton.next_power_of_2(2 * radius + 1))


def reach(radius: int, height: int, width: int) -> int:
    """The radius, or one that covers the whole image already; a power of 2, that few sizes need their own kernels."""
    return min(radius, triton.next_power_of_2(max(height, width)))


def launch(columns: int, sums: int = 1) -> dict[str, int]:
    """How to launch a program with so many running sums over a tile: in one warp, or in as many as have registers."""
    warps = triton.next_power_of_2(max(1, columns * sums // (VALUES * LANES)))
    return LAUNCH | {"num_warps": min(warps, columns // LANES or 1, 32)}
