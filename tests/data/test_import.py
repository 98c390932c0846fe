"""python -m segmodel.data import: from what annotation tools write to a data set, as a user types it."""

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from import_tools import (
    COLOURS,
    COUNT,
    NAMES,
    SIZE,
    WAYS,
    class_names,
    command,
    export,
    imported,
    labelme,
    palette_png,
    photograph,
    save,
    truth,
    write,
    zero_and_255,
)  # fmt: skip
from PIL import Image

from segmodel.data.importing import command as importing
from segmodel.data.loading import loaded

VALUES = {"palette": "class_{}", "gaps": "class_{}0", "EXIF": "class_{}"}


def lines(capsys) -> str:
    captured = capsys.readouterr()
    assert "error" not in captured.err
    return captured.out


def expected(way: str, number: int, names: list[str]) -> np.ndarray:
    label = truth(number)
    if way == "0 and 255":
        return (label > 0).astype(np.uint8)
    wanted = [VALUES[way].format(value).replace("00", "0") for value in range(3)] if way in VALUES else NAMES
    assert sorted(names) == sorted(wanted)
    return np.array([names.index(name) for name in wanted])[label]  # labelme's names are in order of the alphabet


@pytest.mark.parametrize("way", WAYS)
def test_what_tools_write_becomes_a_data_set_of_the_same_labels(way, tmp_path, capsys):
    if way == "COCO":
        pytest.importorskip("pycocotools")
    source = export(tmp_path / "export", way)
    before = {file: file.read_bytes() for file in source.rglob("*") if file.is_file()}
    assert command(source, "--output", tmp_path / "mine", "--workers", 0) == 0
    out = lines(capsys)
    assert {file: file.read_bytes() for file in source.rglob("*") if file.is_file()} == before
    names, labels = class_names(tmp_path / "mine"), imported(tmp_path / "mine")
    assert len(labels) == COUNT
    for number in range(COUNT):
        label = next(label for name, label in labels.items() if name == str(number))
        np.testing.assert_array_equal(label, expected(way, number, names))
    assert "5 samples: 4 train, 1 val (by seed 0)" in out
    assert f"python -m segmodel.train --recipe small --data folder:{tmp_path / 'mine'}\n" in out
    assert (tmp_path / "mine" / "sheet.png").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "mine"]
    pictures = sorted((tmp_path / "mine" / "images").rglob("*.*"))
    if way == "EXIF":
        for file in pictures:
            difference = np.asarray(Image.open(file)).astype(int) - photograph(int(file.stem))
            assert abs(difference).max() < 12  # of quality 95
            assert 0x0112 not in Image.open(file).getexif()
    else:
        assert {file.read_bytes() for file in pictures} <= set(before.values())


def test_two_commands_lead_to_a_model(tmp_path, capsys):
    from bad_input_tools import TRAIN, model_flags

    from segmodel import train
    from segmodel.common import cli

    assert command(export(tmp_path / "export", "labelme"), "--output", tmp_path / "mine", "--workers", 0) == 0
    arguments = ["--data", f"folder:{tmp_path / 'mine'}", *model_flags(), *TRAIN, "--output", str(tmp_path / "run")]
    assert cli.run("train", train.main, arguments) == 0
    assert (tmp_path / "run" / "last.safetensors").exists()


def test_the_table_counts_and_the_palette_stays(tmp_path, capsys):
    assert command(export(tmp_path / "export", "palette"), "--output", tmp_path / "mine", "--val-share", 0) == 0
    out = lines(capsys)
    pixels = np.bincount(np.concatenate([truth(number).ravel() for number in range(COUNT)]), minlength=3)
    for value in range(3):
        share = f"{100 * pixels[value] / pixels.sum():.3f}"
        assert re.search(rf"class_{value} +{value} +{pixels[value]:,} +{re.escape(share)} +5\n", out), out
    assert '--map "0=NAME,1=NAME,2=NAME", or a classes.txt' in out
    assert f"colour = {COLOURS[1].tolist()}" in (tmp_path / "mine" / "classes.toml").read_text()
    assert not (tmp_path / "mine" / "images" / "val").exists()


