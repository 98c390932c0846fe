"""Pascal VOC 2012 segmentation in its own layout, with the augmented training set where it is present."""

from pathlib import Path

import numpy as np

from .base import DataError, FileData, Pair, existing_folder, index_values, inside, read_lines

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def voc_palette(count: int = 21) -> np.ndarray:
    """The colours of the VOC development kit: the bits of the class number dealt to red, green, blue, highest first."""
    numbers = np.arange(count)
    palette = np.zeros((count, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((numbers >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return palette


def voc(path: str, *, split: str) -> FileData:
    """`path` is VOCdevkit, or VOC2012 inside it.

    train: the list train_aug.txt with SegmentationClassAug if that list is there (10,582 images: VOC and SBD), else
    train.txt with SegmentationClass. val: val.txt with SegmentationClass, or SegmentationClassAug if only that exists
    (both hold the same labels of val). Labels are palette or grey PNG, values 0..20, 255 is ignored.
    """
    if split not in ("train", "val"):
        raise DataError(f"voc: split: expected train or val, got {split!r}")
    root = existing_folder(path, "voc")
    root = root / "VOC2012" if (root / "VOC2012").is_dir() else root
    lists = existing_folder(root / "ImageSets" / "Segmentation", "voc")
    list_path, labels = _parts(root, lists, split)
    pairs = [_pair(root, labels, row[0], f"{list_path}, line {n}") for n, row in _names(list_path)]
    return FileData(name="voc", classes=CLASSES, palette=voc_palette(), pairs=pairs, values=index_values(len(CLASSES)))


def _parts(root: Path, lists: Path, split: str) -> tuple[Path, Path]:
    augmented, official = root / "SegmentationClassAug", root / "SegmentationClass"
    if split == "train" and (lists / "train_aug.txt").exists():
        return lists / "train_aug.txt", existing_folder(augmented, "voc: train_aug.txt is there, its labels")
    use_augmented = split == "val" and augmented.is_dir() and not official.is_dir()
    return lists / f"{split}.txt", existing_folder(augmented if use_augmented else official, "voc: labels")


def _names(list_path: Path) -> list[tuple[int, list[str]]]:
    return read_lines(list_path, fields=1, expected="one image name a line")


def _pair(root: Path, labels: Path, name: str, where: str) -> Pair:
    image = inside(root, f"JPEGImages/{name}.jpg", where)
    return Pair(image, inside(root, f"{labels.name}/{name}.png", where), name)
