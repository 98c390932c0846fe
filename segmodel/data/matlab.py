"""Reads the part of MATLAB's file format, version 5, that SBD uses: a matrix of integers in a field of a struct.

scipy reads the whole format, but crashes on some broken files (one in some thousands that the fuzzer makes), and data
files may come from anywhere. Here every length is checked before it is used.
"""

import math
import struct
import zlib
from collections.abc import Iterator

import numpy as np

MATRIX, PACKED = 14, 15  # kinds of elements
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 12: "i8", 13: "u8"}  # kinds of integers
STRUCT, WHOLE = 2, {8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}  # classes of arrays


def read_field(content: bytes, variable: str, field: str, *, most: int) -> np.ndarray:
    """The matrix (H, W) of integers in a field of a 1 x 1 struct.

    Args:
        content: the bytes of the file.
        variable: the struct's name.
        field: the field's name.
        most: bytes that the file may unpack to.

    Raises:
        ValueError: it is not such a file, or has no such matrix.
    """
    orders = {b"IM": "<", b"MI": ">"}
    if content[126:128] not in orders:
        raise ValueError("no MATLAB file of version 5")
    order = orders[content[126:128]]
    for kind, data in _elements(content[128:], order):
        if kind == PACKED:
            unpacked = _unpack(data, most)
            most -= len(unpacked)
            kind, data = next(_elements(unpacked, order), (0, b""))
        if kind == MATRIX:
            of_class, shape, name, parts = _array(data, order)
            if name == variable:
                if of_class != STRUCT or math.prod(shape) != 1:
                    raise ValueError(f"{variable}: expected a struct of 1 x 1")
                return _matrix(_member(parts, field, order), order)
    raise ValueError(f"no variable {variable}")


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Kind and data of each element: kind and size in 8 bytes before the data, or in 4 if the data have at most 4."""
    place = 0
    while place < len(content):
        if len(content) - place < 8:
            raise ValueError("an element is cut short")
        kind, size = struct.unpack_from(f"{order}II", content, place)
        start, end = place + 8, place + 8 + size
        place = end if kind == PACKED else end + -size % 8
        if kind >> 16:
            kind, size = kind & 0xFFFF, kind >> 16
            start, end, place = start - 4, start - 4 + size, start
            if size > 4:
                raise ValueError("a small element has more than 4 bytes")
        if end > len(content):
            raise ValueError("an element reaches beyond the end")
        yield kind, content[start:end]


def _unpack(data: bytes, most: int) -> bytes:
    stream = zlib.decompressobj()
    unpacked = stream.decompress(data, most + 1)
    if len(unpacked) > most:
        raise ValueError(f"expected at most {most} bytes unpacked, got more")
    if not stream.eof:
        raise ValueError("packed data are cut short")
    return unpacked


def _numbers(element: tuple[int, bytes], order: str) -> np.ndarray:
    kind, data = element
    if kind not in STORED:
        raise ValueError(f"expected whole numbers, got an element of kind {kind}")
    return np.frombuffer(data, order + STORED[kind])


def _array(data: bytes, order: str) -> tuple[int, tuple[int, ...], str, Iterator[tuple[int, bytes]]]:
    """Class, shape and name of an array, and the elements of its content."""
    parts = _elements(data, order)
    head = [part for _, part in zip(range(3), parts, strict=False)]
    if len(head) < 3:
        raise ValueError("an array has no head")
    flags, shape = _numbers(head[0], order), _numbers(head[1], order)
    if len(flags) < 1 or len(shape) < 2 or (shape < 0).any():
        raise ValueError("an array has no class or no shape")
    return int(flags[0]) & 0xFF, tuple(int(n) for n in shape), head[2][1].decode("latin-1"), parts


def _member(parts: Iterator[tuple[int, bytes]], field: str, order: str) -> bytes:
    """The array in a field of a struct."""
    lengths, names = _numbers(next(parts, (0, b"")), order), next(parts, (0, b""))[1]
    if len(lengths) != 1 or lengths[0] < 1:
        raise ValueError("a struct has no length of its names")
    length = int(lengths[0])
    fields = (names[i : i + length].split(b"\0")[0].decode("latin-1") for i in range(0, len(names), length))
    for name, (kind, data) in zip(fields, parts, strict=False):
        if name == field and kind == MATRIX:
            return data
    raise ValueError(f"no field {field}")


def _matrix(data: bytes, order: str) -> np.ndarray:
    of_class, shape, _, parts = _array(data, order)
    if of_class not in WHOLE or len(shape) != 2:
        raise ValueError(f"expected a matrix of whole numbers, got class {of_class} and shape {shape}")
    values = _numbers(next(parts, (0, b"")), order)
    if len(values) != math.prod(shape):
        raise ValueError(f"expected {' x '.join(map(str, shape))} numbers, got {len(values)}")
    return values.reshape(shape, order="F").astype(WHOLE[of_class])