def test_map_renames_merges_and_ignores(tmp_path, capsys):
    source, mine = export(tmp_path / "export", "gaps"), tmp_path / "mine"
    assert command(source, "--output", mine, "--map", "10=road, 20=road, 0=ignore, 7=lake") == 2
    assert "at least two classes, got ignore, road: there is nothing to learn" in capsys.readouterr().err
    assert not mine.exists()
    assert command(source, "--output", mine, "--map", "0=ignore,*=road,20=car") == 0
    assert class_names(mine) == ["road", "car"]
    for label in imported(mine).values():
        assert set(np.unique(label)) == {0, 1, 255}
    assert command(source, "--output", mine, "--overwrite", "--map", "0=rest,10=road,20=rest") == 0
    assert class_names(mine) == ["rest", "road"]
    np.testing.assert_array_equal(imported(mine)["2"], truth(2) == 1)
    assert re.search(r"rest +0, 20 ", capsys.readouterr().out)


def test_map_by_name_and_colour(tmp_path):
    source = export(tmp_path / "export", "CVAT")
    assert command(source, "--output", tmp_path / "a", "--map", "road=street,bus=street,#1459DC=ignore,van=car") == 2
    assert command(source, "--output", tmp_path / "a", "--map", "road=street,#145ADC=ignore") == 0
    assert class_names(tmp_path / "a") == ["background", "street"]
    assert command(source, "--output", tmp_path / "b", "--keep-absent") == 0
    assert class_names(tmp_path / "b") == [*NAMES, "bus"]


def test_the_background_is_class_0_however_it_is_written(tmp_path):
    source = export(tmp_path / "export", "CVAT")
    write(source / "labelmap.txt", "road:200,30,40::\ncar:20,90,220::\nBackground:0,0,0::\n")
    assert command(source, "--output", tmp_path / "mine") == 0
    assert class_names(tmp_path / "mine") == ["background", "road", "car"]
    np.testing.assert_array_equal(imported(tmp_path / "mine")["1"], truth(1))


def test_colours_without_names(tmp_path, capsys):
    source = export(tmp_path / "export", "CVAT")
    (source / "labelmap.txt").unlink()
    assert command(source, "--output", tmp_path / "mine") == 0
    assert class_names(tmp_path / "mine") == ["background", "colour_145adc", "colour_c81e28"]
    assert (imported(tmp_path / "mine")["0"][truth(0) == 1] == 2).all()


def test_vocs_border_is_ignored_and_its_lists_split(tmp_path, capsys):
    source = export(tmp_path / "export", "CVAT")
    label = truth(0)
    label[0] = 255
    save(source / "SegmentationClass" / "0.png", COLOURS[label])
    write(source / "ImageSets" / "Segmentation" / "train.txt", "0\n1\n4\n")
    write(source / "ImageSets" / "Segmentation" / "val.txt", "2\n1\n")
    write(source / "ImageSets" / "Main" / "val.txt", "0\n")
    assert command(source, "--output", tmp_path / "mine") == 0
    out = lines(capsys)
    assert "voc: 4 samples: 2 train, 2 val (as the source has them)" in out
    assert "samples in no list or folder of train, val or test: 1, left out: 3" in out
    assert sorted(file.stem for file in (tmp_path / "mine/images/val").iterdir()) == ["1", "2"]
    np.testing.assert_array_equal(imported(tmp_path / "mine")["0"], label)


def test_vocs_own_names_and_augmented_labels(tmp_path, capsys):
    root = tmp_path / "VOC2012"
    for number in range(3):
        save(root / "JPEGImages" / f"2007_00000{number}.jpg", photograph(number))
        save(root / "SegmentationClass" / f"2007_00000{number}.png", np.zeros(SIZE, np.uint8))
        save(root / "SegmentationClassAug" / f"2007_00000{number}.png", 5 * truth(number))
    assert command(root, "--output", tmp_path / "mine") == 0
    assert class_names(tmp_path / "mine") == ["background", "bottle", "cow"]


def test_two_sources_a_list_and_what_is_left_out(tmp_path, capsys):
    for number in range(COUNT):
        save(tmp_path / "photos" / f"IMG {number}.png", photograph(number))
        if number:
            save(tmp_path / "masks" / f"IMG {number}.png", truth(number))
    save(tmp_path / "masks" / "old.png", truth(0))
    save(tmp_path / "photos" / "IMG 3.bmp", photograph(3))
    write(tmp_path / "photos" / "IMG 9.heic", b"a picture of a telephone")
    write(tmp_path / "val.txt", "IMG 2.png\nphotos/IMG 4.png\n")
    arguments = [tmp_path / "photos", tmp_path / "masks", "--output", tmp_path / "mine"]
    assert command(*arguments, "--val-list", tmp_path / "val.txt") == 0
    out = lines(capsys)
    assert "numbers: 3 samples: 1 train, 2 val (by lists)" in out
    assert f"pictures without a label: 1, left out: {tmp_path}/photos/IMG 0.png" in out
    assert f"labels without a picture: 1, left out: {tmp_path}/masks/old.png" in out
    assert "names of more than two files: 1, left out: " in out
    assert f"pictures to save as JPEG or PNG first: 1, left out: {tmp_path}/photos/IMG 9.heic" in out
    assert sorted(file.stem for file in (tmp_path / "mine/images/val").iterdir()) == ["IMG 2", "IMG 4"]


