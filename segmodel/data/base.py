"""What every data set shares: samples, errors, and reading images, labels and lists of files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from segmodel.errors import DataError, limit, read_text

IGNORE = 255
MAX_CLASSES = 254  # 254 marks an invalid value in the tables below, 255 is the ignore value
_INVALID = 254
_ORIENTATION = 0x0112  # EXIF
_IMAGE_MODES = ("RGB", "L", "P", "1", "RGBA", "LA", "CMYK", "YCbCr")
_LABEL_MODES = ("P", "L", "1", "I;16", "I")
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF")  # not EPS: Pillow would start Ghostscript


def picture_endings() -> set[str]:
    """Endings, such as ".png", of the picture files that are read."""
    return {ending for ending, kind in Image.registered_extensions().items() if kind in _FORMATS}


def has_picture_name(file: Path, endings: Container[str]) -> bool:
    """Whether a file of a folder is one of its pictures, by its name; hidden files, such as macOS leaves, are not."""
    return not file.name.startswith(".") and file.suffix.lower() in endings


def pictures_below(folder: Path, endings: Container[str]) -> list[Path]:
    """Pictures of a folder and of all folders in it, sorted; not those of hidden ones, such as notebooks leave."""
    files = (file for file in folder.rglob("*") if has_picture_name(file, endings))
    return sorted(file for file in files if not any(part[0] == "." for part in file.relative_to(folder).parts))


def picture_pixels(image: Image.Image) -> np.ndarray:
    """The pixels (H, W, 3) uint8, RGB, of a PIL image.

    Raises:
        ValueError: more than 8 bits a channel: Pillow would cut them off at 255.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        raise ValueError(f"image: expected 8 bits a channel, got mode {image.mode}")
    return np.array(image.convert("RGB"))


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

    def problems(self) -> dict[int, str]:
        """What is wrong with samples that need not be read to see it: index -> one line."""
        return {}


@dataclass(frozen=True)
class Pair:
    """Where one sample lies; `where` is the line of the list that says so."""

    image: Path
    label: Path
    name: str
    where: str = ""


class FileData(SegmentationData):
    """Samples read from files; labels are validated on every read.

    pairs: the files, which lie in `root`. values: maps label values (0..255) to classes: (256,) uint8 with 254 where a
        value is not allowed.
    colours: None, or (K, 3) uint8: labels are then RGB or grey pictures, and row i stands for values[i].
    """

    def __init__(
        self,
        *,
        name: str,
        classes: Sequence[str],
        palette: np.ndarray,
        root: Path,
        pairs: Sequence[Pair],
        values: np.ndarray,
        colours: np.ndarray | None = None,
    ) -> None:
        self.name, self.classes, self.palette = name, tuple(classes), np.asarray(palette, np.uint8)
        self.root, self.pairs, self.values, self.colours = root, list(pairs), values, colours

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        pair = self.pairs[index]
        image, orientation = read_image(pair.image)
        label = self.read_label(pair.label)
        if label.shape != image.shape[:2]:
            hint = f" (EXIF orientation {orientation} of the image is not applied)" if orientation > 1 else ""
            raise DataError(
                f"{pair.label}: expected the size of its image {pair.image}, {image.shape[1]}x{image.shape[0]}, "
                f"got {label.shape[1]}x{label.shape[0]}{hint}"
            )
        return Sample(image, label, pair.name)

    def read_label(self, path: Path) -> np.ndarray:
        return read_label(path, values=self.values, colours=self.colours)

    def problems(self) -> dict[int, str]:
        where = [pair.where for pair in self.pairs]
        wrong = misplaced(self.root, [pair.image for pair in self.pairs])
        wrong = misplaced(self.root, [pair.label for pair in self.pairs]) | wrong
        return {index: f"{where[index]}: {wrong[index]}".removeprefix(": ") for index in sorted(wrong)}


