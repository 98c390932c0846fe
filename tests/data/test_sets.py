"""SBD, Cityscapes and ADE20K on small trees laid out as they ship, and mixes of data sets."""

import hashlib
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from data_tools import SIZE, fails, save_image, save_label
from PIL import Image

from segmodel.common.labels import voc_palette
from segmodel.data import PUBLISHED_IDS, DataError, MixedData, index_data, open_data
from segmodel.data.ade20k import CLASSES as ADE_CLASSES
from segmodel.data.cityscapes import CLASSES, IDS, PALETTE

# Cityscapes' published table: id, name, class in training (255: none) and colour of every label in the pictures.
PUBLISHED = """
 0 unlabeled 255 0 0 0|1 ego_vehicle 255 0 0 0|2 rectification_border 255 0 0 0|3 out_of_roi 255 0 0 0
 4 static 255 0 0 0|5 dynamic 255 111 74 0|6 ground 255 81 0 81|7 road 0 128 64 128|8 sidewalk 1 244 35 232
 9 parking 255 250 170 160|10 rail_track 255 230 150 140|11 building 2 70 70 70|12 wall 3 102 102 156
 13 fence 4 190 153 153|14 guard_rail 255 180 165 180|15 bridge 255 150 100 100|16 tunnel 255 150 120 90
 17 pole 5 153 153 153|18 polegroup 255 153 153 153|19 traffic_light 6 250 170 30|20 traffic_sign 7 220 220 0
 21 vegetation 8 107 142 35|22 terrain 9 152 251 152|23 sky 10 70 130 180|24 person 11 220 20 60|25 rider 12 255 0 0
 26 car 13 0 0 142|27 truck 14 0 0 70|28 bus 15 0 60 100|29 caravan 255 0 0 90|30 trailer 255 0 0 110
 31 train 16 0 80 100|32 motorcycle 17 0 0 230|33 bicycle 18 119 11 32
"""


def save_mat(path: Path, label: np.ndarray) -> None:
    """As SBD's files: a struct with the labels, sparse boundaries of 20 classes, and the classes present."""
    scipy_io = pytest.importorskip("scipy.io", reason="needs scipy, which writes MATLAB files here")
    boundaries = np.empty((20, 1), object)
    for row in range(20):
        boundaries[row, 0] = pytest.importorskip("scipy.sparse").csc_matrix(label == row)
    truth = {"Segmentation": label, "Boundaries": boundaries, "CategoriesPresent": np.unique(label)}
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy_io.savemat(path, {"GTcls": truth}, do_compression=True)


