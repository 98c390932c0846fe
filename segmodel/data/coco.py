"""MS COCO from its instances files: 80 classes and background, or Pascal VOC's 20 and background.

    PATH/annotations/instances_train2017.json   PATH/train2017/*.jpg or PATH/images/train2017/*.jpg
    PATH/annotations/instances_val2017.json     PATH/val2017/*.jpg

Without files of 2017 those of 2014 are read; without either, those without a year (instances_train.json, train/), which
are for files of your own in COCO's format, with the classes of their "categories".

How instances become one label map:

* Where instances overlap, the one with fewer pixels lies in front (a cup on a table); of equal ones the later.
* A crowd ("iscrowd": 1) is ignored where no single instance lies: it also covers what is between its members.
* The rest is background. With VOC's classes the other 60 are background too. A category that is called background is
  the background, not a class of its own.
* An annotation without a mask (no "segmentation", or a box in its place) is an error; coco:PATH,skip-bad leaves such
  annotations out and says how many.

Polygons are drawn by pycocotools when a sample is read, as by COCO's own tools. Its index of the annotations would take
five times the size of the file in memory (measured); here the file is read through when the data set is opened, only
the place of each annotation is kept, in arrays, and it is parsed from there.
"""

import json
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from segmodel.common.errors import DataError, one_line
from segmodel.common.labels import IGNORE, is_background, voc_palette
from segmodel.common.reading import open_file, read_text
from segmodel.data.base import MAX_CLASSES, MixedData, Sample, SegmentationData
from segmodel.data.images import label_of, read_image
from segmodel.data.lists import existing_folder, inside, misplaced
from segmodel.data.voc import CLASSES as VOC_CLASSES

VOC_NAMES = {  # where COCO's name differs from VOC's
    "airplane": "aeroplane", "dining table": "diningtable", "motorcycle": "motorbike", "potted plant": "pottedplant",
    "couch": "sofa", "tv": "tvmonitor",
}  # fmt: skip
YEARS = ("2017", "2014", "")
Image = tuple[str, int, int, int]  # file (a text: a hundred thousand paths unpickle slowly), height, width, id
_BLANK = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
MARK = "\xef\xbb\xbf"  # the bytes of UTF-8's byte-order mark


def coco(
    root: Path, *, split: str, voc: bool = False, trainval: bool = False, skip_bad: bool = False
) -> SegmentationData:
    """The instances of a split.

    voc: with VOC's classes, and of train only the images that show one of the 20. trainval: the images of val train
    too (123,287 in all: Sec. 7.1.1). skip_bad: without annotations that have no mask, which are an error otherwise.
    """
    require_pycocotools()
    splits = ("train", "val") if split == "train" and trainval else (split,)
    shown = voc and split == "train"
    parts = [_part(root, _file(root, part), voc, only_shown=shown, skip_bad=skip_bad) for part in splits]
    return parts[0] if len(parts) == 1 else MixedData(parts, name="coco")


def require_pycocotools() -> None:
    if find_spec("pycocotools") is None:
        raise DataError("coco: polygons are drawn by pycocotools, which is missing: pip install segmodel[coco]")


@dataclass(eq=False)
class CocoData(SegmentationData):
    """The samples of one instances file.

    images: file in `folder`, height, width and id of each.
    spans: (A, 2) int64, place and length of the annotations in the file, in the order of their images.
    first: (N + 1,) int64, of each image the number of its first annotation; the last is A.
    categories: category id -> class, 0 for those left out.
    """

    root: Path
    file: Path
    folder: Path
    images: list[Image]
    spans: np.ndarray
    first: np.ndarray
    categories: dict[int, int]
    classes: tuple[str, ...]
    notes: Sequence[str] = ()
    name = "coco"

    def __post_init__(self) -> None:
        self.palette = voc_palette(len(self.classes))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        name, height, width, _ = self.images[index]
        path = self.folder / name
        image, orientation = read_image(path)
        if image.shape[:2] != (height, width) and (orientation < 5 or image.shape[1::-1] != (height, width)):
            raise DataError(f"{path}: expected {width}x{height} ({self.file}), got {image.shape[1]}x{image.shape[0]}")
        label, turned = label_of(image, orientation, self.label(index))
        return Sample(image, label, path.stem, turned)

    def label(self, index: int) -> np.ndarray:
        _, height, width, number = self.images[index]
        spans = self.spans[self.first[index] : self.first[index + 1]]
        return self._drawn(self._annotations(spans, number), height, width)

    def files(self) -> list[Path]:
        return [self.file, *(self.folder / image[0] for image in self.images)]

    def problems(self) -> dict[int, str]:
        wrong = misplaced(self.root, self.files()[1:])
        return {index: f"{self.file}: {line}" for index, line in wrong.items()}

    def _annotations(self, spans: np.ndarray, image: int) -> list[dict[str, Any]]:
        found = []
        try:
            with open_file(self.file, most="SEGMODEL_MAX_JSON_BYTES") as file:
                for place, length in spans.tolist():
                    file.seek(place)
                    found.append(json.loads(file.read(length)))
        except (OSError, ValueError) as error:
            raise DataError(f"{self.file}: cannot be read: {one_line(error)}") from error
        if any(not isinstance(annotation, dict) or annotation.get("image_id") != image for annotation in found):
            raise DataError(f"{self.file}: has changed since it was opened")
        return found

    def _drawn(self, annotations: list[dict[str, Any]], height: int, width: int) -> np.ndarray:
        label = np.zeros((height, width), np.uint8)
        instances = []
        for annotation in annotations:
            where = f"{self.file}: annotation {annotation.get('id')}"
            if not _has_mask(annotation):
                found = f"{annotation.get('segmentation')!r:.60}"
                raise DataError(f"{where}: expected polygons [x, y, x, y, x, y, ...] or run lengths, got {found} "
                                "(coco:PATH,skip-bad leaves out annotations without a mask)")  # fmt: skip
            crowd = annotation.get("iscrowd", 0)
            if crowd not in (0, 1):
                raise DataError(f"{where}: iscrowd: expected 0 or 1, got {crowd!r:.60}")
            mask = decode_mask(annotation["segmentation"], height=height, width=width, where=where)
            if crowd:
                label[mask] = IGNORE
            else:
                instances.append((int(mask.sum()), mask, self.categories[annotation["category_id"]]))
        for _, mask, category in sorted(instances, key=lambda instance: -instance[0]):
            label[mask] = category
        return label


