"""Sources of `data import` that are broken, ambiguous or none."""

import base64
from collections.abc import Callable

import numpy as np
from bad_input_tools import SIZE, Kind, Outcome, Room, pixels
from import_tools import write
from PIL import Image

Attempt = Callable[[Room], Outcome]
LABEL = np.resize(np.array([0, 1], np.uint8), SIZE)
TRIANGLE = [[1, 1], [9, 1], [9, 9]]


def tried(room: Room, *arguments: object) -> Outcome:
    return room.command("data.__main__", "import", "set", "--output", "new", "--workers", "0", *arguments)


def masks(label: np.ndarray | Image.Image, *arguments: object, name: str = "set/a_mask.png", **files: str) -> Attempt:
    """Two pictures with labels, the second of which is `label`; and text files, NAME_ENDING=TEXT."""

    def attempt(room: Room) -> Outcome:
        for stem, content in (("set/b", LABEL), (name.rpartition("_")[0], label)):
            room.picture(f"{stem}.png")
            room.picture("set/b_mask.png" if stem == "set/b" else name, content)
        for file, text in files.items():
            write(room.path / "set" / ".".join(file.rsplit("_", 1)), text)
        return tried(room, *arguments)

    return attempt


def labelme(content: object, *arguments: object, picture: bool = True) -> Attempt:
    """A picture with a file of labelme's."""

    def attempt(room: Room) -> Outcome:
        if picture:
            room.picture("set/a.png")
        write(room.path / "set" / "a.json", content)
        return tried(room, *arguments)

    return attempt


def shape(**changes: object) -> dict[str, object]:
    return {"imagePath": "a.png", "shapes": [{"label": "cup", "points": TRIANGLE, "shape_type": "polygon", **changes}]}


def yolo(text: str, **files: str) -> Attempt:
    def attempt(room: Room) -> Outcome:
        room.picture("set/images/a.png")
        write(room.path / "set" / "labels" / "a.txt", text)
        for file, content in files.items():
            write(room.path / "set" / file.replace("_", "."), content)
        return tried(room)

    return attempt


def coco(**changes: object) -> Attempt:
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0,
                  "segmentation": {"size": list(SIZE), "counts": [0, SIZE[0] * SIZE[1]]}}  # fmt: skip
    content = {"images": [{"id": 1, "file_name": "a.png", "height": SIZE[0], "width": SIZE[1]}],
               "annotations": [annotation | changes], "categories": [{"id": 1, "name": "cup"}]}  # fmt: skip
    return labelme(content)


def two_formats(room: Room) -> Outcome:
    room.picture("set/a_mask.png", LABEL)
    return labelme(shape())(room)


def into(name: str, *arguments: object) -> Attempt:
    def attempt(room: Room) -> Outcome:
        return room.command("data.__main__", "import", "own", "--output", name, *arguments)

    return attempt


