"""Inference: exact geometry of scales and mirrors, windows that agree with the whole, fusion, batches."""

import itertools
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from inference_tools import local_model, picture, tiny_model
from torch.nn import functional

from segmodel.common import device
from segmodel.common.device import to_batch
from segmodel.inference import views
from segmodel.inference.views import (
    AtFullSize,
    InferenceConfig,
    View,
    coarse_scores,
    label_maps,
    predict_images,
    resize,
    same_size_batches,
    window_places,
)
from segmodel.model.guidance_crf import GuidanceCRF

ROUNDING = {"rtol": 0, "atol": 2e-5}  # float32 sums of another order; scores here are below 10


def probabilities(models, images, *, guidance=None, **values):
    """``(N, C, H, W)`` float32."""
    found = predict_images(models, images, config=InferenceConfig(**values), guidance={"it": guidance})["it"]
    return np.concatenate([block.numpy() for _, block in found._blocks()], 2)


sizes = {"height": st.integers(1, 40), "width": st.integers(1, 40)}


@settings(max_examples=60, deadline=None)
@given(**sizes, scale=st.sampled_from([0.3, 0.5, 0.75, 1.0, 1.5, 2.0]), stride=st.sampled_from([1, 2, 4]),
       mirrored=st.booleans())  # fmt: skip