class MixedData(SegmentationData):
    """Data sets of the same classes one after the other; a part that is named twice is seen twice as often."""

    def __init__(self, parts: Sequence[SegmentationData], *, name: str) -> None:
        first = parts[0]
        self.name, self.classes, self.palette, self.parts = name, first.classes, first.palette, tuple(parts)
        self.ends = np.cumsum([len(part) for part in parts])
        for part in parts[1:]:
            if part.classes != first.classes:
                raise DataError(f"data: expected the classes of {_classes(first)}, got those of {_classes(part)}")

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"index: expected 0..{len(self) - 1}, got {index}")
        part = int(np.searchsorted(self.ends, index, side="right"))
        return self.parts[part][index - int(self.ends[part]) + len(self.parts[part])]

    def problems(self) -> dict[int, str]:
        starts = [int(end) - len(part) for end, part in zip(self.ends, self.parts, strict=True)]
        found = {id(part): part.problems() for part in self.parts}
        pairs = zip(starts, self.parts, strict=True)
        return {start + index: line for start, part in pairs for index, line in found[id(part)].items()}


def _classes(data: SegmentationData) -> str:
    names = ", ".join(data.classes[:3])
    return f"{data.name} ({len(data.classes)}: {names}{', ...' if len(data.classes) > 3 else ''})"


def misplaced(root: Path, paths: Sequence[Path]) -> dict[int, str]:
    """Which of these files are missing, or lie outside the root once links are followed: index -> one line.

    The root itself may be a link; a link in it that leads out of it is an error unless SEGMODEL_FOLLOW_LINKS is 1, so
    that no list or archive from elsewhere decides which other files of a machine are read.
    """
    real_root, real_folders, wrong = root.resolve(), dict[Path, Path](), dict[int, str]()
    follow = limit("SEGMODEL_FOLLOW_LINKS")
    for index, path in enumerate(paths):
        if not os.path.isfile(path):  # unlike the path's own methods it never raises, whatever the name
            wrong[index] = f"no such file: {path}"
        elif not follow:
            if path.parent not in real_folders:
                real_folders[path.parent] = path.parent.resolve()
            real = path.resolve() if os.path.islink(path) else real_folders[path.parent]
            if not real.is_relative_to(real_root):
                wrong[index] = (
                    f"expected a path inside {root}, got a link out of it: {path} (SEGMODEL_FOLLOW_LINKS=1 allows that)"
                )
    return wrong


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
        raw, _ = _decoded(path, ("RGB", "L"), "labels as colours (an RGB or grey picture)")
        return _from_colours(path, raw if raw.ndim == 3 else np.repeat(raw[..., None], 3, 2), values, colours)
    raw, _ = _decoded(path, _LABEL_MODES, "labels as numbers (a palette or grey picture)")
    return class_values(path, raw, values)


