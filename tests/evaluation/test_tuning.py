"""The tuning of the refinement: finds what helps, leaves alone what does not, and its file is read by refine."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from segmodel.common import cli
from segmodel.common.errors import UserError
from segmodel.data import Sample, open_data
from segmodel.evaluation.tuning import report, tune_refinement
from segmodel.inference.refinement import read_settings
from segmodel.model.untrained_crf import Refinement
from segmodel.tune import main, scores_of

CLASSES = 12


def coarse(label: np.ndarray) -> np.ndarray:
    """(C, 32, 32) logits: a coarse map of the truth."""
    return 3 * np.eye(CLASSES, dtype=np.float32)[np.where(label == 255, 0, label)[::4, ::4]].transpose(2, 0, 1)


@pytest.fixture(scope="module")
def samples():
    data = open_data("scenes", split="val")
    return [(coarse(data[index].label), data[index].image, data[index].label) for index in range(3)]


@pytest.mark.parametrize("metric", ["miou", "boundary_iou"])
def test_coarse_scores_gain_and_the_result_is_the_best_tried(samples, metric):
    tuned = tune_refinement(
        samples, metric=metric, start=Refinement(stride=1), values={"radius": (1, 3), "eps": (1.0, 30.0)}
    )
    assert tuned.after > tuned.before + 0.01
    assert tuned.after == max(tuned.tried.values())
    assert tuned.settings.stride == 1
    figures = report(samples, tuned.settings)
    assert figures["after"][metric] == pytest.approx(tuned.after)
    assert figures["before"][metric] == pytest.approx(tuned.before)
    assert figures["after"]["trimap_5"] > figures["before"]["trimap_5"]
    assert figures["gain"][metric] == (tuned.gain.value, tuned.gain.low, tuned.gain.high)
    assert tuned.gain.low <= tuned.gain.value <= tuned.gain.high
    assert tuned.gain.value == pytest.approx(tuned.after - tuned.before)
    assert tuned.over_start.value == pytest.approx(tuned.after - tuned.started)
    assert tuned.started == tuned.tried[Refinement(stride=1)]


def test_where_nothing_helps_the_weight_is_zero(samples):
    perfect = [(10 * np.eye(CLASSES, dtype=np.float32)[np.where(label == 255, 0, label)].transpose(2, 0, 1), 
                np.random.default_rng(0).integers(0, 256, image.shape, np.uint8), label)
               for _, image, label in samples[:1]]  # fmt: skip
    tuned = tune_refinement(perfect, values={"weight": (20.0, 0.0), "radius": (8,)}, start=Refinement(weight=20.0))
    assert tuned.settings.weight == 0
    assert tuned.after == tuned.before == 1.0


def test_no_samples_and_other_metrics_are_errors():
    with pytest.raises(ValueError, match="at least one sample"):
        tune_refinement([])
    image, label = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
    with pytest.raises(ValueError, match="at most 255 classes"):
        tune_refinement([(np.ones((300, 8, 8), np.float32), image, label)])
    with pytest.raises(ValueError, match="values: expected fields of Refinement, got radus"):
        tune_refinement([(np.ones((2, 8, 8), np.float32), image, label)], values={"radus": (1,)})


def test_samples_may_be_tensors_and_come_one_by_one(samples):
    values = {"weight": (2.0,)}
    expected = tune_refinement(samples, values=values)
    found = tune_refinement((tuple(map(torch.from_numpy, sample)) for sample in samples), values=values)
    assert (found.before, found.after) == (expected.before, expected.after)


def test_samples_may_be_pil_images_of_any_mode(samples):
    values = {"weight": (2.0,)}
    indexed = [(s, Image.fromarray(image).convert("P"), label) for s, image, label in samples]
    found = tune_refinement(indexed, values=values)
    plain = tune_refinement([(s, image.convert("RGB"), label) for s, image, label in indexed], values=values)
    assert (found.before, found.after) == (plain.before, plain.after)


def test_two_pictures_of_one_name_are_an_error(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 4, 4), np.float32))
    scores = scores_of(str(tmp_path), "cpu", None)
    image = np.zeros((4, 4, 3), np.uint8)
    for _ in range(2):  # the same picture may come twice
        scores(Sample(image, image[..., 0], "a"))
    with pytest.raises(UserError, match=r"a\.npy: expected pictures of different names, got two that are named a"):
        scores(Sample(image + 1, image[..., 0], "a"))


def test_the_command_reads_a_folder_of_scores(tmp_path, capsys):
    for split in ("train", "val"):
        data = open_data("scenes:train=2,val=2", split=split)
        for index in range(2):
            np.save(tmp_path / f"{data[index].name}.npy", coarse(data[index].label))
    given = [str(tmp_path), "--data", "scenes:train=2,val=2", "--images", "2"]
    target = tmp_path / "tuned.json"
    assert cli.run("tune", main, [*given, "--report", "val", "--output", str(target)]) == 0
    assert "ms an image" in capsys.readouterr().out
    content = json.loads(target.read_text())
    assert content["after"] >= content["before"]
    assert content["gain"]["low"] <= content["gain"]["value"] <= content["gain"]["high"]
    assert read_settings(target) == content["settings"]
    target.unlink()
    np.save(tmp_path / f"{data[1].name}.npy", coarse(data[1].label) / 3)  # probabilities
    assert cli.run("tune", main, [*given, "--report", "val", "--output", str(target)]) == 2
    assert f"{data[1].name}: scores: expected logits, got probabilities" in capsys.readouterr().err
    assert read_settings(target) == content["settings"], "what was found before is kept"
    mine = tmp_path / "mine"
    for place in ("images", "labels"):
        for split in ("train", "val"):
            (mine / place / split).mkdir(parents=True)
            Image.fromarray(np.full((8, 8), 2 * (split == "val"), np.uint8)).save(mine / place / split / f"{split}.png")
    classes = '[{ name = "a", colour = [0, 0, 0] }, { name = "b", colour = [9, 9, 9] }]'
    (mine / "classes.toml").write_text(f'labels = "index"\nclasses = {classes}\n')
    for split in ("train", "val"):
        np.save(mine / f"{split}.npy", np.full((2, 8, 8), -3, np.float32))
    assert cli.run("tune", main, [str(mine), "--data", f"folder:{mine}", "--report", "val"]) == 2
    assert f"error: {mine}/labels/val/val.png: label value 2" in capsys.readouterr().err
    for shape in ((3, 4, 4), (12, 0, 4)):
        np.save(tmp_path / f"{data[0].name}.npy", np.zeros(shape, np.float32))
        assert cli.run("tune", main, [*given, "--split", "val"]) == 2
        assert f"expected scores of 12 classes, got {shape}" in capsys.readouterr().err
    (tmp_path / f"{data[0].name}.npy").unlink()
    assert cli.run("tune", main, [*given, "--split", "val"]) == 2
    assert "cannot be read as an .npy file" in capsys.readouterr().err
