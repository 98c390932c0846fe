"""The picture of two segmentations: labels of anything, what differs, close-ups, legend."""

import numpy as np
import pytest
import torch
from PIL import Image

import segmodel
from segmodel.common.pictures import busiest_windows, lettered
from segmodel.inference.comparison import AFTER, BEFORE, BOTH, boundaries_on, compare, labels_of


def image(height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def halves(at: int, height: int = 40, width: int = 60) -> np.ndarray:
    return np.tile((np.arange(width) >= at).astype(np.uint8), (height, 1))


def test_labels_masks_scores_and_pictures_are_compared_alike(tmp_path):
    labels = halves(30)
    scores = np.stack([5.0 * (labels == 0), 5.0 * (labels == 1)]).astype(np.float16)
    Image.fromarray(labels).save(tmp_path / "labels.png")
    for given in (labels, labels.astype(np.int64), labels == 1, labels.astype(np.float32), 4.0 * labels - 2, scores,
                  scores[None], torch.from_numpy(labels), Image.fromarray(labels), tmp_path / "labels.png",
                  Image.fromarray(labels == 1)):  # fmt: skip
        np.testing.assert_array_equal(labels_of("before", given, (40, 60)), labels)
    np.testing.assert_array_equal(labels_of("before", scores.transpose(1, 2, 0), (40, 60), "HWC"), labels)
    small = labels[::4, ::4].astype(np.int64) * 300
    np.testing.assert_array_equal(labels_of("before", small, (40, 60)), np.kron(small, np.ones((4, 4), int)))
    assert labels_of("before", scores[:, ::4, ::4], (40, 60)).shape == (40, 60)


def test_boundaries_have_the_colours_of_the_legend():
    drawn = boundaries_on(image(), halves(20), halves(30))
    assert (drawn[:, 20] == BEFORE).all()
    assert (drawn[:, 30] == AFTER).all()
    assert (boundaries_on(image(), halves(20), halves(20))[:, 20] == BOTH).all()
    grey = drawn[:, 40]
    assert (grey[:, 0] == grey[:, 1]).all()
    assert grey.min() >= 128


def test_the_picture_says_what_differs_and_shows_where():
    same = compare(image(), halves(30), halves(30))
    different = compare(image(), halves(30), halves(33), names=("sky", "rest"), close_ups=2)
    assert isinstance(different, Image.Image)
    assert different.height > same.height + 2 * 240
    colours = np.asarray(different).reshape(-1, 3)
    assert (colours == BEFORE).all(1).sum() > 100 < (colours == AFTER).all(1).sum()
    assert not (np.asarray(same).reshape(-1, 3) == AFTER).all(1).sum() > 400  # but for the square in the legend
    assert segmodel.compare is compare


def test_windows_hold_what_differs_most_and_do_not_show_it_twice():
    where = np.zeros((50, 80), bool)
    where[5:9, 5:9] = where[40:43, 70:74] = where[40, 5] = True
    first, second, third = busiest_windows(where, (10, 16), 5)
    assert [int(where[window].sum()) for window in (first, second, third)] == [16, 12, 1]
    assert busiest_windows(np.zeros((5, 6), bool), (10, 10), 3) == [np.s_[0:5, 0:6]]


def test_a_strip_of_letters_breaks_its_lines():
    one, two = lettered([("word", None)], 300), lettered([("word", (9, 9, 9))] * 9, 300)
    assert two.shape[0] == 2 * one.shape[0] or two.shape[0] == 3 * one.shape[0]
    assert one.shape[1] == two.shape[1] == 300


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (np.zeros((2, 3, 40, 60)), r"before: expected labels or a mask \(h, w\), or scores \(C, h, w\), got float64"),
        (np.zeros((3, 40, 60), int), "before: expected labels or a mask"),
        (np.zeros((40, 60, 3)), 'before: expected height and width last .* give layout="HWC"'),
        ("none.png", "none.png: no such file"),
    ],
)
def test_what_does_not_fit_is_named(before, message):
    with pytest.raises(ValueError, match=message):
        compare(image(), before, halves(3))
