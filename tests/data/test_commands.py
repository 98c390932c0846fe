"""python -m segmodel.data check and show, as a user types them."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from data_tools import SIZE, save_image, save_label
from PIL import Image

from segmodel.common import cli
from segmodel.data import KINDS
from segmodel.data.__main__ import main


def command(*arguments: object) -> int:
    return cli.run("data", main, [str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four training samples of two sizes, one of validation; label 9 is ignored."""
    root = tmp_path / "mine"
    for number in range(4):
        save_image(root / "images" / "train" / f"{number}.png", seed=number)
        save_label(root / "labels" / "train" / f"{number}.png", [0, 1, 9] if number else [9])
    save_image(root / "images" / "val" / "v.png", size=(30, 40))
    (root / "labels" / "val").mkdir()
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(root / "labels" / "val" / "v.png")
    classes = '[{ name = "sky", colour = [10, 20, 30] }, { name = "crack", colour = [1, 2, 3] }]'
    (root / "classes.toml").write_text(f"ignore = 9\nclasses = {classes}\n")
    return root


@pytest.mark.parametrize("workers", [0, 2])
def test_check_counts_what_is_there(folder, capsys, workers):
    assert command("check", f"folder:{folder}", "--workers", workers) == 0
    out = capsys.readouterr().out
    assert "mine, train: 4 samples, 2 classes" in out
    assert re.search(r"sky +48 +25\.000 +3\n", out)  # 16 of 48 pixels in three of four images
    assert re.search(r"crack +48 +25\.000 +3\n", out)
    assert re.search(r"\(ignored\) +96 +50\.000 +4\n", out)
    assert "width x height: 8x6 (4)" in out
    assert "note: nothing but ignored pixels in 1 samples, the first is number 0" in out
    assert "mine, val: 1 samples" in out
    assert "width x height: 40x30 (1)" in out
    assert "note: one class alone in the label maps of 1 samples, the first is number 0" in out
    assert "note: no pixel of crack\n" in out
    assert out.endswith("\nnothing is wrong\n")


def test_a_mask_of_0_and_the_ignored_value_is_noticed(folder, capsys):
    save_label(folder / "labels" / "val" / "v.png", [0, 9])
    save_image(folder / "images" / "val" / "v.png", seed=1)
    (folder / "images" / "val" / "._v.png").write_bytes(b"what macOS leaves beside a file")
    assert command("check", f"folder:{folder}", "--workers", 0) == 2
    out = capsys.readouterr().out
    assert "mine, val: 1 samples" in out
    wrong = "mine, val: no pixel of crack in 1 label maps; are these masks of 0 and 255, whose 255 is taken as ignored?"
    assert f"wrong: {wrong} In a folder's classes.toml map = {{ 255 = 1 }} makes it class 1 (--allow-absent" in out
    assert out.endswith("\n2 problems\n")
    assert command("check", f"folder:{folder}", "--workers", 0, "--allow-absent") == 0
    out = capsys.readouterr().out
    assert f"note: {wrong.removeprefix('mine, val: ')}" in out
    assert out.endswith("\nnothing is wrong\n")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 9], "mine, train: no pixel of crack in 4 label maps; are these masks of 0 and 255"),
        ([0], "mine, train: no pixel of crack in 4 label maps (--allow-absent if that is meant)"),
        ([9], "mine, train: no pixel of sky, crack in 4 label maps (--allow-absent"),
    ],
)
def test_check_finds_what_would_train_in_vain(folder, capsys, values, message):
    for number in range(4):
        save_label(folder / "labels" / "train" / f"{number}.png", values)
    arguments = ("check", f"folder:{folder}", "--workers", 0, "--split", "train")
    assert command(*arguments) == 2
    out = capsys.readouterr().out
    assert f"wrong: {message}" in out
    assert "wrong: mine, train: each of 4 label maps is all of one class" in out
    assert out.endswith("\n2 problems\n")
    assert "nothing is wrong" not in out
    assert command(*arguments, "--allow-absent") == 0


