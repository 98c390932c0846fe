"""Refinement of pictures beyond memory: tile by tile, equal to the whole, in bounded memory.

A tile is refined with a halo as wide as a pixel of the result can reach (``Resolved.reach``), so that its inner part is
what refining the whole picture gives. Tiles start on whole blocks, and interpolated scores are those of the whole.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from segmodel.common.files import replacing
from segmodel.inference.refinement import refining_crf
from segmodel.inference.views import Crf
from segmodel.inference.windows import (
    BLOCK,
    GEO,
    ArrayResult,
    ArrayWindows,
    GeoResult,
    Result,
    Windows,
    mapped,
    picture_windows,
    release,
)
from segmodel.model.guidance_crf import GuidanceCRF
from segmodel.model.guided_filter import Ranges, check_range
from segmodel.model.untrained_crf import Refinement, Resolved
from segmodel.model.upsampling import area_average

MEMORY = 2**30
"""Bytes that the refinement takes by default, beyond what the process holds already."""
STRIP = 2**22
"""Elements of the scores at full size that are worked on at once within a tile."""


def bytes_of(text: str) -> int:
    """Bytes of a text such as 4GB, 1.5GiB, 800MB or 2000000000; K, M, G and T are powers of 1024.

    Raises:
        ValueError: another text.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", text.lower())
    if not found or not float(found[1]):
        raise ValueError(f"max_memory: expected a size such as 4GB or 800MB, got {text!r}")
    return int(float(found[1]) * 1024 ** " kmgt".index(found[2] or " "))


@dataclass(frozen=True)
class Plan:
    """How a picture is cut: size (H, W) of a tile and width of its halo in pixels, and bytes that a tile takes."""

    size: tuple[int, int]
    tile: tuple[int, int]
    halo: int
    stride: int
    memory: int

    def tiles(self) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of each tile."""
        (height, width), (down, across) = self.size, self.tile
        for top in range(0, height, down):
            for left in range(0, width, across):
                yield slice(top, min(top + down, height)), slice(left, min(left + across, width))

    def with_halo(self, part: slice, axis: int) -> slice:
        """The rows (0) or columns (1) that a tile's are computed from."""
        return slice(max(0, part.start - self.halo), min(self.size[axis], part.stop + self.halo))


def memory_of(pixels: int, *, classes: int, bands: int, stride: int) -> int:
    """Bytes at most that refining a window of so many pixels takes, as measured (tests hold it)."""
    planes = 3 * bands + bands * (bands - 1) // 2
    each = 4 * 9 * classes + (8 * 4 + 4) * planes
    return pixels // stride**2 * each + 4 * STRIP * 7 + 2**26


