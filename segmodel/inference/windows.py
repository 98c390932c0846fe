"""Pictures, scores and results of any size by windows: arrays, memory-mapped .npy files, and GeoTIFFs."""

import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from segmodel.common.environment import peer
from segmodel.common.errors import UserError
from segmodel.common.reading import open_file
from segmodel.data.images import read_image

DRIVERS = {".tif": "GTiff", ".tiff": "GTiff", ".vrt": "VRT", ".jp2": "JP2OpenJPEG", ".img": "HFA"}
"""GDAL's, by ending: whatever a file holds, no driver that asks a server or a data base gets to see it."""
GEO = tuple(DRIVERS)
"""Endings of the files that are read by rasterio; an output of such a name is a GeoTIFF."""
CACHE_MIB = 64
"""Of GDAL, instead of its twentieth of the machine's memory."""
BLOCK = 512
"""Side of the blocks in a GeoTIFF that is written; windows that end on their edges write each block once."""


class Windows(Protocol):
    """Something of ``shape`` that is read by windows of its rows and columns, as a copy."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def read(self, rows: slice, columns: slice) -> np.ndarray: ...


class Result(Protocol):
    """Something that is written by windows and closed."""

    def write(self, rows: slice, columns: slice, values: np.ndarray) -> None: ...

    def close(self) -> None: ...


class ArrayWindows:
    """Windows of an array, whose rows and columns are the axes from ``axis`` on; pages of a mapped file are let go."""

    def __init__(self, array: np.ndarray, *, axis: int) -> None:
        self.array, self.shape, self.dtype, self.axis = array, array.shape, array.dtype, axis

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        window = np.array(self.array[(*[slice(None)] * self.axis, rows, columns)], order="C")
        release(self.array)
        return window

    def write(self, rows: slice, columns: slice, values: np.ndarray) -> None:
        self.array[(*[slice(None)] * self.axis, rows, columns)] = values
        release(self.array)

    def close(self) -> None:
        if isinstance(self.array, np.memmap):
            self.array.flush()


class ArrayResult(ArrayWindows):
    """A new .npy file of labels ``(H, W)`` or logits ``(C, H, W)`` that is written by windows."""

    def __init__(self, path: Path, shape: Sequence[int], dtype: np.dtype, picture: Windows) -> None:
        array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=tuple(shape))
        if hasattr(os, "posix_fallocate"):  # an error now; later a full disk would kill the process
            with path.open("rb+") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        super().__init__(array, axis=len(shape) - 2)


def release(array: np.ndarray) -> None:
    """Takes the pages of a mapped file out of this process's memory; what was written stays in the file."""
    base: Any = array
    while isinstance(base, np.ndarray) and not isinstance(base.base, mmap.mmap):
        base = base.base
    if isinstance(base, np.memmap) and base.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
        base.base.madvise(mmap.MADV_DONTNEED)  # type: ignore[union-attr]


class GeoWindows:
    """Windows ``(rows, columns, bands)`` of a picture that rasterio opens."""

    def __init__(self, path: Path) -> None:
        rasterio = _rasterio(path)
        self.environment = rasterio.Env(GDAL_CACHEMAX=CACHE_MIB)
        with self.environment:
            try:
                open_file(path, most=None).close()  # a pipe is refused
                self.file = rasterio.open(path, driver=DRIVERS[path.suffix.lower()])
            except (OSError, ValueError, rasterio.errors.RasterioIOError) as error:
                raise UserError(f"{path}: cannot be read as a picture ({error})") from error
        kinds = set(self.file.dtypes)
        if len(kinds) > 1:
            raise UserError(f"{path}: expected bands of one type, got {', '.join(sorted(kinds))}")
        self.shape = (self.file.height, self.file.width, self.file.count)
        self.dtype = np.dtype(self.file.dtypes[0])

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        with self.environment:
            bands = self.file.read(window=((rows.start, rows.stop), (columns.start, columns.stop)))
        return np.ascontiguousarray(np.moveaxis(bands, 0, 2))


class GeoResult:
    """A GeoTIFF of labels ``(H, W)`` or logits ``(C, H, W)`` that is written by windows, where its picture lies."""

    def __init__(self, path: Path, shape: Sequence[int], dtype: np.dtype, picture: Windows) -> None:
        rasterio = _rasterio(path)
        place = picture.file if isinstance(picture, GeoWindows) else None
        georeference: dict[str, Any] = {"crs": place.crs, "transform": place.transform} if place else {}
        self.environment = rasterio.Env(GDAL_CACHEMAX=CACHE_MIB)
        with self.environment:
            self.file = rasterio.open(
                path, "w", driver="GTiff", height=shape[-2], width=shape[-1], count=1 if len(shape) == 2 else shape[0],
                dtype=dtype, tiled=True, blockxsize=BLOCK, blockysize=BLOCK, compress="deflate", BIGTIFF="IF_SAFER",
                interleave="band", **georeference)  # fmt: skip

    def write(self, rows: slice, columns: slice, values: np.ndarray) -> None:
        bands = values if values.ndim == 3 else values[None]
        with self.environment:
            self.file.write(bands, window=((rows.start, rows.stop), (columns.start, columns.stop)))

    def close(self) -> None:
        with self.environment:
            self.file.close()


def _rasterio(path: Path) -> Any:
    rasterio = peer("rasterio")
    if rasterio is None:
        raise UserError(f"{path}: GeoTIFFs need rasterio: pip install 'segmodel[geo]'")
    return rasterio


def picture_windows(image: object) -> Windows:
    """Windows of a picture ``(H, W, bands)`` or ``(H, W)``: an array, or the path of an .npy file or of a GeoTIFF.

    Any other picture's file is read into memory.

    Raises:
        UserError: a file that cannot be read. ValueError: an array of another shape.
    """
    if isinstance(image, str | Path) and Path(image).suffix.lower() in GEO:
        return GeoWindows(Path(image))
    if isinstance(image, str | Path):
        path = Path(image)
        array = mapped(path) if path.suffix.lower() == ".npy" else read_image(path)[0]
    else:
        array = np.asanyarray(image)
    if array.ndim not in (2, 3) or array.dtype.kind not in "uif":
        raise ValueError(f"image: expected (H, W) or (H, W, bands), got {array.dtype} {array.shape}")
    return ArrayWindows(array if array.ndim == 3 else array[..., None], axis=0)


def mapped(path: str | Path) -> np.ndarray:
    """The array of an .npy file, mapped and not read; UserError if it cannot be."""
    try:
        open_file(path, most=None).close()  # a pipe is refused
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy's reader raises whatever a broken header leads it to
        raise UserError(f"{path}: cannot be mapped as an .npy file of numbers ({error})") from error
