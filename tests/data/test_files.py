"""CamVid, VOC and own folders, on small trees laid out as the data sets ship, and everything that can be wrong."""

import pickle
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from data_tools import SIZE, fails, save_image, save_label
from PIL import Image, ImageOps

from segmodel.common.labels import voc_palette
from segmodel.data import DataError, SegmentationData, open_data
from segmodel.data.images import index_values, read_image, read_label


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """The SegNet tutorial's CamVid: 12 values, absolute paths of the tutorial's machine in the lists."""
    root = tmp_path / "CamVid"
    for split, name in (("train", "0001TP_006690"), ("val", "0016E5_07959"), ("test", "Seq05VD_f00000")):
        save_image(root / split / f"{name}.png")
        save_label(root / f"{split}annot" / f"{name}.png", [0, 5, 10, 11, 255])
        line = f"/SegNet/CamVid/{split}/{name}.png /SegNet/CamVid/{split}annot/{name}.png\n"
        (root / f"{split}.txt").write_text(line)
    return root


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """VOCdevkit as it ships: palette PNGs, one name a line, more images than segmentations."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    palette = voc_palette(256)
    for split, name in (("train", "2007_000032"), ("val", "2007_000033"), ("trainval", "2007_000039")):
        save_image(root / "JPEGImages" / f"{name}.jpg", quality=95)
        save_label(root / "SegmentationClass" / f"{name}.png", [0, 1, 20, 255], palette)
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(f"{name}\n")
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "mine"
    for split in ("train", "val"):
        save_image(root / "images" / split / "town" / "a.jpg")
        save_image(root / "images" / split / "b.PNG", seed=1)
        save_label(root / "labels" / split / "town" / "a.png", [0, 1, 9])
        save_label(root / "labels" / split / "b.png", [1])
    (root / "classes.toml").write_text(
        'ignore = 9\n[[classes]]\nname = "sky"\ncolour = [10, 20, 30]\n[[classes]]\nname = "rest"\ncolour = [1, 2, 3]\n'
    )
    return root


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# What ships ---------------------------------------------------------------------------------------------------------


def test_camvid_as_it_ships(camvid):
    for split in ("train", "val", "test"):
        data = open_data(f"camvid:{camvid}", split=split)
        sample = data[0]
        assert np.array_equal(sample.image, np.asarray(Image.open(next((camvid / split).iterdir()))))
        assert np.array_equal(sample.label, np.resize([0, 5, 10, 255, 255], SIZE))
    assert sample.name == "Seq05VD_f00000"
    assert data.name == "camvid"
    assert data.classes == (
        "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist",
    )  # fmt: skip
    assert data.palette.shape == (11, 3)


def test_camvid_with_relative_paths_windows_line_ends_and_empty_lines(camvid):
    (camvid / "train.txt").write_bytes(
        b"\xef\xbb\xbftrain/0001TP_006690.png trainannot/0001TP_006690.png\r\n\r\nval/0016E5_07959.png"
        b"\tvalannot/0016E5_07959.png\r\n"
    )
    data = open_data(f"camvid:{camvid}", split="train")
    assert [data[index].name for index in range(len(data))] == ["0001TP_006690", "0016E5_07959"]


@pytest.mark.parametrize("level", ["VOCdevkit", "VOC2012"])
def test_voc_as_it_ships(voc, level):
    data = open_data(f"voc:{voc if level == 'VOC2012' else voc.parent}", split="train")
    sample = data[0]
    assert (len(data), sample.name) == (1, "2007_000032")
    assert np.array_equal(sample.image, np.asarray(Image.open(voc / "JPEGImages" / "2007_000032.jpg")))
    assert np.array_equal(sample.label, np.resize([0, 1, 20, 255], SIZE))
    assert (len(data.classes), data.classes[0], data.classes[20]) == (21, "background", "tvmonitor")
    assert data.palette[[0, 1, 2, 15, 20]].tolist() == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [192, 128, 128],
        [0, 64, 128],
    ]
    assert open_data(f"voc:{voc}", split="val")[0].name == "2007_000033"


def test_voc_takes_the_augmented_set_where_it_is(voc):
    (voc / "ImageSets" / "Segmentation" / "train_aug.txt").write_text("2007_000032\n2007_000039\n")
    fails(f"voc:{voc}", "train_aug.txt is there", "SegmentationClassAug (missing)")
    for name in ("2007_000032", "2007_000039"):  # the augmented masks are grey
        save_label(voc / "SegmentationClassAug" / f"{name}.png", [3])
    data = open_data(f"voc:{voc}", split="train")
    assert (len(data), set(data[1].label.ravel())) == (2, {3})
    assert set(open_data(f"voc:{voc}", split="val")[0].label.ravel()) == {0, 1, 20, 255}
    save_label(voc / "SegmentationClassAug" / "2007_000033.png", [4])
    shutil.rmtree(voc / "SegmentationClass")
    assert set(open_data(f"voc:{voc}", split="val")[0].label.ravel()) == {4}


def test_own_folder(folder):
    data = open_data(f"folder:{folder}", split="train")
    assert (data.name, data.classes, data.palette.tolist()) == ("mine", ("sky", "rest"), [[10, 20, 30], [1, 2, 3]])
    assert [data[index].name for index in range(2)] == ["b", "town/a"]
    assert np.array_equal(data[1].label, np.resize([0, 1, 255], SIZE))


def test_hidden_folders_hold_no_pictures(folder):
    hidden = folder / "images" / "train" / ".ipynb_checkpoints"
    hidden.mkdir()
    Image.new("RGB", (3, 3)).save(hidden / "b-checkpoint.png")
    assert [pair.name for pair in open_data(f"folder:{folder}", split="train").pairs] == ["b", "town/a"]


def test_own_folder_with_lists(folder):
    (folder / "train.txt").write_text("images/val/b.PNG labels/val/b.png\n")
    data = open_data(f"folder:{folder}", split="train")
    assert (len(data), data[0].name) == (1, "b")
    fails(f"folder:{folder}", "val.txt: no such file", split="val")


def test_own_folder_with_colours(folder):
    edit(folder / "classes.toml", "ignore = 9", 'labels = "colour"\nignore = [255, 255, 255]')
    for label in folder.rglob("labels/*/**/*.png"):
        colours = np.array([[10, 20, 30], [255, 255, 255], [1, 2, 3]], np.uint8)
        Image.fromarray(colours[np.resize([0, 1, 2], SIZE)]).save(label)
    data = open_data(f"folder:{folder}", split="train")
    assert np.array_equal(data[0].label, np.resize([0, 255, 1], SIZE))
    path = folder / "labels" / "train" / "b.png"
    pixels = np.array(Image.open(path))
    pixels[2, 3] = (1, 2, 4)
    Image.fromarray(pixels).save(path)
    fails(f"folder:{folder}", str(path), "colour (1, 2, 4) at row 2, column 3", index=0)
    save_label(path, [0])
    fails(f"folder:{folder}", str(path), "colour (0, 0, 0) at row 0, column 0", index=0)
    save_label(path, [255])  # grey pictures have colours too: masks of 0 and 255
    assert set(data[0].label.ravel()) == {255}
    Image.fromarray(np.zeros(SIZE, np.uint16)).save(path)
    fails(f"folder:{folder}", str(path), "expected labels as colours (an RGB or grey picture), got mode I;16", index=0)


def test_data_can_be_pickled(camvid, voc, folder):
    for spec in (f"camvid:{camvid}", f"voc:{voc}", f"folder:{folder}"):
        data = open_data(spec, split="train")
        copy = pickle.loads(pickle.dumps(data))
        assert isinstance(copy, SegmentationData)
        assert np.array_equal(copy[0].image, data[0].image)
        assert copy[0].image.flags.writeable
        assert copy.ignore_value == 255


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "RGBA", "CMYK", "YCbCr"])
def test_images_of_other_modes_become_rgb(camvid, mode):
    path = camvid / "train" / "0001TP_006690.png"
    ending = ".tif" if mode in ("CMYK", "YCbCr") else ".png"
    converted = Image.open(path).convert(mode)
    converted.save(path.with_suffix(ending))
    assert Image.open(path.with_suffix(ending)).mode == mode
    edit(camvid / "train.txt", "train/0001TP_006690.png", f"train/0001TP_006690{ending}")
    sample = open_data(f"camvid:{camvid}", split="train")[0]
    assert np.array_equal(sample.image, np.asarray(converted.convert("RGB")))


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels as stored, as a viewer shows them: Exif 2.3, table of "Orientation"."""
    return {
        1: lambda x: x, 2: lambda x: x[:, ::-1], 3: lambda x: x[::-1, ::-1], 4: lambda x: x[::-1],
        5: lambda x: x.swapaxes(0, 1), 6: lambda x: x[::-1].swapaxes(0, 1),
        7: lambda x: x[::-1, ::-1].swapaxes(0, 1), 8: lambda x: x.swapaxes(0, 1)[::-1],
    }[orientation](pixels)  # fmt: skip


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", [".jpg", ".png", ".tif", ".webp"])
def test_pictures_are_read_upright(tmp_path, ending, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = save_image(tmp_path / f"stored{ending}")
    save_image(tmp_path / f"a{ending}", exif=exif)
    pixels, applied = read_image(tmp_path / f"a{ending}")
    assert np.array_equal(pixels, turned(stored, orientation))
    assert applied == orientation
    assert pixels.flags.writeable
    assert np.array_equal(pixels, np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / f"a{ending}"))))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_labels_are_of_the_upright_picture_or_of_its_size_as_stored(voc, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = save_image(voc / "JPEGImages" / "2007_000032.jpg", exif=exif)
    label = np.resize(np.array([0, 1, 20, 255, 3], np.uint8), SIZE)
    path = voc / "SegmentationClass" / "2007_000032.png"
    upright = turned(label, orientation)
    for written, turns in ((upright, "image"), (label, "both" if orientation > 4 else None)):
        Image.fromarray(written).save(path)
        sample = open_data(f"voc:{voc}", split="train")[0]
        assert np.array_equal(sample.image, turned(stored, orientation))
        if turns is None:  # of the same size: it is taken as drawn on the upright picture
            assert np.array_equal(sample.label, written)
        else:
            assert np.array_equal(sample.label, upright)
            assert sample.turned == (turns if orientation > 1 else "")
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(path)
    shown = "8x6" if orientation < 5 else "6x8"
    hint = f"got 3x3 (EXIF orientation {orientation} of the image is applied)" if orientation > 1 else "got 3x3"
    fails(f"voc:{voc}", "expected the size", shown, hint, index=0)


# What can be wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["camvid", "voc", "folder"])
def test_wrong_roots_and_splits(kind, tmp_path, request):
    fails(f"{kind}:{tmp_path / 'none'}", "expected a folder", "none (missing)")
    (tmp_path / "file").write_text("")
    fails(f"{kind}:{tmp_path / 'file'}", "expected a folder", "file (a file)")
    fails(kind, f"expected {kind}:PATH, got '{kind}'")
    fails(f"{kind}:", f"expected {kind}:PATH")
    root = request.getfixturevalue(kind)
    fails(f"{kind}:{root}", "split: expected", "got 'training'", split="training")


def test_unknown_kind():
    fails("kitti:somewhere", "expected one of scenes, voc, sbd, cityscapes,", "folder, got 'kitti:somewhere'")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["expected at least one line (IMAGE LABEL), got an empty list"]),
        ("\n \n", ["got an empty list"]),
        ("{ok}\ntrain/x.png\n", ["line 2", "expected IMAGE LABEL, got 'train/x.png'"]),
        ("{ok}\n\na b c\n", ["line 3", "got 'a b c'"]),
        ("{ok}\ntrain/x.png trainannot/x.png", ["line 2", "no such file", "train/x.png"]),
        ("train/0001TP_006690.png trainannot/x.png", ["line 1", "no such file", "trainannot/x.png"]),
        ("../CamVid/train/0001TP_006690.png trainannot/x.png", ["line 1", "expected a path inside", "'../CamVid"]),
        ("/SegNet/CamVid/../0001TP_006690.png trainannot/x.png", ["line 1", "expected a path inside", "'../0001TP"]),
        ("train trainannot", ["line 1", "no such file"]),
    ],
)
def test_wrong_lists(camvid, text, parts):
    good = "train/0001TP_006690.png trainannot/0001TP_006690.png"
    (camvid / "train.txt").write_text(text.replace("{ok}", good))
    fails(f"camvid:{camvid}", str(camvid / "train.txt"), *parts)


