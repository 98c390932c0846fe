"""Ceilings against brute force on tiny label maps, and their order on the scenes."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segmodel.data import open_data
from segmodel.evaluation.metrics import class_counts, mean_iou
from segmodel.experiments.ceilings import best_blocks, block_counts, ceilings, cell_counts, fitted_labels


def brute_force(counts: np.ndarray) -> float:
    codes = itertools.product(range(counts.shape[1]), repeat=len(counts))
    return max(float(mean_iou(block_counts(counts, np.array(code)))) for code in codes)


def test_blocks_reach_nearly_the_best_of_all_codes() -> None:
    """Single exchanges can end beside the optimum; on average they are much nearer to it than majority votes."""
    short, votes = [], []
    for seed in range(30):
        counts = np.random.default_rng(seed).integers(0, 30, (6, 3)) ** 2
        best = brute_force(counts)
        found, majority = (
            float(mean_iou(block_counts(counts, code))) for code in (best_blocks(counts), counts.argmax(1))
        )
        assert majority <= found <= best
        short.append(best - found)
        votes.append(best - majority)
    assert np.mean(short) < 1e-3
    assert np.mean(votes) > 0.01


def test_a_small_class_is_worth_more_than_its_pixels() -> None:
    """Two cells, 9:6 both: by majority the second class is lost, and the mean of the two IoU with it."""
    counts = np.array([[9, 6], [9, 6], [40, 0]])
    assert best_blocks(counts).tolist() != counts.argmax(1).tolist()
    assert mean_iou(block_counts(counts, best_blocks(counts))) == pytest.approx(brute_force(counts))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 2, 4]), st.integers(0, 99))
def test_cell_counts_are_the_histograms_of_the_cells(height: int, width: int, cell: int, seed: int) -> None:
    label = np.random.default_rng(seed).choice([0, 1, 2, 255], (height, width)).astype(np.uint8)
    counts = cell_counts(label, 3, cell=cell)
    assert counts.shape == (-(-height // cell), -(-width // cell), 3)
    for y, x in np.ndindex(counts.shape[:2]):
        part = label[cell * y : cell * (y + 1), cell * x : cell * (x + 1)]
        assert counts[y, x].tolist() == [int((part == value).sum()) for value in range(3)]


def test_block_counts_are_those_of_the_painted_map() -> None:
    label = np.random.default_rng(0).integers(0, 3, (8, 12)).astype(np.uint8)
    counts = cell_counts(label, 3, cell=4)
    code = counts.argmax(-1)
    painted = class_counts(code.repeat(4, 0).repeat(4, 1), label, 3)
    np.testing.assert_array_equal(block_counts(counts.reshape(-1, 3), code.ravel()), painted)


def test_a_fitted_code_draws_what_blocks_cannot() -> None:
    """A slanted straight boundary is linear in the scores: the enlarged code follows it, blocks make steps."""
    y, x = np.indices((32, 32))
    label = (2 * y > x + 13).astype(np.uint8)
    label[0, 0] = 255
    fitted = fitted_labels(label, 3, cell=8)
    blocks = cell_counts(label, 3, cell=8).argmax(-1).repeat(8, 0).repeat(8, 1)
    wrong = [int((code != label)[label != 255].sum()) for code in (fitted, blocks)]
    assert wrong[0] < wrong[1] / 3
    assert fitted_labels(np.full((5, 5), 255, np.uint8), 3, cell=4).tolist() == [[0] * 5] * 5


def test_finer_codes_reach_more_on_scenes() -> None:
    torch.set_grad_enabled(False)
    try:
        found = ceilings(open_data("scenes:val=3", split="val"))
    finally:
        torch.set_grad_enabled(True)
    assert found[16]["blocks"] < found[8]["blocks"] < found[4]["blocks"] < 1
    assert found[16]["bilinear"] < found[8]["bilinear"] < found[4]["bilinear"] < 1
    assert all(row["bilinear"] > row["blocks"] for row in found.values())


def test_cells_of_one_class_need_not_be_kept() -> None:
    """They are most of a picture, and all that a class holds counts as one cell."""
    data = open_data("scenes:val=2", split="val")
    classes = len(data.classes)
    counts = np.concatenate([cell_counts(data[i].label, classes, cell=16).reshape(-1, classes) for i in range(2)])
    expected = mean_iou(block_counts(counts, best_blocks(counts)))
    assert ceilings(data, cells=(16,))[16]["blocks"] == pytest.approx(float(expected), abs=1e-3)
