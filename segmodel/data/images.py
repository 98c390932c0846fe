"""Reads pictures and label maps from files."""

from __future__ import annotations

import warnings
from collections.abc import Container, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from segmodel.common.errors import DataError, UserError, one_line
from segmodel.common.labels import IGNORE
from segmodel.common.reading import limit, open_file
from segmodel.data.intact import check_intact, has_16_bits

INVALID = 254  # marks label values that are not allowed
_ORIENTATION = 0x0112  # EXIF
_TURNS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
          5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
          8: Image.Transpose.ROTATE_90}  # fmt: skip
_IMAGE_MODES = ("RGB", "L", "P", "1", "RGBA", "LA", "CMYK", "YCbCr")
_LABEL_MODES = ("P", "L", "1", "I;16", "I")
LABEL_MODES = (*_LABEL_MODES, "RGB")
"""Modes of PIL images whose pixels can be class numbers, or one colour a class."""
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF")  # not EPS: Pillow would start Ghostscript


@contextmanager
def open_picture(source: Path | BytesIO, *, formats: tuple[str, ...] = _FORMATS) -> Iterator[Image.Image]:
    """A picture's file, or its bytes, opened and not yet decoded: every picture from outside comes through here.

    Raises:
        OSError, ValueError: no regular file, none of these formats, or more bytes or pixels than `common.reading` says.
    """
    most = limit("SEGMODEL_MAX_PIXELS")
    if most > (Image.MAX_IMAGE_PIXELS or most):  # Pillow's own limit yields to a higher one that the user asked for
        Image.MAX_IMAGE_PIXELS = most
    opened: AbstractContextManager[Any] = (
        nullcontext(source) if isinstance(source, BytesIO) else open_file(source, most="SEGMODEL_MAX_PICTURE_BYTES")
    )
    with opened as file:
        try:
            image = Image.open(file, formats=formats)
        except UnidentifiedImageError as error:
            raise ValueError(f"cannot identify image file, expected one of {', '.join(formats)}") from error
        with image:
            if image.width * image.height > most:
                size = f"{image.width}x{image.height}"
                raise ValueError(f"expected at most {most} pixels (SEGMODEL_MAX_PIXELS), got {size}")
            yield image


def picture_endings() -> set[str]:
    """Endings, such as ".png", of the picture files that can be read."""
    return {ending for ending, kind in Image.registered_extensions().items() if kind in _FORMATS}


def has_picture_name(file: Path, endings: Container[str]) -> bool:
    """Whether a file is a picture, by its name; hidden files, such as macOS makes, are not."""
    return not file.name.startswith(".") and file.suffix.lower() in endings


def pictures_below(folder: Path, endings: Container[str]) -> list[Path]:
    """The pictures at any depth below a folder, sorted; without those in hidden folders, such as notebooks make."""
    files = (file for file in folder.rglob("*") if has_picture_name(file, endings))
    return sorted(file for file in files if not any(part[0] == "." for part in file.relative_to(folder).parts))


def picture_pixels(image: Image.Image) -> np.ndarray:
    """The pixels (H, W, 3) uint8, RGB, of a PIL image.

    Raises:
        ValueError: more than 8 bits a channel, which Pillow would cut off at 255.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        raise ValueError(f"image: expected 8 bits a channel, got mode {image.mode}")
    return np.array(image.convert("RGB"))


def index_values(count: int, *, ignore: int | None = IGNORE) -> np.ndarray:
    """Label value -> class, (256,) uint8: 0..count-1 are classes, `ignore` becomes 255, 254 marks all other values."""
    values = np.full(256, INVALID, np.uint8)
    values[:count] = np.arange(count)
    if ignore is not None:
        values[ignore] = IGNORE
    return values


def read_image(path: Path) -> tuple[np.ndarray, int]:
    """The pixels of an image, (H, W, 3) uint8 RGB, upright, and the EXIF orientation that was applied for that.

    Every picture file is read so: as viewers and annotation tools show it. 1: it was stored upright, 2..8: it was
    turned or mirrored.
    """
    return _decoded(path, _IMAGE_MODES, "an image of 8 bits a channel", convert=True)


def label_of(image: np.ndarray, orientation: int, label: np.ndarray) -> tuple[np.ndarray, str]:
    """The label map of an image that `read_image` has turned by this orientation, and what is turned (`Sample`).

    Labels are drawn on the upright picture, as annotation tools show it. A label map of the size that the file has as
    stored was made by a tool that ignores the orientation: it is turned, too.
    """
    if orientation > 4 and label.shape != image.shape[:2] and label.shape == image.shape[1::-1]:
        return turned(label, orientation), "both"
    return label, "image" if orientation > 1 else ""


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels or labels (H, W, ...) as stored, upright by their EXIF orientation."""
    return np.array(Image.fromarray(pixels).transpose(_TURNS[orientation])) if orientation > 1 else pixels


