"""The evaluate command: its figures are those of the metrics, results can be compared, mistakes are one line."""

import csv
import json

import numpy as np
import pytest
import torch
from inference_tools import tiny_run

from segmodel import evaluate as command
from segmodel import tune
from segmodel.common import cli
from segmodel.common.errors import UserError
from segmodel.data import SegmentationData, open_data
from segmodel.evaluation import evaluate, per_image
from segmodel.evaluation.boundary import boundary_counts, trimap_counts
from segmodel.evaluation.metrics import class_counts, mean_iou
from segmodel.experiments.results import run_figures
from segmodel.inference.views import InferenceConfig, predict_images
from segmodel.segmodel import SegModel

CPU = ("--device", "cpu", "--precision", "float32")


def run(*arguments):
    return cli.run("evaluate", command.main, [*map(str, arguments), *CPU])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [tiny_run(folder / str(seed), seed=seed) for seed in (0, 1)]


def test_figures_are_those_of_the_predictions(runs):
    """Two models, two scales, mirrors: every count from the label maps themselves."""
    models, data = [SegModel.load(path) for path in runs], open_data("scenes:val=3", split="val")
    config = InferenceConfig(scales=(0.5, 1.0), mirror=True, batch_size=2)
    ways = {"off": False, "on": True}
    alone = [predict_images(models, data[index].image[None], guidance=ways, config=config) for index in range(3)]
    found = evaluate.evaluate_images(
        models, data, guidance=ways, config=config, boundary=0.05, widths=(1, 4), shown=[2],
        description="test",
    )  # fmt: skip
    assert list(found) == ["off", "on"]
    for title, result in found.items():
        assert result.names == tuple(data[index].name for index in range(3))
        for index in range(3):
            sample = data[index]
            prediction = alone[index][title].labels()[0]
            near = trimap_counts(prediction, sample.label, 12, widths=(1, 4))
            # a batch of another size may turn a tie: at most a few of the 16384 pixels
            for got, expected in (
                (result.counts[index], class_counts(prediction, sample.label, 12)),
                (result.boundary[index], boundary_counts(prediction, sample.label, 12, ratio=0.05)),
                (result.trimap[index, 0], near[0]),
                (result.trimap[index, 1], near[1]),
            ):
                assert np.abs(got - expected).sum() <= 20
        assert result.scores.miou == mean_iou(result.counts.sum(0))
        assert (result.seconds > 0).all()
        assert len(result.labels) == 1
        assert (result.labels[0] != prediction).sum() <= 20
    assert not np.array_equal(found["off"].counts, found["on"].counts)


def test_scores_of_a_model_in_training_leave_it_so_and_a_limit_takes_fewer(runs):
    model, data = SegModel.load(runs[0]), open_data("scenes:val=5", split="val")
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scores = evaluate.evaluate(model, data, images=2, leave=False)["model"]
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    two = evaluate.evaluate_images([model.eval()], data, images=2)["model"]
    assert two.names == ("val-00000", "val-00004")
    assert two.scores == scores
    whole = evaluate.evaluate_whole(model, data, images=2, confusion=True, leave=False)["model"]
    np.testing.assert_array_equal(whole.counts, two.counts)
    np.testing.assert_array_equal(whole.confusion.sum(1), whole.counts.sum(0)[1])
    np.testing.assert_array_equal(whole.confusion.sum(0), whole.counts.sum(0)[2])
    assert two.confusion is None


def test_everything_is_printed_and_written(runs, tmp_path, capsys):
    lines, figures, sheet = (tmp_path / name for name in ("one.jsonl", "one.json", "one.csv"))
    common = (runs[0], "--guidance", "both", "--boundary", "--trimap", "1,5", "--classes", "sky, road")
    assert run(*common, "--per-image", lines, "--json", figures, "--bootstrap", 50) == 0
    text = capsys.readouterr().out
    for part in ("3 images", "Boundary IoU", "mIoU within 5 px", "mIoU of chosen classes", "chosen classes: sky, road",
                 "guidance on: mIoU minus guidance off: ", "(95 % interval "):  # fmt: skip
        assert part in text
    content = json.loads(figures.read_text())
    assert content["inference"]["scales"] == [1.0]
    one = content["results"]["guidance on"]
    assert set(one["miou_within"]) == {"1", "5"}
    assert one["intervals"]["mIoU"]["value"] == pytest.approx(one["miou"], abs=1e-12)
    assert one["intervals"]["mIoU"]["low"] <= one["miou"] <= one["intervals"]["mIoU"]["high"]
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [row["image"] for row in rows if row["result"] == "guidance off"] == [f"val-0000{i}" for i in range(3)]
    total = np.sum([[row[key] for key in ("correct", "true", "predicted")] for row in rows[3:]], 0)
    assert mean_iou(total) == pytest.approx(one["miou"], abs=1e-12)
    assert run(runs[0], "--per-image", sheet) == 0
    table = list(csv.DictReader(sheet.open()))
    assert set(table[0]) == {"image", "result", "miou", "pixel_accuracy"}
    assert len(table) == 3


