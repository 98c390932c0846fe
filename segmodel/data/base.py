"""What every data set shares: samples, errors, and reading images, labels and lists of files."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

IGNORE = 255
MAX_CLASSES = 254  # 254 marks an invalid value in the tables below, 255 is the ignore value
_INVALID = 254
_BROKEN_FILE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


class DataError(ValueError):
    """One line that names what is wrong: the thing, its file, what was expected and what was found."""


@dataclass(frozen=True)
class Sample:
    """One image with its labels.

    image: (H, W, 3) uint8, RGB, 0..255. label: (H, W) uint8, 0..C-1, or 255 where it is ignored. name: unique in its split.
    """

    image: np.ndarray
    label: np.ndarray
    name: str


class SegmentationData:
    """A map-style data set of `Sample`; plain attributes only, so that loader workers can pickle it.

    name: for reports. classes: C names. palette: (C, 3) uint8, RGB. ignore_value: always 255; files with another
    ignore value are mapped to it when they are read.
    """

    name: str
    classes: tuple[str, ...]
    palette: np.ndarray
    ignore_value: int = IGNORE

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Sample:
        raise NotImplementedError


@dataclass(frozen=True)
class Pair:
    """Where one sample lies."""

    image: Path
    label: Path
    name: str


class FileData(SegmentationData):
    """Samples read from files; labels are validated on every read.

    pairs: the files. values: maps label values (0..255) to classes: (256,) uint8 with 254 where a value is not allowed.
    colours: None, or (K, 3) uint8: labels are then RGB pictures, and row i stands for values[i].
    """

    def __init__(
        self,
        *,
        name: str,
        classes: Sequence[str],
        palette: np.ndarray,
        pairs: Sequence[Pair],
        values: np.ndarray,
        colours: np.ndarray | None = None,
    ) -> None:
        if not pairs:
            raise DataError(f"{name}: expected at least one pair of image and label, got none")
        self.name, self.classes, self.palette = name, tuple(classes), np.asarray(palette, np.uint8)
        self.pairs, self.values, self.colours = list(pairs), values, colours

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        pair = self.pairs[index]
        image, orientation = read_image(pair.image)
        label = read_label(pair.label, values=self.values, colours=self.colours)
        if label.shape != image.shape[:2]:
            hint = f" (EXIF orientation {orientation} of the image is not applied)" if orientation > 1 else ""
            raise DataError(
                f"{pair.label}: expected the size of its image {pair.image}, {image.shape[1]}x{image.shape[0]}, "
                f"got {label.shape[1]}x{label.shape[0]}{hint}"
            )
        return Sample(image, label, pair.name)


def index_values(count: int, *, ignore: int | None = IGNORE) -> np.ndarray:
    """The table for labels that are class numbers 0..count-1 plus one ignore value (None: none)."""
    values = np.full(256, _INVALID, np.uint8)
    values[:count] = np.arange(count)
    if ignore is not None:
        values[ignore] = IGNORE
    return values


def read_image(path: Path) -> tuple[np.ndarray, int]:
    """The pixels of an image as stored, (H, W, 3) uint8 RGB, and its EXIF orientation (1: upright).

    The orientation is not applied: the labels of the published data sets are drawn on the stored pixels.
    """
    with _opened(path) as image:
        if image.mode not in ("RGB", "L", "P", "1", "RGBA", "LA", "CMYK", "YCbCr"):
            raise DataError(f"{path}: expected an image of 8 bits a channel, got mode {image.mode}")
        try:
            pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))  # a copy: writable
            return pixels, int(image.getexif().get(0x0112, 1))
        except _BROKEN_FILE as error:
            raise DataError(f"{path}: cannot be decoded: {_one_line(error)}") from error


def read_label(path: Path, *, values: np.ndarray, colours: np.ndarray | None = None) -> np.ndarray:
    """Labels as (H, W) uint8 classes; palette and grey pictures hold numbers, RGB ones (with `colours`) colours."""
    modes = ("P", "L", "1", "I;16", "I") if colours is None else ("RGB",)
    with _opened(path) as image:
        if image.mode not in modes:
            kind = "numbers (palette or grey)" if colours is None else "RGB colours"
            raise DataError(f"{path}: expected labels as {kind}, got an image of mode {image.mode}")
        try:
            raw = np.asarray(image)
        except _BROKEN_FILE as error:
            raise DataError(f"{path}: cannot be decoded: {_one_line(error)}") from error
    if colours is not None:
        return _from_colours(path, raw, values, colours)
    wide = raw.dtype.itemsize > 1
    label = values[np.clip(raw, 0, 255) if wide else raw.view(np.uint8)]
    wrong = (label == _INVALID) | ((raw < 0) | (raw > 255) if wide else False)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise DataError(
            f"{path}: label value {int(raw[row, column])} at row {row}, column {column}; allowed: {_allowed(values)}"
        )
    return label


def _from_colours(path: Path, raw: np.ndarray, values: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Classes of an RGB label picture: the colours are searched as 24-bit numbers."""
    keys = _packed(colours)
    order = np.argsort(keys)
    codes = _packed(raw)
    place = np.minimum(np.searchsorted(keys[order], codes), len(keys) - 1)
    wrong = keys[order][place] != codes
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        colour = tuple(int(v) for v in raw[row, column])
        raise DataError(f"{path}: label colour {colour} at row {row}, column {column} is none of the {len(keys)} known")
    return values[order[place]]