SIDE = f"{SIZE[1]}x{SIZE[0]}"
IMPORTS = [
    Kind("import: source that is missing", tried, "SOURCE: set: no such file or folder"),
    Kind("import: nothing but text", lambda r: r.file("set/a.md", "# read me") and tried(r), "found 1 .md"),
    Kind("import: an empty folder", lambda r: (r.path / "set").mkdir() or tried(r), "found no files"),
    Kind(
        "import: pictures without labels",
        lambda r: r.picture("set/a.jpg") and r.picture("set/b.jpg") and tried(r),
        "expected pictures with labels of the same names (as a.jpg and a_mask.png, or images/a.jpg and labels/a.png), "
        "found 2 .jpg",
    ),
    Kind(
        "import: unknown format", masks(LABEL, "--format", "soup"), "--format: expected one of auto, numbers, colours,"
    ),
    Kind("import: another format", masks(LABEL, "--format", "yolo"), "expected labels of the format yolo"),
    Kind(
        "import: two formats", two_formats, "expected labels of one format, found labelme (1), numbers or colours (1)"
    ),
    Kind(
        "import: no share left to train", masks(LABEL, "--val-share", "1"), "--val-share: expected less than 1, got 1"
    ),
    Kind("import: one class", masks(0 * LABEL, "--map", "1=ignore"), "expected labels of at least two classes, got"),
    Kind("import: map without a class", masks(LABEL, "--map", "1"), "--map: expected such as"),
    Kind(
        "import: map of an unknown name",
        masks(LABEL, "--map", "foregrond=cup"),
        "--map: expected a class of the source, such as foreground, got 'foregrond'",
    ),
    Kind("import: label of another size", masks(LABEL[:9]), f"set/a.png: expected a label of {SIDE}, got 37x9"),
    Kind(
        "import: number without a name", masks(3 * LABEL, classes_txt="sea\nsky\n"), "names 0 to 1, but labels hold 3"
    ),
    Kind("import: colour without a name", masks(pixels(), labelmap_txt="sea:0,0,0::\n"), "no class is #"),
    Kind(
        "import: broken labelmap.txt",
        masks(pixels(), labelmap_txt="sea 0 0 0\n"),
        "labelmap.txt, line 1: expected NAME:",
    ),
    Kind("import: labels of too many colours", masks(pixels()), "expected at most 254 classes, got 7"),
    Kind(
        "import: label saved with loss",
        masks(255 * LABEL, name="set/a_mask.jpg"),
        "a_mask.jpg: expected labels as numbers or colours, saved without loss (import --nearest takes any), got",
    ),
    Kind(
        "import: list of a stranger", masks(LABEL, "--val-list", "run/config.toml"), "config.toml, line 1: expected the"
    ),
    Kind("import: list that is missing", masks(LABEL, "--val-list", "no.txt"), "no.txt: cannot be read"),
    Kind(
        "import: broken picture",
        lambda r: r.file("set/c.png", "no") and r.picture("set/c_gt.png", LABEL) and masks(LABEL)(r),
        "set/c.png: cannot be read as an image",
    ),
    Kind("import: broken JSON", labelme('{"shapes": [], "imagePath": '), "set/a.json: cannot be read as JSON"),
    Kind("import: JSON of something else", labelme('{"a": 1}'), "found 1 .json, 1 .png"),
    Kind("import: labelme without shapes", labelme({"shapes": 3, "imagePath": ""}), "expected a list as shapes, got 3"),
    Kind("import: shape without a label", labelme(shape(label=None)), "shapes[0]: expected a shape with a label"),
    Kind("import: shape of an unknown kind", labelme(shape(shape_type="star")), "shapes[0]: expected a polygon, rect"),
    Kind("import: polygon of two points", labelme(shape(points=TRIANGLE[:2])), "expected at least 3 points, got 2"),
    Kind(
        "import: polygon outside",
        labelme(shape(points=[[50, 3], [60, 3], [60, 9]])),
        f"set/a.json: shapes[0]: lies outside its picture of {SIDE}",
    ),
    Kind(
        "import: point far outside",
        labelme(shape(points=[*TRIANGLE, [1e9, 1]])),
        f"expected points in a picture of {SIDE}",
    ),
    Kind("import: points that are none", labelme(shape(points="abc")), "shapes[0]: could not convert"),
    Kind("import: mask that is none", labelme(shape(shape_type="mask", mask="QUJD")), "shapes[0]: cannot identify"),
    Kind(
        "import: labelme of another size",
        labelme(shape() | {"imageHeight": 70000, "imageWidth": 70000}),
        f"set/a.json: expected imageWidth and imageHeight {SIDE}, got 70000x70000",
    ),
    Kind(
        "import: labelme without its picture",
        labelme(shape(), picture=False),
        "expected pictures named as their labels",
    ),
    Kind(
        "import: picture within labelme that is none",
        labelme(shape() | {"imageData": base64.b64encode(b"ABC").decode()}, picture=False),
        "cannot be read as an image",
    ),
    Kind("import: picture within labelme: no text", labelme(shape() | {"imageData": 3}, picture=False), "imageData"),
    Kind(
        "import: YOLO's class beyond names",
        yolo("3 0 0 1 0 1 1", data_yaml="names: [cup]"),
        "line 1: class 3, but set/",
    ),
    Kind(
        "import: YOLO's boxes",
        yolo("0 0.5 0.5 0.1 0.1"),
        "a.txt, line 1: expected a polygon, CLASS X Y X Y X Y ..., got a box",
    ),
    Kind("import: YOLO's pixels", yolo("0 10 10 90 10 90 90"), "YOLO's points are shares, 0..1"),
    Kind("import: YOLO's odd number", yolo("0 0 0 1 0 1 1\n0 0 0 1 0 1 1 1"), "line 2: expected a polygon"),
    Kind("import: YOLO's words", yolo("0 0 0 1 0 1 1\n0 0 0 1 0 1 a"), "line 2: could not convert"),
    Kind("import: COCO's unknown category", coco(category_id=9), "annotations: category_id 9 is not in this file"),
    Kind(
        "import: COCO's wrong mask",
        coco(segmentation={"size": [1, 1], "counts": [1]}),
        "expected run lengths of 21 x 37",
    ),
    Kind("import: COCO without a mask", coco(segmentation=[]), "annotation 1: expected polygons"),
    Kind(
        "import: zip that is none",
        lambda r: r.file("set.zip", "PK") and r.command("data.__main__", "import", "set.zip", "--output", "new"),
        "set.zip: cannot be unpacked",
    ),
    Kind("import: over a data set", into("own"), "--output: own: holds a source; sources are never changed"),
    Kind("import: over a run", into("run"), "run: exists already (--overwrite replaces it)"),
    Kind(
        "import: over a run, by force",
        into("run", "--overwrite"),
        "--overwrite: run: expected nothing but classes.toml,",
    ),
    Kind("import: over a file", into("run/config.toml"), "--output: expected a folder, got the file run/config.toml"),
    Kind("import: below a file", into("run/config.toml/new"), "--output: run/config.toml/new: cannot be written"),
]
