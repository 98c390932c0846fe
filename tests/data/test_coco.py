"""MS COCO: the official layout, its rules, and run lengths against a naive decoder."""

import contextlib
import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from data_tools import SIZE, fails, save_image
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from segmodel.data import DataError, open_data
from segmodel.data.coco import decode_mask
from segmodel.data.voc import CLASSES as VOC_CLASSES

HEIGHT, WIDTH = SIZE
COCO_NAMES = {
    "aeroplane": "airplane", "diningtable": "dining table", "motorbike": "motorcycle", "pottedplant": "potted plant",
    "sofa": "couch", "tvmonitor": "tv",
}  # fmt: skip
# ids with gaps and not in order, as COCO's
CATEGORIES = [{"id": 90, "name": "toothbrush", "supercategory": "indoor"}] + [
    {"id": 2 * number, "name": COCO_NAMES.get(name, name), "supercategory": ""}
    for number, name in enumerate(VOC_CLASSES[1:], start=1)
]


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's definition: lengths of equal values down the columns, zeros first."""
    runs, value = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


def as_text(runs: list[int]) -> str:
    """COCO's text of run lengths: from the fourth on differences, five bits a character, lowest first."""
    text = ""
    for index, run in enumerate(runs):
        value, more = run - (runs[index - 2] if index > 2 else 0), True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
    return text


