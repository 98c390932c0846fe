"""MS COCO from its instances files: 80 classes and background, or Pascal VOC's 20 and background.

    PATH/annotations/instances_train2017.json   PATH/train2017/*.jpg or PATH/images/train2017/*.jpg
    PATH/annotations/instances_val2017.json     PATH/val2017/*.jpg

2014's names are taken where those of 2017 are absent, and names without a year (instances_train.json, train/) where
both are: so files of your own in COCO's format can be read, with the classes of their "categories".

How instances become one label map:

* Where instances overlap, the one with fewer pixels lies in front (a cup on a table); of two alike the later one.
* A crowd ("iscrowd": 1) is ignored where no single instance lies: it also covers what is between its members.
* What no instance covers is background. With VOC's classes the other 60 are background too.

Polygons are drawn by pycocotools, as COCO's own tools do, when a sample is read. Of the file of annotations only the
place of each is kept, in arrays: the file is read through when the data set is opened, then piece by piece.
"""

import json
import re
from array import array
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from segmodel.common.errors import DataError, one_line, read_text
from segmodel.common.labels import IGNORE, voc_palette
from segmodel.data.base import MAX_CLASSES, MixedData, Sample, SegmentationData
from segmodel.data.images import read_image
from segmodel.data.lists import existing_folder, inside, misplaced, split_options
from segmodel.data.voc import CLASSES as VOC_CLASSES

VOC_NAMES = {  # where COCO's name differs from VOC's
    "airplane": "aeroplane", "dining table": "diningtable", "motorcycle": "motorbike", "potted plant": "pottedplant",
    "couch": "sofa", "tv": "tvmonitor",
}  # fmt: skip
YEARS = ("2017", "2014", "")
Image = tuple[str, int, int, int]  # file (a text: a hundred thousand paths unpickle slowly), height, width, id
_BLANK = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def coco(rest: str, *, split: str) -> SegmentationData:
    """`rest` is PATH and options: with voc VOC's classes, of train only the images that show one of the 20; with
    trainval the images of val train too (123,287 in all: Sec. 7.1.1). Split: train or val."""
    if split not in ("train", "val"):
        raise DataError(f"coco: split: expected train or val, got {split!r}")
    path, options = split_options("coco", rest, ("voc", "trainval"))
    root = existing_folder(path, "coco")
    if find_spec("pycocotools") is None:
        raise DataError("coco: polygons are drawn by pycocotools, which is missing: pip install segmodel[coco]")
    splits = ("train", "val") if split == "train" and "trainval" in options else (split,)
    only_shown = "voc" in options and split == "train"
    parts = [_part(root, _file(root, part), "voc" in options, only_shown=only_shown) for part in splits]
    return parts[0] if len(parts) == 1 else MixedData(parts, name="coco")


class CocoData(SegmentationData):
    """The samples of one instances file.

    images: file in `folder`, height, width and id of each. marks: (A, 4) int64, of each annotation the number of its
    image (they are in this order), its category, and its place and length in the JSON file. categories: category id ->
    class.
    """

    def __init__(
        self,
        *,
        classes: tuple[str, ...],
        root: Path,
        file: Path,
        folder: Path,
        images: list[Image],
        marks: np.ndarray,
        categories: dict[int, int],
    ) -> None:
        self.name, self.classes, self.palette = "coco", classes, voc_palette(len(classes))
        self.root, self.file, self.folder, self.images, self.categories = root, file, folder, images, categories
        self.spans = marks[:, 2:]
        self.first = np.searchsorted(marks[:, 0], np.arange(len(images) + 1))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        name, height, width, number = self.images[index]
        path = self.folder / name
        image, _ = read_image(path)
        if image.shape[:2] != (height, width):
            raise DataError(f"{path}: expected {width}x{height} ({self.file}), got {image.shape[1]}x{image.shape[0]}")
        spans = self.spans[self.first[index] : self.first[index + 1]]
        annotations = self._annotations(spans, number)
        return Sample(image, self._drawn(annotations, height, width), path.stem)

    def problems(self) -> dict[int, str]:
        wrong = misplaced(self.root, [self.folder / image[0] for image in self.images])
        return {index: f"{self.file}: {line}" for index, line in wrong.items()}

    def _annotations(self, spans: np.ndarray, image: int) -> list[dict[str, Any]]:
        found = []
        try:
            with self.file.open("rb") as file:
                for place, length in spans.tolist():
                    file.seek(place)
                    found.append(json.loads(file.read(length)))
        except (OSError, ValueError) as error:
            raise DataError(f"{self.file}: cannot be read: {one_line(error)}") from error
        if any(not isinstance(annotation, dict) or annotation.get("image_id") != image for annotation in found):
            raise DataError(f"{self.file}: it is not the file any more that was opened")
        return found

    def _drawn(self, annotations: list[dict[str, Any]], height: int, width: int) -> np.ndarray:
        label = np.zeros((height, width), np.uint8)
        instances = []
        for annotation in annotations:
            where = f"{self.file}: annotation {annotation.get('id')}"
            mask = decode_mask(annotation.get("segmentation"), height=height, width=width, where=where)
            if annotation.get("iscrowd", 0):
                label[mask] = IGNORE
            else:
                instances.append((int(mask.sum()), mask, self.categories[annotation["category_id"]]))
        for _, mask, category in sorted(instances, key=lambda instance: -instance[0]):
            label[mask] = category
        return label


