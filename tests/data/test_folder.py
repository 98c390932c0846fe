"""What an own folder need not say, and how it is read all the same."""

import re
from pathlib import Path

import numpy as np
import pytest
from data_tools import SIZE, fails, save_image, save_label
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segmodel.common import cli
from segmodel.data import DataError, open_data
from segmodel.data.__main__ import main
from segmodel.data.class_file import read_classes

NAMES = [f"{number:02d}" for number in range(10)]


def write(root: Path, where: str, names: list[str], values: list[int], *, label: str = "{}.png") -> None:
    for number, name in enumerate(names):
        save_image(root / "images" / where / f"{name}.jpg", seed=number)
        save_label(root / "labels" / where / label.format(name), values)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Ten pictures without a split, classes of which nothing but the names is said."""
    root = tmp_path / "mine"
    write(root, "", NAMES, [0, 1, 255])
    (root / "classes.toml").write_text('ignore = 255\nclasses = ["background", "crack", "hole"]')
    return root


def names(root: Path, split: str) -> list[str]:
    return [pair.name for pair in open_data(f"folder:{root}", split=split).pairs]


def test_colours_are_chosen(mine):
    data = open_data(f"folder:{mine}", split="train")
    assert data.classes == ("background", "crack", "hole")
    assert data.palette.tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    (mine / "classes.toml").write_text(
        'ignore = 255\nclasses = ["sky", {name = "a", colour = [128, 0, 0]}, "Background"]'
    )
    palette = open_data(f"folder:{mine}", split="train").palette.tolist()
    assert palette == [[0, 128, 0], [128, 0, 0], [0, 0, 0]]  # none twice, black for nothing but the background


@pytest.mark.parametrize("where", ["", "train"])
def test_a_share_is_held_out_and_said(tmp_path, where):
    root = tmp_path / "mine"
    write(root, where, NAMES, [0, 1])
    (root / "classes.toml").write_text('classes = ["sky", "rest"]')
    train, val = (names(root, split) for split in ("train", "val"))
    assert sorted(train + val) == NAMES
    assert len(val) == 2
    assert (train, val) == (sorted(train), sorted(val))
    for split in ("train", "val"):
        assert list(open_data(f"folder:{root}", split=split).notes) == [
            f"{root}: no images/val: 2 of 10 images are held out for validation "
            "(val_share = 0.2, val_seed = 0 in classes.toml)"
        ]
    mix = open_data(f"folder:{root}+folder:{root}", split="train")
    assert list(mix.notes) == open_data(f"folder:{root}", split="val").notes
    (root / "classes.toml").write_text('val_share = 0.5\nval_seed = 3\nclasses = ["sky", "rest"]')
    assert len(names(root, "val")) == 5
    drawn = set()
    for seed in range(20):
        (root / "classes.toml").write_text(f'val_seed = {seed}\nclasses = ["sky", "rest"]')
        drawn.add(tuple(names(root, "val")))
    assert len(drawn) > 10
    assert {name for pair in drawn for name in pair} == set(NAMES)
    fails(f"folder:{root}", "images/test (missing)", split="test")


def test_a_further_image_moves_no_other_one_into_training(mine):
    before = set(names(mine, "val"))
    write(mine, "", ["new1", "new2"], [0])
    after = set(names(mine, "val"))
    assert len(before - after) <= 1  # no more than the places that the new ones take


def test_two_images_at_least_are_needed_to_hold_one_out(tmp_path):
    root = tmp_path / "mine"
    write(root, "", ["a"], [0, 1])
    (root / "classes.toml").write_text('classes = ["sky", "rest"]')
    fails(f"folder:{root}", "expected two images or more, of which one validates, got 1")
    write(root, "", ["b"], [0, 1])
    assert sorted(names(root, "train") + names(root, "val")) == ["a", "b"]


def test_where_there_is_val_but_no_train_nothing_is_held_out(tmp_path):
    root = tmp_path / "mine"
    write(root, "val", NAMES, [0, 1])
    (root / "classes.toml").write_text('classes = ["sky", "rest"]')
    fails(f"folder:{root}", "expected a folder", "images/train (missing)")
    assert names(root, "val") == NAMES


@pytest.mark.parametrize("label", ["{}.png", "{}.PNG", "{}.bmp", "{}.tif", "{}.TIFF", "{}_mask.png", "{}_mask.tif"])
def test_label_names(tmp_path, label):
    root = tmp_path / "mine"
    write(root, "train", ["town/a", "b"], [0, 1], label=label)
    (root / "classes.toml").write_text('classes = ["sky", "rest"]')
    data = open_data(f"folder:{root}", split="train")
    (pair,) = data.pairs
    assert pair.label == root / "labels" / "train" / label.format(pair.name)
    assert np.array_equal(data[0].label, np.resize([0, 1], SIZE))


def test_labels_that_fit_twice_or_not_at_all(mine):
    save_label(mine / "labels" / "03_mask.png", [0])  # 03.png is nearer
    save_label(mine / "labels" / "old" / "x.png", [0])
    notes = [note for split in ("train", "val") for note in open_data(f"folder:{mine}", split=split).notes]
    assert f"{mine / 'labels'}: no image for 2 labels, the first is 03_mask.png" in notes
    save_label(mine / "labels" / "03.tif", [0])
    fails(f"folder:{mine}", "03.jpg: expected one label of its name, got", "03.png and", "03.tif")


def test_a_label_that_only_pictures_may_be_is_named(mine):
    for name in NAMES:
        label = mine / "labels" / f"{name}.png"
        Image.open(label).save(label.with_suffix(".jpg"))
        label.unlink()
    fails(f"folder:{mine}", ".jpg: expected labels as numbers", "compressed with loss", index=0)


# Values -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "written", "read"),
    [
        ("", [0, 1, 2], [0, 1, 2]),
        ("ignore = [7, 255]", [0, 1, 2, 7, 255], [0, 1, 2, 255, 255]),
        ('map = { 10 = 1, 11 = 1, 255 = "ignore" }', [0, 10, 11, 2, 255], [0, 1, 1, 2, 255]),
        ('map = { 10 = "crack", 20 = "hole" }', [0, 10, 20], [0, 1, 2]),
        ("ignore = 0\nmap = { 1 = 0, 2 = 1, 3 = 2 }", [0, 1, 2, 3], [255, 0, 1, 2]),
        ('map = { 0 = "ignore", 1 = 0, 2 = 1, 3 = 2 }', [0, 1, 2, 3], [255, 0, 1, 2]),
    ],
)
def test_values_are_mapped_and_ignored(mine, rules, written, read):
    text = f'{rules}\nclasses = ["background", "crack", "hole"]'
    (mine / "classes.toml").write_text("\ufeff" + text, encoding="utf-8")  # as Windows' editor writes it
    for name in NAMES:
        save_label(mine / "labels" / f"{name}.png", written)
    assert np.array_equal(open_data(f"folder:{mine}", split="train")[0].label, np.resize(read, SIZE))


@given(st.dictionaries(st.integers(0, 255), st.sampled_from([0, 1, 2, "ignore"])))
def test_a_map_gives_each_value_one_class_and_each_class_a_value(tmp_path_factory, mapped):
    file = tmp_path_factory.getbasetemp() / "classes.toml"
    rows = ", ".join(f"{value} = {target!r}" for value, target in mapped.items())
    file.write_text(f'map = {{ {rows} }}\nclasses = ["a", "b", "c"]')
    own = [value if value < 3 and value not in mapped.values() else 254 for value in range(256)]
    expected = [255 if mapped.get(value) == "ignore" else mapped.get(value, own[value]) for value in range(256)]
    if {0, 1, 2} <= set(expected):
        assert read_classes(file).values.tolist() == expected
    else:
        with pytest.raises(DataError, match="expected a label value for each class, got none for"):
            read_classes(file)


def test_a_value_without_a_class_is_named_with_what_allows_it(mine):
    (mine / "classes.toml").write_text('map = { 10 = 1, 20 = 2 }\nclasses = ["background", "crack", "hole"]')
    hint = f"; map and ignore in {mine / 'classes.toml'} say what other values stand for"
    fails(f"folder:{mine}", "label value 1 at row 0, column 1; allowed: 0, 10, 20" + hint, index=0)


@pytest.mark.parametrize("ignore", ["[255, 255, 255]", "[[255, 255, 255], [9, 9, 9]]"])
def test_ignored_colours(mine, ignore):
    rows = [(1, 2, 3), (4, 5, 6), (255, 255, 255), (9, 9, 9)][: 4 if "9" in ignore else 3]
    for name in NAMES:
        Image.fromarray(np.resize(np.array(rows, np.uint8), (*SIZE, 3))).save(mine / "labels" / f"{name}.png")
    entries = '{ name = "a", colour = [1, 2, 3] }, { name = "b", colour = [4, 5, 6] }'
    (mine / "classes.toml").write_text(f'labels = "colour"\nignore = {ignore}\nclasses = [{entries}]')
    label = open_data(f"folder:{mine}", split="train")[0].label
    assert np.array_equal(label, np.resize([0, 1, 255, 255][: len(rows)], SIZE))


# A file that is missing ---------------------------------------------------------------------------------------------


def advice(root: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The classes.toml that the error prints, which must be one that the labels pass with."""
    (root / "classes.toml").unlink(missing_ok=True)
    assert cli.run("data", main, ["check", f"folder:{root}", "--workers", "0"]) == 2
    out = capsys.readouterr().out
    assert f"{root / 'classes.toml'}: no such file (names of the classes, and the label values" in out
    assert cli.run("data", main, ["show", f"folder:{root}", "--output", str(root / "x.png")]) == 2
    first, _, *lines = capsys.readouterr().err.splitlines()
    assert first.startswith(f"segmodel.data: error: {root / 'classes.toml'}: no such file")
    assert lines[0] == f"{root / 'classes.toml'} may be, with names of your own:"
    text = "\n".join(lines[2:])
    assert out.count(text) == 1
    (root / "classes.toml").write_text(text)
    assert cli.run("data", main, ["check", f"folder:{root}", "--workers", "0"]) == 0, capsys.readouterr().out
    return text


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 255], 'map = { 255 = 1 }\nclasses = ["background", "foreground"]'),
        ([0, 1, 2], 'classes = ["value 0", "value 1", "value 2"]'),
        ([0, 10, 20, 255], 'ignore = 255 .*\nmap = { 10 = 1, 20 = 2 }\nclasses = ["value 0", "value 10", "value 20"]'),
    ],
)
def test_the_error_of_a_missing_file_prints_one(mine, values, expected, capsys):
    for name in NAMES:
        save_label(mine / "labels" / f"{name}.png", values)
    assert re.fullmatch(expected.replace("[", r"\["), advice(mine, capsys))


def test_the_error_of_a_missing_file_prints_the_colours(mine, capsys):
    rows = np.array([(0, 0, 0), (128, 64, 128)], np.uint8)
    for name in NAMES:
        Image.fromarray(rows[np.resize([0, 1], SIZE)]).save(mine / "labels" / f"{name}.png")
    assert advice(mine, capsys).splitlines() == [
        'labels = "colour"', "classes = [", '  { name = "colour 0", colour = [0, 0, 0] },',
        '  { name = "colour 1", colour = [128, 64, 128] },', "]",
    ]  # fmt: skip


def test_photographs_in_the_place_of_labels_suggest_nothing(mine):
    (mine / "classes.toml").unlink()
    for number, name in enumerate(NAMES):
        save_image(mine / "labels" / f"{name}.png", seed=number, size=(20, 20))
    with pytest.raises(DataError) as error:
        open_data(f"folder:{mine}", split="train")
    assert error.value.advice == ""
