"""Settings that follow from the scores: the doubt, the rule, the balanced message, and what it keeps."""

from dataclasses import asdict, astuple, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from segmodel.data import open_data
from segmodel.inference.refine import refine
from segmodel.inference.refinement import refined
from segmodel.kernels import guided_filter
from segmodel.model.crf_defaults import LARGEST, doubt, settings_from
from segmodel.model.untrained_crf import Refinement, Resolved, balanced_crf
from segmodel.model.upsampling import area_average

OWN = Resolved(stride=1, radius=2, eps=1.0, weight=3.0, balance=0.5, iterations=2)


def band(width: float, *, side: int = 96) -> torch.Tensor:
    """Scores (1, 2, side, side) of two halves with a doubtful band between them, ``width`` of the side wide."""
    ramp = (torch.arange(side) + 0.5 - side / 2) / (width * side)
    odds = (8 * ramp).clamp(-20, 20).expand(1, 1, side, side)
    return torch.cat([odds, -odds], 1) / 2


def test_the_doubt_is_the_width_of_the_band_on_any_grid():
    narrow, wide = doubt(band(0.05)), doubt(band(0.2))
    assert wide == pytest.approx(4 * narrow, rel=0.05)
    assert doubt(band(0.2, side=960)) == pytest.approx(wide, rel=0.05)  # thinned out
    enlarged = functional.interpolate(band(0.2), scale_factor=3, mode="bilinear")
    assert doubt(enlarged) == pytest.approx(wide, rel=0.05)
    assert doubt(torch.zeros(1, 4, 9, 9)) == pytest.approx(0.75)  # no boundary: the side stands for its length
    assert doubt(20 * band(0.2)) < 0.06 * wide


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-3, 0.5), st.integers(20, 3000), st.integers(20, 3000), st.integers(1, 40))
def test_the_rule_stays_within_its_bounds(width, height, across, cells):
    found = settings_from(band(width, side=cells), (height, across))
    Refinement(**found)  # types and bounds
    side = (height * across) ** 0.5 / found["stride"]
    assert 3 <= found["radius"] <= max(3, side / 5 + 0.5)
    assert 4 <= found["weight"] <= 16
    assert 0 <= found["balance"] <= 0.9


def test_more_doubt_has_wider_windows_and_heavier_weights():
    found = [settings_from(band(width), (384, 384)) for width in (0.01, 0.1, 0.2, 0.4)]
    for name in ("radius", "weight"):
        values = [item[name] for item in found]
        assert values == sorted(values)
        assert values[0] < values[-1]
    balances = [item["balance"] for item in found]
    assert balances[0] < 0.5
    assert max(balances) > balances[-1] >= 0.4  # most where things are thin, less where regions are to be mended


def test_the_radius_grows_with_the_square_of_the_doubt():
    few, many = (settings_from(band(width), (1536, 1536), 4)["radius"] for width in (0.08, 0.16))
    assert many == pytest.approx(4 * few, rel=0.1)
    assert many < min(384 / 5, LARGEST)


def test_the_radius_grows_with_the_picture_and_with_finer_blocks():
    scores = band(0.3)
    radius = settings_from(scores, (384, 384))["radius"]
    assert settings_from(scores, (768, 768), 4)["radius"] == pytest.approx(2 * radius, abs=1)
    assert settings_from(scores, (3072, 3072), 4)["radius"] == LARGEST
    assert settings_from(scores, (384, 384), 2)["radius"] == pytest.approx(2 * radius, abs=1)


@pytest.mark.parametrize(
    ("size", "cells", "stride"),
    [((384, 384), 96, 4), ((384, 384), 24, 4), ((384, 384), 384, 4), ((2048, 2048), 64, 8), ((128, 128), 32, 2),
     ((30, 30), 8, 1)],
)  # fmt: skip
def test_the_stride(size, cells, stride):
    assert settings_from(torch.zeros(1, 2, cells, cells), size)["stride"] == stride