def box(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def rle(mask: np.ndarray, text: bool = False) -> dict:
    return {"size": list(mask.shape), "counts": as_text(run_lengths(mask)) if text else run_lengths(mask)}


def annotation(image: int, category: int, segmentation: object, crowd: int = 0) -> dict:
    return {
        "segmentation": segmentation, "area": 0.0, "iscrowd": crowd, "image_id": image, "bbox": [0.0, 0.0, 1.0, 1.0],
        "category_id": category, "id": 1000 + category,
    }  # fmt: skip


def write(root: Path, split: str, annotations: list[dict], images: int = 3, **options: object) -> Path:
    """An instances file with its pictures: image 30 + i is 00..3i.jpg; the order is neither of the ids'."""
    entries = []
    for number in reversed(range(30, 30 + images)):
        name = f"{number:012d}.jpg"
        save_image(root / f"{split}2017" / name, seed=number)
        entries.append({"license": 3, "file_name": name, "height": HEIGHT, "width": WIDTH, "id": number})
    content = {"info": {"description": "COCO"}, "licenses": [], "images": entries, "annotations": annotations,
               "categories": CATEGORIES}  # fmt: skip
    file = root / "annotations" / f"instances_{split}2017.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content | options.pop("content", {}), **options), encoding="utf-8")
    return file


@pytest.fixture(autouse=True)
def has_pycocotools(monkeypatch):
    """Only polygons need it; tests of the rest run without."""
    monkeypatch.setattr(sys.modules["segmodel.data.coco"], "find_spec", lambda name: True)


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """A cup-like small thing (dog, 24) on a large one (table, 22), a crowd of persons (30), a toothbrush (90)."""
    annotations = [
        annotation(31, 24, rle(box(1, 1, 2, 2))),
        annotation(31, 22, rle(box(0, 0, 4, 4), text=True)),
        annotation(31, 30, rle(box(3, 3, 3, 5)), crowd=1),
        annotation(30, 90, rle(box(0, 0, 1, 1))),
    ]
    write(tmp_path, "train", annotations)
    write(tmp_path, "val", [annotation(30, 2, rle(box(0, 0, 1, 1)))], images=1)
    return tmp_path


def test_coco_as_it_ships(coco):
    data = open_data(f"coco:{coco}", split="train")
    assert data.classes[:3] == ("background", "airplane", "bicycle")
    assert (len(data.classes), data.classes[-1], len(data)) == (22, "toothbrush", 3)
    names = [data[index].name for index in range(3)]
    assert names == ["000000000032", "000000000031", "000000000030"]
    assert data[0].image.shape == (*SIZE, 3)
    assert not data[0].label.any()
    expected = np.zeros(SIZE, np.uint8)
    expected[3:6, 3:8] = 255  # the crowd, but where a single thing lies
    expected[0:4, 0:4] = 11
    expected[1:3, 1:3] = 12  # the smaller one in front, though it comes first in the file
    assert np.array_equal(data[1].label, expected)
    assert data[2].label[0, 0] == 21
    assert len(open_data(f"coco:{coco}", split="val")) == 1


def test_of_those_alike_the_latest_lies_in_front(tmp_path):
    """Also where annotations of other images lie between them."""
    many = [annotation(30 + number % 3, 2 * (1 + number % 20), rle(box(0, 0, 2, 2))) for number in range(50)]
    write(tmp_path, "train", many)
    data = open_data(f"coco:{tmp_path}", split="train")
    last = {30 + number % 3: 1 + number % 20 for number in range(50)}
    assert [data[index].label[0, 0] for index in range(3)] == [last[32], last[31], last[30]]


def test_coco_with_the_classes_of_voc(coco):
    data = open_data(f"coco:{coco},voc", split="train")
    assert data.classes == VOC_CLASSES
    assert [data[index].name for index in range(len(data))] == ["000000000031"]  # the others show none of the 20
    assert data[0].label[0, 0] == VOC_CLASSES.index("diningtable")
    assert len(open_data(f"coco:{coco},voc", split="val")) == 1
    both = open_data(f"coco:{coco},voc,trainval", split="train")
    assert [both[index].name for index in range(2)] == ["000000000031", "000000000030"]
    assert len(open_data(f"coco:{coco},trainval", split="train")) == 4
    write(coco, "val", [annotation(30, 90, rle(box(0, 0, 1, 1)))], images=1)
    assert not open_data(f"coco:{coco},voc", split="val")[0].label.any()  # kept: all of val counts


def test_both_splits_are_of_one_year(coco):
    """val2014 holds images of train2017."""
    annotations = coco / "annotations"
    (annotations / "instances_val2017.json").rename(annotations / "instances_val2014.json")
    (coco / "val2017").rename(coco / "val2014")
    for split in ("train", "val"):
        fails(f"coco:{coco}", "expected train and val of one year", "instances_train2017.json and val2014", split=split)
    shutil.copy(annotations / "instances_train2017.json", annotations / "instances_train2014.json")
    shutil.copytree(coco / "train2017", coco / "train2014")
    assert {open_data(f"coco:{coco}", split=split).folder.name for split in ("train", "val")} == {
        "train2014",
        "val2014",
    }


def test_every_class_of_voc_has_its_class_of_coco(tmp_path):
    pixels = [np.arange(HEIGHT * WIDTH).reshape(SIZE) == number for number in range(21)]
    write(tmp_path, "train", [annotation(30, 2 * number, rle(pixels[number])) for number in range(1, 21)], images=1)
    label = open_data(f"coco:{tmp_path},voc", split="train")[0].label
    assert label.ravel()[:21].tolist() == list(range(21))


def test_names_of_2014_nested_images_and_own_files(coco):
    (coco / "images").mkdir()
    (coco / "train2017").rename(coco / "images" / "train2014")
    file = coco / "annotations" / "instances_train2017.json"
    file = file.rename(file.with_name("instances_train2014.json"))
    assert open_data(f"coco:{coco}", split="train")[1].label.any()
    file.rename(file.with_name("instances_train.json"))
    (coco / "images" / "train2014").rename(coco / "train")
    assert open_data(f"coco:{coco}", split="train")[1].label.any()


def test_the_places_of_annotations_are_bytes(tmp_path):
    """Names beyond ASCII, as UTF-8 and escaped, spaces and line ends do not move them."""
    for options in ({"ensure_ascii": False, "indent": 2}, {"ensure_ascii": True}, {"separators": (",", ":")}):
        content = {"info": "küche 台所", "categories": [{"id": 7, "name": "küche 台所"}]}
        write(tmp_path, "train", [annotation(30, 7, rle(box(0, 0, 1, 1)))], 1, content=content, **options)
        data = open_data(f"coco:{tmp_path}", split="train")
        assert data.classes == ("background", "küche 台所")
        assert data[0].label[0, 0] == 1
    copy = pickle.loads(pickle.dumps(data))
    assert np.array_equal(copy[0].label, data[0].label)


def test_the_annotations_are_not_kept_in_memory(tmp_path):
    many = [annotation(30 + number % 3, 2, rle(box(0, 0, 1, 1))) for number in range(2000)]
    file = write(tmp_path, "train", many)
    data = open_data(f"coco:{tmp_path}", split="train")
    assert len(pickle.dumps(data)) < 20 * len(many) < file.stat().st_size / 5


def test_polygons():
    pytest.importorskip("pycocotools", reason="needs pycocotools (extra coco)")
    square = [1.0, 1.0, 4.0, 1.0, 4.0, 3.0, 1.0, 3.0]
    corner = [6, 4, 8, 4, 8, 6, 6, 6]
    mask = decode_mask([square, corner], height=HEIGHT, width=WIDTH, where="here")
    assert np.array_equal(mask, box(1, 1, 2, 3) | box(4, 6, 2, 2))
    outside = decode_mask([[-3, -2, 20, -2, 20, 9, -3, 9]], height=HEIGHT, width=10, where="here")
    assert outside.all()


polygons = st.lists(
    st.lists(st.tuples(st.floats(-2, WIDTH + 2), st.floats(-2, HEIGHT + 2)), min_size=3, max_size=6),
    min_size=1,
    max_size=3,
)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shapes=st.lists(polygons, min_size=1, max_size=4), seed=st.integers(0, 99))
def test_drawn_polygons_and_crowds_equal_pycocotools(tmp_path, shapes, seed):
    """Masks by COCO's own tools from the same file; of two instances the smaller lies in front, crowds behind all."""
    api = pytest.importorskip("pycocotools.coco", reason="needs pycocotools (extra coco)")
    rng = np.random.default_rng(seed)
    categories = [2 * number for number in range(1, 21)]
    given = [annotation(30, int(rng.choice(categories)), [[x for point in part for x in point] for part in parts])
             for parts in shapes]  # fmt: skip
    given += [annotation(30, 6, rle(rng.random(SIZE) < 0.4, text=bool(seed % 2)), crowd=1)]
    for number, item in enumerate(given):
        item["id"] = number + 1
    file = write(tmp_path, "val", given, images=1)
    with contextlib.redirect_stdout(None):
        tools = api.COCO(file)
    masks = [(tools.annToMask(item).astype(bool), item) for item in tools.loadAnns(tools.getAnnIds(imgIds=30))]
    expected = np.zeros(SIZE, np.uint8)
    expected[next(mask for mask, item in masks if item["iscrowd"])] = 255
    classes = [category["id"] for category in sorted(CATEGORIES, key=lambda category: category["id"])]
    for mask, item in sorted(masks[:-1], key=lambda pair: -pair[0].sum()):
        expected[mask] = 1 + classes.index(item["category_id"])
    assert np.array_equal(open_data(f"coco:{tmp_path}", split="val")[0].label, expected)


