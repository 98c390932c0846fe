"""The confusion matrix and its figures."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmodel.metrics import ConfusionMatrix, table


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(1, 6), height=st.integers(0, 9), width=st.integers(0, 9))
def test_scores_agree_with_counting_pixels(seed, classes, height, width):
    rng = np.random.default_rng(seed)
    label = rng.choice([*range(classes), 255], (height, width)).astype(np.uint8)
    prediction = rng.integers(0, classes, (height, width)).astype(np.uint8)
    matrix = ConfusionMatrix(classes)
    matrix.update(prediction[: height // 2], label[: height // 2])
    matrix.update(prediction[height // 2 :], label[height // 2 :])
    scores = matrix.scores()
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
    matrix = ConfusionMatrix(3)
    matrix.update(np.array([[0, 1]], np.uint8), np.array([[0, 0]], np.uint8))
    scores = matrix.scores()
    assert scores.iou[:2] == (0.5, 0.0)
    assert math.isnan(scores.iou[2])
    assert scores.miou == 0.25
    assert scores.mean_accuracy == 0.5  # over the classes of the truth


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"prediction: expected the label's shape \(1, 2\), got \(2, 1\)"):
        ConfusionMatrix(2).update(np.zeros((2, 1), np.uint8), np.zeros((1, 2), np.uint8))


def test_table_shows_absent_classes_as_dashes():
    matrix = ConfusionMatrix(2)
    matrix.update(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))
    text = table({"model": matrix.scores()}, ("sky", "road"))
    assert "sky" in text
    assert "100.00" in text
    assert next(line for line in text.splitlines() if line.startswith("road")).endswith("-")
