"""The reader of MATLAB files against scipy, which writes them here, and what it says of others."""

import struct
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernels_tools import some

from segmodel.data.matlab import read_field

scipy_io = pytest.importorskip("scipy.io", reason="needs scipy, which writes MATLAB files here")
MOST = 1 << 20


def written(variables: dict, *, packed: bool = True) -> bytes:
    file = BytesIO()
    scipy_io.savemat(file, variables, do_compression=packed)
    return file.getvalue()


def read(content: bytes, field: str = "Segmentation") -> np.ndarray:
    return read_field(content, "GTcls", field, most=MOST)


@some
@given(
    st.sampled_from("bBhHiIlL"), st.tuples(st.integers(1, 9), st.integers(1, 9)), st.booleans(), st.integers(0, 2**16)
)
def test_equals_what_scipy_wrote(kind: str, shape: tuple[int, int], packed: bool, seed: int) -> None:
    dtype = np.dtype(kind)
    limits = np.iinfo(dtype)
    values = np.random.default_rng(seed).integers(limits.min, limits.max, shape, dtype, endpoint=True)
    struct = {"before": "text", "Segmentation": values, "a": np.eye(2)}
    content = written({"first": np.arange(3.0), "GTcls": struct, "last": 1.5}, packed=packed)
    found = read(content)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, values)


def handmade(values: np.ndarray, order: str) -> bytes:
    """A file as of a machine of this byte order: int16 values in GTcls.Segmentation."""

    def element(kind: int, data: bytes) -> bytes:
        return struct.pack(f"{order}II", kind, len(data)) + data + bytes(-len(data) % 8)

    def array(of_class: int, shape: tuple[int, ...], name: bytes, content: bytes) -> bytes:
        flags, sides = struct.pack(f"{order}II", of_class, 0), struct.pack(f"{order}2i", *shape)
        return element(14, element(6, flags) + element(5, sides) + element(1, name) + content)

    matrix = array(10, values.shape, b"", element(3, values.astype(f"{order}i2").tobytes("F")))
    fields = element(5, struct.pack(f"{order}i", 32)) + element(1, b"Segmentation".ljust(32, b"\0"))
    head = b"MATLAB 5.0".ljust(124) + struct.pack(f"{order}HH", 0x100, 0x4D49)  # "MI" where big ends come first
    return head + array(2, (1, 1), b"GTcls", fields + matrix)


@pytest.mark.parametrize("order", ["<", ">"])
def test_files_of_both_byte_orders(order: str) -> None:
    values = np.array([[1, 2, 300], [-4, 5, 6]], np.int16)
    content = handmade(values, order)
    np.testing.assert_array_equal(scipy_io.loadmat(BytesIO(content))["GTcls"]["Segmentation"][0, 0], values)
    np.testing.assert_array_equal(read(content), values)


def test_a_name_need_not_fill_whole_words() -> None:
    values = np.arange(6, dtype=np.uint8).reshape(2, 3)
    content = written({"nine_name": {"Segmentation": values}})
    np.testing.assert_array_equal(read_field(content, "nine_name", "Segmentation", most=MOST), values)


def test_a_small_element_has_at_most_four_bytes() -> None:
    head = handmade(np.zeros((1, 1), np.int16), "<")[:128]
    with pytest.raises(ValueError, match="a small element has more than 4 bytes"):
        read(head + struct.pack("<II", 6 << 16 | 1, 0))


def test_the_limit_of_unpacked_bytes_is_that_of_all_variables() -> None:
    content = written({"first": np.zeros(1000, np.uint8), "GTcls": {"Segmentation": np.zeros((30, 30), np.uint8)}})
    assert read_field(content, "GTcls", "Segmentation", most=2500).shape == (30, 30)
    with pytest.raises(ValueError, match="bytes unpacked, got more"):
        read_field(content, "GTcls", "Segmentation", most=1500)  # enough for each


def test_what_is_not_there_is_named() -> None:
    matrix = np.ones((2, 3), np.uint8)
    for variables, message in (
        ({"other": 1}, "no variable GTcls"),
        ({"GTcls": matrix}, "GTcls: expected a struct of 1 x 1"),
        ({"GTcls": {"other": matrix}}, "no field Segmentation"),
        ({"GTcls": {"Segmentation": matrix / 2}}, "expected a matrix of whole numbers, got class 6"),
        ({"GTcls": {"Segmentation": np.ones((2, 2, 2), np.uint8)}}, "got class 9 and shape"),
    ):
        with pytest.raises(ValueError, match=message):
            read(written(variables))
    with pytest.raises(ValueError, match="no MATLAB file of version 5"):
        read(bytes(200))


def test_lengths_are_checked() -> None:
    plain = written({"GTcls": {"Segmentation": np.zeros((9, 13), np.uint8)}}, packed=False)
    packed = written({"GTcls": {"Segmentation": np.zeros((9, 13), np.uint8)}})
    for content, message in (
        (plain[:-20], "an element reaches beyond the end"),
        (plain + bytes(4), ""),  # what follows is not read
        (plain[:132], "an element is cut short"),
        (packed[:132] + bytes([packed[132] - 6]) + packed[133:-6], "packed data are cut short"),
        (plain.replace(bytes([9, 0, 0, 0, 13, 0, 0, 0]), bytes([9, 0, 0, 0, 14, 0, 0, 0])), "expected 9 x 14 numbers"),
    ):
        if message:
            with pytest.raises(ValueError, match=message):
                read(content)
        else:
            assert read(content).shape == (9, 13)
    with pytest.raises(ValueError, match="expected at most 100 bytes unpacked, got more"):
        read_field(packed, "GTcls", "Segmentation", most=100)