def read_label(path: Path, *, values: np.ndarray, colours: np.ndarray | None = None, hint: str = "") -> np.ndarray:
    """The classes (H, W) uint8 of a label file that holds numbers or, with `colours`, colours; see `FileData`."""
    if colours is not None:
        raw, _ = _decoded(path, ("RGB", "L"), "labels as colours (an RGB or grey picture)")
        return _from_colours(path, raw if raw.ndim == 3 else np.repeat(raw[..., None], 3, 2), values, colours)
    raw, _ = _decoded(path, _LABEL_MODES, "labels as numbers (a palette or grey picture)")
    return class_values(path, raw, values, hint=hint)


def read_label_pixels(path: Path) -> np.ndarray:
    """The numbers (H, W) or the colours (H, W, 3) uint8 of a label file, as they stand in it; transparent is black."""
    modes = (*_LABEL_MODES, "RGB", "RGBA", "LA")
    raw, _ = _decoded(path, modes, "labels as numbers or colours, saved without loss (import --nearest takes any)")
    if raw.ndim < 3 or raw.shape[2] == 3:
        return raw
    opaque = np.where(raw[..., -1:] > 0, raw[..., :-1], 0)
    return opaque if opaque.shape[2] == 3 else opaque[..., 0]


def label_palette(path: Path) -> dict[int, tuple[int, int, int]]:
    """The palette of a label file that `read_label_pixels` has read, number -> colour; empty if it is of greys."""
    with open_picture(path) as image:
        colours = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    if (colours == colours[:, :1]).all():
        return {}
    return {number: (red, green, blue) for number, (red, green, blue) in enumerate(colours.tolist())}


def read_numbers(path: Path) -> tuple[np.ndarray, str, list[int] | None]:
    """The pixels (H, W) or, of colours, (H, W, 3) of a label picture as stored, its mode, and its palette if any."""
    pixels, _ = _decoded(path, LABEL_MODES, "labels as numbers or colours (a palette, grey or RGB picture)")
    with open_picture(path) as image:
        return pixels, image.mode, image.getpalette()


def class_values(path: Path, raw: np.ndarray, values: np.ndarray, *, hint: str = "") -> np.ndarray:
    """The classes (H, W) uint8 of label values (H, W), by the table `values`; `path` is for messages."""
    clipped = np.clip(raw, 0, 255).astype(np.uint8, copy=False)
    label = values[clipped]
    wrong = (label == INVALID) | (clipped != raw)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        found = f"label value {int(raw[row, column])} at row {row}, column {column}"
        raise DataError(f"{path}: {found}; allowed: {_allowed(values)}{hint}")
    return label


def _decoded(path: Path, modes: tuple[str, ...], expected: str, convert: bool = False) -> tuple[np.ndarray, int]:
    """The pixels of a file (the first picture of an animation) and its EXIF orientation.

    convert: as RGB, upright; else as stored.
    """
    try:
        caught = warnings.catch_warnings(action="always", record=True)
        with caught as warned, open_picture(path) as image:
            mode = f"{image.mode} of 16 bits" if has_16_bits(image) else image.mode
            mode = mode if convert else _changed(image) or mode
            orientation = int(image.getexif().get(_ORIENTATION, 1))
            pixels = None
            if mode in modes:
                pixels = _array(image, orientation, convert)
                check_intact(path, image, [str(warning.message) for warning in warned])
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except UserError:  # a limit that is none
        raise
    except Exception as error:  # every decoder has its own exceptions; the user needs one line
        raise DataError(f"{path}: cannot be read as an image: {one_line(error)}") from error
    if pixels is None:
        raise DataError(f"{path}: expected {expected}, got mode {mode}")
    return pixels, orientation if orientation in _TURNS else 1


def _array(image: Image.Image, orientation: int, convert: bool) -> np.ndarray:
    image.load()
    if not convert:
        return np.array(image)
    if orientation in _TURNS and image.format != "TIFF":  # which Pillow itself has turned
        image = image.transpose(_TURNS[orientation])
    return np.array(image.convert("RGB"))


def _changed(image: Image.Image) -> str:
    """How Pillow changes the numbers of this label picture; "" if it gives those in the file."""
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
    """The classes of an RGB label picture, whose colours are looked up as 24-bit numbers."""
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
    classes, ignored = np.flatnonzero(values < INVALID), np.flatnonzero(values == IGNORE)
    if len(ignored) > 2:
        return _ranges(np.flatnonzero(values != INVALID))
    return _ranges(classes) + "".join(f" and {value} (ignored)" for value in ignored)


def _ranges(numbers: np.ndarray) -> str:
    parts = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return ", ".join(f"{part[0]}..{part[-1]}" if len(part) > 1 else f"{part[0]}" for part in parts)