def plan(size: tuple[int, int], own: Resolved, *, classes: int, bands: int, max_memory: int) -> Plan:
    """The tiles of at most ``max_memory`` bytes with the least work.

    Raises:
        ValueError: not even a small tile with its halo fits.
    """
    unit = own.stride * (BLOCK // np.gcd(BLOCK, own.stride))
    halo = -(-own.reach // own.stride) * own.stride
    best: tuple[int, Plan] | None = None
    least = 0
    for across in range(1, -(-size[1] // unit) + 1):
        width = -(-size[1] // (unit * across)) * unit
        window = min(width + 2 * halo, size[1])

        def memory(height: int, window: int = window) -> int:
            pixels = min(height + 2 * halo, size[0]) * window
            return memory_of(pixels, classes=classes, bands=bands, stride=own.stride)

        least = min(least or memory(unit), memory(unit))
        rows = max((n for n in range(1, -(-size[0] // unit) + 1) if memory(n * unit) <= max_memory), default=0)
        if rows:
            height = rows * unit
            count = -(-size[0] // height) * -(-size[1] // width)
            work = count * min(height + 2 * halo, size[0]) * window
            if best is None or work < best[0]:
                best = work, Plan(size, (height, width), halo, own.stride, memory(height))
    if best is None:
        raise ValueError(f"max_memory: expected at least {-(-least // 2**20)} MiB for a halo of {halo} pixels "
                         f"(radius {own.radius} of {own.stride} pixels, {own.iterations} iterations), "
                         f"got {max_memory / 2**20:.0f} MiB; give more, or a smaller radius")  # fmt: skip
    return best[1]


def refine_tiles(
    scores: object,
    image: object,
    output: str | Path | None = None,
    *,
    own: Refinement | None = None,
    crf: GuidanceCRF | None = None,
    labels: bool = True,
    image_range: Ranges | None = None,
    max_memory: int = MEMORY,
    progress: bool = False,
) -> np.ndarray | Path:
    """What ``refine`` gives for one picture of any size, in memory that does not grow with it.

    Args:
        scores: logits ``(C, h, w)``: an array, also a memory-mapped one, or the path of an .npy file.
        image: ``(H, W, bands)`` or ``(H, W)``: an array, also a memory-mapped one, or the path of an .npy file or of a
            picture that rasterio opens (GeoTIFF).
        output: .npy, or .tif with the picture's georeference; written as the tiles come, and there when all are done.
            None: the result is an array in memory.
        own: the settings (default: from the scores). crf: a trained one instead.
        labels: the result is labels ``(H, W)``, uint8; else logits ``(C, H, W)`` of the scores' dtype.
        image_range: black and white of the image, or a pair for each band; None: 0..255 for uint8.
        max_memory: bytes for the refinement's arrays, beyond what the process holds already and the result in memory.
            Pages of mapped files are let go after each window.

    Returns the array, or the output's path.

    Raises:
        ValueError: inputs that do not fit, or too little memory for a tile with its halo.
        UserError: a file that cannot be read.
    """
    picture = picture_windows(image)
    logits = _score_windows(scores, picture)
    classes, size, bands = logits.shape[0], (picture.shape[0], picture.shape[1]), picture.shape[2]
    if image_range is None and picture.dtype != np.uint8:
        raise ValueError(f"image_range: expected black and white of an image of {picture.dtype}, got None")
    check_range(image_range or (0, 255), bands=bands)
    if labels and classes > 256:
        raise ValueError(f"labels: expected at most 256 classes for uint8, got {classes}")
    with warnings.catch_warnings(action="ignore"):  # the array of a mapped file is read only, which torch warns of
        whole = torch.from_numpy(logits.array)[None]
    resolved = (own or (Refinement() if crf is None else Refinement.paper())).resolved(whole, size)
    release(logits.array)
    if crf is not None:
        resolved = replace(resolved, radius=crf.radius, iterations=crf.iterations)
    cut = plan(size, resolved, classes=classes, bands=bands, max_memory=max_memory)
    shape, dtype = (size, np.dtype(np.uint8)) if labels else ((classes, *size), logits.dtype)
    work = Tiles(logits, picture, cut, refining_crf(resolved, crf, image_range or (0, 255)))
    with ExitStack() as stack:
        partial = stack.enter_context(replacing(Path(output))) if output is not None else None
        if partial is None:
            result: Result = ArrayWindows(np.empty(shape, dtype), axis=len(shape) - 2)
        else:
            geo = Path(output or "").suffix.lower() in GEO
            result = (GeoResult if geo else ArrayResult)(partial, shape, dtype, picture)
        for rows, columns in tqdm(list(cut.tiles()), desc="tiles", unit="tile", disable=None if progress else True):
            for part, values in work.refined(rows, columns):
                result.write(part, columns, values.argmax(0).astype(np.uint8) if labels else values.astype(dtype))
        result.close()
    return result.array if isinstance(result, ArrayWindows) and output is None else Path(output or "")


def _score_windows(scores: object, picture: Windows) -> ArrayWindows:
    """Checked: logits ``(C, h, w)``, finite, and no probabilities; read once, by strips."""
    array = mapped(scores) if isinstance(scores, str | Path) else np.asanyarray(scores)
    if array.ndim != 3 or array.dtype.kind != "f" or 0 in array.shape or len(array) < 2:
        raise ValueError(
            f"scores: expected floating point (C, h, w) of 2 classes or more, got {array.dtype} {array.shape}"
        )
    if array.shape[:2] == picture.shape[:2] != array.shape[1:]:
        raise ValueError(f"scores: expected (C, h, w), class first, got {array.shape}, which is class last")
    windows, probabilities = ArrayWindows(array, axis=1), True
    step = max(1, STRIP // (array.shape[0] * array.shape[2]))
    for top in range(0, array.shape[1], step):
        strip = windows.read(slice(top, top + step), slice(None))
        if not np.isfinite(strip).all():
            raise ValueError("scores: expected finite numbers, got NaN or infinities")
        total = strip.sum(0, dtype=np.float32) if probabilities else np.zeros(1)
        probabilities &= bool(strip.min() >= 0 and strip.max() <= 1 and np.abs(total - 1).max() < 1e-2)
    if probabilities:
        raise ValueError("scores: expected logits, got probabilities (0..1, they sum to 1); give their logarithm")
    return windows


@dataclass(frozen=True)
class Tiles:
    """Scores, picture, how they are cut, and the CRF that refines a window on blocks."""

    scores: Windows
    picture: Windows
    plan: Plan
    crf: Crf

    @property
    def blocks(self) -> tuple[int, ...]:
        """Blocks of the whole picture, down and across."""
        return tuple(-(-side // self.plan.stride) for side in self.plan.size)

    @property
    def on_blocks(self) -> bool:
        """Whether the scores have the blocks' resolution, as the paper's: they are only enlarged then."""
        return self.scores.shape[1:] == self.blocks

    def refined(self, rows: slice, columns: slice) -> Iterator[tuple[slice, np.ndarray]]:
        """Logits ``(C, n, width)`` of a tile, some rows of it after the other."""
        stride = self.plan.stride
        down, across = self.plan.with_halo(rows, 0), self.plan.with_halo(columns, 1)
        with torch.inference_mode():
            coarse, guide = self._window(down, across)
            after = self.crf(coarse[None], guide[None])[0]
            changed = after if self.on_blocks else after - coarse
            del coarse, guide, after

            def changed_cells(near_rows: slice, near_columns: slice) -> Tensor:
                top, left = down.start // stride, across.start // stride
                return changed[:, near_rows.start - top : near_rows.stop - top,
                               near_columns.start - left : near_columns.stop - left]  # fmt: skip

            enlarged = [side * stride for side in self.blocks]
            for part in _strips(rows, self._step(columns.stop - columns.start)):
                inner = _interpolated(changed_cells, self.blocks, enlarged, (part, columns), self.dtype)
                yield part, (inner if self.on_blocks else self._fine(part, columns) + inner).numpy()

    def _blocks(self, part: slice, of: slice) -> slice:
        """The blocks of rows or columns within a window; both begin on a block."""
        stride = self.plan.stride
        return slice((part.start - of.start) // stride, -(-(part.stop - of.start) // stride))

    def _step(self, width: int) -> int:
        """Rows of a strip: whole blocks."""
        stride = self.plan.stride
        return max(1, STRIP // ((self.scores.shape[0] + self.picture.shape[2]) * width * stride)) * stride

    def _window(self, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        """Scores ``(C, n, m)`` and guide ``(bands, n, m)`` on the blocks of a window."""
        stride = self.plan.stride
        blocks = [self._blocks(part, slice(0, 0)) for part in (rows, columns)]
        shape = [part.stop - part.start for part in blocks]
        coarse, guide = (torch.from_numpy(np.empty((side, *shape), self.dtype))
                         for side in (self.scores.shape[0], self.picture.shape[2]))  # fmt: skip
        for part in _strips(rows, self._step(columns.stop - columns.start)):
            at = self._blocks(part, rows)
            pixels = torch.from_numpy(self.picture.read(part, columns).astype(self.dtype)).permute(2, 0, 1)
            guide[:, at] = area_average(pixels[None], stride)[0]
            if not self.on_blocks:
                coarse[:, at] = area_average(self._fine(part, columns)[None], stride)[0]
        if self.on_blocks:
            coarse = self._cells(*blocks)
        return coarse, guide

    def _fine(self, rows: slice, columns: slice) -> Tensor:
        """Scores ``(C, n, m)`` of a window of pixels, interpolated as those of the whole picture are."""
        return _interpolated(self._cells, self.scores.shape[1:], self.plan.size, (rows, columns), self.dtype)

    def _cells(self, rows: slice, columns: slice) -> Tensor:
        return torch.from_numpy(self.scores.read(rows, columns).astype(self.dtype))

    @property
    def dtype(self) -> np.dtype:
        """What is computed in: float32, or float64 as the scores."""
        return np.promote_types(self.scores.dtype, np.float32)


def _strips(rows: slice, step: int) -> Iterator[slice]:
    for top in range(rows.start, rows.stop, step):
        yield slice(top, min(top + step, rows.stop))


def _interpolated(
    read: Callable[[slice, slice], Tensor],
    cells: Sequence[int],
    pixels: Sequence[int],
    window: tuple[slice, slice],
    dtype: np.dtype,
) -> Tensor:
    """A window ``(C, n, m)`` of a map that ``functional.interpolate`` would enlarge or reduce to ``pixels``.

    Args:
        read: the map's cells ``(C, ...)`` of some rows and columns.
    """
    antialias = any(one > other for one, other in zip(cells, pixels, strict=True))
    lines = [interpolation(*line, dtype, antialias=antialias) for line in zip(cells, pixels, window, strict=True)]
    near = [slice(int(index.min()), int(index.max()) + 1) for index, _ in lines]
    (top, down), (left, across) = (
        (torch.from_numpy((index - part.start).T.copy()), torch.from_numpy(weight.T.copy()))
        for (index, weight), part in zip(lines, near, strict=True)
    )
    source = read(*near)
    wide = source.new_zeros(*source.shape[:2], left.shape[1])
    for index, weight in zip(left, across, strict=True):
        wide.addcmul_(source[:, :, index], weight)
    fine = source.new_zeros(len(source), top.shape[1], left.shape[1])
    for index, weight in zip(top, down, strict=True):
        fine.addcmul_(wide[:, index], weight[:, None])
    return fine


def interpolation(
    cells: int, pixels: int, part: slice, dtype: np.dtype, *, antialias: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Which cells, and with which weights, a part of a line of pixels is interpolated from: ``(n, K)`` each.

    The weights of ``functional.interpolate``, bilinear or with antialiasing, rounded as it rounds them: in float32 its
    positions are half a thousandth off at 7,500 cells, which exact ones would show as differences from the whole.
    """
    half, scale, places = dtype.type(0.5), dtype.type(cells) / dtype.type(pixels), np.arange(part.start, part.stop)
    if not antialias:
        # one rounding, as by a fused multiply-add; numpy has none, but float64 holds the product of two float32
        position = (np.float64(scale) * (places + 0.5) - 0.5).astype(dtype).clip(min=0)
        index = position.astype(np.int64)
        share = position - index.astype(dtype)
        return np.stack([index, np.minimum(index + 1, cells - 1)], 1), np.stack([1 - share, share], 1)
    support = max(scale, dtype.type(1))
    centre = scale * (places.astype(dtype) + half)
    first = np.maximum((centre - support + half).astype(np.int64), 0)
    index = first[:, None] + np.arange(2 * int(np.ceil(support)))
    weight = np.maximum(1 - np.abs((index.astype(dtype) + half - centre[:, None]) / support), 0) * (index < cells)
    return index.clip(max=cells - 1), (weight / weight.sum(1, keepdims=True)).astype(dtype)