def test_a_result_compared_with_itself_differs_by_nothing(runs, tmp_path, capsys):
    lines, figures = tmp_path / "one.jsonl", tmp_path / "two.json"
    assert run(runs[0], "--per-image", lines) == 0
    assert run(runs[0], "--compare", lines) == 0
    assert f"mIoU minus {lines}: model: +0.00 (95 % interval +0.00 to +0.00)" in capsys.readouterr().out
    assert run(runs[0], "--compare", lines, "--per-image", lines) == 2
    assert f"--compare: expected another file than those that are written, got {lines}" in capsys.readouterr().err
    assert run(runs[1], "--compare", lines, "--json", figures) == 0
    results = json.loads(figures.read_text())["results"]["model"]
    difference = results["intervals"][f"mIoU minus {lines}: model"]
    assert difference["low"] <= difference["value"] <= difference["high"]
    assert difference["low"] < difference["high"]


def test_where_the_images_are_others_the_figures_are_kept(runs, tmp_path, capsys):
    lines, figures, rows = tmp_path / "one.jsonl", tmp_path / "two.json", tmp_path / "two.jsonl"
    assert run(runs[0], "--images", 1, "--per-image", lines) == 0
    capsys.readouterr()
    assert run(runs[0], "--compare", lines, "--json", figures, "--per-image", rows) == 2
    out, err = capsys.readouterr()
    assert "expected the same images" in err
    assert "mIoU" in out
    assert len(rows.read_text().splitlines()) == 3
    assert "intervals" not in json.loads(figures.read_text())["results"]["model"]


def test_the_figures_say_what_they_are_of(runs, tmp_path):
    file = tmp_path / "figures.json"
    given = {"guidance_radius": 6, "guidance_weight": 8.0, "limit": 2, "boundary": 0.03}
    flags = ["--guidance-radius", 6, "--guidance-weight", 8, "--images", 2, "--boundary", 0.03]
    assert run(runs[0], *flags, "--guidance", "on", "--classes", "sky,road,sky", "--json", file) == 0
    content = json.loads(file.read_text())
    assert {name: content[name] for name in given} == given
    assert content["guidance"] == "on"
    result = content["results"]["guidance on"]
    of_classes = [result["iou"][name] for name in ("sky", "road") if result["iou"][name] is not None]
    assert result["miou_of_classes"] == pytest.approx(np.mean(of_classes))


def test_only_the_data_set_that_ranks_by_a_score_has_it(runs, capsys, monkeypatch):
    assert run(runs[0], "--images", 1) == 0
    out = capsys.readouterr().out
    assert "ADE20K" not in out
    assert "held out" not in out
    monkeypatch.setattr(SegmentationData, "mean_score", "ADE20K score")
    monkeypatch.setattr(SegmentationData, "notes", ("some are held out",))
    assert run(runs[0], "--images", 1) == 0
    out = capsys.readouterr().out
    assert "ADE20K score" in out
    assert "\nsome are held out\n" in out


def test_figures_of_an_absent_class_are_null(runs, tmp_path, monkeypatch):
    counts = np.ones((3, 3, 12), np.int64)
    counts[..., 2] = 0
    found = evaluate.Evaluation(("a", "b", "c"), counts, counts[:0], counts[:, None][:, :0], np.ones(3))
    monkeypatch.setattr(command, "evaluate_images", lambda *_, **__: {"model": found})
    name, file = open_data("scenes:val=1", split="val").classes[2], tmp_path / "figures.json"
    assert run(runs[0], "--classes", name, "--bootstrap", 20, "--json", file) == 0
    content = json.loads(file.read_text(), parse_constant=pytest.fail)  # NaN is no JSON
    assert content["results"]["model"]["intervals"]["mIoU of chosen classes"]["value"] is None


def test_an_ensemble_of_a_run_with_itself_changes_nothing_and_with_another_it_does(runs, tmp_path):
    files = [tmp_path / f"{index}.jsonl" for index in range(3)]
    assert run(runs[0], "--per-image", files[0]) == 0
    assert run(runs[0], "--ensemble", runs[0], "--per-image", files[1]) == 0
    assert run(runs[0], "--ensemble", runs[1], "--per-image", files[2]) == 0
    texts = [file.read_text() for file in files]
    assert texts[0] == texts[1] != texts[2]


