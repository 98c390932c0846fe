"""Mining: what is kept, ties, ignored pixels, nothing at all (the oracle's comparison is in the model's tests)."""

import pytest
import torch

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
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        hard_pixel_loss(torch.zeros(1, 2, 3, 3), torch.zeros(1, 3, 3, dtype=torch.int64), **options)
