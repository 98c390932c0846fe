"""Distances to boundaries, Boundary IoU and trimaps against definitions counted pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmodel.evaluation.boundary import boundary_counts, boundary_distance, trimap_counts
from segmodel.evaluation.metrics import class_iou, mean_iou

maps = {
    "seed": st.integers(0, 2**32 - 1), "height": st.integers(1, 9), "width": st.integers(1, 9),
    "cell": st.integers(1, 4), "limit": st.integers(1, 6),
}  # fmt: skip


def random_map(rng, height, width, cell, values):
    """Random squares of ``cell`` pixels."""
    return rng.choice(values, (height, width)).repeat(cell, 0).repeat(cell, 1)[:height, :width].astype(np.uint8)


def distance_oracle(label, limit):
    """The definition, over all pairs of pixels."""
    ys, xs = np.indices(label.shape)
    result = np.full(label.shape, np.inf)
    for y, x in np.ndindex(label.shape):
        other = np.hypot(ys - y, xs - x)[label != label[y, x]]
        if other.size and other.min() <= limit:
            result[y, x] = other.min()
    return result


@settings(max_examples=60, deadline=None)
@given(**maps)
def test_distances_agree_with_the_definition(seed, height, width, cell, limit):
    label = random_map(np.random.default_rng(seed), height, width, cell, [0, 1, 2, 255])
    got = boundary_distance(label, limit=limit)
    np.testing.assert_allclose(got, distance_oracle(label, limit), rtol=1e-6)


def test_wide_limits_do_not_overflow():
    label = np.zeros((1, 400), np.uint8)
    label[0, 0] = 1
    assert np.isinf(boundary_distance(label[:, 1:], limit=40)).all()
    for limit in (127, 128, 300):  # the squares leave 16 bits between the first and the second
        distance = boundary_distance(label, limit=limit)
        np.testing.assert_array_equal(distance[0, 1 : limit + 1], np.arange(1, limit + 1))
        np.testing.assert_array_equal(boundary_distance(label.T, limit=limit), distance.T)
        assert np.isinf(distance[0, limit + 1 :]).all()


def outline_oracle(mask, limit):
    """Pixels of a mask with something outside it, or outside the picture, in the square of that radius."""
    padded = np.pad(mask, limit)
    near = np.zeros_like(mask)
    for y, x in zip(*np.nonzero(mask), strict=True):
        near[y, x] = not padded[y : y + 2 * limit + 1, x : x + 2 * limit + 1].all()
    return near


@settings(max_examples=40, deadline=None)
@given(**maps)
def test_boundary_iou_agrees_with_the_definition(seed, height, width, cell, limit):
    rng = np.random.default_rng(seed)
    label = random_map(rng, height, width, cell, [0, 1, 2, 255])
    prediction = random_map(rng, height, width, cell, [0, 1, 2])
    counts = boundary_counts(prediction, label, 3, ratio=limit / np.hypot(height, width))
    valid = label != 255
    for index, iou in enumerate(class_iou(counts)):
        truth = outline_oracle(label == index, limit)
        predicted = outline_oracle((prediction == index) & valid, limit)
        either = (truth | predicted).sum()
        assert (np.isnan(iou) and not either) or iou == pytest.approx((truth & predicted).sum() / either)


def test_a_perfect_prediction_has_boundary_iou_1_whatever_is_ignored():
    rng = np.random.default_rng(0)
    label = random_map(rng, 60, 70, 12, [0, 1, 2, 255])
    prediction = np.where(label == 255, rng.integers(0, 3, label.shape), label).astype(np.uint8)
    assert mean_iou(boundary_counts(prediction, label, 3)) == 1


def test_the_distance_is_two_percent_of_the_diagonal_and_never_less_than_a_pixel():
    label = np.zeros((300, 400), np.uint8)  # diagonal 500: a frame of 10 pixels remains
    inside = 280 * 380
    assert boundary_counts(label, label, 1)[1, 0] == label.size - inside
    flat = np.zeros((100, 430), np.uint8)  # 2 % of the diagonal are 8.83 pixels
    assert boundary_counts(flat, flat, 1)[1, 0] == flat.size - 82 * 412
    assert boundary_counts(label[:9, :9], label[:9, :9], 1)[1, 0] == 81 - 49


@settings(max_examples=40, deadline=None)
@given(**maps)
def test_distances_equal_those_of_scipy(seed, height, width, cell, limit):
    ndimage = pytest.importorskip("scipy.ndimage", reason="compares with scipy")
    label = random_map(np.random.default_rng(seed), 3 * height, 4 * width, cell, [0, 1, 2, 255])
    expected = np.full(label.shape, np.inf)
    if label.min() < label.max():
        for value in np.unique(label):  # to the nearest pixel outside this label
            inside = label == value
            expected[inside] = ndimage.distance_transform_edt(inside)[inside]
    expected[expected > limit] = np.inf
    np.testing.assert_allclose(boundary_distance(label, limit=limit), expected, rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(**maps)
def test_boundary_iou_equals_erosion_by_opencv(seed, height, width, cell, limit):
    """As the metric's authors have it: a mask less its erosion by a 3 x 3 square, as often as the distance has pixels,
    zeros around the picture."""
    cv2 = pytest.importorskip("cv2", reason="compares with opencv-contrib-python-headless")
    rng = np.random.default_rng(seed)
    label, prediction = (random_map(rng, 5 * height, 6 * width, cell, [0, 1, 2]) for _ in range(2))

    def outline(mask):
        framed = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        return mask & ~cv2.erode(framed, np.ones((3, 3), np.uint8), iterations=limit)[1:-1, 1:-1].astype(bool)

    counts = boundary_counts(prediction, label, 3, ratio=limit / np.hypot(*label.shape))
    for index in range(3):
        truth, predicted = outline(label == index), outline(prediction == index)
        assert counts[:, index].tolist() == [(truth & predicted).sum(), truth.sum(), predicted.sum()]


@settings(max_examples=40, deadline=None)
@given(**maps)
def test_trimaps_agree_with_the_definition(seed, height, width, cell, limit):
    rng = np.random.default_rng(seed)
    label = random_map(rng, height, width, cell, [0, 1, 2, 255])
    prediction = rng.integers(0, 3, label.shape).astype(np.uint8)
    distance = distance_oracle(label, limit)
    for width_, counts in zip((1, limit), trimap_counts(prediction, label, 3, widths=(1, limit)), strict=True):
        near = (distance <= width_) & (label != 255)
        for index in range(3):
            true, predicted = near & (label == index), near & (prediction == index)
            np.testing.assert_array_equal(counts[:, index], [(true & predicted).sum(), true.sum(), predicted.sum()])


def test_a_straight_boundary_has_bands_of_twice_the_width():
    label = np.zeros((5, 20), np.uint8)
    label[:, 10:] = 1
    for width, counts in zip((1, 3, 40), trimap_counts(label, label, 2, widths=(1, 3, 40)), strict=True):
        assert counts[1].sum() == 5 * min(2 * width, 20)