def test_a_radius_or_weight_switches_the_guidance_crf_on(tmp_path, capsys):
    path = tiny_run(tmp_path / "off", guidance="off")
    files = [tmp_path / f"{index}.jsonl" for index in range(3)]
    assert run(path, "--per-image", files[0]) == 0
    assert run(path, "--guidance-radius", 6, "--guidance-weight", 8, "--per-image", files[1]) == 0
    assert "guidance on" in capsys.readouterr().out
    assert run(path, "--guidance", "on", "--guidance-radius", 6, "--guidance-weight", 8, "--per-image", files[2]) == 0
    texts = [file.read_text() for file in files]
    assert texts[1] == texts[2]
    assert texts[0].replace('"model"', '"guidance on"') != texts[1]
    assert run(path, "--guidance", "auto") == 0
    assert "guidance auto" in capsys.readouterr().out
    for choice in ("off", "configured", "auto"):
        assert run(path, "--guidance", choice, "--guidance-weight", 8) == 2
        assert f"expected the guidance CRF on, got --guidance {choice}" in capsys.readouterr().err


def test_classes_of_other_names_are_compared_with_a_warning_and_in_another_order_not_at_all(tmp_path, capsys):
    names = open_data("scenes:val=1", split="val").classes
    renamed = tiny_run(tmp_path / "renamed", classes=("heaven", *names[1:]))
    assert run(renamed, "--data", "scenes:val=1") == 0
    assert "class 0 is 'heaven', in scenes 'sky'; classes are compared by number" in capsys.readouterr().err
    swapped = tiny_run(tmp_path / "swapped", classes=(names[1], names[0], *names[2:]))
    for name, main in (("evaluate", command.main), ("tune", tune.main)):
        assert cli.run(name, main, [str(swapped), "--data", "scenes:val=1,train=1"]) == 2
        assert "class 0 is 'mountain', in scenes 'sky': the same names in another order" in capsys.readouterr().err
    with pytest.raises(UserError, match="the same names in another order"):
        run_figures(swapped, tmp_path / "kept.npz", open_data("scenes:val=1", split="val"), shown=[],
                    device=torch.device("cpu"), dtype=None, dense=False)  # fmt: skip


def test_images_of_one_name_are_not_compared():
    with pytest.raises(UserError, match="expected images of different names, got 'a' twice"):
        per_image.aligned("it", {name: np.zeros((3, 2), np.int64) for name in "ab"}, ["a", "a", "b"])


def test_mistakes_are_one_line(runs, tmp_path, capsys):
    other = tiny_run(tmp_path / "other", classes=("a", "b"))
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"image": "x", "result": "model", "correct": [1], "true": [1], "predicted": [1]}\n')
    elsewhere = tmp_path / "elsewhere.jsonl"
    counts = json.dumps([0] * 12)
    elsewhere.write_text(
        f'{{"image": "x", "result": "m", "correct": {counts}, "true": {counts}, "predicted": {counts}}}\n'
    )
    twice = tmp_path / "twice.jsonl"
    twice.write_text(2 * elsewhere.read_text())
    cases = [
        (("--ensemble", other), f"{other}: expected the classes of {runs[0] / 'last.safetensors'}, got a, b"),
        (("--ensemble", tmp_path), "expected a run folder or a checkpoint file"),
        (("--guidance", "off", "--guidance-radius", 3), "--guidance-radius: expected the guidance CRF on, got"),
        (("--window", "64"), "--window: expected a list of 2"),
        (("--window", "0,64"), "--window: expected at least 1, got (0, 64)"),
        (("--scales", "1,0"), "--scales: expected more than 0, got (1.0, 0.0)"),
        (("--scales", "big"), "--scales: expected"),
        (("--overlap", "1"), "--overlap: expected less than 1, got 1"),
        (("--batch-size", "0"), "--batch-size: expected at least 1, got 0"),
        (("--fusion", "sum"), "--fusion: expected one of mean, max_mean, got 'sum'"),
        (("--trimap", "1,0"), "--trimap: expected at least 1, got (1, 0)"),
        (("--trimap", "1,,3"), "--trimap: expected a list of whole numbers, got '1,,3'"),
        (("--boundary", "0"), "--boundary: expected more than 0 and less than 1, got 0.0"),
        (("--bootstrap", "-1"), "--bootstrap: expected at least 0, got -1"),
        (("--images", "-1"), "--images: expected at least 0, got -1"),
        (("--limit", "1"), "--limit: is called --images now"),
        (("--compare", tmp_path / "absent"), "absent: cannot be read"),
        (("--compare", runs[0] / "last.json"), "line 1: expected a line of --per-image"),
        (("--compare", lines), "line 1: expected a line of --per-image FILE.jsonl (expected counts of 12 classes)"),
        (("--compare", twice), "line 2: expected a line of --per-image FILE.jsonl ('x' a second time)"),
        (("--compare", elsewhere), "m: expected the same images; 'val-00000' is not in both"),
        (("--per-image", tmp_path / "no" / "file.csv"), "--per-image: expected a file in an existing folder"),
        (("--json", tmp_path), "--json: expected a file in an existing folder"),
        (("--json", tmp_path / "x", "--per-image", tmp_path / "x"), "--per-image: expected another file than"),
    ]
    for arguments, message in cases:
        assert run(runs[0], *arguments, "--data", "scenes:val=1") == 2, arguments
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert message in error, (arguments, error)
        assert error.startswith("segmodel.evaluate: error: ")
