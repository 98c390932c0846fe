"""Picture files whose pixels Pillow would make up or cut."""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segmodel.data import DataError
from segmodel.data.images import index_values, read_image, read_label

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def png(width: int, height: int, *, bits: int, kind: int, rows: int, value: int = 0, interlaced: int = 0) -> bytes:
    """A PNG file of this size that holds so many rows of equal bytes, whole as far as zlib and checksums go."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlaced)
    row = b"\0" + bytes([value]) * ((width * bits * CHANNELS[kind] + 7) // 8)
    palette = chunk(b"PLTE", bytes(range(6))) if kind == 3 else b""
    packed = zlib.compress(row * rows)
    parts = [chunk(b"IDAT", packed[:5]), chunk(b"IDAT", packed[5:])]
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + b"".join(parts) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("bits", "kind"), [(8, 0), (8, 2), (8, 3), (1, 0), (1, 3), (4, 3), (8, 4), (8, 6)])
@pytest.mark.parametrize("value", [0, 1])
def test_a_png_with_half_its_rows_is_refused(tmp_path, bits, kind, value):
    path = tmp_path / "x.png"
    for rows in (5, 6, 7):
        path.write_bytes(png(9, 6, bits=bits, kind=kind, rows=rows, value=value))
        if rows >= 6:
            assert read_image(path)[0].shape == (6, 9, 3)
            continue
        with pytest.raises(DataError, match="cannot be read as an image: expected 6 rows of pixels, got 5"):
            read_image(path)
        if kind in (0, 3):
            with pytest.raises(DataError, match=r"cannot be read as an image: expected 6 rows of pixels, got 5"):
                read_label(path, values=index_values(2))


def test_a_whole_png_that_ends_in_zeros_is_read(tmp_path):
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "black.png")
    assert not read_image(tmp_path / "black.png")[0].any()
    (tmp_path / "a.png").write_bytes(png(8, 8, bits=8, kind=0, rows=8 + 7, interlaced=1))
    assert not read_image(tmp_path / "a.png")[0].any()


def tiff(**options: object) -> bytes:
    file = BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "TIFF", **options)
    return file.getvalue()


def with_entry(content: bytes, tag: int, **changes: int) -> bytes:
    """A TIFF file with the type, count or value of one of its tags changed."""
    start = struct.unpack("<I", content[4:8])[0]
    for place in range(start + 2, start + 2 + 12 * struct.unpack("<H", content[start : start + 2])[0], 12):
        number, kind, count, value = struct.unpack("<HHII", content[place : place + 12])
        if number == tag:
            entry = {"kind": kind, "count": count, "value": value} | changes
            return content[:place] + struct.pack("<HHII", number, *entry.values()) + content[place + 12 :]
    raise AssertionError(tag)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "packbits"])
@pytest.mark.parametrize("tag", [256, 257, 258, 259, 262, 273, 277, 278, 279, 284])
def test_a_tiff_with_a_broken_tag_is_refused(tmp_path: Path, compression, tag):
    path = tmp_path / "x.tif"
    content = tiff(compression=compression)
    path.write_bytes(content)
    assert read_image(path)[0].shape == (5, 7, 3)
    changes: list[dict[str, int]] = [{"kind": 99}, {"count": 99999}]
    for change in [*changes, {"value": 0xFFFFFF}] if tag == 258 else changes:
        path.write_bytes(with_entry(content, tag, **change))
        with pytest.raises(DataError, match="cannot be read as an image"):
            read_image(path)


@pytest.mark.parametrize(("kind", "mode"), [(2, "RGB"), (4, "RGBA|LA"), (6, "RGBA")])
def test_colours_of_16_bits_are_refused(tmp_path, kind, mode):
    path = tmp_path / "x.png"
    path.write_bytes(png(2, 3, bits=16, kind=kind, rows=3))
    with pytest.raises(DataError, match=f"expected an image of 8 bits a channel, got mode ({mode}) of 16 bits"):
        read_image(path)
    with pytest.raises(DataError, match=r"expected labels as colours .* got mode"):
        read_label(path, values=np.zeros(1, np.uint8), colours=np.zeros((1, 3), np.uint8))


def test_ppm_of_16_bits_is_refused(tmp_path):
    path = tmp_path / "x.ppm"
    path.write_bytes(b"P6 2 1 65535\n" + bytes(12))
    with pytest.raises(DataError, match="got mode RGB of 16 bits"):
        read_image(path)
    path.write_bytes(b"P6 2 1 255\n" + bytes(6))
    assert read_image(path)[0].shape == (1, 2, 3)
