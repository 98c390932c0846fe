"""Depth and other values: the guided filter, its weighted form for missing values, and what it does to a depth map."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from segmodel.data import open_data
from segmodel.inference.refine_map import refine_map, weighted_guided_filter
from segmodel.kernels import guided_filter


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 12), width=st.integers(1, 12), bands=st.sampled_from([1, 3]), radius=st.integers(0, 4),
       seed=st.integers(0, 99))  # fmt: skip
def test_with_equal_weights_it_is_the_guided_filter(height, width, bands, radius, seed):
    values, guide = random(2, 2, height, width, seed=seed), 255 * random(2, bands, height, width, seed=seed + 1)
    expected = guided_filter(values, guide, radius=radius, eps=2.0)
    got = weighted_guided_filter(values, guide, torch.ones_like(values), radius=radius, eps=2.0)
    torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-9)


def direct(values, guide, weight, radius, eps):
    """A weighted least-squares fit in each window, pixel by pixel."""
    height, width = values.shape
    total, count = np.zeros_like(values), np.zeros_like(values)
    for y in range(height):
        for x in range(width):
            window = np.s_[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
            w, p = weight[window].ravel(), values[window].ravel()
            colours = guide[:, *window].reshape(len(guide), -1)
            if w.sum() == 0:
                continue
            mean = colours @ w / w.sum()
            centred = colours - mean[:, None]
            a = np.linalg.solve((w * centred) @ centred.T / w.sum() + eps * np.eye(len(guide)),
                                (w * centred) @ (p - p @ w / w.sum()) / w.sum())  # fmt: skip
            share = w.sum() / len(w)
            fitted = p @ w / w.sum() + a @ (guide[:, *window].reshape(len(guide), -1) - mean[:, None])
            total[window] += share * fitted.reshape(total[window].shape)
            count[window] += share
    return total, count


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 8), width=st.integers(1, 8), bands=st.sampled_from([1, 2, 3]), radius=st.integers(0, 3),
       kept=st.floats(0.1, 1), seed=st.integers(0, 99))  # fmt: skip
def test_the_weighted_filter_is_a_weighted_fit_in_each_window(height, width, bands, radius, kept, seed):
    values, guide = random(1, 1, height, width, seed=seed), 255 * random(1, bands, height, width, seed=seed + 1)
    weight = (random(1, 1, height, width, seed=seed + 2) < kept).double() * random(1, 1, height, width, seed=seed + 3)
    got = weighted_guided_filter(values, guide, weight, radius=radius, eps=2.0)[0, 0].numpy()
    # each pixel gets its part of the fit in every window that holds it: the share of those windows, as in the sums
    total, count = direct(values[0, 0].numpy(), guide[0].numpy(), weight[0, 0].numpy(), radius, 2.0)
    np.testing.assert_array_equal(np.isnan(got), count <= 1e-6)
    np.testing.assert_allclose(got[count > 1e-6], (total / np.where(count > 0, count, 1))[count > 1e-6], 1e-6, 1e-8)


def depth_of(scene, seed: int) -> np.ndarray:
    """A slope, and a step at each object."""
    steps = np.random.default_rng(seed).uniform(1, 10, 256)
    return (steps[scene.label] + 0.01 * np.arange(scene.label.shape[0])[:, None]).astype(np.float32)


@pytest.mark.parametrize("stride", [4, 8, 16])
def test_depth_of_a_scene_gets_better(stride):
    errors = []
    for index in (1, 3):
        scene = open_data("scenes", split="val")[index]
        depth = depth_of(scene, index)
        coarse = functional.avg_pool2d(torch.from_numpy(depth)[None, None], stride)
        plain = functional.interpolate(coarse, depth.shape, mode="bilinear")[0, 0].numpy()
        refined = refine_map(coarse[0, 0].numpy(), scene.image)
        assert refined.dtype == np.float32
        errors.append([np.sqrt(np.mean((values - depth) ** 2)) for values in (plain, refined)])
        means = functional.avg_pool2d(torch.from_numpy(refined)[None, None], stride)
        assert (means - coarse).abs().mean() < 0.1 * coarse.std()  # what was given is still there
    plain, refined = np.mean(errors, 0)
    assert refined < 0.92 * plain  # measured: 0.86 to 0.89


def test_missing_values_are_filled_from_what_is_near_and_stay_missing_far_away():
    scene = open_data("scenes", split="val")[3]
    depth = depth_of(scene, 0)
    holes = depth.copy()
    holes[40:44, 30:60] = np.nan
    refined = refine_map(holes, scene.image)
    assert np.isfinite(refined).all()
    assert np.abs(refined - refine_map(depth, scene.image))[40:44, 30:60].mean() < 1
    far = np.full_like(depth, np.nan)
    far[0, 0] = 3
    result = refine_map(far, scene.image, radius=2)
    assert result[0, 0] == pytest.approx(3, abs=1e-5)
    assert np.isnan(result).sum() == result.size - 25  # two windows of radius 2
    assert np.isnan(refine_map(np.full_like(depth, np.nan), scene.image)).all()


def test_offset_and_scale_come_through():
    image, values = 255 * random(3, 16, 20, seed=1), random(2, 4, 5, seed=2)
    plain = refine_map(values, image)
    torch.testing.assert_close(refine_map(1000 + 5 * values, image), 1000 + 5 * plain, rtol=1e-9, atol=1e-9)
    wide = refine_map((1e4 + values).float(), image.float())
    torch.testing.assert_close(wide - 1e4, plain.float(), rtol=0, atol=4e-3)  # float32 at 10,000
    torch.testing.assert_close(refine_map(torch.full((4, 5), 7.0), image.float()), torch.full((16, 20), 7.0))


def test_gradients_reach_the_values():
    image = 255 * random(3, 8, 8, seed=1)
    values = random(1, 4, 4, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: refine_map(v, image, radius=2), values)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (np.zeros((4, 4), np.uint16), {}, r"values: expected floating point \(h, w\), .*, got uint16 \(4, 4\)"),
        (np.full((4, 4), np.inf), {}, "values: expected finite numbers, or NaN where one is missing, got infinities"),
        (np.zeros((8, 10, 2)), {}, r'values: expected height and width last .* give layout="HWC"'),
        (np.zeros((2, 1, 8, 10)), {}, "image: expected as many as values, 2, got 1"),
        (np.zeros((4, 5)), {"radius": -1}, "radius: expected"),
        (np.zeros((4, 5)), {"eps": 0}, "eps: expected"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(values, options, message):
    with pytest.raises(ValueError, match=message):
        refine_map(values, np.full((8, 10, 3), 9, np.uint8), **options)
