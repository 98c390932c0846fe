"""The command that refines files: scores, masks and labels, one or a folder of them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from segmodel.common import cli
from segmodel.data import open_data
from segmodel.inference.refine import refine, refine_mask
from segmodel.inference.refine_labels import refine_labels
from segmodel.model.upsampling import area_average
from segmodel.refine import main

OLD = {"stride": 4, "radius": 3, "weight": 2.0, "iterations": 3}
"""What a file of segmodel.tune held before there were two windows."""


@pytest.fixture(scope="module")
def scene():
    return open_data("scenes", split="val")[3]


def coarse_scores(label: np.ndarray, stride: int) -> torch.Tensor:
    """(C, h, w) logits as a coarse model would give them: shares of the classes in each block."""
    one_hot = torch.from_numpy(np.eye(12, dtype=np.float32)[np.where(label == 255, 0, label)]).permute(2, 0, 1)
    return (area_average(one_hot[None], stride)[0] + 0.02).log()


def run(*arguments: object) -> int:
    return cli.run("refine", main, [str(argument) for argument in arguments])


def test_the_command(tmp_path, scene, capsys):
    Image.fromarray(scene.image).save(tmp_path / "image.png")
    scores = coarse_scores(scene.label, 8).numpy()
    np.save(tmp_path / "scores.npy", scores)
    Image.fromarray(255 * (scene.label == 0).astype(np.uint8)).save(tmp_path / "mask.png")
    (tmp_path / "tuned.json").write_text(json.dumps({"settings": {**OLD, "radius": 2, "eps": 9}}))
    given = (tmp_path / "image.png", tmp_path / "scores.npy", "--settings", tmp_path / "tuned.json", "--eps", 4)
    assert run(*given, "--output", tmp_path / "labels.png") == 0
    assert "radius 2, eps 4.0, weight 2.0, balance 0.0" in capsys.readouterr().out
    assert run(*given, "--output", tmp_path / "refined.npy") == 0
    expected = refine(scores, scene.image, **{**OLD, "radius": 2, "balance": 0.0, "eps": 4.0})
    np.testing.assert_array_equal(np.load(tmp_path / "refined.npy"), expected)
    with Image.open(tmp_path / "labels.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), expected.argmax(0))
    np.save(tmp_path / "batch.npy", scores[None])  # as models give them; and an ending as some systems write it
    (tmp_path / "batch.npy").replace(tmp_path / "batch.NPY")
    assert run(given[0], tmp_path / "batch.NPY", *given[2:], "--output", tmp_path / "batch.PNG") == 0
    assert (tmp_path / "batch.PNG").read_bytes() == (tmp_path / "labels.png").read_bytes()
    assert run(*given, "--output", tmp_path / "refined.NPY") == 0
    np.testing.assert_array_equal(np.load(tmp_path / "refined.NPY"), expected)
    np.save(tmp_path / "many.npy", np.zeros((300, 4, 4), np.float32))
    assert run(given[0], tmp_path / "many.npy", "--output", tmp_path / "many.png") == 2
    assert "expected (C, h, w) with at most 255 classes for a PNG, got (300, 4, 4)" in capsys.readouterr().err
    assert run(*given, "--output", tmp_path / "labels.png") == 2
    assert "exists already (--overwrite replaces it)" in capsys.readouterr().err
    assert run(tmp_path / "image.png", tmp_path / "mask.png", "--output", tmp_path / "new.png", "--stride", 1) == 0
    with Image.open(tmp_path / "new.png") as picture:
        assert set(np.unique(np.asarray(picture))) == {0, 255}
    for arguments, message in (
        ((tmp_path / "image.png", tmp_path / "labels.png"), "say --labels if they are classes"),
        ((tmp_path / "image.png", tmp_path / "no.npy"), "cannot be read as an .npy file"),
        ((*given[:2], "--settings", tmp_path / "mask.png"), "expected a file of segmodel.tune"),
        ((*given[:2], "--radius", -1), "radius: expected at least 0"),
    ):
        assert run(*arguments, "--output", tmp_path / "other.png") == 2
        assert message in capsys.readouterr().err
    assert run(*given, "--output", tmp_path / "no" / "labels.png") == 2
    assert not list(tmp_path.glob("*.partial"))


@pytest.fixture
def folder(tmp_path, scene):
    """A folder with a photograph, a label map of it as palette, grey and colours, and a grey probability map."""
    Image.fromarray(scene.image).save(tmp_path / "image.png")
    labels = np.kron(scene.label[::8, ::8], np.ones((8, 8), np.uint8))
    palette = Image.fromarray(labels)
    palette.save(tmp_path / "grey.png")
    palette.putpalette(list(range(39)))
    palette.save(tmp_path / "palette.png")
    Image.fromarray(np.stack([labels, 2 * labels, 255 - labels], 2)).save(tmp_path / "colours.png")
    return tmp_path


def pixels(path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture)


@pytest.mark.parametrize("name", ["palette", "grey", "colours"])
def test_a_label_picture_is_no_mask(folder, capsys, name):
    """It once became a map of nothing, with status 0."""
    output = folder / "out.png"
    assert run(folder / "image.png", folder / f"{name}.png", "--output", output) == 2
    assert "--labels" in capsys.readouterr().err
    assert not output.exists()
    strong = ("--weight", "4", "--balance", "0.25")
    assert run(folder / "image.png", folder / f"{name}.png", "--labels", *strong, "--output", output) == 0
    before, after = pixels(folder / f"{name}.png"), pixels(output)
    assert after.shape == before.shape
    with Image.open(folder / f"{name}.png") as old, Image.open(output) as new:
        assert (old.mode, old.getpalette()) == (new.mode, new.getpalette())
    changed = (before != after).reshape(128, 128, -1).any(-1).sum()
    assert 0 < changed < 8000
    assert f"{changed:,} of 16,384 pixels changed ({100 * changed / 16384:.2f} %)" in capsys.readouterr().out
    if name == "grey":
        refined = refine_labels(before, pixels(folder / "image.png"), weight=4.0, balance=0.25)
        np.testing.assert_array_equal(after, refined)


def test_arrays_of_labels_of_probabilities_and_of_logits(folder, scene, capsys):
    image, output = folder / "image.png", folder / "out.npy"
    labels = pixels(folder / "grey.png").astype(np.int32) * 100
    np.save(folder / "labels.npy", labels)
    assert run(image, folder / "labels.npy", "--output", output) == 2
    assert "expected a mask of 0 and 1, or 0 and 255, got the values" in capsys.readouterr().err
    assert run(image, folder / "labels.npy", "--labels", "--output", output) == 0
    result = np.load(output)
    assert result.dtype == np.int32
    assert run(image, folder / "labels.npy", "--labels", "--output", folder / "out.png") == 0
    np.testing.assert_array_equal(pixels(folder / "out.png"), result)  # more than 8 bits
    logits = np.float32(6) * ((scene.label[::4, ::4] == 0) - np.float32(0.5))
    np.save(folder / "logits.npy", logits)
    assert run(image, folder / "logits.npy", "--output", folder / "mask.png") == 2
    assert "logits" in capsys.readouterr().err
    assert run(image, folder / "logits.npy", "--logits", "--output", folder / "mask.png") == 0
    expected = refine_mask(logits, scene.image, logits=True) >= 0
    np.testing.assert_array_equal(pixels(folder / "mask.png") > 0, expected)
    soft = (255 / (1 + np.exp(-logits))).astype(np.uint8)
    Image.fromarray(soft).save(folder / "soft.png")
    assert run(image, folder / "soft.png", "--probabilities", "--output", folder / "softer.png") == 0
    assert len(np.unique(pixels(folder / "softer.png"))) > 10


def test_class_last_scores_are_refused_until_their_layout_is_named(folder, scene, capsys):
    scores = coarse_scores(scene.label, 4).numpy().transpose(1, 2, 0).copy()
    np.save(folder / "last.npy", scores)
    assert run(folder / "image.png", folder / "last.npy", "--output", folder / "out.png") == 2
    assert "say --layout HWC, or CHW if it is not" in capsys.readouterr().err
    assert run(folder / "image.png", folder / "last.npy", "--layout", "HWC", "--output", folder / "out.png") == 0
    expected = refine(scores, scene.image, layout="HWC").argmax(-1)
    np.testing.assert_array_equal(pixels(folder / "out.png"), expected)


def test_probabilities_of_classes_are_named_and_taken(folder, scene, capsys):
    scores = coarse_scores(scene.label, 8)
    np.save(folder / "soft.npy", scores.softmax(0).numpy())
    assert run(folder / "image.png", folder / "soft.npy", "--output", folder / "out.npy") == 2
    assert "got probabilities (0..1, they sum to 1); say --probabilities" in capsys.readouterr().err
    assert run(folder / "image.png", folder / "soft.npy", "--probabilities", "--output", folder / "out.npy") == 0
    expected = refine(scores.log_softmax(0).numpy(), scene.image)
    np.testing.assert_allclose(np.load(folder / "out.npy"), expected, rtol=1e-4, atol=1e-4)
    np.save(folder / "hard.npy", scores.numpy())
    assert run(folder / "image.png", folder / "hard.npy", "--probabilities", "--output", folder / "o.npy") == 2
    assert "hard.npy: expected probabilities that sum to 1 over the classes, got" in capsys.readouterr().err


def test_with_a_bound_on_memory_it_works_tile_by_tile(folder, scene, capsys):
    scores = coarse_scores(scene.label, 8).numpy()
    np.save(folder / "scores.npy", scores)
    np.save(folder / "image.npy", scene.image)
    given = (folder / "image.npy", folder / "scores.npy", "--max-memory", "2GB")
    assert run(*given, "--output", folder / "out.npy") == 0
    assert "written in" in capsys.readouterr().out
    np.testing.assert_array_equal(np.load(folder / "out.npy"), refine(scores, scene.image).argmax(0))
    output = ("--output", folder / "x.npy")
    for more, message in (
        (("--output", folder / "out.png"), "expected an .npy or .tif file"),
        (("--labels", *output), "--max-memory: expected one picture and scores"),
        ((*output, "--max-memory", "much"), "expected a size such as 4GB"),
    ):
        assert run(*given, *more) == 2
        assert message in capsys.readouterr().err


def test_folders_are_paired_by_name_and_resumed(tmp_path, scene, capsys):
    photos, scores, out = tmp_path / "photos", tmp_path / "scores", tmp_path / "out"
    (photos / "day").mkdir(parents=True)
    (scores / "day").mkdir(parents=True)
    for name in ("a", "day/b", "c"):
        Image.fromarray(scene.image).save(photos / f"{name}.jpg")
    for name in ("a", "day/b"):
        np.save(scores / f"{name}.npy", coarse_scores(scene.label, 8).numpy())
    given = (photos, scores, "--output", out)
    assert run(*given, "--compare", tmp_path / "compared") == 0
    text = capsys.readouterr().out
    assert "1 of 3 images have no file" in text
    assert text.count("pixels changed (") == 3  # two lines and their sum
    assert sorted(path.name for path in out.rglob("*.png")) == ["a.png", "b.png"]
    assert (tmp_path / "compared/day/b.png").is_file()
    first = (out / "a.png").read_bytes()
    (out / "day/b.png").unlink()
    (out / "a.png").write_bytes(b"mine")
    assert run(*given) == 0
    text = capsys.readouterr().out
    assert "1 of 2 outputs are there already and stay (--overwrite replaces them)" in text
    assert "1 refined: " in text
    assert (out / "a.png").read_bytes() == b"mine"
    assert run(*given, "--overwrite") == 0
    assert (out / "a.png").read_bytes() == first
    assert run(*given, "--format", "npy") == 0
    assert np.load(out / "a.npy").shape == (12, 128, 128)
    capsys.readouterr()
    for name, values in (("a", np.zeros((2, 8, 8), np.float32)), ("c", np.zeros((2, 8, 8), int))):
        np.save(scores / f"{name}.npy", values)  # one is wrong, the others are done
    assert run(photos, scores, "--output", tmp_path / "some") == 2
    output, errors = capsys.readouterr()
    assert "2 refined: " in output
    assert "c.npy: scores: expected floating point" in errors
    np.save(scores / "e.npy", np.zeros((2, 4, 4), np.float32))
    for arguments, message in (
        (given, "photos: expected an image for each file in"),
        ((photos, scores / "a.npy", "--output", out), "a.npy: expected a folder, as"),
        ((photos, tmp_path / "out", "--output", tmp_path / "out"), "--output: expected a folder of its own, got"),
        ((photos, tmp_path / "compared" / "day", "--output", tmp_path / "x"), "expected an image for each file in"),
    ):
        assert run(*arguments) == 2
        assert message in capsys.readouterr().err
