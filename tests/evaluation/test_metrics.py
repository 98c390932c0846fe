"""The confusion matrix and its figures."""

import math
import warnings
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmodel.evaluation.metrics import (
    Interval,
    bootstrap,
    class_counts,
    confusion_matrix,
    mean_iou,
    pixel_accuracy,
    table,
)
from segmodel.evaluation.metrics import scores as scores_of
from segmodel.reference import objective


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(1, 200))
def test_the_confusion_matrix_is_the_oracles(seed, classes):
    rng = np.random.default_rng(seed)
    label = rng.choice([*range(classes), 255], (5, 7)).astype(np.uint8)
    prediction = rng.integers(0, classes, (5, 7)).astype(np.uint8)
    got = confusion_matrix(prediction, label, classes)
    np.testing.assert_array_equal(got, objective.confusion_matrix(label, prediction, classes))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(1, 6), height=st.integers(0, 9), width=st.integers(0, 9))
def test_scores_agree_with_counting_pixels(seed, classes, height, width):
    rng = np.random.default_rng(seed)
    label = rng.choice([*range(classes), 255], (height, width)).astype(np.uint8)
    prediction = rng.integers(0, classes, (height, width)).astype(np.uint8)
    upper = class_counts(prediction[: height // 2], label[: height // 2], classes)
    scores = scores_of(upper + class_counts(prediction[height // 2 :], label[height // 2 :], classes))
    valid = label != 255
    for index in range(classes):
        both = np.sum(valid & (label == index) & (prediction == index))
        either = np.sum(valid & ((label == index) | (prediction == index)))
        assert (math.isnan(scores.iou[index]) and either == 0) or scores.iou[index] == both / either
    present = [value for value in scores.iou if not math.isnan(value)]
    if present:
        assert scores.miou == pytest.approx(np.mean(present), abs=1e-12)
        assert scores.pixel_accuracy == np.mean(prediction[valid] == label[valid])
    else:
        assert math.isnan(scores.miou)


def test_a_class_absent_from_truth_but_predicted_counts_as_zero():
    scores = scores_of(class_counts(np.array([[0, 1]], np.uint8), np.array([[0, 0]], np.uint8), 3))
    assert scores.iou[:2] == (0.5, 0.0)
    assert math.isnan(scores.iou[2])
    assert scores.miou == 0.25
    assert scores.mean_accuracy == 0.5  # over the classes of the truth


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"prediction: expected the label's shape \(1, 2\), got \(2, 1\)"):
        class_counts(np.zeros((2, 1), np.uint8), np.zeros((1, 2), np.uint8), 2)


@pytest.mark.parametrize(("name", "prediction", "label"), [("prediction", 2, 0), ("label", 0, 2)])
def test_numbers_that_are_no_class_are_errors(name, prediction, label):
    with pytest.raises(ValueError, match=rf"{name}: expected classes 0\.\.1, got 2\.\.2"):
        class_counts(np.array([prediction]), np.array([label]), 2)


def test_table_shows_absent_classes_as_dashes():
    counts = class_counts(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), 2)
    text = table({"model": scores_of(counts)}, ("sky", "road"))
    assert "sky" in text
    assert "100.00" in text
    assert next(line for line in text.splitlines() if line.startswith("road")).endswith("-")


def random_counts(rng, images, classes=3, pixels=40, accuracy=0.8):
    """Counts ``(N, 3, C)`` of images of random labels, each pixel right with this probability."""
    parts = []
    for _ in range(images):
        label = rng.integers(0, classes, pixels)
        wrong = rng.integers(0, classes, pixels)
        prediction = np.where(rng.random(pixels) < accuracy, label, wrong)
        parts.append(class_counts(prediction.astype(np.uint8), label.astype(np.uint8), classes))
    return np.stack(parts)


def test_counts_give_the_scores_of_the_whole_set():
    rng = np.random.default_rng(0)
    counts = random_counts(rng, 5)
    whole = scores_of(counts.sum(0))
    assert whole.miou == pytest.approx(mean_iou(counts.sum(0)), abs=0)
    assert whole.pixel_accuracy == pixel_accuracy(counts.sum(0))
    assert whole.ade20k_score == pytest.approx((whole.miou + whole.pixel_accuracy) / 2, abs=0)
    assert mean_iou(counts.sum(0), classes=[0, 2]) == pytest.approx((whole.iou[0] + whole.iou[2]) / 2, abs=1e-15)
    assert np.isnan(mean_iou(np.zeros((3, 2), np.int64)))


def test_a_resample_is_the_figure_of_its_images_drawn_one_by_one():
    rng = np.random.default_rng(1)
    counts = random_counts(rng, 12)
    draws = np.random.default_rng(3).multinomial(12, np.full(12, 1 / 12), size=200)
    values = [float(mean_iou(np.repeat(counts, draw, axis=0).sum(0))) for draw in draws]
    expected = Interval(float(mean_iou(counts.sum(0))), *np.quantile(values, [0.05, 0.95]).tolist())
    got = bootstrap(counts, resamples=200, seed=3, level=0.9)
    assert (got.value, got.low, got.high) == pytest.approx((expected.value, expected.low, expected.high), abs=1e-12)
    assert got == bootstrap(counts, resamples=200, seed=3, level=0.9)
    assert got != bootstrap(counts, resamples=200, seed=4, level=0.9)


@pytest.mark.parametrize("paired", [False, True])
def test_intervals_are_those_of_scipy(paired):
    """With 10,000 resamples the ends of 95 % intervals scatter by under 1 % of their length."""
    stats = pytest.importorskip("scipy.stats", reason="compares with scipy")
    rng = np.random.default_rng(6)
    one = random_counts(rng, 25, accuracy=0.6)
    two = one - np.array([[1], [0], [0]]) * (one // 8)  # the same images, a little worse: it matters that they pair

    def figure(images, axis):
        value = mean_iou(one[images].sum(-3))
        return value - mean_iou(two[images].sum(-3)) if paired else value

    expected = stats.bootstrap((np.arange(25),), figure, method="percentile", n_resamples=10_000, rng=rng,
                               vectorized=True, batch=1000).confidence_interval  # fmt: skip
    got = bootstrap(one, minus=two if paired else None, resamples=10_000)
    length = expected.high - expected.low
    assert got.low == pytest.approx(expected.low, abs=0.04 * length)
    assert got.high == pytest.approx(expected.high, abs=0.04 * length)


def test_a_difference_is_paired_and_seeds_are_averaged():
    rng = np.random.default_rng(2)
    one, two, other = (random_counts(rng, 20) for _ in range(3))
    assert bootstrap(one, minus=one) == Interval(0, 0, 0)
    both = bootstrap(np.stack([one, two]), minus=other, seed=5)
    parts = [float(mean_iou(part.sum(0))) for part in (one, two, other)]
    assert both.value == pytest.approx((parts[0] + parts[1]) / 2 - parts[2], abs=1e-12)
    forth, back = bootstrap(one, minus=two, seed=5), bootstrap(two, minus=one, seed=5)
    assert (forth.value, forth.low, forth.high) == pytest.approx((-back.value, -back.high, -back.low), abs=1e-12)
    with pytest.raises(ValueError, match="expected the same images, at least one; got 20 and 19"):
        bootstrap(one, minus=two[:19])


def test_resamples_without_a_figure_count_for_nothing():
    """Class 2 stands in one image of 30, class 3 in none."""
    counts = np.zeros((30, 3, 4), np.int64)
    counts[:, :, 0] = 5
    counts[7, :, 2] = [3, 4, 4]
    found = bootstrap(counts, figure=partial(mean_iou, classes=[2]))
    assert found == Interval(0.6, 0.6, 0.6)
    with warnings.catch_warnings(action="error"):
        absent = bootstrap(counts, figure=partial(mean_iou, classes=[3]))
    assert np.isnan([absent.value, absent.low, absent.high]).all()


def test_drawn_runs_widen_the_interval_by_their_spread():
    """Runs that differ among themselves more than their images do: an interval over images alone is too short."""
    rng = np.random.default_rng(2)
    one = random_counts(rng, 60)
    runs = np.stack([one + extra * np.array([[1], [1], [1]]) for extra in (0, 20, 40)])
    fixed, drawn = bootstrap(runs, seed=5), bootstrap(runs, draw_runs=True, seed=5)
    assert drawn.value == fixed.value
    assert drawn.high - drawn.low > 2 * (fixed.high - fixed.low)
    assert bootstrap(runs, minus=runs, draw_runs=True) == Interval(0, 0, 0)
    with pytest.raises(ValueError, match="minus: expected as many runs as counts has, 3, got 2"):
        bootstrap(runs, minus=runs[:2], draw_runs=True)


def test_a_resample_draws_its_own_runs_and_images():
    rng = np.random.default_rng(4)
    counts, minus = (np.stack([random_counts(rng, 12, accuracy=share) for share in (0.3, 0.9)]) for _ in range(2))
    rng = np.random.default_rng(3)
    draws = rng.multinomial(12, np.full(12, 1 / 12), size=50)
    values = []
    for draw, runs in zip(draws, rng.integers(0, 2, (50, 2)), strict=True):
        one, other = (mean_iou(np.repeat(side[runs], draw, axis=1).sum(1)) for side in (counts, minus))
        values.append(np.mean(one - other))
    got = bootstrap(counts, minus=minus, draw_runs=True, resamples=50, seed=3, level=0.9)
    assert (got.low, got.high) == pytest.approx(np.quantile(values, [0.05, 0.95]).tolist(), abs=1e-12)


def test_the_paired_interval_covers_the_true_difference():
    """Two results of which one is 3 points more accurate, on images of uneven difficulty; 200 sets of 30 images.

    Nominal 95 %, a little less with 30 images; fewer than 87 % in 200 trials would be 3 standard deviations below 93 %.
    """
    rng = np.random.default_rng(0)

    def results(images: int) -> list[np.ndarray]:
        label = rng.integers(0, 2, (images, 100))
        chance = rng.random(label.shape) - rng.uniform(0.5, 0.95, (images, 1))
        pair = [np.where(chance < gain, label, 1 - label) for gain in (0.03, 0.0)]
        return [
            np.stack([[((p == c) & (label == c)).sum(1), (label == c).sum(1), (p == c).sum(1)] for c in (0, 1)])
            .transpose(2, 1, 0) for p in pair
        ]  # fmt: skip

    def iou(accuracy: float) -> float:  # of each of two equally frequent classes
        return accuracy / (2 - accuracy)

    truth = iou(0.725 + 0.03) - iou(0.725)
    covered, width = 0, 0.0
    for trial in range(200):
        better, worse = results(30)
        found = bootstrap(better, minus=worse, resamples=300, seed=trial)
        covered += found.low <= truth <= found.high
        width += (found.high - found.low) / 200
    assert 174 <= covered <= 199
    alone = bootstrap(worse)
    assert width < (alone.high - alone.low) / 3  # what pairing is for
