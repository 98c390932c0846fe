"""Eq. 17, hard mining, the SGD step, batch-norm recomputation, and the figures of merit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_tools import check_gradient, few, some

from segmodel.reference import objective
from segmodel.reference.arrays import softmax

# Sums of some hundreds of logarithms.
EXACT = {"rtol": 0, "atol": 1e-11}
BATCH = {
    "images": st.integers(1, 3),
    "height": st.integers(1, 9),
    "width": st.integers(1, 9),
    "classes": st.integers(1, 3),
    "ignored": st.sampled_from([0.0, 0.3, 1.0]),
    "seed": st.integers(0, 99),
}


def draw(
    images: int, height: int, width: int, classes: int, ignored: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, (images, height, width))
    labels[rng.random(labels.shape) < ignored] = 255
    scores = rng.normal(size=(*labels.shape, classes))
    if seed % 3 == 0:
        scores = scores.round()  # many ties
    return [scores, labels]


@some
@given(**BATCH)
def test_eq_17(images, height, width, classes, ignored, seed) -> None:
    scores, labels = draw(images, height, width, classes, ignored, seed)
    theta = {"a": np.array([1.0, -2.0]), "b": np.array(3.0)}
    total = sum(
        -np.log(softmax(scores)[i, y, x, labels[i, y, x]])
        for i, y, x in np.ndindex(labels.shape)
        if labels[i, y, x] != 255
    )
    found = objective.regularised_objective(scores, labels, theta, weight_decay=0.1)
    assert found == pytest.approx(total + 0.05 * 14, abs=1e-10)
    default = objective.regularised_objective(scores, labels, theta)
    assert default == pytest.approx(total + 0.5e-4 * 14, abs=1e-10)


def kept_by_definition(truth: np.ndarray, labels: np.ndarray, fraction: float, mining: str) -> list[tuple[int, ...]]:
    """Sort the candidates, count k of them, and keep ties (pixels), or spread what is kept over blocks: plain Python.

    Blocks: the authors' code has one list of all points of the grid, the ignored ones with probability 1.
    """
    valid = [index for index in np.ndindex(labels.shape) if labels[index] != 255]
    if fraction >= 1 or not valid:
        return valid
    if mining == "pixel":
        threshold = sorted(truth[index] for index in valid)[max(1, int(fraction * len(valid))) - 1]
        return [index for index in valid if truth[index] <= threshold]
    grid = [index for index in np.ndindex(labels.shape) if index[1] % 4 == 0 and index[2] % 4 == 0]
    count = sum(index in valid for index in grid)
    ordered = sorted(truth[index] if index in valid else 0.0 for index in grid)  # logarithms: log 1 = 0
    hard = {index for index in grid if index not in valid or truth[index] < ordered[int(fraction * count)]}
    return [(i, y, x) for i, y, x in valid if (i, y - y % 4, x - x % 4) in hard]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("mining", ["pixel", "block"])
@some
@given(**BATCH, fraction=st.sampled_from([1e-9, 0.25, 0.5, 0.9, 1.0, 3.0]))
def test_mined_loss_and_its_gradient(mining, weighted, images, height, width, classes, ignored, seed, fraction) -> None:
    scores, labels = draw(images, height, width, classes, ignored, seed)
    log_p = objective.log_softmax(scores)
    truth = np.full(labels.shape, np.nan)
    for index in np.ndindex(labels.shape):
        if labels[index] != 255:
            truth[index] = log_p[(*index, labels[index])]
    kept = kept_by_definition(truth, labels, fraction, mining)
    weights = np.array([0.01, 1.0, 30.0])[:classes] if weighted else np.ones(classes)
    given_weights = weights if weighted else None
    loss, gradient = objective.mined_loss(scores, labels, fraction=fraction, mining=mining, class_weights=given_weights)
    of = {index: weights[labels[index]] for index in kept}
    expected = -sum(of[index] * truth[index] for index in kept) / sum(of.values()) if kept else 0.0
    assert loss == pytest.approx(expected, abs=1e-11)

    def mean_over_kept(s: np.ndarray) -> float:
        logs = objective.log_softmax(s)
        return float(-sum(of[index] * logs[(*index, labels[index])] for index in kept) / (sum(of.values()) or 1))

    check_gradient(mean_over_kept, scores, gradient)


@some
@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 99))
def test_median_frequency_weights(images, classes, seed) -> None:
    """By the words of SegNet's paper, and what follows: weight times frequency is the same for every class."""
    rng = np.random.default_rng(seed)
    labels = [rng.choice([*range(max(1, classes - 1)), 255], (3, 4)) for _ in range(images)]  # the last is absent
    weights = objective.median_frequency_weights(labels, classes)
    frequencies = {}
    for c in range(classes):
        holding = [label for label in labels if c in label]
        if holding:
            frequencies[c] = sum(int((label == c).sum()) for label in holding) / sum(
                int((label != 255).sum()) for label in holding
            )
    ordered = sorted(frequencies.values())
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2 if ordered else 1.0
    for c in range(classes):
        assert weights[c] * frequencies.get(c, middle) == pytest.approx(middle, rel=1e-12)


