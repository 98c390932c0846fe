"""CamVid as the SegNet tutorial ships it: lists of IMAGE LABEL pairs, 11 classes, value 11 is unlabelled."""

import numpy as np

from segmodel.common.errors import DataError
from segmodel.data.base import FileData
from segmodel.data.images import index_values
from segmodel.data.lists import existing_folder, read_pairs

CLASSES = (
    "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist",
)  # fmt: skip
PALETTE = np.array(
    [
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
        (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ],
    np.uint8,
)  # fmt: skip
UNLABELLED = 11


def camvid(path: str, *, split: str) -> FileData:
    """`path` holds train.txt, val.txt or test.txt, each line IMAGE LABEL relative to it, or with a prefix of another
    machine (/SegNet/CamVid/train/x.png). Label values 0..10, 11 (unlabelled) becomes 255; 255 is accepted too."""
    if split not in ("train", "val", "test"):
        raise DataError(f"camvid: split: expected train, val or test, got {split!r}")
    root = existing_folder(path, "camvid")
    values = index_values(len(CLASSES))
    values[UNLABELLED] = 255
    return FileData(
        name="camvid",
        classes=CLASSES,
        palette=PALETTE,
        root=root,
        pairs=read_pairs(root / f"{split}.txt", root),
        values=values,
    )