def test_a_zip_and_folders_of_train_and_val(tmp_path, capsys):
    for number in range(COUNT):
        palette_png(tmp_path / "set" / ("valid" if number == 2 else "train"), number)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in (tmp_path / "set").rglob("*.*"):
            archive.write(file, file.relative_to(tmp_path))
    assert command(tmp_path / "set.zip", "--output", tmp_path / "mine") == 0
    assert "4 train, 1 val (as the source has them)" in lines(capsys)
    assert [file.name for file in (tmp_path / "mine/images/val").rglob("*.jpg")] == ["2.jpg"]
    assert not list(tmp_path.rglob(".unpacked"))


def test_labels_saved_with_loss(tmp_path, capsys):
    for number in range(COUNT):
        save(tmp_path / "a" / f"{number}.png", photograph(number))
        save(tmp_path / "a" / f"{number}_mask.jpg", 255 * (truth(number) > 0).astype(np.uint8), quality=60)
        save(tmp_path / "b" / f"{number}.png", photograph(number))
        save(tmp_path / "b" / f"{number}_mask.jpg", COLOURS[truth(number)], quality=95, subsampling=0)
    assert command(tmp_path / "a", "--output", tmp_path / "mine") == 2
    error = capsys.readouterr().err
    assert "compressed with loss" in error
    assert "--nearest" in error
    assert command(tmp_path / "a", "--output", tmp_path / "mine", "--nearest") == 0
    np.testing.assert_array_equal(imported(tmp_path / "mine")["3"], truth(3) > 0)
    known = "#000000=background,#c81e28=road,#145adc=car"
    assert command(tmp_path / "b", "--output", tmp_path / "other", "--nearest", "--map", known) == 0
    assert class_names(tmp_path / "other") == ["background", "car", "road"]
    label = imported(tmp_path / "other")["3"]
    assert (label == np.array([0, 2, 1])[truth(3)]).mean() > 0.99


def test_labels_of_16_bits_one_bit_and_grey_rgb(tmp_path):
    for number in range(COUNT):
        for folder, label in (
            ("16", 1000 * truth(number).astype(np.uint16)),
            ("1", truth(number) > 0),
            ("rgb", np.repeat(10 * truth(number)[..., None], 3, 2)),
            ("alpha", np.dstack([COLOURS[truth(number)], 255 * (truth(number) > 0).astype(np.uint8)])),
        ):
            save(tmp_path / folder / "images" / f"{number}.jpg", photograph(number))
            save(tmp_path / folder / "masks" / f"{number}.png", label)
    found = {}
    for folder in ("16", "1", "rgb", "alpha"):
        assert command(tmp_path / folder, "--output", tmp_path / "out" / folder) == 0
        found[folder] = class_names(tmp_path / "out" / folder)
    assert found == {
        "16": ["class_0", "class_1000", "class_2000"], "1": ["background", "foreground"],
        "rgb": ["class_0", "class_10", "class_20"], "alpha": ["background", "colour_145adc", "colour_c81e28"],
    }  # fmt: skip


def test_palettes_that_differ_are_no_numbers(tmp_path, capsys):
    source = export(tmp_path / "export", "palette")
    label = Image.fromarray(truth(4))
    label.putpalette(COLOURS[[0, 2, 1]].tobytes())
    label.save(source / "labels" / "4.png")
    assert command(source, "--output", tmp_path / "mine") == 2
    assert "label value 1: is #c81e28 in the palette of" in capsys.readouterr().err
    assert command(source, "--output", tmp_path / "mine", "--format", "colours") == 0
    labels = imported(tmp_path / "mine")
    np.testing.assert_array_equal(labels["4"], truth(4))  # by colour: blue 1, red 2
    np.testing.assert_array_equal(labels["3"], np.array([0, 2, 1])[truth(3)])