def test_blocks_whose_grid_point_is_ignored_are_kept() -> None:
    scores, labels = draw(1, 4, 8, 2, 0.0, 1)
    labels[0, 0, :] = 255
    whole = objective.mined_loss(scores, labels, fraction=1.0)[0]
    assert whole == objective.mined_loss(scores, labels, fraction=0.01, mining="block")[0] > 0
    labels[0, 0, 4] = 0
    first = objective.mined_loss(scores[:, :, :4], labels[:, :, :4], fraction=1.0)[0]
    assert objective.mined_loss(scores, labels, fraction=0.5, mining="block")[0] == first > 0


def test_blocks_drop_ties_where_pixels_keep_them() -> None:
    truth, valid = np.array([[[1.0, 2.0, 2.0, 2.0, 3.0, 4.0]]]), np.ones((1, 1, 6), bool)
    for fraction, pixels, blocks in ((0.2, 1, 1), (0.4, 4, 1), (0.5, 4, 1), (0.7, 4, 4), (0.9, 5, 5)):
        assert objective.hard_pixels(truth, valid, fraction=fraction).sum() == pixels
        assert objective.hard_blocks(truth, valid, fraction=fraction, block=1).sum() == blocks
    assert not objective.hard_blocks(np.ones((1, 1, 6)), valid, block=1).any()


def test_each_image_needs_its_labels() -> None:
    for wrong in (-1, 2):
        with pytest.raises(ValueError, match="predicted: expected labels in"):
            objective.confusion_matrix(np.array([0]), np.array([wrong]), 2)
    with pytest.raises(ValueError, match="argument 2"):
        objective.regularised_objective([np.zeros((1, 1, 2))] * 2, [np.zeros((1, 1), int)], {})


def test_mining_defaults() -> None:
    scores, labels = draw(2, 9, 9, 3, 0.2, 1)
    explicit = objective.mined_loss(scores, labels, fraction=0.5, mining="pixel", ignore=255)
    default = objective.mined_loss(scores, labels)
    assert default[0] == explicit[0]
    np.testing.assert_array_equal(default[1], explicit[1])


def test_another_ignore_label() -> None:
    scores, labels = draw(1, 5, 5, 3, 0.4, 1)
    other = np.where(labels == 255, -7, labels)
    assert objective.mined_loss(scores, other, ignore=-7)[0] == objective.mined_loss(scores, labels)[0]


def test_hard_pixels_keep_ties_and_at_least_one() -> None:
    truth, valid = np.array([0.5, 0.1, 0.5, 0.7, 0.0]), np.array([True, True, True, True, False])
    assert objective.hard_pixels(truth, valid).tolist() == [True, True, True, False, False]
    assert objective.hard_pixels(truth, valid, fraction=0.01).tolist() == [False, True, False, False, False]
    assert objective.hard_pixels(truth, valid, fraction=1).tolist() == valid.tolist()
    assert not objective.hard_pixels(truth, ~(truth >= 0)).any()


