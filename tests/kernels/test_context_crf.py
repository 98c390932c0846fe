"""The rings' means: one map for every radius, each the clipped box mean."""

import pytest
import torch
from kernels_tools import assert_close, channel_first, channel_last

from segmodel.kernels import distance_aware_pool
from segmodel.reference.arrays import box_mean


@pytest.mark.parametrize("size", [(1, 1), (3, 8), (12, 11)])
def test_equals_the_reference(size: tuple[int, int]) -> None:
    features = torch.randn(2, 5, *size, dtype=torch.float64)
    means = distance_aware_pool(features, radii=(2, 4))
    assert isinstance(means, tuple)
    for mean, radius in zip(means, (2, 4), strict=True):
        assert_close(mean, channel_first([box_mean(image, radius=radius) for image in channel_last(features)]), 1e-14)


def test_gradient_and_compile() -> None:
    features = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: distance_aware_pool(f, radii=(1, 2)), features)
    compiled = torch.compile(distance_aware_pool, fullgraph=True, backend="aot_eager")
    for a, b in zip(compiled(features, radii=(1, 2)), distance_aware_pool(features, radii=(1, 2)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize(("radii", "message"), [((), "radii: expected at least one"), ((2, -1), "radius: expected")])
def test_errors_name_the_argument(radii: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        distance_aware_pool(torch.zeros(1, 2, 3, 3), radii=radii)
