"""Pascal VOC 2012 segmentation and SBD (Semantic Boundaries Dataset), each in its official layout."""

import zlib
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

from segmodel.common.errors import DataError, one_line
from segmodel.common.labels import voc_palette
from segmodel.common.reading import open_file
from segmodel.data.base import FileData, MixedData, SegmentationData
from segmodel.data.images import class_values, index_values
from segmodel.data.lists import Pair, existing_folder, inside, read_lines
from segmodel.data.matlab import read_field

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_VALUES = index_values(len(CLASSES))
_MAX_MAT = 1 << 20, 1 << 26  # bytes of a MATLAB file, packed and unpacked; SBD's have a few thousand


def voc(root: Path, *, split: str, sbd: str = "") -> SegmentationData:
    """`root` is VOC2012 or holds it (VOCdevkit); `sbd` is the root of SBD. Labels: palette or grey PNG, 0..20, 255.

    train: with `sbd` the images of VOC's train.txt (with VOC's labels), then those of SBD's train.txt and val.txt that
    are neither among them nor in VOC's val.txt (with SBD's labels): the 10,582 of "train_aug". Otherwise the list
    train_aug.txt with SegmentationClassAug if that list exists, else train.txt with SegmentationClass.
    val: val.txt with SegmentationClass, or SegmentationClassAug if only that exists (their labels of val are the same).
    """
    root = root / "VOC2012" if (root / "VOC2012").is_dir() else root
    lists = existing_folder(root / "ImageSets" / "Segmentation", "voc")
    augmented, official = root / "SegmentationClassAug", root / "SegmentationClass"
    if split == "train" and sbd:
        data = _voc(root, lists / "train.txt", existing_folder(official, "voc: labels"))
        known = {name for part in ("train", "val") for _, name in _names(lists / f"{part}.txt")}
        return MixedData([data, _sbd(existing_folder(sbd, "sbd"), ("train", "val"), without=known)], name="voc")
    if split == "train" and (lists / "train_aug.txt").exists():
        labels = existing_folder(augmented, "voc: train_aug.txt is there, its labels")
        return _voc(root, lists / "train_aug.txt", labels)
    only_augmented = split == "val" and augmented.is_dir() and not official.is_dir()
    labels = existing_folder(augmented if only_augmented else official, "voc: labels")
    return _voc(root, lists / f"{split}.txt", labels)


def sbd(root: Path, *, split: str) -> FileData:
    """`root` is benchmark_RELEASE, or dataset inside it: img/NAME.jpg, cls/NAME.mat, and the lists train.txt, val.txt.

    The labels are `GTcls.Segmentation` of the MATLAB files, 0..20; nothing is ignored. SBD's lists are not VOC's: its
    train holds images of VOC's val. Use voc:PATH,sbd=PATH for scores on VOC's val.
    """
    return _sbd(root, (split,))


class SbdData(FileData):
    """Labels in MATLAB files."""

    def read_label(self, path: Path) -> np.ndarray:
        return class_values(path, read_mat(path), self.values)


def _voc(root: Path, list_path: Path, labels: Path) -> FileData:
    pairs = _pairs(root, _names(list_path), "JPEGImages/{}.jpg", f"{labels.name}/{{}}.png")
    return FileData("voc", CLASSES, voc_palette(), root, pairs, _VALUES)


def _sbd(root: Path, lists: tuple[str, ...], without: Collection[str] = ()) -> FileData:
    root = root / "dataset" if (root / "dataset").is_dir() else root
    found: dict[str, str] = {}  # a name that both lists hold is taken once
    for part in lists:
        for where, name in _names(root / f"{part}.txt"):
            found.setdefault(name, where)
    names = [(where, name) for name, where in found.items() if name not in without]
    pairs = _pairs(root, names, "img/{}.jpg", "cls/{}.mat")
    return SbdData("sbd", CLASSES, voc_palette(), root, pairs, _VALUES)


def _names(list_path: Path) -> list[tuple[str, str]]:
    """File and line number, and the name of an image, of each line of a list."""
    return [(where, name) for where, (name,) in read_lines(list_path, fields=1, expected="one image name a line")]


def _pairs(root: Path, names: Iterable[tuple[str, str]], image: str, label: str) -> list[Pair]:
    """The pairs of `names`, where the templates `image` and `label` put them."""
    return [
        Pair(inside(root, image.format(name), where), inside(root, label.format(name), where), name, where)
        for where, name in names
    ]


def read_mat(path: Path) -> np.ndarray:
    """The label values (H, W), whole numbers, of one of SBD's files."""
    try:
        with open_file(path, most="SEGMODEL_MAX_PICTURE_BYTES") as file:
            content = file.read(_MAX_MAT[0] + 1)
        if len(content) > _MAX_MAT[0]:
            raise ValueError(f"expected at most {_MAX_MAT[0]} bytes, got more")
        return read_field(content, "GTcls", "Segmentation", most=_MAX_MAT[1])
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, ValueError, zlib.error) as error:
        raise DataError(
            f"{path}: GTcls.Segmentation cannot be read from this MATLAB file: {one_line(error)}"
        ) from error