def test_lists_that_cannot_be_read(camvid, voc):
    (camvid / "train.txt").unlink()
    fails(f"camvid:{camvid}", "train.txt: no such file")
    (camvid / "train.txt").write_bytes(b"\xff\xfe\x00")
    fails(f"camvid:{camvid}", "train.txt: cannot be read")
    lists = voc / "ImageSets" / "Segmentation"
    (lists / "train.txt").write_text("2007_000032\n2007_999999\n")
    fails(f"voc:{voc}", "train.txt, line 2", "no such file", "2007_999999.jpg")
    (voc / "SegmentationClass" / "2007_000032.png").unlink()
    (lists / "train.txt").write_text("2007_000032\n")
    fails(f"voc:{voc}", "train.txt, line 1", "SegmentationClass/2007_000032.png")
    (lists / "train.txt").write_text("2007_000032 1\n")
    fails(f"voc:{voc}", "train.txt, line 1", "one image name a line")
    shutil.rmtree(lists)
    fails(f"voc:{voc}", "expected a folder", "Segmentation (missing)")


def test_label_values_out_of_range(camvid, voc, folder):
    path = camvid / "trainannot" / "0001TP_006690.png"
    save_label(path, [0, 1, 2, 12])
    fails(f"camvid:{camvid}", f"{path}: label value 12 at row 0, column 3; allowed: 0..10 and 11 (ignored)", index=0)
    path = voc / "SegmentationClass" / "2007_000032.png"
    save_label(path, [0] * 10 + [21], voc_palette(256))
    fails(f"voc:{voc}", f"{path}: label value 21 at row 1, column 2; allowed: 0..20 and 255 (ignored)", index=0)
    path = folder / "labels" / "train" / "b.png"
    save_label(path, [255])
    fails(f"folder:{folder}", f"{path}: label value 255", "allowed: 0..1 and 9 (ignored)", index=0)
    Image.fromarray(np.full(SIZE, 256 + 9, np.uint16)).save(path)
    fails(f"folder:{folder}", "label value 265", index=0)
    Image.fromarray(np.full(SIZE, 1, np.uint16)).save(path)
    assert set(open_data(f"folder:{folder}", split="train")[0].label.ravel()) == {1}


