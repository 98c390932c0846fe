"""The modules: parameters, image sizes and ranges, and the operators behind them."""

import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segmodel import GuidanceCRF, GuidedFilter
from segmodel.kernels import guidance_crf, guided_filter
from segmodel.model.guided_filter import guide_from_image


def test_parameters_start_as_potts() -> None:
    crf = GuidanceCRF(4, weight=1.5)
    assert dict(crf.named_parameters()).keys() == {"compatibility", "weight"}
    torch.testing.assert_close(crf.compatibility.detach(), 1 - torch.eye(4))
    assert crf.weight.shape == ()
    assert crf.weight.item() == 1.5
    frozen = GuidanceCRF(4, learn_compatibility=False, learn_weight=False)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert "radius=3" in repr(crf)
    assert "eps=1.0" in repr(GuidedFilter())


def test_equal_the_operators_at_the_same_size() -> None:
    scores, image = torch.randn(2, 4, 6, 7), 255 * torch.rand(2, 3, 6, 7)
    crf = GuidanceCRF(4, radius=2, eps=2.0, iterations=2, border="constant")
    expected = guidance_crf(scores, image, radius=2, eps=2.0, iterations=2, border="constant")
    torch.testing.assert_close(crf(scores, image).detach(), expected, rtol=1e-5, atol=1e-5)
    expected = guided_filter(scores, image, radius=2, eps=2.0)
    torch.testing.assert_close(GuidedFilter(radius=2, eps=2.0)(scores, image), expected, rtol=0, atol=0)


def test_a_larger_image_is_area_averaged() -> None:
    scores, image = torch.randn(1, 3, 5, 6), 255 * torch.rand(1, 3, 20, 24)
    expected = guided_filter(scores, F.avg_pool2d(image, 4))
    torch.testing.assert_close(GuidedFilter()(scores, image), expected, rtol=1e-5, atol=1e-5)
    odd = 255 * torch.rand(1, 1, 23, 31)  # not a multiple: adaptive areas
    assert GuidanceCRF(3)(scores, odd).shape == scores.shape


def test_image_range_is_mapped_to_colours() -> None:
    scores, image = torch.randn(1, 3, 5, 6), torch.rand(1, 3, 5, 6)
    inside = GuidedFilter(image_range=(0, 1))(scores, image)
    torch.testing.assert_close(inside, guided_filter(scores, 255 * image), rtol=1e-5, atol=1e-5)
    signed = GuidedFilter(image_range=(-1, 1))(scores, 2 * image - 1)
    torch.testing.assert_close(signed, inside, rtol=1e-3, atol=1e-3)


def test_learns_and_keeps_the_dtype() -> None:
    scores, image = torch.randn(1, 3, 5, 6, requires_grad=True), 255 * torch.rand(1, 3, 10, 12)
    crf = GuidanceCRF(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        crf(scores, image.bfloat16()).square().sum().backward()
    for tensor in (scores, crf.weight, crf.compatibility):
        assert tensor.grad.dtype == torch.float32
        assert tensor.grad.abs().max() > 1e-2
    half = crf(scores.detach().bfloat16(), image.to(torch.uint8))
    assert half.dtype == torch.bfloat16
    assert crf.double()(scores.detach().double(), image).dtype == torch.float64


@pytest.mark.parametrize(
    ("shape", "message"),
    [((1, 3, 4, 6), "image: expected at least 5 x 6"), ((1, 17, 5, 6), "image: expected"), ((3, 5, 6), "image: ")],
)
def test_bad_images(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GuidanceCRF(2)(torch.zeros(1, 2, 5, 6), torch.zeros(shape))


def test_scores_of_other_classes() -> None:
    with pytest.raises(ValueError, match="scores: expected N 3 H W, got shape"):
        GuidanceCRF(3)(torch.zeros(1, 5, 4, 4), torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize("module", [lambda **options: GuidanceCRF(2, **options), GuidedFilter])
def test_bad_settings_of_the_filter_show_at_once(module) -> None:
    for options in ({"radius": -1}, {"radius": 2.5}, {"eps": 0}, {"eps": None}, {"border": "wrap"}):
        (name,) = options
        with pytest.raises(ValueError, match=f"^{name}: expected"):
            module(**options)


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="num_classes"):
        GuidanceCRF(0)
    with pytest.raises(ValueError, match="num_classes"):
        GuidanceCRF(2.5)
    assert GuidanceCRF(np.int64(3)).compatibility.shape == (3, 3)  # of labels.max() + 1
    for options in ({"iterations": -1}, {"iterations": 1.5}, {"weight": float("nan")}):
        (name,) = options
        with pytest.raises(ValueError, match=f"^{name}: expected"):
            GuidanceCRF(2, **options)
    for module in (lambda: GuidanceCRF(2, image_range=(1, 0)), lambda: GuidedFilter(image_range=(1,)),
                   lambda: GuidedFilter(image_range=5), lambda: GuidanceCRF(2, image_range=(0, float("inf"))),
                   lambda: GuidedFilter(image_range=(float("nan"), 255))):  # fmt: skip
        with pytest.raises(ValueError, match="image_range"):
            module()


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on the CPU needs g++")
def test_the_guide_compiles_for_images_of_several_sizes() -> None:
    def guide(scores: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        return guide_from_image(image, scores.shape[-2:], (0, 255))

    compiled = torch.compile(guide, dynamic=True)
    for height, width, rows, columns in ((9, 11, 36, 44), (10, 8, 41, 30)):
        scores, image = torch.zeros(2, 3, height, width), 255 * torch.rand(2, 3, rows, columns, requires_grad=True)
        found, expected = compiled(scores, image), guide(scores, image)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
        results = [torch.autograd.grad(result.square().sum(), image)[0] for result in (found, expected)]
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-3)
