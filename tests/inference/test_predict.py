"""The predict command: label files, ids, overlays and probabilities of pictures of any size."""

import numpy as np
import pytest
from inference_tools import picture, tiny_run
from PIL import Image

from segmodel import predict
from segmodel.common import cli
from segmodel.data.cityscapes import CLASSES, IDS
from segmodel.inference.views import label_maps
from segmodel.segmodel import SegModel

CPU = ("--device", "cpu", "--precision", "float32")


def run(*arguments):
    return cli.run("predict", predict.main, [*map(str, arguments), *CPU])


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, size in enumerate(((40, 30), (40, 30), (21, 37))):
        Image.fromarray(picture(*size, seed=index)).save(folder / f"{index}.png")
    return folder


def test_all_kinds_of_results_agree(tmp_path, photos):
    path, out = tiny_run(tmp_path / "run"), tmp_path / "out"
    assert run(path, photos, "--output", out, "--write", "labels,overlay,probabilities", "--batch-size", 2) == 0
    model = SegModel.load(path)
    for index in range(3):
        pixels = np.asarray(Image.open(photos / f"{index}.png"))
        label = Image.open(out / f"{index}.png")
        expected = label_maps(model, pixels)["model"]
        assert label.mode == "P"
        assert np.mean(np.asarray(label) != expected) < 0.01  # two images a pass: ties may turn
        assert np.array_equal(np.array(label.getpalette()[: 3 * 12]).reshape(12, 3), model.palette)
        assert Image.open(out / f"{index}_overlay.png").size == label.size
        with np.load(out / f"{index}.npz") as content:
            assert content["probabilities"].dtype == np.float16
            assert content["probabilities"].shape == (12, *pixels.shape[:2])
            assert tuple(content["classes"]) == model.classes
            np.testing.assert_allclose(content["probabilities"].astype(np.float32).sum(0), 1, atol=5e-3)
            chosen = np.take_along_axis(content["probabilities"], np.asarray(label)[None].astype(int), 0)[0]
            assert np.all(chosen >= content["probabilities"].max(0) - np.float16(2e-3))
    assert len(list(out.iterdir())) == 9  # and no partial files


def test_photographs_are_segmented_upright_by_predict_and_segment_alike(tmp_path, photos, capsys):
    path, out = tiny_run(tmp_path / "run"), tmp_path / "out"
    exif = Image.Exif()
    exif[0x0112] = 6
    shown = picture(30, 40, seed=5)
    Image.fromarray(np.rot90(shown)).save(photos / "turned.png", exif=exif)
    assert run(path, photos, "--output", out, "--write", "labels,overlay") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{path / 'last.safetensors'}: 4 pictures segmented, in {out}")
    assert lines[1] == f"turned upright, as their EXIF orientation says: 1, the first is {photos / 'turned.png'}"
    model = SegModel.load(path)
    expected = model.segment(shown)
    assert np.array_equal(model.segment(photos / "turned.png"), expected)
    assert Image.open(out / "turned_overlay.png").size == (40, 30)
    assert np.mean(np.asarray(Image.open(out / "turned.png")) != expected) < 0.01


def test_windows_and_scales_keep_the_size(tmp_path, photos):
    path, out = tiny_run(tmp_path / "run"), tmp_path / "out"
    options = ("--window", "32,32", "--overlap", "0.5", "--scales", "0.7,1,1.3", "--mirror", "--fusion", "max_mean")
    assert run(path, photos, "--output", out, "--write", "labels", *options) == 0
    assert [Image.open(out / f"{index}.png").size for index in range(3)] == [(30, 40), (30, 40), (37, 21)]


def test_ids_of_cityscapes_and_ade20k(tmp_path, photos):
    known = dict(zip(CLASSES, IDS, strict=True))
    names = tuple(reversed(known))  # by name, whatever the order
    path = tiny_run(tmp_path / "run", classes=names)
    folders = {ids: tmp_path / ids for ids in ("classes", "cityscapes", "ade20k")}
    for ids, out in folders.items():
        assert run(path, photos / "2.png", "--output", out, "--ids", ids) == 0
    labels = {ids: Image.open(out / "2.png") for ids, out in folders.items()}
    numbers = np.asarray(labels["classes"])
    assert len(np.unique(numbers)) > 1
    assert np.array_equal(np.asarray(labels["ade20k"]), numbers + 1)
    assert np.array_equal(np.asarray(labels["cityscapes"]), np.array([known[name] for name in names])[numbers])
    colours = [np.asarray(label.convert("RGB")) for label in labels.values()]
    assert np.array_equal(colours[0], colours[1])
    assert np.array_equal(colours[0], colours[2])


def test_mistakes_are_one_line_and_nothing_is_written(tmp_path, photos, capsys):
    path, out = tiny_run(tmp_path / "run"), tmp_path / "out"
    for arguments, message in (
        (("--ids", "cityscapes"), "--ids: cityscapes has no class 'mountain'; it has road, sidewalk"),
        (("--write", "labels,pdf"), "--write: expected some of labels, overlay, probabilities, got 'pdf'"),
        (("--scales", "-1"), "--scales: expected more than 0, got (-1.0,)"),
    ):
        assert run(path, photos, "--output", out, *arguments) == 2
        assert message in capsys.readouterr().err
        assert not out.exists()


def test_no_result_takes_the_place_of_a_picture_or_of_another_result(tmp_path, photos, capsys):
    path = tiny_run(tmp_path / "run")
    before = (photos / "0.png").read_bytes()
    assert run(path, photos, "--output", photos, "--overwrite") == 2
    assert "0.png: a result would overwrite this picture" in capsys.readouterr().err
    assert (photos / "0.png").read_bytes() == before
    Image.fromarray(picture(9, 9, seed=0)).save(photos / "0_overlay.png")
    assert run(path, photos, "--output", tmp_path / "out") == 2
    assert "0_overlay.png: its result would overwrite that of" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_pictures_that_cannot_be_read_are_named_and_the_others_predicted(tmp_path, photos, capsys):
    path, out = tiny_run(tmp_path / "run"), tmp_path / "out"
    (photos / "0b.png").write_bytes(b"nothing")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(photos / "1.png")
    assert run(path, photos, "--output", out, "--write", "labels") == 2
    errors = capsys.readouterr().err
    assert "0b.png: cannot be read as an image" in errors
    assert "1.png: expected an image of 8 bits a channel" in errors
    assert sorted(file.name for file in out.iterdir()) == ["0.png", "2.png"]
