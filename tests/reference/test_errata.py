"""Each misprint and open point of the paper, shown to be one: a test for every row of the table."""

import inspect
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from authors_tools import AuthorsCRF

from segmodel.data import Augmentation, Sample
from segmodel.reference import energy
from segmodel.reference.arrays import bilinear_upsample, one_hot, softmax
from segmodel.reference.bilinear_target import coarse_targets, fit_scores, upsampled_loss
from segmodel.reference.context_crf import FEATURE_RINGS, context_crf, label_message, mean_field_update, ring_boxes
from segmodel.reference.errata import ERRATA
from segmodel.reference.guidance_crf import guidance_crf, guidance_crf_gradients, guidance_crf_steps, potts
from segmodel.reference.guided_filter import dense_weights, guided_filter, guided_filter_adjoint
from segmodel.reference.head import HeadConfig
from segmodel.reference.objective import (
    hard_blocks,
    hard_pixels,
    intersection_over_union,
    mean_iou,
    mined_loss,
    poly_rate,
    regularised_objective,
    sgd_step,
)
from segmodel.reference.patch_prediction import patch_rearrange


def draw(height: int = 8, width: int = 9, labels: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(height, width, labels)), rng.uniform(0, 255, (height, width, 3))


def test_every_row_has_a_test_and_every_test_a_row() -> None:
    here = sys.modules[__name__]
    tests = {name for name, _ in inspect.getmembers(here, inspect.isfunction) if name.startswith("test_")}
    assert {row.test for row in ERRATA} == tests - {"test_every_row_has_a_test_and_every_test_a_row"}
    assert all(cell for row in ERRATA for cell in row)


def test_eq_6_with_the_printed_order_is_infinite() -> None:
    q, target = np.array([0.9, 0.1]), np.array([1.0, 0.0])  # one-hot: a cell inside one object
    with np.errstate(divide="ignore"):
        assert (q * np.log(q / target)).sum() == np.inf
    assert target[0] * np.log(target[0] / q[0]) == pytest.approx(0.105, abs=1e-3)


def test_eq_6_is_not_where_the_upsampled_loss_is_least() -> None:
    p = one_hot(np.array([[0, 0, 0, 1, 1, 1, 1, 1, 0, 1, 1, 1]]).repeat(4, axis=0), 2)
    histogram = np.log(coarse_targets(p, factor=4))
    assert upsampled_loss(fit_scores(p, factor=4), p, factor=4)[0] < upsampled_loss(histogram, p, factor=4)[0] - 1


def test_patch_layout_is_not_pixel_shuffle() -> None:
    x = np.arange(8.0).reshape(1, 1, 8)
    pixel_shuffle = x.reshape(1, 1, 2, 2, 2).transpose(0, 3, 1, 4, 2).reshape(2, 2, 2)  # class outermost
    ours = patch_rearrange(x, patch_size=2)
    assert ours[0, 1].tolist() == [2, 3]
    assert pixel_shuffle[0, 1].tolist() == [1, 5]


def test_eq_9_needs_phi_as_a_score() -> None:
    """A pixel without opinion, beside one that has label 0, under a Potts penalty: it should take label 0 too."""
    q = np.array([[0.5, 0.5], [1.0, 0.0]])
    updated = mean_field_update(np.zeros((2, 2)), [((0, 1), potts(2))], q)[0]
    assert softmax(updated)[0] > 0.7  # read as a score
    assert softmax(-updated)[0] < 0.3  # read as an energy


def test_the_far_ring_spans_33_cells() -> None:
    boxes = ring_boxes(FEATURE_RINGS[-1])
    assert max(box[1] for box in boxes) - min(box[0] for box in boxes) + 1 == 33