def test_a_label_drawn_on_the_stored_pixels(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    for number in range(2):
        stored = Image.fromarray(photograph(number)).transpose(Image.Transpose.ROTATE_180)
        save(tmp_path / "export" / f"{number}.png", stored, exif=exif)
        save(tmp_path / "export" / f"{number}_mask.png", truth(number)[::-1, ::-1])
    assert command(tmp_path / "export", "--output", tmp_path / "mine", "--labels-drawn-on", "stored") == 0
    np.testing.assert_array_equal(imported(tmp_path / "mine")["1"], truth(1))
    picture = next((tmp_path / "mine/images").rglob("1.png"))
    np.testing.assert_array_equal(np.asarray(Image.open(picture)), photograph(1))


def test_seeds_choose_and_chosen_lists_are_kept(tmp_path):
    source = tmp_path / "export"
    for number in range(12):
        zero_and_255(source, number % 5 + 10 * number)
    chosen = set()
    for seed in (0, 0, 1, 2):
        assert command(source, "--output", tmp_path / "mine", "--overwrite", "--seed", seed, "--val-share", 0.25) == 0
        names = sorted(file.stem for file in (tmp_path / "mine/images/val").iterdir())
        assert len(names) == 3
        chosen.add(tuple(names))
    assert len(chosen) == 3


def test_bad_samples_are_left_out_on_request(tmp_path, capsys):
    source = export(tmp_path / "export", "labelme")
    write(source / "1.json", '{"shapes": [, "imagePath": "1.jpg"')
    write(source / "2.jpg", b"no picture")
    assert command(source, "--output", tmp_path / "mine", "--workers", 1) == 2
    captured = capsys.readouterr()
    assert captured.out.count("wrong: ") == 2
    assert "2 problems of 5 samples (--skip-bad leaves them out), the first: " in captured.err
    assert not list(tmp_path.glob("mine*"))
    assert command(source, "--output", tmp_path / "mine", "--skip-bad") == 0
    assert "samples that cannot be read: 2, left out: " in lines(capsys)
    assert len(imported(tmp_path / "mine")) == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_what_is_interrupted_leaves_what_was_there(error, tmp_path, monkeypatch, capsys):
    source, mine = export(tmp_path / "export", "palette"), tmp_path / "mine"
    assert command(source, "--output", mine) == 0
    before = {file: file.read_bytes() for file in mine.rglob("*.*")}

    def broken(read, keys, *, workers, title):
        for place, item in enumerate(loaded(read, keys, workers=0)):
            yield item
            if title == "written" and place == 2:
                raise error

    monkeypatch.setattr(importing, "each", broken)
    assert command(source, "--output", mine, "--overwrite", "--map", "2=car") in (1, 130)
    assert {file: file.read_bytes() for file in mine.rglob("*.*")} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "mine"]


def test_overwrite_takes_nothing_but_a_data_set(tmp_path, capsys):
    source = export(tmp_path / "export", "palette")
    write(tmp_path / "mine" / "thesis.txt", "years of work")
    assert command(source, "--output", tmp_path / "mine", "--overwrite") == 2
    assert "got thesis.txt" in capsys.readouterr().err
    assert (tmp_path / "mine" / "thesis.txt").exists()
    assert command(source, "--output", source, "--overwrite") == 2
    assert command(source / "images", source / "labels", "--output", source, "--overwrite") == 2
    assert "holds a source; sources are never changed" in capsys.readouterr().err
    inside = source / "mine"
    assert command(source, "--output", inside) == 0  # beside the pictures, as in a working folder
    assert command(source, "--output", inside, "--overwrite") == 0  # which does not import itself
    assert "5 samples: 4 train" in capsys.readouterr().out


def test_labelme_with_its_picture_within(tmp_path, capsys):
    source = export(tmp_path / "export", "labelme")
    for file in source.glob("*.jpg"):
        file.unlink()
    assert command(source, "--output", tmp_path / "mine") == 0
    assert class_names(tmp_path / "mine") == ["background", "car", "road"]
    np.testing.assert_array_equal(imported(tmp_path / "mine")["2"], np.array([0, 2, 1])[truth(2)])
    labelme(tmp_path / "reference", 2)
    picture = next((tmp_path / "mine/images").rglob("2.jpg"))
    assert picture.read_bytes() == (tmp_path / "reference" / "2.jpg").read_bytes()


def test_two_formats_ask_for_one(tmp_path, capsys):
    source = export(export(tmp_path / "export", "labelme"), "YOLO")
    assert command(source, "--output", tmp_path / "mine") == 2
    assert "expected labels of one format, found labelme (5), yolo (5): choose by --format" in capsys.readouterr().err
    assert command(source, "--output", tmp_path / "mine", "--format", "labelme") == 0


def test_help_names_every_format(capsys):
    with pytest.raises(SystemExit):
        command("--help")
    out = capsys.readouterr().out
    assert all(name in out for name in importing.FORMATS)
    assert Path(importing.__file__).stem == "command"