masks = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda size: st.lists(st.booleans(), min_size=size[0] * size[1], max_size=size[0] * size[1]).map(
        lambda bits: np.array(bits).reshape(size)
    )
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(mask=masks, text=st.booleans())
@example(mask=np.zeros((1000, 1000), bool), text=True)
def test_run_lengths_against_a_naive_encoder(mask, text):
    segmentation = rle(mask, text=text)
    assert np.array_equal(decode_mask(segmentation, height=mask.shape[0], width=mask.shape[1], where="here"), mask)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(mask=masks, wide=st.integers(1, 400))
def test_run_lengths_equal_those_of_pycocotools(mask, wide):
    api = pytest.importorskip("pycocotools.mask", reason="needs pycocotools (extra coco)")
    large = np.kron(mask, np.ones((3, wide), bool))
    text = api.encode(np.asfortranarray(large.astype(np.uint8)))["counts"].decode()
    assert text == as_text(run_lengths(large))
    segmentation = {"size": list(large.shape), "counts": text}
    assert np.array_equal(decode_mask(segmentation, height=large.shape[0], width=large.shape[1], where="here"), large)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(text=st.text(max_size=8) | st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=8))
def test_no_text_is_decoded_to_anything_but_its_size(text):
    with contextlib.suppress(DataError):
        mask = decode_mask({"size": [HEIGHT, WIDTH], "counts": text}, height=HEIGHT, width=WIDTH, where="here")
        assert mask.shape == SIZE


