"""Patch rearrangement against the reference and its literal formula."""

import itertools

import pytest
import torch

from segmodel.kernels import patch_rearrange
from segmodel.reference.patch_prediction import patch_rearrange_by_loops


@pytest.mark.parametrize("patch_size", [1, 2, 3])
@pytest.mark.parametrize("labels", [1, 4])
def test_equals_the_formula_and_the_reference(patch_size: int, labels: int) -> None:
    x = torch.randn(2, patch_size**2 * labels, 3, 5, dtype=torch.float64)
    out = patch_rearrange(x, patch_size=patch_size)
    assert out.shape == (2, labels, 3 * patch_size, 5 * patch_size)
    for n, c, h, w in itertools.product(*map(range, out.shape)):
        m = (h % patch_size) * patch_size + w % patch_size
        assert out[n, c, h, w] == x[n, m * labels + c, h // patch_size, w // patch_size]
    expected = patch_rearrange_by_loops(x[0].permute(1, 2, 0).numpy(), patch_size=patch_size)
    assert (out[0].permute(1, 2, 0).numpy() == expected).all()


def test_gradient_any_layout_and_compile() -> None:
    x = torch.randn(2, 8, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: patch_rearrange(x, patch_size=2), x)
    strided = x.detach().to(memory_format=torch.channels_last)
    assert torch.equal(patch_rearrange(strided, patch_size=2), patch_rearrange(x, patch_size=2))
    compiled = torch.compile(patch_rearrange, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, patch_size=2), patch_rearrange(x, patch_size=2))
    assert patch_rearrange(torch.arange(8).view(1, 8, 1, 1), patch_size=2).dtype == torch.int64


@pytest.mark.parametrize(
    ("shape", "patch_size", "message"),
    [
        ((1, 6, 2, 2), 2, "x: expected N C H W with C a multiple of 4"),
        ((4, 2, 2), 2, "x: expected N C H W"),
        ((1, 4, 2, 2), 0, "patch_size: expected an integer >= 1"),
        ((1, 4, 2, 2), 2.0, "patch_size: expected an integer >= 1"),
    ],
)
def test_errors_name_the_argument(shape: tuple[int, ...], patch_size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        patch_rearrange(torch.zeros(shape), patch_size=patch_size)
