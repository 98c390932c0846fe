"""Mining: what is kept, ties, ignored pixels, nothing at all (the oracle's comparison is in the model's tests)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from segmodel.reference import objective as equations
from segmodel.training.objective import hard_pixel_loss


def scores_with_losses(losses: torch.Tensor) -> torch.Tensor:
    """Two-label scores ``(1, 2, H, W)`` whose cross-entropy against label 0 is as given."""
    return torch.stack([torch.zeros_like(losses), torch.expm1(losses).log()])[None]


def test_the_harder_half_is_kept_with_its_ties():
    losses = torch.tensor([[1.0, 2.0, 3.0, 4.0], [4.0, 4.0, 0.5, 0.25]], dtype=torch.float64)
    labels = torch.zeros(1, 2, 4, dtype=torch.int64)
    scores = scores_with_losses(losses)
    assert hard_pixel_loss(scores, labels, keep=1).item() == pytest.approx(losses.mean().item())
    assert hard_pixel_loss(scores, labels, keep=0.5).item() == pytest.approx((4 * 3 + 3) / 4)
    assert hard_pixel_loss(scores, labels, keep=0.2).item() == pytest.approx(4)  # one is asked for, its ties stay
    assert hard_pixel_loss(scores, labels, keep=0.01).item() == pytest.approx(4)  # at least one


def test_ignored_pixels_are_not_counted():
    losses = torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64)
    labels = torch.tensor([[[0, 0, 255, 255]]])
    assert hard_pixel_loss(scores_with_losses(losses), labels, keep=0.5).item() == pytest.approx(2)


def test_blocks_follow_their_grid_point():
    losses = torch.ones(5, 9, dtype=torch.float64)
    losses[0, 4] = 3  # the grid point of rows 0-3, columns 4-7
    losses[1, 1] = 9  # hard, but not on the grid
    labels = torch.zeros(1, 5, 9, dtype=torch.int64)
    labels[0, 3, 7] = 255
    loss = hard_pixel_loss(scores_with_losses(losses), labels, keep=0.2, mining="block")
    assert loss.item() == pytest.approx((3 + 14) / 15)
    labels[0, 0, 0] = 255  # it decides nothing: its block's other pixels stay
    loss = hard_pixel_loss(scores_with_losses(losses), labels, keep=0.2, mining="block")
    assert loss.item() == pytest.approx((3 + 14 + 9 + 14) / 30)


def test_blocks_drop_ties_at_the_threshold():
    losses = torch.tensor([4.0, 3.0, 3.0, 3.0, 1.0], dtype=torch.float64).repeat_interleave(4)[None]
    labels = torch.zeros(1, 1, 20, dtype=torch.int64)
    for keep, kept in ((0.1, 0), (0.2, 4), (0.4, 4), (0.6, 4), (0.8, 13 / 4)):
        loss = hard_pixel_loss(scores_with_losses(losses), labels, keep=keep, mining="block")
        assert loss.item() == pytest.approx(kept)


@pytest.mark.parametrize("mining", ["pixel", "block"])
@pytest.mark.parametrize("keep", [0.5, 1.0])
def test_a_batch_without_valid_pixels_gives_zero_and_no_gradient(mining, keep):
    scores = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = hard_pixel_loss(scores, torch.full((2, 4, 4), 255), keep=keep, mining=mining)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(scores.grad, torch.zeros_like(scores))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 0}, "keep: expected"),
        ({"keep": float("nan")}, "keep: expected"),
        ({"mining": "pixels"}, "mining: exp"),
        ({"class_weights": torch.ones(3)}, "class_weights: expected"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        hard_pixel_loss(torch.zeros(1, 2, 3, 3), torch.zeros(1, 3, 3, dtype=torch.int64), **options)


def drawn(seed: int, ignored: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores ``(2, 3, 6, 9)`` in float64, labels of which a share is ignored, and class weights."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (2, 6, 9))
    labels[rng.random(labels.shape) < ignored] = 255
    scores = torch.from_numpy(rng.normal(size=(2, 3, 6, 9))).requires_grad_()
    return scores, torch.from_numpy(labels), torch.from_numpy(10 ** rng.uniform(-3, 3, 3))


@pytest.mark.parametrize("mining", ["pixel", "block"])
@settings(deadline=None)
@given(st.integers(0, 999), st.sampled_from([0.0, 0.4, 1.0]), st.sampled_from([0.01, 0.5, 1.0]))
def test_weighted_loss_and_gradient_are_the_oracles(mining, seed, ignored, keep):
    scores, labels, weights = drawn(seed, ignored)
    loss = hard_pixel_loss(scores, labels, keep=keep, mining=mining, class_weights=weights)
    loss.backward()
    last = scores.detach().permute(0, 2, 3, 1).numpy()
    expected, gradient = equations.mined_loss(
        last, labels.numpy(), fraction=keep, mining=mining, class_weights=weights.numpy()
    )
    assert loss.item() == pytest.approx(expected, rel=1e-12, abs=1e-13)
    np.testing.assert_allclose(scores.grad.permute(0, 2, 3, 1), gradient, rtol=0, atol=1e-13)
    # float32: some hundred roundings of losses below 10
    single = hard_pixel_loss(scores.detach().float(), labels, keep=1.0, class_weights=weights)
    whole = equations.mined_loss(last, labels.numpy(), fraction=1.0, class_weights=weights.numpy())[0]
    assert single.item() == pytest.approx(whole, rel=1e-5, abs=1e-6)


@settings(deadline=None)
@given(st.integers(0, 999))
def test_without_mining_the_weighted_loss_is_pytorchs(seed):
    scores, labels, weights = drawn(seed, 0.3)
    expected = functional.cross_entropy(scores, labels, weight=weights, ignore_index=255)
    torch.testing.assert_close(hard_pixel_loss(scores, labels, keep=1.0, class_weights=weights), expected)


def test_the_gradient_of_the_weighted_loss():
    scores, labels, weights = (part[..., :2, :3] if part.ndim > 1 else part for part in drawn(1, 0.3))
    assert torch.autograd.gradcheck(lambda x: hard_pixel_loss(x, labels, keep=1.0, class_weights=weights), scores)


@settings(deadline=None)
@given(st.integers(0, 999), st.floats(1e-3, 1e3))
def test_only_ratios_of_weights_matter_and_equal_ones_are_none(seed, factor):
    scores, labels, weights = drawn(seed, 0.3)
    torch.testing.assert_close(
        hard_pixel_loss(scores, labels, class_weights=factor * weights),
        hard_pixel_loss(scores, labels, class_weights=weights),
    )
    equal = torch.full((3,), factor, dtype=torch.float64)
    torch.testing.assert_close(hard_pixel_loss(scores, labels, class_weights=equal), hard_pixel_loss(scores, labels))


def test_mining_keeps_the_same_pixels_whatever_the_weights():
    losses = torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64)
    scores = scores_with_losses(losses)
    scores[0, :, 0, 0] = torch.tensor([1.0, -1.0])  # class 1, lost 2.13
    labels = torch.tensor([[[1, 0, 0, 0]]])
    loss = hard_pixel_loss(scores, labels, keep=0.5, class_weights=torch.tensor([1.0, 1000.0]))
    assert loss.item() == pytest.approx(3.5)