def test_check_of_a_mix_counts_the_classes_of_its_parts_together(folder, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    for number in range(4):
        save_label(other / "labels" / "train" / f"{number}.png", [0])
    assert command("check", f"folder:{other}+folder:{folder}", "--workers", 0) == 0
    assert command("check", f"folder:{other}", "--workers", 0) == 2


def test_check_counts_and_names_what_is_turned(folder, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in (1, 2):
        save_image(folder / "images" / "train" / f"{number}.png", seed=number, exif=exif)
    label = folder / "labels" / "train" / "2.png"
    Image.fromarray(np.rot90(np.asarray(Image.open(label)))).save(label)
    assert command("check", f"folder:{folder}", "--workers", 0) == 0
    out = capsys.readouterr().out
    words = "with labels taken as drawn on the upright picture: 1 samples, the first is number 2"
    assert f"note: turned upright, as the EXIF orientation says, {words}" in out
    assert "with their labels, which have the size of the picture as stored: 1 samples, the first is number 1" in out


def test_check_says_what_is_held_out(folder, capsys):
    shutil.rmtree(folder / "images" / "val")
    assert command("check", f"folder:{folder}", "--workers", 0) == 0
    out = capsys.readouterr().out
    line = f"note: {folder}: no images/val: 1 of 4 images are held out for validation (val_share = 0.2, val_seed = 0"
    assert out.count(line) == 2
    assert "mine, train: 3 samples" in out


@pytest.mark.parametrize("workers", [0, 2])
def test_check_names_all_that_is_wrong(folder, capsys, workers):
    labels = folder / "labels" / "train"
    save_label(labels / "0.png", [0, 7])
    (labels / "1.png").unlink()
    (folder / "images" / "train" / "2.png").write_bytes(b"no picture")
    assert command("check", f"folder:{folder}", "--workers", workers) == 2
    out = capsys.readouterr().out
    assert f"wrong: {labels / '0.png'}: label value 7 at row 0, column 1; allowed: 0..1 and 9 (ignored)" in out
    assert f"wrong: {folder / 'images/train/1.png'}: no such file: {labels / '1.png'}" in out
    assert f"wrong: {folder / 'images/train/2.png'}: cannot be read as an image" in out
    assert re.search(r"sky +16 ", out)  # the one sound sample is counted
    assert out.endswith("\n3 problems\n")
    assert command("check", f"folder:{folder}", "--workers", workers, "--problems", 1, "--split", "train") == 2
    out = capsys.readouterr().out
    assert out.count("wrong:") == 1
    assert "more than 1 problems" in out
    assert "val" not in out
    assert out.endswith("\n3 problems\n")


def test_check_names_every_wrong_line_of_a_list(folder, capsys):
    (folder / "train.txt").write_text("a\nimages/train/1.png labels/train/1.png\nb c d\n")
    (folder / "val.txt").write_text("images/val/v.png labels/val/v.png\nimages/val/v.png ../labels/val/v.png\n")
    assert command("check", f"folder:{folder}", "--workers", 0) == 2
    out = capsys.readouterr().out
    assert "train.txt, line 1: expected IMAGE LABEL, got 'a'" in out
    assert "train.txt, line 3: expected IMAGE LABEL, got 'b c d'" in out
    assert "val.txt, line 2: expected a path inside" in out
    assert out.endswith("\n3 problems\n")


def test_check_of_several_splits(folder, capsys):
    assert command("check", f"folder:{folder}", "--workers", 0, "--split", "val,train") == 0
    out = capsys.readouterr().out
    assert 0 < out.index("mine, val: 1 samples") < out.index("mine, train: 4 samples")


def test_check_reads_each_part_of_a_mix_once(folder, capsys):
    assert command("check", f"folder:{folder}+2*folder:{folder}", "--workers", 0) == 0
    out = capsys.readouterr().out
    assert out.count("mine, train: 4 samples") == 2
    assert out.count("mine, val: 1 samples") == 1


def test_show_draws_samples_variants_and_a_legend(folder, tmp_path, capsys):
    output = tmp_path / "sheet.png"
    arguments = ("show", f"folder:{folder}", "--output", output, "--crop", "10,12", "--images", 3, "--variants", 2)
    assert command(*arguments) == 0
    assert "3 of 4 samples, each with 2 variants" in capsys.readouterr().out
    first = np.asarray(Image.open(output))
    # the legend is the widest; a line of headings on top
    assert first.shape == (4 + 18 + 4 + 3 * (10 + 4) + 18 * 3 + 4, 4 + 160 + 4, 3)
    image = np.asarray(Image.open(folder / "images" / "train" / "0.png"))
    assert np.array_equal(first[26 : 26 + SIZE[0], 4 : 4 + SIZE[1]], image)
    assert command(*arguments) == 2
    assert f"{output}: exists already (--overwrite replaces it)" in capsys.readouterr().err
    assert command(*arguments, "--overwrite") == 0
    assert np.array_equal(np.asarray(Image.open(output)), first)
    assert command(*arguments, "--overwrite", "--seed", 1) == 0
    assert not np.array_equal(np.asarray(Image.open(output)), first)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the following arguments are required: command"),
        (("look",), "invalid choice: 'look'"),
        (("check",), "the following arguments are required: data"),
        (("show", "scenes"), "the following arguments are required: --output"),
        (("check", "scenes", "--limit", "3"), "--limit: is called --problems now"),
        (
            ("check", "scenes", "--split", "train", "--split=val"),
            "--split: expected once, with a list such as train,val",
        ),
        (("show", "scenes", "--output", "{}", "--count=3"), "--count: is called --images now"),
        (("show", "scenes", "--output", "{}", "--images", "0"), "--images: expected at least 1, got 0"),
        (("show", "scenes", "--output", "{}", "--crop", "0,5"), "--crop: expected at least 1, got (0, 5)"),
        (("show", "kitti:x", "--output", "{}"), "expected one of scenes, voc,"),
        (
            ("show", "scenes:val=1", "--split", "val", "--output", "{}/none/x.png"),
            "expected a .png file in an existing folder",
        ),
    ],
)
def test_wrong_commands(arguments, message, tmp_path, capsys):
    assert command(*(argument.format(tmp_path / "x.png") for argument in arguments)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_wrong_limit_is_the_users_error_whoever_reads(folder, capsys, monkeypatch, workers):
    monkeypatch.setenv("SEGMODEL_MAX_PIXELS", "many")
    assert command("check", f"folder:{folder}", "--workers", workers) == 2
    error = capsys.readouterr().err
    assert "segmodel.data: error: SEGMODEL_MAX_PIXELS: expected a whole number of at least 0, got 'many'\n" in error


def test_help_lists_every_kind(capsys):
    with pytest.raises(SystemExit):
        command("--help")
    out = " ".join(capsys.readouterr().out.split())
    assert "scenes[:train=N,val=N,shores=1], voc:PATH[,sbd=PATH], sbd:PATH, cityscapes:PATH[,coarse]," in out
    assert all(f" {name}:PATH" in out for name in KINDS if name != "scenes")
    assert "ROOT/classes.toml" in out
    assert 'classes = ["background", "crack"]' in out


def test_check_of_data_that_cannot_be_opened(capsys):
    assert command("check", "kitti:x", "--split", "train") == 2
    out = capsys.readouterr().out
    assert "kitti:x, train: cannot be opened" in out
    assert out.endswith("\n1 problem\n")
