"""The reader of MATLAB files against scipy, which writes them here, and what it says of others."""

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