def test_images_of_one_name_in_two_folders_have_two_names(folder):
    for place in ("one", "two"):
        for kind, file in (("images", "b.PNG"), ("labels", "b.png")):
            (folder / kind / place).mkdir()
            shutil.copy(folder / kind / "val" / file, folder / kind / place / "same.png")
    rows = [f"images/{place}/same.png labels/{place}/same.png\n" for place in ("one", "two")]
    (folder / "train.txt").write_text("".join(rows))
    assert [pair.name for pair in open_data(f"folder:{folder}", split="train").pairs] == [
        "images/one/same", "images/two/same",
    ]  # fmt: skip
    shutil.copy(folder / "images" / "one" / "same.png", folder / "images" / "one" / "same.bmp")
    (folder / "train.txt").write_text(rows[0] + rows[0].replace("same.png", "same.bmp", 1))
    assert [pair.name for pair in open_data(f"folder:{folder}", split="train").pairs] == [
        "images/one/same.png", "images/one/same.bmp",
    ]  # fmt: skip
    (folder / "train.txt").write_text(2 * rows[0])
    assert [pair.name for pair in open_data(f"folder:{folder}", split="train").pairs] == ["same", "same"]


def test_grey_labels_that_pillow_would_stretch_or_invert(folder):
    path = folder / "labels" / "train" / "b.png"  # Pillow goes by the content, not by the name
    pixels = bytes(np.resize([0, 1, 1], SIZE[0] * SIZE[1]).astype(np.uint8))
    size = f"{SIZE[1]} {SIZE[0]}".encode()
    path.write_bytes(b"P5 " + size + b" 255\n" + pixels)
    expected = np.resize([0, 1, 1], SIZE)
    assert np.array_equal(open_data(f"folder:{folder}", split="train")[0].label, expected)
    picture = Image.fromarray(expected.astype(np.uint8))
    for ending in ("GIF", "BMP", "TIFF"):
        picture.save(path, format=ending)
        assert np.array_equal(open_data(f"folder:{folder}", split="train")[0].label, expected)
    path.write_bytes(b"P5 " + size + b" 51\n" + pixels)
    fails(f"folder:{folder}", "got mode L up to 51", index=0)
    picture.save(path, format="TIFF", tiffinfo={262: 0})
    fails(f"folder:{folder}", "got mode L, white as 0", index=0)
    for options in ({"format": "JPEG"}, {"format": "MPO"}, {"format": "TIFF", "compression": "jpeg"}):
        picture.save(path, **options)
        fails(f"folder:{folder}", "got mode L, compressed with loss", index=0)