def test_what_is_given_wins_and_the_rest_follows():
    scores, size = band(0.2), (384, 384)
    free = Refinement().resolved(scores, size)
    assert None not in astuple(free)
    assert Refinement(radius=7).resolved(scores, size) == replace(free, radius=7)
    assert Refinement(weight=0.5, eps=9.0).resolved(scores, size) == replace(free, weight=0.5, eps=9.0)
    paper = Refinement.paper().resolved(scores, size)
    assert (paper.stride, paper.radius, paper.weight, paper.balance, paper.iterations) == (4, 3, 2.0, 0.0, 3)


def test_each_picture_of_a_batch_has_its_own_settings():
    scores = torch.cat([band(0.01), band(0.4)])
    image = 255 * torch.rand(2, 3, 192, 192, generator=torch.Generator().manual_seed(0))
    together = refined(scores, image, Refinement(), None, (0, 255))
    for index in range(2):
        alone = refined(scores[index : index + 1], image[index : index + 1], Refinement(), None, (0, 255))
        torch.testing.assert_close(together[index : index + 1], alone, rtol=0, atol=0)


def test_the_balanced_message_is_the_filter_less_its_mean():
    numbers = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 3, 12, 11, generator=numbers, dtype=torch.float64)
    guide = 255 * torch.rand(2, 3, 12, 11, generator=numbers, dtype=torch.float64)
    flat = torch.zeros_like(guide)
    phi = scores
    for _ in range(OWN.iterations):
        q = phi.softmax(1)
        message = guided_filter(q, guide, radius=2) - OWN.balance * guided_filter(q, flat, radius=2)
        phi = scores + OWN.weight * (message - (1 - OWN.balance))
    torch.testing.assert_close(balanced_crf(scores, guide, OWN), phi, rtol=1e-9, atol=1e-9)
    close = replace(OWN, balance=1e-12)  # with no balance it is Algorithm 1
    torch.testing.assert_close(
        balanced_crf(scores, guide, close), balanced_crf(scores, guide, replace(close, balance=0.0)), rtol=0, atol=1e-9
    )


def test_gradients():
    numbers = torch.Generator().manual_seed(0)
    scores = torch.randn(1, 2, 5, 4, generator=numbers, dtype=torch.float64, requires_grad=True)
    guide = 255 * torch.rand(1, 3, 5, 4, generator=numbers, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: balanced_crf(x, guide, OWN), [scores])
    scores = band(0.2).requires_grad_()
    refine(scores, 255 * torch.rand(1, 3, 200, 190, generator=numbers)).square().sum().backward()
    assert scores.grad.abs().max() > 1e-2


def test_a_post_that_hardly_shows_survives_wide_windows_with_balance_alone():
    numbers = np.random.default_rng(0)
    label = np.zeros((160, 160), np.int64)
    label[:, 80:88] = 1
    image = (120 + 15 * (1 - label[..., None]) + numbers.normal(0, 25, (160, 160, 3))).clip(0, 255).astype(np.uint8)
    post = area_average(torch.from_numpy(label)[None, None].float(), 8)[0]
    scores = torch.cat([2 - 2 * post, 2 * post - 0.3]).numpy()  # [2, 20, 20]
    wide = {"stride": 4, "radius": 10, "weight": 8.0, "iterations": 3}
    found = {share: refine(scores, image, balance=share, **wide).argmax(0) for share in (0.0, 0.75)}
    iou = {share: (result & label).sum() / (result | label).sum() for share, result in found.items()}
    assert iou[0.0] < 0.2
    assert iou[0.75] > 0.7


@pytest.mark.parametrize("stride", [4, 8])
def test_coarse_scores_of_scenes_gain_more_than_with_the_papers_settings(stride):
    data, right = open_data("scenes", split="val"), {"none": 0, "paper": 0, "defaults": 0}
    kinds = {"none": {"weight": 0.0}, "paper": asdict(Refinement.paper()), "defaults": {}}
    for index in range(4):
        image, label = data[index].image, data[index].label
        one_hot = torch.from_numpy(np.eye(12, dtype=np.float32)[np.where(label == 255, 0, label)]).permute(2, 0, 1)
        scores = (area_average(one_hot[None], stride)[0] + 0.02).log().numpy()
        for name, own in kinds.items():
            right[name] += int((refine(scores, image, **own).argmax(0) == label).sum())
    pixels = 4 * 128 * 128
    assert right["defaults"] - right["none"] > 0.005 * pixels
    assert right["defaults"] > right["paper"] > right["none"]