def test_the_two_label_contexts_differ() -> None:
    """A constant added to all scores changes nothing for probabilities, but it does for max-pooled scores."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(6, 6, 2))
    parameters = {
        "label.0.hidden.weight": rng.normal(size=(7, 7, 2, 3)),
        "label.0.ring.0.weight": rng.normal(size=(3, 3, 2, 3)),
        "label.0.ring.1.weight": rng.normal(size=(3, 3, 2, 3)),
        "label.0.hidden.bias": rng.normal(size=3),
        "label.0.output.weight": rng.normal(size=(3, 2)),
        "label.0.output.bias": rng.normal(size=2),
    }
    for reading, sees_the_constant in (("box_rings", False), ("max_pool", True)):
        config = HeadConfig(label_context=reading)
        a, b = (label_message(scores + shift, parameters, config, 0)[0] for shift in (0.0, 3.0))
        assert (np.abs(a - b).max() > 0.1) == sees_the_constant
    without = context_crf(scores, parameters, replace(HeadConfig(), label_context="none"))[0]
    np.testing.assert_array_equal(without, scores)


def test_filtering_scores_is_not_filtering_probabilities() -> None:
    scores, guide = draw()
    of_q = guided_filter(softmax(scores), guide)
    of_phi = softmax(guided_filter(scores, guide))
    assert np.abs(of_q - of_phi).max() > 0.05


def test_eq_12_channel_by_channel_is_another_filter() -> None:
    """Summed over channels, (I - mu)(J - mu) / (variance + eps): colours that vary together count thrice."""
    _, guide = draw(4, 4)
    guide = guide[:, :, :1].repeat(3, axis=2)  # a grey picture
    w = dense_weights(guide, radius=9, epsilon=1e-3)
    colours = guide.reshape(16, 3)
    centred = colours - colours.mean(axis=0)
    printed = (1 + (centred[:, None] * centred[None] / (colours.var(axis=0) + 1e-3)).sum(axis=2)) / 16
    np.testing.assert_allclose(w, dense_weights(guide[:, :, :1], radius=9, epsilon=1e-3 / 3), rtol=0, atol=1e-6)
    assert np.abs(printed - w).max() > 0.1
    assert np.linalg.eigvalsh(printed).max() > 2.9  # it amplifies, where a filter's eigenvalues are in [0, 1]


def test_the_three_borders_differ_at_the_border_only() -> None:
    scores, guide = draw(16, 17)
    clipped, constant, authors = (
        guided_filter(scores, guide, radius=2, border=border) for border in ("clipped", "constant", "authors")
    )
    inside = np.s_[4:-4, 4:-4]  # two radii: the windows of all windows that hold the pixel are whole
    np.testing.assert_allclose(constant[inside], clipped[inside], rtol=0, atol=1e-9)
    np.testing.assert_allclose(authors[inside], clipped[inside], rtol=0, atol=1e-9)
    assert np.abs(constant - clipped)[0].max() > 0.05
    assert np.abs(authors - clipped)[0].max() > 0.05
    assert np.abs(authors - constant)[0].max() > 0.05


def test_algorithm_1_is_not_the_mean_field_of_eq_14() -> None:
    scores, guide = draw(2, 2, 2)
    w = dense_weights(guide, radius=1)
    q = softmax(guidance_crf(scores, guide, radius=1, weight=1.0, iterations=200)).reshape(4, 2)
    of_eq_14 = energy.mean_field(-scores.reshape(4, 2), energy.pairwise_potential(potts(2), w))
    without_self = energy.pairwise_potential(potts(2), w - np.diag(np.diag(w)))
    np.testing.assert_array_equal(of_eq_14, energy.mean_field(-scores.reshape(4, 2), without_self))  # j = i never asked
    assert np.abs(q - of_eq_14).max() > 0.02
    asymmetric = dense_weights(np.full((1, 3, 3), 80.0), radius=1)
    assert np.abs(asymmetric - asymmetric.T).max() > 0.05


def test_the_printed_signs_reward_disagreement() -> None:
    """A lone pixel of label 1 in a flat field of label 0: the CRF must make it less sure, not surer."""
    scores, guide = np.zeros((3, 3, 2)), np.full((3, 3, 3), 90.0)
    scores[..., 0] = 2
    scores[1, 1] = [0, 0.5]
    alone = softmax(scores)[1, 1, 1]
    assert softmax(guidance_crf(scores, guide, radius=1))[1, 1, 1] < alone
    energies = -scores  # as printed: q = exp(-phi) / Z, phi = phi^u - lambda m
    phi = energies
    for _ in range(3):
        phi = energies - 2.0 * (1 - guided_filter(softmax(-phi), guide, radius=1))
    assert softmax(-phi)[1, 1, 1] > alone


def test_k_max_iterations_give_k_max_updates() -> None:
    scores, guide = draw()
    steps = guidance_crf_steps(scores, guide, iterations=3)
    assert len(steps) == 4
    assert all(np.abs(after - before).max() > 1e-6 for before, after in pairwise(steps))


def test_upsampling_probabilities_can_change_the_label() -> None:
    scores = np.array([[[0.0, 9.0, 0.0], [2.0, 0.0, 3.0]]])
    of_scores = bilinear_upsample(scores, factor=8).argmax(axis=2)
    of_probabilities = bilinear_upsample(softmax(scores), factor=8).argmax(axis=2)
    assert (of_scores != of_probabilities).any()


def test_eq_16_to_the_letter_is_wrong_near_the_border() -> None:
    y, guide = draw(20, 21)
    exact, printed = guided_filter_adjoint(y, guide, radius=2), guided_filter(y, guide, radius=2)
    error = np.abs(exact - printed)
    assert error.max() > 0.25 * np.abs(exact).max()
    columns = guided_filter_adjoint(np.ones_like(y), guide * 0, radius=2)  # column sums of W; the letter has 1
    assert columns.min() < 0.6
    assert columns.max() > 1.3
    assert error[5].max() > 1e-6  # up to three radii from the border, and no further
    np.testing.assert_allclose(printed[6:-6, 6:-6], exact[6:-6, 6:-6], rtol=0, atol=1e-9)
    for border in ("constant", "authors"):
        exact, printed = (f(y, guide, radius=2, border=border) for f in (guided_filter_adjoint, guided_filter))
        np.testing.assert_array_equal(printed, exact)


def test_eq_17_without_the_minus_prefers_the_wrong_label() -> None:
    labels = [np.zeros((1, 1), int)]
    right, wrong = [np.array([[[5.0, 0.0]]])], [np.array([[[0.0, 5.0]]])]
    assert regularised_objective(right, labels, {}) < regularised_objective(wrong, labels, {})
    assert -regularised_objective(right, labels, {}) > -regularised_objective(wrong, labels, {})  # as printed


def test_the_two_lambdas_have_two_names() -> None:
    assert inspect.signature(guidance_crf_steps).parameters["weight"].default == 2.0
    assert inspect.signature(regularised_objective).parameters["weight_decay"].default == 1e-4
    for function in (guidance_crf_steps, regularised_objective):
        assert not any("lambda" in name for name in inspect.signature(function).parameters)


def test_the_power_of_the_schedule_matters() -> None:
    assert inspect.signature(poly_rate).parameters["power"].default == 0.9
    assert poly_rate(90, steps=100) > 1.2 * poly_rate(90, steps=100, power=1.0)


def test_block_mining_keeps_other_pixels() -> None:
    rng = np.random.default_rng(0)
    truth, valid = rng.random((1, 16, 16)), np.ones((1, 16, 16), bool)
    pixels, blocks = hard_pixels(truth, valid), hard_blocks(truth, valid)
    assert pixels.sum() == blocks.sum() == 128
    assert 0.3 < (pixels != blocks).mean() < 0.7  # the grid point decides for 15 pixels it has not seen
    valid[0, ::4, ::4] = False
    assert (hard_blocks(truth, valid) == valid).all()  # no point decides: every block stays
    assert not hard_blocks(np.ones((1, 16, 16)), np.ones((1, 16, 16), bool)).any()  # all are ties
    assert inspect.signature(mined_loss).parameters["mining"].default == "pixel"


def test_an_accumulating_epsilon_changes_the_result() -> None:
    scores, guide = (x.transpose(2, 0, 1)[None] for x in draw())
    guide = guide / 40  # dark, with little contrast: epsilon matters
    growing, one = (AuthorsCRF(guide, accumulate=on).forward(scores) for on in (True, False))
    assert np.abs(growing - one).max() > 0.02


def test_a_batch_of_two_images_mixes_them() -> None:
    scores, guide = (np.stack([x, y]).transpose(0, 3, 1, 2) for x, y in zip(draw(), draw(seed=1), strict=True))
    mixed, apart = (AuthorsCRF(guide, mix=on).forward(scores) for on in (True, False))
    assert np.abs(mixed - apart).max() > 0.5
    first = [AuthorsCRF(guide[:1], mix=on).forward(scores[:1]) for on in (True, False)]
    np.testing.assert_array_equal(*first)  # of one image nothing is mixed
    np.testing.assert_allclose(apart[:1], first[0], rtol=0, atol=1e-12)


def test_the_compatibility_has_a_gradient() -> None:
    scores, guide = draw()
    found = guidance_crf_gradients(np.ones_like(scores) * scores, scores, guide)
    assert np.abs(found.compatibility).max() > 1


def test_scaling_both_sides_keeps_the_aspect() -> None:
    height, width, aspect = 300.0, 500.0, 5 / 4
    assert (height * aspect) / (width * aspect) == height / width  # the code
    # ours, measured on ramps that are 1 a pixel
    rows, columns = np.mgrid[:60, :60].astype(np.uint8)
    augment = Augmentation(crop=(20, 20), scale=(1, 1), aspect=(aspect, aspect), colour_shift=0, mirror=False)
    slopes = []
    for axis, ramp in enumerate((rows, columns)):
        found = augment(Sample(np.zeros((60, 60, 3), np.uint8), ramp, ""), np.random.default_rng(0)).label
        slopes.append(np.diff(found.astype(int), axis=axis).mean())
    assert slopes[0] / slopes[1] == pytest.approx(aspect, rel=0.05)
    assert slopes[0] * slopes[1] == pytest.approx(1, rel=0.1)


def test_the_code_draws_the_aspect_from_080_to_119() -> None:
    code = (80 + np.arange(40)) / 100
    assert (code.min(), code.max()) == (0.8, 1.19)
    assert np.log(code).mean() < -0.01  # its scale is drawn too small by 1.2 %
    # ours, measured on what is not padding
    augment = Augmentation(crop=(300, 300), scale=(1, 1), colour_shift=0, mirror=False)
    sample = Sample(np.zeros((200, 200, 3), np.uint8), np.zeros((200, 200), np.uint8), "")
    aspects = []
    for seed in range(300):
        inside = augment(sample, np.random.default_rng(seed)).label == 0
        aspects.append(inside.any(axis=0).sum() / inside.any(axis=1).sum())
    assert 0.79 < min(aspects) < 0.81
    assert 1.23 < max(aspects) < 1.26
    assert abs(np.log(aspects).mean()) < 0.02  # three standard deviations


def test_the_authors_nearest_labels_lie_half_a_pixel_off() -> None:
    """Where edges of stripes lie in resized labels, in pixels of the result right of where they belong."""
    stripes = (np.minimum(np.arange(397), 389) // 9 % 2).astype(np.uint8)
    edges = np.arange(9, 389, 9)
    code, ours = [], []
    for scale in (2.0 ** (part / 100) for part in range(-97, 100, 5)):
        size = round(397 * scale)
        places = np.floor(np.arange(size) * 397 / size).astype(int)
        code.append(np.flatnonzero(np.diff(stripes[places])) + 1 - edges * size / 397)
        augment = Augmentation(crop=(20, size), scale=(scale, scale), aspect=(1, 1), colour_shift=0, mirror=False)
        sample = Sample(np.zeros((40, 397, 3), np.uint8), stripes[None].repeat(40, axis=0), "")
        row = augment(sample, np.random.default_rng(0)).label[10].astype(int)
        ours.append(np.flatnonzero(np.diff(row)) + 1 - edges * size / 397)
    assert np.mean(code) == pytest.approx(0.5, abs=0.03)
    assert np.mean(ours) == pytest.approx(0.0, abs=0.03)


def test_a_rate_inside_the_momentum_lags_behind_the_schedule() -> None:
    """A quadratic with noise, 1,000 steps: the velocity still holds rates of before, which were larger."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(1000, 50))
    apart = {}
    for schedule in ("constant", "poly"):
        theta, velocity = {"x": np.ones((1, 50))}, {"x": np.zeros((1, 50))}
        code, code_velocity = np.ones((1, 50)), np.zeros((1, 50))
        for step in range(1000):
            rate = 0.01 if schedule == "constant" else poly_rate(step, steps=1000)
            gradient = {"x": 0.02 * theta["x"] + noise[step]}
            theta, velocity = sgd_step(theta, gradient, velocity, rate=rate, weight_decay=0)
            code_velocity = 0.9 * code_velocity + rate * (0.02 * code + noise[step])
            code = code - code_velocity
        apart[schedule] = np.linalg.norm(code - theta["x"]) / np.linalg.norm(theta["x"] - 1)
    assert apart["constant"] < 1e-12
    assert 0.005 < apart["poly"] < 0.1, apart


def test_the_code_s_divisor_can_exceed_one() -> None:
    """Each class of the truth is found, and one more is predicted: its IoU of 0 is summed, but not counted."""
    confusion = np.array([[3, 0, 0], [0, 4, 1], [0, 0, 0]])
    iou = intersection_over_union(confusion)
    in_truth = (confusion.sum(axis=1) > 0).sum()
    assert np.nansum(iou) / in_truth == pytest.approx(0.9)
    assert mean_iou(confusion) == pytest.approx(0.6)