@pytest.fixture
def sbd(tmp_path: Path) -> Path:
    """benchmark_RELEASE as it ships: of five images two are VOC's."""
    root = tmp_path / "benchmark_RELEASE" / "dataset"
    names = {"train": ["2008_000002", "2007_000032", "2008_000008"], "val": ["2007_000033", "2008_000009"]}
    for number, name in enumerate(names["train"] + names["val"]):
        save_image(root / "img" / f"{name}.jpg", seed=number)
        save_mat(root / "cls" / f"{name}.mat", np.resize(np.array([0, number, 20], np.uint8), SIZE))
    for split, listed in names.items():
        (root / f"{split}.txt").write_text("".join(f"{name}\n" for name in listed))
    return root


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for split, name in (("train", "2007_000032"), ("val", "2007_000033")):
        save_image(root / "JPEGImages" / f"{name}.jpg")
        save_label(root / "SegmentationClass" / f"{name}.png", [0, 1, 20, 255], voc_palette(256))
        lists = root / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{split}.txt").write_text(f"{name}\n")
    return root


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    """One city a split, all 34 ids; pictures of polygons, instances and colours beside the labels."""
    root = tmp_path / "cityscapes"
    for truth, split, city in (
        ("gtFine", "train", "aachen"),
        ("gtFine", "val", "frankfurt"),
        ("gtCoarse", "train_extra", "augsburg"),
        ("gtCoarse", "train", "aachen"),
    ):
        name = f"{city}_000000_000019"
        save_image(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", seed=len(city))
        folder = root / truth / split / city
        save_label(folder / f"{name}_{truth}_labelIds.png", list(range(34)))
        save_image(folder / f"{name}_{truth}_color.png")
        save_label(folder / f"{name}_{truth}_instanceIds.png", [7, 26])
        (folder / f"{name}_{truth}_polygons.json").write_text("{}")
    return root


@pytest.fixture
def ade(tmp_path: Path) -> Path:
    root = tmp_path / "ADEChallengeData2016"
    for split, name in (("training", "ADE_train_00000001"), ("validation", "ADE_val_00000001")):
        save_image(root / "images" / split / f"{name}.jpg")
        save_label(root / "annotations" / split / f"{name}.png", [0, 1, 75, 150])
    return root


# SBD ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["benchmark_RELEASE", "dataset"])
def test_sbd_as_it_ships(sbd, level):
    root = sbd if level == "dataset" else sbd.parent
    data = open_data(f"sbd:{root}", split="train")
    assert [data[index].name for index in range(len(data))] == ["2008_000002", "2007_000032", "2008_000008"]
    assert np.array_equal(data[2].label, np.resize([0, 2, 20], SIZE))
    assert np.array_equal(data[2].image, np.asarray(Image.open(sbd / "img" / "2008_000008.jpg")))
    assert len(open_data(f"sbd:{root}", split="val")) == 2
    assert np.array_equal(pickle.loads(pickle.dumps(data))[1].label, data[1].label)


def test_voc_and_sbd_make_the_augmented_set(voc, sbd):
    """VOC's train with VOC's labels, and all of SBD that is not VOC's."""
    data = open_data(f"voc:{voc},sbd={sbd}", split="train")
    assert [data[index].name for index in range(len(data))] == [
        "2007_000032", "2008_000002", "2008_000008", "2008_000009",
    ]  # fmt: skip
    assert set(data[0].label.ravel()) == {0, 1, 20, 255}
    assert np.array_equal(data[3].label, np.resize([0, 4, 20], SIZE))
    assert (data.name, len(data.classes)) == ("voc", 21)
    assert open_data(f"voc:{voc},sbd={sbd}", split="val")[0].name == "2007_000033"


def test_wrong_sbd(voc, sbd):
    fails(f"voc:{voc},sbd={sbd}x", "sbd: expected a folder", "datasetx (missing)")
    fails(f"voc:{voc},sdb={sbd}", "expected voc:PATH[,sbd=PATH], got", "sdb=")
    fails(f"voc:{voc},sbd=", "expected voc:PATH[,sbd=PATH], got")
    fails(f"sbd:{sbd}", "sbd: split: expected train or val, got 'test'", split="test")
    path = sbd / "cls" / "2008_000002.mat"
    save_mat(path, np.full(SIZE, 21, np.uint8))
    fails(f"sbd:{sbd}", f"{path}: label value 21 at row 0, column 0; allowed: 0..20", index=0)
    save_mat(path, np.full((6, 7), 1, np.uint8))
    fails(f"sbd:{sbd}", f"{path}: expected the size of its image", "8x6, got 7x6", index=0)
    save_mat(path, np.full(SIZE, 0.5))
    fails(
        f"sbd:{sbd}", f"{path}: GTcls.Segmentation cannot", "expected a matrix of whole numbers, got class 6", index=0
    )
    whole = path.read_bytes()
    for broken in (b"", b"<html>", whole[:-20], whole[:200] + bytes(50) + whole[250:], bytes(300)):
        path.write_bytes(broken)
        fails(f"sbd:{sbd}", f"{path}: GTcls.Segmentation cannot be read", index=0)
    path.write_bytes(whole + bytes(2**20))
    fails(f"sbd:{sbd}", "expected at most 1048576 bytes, got more", index=0)
    pytest.importorskip("scipy.io").savemat(path, {"bomb": np.zeros(2**26, np.uint8)}, do_compression=True)
    assert path.stat().st_size < 2**20
    fails(f"sbd:{sbd}", "expected at most 67108864 bytes unpacked, got more", index=0)
    path.unlink()
    fails(f"sbd:{sbd}", "train.txt, line 1: no such file", "2008_000002.mat")


# Cityscapes ---------------------------------------------------------------------------------------------------------


def test_cityscapes_ids_are_those_of_the_published_table(cityscapes):
    rows = [row.split() for row in PUBLISHED.replace("\n", "|").split("|") if row.strip()]
    assert [int(row[0]) for row in rows] == list(range(34))
    kept = sorted((int(row[2]), int(row[0]), row[1].replace("_", " "), *map(int, row[3:])) for row in rows)[:19]
    assert [row[0] for row in kept] == list(range(19))
    assert tuple(row[1] for row in kept) == IDS
    assert tuple(row[2] for row in kept) == CLASSES
    assert [row[3:] for row in kept] == [tuple(colour) for colour in PALETTE.tolist()]
    label = open_data(f"cityscapes:{cityscapes}", split="train")[0].label
    assert np.array_equal(label, np.resize([int(row[2]) for row in rows], SIZE))


def test_cityscapes_table_equals_that_of_its_scripts():
    scripts = pytest.importorskip("cityscapesscripts.helpers.labels", reason="needs cityscapesScripts")
    kept = sorted((label.trainId, label) for label in scripts.labels if 0 <= label.trainId < 255)
    assert tuple(label.id for _, label in kept) == IDS
    assert tuple(label.name for _, label in kept) == CLASSES
    assert [label.color for _, label in kept] == [tuple(colour) for colour in PALETTE.tolist()]
    assert max(label.id for label in scripts.labels) == 33


def test_cityscapes_as_it_ships(cityscapes):
    data = open_data(f"cityscapes:{cityscapes}", split="val")
    assert (len(data), data[0].name, data.name) == (1, "frankfurt_000000_000019", "cityscapes")
    assert data[0].image.shape == (*SIZE, 3)
    data = open_data(f"cityscapes:{cityscapes},coarse", split="train")
    assert [data[index].name for index in range(2)] == ["aachen_000000_000019", "augsburg_000000_000019"]
    assert len(open_data(f"cityscapes:{cityscapes},coarse", split="val")) == 1


def test_cityscapes_train_ids_where_there_are_no_others(cityscapes):
    folder = cityscapes / "gtFine" / "train" / "aachen"
    train_ids = folder / "aachen_000000_000019_gtFine_labelTrainIds.png"
    save_label(train_ids, [18])
    data = open_data(f"cityscapes:{cityscapes}", split="train")
    assert data[0].label[0, 7] == 0  # labelIds are preferred
    (folder / "aachen_000000_000019_gtFine_labelIds.png").unlink()
    save_label(train_ids, [0, 18, 255])
    assert np.array_equal(open_data(f"cityscapes:{cityscapes}", split="train")[0].label, np.resize([0, 18, 255], SIZE))
    save_label(train_ids, [0, 19])
    fails(f"cityscapes:{cityscapes}", "label value 19", "allowed: 0..18 and 255 (ignored)", index=0)


def test_wrong_cityscapes(cityscapes):
    spec = f"cityscapes:{cityscapes}"
    fails(spec, "split: expected train or val, got 'test'", split="test")
    fails(f"{spec},coarze", "expected cityscapes:PATH[,coarse], got", "coarze'")
    fails(f"{spec},coarse=1", "expected cityscapes:PATH[,coarse], got")
    label = cityscapes / "gtFine" / "train" / "aachen" / "aachen_000000_000019_gtFine_labelIds.png"
    save_label(label, [7, 34])
    fails(spec, f"{label}: label value 34 at row 0, column 1; allowed: 0..33", index=0)
    label.unlink()
    fails(spec, "aachen_000000_000019_leftImg8bit.png: no such file:", str(label))
    (cityscapes / "leftImg8bit" / "val" / "frankfurt" / "frankfurt_000000_000019_leftImg8bit.png").unlink()
    fails(spec, "expected images CITY/NAME_leftImg8bit.png, got none", split="val")
    (cityscapes / "gtCoarse").rename(cityscapes / "gone")
    save_label(label, [7])
    fails(f"{spec},coarse", "cityscapes: labels: expected a folder", "gtCoarse/train_extra (missing)")


# ADE20K -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [".", ".."])
def test_ade20k_as_it_ships(ade, level):
    data = open_data(f"ade20k:{ade / level}", split="train")
    assert np.array_equal(data[0].label, np.resize([255, 0, 74, 149], SIZE))
    assert (len(data.classes), data.classes[0], data.classes[149]) == (150, "wall", "flag")
    assert len(set(ADE_CLASSES)) == 150
    assert len(np.unique(data.palette, axis=0)) == 150
    assert open_data(f"ade20k:{ade}", split="val")[0].name == "ADE_val_00000001"


def test_ade20ks_whole_table(ade):
    """Digests of the names as objectInfo150.txt has them, the first of each line, and of the colours."""
    data = open_data(f"ade20k:{ade}", split="train")
    table = "\n".join(data.classes).encode(), data.palette.tobytes()
    assert [hashlib.sha256(part).hexdigest()[:16] for part in table] == ["ffd47f2fcbad6c48", "eed5e97322563eb9"]
    save_image(data.pairs[0].image, size=(1, 151))
    Image.fromarray(np.arange(151, dtype=np.uint8)[None]).save(data.pairs[0].label)
    assert data[0].label.tolist() == [[255, *range(150)]]


def test_wrong_ade20k(ade):
    label = ade / "annotations" / "training" / "ADE_train_00000001.png"
    save_label(label, [0, 151])
    fails(f"ade20k:{ade}", f"{label}: label value 151", "allowed: 1..150 and 0 (ignored)", index=0)
    label.unlink()
    fails(f"ade20k:{ade}", "ADE_train_00000001.jpg: no such file:", str(label))
    (ade / "images" / "training" / "ADE_train_00000001.jpg").unlink()
    fails(f"ade20k:{ade}", "expected images *.jpg, got none")


# Mixes --------------------------------------------------------------------------------------------------------------


def test_a_mix_is_its_parts_one_after_the_other(cityscapes):
    spec = f"cityscapes:{cityscapes}+2*cityscapes:{cityscapes},coarse"
    data = open_data(spec, split="train")
    assert isinstance(data, MixedData)
    assert (len(data), data.name) == (1 + 2 * 2, "cityscapes")
    names = [data[index].name for index in range(5)]
    assert names == [f"{city}_000000_000019" for city in ("aachen", "aachen", "augsburg", "aachen", "augsburg")]
    assert np.array_equal(data[2].image, data[4].image)
    assert not np.array_equal(data[2].image, data[3].image)
    for wrong in (5, -1):
        with pytest.raises(IndexError, match=rf"expected 0\.\.4, got {wrong}"):
            data[wrong]
    assert len(pickle.loads(pickle.dumps(data))) == 5
    assert open_data(spec, split="val")[0].name == "frankfurt_000000_000019"
    assert len(open_data(spec, split="val")) == 1
    assert len(open_data(f"3*cityscapes:{cityscapes}", split="val")) == 1


def test_facts_change_with_the_rules_and_the_files(cityscapes, voc):
    spec = f"cityscapes:{cityscapes}+cityscapes:{cityscapes},coarse"
    facts = open_data(spec, split="train").facts()
    assert json.loads(json.dumps(facts)) == json.loads(json.dumps(open_data(spec, split="train").facts()))
    assert [(one[0], len(one[3])) for one in facts] == [("cityscapes", 2)] * 3  # image and label; mixes are resolved
    assert facts[0] == facts[1]
    assert facts[1] != facts[2]
    assert open_data(f"voc:{voc}", split="train").facts()[0][3][1][0] == "2007_000032.png"
    image = cityscapes / "leftImg8bit" / "train" / "aachen" / "aachen_000000_000019_leftImg8bit.png"
    os.utime(image, ns=(1, 1))
    assert open_data(spec, split="train").facts() != facts
    bays, scenes = (open_data(text, split="train").facts() for text in ("scenes:shores=1", "scenes"))
    assert bays != scenes


def test_published_ids():
    assert set(PUBLISHED_IDS) == {"cityscapes", "ade20k"}
    assert PUBLISHED_IDS["ade20k"](ADE_CLASSES).tolist() == list(range(1, 151))
    assert PUBLISHED_IDS["cityscapes"](CLASSES[::-1]).tolist() == list(IDS[::-1])
    assert PUBLISHED_IDS["cityscapes"](CLASSES).dtype == np.uint8
    with pytest.raises(DataError, match="cityscapes has no class 'mountain'; it has road, sidewalk,"):
        PUBLISHED_IDS["cityscapes"](["road", "mountain"])


def test_a_mix_names_every_file_that_is_missing(cityscapes):
    image = cityscapes / "leftImg8bit" / "train_extra" / "augsburg" / "augsburg_000000_000019_leftImg8bit.png"
    image.with_name("augsburg_000001_000019_leftImg8bit.png").write_bytes(image.read_bytes())
    image.with_name("augsburg_000002_000019_leftImg8bit.png").write_bytes(image.read_bytes())
    spec = f"cityscapes:{cityscapes}+cityscapes:{cityscapes},coarse"
    fails(spec, "augsburg_000001_000019", "(and 1 more: python -m segmodel.data check lists them)")
    with pytest.raises(DataError) as error:
        open_data(spec, split="train")
    assert "augsburg_000002_000019_gtCoarse_labelIds.png" in error.value.args[1]
    assert list(index_data(spec, split="train").problems()) == [3, 4]


def test_a_folder_may_be_named_with_a_plus_or_a_comma(tmp_path, voc):
    voc.parent.rename(tmp_path / "a+b,c")
    assert len(open_data(f"voc:{tmp_path}/a+b,c+voc:{tmp_path}/a+b,c", split="train")) == 2


def test_wrong_mixes(voc, cityscapes):
    fails(
        f"voc:{voc}+cityscapes:{cityscapes}",
        "data: expected the classes of voc (21: background, aeroplane, bicycle, ...), got those of cityscapes (19: ",
    )
    fails(f"0*voc:{voc}", "expected a part 1 to 1000 times, got '0*voc:")
    fails(f"1001*voc:{voc}", "expected a part 1 to 1000 times")
    fails(f"voc:{voc}+voc", "expected voc:PATH, got 'voc'")


# Links --------------------------------------------------------------------------------------------------------------


def test_links_may_not_lead_out_of_the_root(voc, tmp_path, monkeypatch):
    image = voc / "JPEGImages" / "2007_000032.jpg"
    inside = image.rename(image.with_name("renamed.jpg"))
    image.symlink_to(inside.name)
    assert len(open_data(f"voc:{voc}", split="train")) == 1
    (tmp_path / "root").symlink_to(voc)  # the root itself may be one
    assert len(open_data(f"voc:{tmp_path / 'root'}", split="train")) == 1
    image.unlink()
    image.symlink_to(inside.rename(tmp_path / "outside.jpg"))
    fails(f"voc:{voc}", "train.txt, line 1: expected a path inside", f"got a link out of it: {image}")
    monkeypatch.setenv("SEGMODEL_FOLLOW_LINKS", "1")
    assert len(open_data(f"voc:{voc}", split="train")) == 1


def test_linked_folders_may_not_lead_out_of_the_root(cityscapes, tmp_path):
    outside = (cityscapes / "gtFine").rename(tmp_path / "elsewhere")
    (cityscapes / "gtFine").symlink_to(outside)
    fails(f"cityscapes:{cityscapes}", "_leftImg8bit.png: expected a path inside", "got a link out of it")