def _packed(colours: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(colours.astype(np.int32), -1, 0)
    return (red << 16) | (green << 8) | blue


def _allowed(values: np.ndarray) -> str:
    ignored = np.flatnonzero(values == IGNORE)
    last = np.flatnonzero(values < _INVALID)[-1]
    return f"0..{last}" + "".join(f" and {value} (ignored)" for value in ignored)


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except _BROKEN_FILE as error:
        raise DataError(f"{path}: cannot be opened as an image: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def existing_folder(path: str | Path, what: str) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"{what}: expected a folder, got {folder}" + (" (a file)" if folder.exists() else " (missing)"))
    return folder


def read_lines(path: Path, *, fields: int, expected: str) -> list[tuple[int, list[str]]]:
    """The lines of a list file, split at blanks, with their numbers; empty lines are left out."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file (a list of {expected})") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {_one_line(error)}") from error
    rows = [(number, line.split()) for number, line in enumerate(lines, start=1) if line.strip()]
    for number, row in rows:
        if len(row) != fields:
            raise DataError(f"{path}, line {number}: expected {expected}, got {' '.join(row)!r}")
    if not rows:
        raise DataError(f"{path}: expected at least one line ({expected}), got an empty list")
    return rows


def inside(root: Path, entry: str, where: str) -> Path:
    """The existing file that a list entry names; entries may not leave the root."""
    parts = Path(entry).parts
    if Path(entry).is_absolute() or ".." in parts:
        raise DataError(f"{where}: expected a path inside {root}, got {entry!r}")
    path = root.joinpath(*parts)
    if not path.is_file():
        raise DataError(f"{where}: no such file: {path}")
    return path


def read_pairs(list_path: Path, root: Path) -> list[Pair]:
    """Pairs from a list of IMAGE LABEL lines.

    An absolute entry such as /SegNet/CamVid/train/a.png was written on another machine: its last two parts, folder
    and file, are taken below the root.
    """
    pairs = []
    for number, entries in read_lines(list_path, fields=2, expected="IMAGE LABEL"):
        relative = ["/".join(Path(e).parts[1:][-2:]) if Path(e).is_absolute() else e for e in entries]
        image, label = (inside(root, entry, f"{list_path}, line {number}") for entry in relative)
        pairs.append(Pair(image, label, image.stem))
    return pairs