def test_scores_come_back_to_the_pixels_they_were_computed_from(height, width, scale, stride, mirrored):
    """Scores that say where their cell's centre is, in the version's pixels, must say where the pixel's centre is."""
    version = resize(np.zeros((1, height, width, 3), np.uint8), scale)
    rows, columns = version.shape[1:3]
    assert (rows, columns) == tuple(max(1, int(np.floor(side * scale + 0.5))) for side in (height, width))
    cells = -(-rows // stride), -(-columns // stride)
    y, x = (torch.arange(count) * stride + stride / 2 for count in cells)
    scores = torch.stack([y[:, None].expand(cells), x.expand(cells)])[None]
    found = View(scores, (rows, columns), stride, mirrored).rows(0, height, (height, width))[0]
    for axis, (side, part, centres) in enumerate(((height, rows, y), (width, columns, x))):
        expected = (torch.arange(side) + 0.5) * part / side
        if axis == 1 and mirrored:
            expected = expected.flip(0)
        expected = expected.clamp(centres[0], centres[-1])  # the border is clamped
        shape = (-1, 1) if axis == 0 else (1, -1)
        torch.testing.assert_close(found[axis], expected.reshape(shape).expand(height, width), rtol=1e-6, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(**sizes, stride=st.sampled_from([1, 2, 4]), first=st.integers(0, 39))
def test_at_scale_1_interpolation_is_the_models_own_and_a_flip_is_undone_exactly(height, width, stride, first):
    scores = torch.randn(2, 3, -(-height // stride), -(-width // stride))
    size, first = (height, width), min(first, height - 1)
    whole = functional.interpolate(scores, scale_factor=stride, mode="bilinear") if stride > 1 else scores
    found = View(scores, size, stride, False).rows(first, height, size)
    torch.testing.assert_close(found, whole[:, :, first:height, :width], rtol=0, atol=1e-6)
    if width % stride == 0:
        flipped = View(scores.flip(3), size, stride, True).rows(first, height, size)
        torch.testing.assert_close(flipped, found, rtol=0, atol=0 if stride == 1 else 1e-6)


@pytest.mark.parametrize("size", [(1, 1), (37, 50), (64, 48)])
def test_one_pass_gives_the_models_own_probabilities_and_labels(size):
    model, image = tiny_model(), picture(*size)
    with torch.inference_mode():
        for mode in (False, True, None):
            expected = model(to_batch(image[None], torch.device("cpu")), guidance=mode).softmax(1).numpy()
            found = probabilities([model], image[None], guidance=mode)
            np.testing.assert_allclose(found, expected, **ROUNDING)
            labels = label_maps(model, image, guidance={"it": mode})["it"]
            assert labels.dtype == np.uint8
            chosen = np.take_along_axis(expected[0], labels[None].astype(int), 0)[0]
            np.testing.assert_allclose(chosen, expected[0].max(0), **ROUNDING)
    assert len(np.unique(label_maps(model, picture(64, 64))["model"])) > 1


def test_a_crf_of_ones_own_takes_the_place_of_the_models():
    model, image = tiny_model(), picture(41, 50)[None]
    own = GuidanceCRF.configured(model.num_classes, model.config)  # the model's is untrained, too
    on, off = (probabilities([model], image, guidance=mode) for mode in (True, False))
    np.testing.assert_array_equal(probabilities([model], image, guidance=own), on)
    both = probabilities([model, model], image, guidance=[own, False])
    np.testing.assert_allclose(both, (on + off) / 2, rtol=0, atol=1e-6)
    assert np.abs(on - off).max() > 1e-3
    seen = []

    def full_size(scores: torch.Tensor, guide: torch.Tensor) -> torch.Tensor:
        seen.append((scores.shape, guide))
        return scores

    np.testing.assert_allclose(probabilities([model], image, guidance=AtFullSize(full_size)), off, **ROUNDING)
    assert seen[0][0] == (1, 5, 41, 50)
    torch.testing.assert_close(seen[0][1], to_batch(image, torch.device("cpu")), rtol=0, atol=0)


def test_fusion_is_what_it_says():
    """Mirrors: mean of probabilities, or half the largest and half the mean score, both flipped back."""
    model, image = tiny_model(), picture(32, 48)
    with torch.inference_mode():
        batch = to_batch(image[None], torch.device("cpu"))
        views = torch.stack([model(batch), model(batch.flip(3)).flip(3)])
    mean = probabilities([model], image[None], mirror=True)
    np.testing.assert_allclose(mean, views.softmax(2).mean(0).numpy(), **ROUNDING)
    both = probabilities([model], image[None], mirror=True, fusion="max_mean")
    np.testing.assert_allclose(both, ((views.amax(0) + views.mean(0)) / 2).softmax(1).numpy(), **ROUNDING)
    assert np.abs(mean - both).max() > 1e-3


def test_mirrored_pictures_give_mirrored_results():
    model = tiny_model()
    for width in (48, 45):  # also where the grid of cells of the mirrored picture begins elsewhere
        image = picture(40, width)[None]
        one = probabilities([model], image, mirror=True, scales=(1.0, 0.7))
        other = probabilities([model], image[:, :, ::-1], mirror=True, scales=(1.0, 0.7))
        np.testing.assert_allclose(other[..., ::-1], one, **ROUNDING)


@settings(max_examples=200, deadline=None)
@given(side=st.integers(1, 300), window=st.integers(1, 120), overlap=st.floats(0, 0.99),
       stride=st.sampled_from([8, 16, 32]))  # fmt: skip
def test_windows_cover_the_side_on_the_models_grid(side, window, overlap, stride):
    places = window_places(side, window, overlap, stride)
    size = -(-window // stride) * stride
    assert places[0][0] == 0
    assert places[-1][1] == side
    assert all(first % stride == 0 and first < end <= side for first, end in places)
    assert all(end - first == size for first, end in places[:-1])
    assert places[-1][1] - places[-1][0] <= size
    assert len(places) == 1 or places[-1][1] - places[-1][0] > size - stride
    for (_, end), (first, _) in itertools.pairwise(places):
        assert 0 <= end - first < size
        assert (
            end - first >= size * overlap - 1e-6 or size - (end - first) == stride
        )  # no step is smaller than the stride


def test_a_window_that_holds_the_image_changes_nothing():
    model, image = tiny_model(), picture(50, 70)[None]
    whole = probabilities([model], image)
    np.testing.assert_array_equal(probabilities([model], image, window=(50, 70)), whole)
    np.testing.assert_array_equal(probabilities([model], image, window=(1000, 1000)), whole)
    assert np.abs(probabilities([model], image, window=(32, 32)) - whole).max() > 1e-3  # its receptive field is larger


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75])
def test_windows_agree_with_the_whole_image_where_no_inner_edge_is_near(overlap):
    """Scores of cells of 8 pixels (patch size 2) are interpolated to 4: one is that of the whole image unless, inside
    the image, an edge of a window lies within 4 pixels of its centre."""
    model, image = local_model(), picture(180, 235)[None]
    config = InferenceConfig(window=(96, 128), overlap=overlap)
    whole = coarse_scores(model, image, config=InferenceConfig())
    windows = coarse_scores(model, image, config=config)
    near = []
    for axis, side in enumerate((180, 235)):
        edges = {edge for place in window_places(side, config.window[axis], overlap, 16) for edge in place} - {0, side}
        centres = np.arange(whole.shape[2 + axis]) * 4 + 2
        near.append(np.min([np.abs(centres - edge) for edge in edges], axis=0) < 4)
    far = torch.from_numpy(~(near[0][:, None] | near[1]))
    assert 0.3 < far.float().mean() < 0.95
    torch.testing.assert_close(windows[..., far], whole[..., far], **ROUNDING)
    assert (windows - whole)[..., ~far].abs().max() > 1e-3  # and there they differ


def test_overlapping_windows_are_averaged_with_weights_that_fall_to_their_edges():
    model, image = local_model(), picture(32, 80)[None]
    found = coarse_scores(model, image, config=InferenceConfig(window=(32, 48), overlap=0.5))
    parts = [coarse_scores(model, image[:, :, x : x + 48], config=InferenceConfig()) for x in (0, 16, 32)]
    total, weights = torch.zeros_like(found), torch.zeros(20)
    ramp = torch.tensor([0.5, 1.5, 2.5, 3.5, 4.5, 5.5]) / 6  # overlap 24 pixels: 6 cells
    weight = torch.cat([ramp, ramp.flip(0)])
    for first, part in zip((0, 4, 8), parts, strict=True):
        total[..., first : first + 12] += weight * part
        weights[first : first + 12] += weight
    torch.testing.assert_close(found, total / weights, **ROUNDING)


@pytest.mark.parametrize("values", [{}, {"window": (32, 32), "overlap": 0.5}, {"scales": (1.0, 0.6), "mirror": True}])
def test_the_batch_size_changes_rounding_only(values):
    """The library may sum in another order for another batch: probabilities differ by less than 2e-5 in float32."""
    model = tiny_model()
    images = np.stack([picture(48, 56, seed=seed) for seed in range(3)])
    single = [probabilities([model], image[None], **values) for image in images]
    together = probabilities([model], images, batch_size=3, **values)
    np.testing.assert_allclose(together, np.concatenate(single), **ROUNDING)


def test_batches_hold_neighbours_of_one_size():
    images = [np.zeros((height, 2, 3), np.uint8) for height in (1, 1, 1, 2, 1)]
    groups = [group for group, _ in same_size_batches(range(5), 2, image=images.__getitem__)]
    assert groups == [[0, 1], [2], [3], [4]]
    assert [batch.shape[0] for _, batch in same_size_batches(range(5), 9, image=images.__getitem__)] == [3, 1, 1]


@pytest.mark.parametrize("fusion", ["mean", "max_mean"])
def test_an_ensemble_of_one_model_twice_is_that_model_bit_for_bit(fusion):
    model, image = tiny_model(), picture(37, 50)[None]
    once, twice = (probabilities([model] * count, image, fusion=fusion) for count in (1, 2))
    np.testing.assert_array_equal(once, twice)
    views = {"fusion": fusion, "scales": (0.7, 1.0), "mirror": True}
    once, thrice = (probabilities([model] * count, image, **views) for count in (1, 3))
    np.testing.assert_allclose(once, thrice, rtol=0, atol=1e-6)  # other sums: some roundings of 6e-8
    other = tiny_model(seed=1)
    mean = (probabilities([model], image) + probabilities([other], image)) / 2
    np.testing.assert_allclose(probabilities([model, other], image), mean, rtol=0, atol=1e-6)


def test_models_of_different_strides_can_be_fused():
    image = picture(37, 50)[None]
    models = [tiny_model(output_stride=16), tiny_model(output_stride=8, patch_size=4)]
    assert [model.head.guidance_stride for model in models] == [4, 2]
    mean = sum(probabilities([model], image) for model in models) / 2
    np.testing.assert_allclose(probabilities(models, image), mean, rtol=0, atol=1e-6)


def test_results_do_not_depend_on_the_blocks(monkeypatch):
    model, image = tiny_model(), picture(41, 50)[None]
    whole = probabilities([model], image, scales=(1.0, 1.5))
    monkeypatch.setattr(views, "BLOCK", 700)
    blocks = list(predict_images([model], image)["model"]._blocks())
    assert len(blocks) > 10
    np.testing.assert_allclose(probabilities([model], image, scales=(1.0, 1.5)), whole, rtol=0, atol=1e-6)


def test_half_precision_stays_near():
    """bfloat16 has 8 bits: a few hundredths of probability on an untrained model."""
    model, image = tiny_model(), picture(64, 64)[None]
    exact, found = (predict_images([model], image, dtype=dtype)["model"] for dtype in (None, torch.bfloat16))
    assert found.probabilities().dtype == np.float16
    difference = np.abs(exact.probabilities().astype(np.float32) - found.probabilities())
    assert 0 < difference.max() < 0.2
    assert difference.mean() < 0.02


def test_each_part_is_in_its_own_mode_after_evaluation():
    """Some of timm's attentions keep a table in evaluation mode, and drop it when they are told to train."""

    class Keeping(torch.nn.Module):
        kept = False

        def train(self, mode=True):
            self.kept = self.kept and not mode
            return super().train(mode)

    frozen = torch.nn.Sequential(torch.nn.Dropout())
    model = torch.nn.Sequential(Keeping(), frozen).train()
    frozen.eval()
    with device.evaluating(model):
        assert not any(module.training for module in model.modules())
        model[0].kept = True
    assert not model[0].kept
    assert [module.training for module in model.modules()] == [True, True, False, False]


def test_settings_are_checked():
    for values, message in (
        ({"window": (0, 5)}, "window: expected at least 1, got (0, 5)"),
        ({"overlap": 1.0}, "overlap: expected less than 1, got 1.0"),
        ({"scales": ()}, "scales: expected at least one, got none"),
        ({"scales": (1.0, 0.0)}, "scales: expected more than 0, got (1.0, 0.0)"),
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            InferenceConfig(**values)