def test_blocks_fall_on_the_stride_4_grid() -> None:
    truth = np.full((1, 6, 9), 0.9)
    truth[0, 4, 4] = 0.1
    truth[0, 1, 1] = 0.0  # harder, but not on the grid
    kept = objective.hard_blocks(truth, np.ones((1, 6, 9), bool), fraction=0.2)
    expected = np.zeros((1, 6, 9), bool)
    expected[0, 4:6, 4:8] = True
    np.testing.assert_array_equal(kept, expected)
    halved = objective.hard_blocks(truth, np.ones((1, 6, 9), bool), fraction=0.1, block=2)
    assert halved.sum() == 4
    grid_point_ignored = np.ones((1, 6, 9), bool)
    grid_point_ignored[0, 4, 4] = False
    kept = objective.hard_blocks(truth, grid_point_ignored, fraction=0.2)
    np.testing.assert_array_equal(kept, expected & grid_point_ignored)
    default = objective.hard_blocks(truth, np.ones((1, 6, 9), bool))
    np.testing.assert_array_equal(default, objective.hard_blocks(truth, np.ones((1, 6, 9), bool), fraction=0.5))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fraction", {"fraction": 0.0}),
        ("mining", {"mining": "image"}),
        ("labels", {"ignore": 0}),
        ("class_weights", {"class_weights": np.ones(3)}),
        ("class_weights", {"class_weights": np.array([1.0, 0.0])}),
    ],
)
def test_bad_options_are_named(name: str, options: dict) -> None:
    labels = np.array([[[0, 255]]])
    with pytest.raises(ValueError, match=f"{name}: expected"):
        objective.mined_loss(np.zeros((1, 1, 2, 2)), labels, **options)


def test_labels_must_fit_the_scores() -> None:
    with pytest.raises(ValueError, match=r"labels: expected shape \(1, 2\), got \(1, 1\)"):
        objective.regularised_objective([np.zeros((1, 2, 2))], [np.zeros((1, 1), int)], {})
    with pytest.raises(ValueError, match="labels: expected labels in"):
        objective.regularised_objective([np.zeros((1, 2, 2))], [np.full((1, 2), -1)], {})
    with pytest.raises(ValueError, match=r"labels: expected shape \(1, 1, 2\)"):
        objective.mined_loss(np.zeros((1, 1, 2, 2)), np.zeros((1, 2), int))
    for fraction in (0.0, 1.1):
        with pytest.raises(ValueError, match=r"fraction: expected a number in \(0, 1\]"):
            objective.hard_pixels(np.ones(2), np.ones(2, bool), fraction=fraction)


def test_log_softmax_of_huge_scores() -> None:
    np.testing.assert_array_equal(objective.log_softmax(np.array([1e4, 0.0])), [0, -1e4])


def test_poly_rate() -> None:
    assert objective.poly_rate(3, steps=12) == pytest.approx(0.01 * 0.75**0.9, rel=1e-14)
    assert objective.poly_rate(3, steps=12, base=2.0, power=2.0) == 2 * 0.75**2
    rates = [objective.poly_rate(step, steps=7) for step in range(8)]
    assert rates == sorted(rates, reverse=True)


def test_decay_groups() -> None:
    weight, vector = np.ones((2, 2)), np.ones(2)
    assert objective.decay_group("centre.weight", weight) == (1.0, 1e-4)
    assert objective.decay_group("centre.weight", weight, weight_decay=0.3) == (1.0, 0.3)
    assert objective.decay_group("label.0.hidden.bias", vector) == (2.0, 0.0)
    for name, array in (("norm.weight", vector), ("crf.compatibility", weight)):
        assert objective.decay_group(name, array) == (1.0, 0.0)
    assert objective.decay_group("upsampling.weight", weight) == (0.1, 0.0)
    assert objective.decay_group("ring.0.weight", weight) == (0.1, 1e-4)


@few
@given(st.integers(0, 99))
def test_sgd_is_a_weighted_sum_of_all_past_gradients(seed) -> None:
    rng = np.random.default_rng(seed)
    theta = {"a.weight": rng.normal(size=(2, 2)), "a.bias": rng.normal(size=2)}
    velocity = {name: np.zeros_like(value) for name, value in theta.items()}
    start, seen, rates = theta, [], [0.3, 0.2, 0.1]
    for rate in rates:
        gradient = {name: rng.normal(size=value.shape) for name, value in theta.items()}
        seen.append((gradient, theta))
        theta, velocity = objective.sgd_step(theta, gradient, velocity, rate=rate, momentum=0.8, weight_decay=0.05)
    for name, factor, decay in (("a.weight", 1, 0.05), ("a.bias", 2, 0.0)):
        expected = start[name].copy()
        for t, rate in enumerate(rates):
            for past, (gradient, at) in enumerate(seen[: t + 1]):
                expected -= rate * factor * 0.8 ** (t - past) * (gradient[name] + decay * at[name])
        np.testing.assert_allclose(theta[name], expected, **EXACT)