def _has_mask(annotation: dict[str, Any]) -> bool:
    """Whether there are polygons of three corners or more, or run lengths, whatever their values."""
    given = annotation.get("segmentation")
    if isinstance(given, list):
        return bool(given) and all(isinstance(part, list) and len(part) >= 6 for part in given)
    return isinstance(given, dict) and bool(given.get("counts"))


def decode_mask(segmentation: Any, *, height: int, width: int, where: str) -> np.ndarray:
    """A COCO segmentation as a mask, (height, width) bool.

    segmentation: a list of polygons, or {"size": [height, width], "counts": lengths of runs of 0, 1, 0, ... down the
        columns, as numbers or as COCO's text}.
    where: opens the message of the `DataError` raised if it is wrong.
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
    """At least three corners, none further outside than the image is large: pycocotools does not check its bounds."""
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        return False
    sizes = (width, height) * (len(polygon) // 2)
    return all(
        type(value) in (int, float) and -size <= value <= 2 * size for value, size in zip(polygon, sizes, strict=True)
    )


def _runs(text: str) -> list[int] | None:
    """Run lengths from COCO's text, None if it is no such text (on which pycocotools 2.0.11 writes beyond its memory).

    They are signed numbers in groups of five bits, from the fourth on differences to the last but one.
    """
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


def _part(root: Path, file: Path, as_voc: bool, *, only_shown: bool, skip_bad: bool) -> CocoData:
    if wrong := misplaced(root, [file]):
        raise DataError(wrong[0])
    name = file.stem.removeprefix("instances_")
    folder = root / "images" / name if (root / "images" / name).is_dir() else root / name
    existing_folder(folder, "coco: images")
    return instances(root, file, folder, as_voc, only_shown=only_shown, skip_bad=skip_bad)


def instances(
    root: Path,
    file: Path,
    folder: Path | None,
    as_voc: bool = False,
    *,
    only_shown: bool = False,
    skip_bad: bool = False,
) -> CocoData:
    """The samples of a file of instances, pictures in `folder`; None: whoever reads them finds them by name."""
    try:
        content, marks, bad = _read(file, skip_bad=skip_bad)
        classes, categories = _classes(content["categories"], as_voc)
        images = [_image(folder, entry) for entry in content["images"]]
        images, spans, first = _index(marks, images, categories, only_shown)
    except DataError as error:
        raise DataError(f"{file}: {error}") from error
    except (OSError, ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        text = f"{type(error).__name__}: {one_line(error)}"
        raise DataError(f"{file}: cannot be read as a file of COCO's instances: {text}") from error
    notes = [f"{file}: {bad} annotations without a mask are left out (skip-bad)"] if bad else []
    return CocoData(root, file, folder or root, images, spans, first, categories, classes, notes)


def _read(file: Path, *, skip_bad: bool) -> tuple[dict[str, Any], np.ndarray, int]:
    """The JSON object without its "annotations"; image, category, place and length of each of these, (A, 4) int64; how
    many were left out.

    The annotations are parsed one after the other and dropped: half a gigabyte of text would be several as objects.
    As latin-1 a character is a byte, so that places in the text are places in the file.
    """
    text = read_text(file, most="SEGMODEL_MAX_JSON_BYTES", encoding="latin-1")
    content: dict[str, Any] = {}
    marks, bad = array("q"), 0
    place = _after(text, len(MARK) * text.startswith(MARK), "{")
    while text[place] != "}":
        name, end = _DECODER.raw_decode(text, place)
        place = _after(text, end, ":")
        if name == "annotations":
            place = _after(text, place, "[")
            while text[place] != "]":
                entry, end = _DECODER.raw_decode(text, place)
                if skip_bad and not _has_mask(entry):
                    bad += 1
                else:
                    marks.extend((entry["image_id"], entry["category_id"], place, end - place))
                place = _next(text, end)
            end = place + 1
        else:
            end = _DECODER.raw_decode(text, place)[1]
            content[name] = json.loads(text[place:end].encode("latin-1"))
        place = _next(text, end)
    return content, np.array(marks, np.int64).reshape(-1, 4), bad


def _after(text: str, place: int, mark: str) -> int:
    """Where the next thing begins after this mark, which must come next."""
    place = _BLANK.match(text, place).end()  # type: ignore[union-attr]
    if text[place] != mark:
        raise ValueError(f"expected {mark!r} at byte {place}, got {text[place]!r}")
    return _BLANK.match(text, place + 1).end()  # type: ignore[union-attr]


def _next(text: str, place: int) -> int:
    """Where the next member begins, or the bracket that ends them."""
    place = _BLANK.match(text, place).end()  # type: ignore[union-attr]
    return place if text[place] in "]}" else _after(text, place, ",")


def _classes(categories: list[dict[str, Any]], as_voc: bool) -> tuple[tuple[str, ...], dict[int, int]]:
    """Names of the classes, and category id -> class (0: none of them)."""
    names = {entry["id"]: entry["name"] for entry in sorted(categories, key=lambda entry: entry["id"])}
    if strange := [name for name in names.values() if not isinstance(name, str)]:
        raise DataError(f"categories: expected names as texts, got {strange[0]!r:.60}")
    behind = [number for number, name in names.items() if is_background(name)]
    classes = ("background", *(name for number, name in names.items() if number not in behind))
    expected = len(categories) + 1 - len(behind)
    if len(set(classes)) < expected or len(behind) > 1 or not 1 < len(classes) <= MAX_CLASSES:
        raise DataError(f"categories: expected 1 to {MAX_CLASSES - 1} that differ, got {len(categories)}")
    if not as_voc:
        places = {name: index for index, name in enumerate(classes)} | {names[number]: 0 for number in behind}
        return classes, {number: places[name] for number, name in names.items()}
    names = {number: VOC_NAMES.get(name, name) for number, name in names.items()}
    missing = [name for name in VOC_CLASSES[1:] if name not in names.values()]
    if missing:
        raise DataError(f"categories: expected all classes of VOC, none is {', '.join(missing)}")
    numbers = {name: index for index, name in enumerate(VOC_CLASSES)}
    return VOC_CLASSES, {number: numbers.get(name, 0) for number, name in names.items()}


def _image(folder: Path | None, entry: dict[str, Any]) -> Image:
    numbers = entry["height"], entry["width"], entry["id"]
    if not all(type(number) is int for number in numbers):
        raise DataError(f"images: expected height, width and id as whole numbers, got {numbers}")
    if not isinstance(entry["file_name"], str):
        raise DataError(f"images: expected a text as file_name, got {entry['file_name']!r:.60}")
    if folder:
        inside(folder, entry["file_name"], "images")
    return entry["file_name"], *numbers


def _index(
    marks: np.ndarray, images: list[Image], categories: dict[int, int], only_shown: bool
) -> tuple[list[Image], np.ndarray, np.ndarray]:
    """`images`, `spans` and `first` of `CocoData`, without annotations of class 0.

    marks: as `_read` returns them. only_shown: leaves out images without an annotation.
    """
    known = np.array(list(categories), np.int64)
    ids = np.array([image[3] for image in images], np.int64)
    if not images or len(np.unique(ids)) < len(ids):
        raise DataError(f"images: expected at least one, all ids different, got {len(images)}")
    for column, values, what in ((0, ids, "image_id"), (1, known, "category_id")):
        strange = ~np.isin(marks[:, column], values)
        if strange.any():
            raise DataError(f"annotations: {what} {marks[strange][0, column]} is not in this file")
    marks = marks[np.isin(marks[:, 1], [number for number, index in categories.items() if index])]
    if only_shown:
        shown = np.isin(ids, marks[:, 0])
        images, ids = [image for image, one in zip(images, shown, strict=True) if one], ids[shown]
        if not images:
            raise DataError("expected images that show one of the classes, got none")
    order = np.argsort(ids)
    numbers = order[np.searchsorted(ids, marks[:, 0], sorter=order)]  # of the images, in this list
    by_image = np.argsort(numbers, kind="stable")
    return images, marks[by_image, 2:], np.searchsorted(numbers[by_image], np.arange(len(images) + 1))
