"""Arrays of any origin as tensors."""

import numpy as np
import torch
from torch import Tensor


def as_tensor(name: str, value: object) -> Tensor:
    """An array, a tensor, or what NumPy takes for an array, as a tensor (wide unsigned integers as int64).

    Raises:
        ValueError: anything else, and what holds no numbers.
    """
    if isinstance(value, Tensor):
        return value.long() if value.dtype in (torch.uint16, torch.uint32, torch.uint64) else value
    array = as_array(value)
    if array is None or array.dtype.kind not in "fbui" or array.dtype.itemsize > 8:
        raise ValueError(f"{name}: expected an array or a tensor of numbers, got {describe(value)}")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    elif not array.dtype.isnative or any(step < 0 for step in array.strides) or not array.flags.writeable:
        array = array.astype(array.dtype.newbyteorder("="), order="C")
    return torch.from_numpy(array)


def as_array(value: object) -> np.ndarray | None:
    """The array of an object that offers one, as those of TensorFlow, JAX and xarray do; None for any other."""
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        return np.asarray(value)
    return None


def describe(value: object) -> str:
    """Type, dtype and shape, for messages."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype} {tuple(value.shape)}"
    return type(value).__name__
