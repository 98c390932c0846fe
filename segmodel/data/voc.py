"""Pascal VOC 2012 segmentation and SBD (Semantic Boundaries Dataset), each in its own layout."""

import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np

from segmodel.common.errors import DataError, one_line
from segmodel.common.labels import voc_palette
from segmodel.data.base import FileData, MixedData, SegmentationData
from segmodel.data.images import class_values, index_values
from segmodel.data.lists import Pair, existing_folder, inside, read_lines, split_options
from segmodel.data.matlab import read_field

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_VALUES = index_values(len(CLASSES))
_MAX_MAT = 1 << 20, 1 << 26  # bytes of a MATLAB file, packed and unpacked; SBD's have a few thousand


def voc(rest: str, *, split: str) -> SegmentationData:
    """`rest` is PATH or PATH,sbd=PATH: VOCdevkit or VOC2012 in it, and SBD's benchmark_RELEASE or dataset in it.

    train: with sbd= the images of VOC's train.txt (with VOC's labels), then those of SBD's train.txt and val.txt that
    are neither among them nor in VOC's val.txt (with SBD's labels): the 10,582 of "train_aug". Else the list
    train_aug.txt with SegmentationClassAug if that list is there, else train.txt with SegmentationClass. val: val.txt
    with SegmentationClass, or SegmentationClassAug if only that exists (both hold the same labels of val). Labels are
    palette or grey PNG, values 0..20, 255 is ignored.
    """
    if split not in ("train", "val"):
        raise DataError(f"voc: split: expected train or val, got {split!r}")
    path, options = split_options("voc", rest, ("sbd=",))
    root = existing_folder(path, "voc")
    root = root / "VOC2012" if (root / "VOC2012").is_dir() else root
    lists = existing_folder(root / "ImageSets" / "Segmentation", "voc")
    if split == "train" and "sbd" in options:
        official = _voc(root, lists / "train.txt", existing_folder(root / "SegmentationClass", "voc: labels"))
        known = {name for list_name in ("train.txt", "val.txt") for _, (name,) in _names(lists / list_name)}
        return MixedData([official, _sbd(options["sbd"], ("train", "val"), without=known)], name="voc")
    return _voc(root, *_parts(root, lists, split))


def sbd(path: str, *, split: str) -> FileData:
    """`path` is benchmark_RELEASE, or dataset inside it: img/NAME.jpg, cls/NAME.mat, and the lists train.txt, val.txt.

    The labels are `GTcls.Segmentation` of the MATLAB files, 0..20; nothing is ignored. SBD's lists are not VOC's: its
    train holds images of VOC's val. Use voc:PATH,sbd=PATH to be measured on those.
    """
    if split not in ("train", "val"):
        raise DataError(f"sbd: split: expected train or val, got {split!r}")
    return _sbd(path, (split,))


class SbdData(FileData):
    """Labels in MATLAB files."""

    def read_label(self, path: Path) -> np.ndarray:
        return class_values(path, _read_mat(path), self.values)


def _sbd(path: str, lists: tuple[str, ...], without: Collection[str] = ()) -> FileData:
    root = existing_folder(path, "sbd")
    root = root / "dataset" if (root / "dataset").is_dir() else root
    found: dict[str, str] = {}  # a name that both lists hold counts once
    for part in lists:
        for where, (name,) in _names(root / f"{part}.txt"):
            if name not in without:
                found.setdefault(name, where)
    pairs = [
        Pair(inside(root, f"img/{name}.jpg", where), inside(root, f"cls/{name}.mat", where), name, where)
        for name, where in found.items()
    ]
    return SbdData(name="sbd", classes=CLASSES, palette=voc_palette(), root=root, pairs=pairs, values=_VALUES)


def _read_mat(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
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


def _voc(root: Path, list_path: Path, labels: Path) -> FileData:
    pairs = [
        Pair(
            inside(root, f"JPEGImages/{name}.jpg", where), inside(root, f"{labels.name}/{name}.png", where), name, where
        )
        for where, (name,) in _names(list_path)
    ]
    return FileData(name="voc", classes=CLASSES, palette=voc_palette(), root=root, pairs=pairs, values=_VALUES)


def _parts(root: Path, lists: Path, split: str) -> tuple[Path, Path]:
    augmented, official = root / "SegmentationClassAug", root / "SegmentationClass"
    if split == "train" and (lists / "train_aug.txt").exists():
        return lists / "train_aug.txt", existing_folder(augmented, "voc: train_aug.txt is there, its labels")
    use_augmented = split == "val" and augmented.is_dir() and not official.is_dir()
    return lists / f"{split}.txt", existing_folder(augmented if use_augmented else official, "voc: labels")


def _names(list_path: Path) -> list[tuple[str, list[str]]]:
    return read_lines(list_path, fields=1, expected="one image name a line")
