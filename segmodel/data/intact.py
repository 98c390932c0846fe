"""Picture files that Pillow reads without complaint though pixels are missing, cut to 8 bits, or read as what they are
not."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from segmodel.common.reading import open_file, read_bytes

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of PNG's kinds of colour
_TIFF_TYPES = {*range(1, 14), 16, 17, 18}
_BROKEN_TAG = re.compile(r"Truncated File Read|Skipping tag|[Cc]orrupt EXIF")


def has_16_bits(image: Image.Image) -> bool:
    """Whether Pillow, of a file that it has not read yet, would keep 8 of the 16 bits of each colour."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return False
    codec, arguments = tiles[0][0], tiles[0][3]
    raw = arguments if isinstance(arguments, str) else str(arguments[0])
    kind, _, change = raw.partition(";")
    wide = change.startswith("16") and kind not in ("I", "F", "BGR")  # BGR;16: of 5, 6 and 5 bits
    return wide or (codec.startswith("ppm") and kind == "RGB" and arguments[-1] > 255)


def check_intact(path: Path, image: Image.Image, warned: Sequence[str]) -> None:
    """What Pillow has read of the file is what the file says.

    warned: the texts of Pillow's warnings.

    Raises:
        ValueError: a PNG file with fewer rows than its header says, or a TIFF file with a tag that cannot be read.
    """
    if image.format == "PNG":
        last = image.crop((0, image.height - 1, image.width, image.height))
        if not np.asarray(last).any():  # missing rows are zeros; only then is it worth to count them
            _count_rows(path)
    elif image.format == "TIFF":
        if broken := [text for text in warned if _BROKEN_TAG.search(text)]:
            raise ValueError(f"a broken tag: {broken[0]}")
        for tag, kind in _tiff_tags(path):
            if tag < 339 and kind not in _TIFF_TYPES:  # tags that say how pixels are stored
                raise ValueError(f"a broken tag: {tag} has the unknown type {kind}")


def _count_rows(path: Path) -> None:
    content = read_bytes(path, most="SEGMODEL_MAX_PICTURE_BYTES")
    width, height, bits, colours, _, _, interlaced = struct.unpack(">IIBBBBB", content[16:29])
    if interlaced:  # Pillow says so itself
        return
    place, packed = 8, []
    while place + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[place : place + 8])
        if kind == b"IDAT":
            packed.append(content[place + 8 : place + 8 + length])
        place += 12 + length
    row = 1 + (width * bits * _CHANNELS[colours] + 7) // 8
    found = len(zlib.decompressobj().decompress(b"".join(packed), height * row)) // row
    if found < height:
        raise ValueError(f"expected {height} rows of pixels, got {found}")


def _tiff_tags(path: Path) -> list[tuple[int, int]]:
    """Number and type of each tag of a TIFF file's first picture."""
    with open_file(path, most="SEGMODEL_MAX_PICTURE_BYTES") as file:
        head = file.read(16)
        order, big = ("<" if head[:2] == b"II" else ">"), 43 in head[2:4]
        (start,) = struct.unpack(f"{order}Q" if big else f"{order}I", head[8:16] if big else head[4:8])
        file.seek(start)
        (count,) = struct.unpack(f"{order}Q" if big else f"{order}H", file.read(8 if big else 2))
        size = 20 if big else 12
        entries = file.read(size * min(count, 1 << 16))
    return [struct.unpack(f"{order}HH", entries[place : place + 4]) for place in range(0, len(entries), size)]
