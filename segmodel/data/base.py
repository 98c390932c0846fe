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
_ORIENTATION = 0x0112  # EXIF
_IMAGE_MODES = ("RGB", "L", "P", "1", "RGBA", "LA", "CMYK", "YCbCr")
_LABEL_MODES = ("P", "L", "1", "I;16", "I")
_BROKEN_FILE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


class DataError(ValueError):
    """One line that names what is wrong: the thing, its file, what was expected and what was found."""


@dataclass(frozen=True)
class Sample:
    """One image with its labels.

    image: (H, W, 3) uint8, RGB. label: (H, W) uint8, 0..C-1, or 255 where it is ignored. name: of the file or scene.
    """

    image: np.ndarray
    label: np.ndarray
    name: str


class SegmentationData:
    """A map-style data set of `Sample`; plain attributes only, so that loader workers can pickle it.

    name: for reports. classes: C names. palette: (C, 3) uint8, RGB. ignore_value: always 255; other values that a
    data set ignores are mapped to it when a label is read.
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
    return _decoded(path, _IMAGE_MODES, "an image of 8 bits a channel", convert=True)


def read_label(path: Path, *, values: np.ndarray, colours: np.ndarray | None = None) -> np.ndarray:
    """Labels as (H, W) uint8 classes; palette and grey pictures hold numbers, RGB ones (with `colours`) colours."""
    if colours is not None:
        return _from_colours(path, _decoded(path, ("RGB",), "labels as RGB colours")[0], values, colours)
    raw, _ = _decoded(path, _LABEL_MODES, "labels as numbers (a palette or grey picture)")
    clipped = np.clip(raw, 0, 255).astype(np.uint8, copy=False)
    label = values[clipped]
    wrong = (label == _INVALID) | (clipped != raw)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise DataError(
            f"{path}: label value {int(raw[row, column])} at row {row}, column {column}; allowed: {_allowed(values)}"
        )
    return label


def _decoded(path: Path, modes: tuple[str, ...], expected: str, convert: bool = False) -> tuple[np.ndarray, int]:
    """The pixels of a file, converted to RGB or as they are, and its EXIF orientation."""
    try:
        with Image.open(path) as image:
            # Pillow would stretch grey values of 2 and 4 bits to 0..255: not the numbers that the file holds.
            narrow = image.format == "PNG" and bool(image.tile) and image.tile[0][3] in ("L;2", "L;4")
            mode = "L of 2 or 4 bits" if narrow else image.mode
            orientation = int(image.getexif().get(_ORIENTATION, 1))
            pixels = np.array(image.convert("RGB") if convert else image) if mode in modes else None
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except _BROKEN_FILE as error:
        raise DataError(f"{path}: cannot be read as an image: {one_line(error)}") from error
    if pixels is None:
        raise DataError(f"{path}: expected {expected}, got mode {mode}")
    return pixels, orientation


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


def one_line(error: BaseException) -> str:
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
        raise DataError(f"{path}: cannot be read: {one_line(error)}") from error
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
