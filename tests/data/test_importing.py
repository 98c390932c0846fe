"""The parts of data import: which files are a pair, what outlines cover, names of classes, and who is held out."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from import_tools import COUNT, SIZE, class_names, command, corners, imported, photograph, save, truth, write
from PIL import Image

from segmodel.common.errors import DataError, UserError
from segmodel.data.importing import shapes
from segmodel.data.importing.classes import read_map
from segmodel.data.importing.names import class_colours
from segmodel.data.importing.names import class_names as read_names
from segmodel.data.importing.source import Item
from segmodel.data.importing.splits import held_out, listed_splits
from segmodel.data.importing.tree import Tree, pair_pictures


def tree(root, *sources, suffix="") -> Tree:
    sources = sources or (root,)
    return Tree(sources, suffix=suffix, without=root / "mine", scratch=root / "mine.partial")


@pytest.mark.parametrize(
    ("picture", "label", "name"),
    [
        ("a.jpg", "a.png", "a"),
        ("a.JPG", "A_Mask.PNG", "a"),
        ("a.jpg", "a-gt.png", "a"),
        ("a.jpg", "a.jpg.png", "a"),
        ("a.jpg", "a.jpg___fuse.png", "a"),
        ("0001TP_006690.png", "0001TP_006690_L.png", "0001TP_006690"),
        ("855_sat.jpg", "855_mask.png", "855"),
        ("x/a_leftImg8bit.png", "gtFine/a_gtFine_labelIds.png", "x/a"),
        ("images/train/b/a.jpg", "labels/train/b/a.png", "b/a"),
        ("train/images/a.jpg", "train/masks/a.png", "a"),
        ("train/a.png", "trainannot/a.png", "a"),
        ("train_images/a.png", "train_masks/a_seg.tif", "a"),
        ("JPEGImages/a.jpg", "SegmentationClass/a.png", "a"),
        ("scene 7/image.png", "scene 7/label.png", "scene 7"),
        ("photos/image_12.jpg", "other/mask_12.png", "image_12"),
        ("deep/er/IMG_1.jpg", "annotations/IMG_1.bmp", "deep/er/IMG_1"),
        ("my segmentation/a.jpg", "my segmentation/a.png", "a"),
    ],
)
def test_pictures_and_labels_that_are_pairs(picture, label, name, tmp_path):
    for path, content in ((picture, photograph(0)), (label, truth(0))):
        (tmp_path / "set" / path).parent.mkdir(parents=True, exist_ok=True)
        kind = {"jpg": "JPEG", "tif": "TIFF", "bmp": "BMP"}.get(path.rpartition(".")[2].lower(), "PNG")
        save(tmp_path / "set" / path, content, format=kind)
    found = pair_pictures(tree(tmp_path / "set").pictures)
    assert [(a.path.relative_to(tmp_path / "set").as_posix(), b.path.name) for a, b in found.pairs] == [
        (picture, label.rpartition("/")[2])
    ]
    assert found.pairs[0][0].name == name


@pytest.mark.parametrize(
    "names",
    [
        ("a.jpg", "b_mask.png"),
        ("images/a.jpg", "images/a.png"),  # twice the same photograph
        ("train/a.jpg", "val/a.png"),
        ("one/a.jpg", "two/a.png"),
        ("a.jpg", "a_gtFine_color.png"),
        ("a.jpg", ".a_mask.png"),
        ("a.jpg", "__MACOSX/a_mask.png"),
        ("JPEGImages/a.jpg", "SegmentationObject/a.png"),
    ],
)
def test_files_that_are_no_pair(names, tmp_path):
    for name in names:
        save(tmp_path / name, photograph(0), format="PNG")
    assert not pair_pictures(tree(tmp_path).pictures).pairs


def test_two_labels_of_a_picture_until_a_suffix_tells(tmp_path):
    save(tmp_path / "a.jpg", photograph(0))
    for suffix in ("_mask", "_labelTrainIds", "_cracks"):
        save(tmp_path / f"a{suffix}.png", truth(0))
    found = pair_pictures(tree(tmp_path).pictures)
    assert not found.pairs
    assert len(found.several) == 1
    for suffix in ("_mask", "_labelTrainIds", "_cracks"):
        pairs = pair_pictures(tree(tmp_path, suffix=suffix).pictures).pairs
        assert [label.path.stem for _, label in pairs] == [f"a{suffix}"]


def test_sources_of_the_same_names_stay_apart(tmp_path):
    for day in ("monday", "tuesday"):
        save(tmp_path / day / "images" / "1.jpg", photograph(0))
        save(tmp_path / day / "masks" / "1.png", truth(0))
    found = pair_pictures(tree(tmp_path, tmp_path / "monday", tmp_path / "tuesday").pictures)
    assert [(a.root, b.root) for a, b in found.pairs] == [(tmp_path / day,) * 2 for day in ("monday", "tuesday")]


def test_links_out_of_the_source_are_left_out(tmp_path, monkeypatch):
    secret = save(tmp_path / "secret.png", photograph(0))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.png").symlink_to(secret)
    found = tree(tmp_path / "set")
    assert not found.files
    assert "links out of the source: 1, left out: " in found.notes[0]
    monkeypatch.setenv("SEGMODEL_FOLLOW_LINKS", "1")
    assert len(tree(tmp_path / "set").files) == 1


def inside(points: np.ndarray, x: float, y: float) -> bool:
    """The even-odd rule, an edge after the other."""
    crossed = False
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if (y0 <= y) != (y1 <= y):
            crossed ^= x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x
    return crossed


POINT = st.tuples(st.integers(-40, 90), st.integers(-30, 70)).map(lambda point: (point[0] / 4, point[1] / 4))


@given(st.lists(POINT, min_size=3, max_size=9))
@settings(deadline=None)
def test_a_polygon_is_the_pixels_whose_centres_lie_inside(points):
    height, width = 9, 13
    corners = np.array(points)
    expected = [[inside(corners, x + 0.5, y + 0.5) for x in range(width)] for y in range(height)]
    np.testing.assert_array_equal(shapes.polygon(corners, height, width), expected)


@given(st.lists(POINT, min_size=3, max_size=5), POINT)
@settings(deadline=None)
def test_triangles_about_a_point_share_no_pixel_that_one_of_them_has_alone(points, centre):
    """Edges that polygons share leave no gap: an odd number of triangles covers a pixel where the polygon does."""
    height, width = 9, 13
    triangles = [np.array([centre, a, b]) for a, b in itertools.pairwise([*points, points[0]])]
    covered = sum(shapes.polygon(triangle, height, width).astype(int) for triangle in triangles)
    np.testing.assert_array_equal(covered % 2 == 1, shapes.polygon(np.array(points), height, width))


def test_a_rectangle_along_pixels_is_exact():
    mask = shapes.polygon(np.array(corners(2, 3, 7, 11), float), 9, 13)
    expected = np.zeros((9, 13), bool)
    expected[2:7, 3:11] = True
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([(0, 0), (1, 1)], "expected at least 3 points, got 2"),
        ([(0, 0), (1, 1), (40, 2)], r"expected points in a picture of 13x9, got \(40.0, 2.0\)"),
        ([(0, 0), (1, 1), (float("nan"), 2)], "expected points in a picture"),
        ([(14, 0), (15, 1), (14, 2)], "lies outside its picture of 13x9"),
        ([1, 2, 3], r"expected points \[\[x, y\], ...\]"),
    ],
)
def test_points_that_are_none_of_the_picture(points, message):
    with pytest.raises(ValueError, match=message):
        shapes.checked_points(points, 9, 13, least=3)


def test_every_shape_of_labelme_and_the_later_on_top(tmp_path):
    import base64
    from io import BytesIO

    png = BytesIO()
    Image.fromarray(255 * np.eye(4, dtype=np.uint8)).save(png, "PNG")
    kinds = [
        ("field", "rectangle", [[30, 2], [20, 10]], {}),
        ("ball", "circle", [[10, 20], [10, 25]], {}),
        ("way", "line", [[0, 15], [39, 15]], {}),
        ("pole", "point", [[35, 25]], {}),
        ("stamp", "mask", [[2, 1], [5, 4]], {"mask": base64.b64encode(png.getvalue()).decode()}),
        ("_background_", "polygon", corners(4, 24, 6, 26), {}),
        ("__ignore__", "polygon", corners(4, 26, 6, 28), {}),
    ]  # fmt: skip
    for number in range(2):
        save(tmp_path / "set" / f"{number}.png", photograph(number))
        entries = [{"label": name, "shape_type": kind, "points": points, **more} for name, kind, points, more in kinds]
        write(tmp_path / "set" / f"{number}.json", {"shapes": entries, "imagePath": f"{number}.png"})
    assert command(tmp_path / "set", "--output", tmp_path / "mine") == 0
    names, label = class_names(tmp_path / "mine"), imported(tmp_path / "mine")["1"]
    assert names == ["background", "ball", "field", "pole", "stamp", "way"]
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    expected = np.zeros(SIZE, int)
    expected[2:10, 20:30] = names.index("field")
    expected[(x - 10) ** 2 + (y - 20) ** 2 <= 25] = names.index("ball")
    expected[np.arange(1, 5), np.arange(2, 6)] = names.index("stamp")
    expected[4:6, 24:26] = 0
    expected[4:6, 26:28] = 255
    drawn = (label == names.index("way")) | (label == names.index("pole"))
    np.testing.assert_array_equal(label[~drawn], expected[~drawn])
    assert (label[11:19, 30:39] == names.index("way")).all()  # 10 pixels about row 15, over the ball drawn before
    assert abs((label == names.index("pole")).sum() - np.pi * 25) < 12


def test_smaller_polygons_of_yolo_lie_on_top_and_an_empty_file_is_background(tmp_path, capsys):
    for number in range(3):
        save(tmp_path / "set/images" / f"{number}.png", photograph(number))
    write(tmp_path / "set/labels/0.txt", "1 0.2 0.2 0.4 0.2 0.4 0.4\n0 0 0 1 0 1 1 0 1\n")
    write(tmp_path / "set/labels/1.txt", "")
    write(tmp_path / "set/labels/2.txt", "\ufeff0 0 0 1 0 1 0.5 0 0.5\n")
    assert command(tmp_path / "set", "--output", tmp_path / "mine") == 0
    labels = imported(tmp_path / "mine")
    assert np.array_equal(np.unique(labels["0"]), [1, 2])
    assert not labels["1"].any()
    assert '--map "0=NAME,1=NAME"' in capsys.readouterr().out


def test_crowds_of_coco_are_ignored_and_files_of_two_splits_are_one_set(tmp_path):
    pytest.importorskip("pycocotools")
    for number, split in enumerate(("train", "val")):
        save(tmp_path / "set" / f"{split}2017" / "1.png", photograph(number))
        polygon = [[float(part) for point in corners(2, 2, 20, 20) for part in point]]
        annotations = [
            {"id": 1, "image_id": 7, "category_id": 3, "iscrowd": 0, "segmentation": polygon},
            {"id": 2, "image_id": 7, "category_id": 3, "iscrowd": 1,
             "segmentation": {"size": [30, 40], "counts": [0, 600, 600]}},
        ]  # fmt: skip
        images = [{"id": 7, "file_name": "1.png", "height": 30, "width": 40}]
        content = {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "cup"}]}
        write(tmp_path / "set" / "annotations" / f"instances_{split}2017.json", content)
    assert command(tmp_path / "set", "--output", tmp_path / "mine") == 2  # two pictures of one name
    for split in ("train", "val"):
        file = tmp_path / "set" / "annotations" / f"instances_{split}2017.json"
        content = json.loads(file.read_text())
        content["images"][0]["file_name"] = f"{split}2017/1.png"
        write(file, content)
    assert command(tmp_path / "set", "--output", tmp_path / "mine") == 0
    expected = np.zeros(SIZE, int)
    expected[:, :20] = 255
    expected[2:20, 2:20] = 1
    np.testing.assert_array_equal(imported(tmp_path / "mine")["1"], expected)
    assert len(list((tmp_path / "mine/images/val").rglob("*.png"))) == 1


def test_sbd(tmp_path):
    savemat = pytest.importorskip("scipy.io").savemat
    for number in range(COUNT):
        save(tmp_path / "dataset" / "img" / f"2008_{number}.jpg", photograph(number))
        (tmp_path / "dataset" / "cls").mkdir(exist_ok=True)
        savemat(tmp_path / "dataset" / "cls" / f"2008_{number}.mat", {"GTcls": {"Segmentation": 7 * truth(number)}})
        (tmp_path / "dataset" / "inst").mkdir(exist_ok=True)
        savemat(tmp_path / "dataset" / "inst" / f"2008_{number}.mat", {"GTinst": {"Segmentation": truth(number)}})
    write(tmp_path / "dataset" / "train.txt", "2008_0\n2008_2\n2008_3\n")
    write(tmp_path / "dataset" / "val.txt", "2008_1\n2008_4\n")
    assert command(tmp_path, "--output", tmp_path / "mine") == 0
    assert class_names(tmp_path / "mine") == ["background", "car", "motorbike"]
    np.testing.assert_array_equal(imported(tmp_path / "mine")["2008_3"], truth(3))
    assert sorted(file.stem for file in (tmp_path / "mine/images/val").rglob("*.jpg")) == ["2008_1", "2008_4"]


@pytest.mark.parametrize(
    ("file", "text", "names"),
    [
        (
            "data.yaml",
            "train: a\nnames: ['road', \"motor car\", tree]\nnc: 3\n",
            {0: "road", 1: "motor car", 2: "tree"},
        ),
        ("data.yaml", "names:\n- road\n- motor car # red\n\nnc: 2", {0: "road", 1: "motor car"}),
        ("dataset.yml", "nc: 2\nnames:\n  0: road\n  2: 'car'\n", {0: "road", 2: "car"}),
        ("data.yaml", "names: {0: road, 3: car}", {0: "road", 3: "car"}),
        ("classes.txt", "\ufeffroad\r\nmotor car\n\n", {0: "road", 1: "motor car"}),
        ("class_names.txt", "__ignore__\n_background_\nroad\n", {0: "_background_", 1: "road"}),
        ("_classes.csv", "Pixel Value, Class\n0, background\n3, road\n", {0: "background", 3: "road"}),
        ("data.yaml", "train: a\n", {}),
    ],
)
def test_names_of_classes(file, text, names, tmp_path):
    write(tmp_path / file, text)
    assert read_names(tree(tmp_path))[1] == names


def test_names_of_colours(tmp_path):
    write(tmp_path / "label_colors.txt", "# CamVid\n64 128 64\tAnimal\n192 0 128 Arch way\n")
    assert class_colours(tree(tmp_path))[1] == {(64, 128, 64): "Animal", (192, 0, 128): "Arch way"}
    (tmp_path / "label_colors.txt").unlink()
    write(tmp_path / "labelmap.txt", "# label:color_rgb:parts:actions\na:b:1,2,3:hand,foot:run\nroad:4,5,6::\n")
    assert class_colours(tree(tmp_path))[1] == {(1, 2, 3): "a:b", (4, 5, 6): "road"}
    for wrong, message in (("road 4 5", "line 1: expected NAME:RED"), ("a:1,2,300::", "line 1: expected NAME:RED"),
                           ("a:1,2,3::\nb:1,2,3::", "line 2: b has the colour of a")):  # fmt: skip
        write(tmp_path / "labelmap.txt", wrong)
        with pytest.raises(DataError, match=message):
            class_colours(tree(tmp_path))


def test_a_map_is_read_or_refused():
    assert read_map(" 010 = road, #FF0000=a b,c=d=e,*=rest,") == {
        "10": "road",
        "#ff0000": "a b",
        "c=d": "e",
        "*": "rest",
    }
    for wrong in ("road", "=road", "10=", "#ff=road", "10=road,010=car"):
        with pytest.raises(UserError, match="--map: expected"):
            read_map(wrong)


SHOWN = st.lists(st.frozensets(st.integers(0, 5), min_size=1), min_size=2, max_size=30)


@given(SHOWN, st.floats(0.01, 0.9), st.integers(0, 1000))
def test_held_out_samples_leave_each_class_in_train(shown, share, seed):
    splits = held_out(shown, share=share, seed=seed)
    assert splits == held_out(shown, share=share, seed=seed)
    val = [classes for classes, split in zip(shown, splits, strict=True) if split == "val"]
    train = [classes for classes, split in zip(shown, splits, strict=True) if split == "train"]
    assert 1 <= len(val) <= max(1, round(share * len(shown)))
    assert train
    if len(val) > 1:
        assert frozenset.union(*train) == frozenset.union(*shown)
    assert "val" not in held_out(shown, share=0, seed=seed)


def test_lists_name_samples_in_many_ways(tmp_path):
    items = [Item(f"day {n}/a{n}", tmp_path / f"day {n}" / f"a{n}.jpg", None) for n in range(5)]
    train, val = tmp_path / "t.txt", tmp_path / "v.txt"
    write(train, "a0\na1.jpg\n")
    write(val, "day 2/a2\n./day 3/a3.jpg masks/a3.png\nimages\\a4.jpg labels\\a4.png\n")
    assert listed_splits(items, str(train), str(val)) == ["train"] * 2 + ["val"] * 3
    write(val, "a2\na7.jpg\n")
    with pytest.raises(DataError, match=r"line 2: expected the name of one sample, got that of none: 'a7\.jpg'"):
        listed_splits(items, str(train), str(val))
    write(val, "day 2/a2\na3.jpg masks/a3.png\n")
    assert listed_splits(items, str(train), str(val)) == ["train", "train", "val", "val", ""]
    assert listed_splits(items, str(train), "") == ["train", "train", "val", "val", "val"]
    write(val, "a1\n")
    with pytest.raises(DataError, match=r"v.txt, line 1: a1 is in .*t.txt too"):
        listed_splits(items, str(train), str(val))
    write(val, "\n")
    with pytest.raises(DataError, match="expected at least one name, got an empty list"):
        listed_splits(items, "", str(val))
