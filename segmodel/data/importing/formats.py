"""Which format a source has, and its samples."""

from __future__ import annotations

from collections.abc import Sequence

from segmodel.common.errors import DataError
from segmodel.data.importing.coco import KEYS as COCO_KEYS
from segmodel.data.importing.coco import open_coco
from segmodel.data.importing.labelme import KEYS as LABELME_KEYS
from segmodel.data.importing.labelme import open_labelme
from segmodel.data.importing.masks import is_voc, open_masks, paired
from segmodel.data.importing.sbd import open_sbd
from segmodel.data.importing.source import Colour, Source
from segmodel.data.importing.tree import Tree
from segmodel.data.importing.yolo import open_yolo, yolo_files

FORMATS = {
    "numbers": "pictures of class numbers, with gaps or not, or of 0 and 255",
    "colours": "pictures of colours; labelmap.txt names them",
    "voc": "JPEGImages, SegmentationClass or SegmentationClassAug, ImageSets, labelmap.txt",
    "labelme": "a JSON file a picture",
    "yolo": "a text file of polygons a picture; data.yaml or classes.txt names the classes",
    "coco": "JSON files of instances (extra coco)",
    "sbd": ".mat files",
}
MASKS = ("numbers", "colours", "voc")


def open_source(tree: Tree, kind: str, *, nearest: bool, known: Sequence[Colour]) -> Source:
    """The samples of a tree in a format, or, if `kind` is "auto", in the one format that it holds.

    nearest, known: see `open_masks`.

    Raises:
        DataError: none, or several; or its files are wrong.
    """
    coco = tree.json(COCO_KEYS) if kind in ("auto", "coco") else []
    labelme = tree.json(LABELME_KEYS) if kind in ("auto", "labelme") else []
    yolo = yolo_files(tree) if kind in ("auto", "yolo") else []
    mats = tree.ending(".mat") if kind in ("auto", "sbd") else []
    pairs = len(paired(tree).pairs) if kind in ("auto", *MASKS) else 0
    masks = kind if kind in MASKS else "voc" if is_voc(tree) else "numbers or colours"
    counts = {"coco": len(coco), "labelme": len(labelme), "yolo": len(yolo), "sbd": len(mats), masks: pairs}
    found = {name: count for name, count in counts.items() if count}
    if not found:
        raise DataError(_nothing(tree, kind, masks))
    if len(found) > 1:
        each = ", ".join(f"{name} ({count})" for name, count in found.items())
        raise DataError(f"expected labels of one format, found {each}: choose by --format, or name fewer folders")
    openers = {
        "coco": lambda: open_coco(tree, coco),
        "labelme": lambda: open_labelme(tree, labelme),
        "yolo": lambda: open_yolo(tree, yolo),
        "sbd": lambda: open_sbd(tree),
    }
    name = next(iter(found))
    if name in openers:
        source = openers[name]()
    else:
        source = open_masks(tree, "" if kind in ("auto", "voc") else kind, nearest=nearest, known=known)
    if not source.items:
        raise DataError(f"expected pictures named as their labels ({source.format}), found none: {tree.census()}")
    return source


def _nothing(tree: Tree, kind: str, masks: str) -> str:
    what = {"numbers or colours": "pictures with labels of the same names"}.get(masks, f"labels of the format {kind}")
    return f"expected {what} (as a.jpg and a_mask.png, or images/a.jpg and labels/a.png), found {tree.census()}"
