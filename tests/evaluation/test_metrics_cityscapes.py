"""Our figures are those of Cityscapes' own evaluation on the same predictions, exactly."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segmodel.data import open_data
from segmodel.data.cityscapes import CLASSES, IDS
from segmodel.evaluation.metrics import class_counts, scores

NAMES = [f"frankfurt_000000_{number:06d}" for number in range(3)]


def drawn(rng: np.random.Generator, values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map of boxes, as labels are, not of noise."""
    label = np.full(size, rng.choice(values), np.uint8)
    for _ in range(40):
        y, x = rng.integers(0, size[0]), rng.integers(0, size[1])
        label[y : y + rng.integers(1, 30), x : x + rng.integers(1, 30)] = rng.choice(values)
    return label


def their_scores(evaluation, truth: list[Path], predictions: list[Path]) -> dict:
    arguments = evaluation.args
    arguments.evalInstLevelScore, arguments.JSONOutput, arguments.quiet = False, False, True
    results = evaluation.evaluateImgLists(list(map(str, predictions)), list(map(str, truth)), arguments)
    return json.loads(json.dumps(results, default=float))


@settings(max_examples=5, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), kept=st.integers(2, 19))
def test_equals_cityscapes_evaluation(tmp_path_factory, seed, kept):
    """All 34 ids in the truth, some of the 19 classes in the predictions: also classes that are in one alone."""
    evaluation = pytest.importorskip(
        "cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling", reason="needs cityscapesScripts"
    )
    root, rng = tmp_path_factory.mktemp("cityscapes"), np.random.default_rng(seed)
    counts, truth, predictions = np.zeros((3, 19), np.int64), [], []
    ids = rng.choice(34, kept + 10, replace=False).astype(np.uint8)
    for name in NAMES:
        for folder in ("leftImg8bit/val/frankfurt", "gtFine/val/frankfurt", "predictions"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        truth.append(root / "gtFine/val/frankfurt" / f"{name}_gtFine_labelIds.png")
        predictions.append(root / "predictions" / f"{name}.png")
        Image.fromarray(drawn(rng, ids, (64, 96))).save(truth[-1])
        Image.new("RGB", (96, 64)).save(root / "leftImg8bit/val/frankfurt" / f"{name}_leftImg8bit.png")
    data = open_data(f"cityscapes:{root}", split="val")
    for index, file in enumerate(predictions):
        label = data[index].label
        prediction = np.where(rng.random(label.shape) < 0.7, label % 255 % 19, drawn(rng, np.arange(kept), label.shape))
        counts += class_counts(prediction, label, 19)
        Image.fromarray(np.array(IDS, np.uint8)[prediction]).save(file)
    theirs, ours = their_scores(evaluation, truth, predictions), scores(counts)
    assert not np.isnan(ours.miou)
    for name, value in zip(CLASSES, ours.iou, strict=True):
        np.testing.assert_array_equal(value, theirs["classScores"][name])
    np.testing.assert_allclose(ours.miou, theirs["averageScoreClasses"], rtol=1e-15)  # the order of 19 additions