def decode_mask(segmentation: Any, *, height: int, width: int, where: str) -> np.ndarray:
    """A COCO segmentation as a mask, (height, width) bool: a list of polygons, or run lengths of columns.

    Run lengths are {"size": [height, width], "counts": numbers or a text}. `where` opens the message if it is wrong.
    """
    if isinstance(segmentation, list):
        if not segmentation or not all(_is_polygon(polygon, height, width) for polygon in segmentation):
            raise DataError(
                f"{where}: expected polygons [x, y, x, y, x, y, ...] of the image, got {segmentation!r:.60}"
            )
        from pycocotools import mask as api  # an extra: only polygons need it

        return api.decode(api.merge(api.frPyObjects(segmentation, height, width))).astype(bool)
    counts = segmentation.get("counts") if isinstance(segmentation, dict) else None
    runs = _runs(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
        raise DataError(f"{where}: expected polygons or run lengths, got {segmentation!r:.60}")
    if segmentation.get("size") != [height, width] or sum(runs) != height * width:
        raise DataError(
            f"{where}: expected run lengths of {height} x {width} pixels, got {sum(runs)} of {segmentation.get('size')}"
        )
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def _is_polygon(polygon: Any, height: int, width: int) -> bool:
    """At least three corners, none further outside than the image is large: the library draws without bounds."""
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        return False
    sizes = (width, height) * (len(polygon) // 2)
    return all(
        type(value) in (int, float) and -size <= value <= 2 * size for value, size in zip(polygon, sizes, strict=True)
    )


def _runs(text: str) -> list[int] | None:
    """Run lengths from COCO's text: signed numbers in groups of five bits, from the fourth on the difference to the
    last but one; None if it is no such text. (pycocotools 2.0.11 writes beyond its memory on broken ones.)"""
    runs: list[int] = []
    value = bits = 0
    for code in (ord(character) - 48 for character in text):
        if not 0 <= code < 64 or bits > 60:
            return None
        value |= (code & 31) << bits
        bits += 5
        if not code & 32:
            value -= (code & 16) << (bits - 4)  # the sign
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = bits = 0
    return None if bits else runs


def _file(root: Path, split: str) -> Path:
    """The instances file of a split: of the first year that has both splits, for val2014 overlaps train2017."""
    files = {part: {y: root / "annotations" / f"instances_{part}{y}.json" for y in YEARS} for part in ("train", "val")}
    train, val = ([year for year, file in files[part].items() if file.is_file()] for part in files)
    own = train if split == "train" else val
    if not own:
        raise DataError(f"coco: expected one of {', '.join(map(str, files[split].values()))}, got none")
    both = [year for year in train if year in val]
    if not both and (train[:1], val[:1]) == (["2017"], ["2014"]):
        raise DataError(f"coco: expected train and val of one year, got {files['train']['2017']} and val2014 beside it")
    return files[split][(both or own)[0]]


def _part(root: Path, file: Path, as_voc: bool, *, only_shown: bool) -> CocoData:
    if wrong := misplaced(root, [file]):
        raise DataError(wrong[0])
    name = file.stem.removeprefix("instances_")
    folder = root / "images" / name if (root / "images" / name).is_dir() else root / name
    existing_folder(folder, "coco: images")
    try:
        content, marks = _read(file)
        classes, categories = _classes(file, content["categories"], as_voc)
        known = np.array([entry["id"] for entry in content["categories"]], np.int64)
        images = [_image(file, folder, entry) for entry in content["images"]]
        marks, images = _kept(file, marks, images, known, np.array(list(categories), np.int64), only_shown)
    except DataError:
        raise
    except (OSError, ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        text = f"{type(error).__name__}: {one_line(error)}"
        raise DataError(f"{file}: cannot be read as a file of COCO's instances: {text}") from error
    return CocoData(
        classes=classes, root=root, file=file, folder=folder, images=images, marks=marks, categories=categories
    )


def _read(file: Path) -> tuple[dict[str, Any], np.ndarray]:
    """The JSON object but its "annotations", and of each of these (A, 4) int64: image, category, place and length.

    The annotations are parsed one after the other and forgotten: half a gigabyte of text would be several as objects.
    As latin-1 a character is a byte, so that places in the text are places in the file.
    """
    text = read_text(file, most="SEGMODEL_MAX_JSON_BYTES", encoding="latin-1")
    content: dict[str, Any] = {}
    marks = array("q")
    place = _after(text, 0, "{")
    while text[place] != "}":
        name, place = _DECODER.raw_decode(text, place)
        start = place = _after(text, place, ":")
        if name == "annotations":
            place = _read_annotations(text, place, marks)
        else:
            place = _DECODER.raw_decode(text, start)[1]
            content[name] = json.loads(text[start:place].encode("latin-1"))
        place = _next(text, place)
    return content, np.array(marks, np.int64).reshape(-1, 4)


def _read_annotations(text: str, place: int, marks: "array[int]") -> int:
    """Enters the annotations of the list that begins here; returns where it ends."""
    place = _after(text, place, "[")
    while text[place] != "]":
        entry, end = _DECODER.raw_decode(text, place)
        marks.extend((entry["image_id"], entry["category_id"], place, end - place))
        place = _next(text, end)
    return place + 1


def _after(text: str, place: int, mark: str) -> int:
    place = _BLANK.match(text, place).end()  # type: ignore[union-attr]
    if text[place] != mark:
        raise ValueError(f"expected {mark!r} at byte {place}, got {text[place]!r}")
    return _BLANK.match(text, place + 1).end()  # type: ignore[union-attr]


def _next(text: str, place: int) -> int:
    """Where the next member begins, or the bracket that ends them."""
    place = _BLANK.match(text, place).end()  # type: ignore[union-attr]
    return place if text[place] in "]}" else _after(text, place, ",")


def _classes(file: Path, categories: list[dict[str, Any]], as_voc: bool) -> tuple[tuple[str, ...], dict[int, int]]:
    """The classes, and category id -> class, of the "categories" of a file."""
    names = {entry["id"]: entry["name"] for entry in sorted(categories, key=lambda entry: entry["id"])}
    classes = ("background", *names.values())
    if len(set(classes)) < len(categories) + 1 or not 1 < len(classes) <= MAX_CLASSES:
        raise DataError(f"{file}: categories: expected 1 to {MAX_CLASSES - 1} that differ, got {len(categories)}")
    if not as_voc:
        return classes, {number: index for index, number in enumerate(names, start=1)}
    renamed = {VOC_NAMES.get(name, name): number for number, name in names.items()}
    missing = [name for name in VOC_CLASSES[1:] if name not in renamed]
    if missing:
        raise DataError(f"{file}: categories: expected all classes of VOC, none is {', '.join(missing)}")
    return VOC_CLASSES, {renamed[name]: index for index, name in enumerate(VOC_CLASSES[1:], start=1)}


def _image(file: Path, folder: Path, entry: dict[str, Any]) -> Image:
    numbers = entry["height"], entry["width"], entry["id"]
    if not all(type(number) is int for number in numbers):
        raise DataError(f"{file}: images: expected height, width and id as whole numbers, got {numbers}")
    inside(folder, entry["file_name"], str(file))
    return entry["file_name"], *numbers


def _kept(
    file: Path, marks: np.ndarray, images: list[Image], known: np.ndarray, kept: np.ndarray, only_shown: bool
) -> tuple[np.ndarray, list[Image]]:
    """Marks of the kept categories in the order of their images, whose numbers replace the ids; and these images."""
    ids = np.array([image[3] for image in images], np.int64)
    if not images or len(np.unique(ids)) < len(ids):
        raise DataError(f"{file}: images: expected at least one, all ids different, got {len(images)}")
    for column, values, what in ((0, ids, "image_id"), (1, known, "category_id")):
        strange = ~np.isin(marks[:, column], values)
        if strange.any():
            raise DataError(f"{file}: annotations: {what} {marks[strange][0, column]} is not in this file")
    marks = marks[np.isin(marks[:, 1], kept)]
    if only_shown:
        shown = np.isin(ids, marks[:, 0])
        images, ids = [image for image, one in zip(images, shown, strict=True) if one], ids[shown]
        if not images:
            raise DataError(f"{file}: expected images that show one of the classes, got none")
    order = np.argsort(ids)
    marks[:, 0] = order[np.searchsorted(ids, marks[:, 0], sorter=order)]
    return marks[np.argsort(marks[:, 0], kind="stable")], images
