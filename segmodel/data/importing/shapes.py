"""Draws the outlines that people click as label values. Pixel (column, row) covers the unit square from (x, y) on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

Points = Sequence[tuple[float, float]] | np.ndarray


def checked_points(points: Points, height: int, width: int, *, least: int) -> np.ndarray:
    """Corners (N, 2) float64, as x and y in pixels.

    Raises:
        ValueError: too few, one that lies further outside than the picture is large, or all of them outside.
    """
    corners = np.array(points, np.float64)
    if corners.ndim != 2 or corners.shape[1] != 2:
        raise ValueError(f"expected points [[x, y], ...], got {points!r:.60}")
    size = np.array((width, height))
    if len(corners) < least:
        raise ValueError(f"expected at least {least} points, got {len(corners)}")
    if not np.isfinite(corners).all() or (corners < -size).any() or (corners > 2 * size).any():
        wrong = next(tuple(c.tolist()) for c in corners if not ((c >= -size) & (c <= 2 * size)).all())
        raise ValueError(f"expected points in a picture of {width}x{height}, got {wrong}")
    if (corners.max(0) < 0).any() or (corners.min(0) > size).any():
        raise ValueError(f"lies outside its picture of {width}x{height}")
    return corners


def polygon(corners: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixels whose centres lie within a polygon, (height, width) bool; by the even-odd rule where it meets itself.

    corners: (N, 2), x and y. A polygon along the pixels' edges is exact: polygons that share an edge leave no gap and
    do not overlap.
    """
    low, high = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int)
    (left, top), (right, bottom) = np.clip(low, 0, (width, height)), np.clip(high, 0, (width, height))
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = _filled(corners - (left, top), bottom - top, right - left)
    return mask


def _filled(corners: np.ndarray, height: int, width: int) -> np.ndarray:
    (x0, y0), (x1, y1) = corners.T, np.roll(corners, -1, axis=0).T
    first = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), 0, height).astype(int)  # rows whose centres an edge crosses
    last = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), 0, height).astype(int)
    edge = np.repeat(np.arange(len(x0)), last - first)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(last - first) - last, last - first)
    x = x0[edge] + (row + 0.5 - y0[edge]) * (x1 - x0)[edge] / (y1 - y0)[edge]
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(int)
    crossings = np.zeros((height, width + 1), np.int32)
    np.add.at(crossings, (row, column), 1)
    return crossings.cumsum(1)[:, :width] % 2 == 1


def circle(centre: np.ndarray, edge: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixels whose centres lie within the circle about a point that runs through another."""
    y, x = np.ogrid[:height, :width]
    radius = np.square(edge - centre).sum()
    return np.square(x + 0.5 - centre[0]) + np.square(y + 0.5 - centre[1]) <= radius


def strokes(points: np.ndarray, height: int, width: int, *, thickness: int) -> np.ndarray:
    """A line through the points, or, of a single one, a disc, so thick in pixels."""
    canvas = Image.new("1", (width, height))
    pen = ImageDraw.Draw(canvas)
    if len(points) == 1:
        (x, y), radius = points[0].tolist(), thickness / 2
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
    else:
        pen.line([tuple(point) for point in points.tolist()], fill=1, width=thickness)
    return np.asarray(canvas)
