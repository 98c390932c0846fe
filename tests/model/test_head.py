"""Parts of the head: up-sampling, separable pooling, the four configurations of Table 3, any size of image."""

import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from segmodel.kernels import box_filter
from segmodel.model.config import VARIANTS, ModelConfig
from segmodel.model.context_crf import MaxPoolLabelContext, ring_scores
from segmodel.model.head import SegmentationHead
from segmodel.model.upsampling import LearnableUpsampling, area_average
from segmodel.segmodel import SegModel


@settings(max_examples=30, deadline=None)
@given(
    factor=st.sampled_from([2, 4, 8, 16]), height=st.integers(1, 7), width=st.integers(1, 7), labels=st.integers(1, 3)
)
def test_initial_upsampling_is_bilinear_interpolation(factor, height, width, labels):
    torch.manual_seed(height * 10 + width)
    scores = torch.randn(2, labels, height, width, dtype=torch.float64)
    up = LearnableUpsampling(labels, factor).double()
    expected = functional.interpolate(scores, scale_factor=factor, mode="bilinear", align_corners=False)
    # the weights are exact in float32 (multiples of a power of two), so float64 rounding only
    torch.testing.assert_close(up(scores), expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(pool=st.sampled_from([1, 3, 9, 25]), height=st.integers(1, 30), width=st.integers(1, 30))
def test_separable_max_pool_is_the_square_one(pool, height, width):
    torch.manual_seed(pool + height)
    scores = torch.randn(1, 2, height, width)
    separable = MaxPoolLabelContext(2, ModelConfig(label_hidden=1, label_pool=pool)).pool
    expected = functional.max_pool2d(scores, pool, stride=1, padding=pool // 2)
    assert torch.equal(separable(scores), expected)


@settings(max_examples=40, deadline=None)
@given(
    radius=st.integers(0, 5), dilation=st.integers(1, 9), height=st.integers(1, 9), width=st.integers(1, 9),
    outputs=st.integers(1, 3),
)  # fmt: skip
def test_ring_scores_are_the_dilated_convolution_of_box_means(radius, dilation, height, width, outputs):
    torch.manual_seed(radius + 10 * dilation)
    features = torch.randn(2, 4, height, width, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(outputs, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    found = ring_scores(features, weight, radius=radius, dilation=dilation)
    means = box_filter(features, radius=radius)
    expected = functional.conv2d(means, weight, padding=dilation, dilation=dilation)
    # sums of at most 9 x 4 x 121 products of order one in float64
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    direction = torch.randn_like(expected)
    gradients = [torch.autograd.grad(y, (features, weight), direction) for y in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


def test_label_messages_start_at_zero():
    head = SegmentationHead(8, 3, ModelConfig(label_context="box_rings", label_steps=2))
    scores = torch.randn(1, 3, 6, 6)
    assert all(torch.equal(message(scores), torch.zeros_like(scores)) for message in head.label_context)


@settings(max_examples=15, deadline=None)
@given(factor=st.sampled_from([1, 2, 4]), height=st.integers(1, 9), width=st.integers(1, 9))
def test_area_average_repeats_the_last_row_and_column(factor, height, width):
    image = torch.rand(1, 3, height, width)
    rows = torch.arange(-(-height // factor) * factor).clamp(max=height - 1)
    columns = torch.arange(-(-width // factor) * factor).clamp(max=width - 1)
    whole = image[:, :, rows][:, :, :, columns]
    expected = whole.unflatten(3, (-1, factor)).unflatten(2, (-1, factor)).mean((3, 5))
    torch.testing.assert_close(area_average(image, factor), expected, rtol=1e-6, atol=1e-6)


TINY = {"depth": 18, "width": 2, "stem_width": 2, "label_hidden": 2, "label_pool": 3, "rings": ((1, 1), (1, 2))}


@settings(max_examples=25, deadline=None)
@given(
    variant=st.sampled_from(sorted(VARIANTS)),
    label_context=st.sampled_from(["max_pool", "box_rings", "none"]),
    upsampling=st.sampled_from(["learnable", "bilinear"]),
    output_stride=st.sampled_from([8, 16, 32]),
    patch_size=st.sampled_from([1, 2, 4, 8]),
    steps=st.integers(0, 2),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
)
def test_every_configuration_takes_every_size(
    variant, label_context, upsampling, output_stride, patch_size, steps, height, width
):
    options = {**TINY, "label_context": label_context, "patch_size": patch_size, **VARIANTS[variant]}
    config = ModelConfig(upsampling=upsampling, output_stride=output_stride, label_steps=steps, **options)
    model = SegModel(3, config).eval()
    image = 255 * torch.rand(2, 3, height, width)
    for guidance in (None, False, True):
        scores = model(image, guidance=guidance)
        assert scores.shape == (2, 3, height, width)
        assert torch.isfinite(scores).all()


@pytest.mark.parametrize("label_context", ["max_pool", "box_rings"])
def test_a_model_of_half_precision_runs(label_context):
    torch.manual_seed(0)
    model = SegModel(3, ModelConfig(label_context=label_context, **TINY)).eval()
    image = 255 * torch.rand(1, 3, 40, 50)
    expected = model(image)
    scores = model.bfloat16()(image.bfloat16())
    assert (scores.float() - expected).abs().max() < 0.1 * expected.abs().max()
    scores = model(image)
    assert (scores.float() - expected).abs().max() < 0.1 * expected.abs().max()
    assert model.segment(image[0].byte().permute(1, 2, 0).numpy()).shape == (40, 50)


def test_an_image_of_half_precision_guides_as_the_same_one_of_single_precision():
    """Faint texture of whole colours, which bfloat16 holds: their means over blocks are no whole colours."""
    torch.manual_seed(0)
    image = 200 + torch.randint(0, 2, (1, 3, 40, 52)).float()
    assert torch.equal(image, image.bfloat16().float())
    model = SegModel(3, ModelConfig(**TINY)).eval()
    assert not torch.equal(model(image), model(image, guidance=False))
    torch.testing.assert_close(model(image.bfloat16()), model(image), rtol=1e-6, atol=1e-6)


def test_strides_that_would_shift_the_scores_are_refused():
    for options, message in (
        ({"output_stride": 12, "patch_size": 1}, "factor: expected an even number, got 3"),
        ({"output_stride": 20, "patch_size": 2}, "stride / patch_size up to 4 or a multiple"),
    ):
        with pytest.raises(ValueError, match=message):
            SegmentationHead(4, 2, ModelConfig(**options))


def test_guidance_follows_its_configuration():
    image = 255 * torch.rand(1, 3, 20, 24)
    for guidance in ("joint", "inference", "off"):
        torch.manual_seed(0)
        model = SegModel(3, ModelConfig(guidance=guidance, **TINY))
        learned = {name for name, value in model.head.crf.named_parameters() if value.requires_grad}
        assert learned == ({"compatibility", "weight"} if guidance == "joint" else set())
        for training in (True, False):
            model.train(training)
            on = guidance == "joint" or (guidance == "inference" and not training)
            features = model.features(image).detach()
            expected = model.head(features, image, guidance=on)
            assert torch.equal(model.head(features, image), expected)
            assert not torch.equal(expected, model.head(features, image, guidance=not on))


def test_wrong_images_and_options_are_named():
    model = SegModel(3, ModelConfig(**TINY))
    assert SegModel(np.int64(3), ModelConfig(**TINY)).num_classes == 3
    for image in (torch.zeros(3, 8, 8), torch.zeros(1, 1, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="image: expected a floating point tensor"):
            model(image)
    for options, message in (
        ({"label_pool": 4}, "label_pool: expected an odd number, got 4"),
        ({"guidance": "on"}, "guidance: expected one of joint, inference, off, got 'on'"),
        ({"depth": "18"}, "depth: expected a whole number, got '18'"),
        ({"rings": ((1, 0),)}, "rings: expected up to 16 pairs"),
        ({"guidance_eps": 0.0}, "guidance_eps: expected more than 0"),
        ({"patch_size": 0}, "patch_size: expected at least 1"),
        ({"rings": (), "label_context": "box_rings"}, "rings: expected at least one with label_context box_rings"),
    ):
        with pytest.raises(ValueError, match=message):
            ModelConfig(**options)
    with pytest.raises(ValueError, match="num_classes: expected an integer from 1 to 255"):
        SegModel(0)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on the CPU needs g++")
def test_upsampling_compiles_beside_channels_last():
    up = LearnableUpsampling(3, 2)
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last).requires_grad_()
    expected = torch.autograd.grad(up(x).square().sum(), x)[0]
    got = torch.autograd.grad(torch.compile(up)(x).square().sum(), x)[0]
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)  # float32 sums in another order