@pytest.mark.parametrize(
    "segmentation",
    [
        None, [], [[]], [[0, 0, 1, 1]], [[0, 0, 1, 1, 2]], [[0, 0, 1, 1, 2, "2"]], [[0, 0, 1, 1, 2, 1e9]],
        [[0, 0, 1, 1, 2, float("nan")]], [[0, 0, 1, 1, float("inf"), 2]], [[True, 0, 1, 1, 2, 2]], {},
        {"counts": [48]}, {"size": [8, 6], "counts": [48]}, {"size": [6, 8], "counts": [47]},
        {"size": [6, 8], "counts": [10, -10, 48]}, {"size": [6, 8], "counts": [48.0]}, {"size": [6, 8], "counts": 48},
        {"size": [6, 8], "counts": [2**70]}, {"size": [6, 8], "counts": "`" * 40}, {"size": [6, 8], "counts": " "},
    ],
)  # fmt: skip
def test_wrong_segmentations(segmentation):
    with pytest.raises(DataError, match=r"^here: expected") as error:
        decode_mask(segmentation, height=HEIGHT, width=WIDTH, where="here")
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ({"categories": []}, ["categories: expected 1 to 253 that differ, got 0"]),
        ({"categories": [{"id": 1, "name": "background"}]}, ["categories: expected 1 to 253 that differ"]),
        ({"categories": [{"id": 2}]}, ["cannot be read as a file of COCO's instances: KeyError: 'name'"]),
        ({"images": []}, ["images: expected at least one, all ids different, got 0"]),
        ({"images": [{"id": 1, "file_name": "../x.jpg", "height": 6, "width": 8}]}, ["expected a path inside", "../x"]),
        ({"images": [{"id": 1, "file_name": "x.jpg", "height": "6", "width": 8}]}, ["height, width and id as whole"]),
        ({"images": [{"id": 1, "file_name": "x.jpg", "height": 6, "width": 8}] * 2}, ["all ids different, got 2"]),
        ({"annotations": [{"image_id": 99, "category_id": 2}]}, ["annotations: image_id 99 is not in this file"]),
        ({"annotations": [{"image_id": 30, "category_id": 3}]}, ["annotations: category_id 3 is not in this file"]),
        ({"annotations": [{"image_id": 2**80, "category_id": 3}]}, ["cannot be read as a file of COCO's instances"]),
        ({"annotations": [None]}, ["cannot be read as a file of COCO's instances: TypeError"]),
        ({"annotations": {}}, ["expected '['"]),
    ],
)
def test_wrong_instances_files(tmp_path, content, parts):
    file = write(tmp_path, "train", [], content=content)
    fails(f"coco:{tmp_path}", str(file), *parts)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"images": [}', '{"a": 1', '{"a" 1}', '{"a": 1 "b": 2}', '{"a": ' + "[" * 99999]
)
def test_files_that_are_no_json(tmp_path, text):
    file = write(tmp_path, "train", [])
    file.write_text(text)
    fails(f"coco:{tmp_path}", f"{file}: cannot be read as a file of COCO's instances")


def test_wrong_layouts(coco, tmp_path, monkeypatch):
    fails(f"coco:{coco}", "split: expected train or val", split="test")
    fails(f"coco:{coco},vok", "expected coco:PATH[,voc][,trainval][,skip-bad], got")
    image = coco / "train2017" / "000000000031.jpg"
    save_image(image, size=(5, 5))
    fails(f"coco:{coco}", f"{image}: expected 8x6", "got 5x5", index=1)
    image.unlink()
    fails(f"coco:{coco}", "instances_train2017.json: no such file:", "000000000031.jpg")
    file = write(coco, "val", [annotation(30, 2, rle(box(0, 0, 1, 1)))], 1)
    data = open_data(f"coco:{coco}", split="val")
    file.write_text(file.read_text().replace('"image_id": 30', '"image_id": 31'))
    with pytest.raises(DataError, match=r"has changed since it was opened"):
        data[0]
    write(coco, "val", [], content={"categories": CATEGORIES[:-1]})
    fails(f"coco:{coco},voc", "categories: expected all classes of VOC, none is tvmonitor", split="val")
    file.unlink()
    fails(f"coco:{coco}", "expected one of", "instances_val2017.json", "instances_val.json, got none", split="val")
    monkeypatch.setattr(sys.modules["segmodel.data.coco"], "find_spec", lambda name: None)
    fails(f"coco:{coco}", "drawn by pycocotools, which is missing: pip install segmodel[coco]")


def test_a_byte_order_mark_moves_no_annotation(coco):
    before = open_data(f"coco:{coco}", split="train")
    labels = [before[index].label for index in range(3)]
    for file in (coco / "annotations").iterdir():
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    data = open_data(f"coco:{coco}", split="train")
    assert all(np.array_equal(data[index].label, labels[index]) for index in range(3))


@pytest.mark.parametrize("name", ["background", "Background"])
def test_a_category_called_background_is_the_background(tmp_path, name):
    categories = [{"id": 3, "name": "cup"}, {"id": 5, "name": name}, {"id": 9, "name": "dog"}]
    annotations = [annotation(30, 5, rle(box(0, 0, 6, 8))), annotation(30, 9, rle(box(1, 1, 2, 2)))]
    write(tmp_path, "val", annotations, images=1, content={"categories": categories})
    data = open_data(f"coco:{tmp_path}", split="val")
    assert data.classes == ("background", "cup", "dog")
    assert np.array_equal(data[0].label, 2 * box(1, 1, 2, 2))


def test_names_of_categories_are_texts(coco):
    write(coco, "val", [], content={"categories": [{"id": 3, "name": 7}]})
    fails(f"coco:{coco}", "categories: expected names as texts, got 7", split="val")


@pytest.mark.parametrize("crowd", ["0", "1", 2, None, [0]])
def test_wrong_crowds(tmp_path, crowd):
    write(tmp_path, "val", [annotation(30, 90, rle(box(0, 0, 2, 2)), crowd=crowd)], images=1)
    fails(f"coco:{tmp_path}", f"annotation 1090: iscrowd: expected 0 or 1, got {crowd!r}", split="val", index=0)


@pytest.mark.parametrize("mask", [None, [], {}, [[]], [[0, 0, 2, 2]], "x", {"size": [6, 8]}])
def test_annotations_without_a_mask(tmp_path, mask):
    annotations = [annotation(30, 90, mask), annotation(30, 2, rle(box(0, 0, 2, 2)))]
    write(tmp_path, "val", annotations, images=1)
    hint = "(coco:PATH,skip-bad leaves out annotations without a mask)"
    fails(f"coco:{tmp_path}", "annotation 1090: expected polygons", "or run lengths, got", hint, split="val", index=0)
    data = open_data(f"coco:{tmp_path},skip-bad", split="val")
    file = tmp_path / "annotations" / "instances_val2017.json"
    assert list(data.notes) == [f"{file}: 1 annotations without a mask are left out (skip-bad)"]
    assert np.array_equal(data[0].label, 1 * box(0, 0, 2, 2))


@pytest.mark.parametrize("upright", [True, False])
def test_annotations_of_a_turned_picture(tmp_path, upright):
    """Its size in the file says whether they are drawn on the picture as stored or as it is seen."""
    write(tmp_path, "val", [], images=1)
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = save_image(tmp_path / "val2017" / "000000000030.jpg", exif=exif)
    mask = box(0, 0, 2, 3)
    entry = {"file_name": "000000000030.jpg", "height": HEIGHT, "width": WIDTH, "id": 30}
    if upright:
        mask, entry = np.rot90(mask, -1), entry | {"height": WIDTH, "width": HEIGHT}
    write(tmp_path, "val", [annotation(30, 2, rle(mask))], images=0, content={"images": [entry]})
    sample = open_data(f"coco:{tmp_path}", split="val")[0]
    assert np.array_equal(sample.image, np.rot90(stored, -1))
    assert np.array_equal(sample.label, 1 * np.rot90(box(0, 0, 2, 3), -1))
    assert sample.turned == ("image" if upright else "both")