@pytest.mark.parametrize("reverse", [False, True])  # the bits of each byte: TIFF's FillOrder
@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_tiff_labels_of_few_bits(tmp_path, bits, inverted, reverse):
    """What is read is what the file holds, or it is refused."""
    numbers = np.resize([0, 1] if bits == 1 else [0, 1, 2, 3], (1, 8))
    packed = np.packbits(np.unpackbits(numbers.astype(np.uint8).reshape(-1, 1), axis=1)[:, -bits:].ravel())
    data = bytes(int(f"{byte:08b}"[::-1], 2) if reverse else byte for byte in packed.tolist())
    entries = {256: 8, 257: 1, 258: bits, 259: 1, 262: 0 if inverted else 1, 266: 1 + reverse, 273: 0, 277: 1, 278: 1,
               279: len(data)}  # fmt: skip
    entries[273] = 14 + 12 * len(entries)
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    path = tmp_path / "label.tif"
    path.write_bytes(struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + rows + bytes(4) + data)
    if inverted or bits in (2, 4):
        with pytest.raises(DataError, match="white as 0" if inverted else "of 2 or 4 bits"):
            read_label(path, values=index_values(4))
    else:
        assert np.array_equal(read_label(path, values=index_values(4)), numbers)


def test_label_files_whose_numbers_pillow_would_change(folder):
    path = folder / "labels" / "train" / "b.png"

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", SIZE[1], SIZE[0], 4, 0, 0, 0, 0)  # 4 bits, grey
    rows = b"".join(b"\0" + bytes([0x01] * (SIZE[1] // 2)) for _ in range(SIZE[0]))
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    fails(f"folder:{folder}", f"{path}: expected labels as numbers", "got mode L of 2 or 4 bits", index=0)
    Image.fromarray(np.full(SIZE, -1, np.int32)).save(path, format="TIFF")
    fails(f"folder:{folder}", f"{path}: label value -1", index=0)
    Image.fromarray(np.resize([True, False], SIZE)).save(path)
    assert np.array_equal(open_data(f"folder:{folder}", split="train")[0].label, np.resize([1, 0], SIZE))


def test_broken_files(voc):
    image = voc / "JPEGImages" / "2007_000032.jpg"
    label = voc / "SegmentationClass" / "2007_000032.png"
    save_image(image, size=(90, 90))
    spec = f"voc:{voc}"
    fails(spec, f"{label}: expected the size of its image {image}, 90x90, got 8x6", index=0)
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    fails(spec, f"{image}: cannot be read as an image", "truncated", index=0)
    image.write_bytes(b"")
    fails(spec, f"{image}: cannot be read as an image", index=0)
    image.write_bytes(b"<html>not found</html>")
    fails(spec, f"{image}: cannot be read as an image", index=0)
    data = open_data(spec, split="train")
    image.unlink()
    with pytest.raises(DataError, match=r"2007_000032\.jpg: no such file"):
        data[0]
    save_image(image)
    png = label.read_bytes()
    label.write_bytes(png[:-30])
    fails(spec, f"{label}: cannot be read as an image", index=0)
    save_image(label)
    fails(spec, f"{label}: expected labels as numbers", "got mode RGB", index=0)
    Image.fromarray(np.zeros(SIZE, np.uint16)).save(image.with_suffix(".png"))
    image.with_suffix(".png").replace(image)
    fails(spec, f"{image}: expected an image of 8 bits a channel, got mode I;16", index=0)


def test_pictures_that_are_too_large_or_need_a_program_to_be_read(voc, monkeypatch):
    image = voc / "JPEGImages" / "2007_000032.jpg"
    Image.open(image).save(image, format="EPS")  # Pillow would start Ghostscript
    fails(f"voc:{voc}", f"{image}: cannot be read as an image: cannot identify image file", index=0)
    save_image(image)
    monkeypatch.setenv("SEGMODEL_MAX_PIXELS", "47")
    fails(f"voc:{voc}", f"{image}: cannot be read as an image: expected at most 47 pixels", "got 8x6", index=0)
    monkeypatch.setenv("SEGMODEL_MAX_PIXELS", "48")
    assert open_data(f"voc:{voc}", split="train")[0].label.shape == SIZE


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("ignore", "ignor", ["ignor: unknown key, expected classes, ignore, labels"]),
        ('name = "sky"', 'nam = "sky"', ["classes[0].nam: unknown key, expected colour, name"]),
        ('name = "rest"', "", ["classes[1].name: expected a text, got None"]),
        ("ignore = 9", "ignore = 9\nval_share = 1", ["val_share: expected more than 0 and less than 1, got 1"]),
        ("ignore = 9", "ignore = 9\nval_seed = 1.5", ["val_seed: expected a whole number, got 1.5"]),
        ("ignore = 9", "map = 7", ["map: expected a table such as { 10 = 1"]),
        ("ignore = 9", "map = { 256 = 1 }", ["map: expected label values of 0..255 on the left, got '256'"]),
        ("ignore = 9", "map = { sky = 1 }", ["map: expected label values of 0..255 on the left, got 'sky'"]),
        ("ignore = 9", "map = { 7 = 2 }", ["map.7: expected a class (0..1, or its name) or 'ignore', got 2"]),
        ("ignore = 9", "map = { 7 = 'x' }", ["map.7: expected a class (0..1, or its name) or 'ignore', got 'x'"]),
        ("ignore = 9", "map = { 7 = true }", ["map.7: expected a class"]),
        ("ignore = 9", "map = { 0 = 1 }", ["map: expected a label value for each class, got none for sky"]),
        ("ignore = 9", "map = { 9 = 1 }\nignore = 9", ["ignore: expected a number", "that no class has", "got 9"]),
        ("ignore = 9", "ignore = [9, 1]", ["ignore: expected a number of 0..255 that no class has", "got 1"]),
        ("ignore = 9", "labels = 'colour'\nmap = { 7 = 1 }", ["map: expected only where labels are numbers"]),
        ('name = "rest"', "name = 3", ["classes[1].name: expected a text, got 3"]),
        ('name = "rest"', 'name = "sky"', ["classes: expected names that differ"]),
        (
            'ignore = 9\n[[classes]]\nname = "sky"\ncolour = [10, 20, 30]',
            'labels = "colour"\n[[classes]]\nname = "sky"',
            ["classes[0].colour: expected [red, green, blue] of 0..255, got None"],
        ),
        ("[1, 2, 3]", "[1, 2]", ["classes[1].colour"]),
        ("[1, 2, 3]", "[1, 2, 256]", ["classes[1].colour", "256"]),
        ("[1, 2, 3]", "[1, 2, 3.0]", ["classes[1].colour"]),
        ("[1, 2, 3]", "[1, 2, true]", ["classes[1].colour"]),
        ("ignore = 9", "ignore = 1", ["ignore: expected a number of 0..255 that no class has", "got 1"]),
        ("ignore = 9", "ignore = 256", ["ignore: expected", "256"]),
        ("ignore = 9", "ignore = [0, 0, 0]", ["ignore: expected a number"]),
        ("ignore = 9", "labels = 'rgb'", ["labels: expected 'index' or 'colour', got 'rgb'"]),
        ("ignore = 9", "labels = 'colour'\nignore = 9", ["ignore: expected [red, green, blue]"]),
        ("ignore = 9", "labels = 'colour'\nignore = [1, 2, 3]", ["colours: expected all different"]),
        ("ignore = 9", "ignore = ", ["cannot be read", "line 1"]),
    ],
)
def test_wrong_class_files(folder, old, new, parts):
    edit(folder / "classes.toml", old, new)
    fails(f"folder:{folder}", str(folder / "classes.toml"), *parts)


def test_wrong_folders(folder):
    (folder / "labels" / "train" / "town" / "a.png").unlink()
    fails(f"folder:{folder}", "images/train/town/a.jpg: no such file", "labels/train/town/a.png")
    save_image(folder / "images" / "val" / "b.jpg")
    fails(f"folder:{folder}", "expected one image of this name", split="val")
    fails(f"folder:{folder}", "expected a folder", "images/test (missing)", split="test")
    shutil.rmtree(folder / "images" / "val")
    (folder / "images" / "val").mkdir()
    fails(f"folder:{folder}", "expected images (.jpg,", "got none", split="val")
    (folder / "classes.toml").write_text("classes = []")
    fails(f"folder:{folder}", "classes: expected 1 to 254 names or tables [[classes]], got []")
    (folder / "classes.toml").write_text("classes = [3]")
    fails(f"folder:{folder}", "classes[0]: expected a name, or a table with name and colour, got 3")
    (folder / "classes.toml").unlink()
    fails(f"folder:{folder}", "classes.toml: no such file")