def class_values(path: Path, raw: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Whole numbers (H, W) as uint8 classes by the table `values`; `path` is for the message if one has none."""
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
    """The pixels of a file (of an animation its first picture), converted to RGB or as they are, and its EXIF
    orientation."""
    most = limit("SEGMODEL_MAX_PIXELS")
    if most > (Image.MAX_IMAGE_PIXELS or most):  # Pillow's own limit yields to a higher one that the user asked for
        Image.MAX_IMAGE_PIXELS = most
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > most:
                size = f"{image.width}x{image.height}"
                raise ValueError(f"expected at most {most} pixels (SEGMODEL_MAX_PIXELS), got {size}")
            mode = image.mode if convert else _changed(image) or image.mode
            orientation = int(image.getexif().get(_ORIENTATION, 1))
            pixels = np.array(image.convert("RGB") if convert else image) if mode in modes else None
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except Exception as error:  # every decoder has its own exceptions; the user needs one line
        raise DataError(f"{path}: cannot be read as an image: {one_line(error)}") from error
    if pixels is None:
        raise DataError(f"{path}: expected {expected}, got mode {mode}")
    return pixels, orientation


def _changed(image: Image.Image) -> str:
    """What Pillow would change in a label picture's numbers; "" if it gives those that the file holds."""
    if image.format in ("JPEG", "MPO") or image.info.get("compression") in ("jpeg", "tiff_jpeg"):
        return f"{image.mode}, compressed with loss"
    tiles = getattr(image, "tile", None)
    if not tiles:
        return ""
    codec, arguments = tiles[0][0], tiles[0][3]
    raw = arguments if isinstance(arguments, str) else str(arguments[0])
    kind, _, change = raw.partition(";")  # such as L;4IR: of 4 bits, inverted, the bits of each byte in reverse
    if kind in ("1", "L") and "I" in change:
        return f"{image.mode}, white as 0"  # inverted
    if kind == "L" and change[:1] in ("2", "4"):
        return "L of 2 or 4 bits"  # stretched to 0..255
    if codec.startswith("ppm") and arguments[-1] not in (255, 65535):
        return f"{image.mode} up to {arguments[-1]}"  # stretched
    return ""


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
    classes, ignored = np.flatnonzero(values < _INVALID), np.flatnonzero(values == IGNORE)
    if len(ignored) > 2:
        return f"0..{max(classes[-1], ignored[-1])}"
    return f"{classes[0]}..{classes[-1]}" + "".join(f" and {value} (ignored)" for value in ignored)


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def split_options(kind: str, rest: str, known: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """PATH and the options of PATH,NAME,NAME=VALUE; `known`: "NAME" or "NAME=". A folder's name may hold a comma."""
    path, *parts = [rest] if os.path.isdir(rest) else rest.split(",")
    options: dict[str, str] = {}
    for part in parts:
        name, sign, value = part.partition("=")
        if name + sign not in known or bool(sign) != bool(value) or name in options:
            form = "".join(f"[,{option}{'PATH' * option.endswith('=')}]" for option in known)
            raise DataError(f"data: expected {kind}:PATH{form}, got '{kind}:{rest}'")
        options[name] = value
    return path, options


def existing_folder(path: str | Path, what: str) -> Path:
    folder = Path(path)
    if not os.path.isdir(folder):  # unlike the path's own methods these never raise, whatever the name
        raise DataError(
            f"{what}: expected a folder, got {folder}" + (" (a file)" if os.path.exists(folder) else " (missing)")
        )
    return folder


def read_lines(path: Path, *, fields: int, expected: str) -> list[tuple[str, list[str]]]:
    """The lines of a list file, split at blanks, each with the place that names it; empty lines are left out."""
    try:
        lines = read_text(path, most="SEGMODEL_MAX_LIST_BYTES", encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file (a list of {expected})") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {one_line(error)}") from error
    rows = [(f"{path}, line {number}", line.split()) for number, line in enumerate(lines, start=1) if line.strip()]
    wrong = [f"{where}: expected {expected}, got {' '.join(row)!r:.200}" for where, row in rows if len(row) != fields]
    if not rows:
        wrong = [f"{path}: expected at least one line ({expected}), got an empty list"]
    if wrong:
        raise DataError(*wrong)
    return rows


def inside(root: Path, entry: str, where: str) -> Path:
    """The path that an entry of a list names; entries may not leave the root (by links neither: see misplaced)."""
    parts = Path(entry).parts
    if Path(entry).is_absolute() or ".." in parts:
        raise DataError(f"{where}: expected a path inside {root}, got {entry!r:.200}")
    return root.joinpath(*parts)


def read_pairs(list_path: Path, root: Path) -> list[Pair]:
    """Pairs from a list of IMAGE LABEL lines.

    An absolute entry such as /SegNet/CamVid/train/a.png was written on another machine: its last two parts, folder
    and file, are taken below the root. A sample is named after its image's file; where two images of a list have one
    name, all have the path below the root, with the ending where that too is needed.
    """
    pairs = []
    for where, entries in read_lines(list_path, fields=2, expected="IMAGE LABEL"):
        relative = ["/".join(Path(e).parts[1:][-2:]) if Path(e).is_absolute() else e for e in entries]
        image, label = (inside(root, entry, where) for entry in relative)
        pairs.append(Pair(image, label, image.stem, where))
    names: tuple[Callable[[Path], str], ...] = (
        lambda image: image.stem,
        lambda image: image.relative_to(root).with_suffix("").as_posix(),
        lambda image: image.relative_to(root).as_posix(),
    )
    images = {pair.image for pair in pairs}
    name = next(name for name in names if len(set(map(name, images))) == len(images))
    return [replace(pair, name=name(pair.image)) for pair in pairs]