def test_sgd_defaults_and_inputs_untouched() -> None:
    theta, gradient, velocity = ({"w": np.full((1, 1), value)} for value in (2.0, 3.0, 5.0))
    new, new_velocity = objective.sgd_step(theta, gradient, velocity, rate=0.1)
    assert new_velocity["w"][0, 0] == 0.9 * 5 + 3 + 1e-4 * 2
    assert new["w"][0, 0] == 2 - 0.1 * new_velocity["w"][0, 0]
    assert (theta["w"][0, 0], velocity["w"][0, 0]) == (2, 5)


@few
@given(st.integers(1, 4), st.integers(2, 6), st.integers(0, 99))
def test_batch_norm_weighs_every_pass_alike(passes, pixels, seed) -> None:
    rng = np.random.default_rng(seed)
    batches = [rng.normal(size=(pixels + k, 2, 3)) for k in range(passes)]  # of different sizes
    mean, variance = objective.recomputed_batch_norm(iter(batches))
    for c in range(3):
        columns = [batch[..., c].ravel() for batch in batches]
        assert mean[c] == pytest.approx(sum(x.sum() / len(x) for x in columns) / passes, abs=1e-12)
        unbiased = [((x - x.sum() / len(x)) ** 2).sum() / (len(x) - 1) for x in columns]
        assert variance[c] == pytest.approx(sum(unbiased) / passes, abs=1e-12)


@some
@given(st.integers(1, 4), st.integers(0, 99), st.sampled_from([0.0, 0.2, 1.0]))
def test_figures_by_their_definitions(classes, seed, ignored) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(0, classes, (2, 5, 6))
    truth[rng.random(truth.shape) < ignored] = 255
    truth[truth == classes - 1] = 0  # one class is absent from the truth
    valid = truth != 255
    matrix = objective.confusion_matrix(truth, predicted, classes)
    for a, b in np.ndindex(classes, classes):
        assert matrix[a, b] == (valid & (truth == a) & (predicted == b)).sum()
    iou, recall = [], []
    for c in range(classes):
        t, p = valid & (truth == c), valid & (predicted == c)
        iou.append((t & p).sum() / (t | p).sum() if (t | p).any() else np.nan)
        recall.append((t & p).sum() / t.sum() if t.any() else np.nan)
    np.testing.assert_allclose(objective.intersection_over_union(matrix), iou)
    if not valid.any():
        assert all(
            np.isnan(figure(matrix))
            for figure in (objective.mean_iou, objective.pixel_accuracy, objective.mean_accuracy)
        )
        return
    assert objective.mean_iou(matrix) == pytest.approx(np.nanmean(iou))
    assert objective.mean_accuracy(matrix) == pytest.approx(np.nanmean(recall))
    assert objective.pixel_accuracy(matrix) == pytest.approx((truth == predicted)[valid].mean())


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_class_of_one_pixel_counts_and_an_absent_one_does_not() -> None:
    confusion = np.array([[1, 0, 0, 0], [0, 2, 6, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(objective.intersection_over_union(confusion), [1, 0.25, 0, np.nan])
    assert objective.mean_iou(confusion) == pytest.approx(1.25 / 3)
    assert objective.mean_accuracy(confusion) == (1 + 0.25) / 2
    assert np.isnan(objective.mean_iou(0 * confusion))


def test_confusion_matrix_checks_the_labels() -> None:
    with pytest.raises(ValueError, match="truth: expected labels in"):
        objective.confusion_matrix(np.array([2]), np.array([0]), 2)
    matrix = objective.confusion_matrix(np.array([0, 9, 1]), np.array([0, 0, 0]), 2, ignore=9)
    assert matrix.tolist() == [[1, 0], [1, 0]]
    for wrong in (-1, 2):
        with pytest.raises(ValueError, match="predicted: expected labels in"):
            objective.confusion_matrix(np.array([0]), np.array([wrong]), 2)
    with pytest.raises(ValueError, match="argument 2"):
        objective.confusion_matrix(np.array([0, 1]), np.array([0]), 2)
