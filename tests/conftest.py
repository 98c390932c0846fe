"""What all tests share: the GPU marker and the table of tolerances."""

import pytest
import torch

# dtype -> (rtol, atol) of one operator against the float64 oracle.
# float64: a few hundred roundings of 2^-53. float32: statistics of colours up to 128 from their mean (direct
# sums of centred colours err by 1e-6). float16 and bfloat16: statistics are float32; the result is rounded once.
TOLERANCE = {
    torch.float64: (1e-11, 1e-11),
    torch.float32: (1e-5, 1e-5),
    torch.float16: (1e-3, 1e-3),
    torch.bfloat16: (8e-3, 8e-3),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA or ROCm GPU, and torch sees none")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)
