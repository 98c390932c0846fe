"""Which format a source has, and its samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from segmodel.common.errors import DataError
from segmodel.data.importing.coco import KEYS as COCO_KEYS
from segmodel.data.importing.coco import open_coco
from segmodel.data.importing.labelme import KEYS as LABELME_KEYS
from segmodel.data.importing.labelme import open_labelme
from segmodel.data.importing.masks import is_voc, open_masks, pair_masks
from segmodel.data.importing.sbd import open_sbd
from segmodel.data.importing.source import Colour, Source
from segmodel.data.importing.tree import File, Pairing, Tree
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
READERS: dict[str, tuple[Callable[[Tree], list[File]], Callable[[Tree, list[File], bool], Source]]] = {
    "coco": (
        lambda tree: tree.json(COCO_KEYS),
        lambda tree, files, skip_bad: open_coco(tree, files, skip_bad=skip_bad),
    ),
    "labelme": (lambda tree: tree.json(LABELME_KEYS), lambda tree, files, _: open_labelme(tree, files)),
    "yolo": (yolo_files, lambda tree, files, _: open_yolo(tree, files)),
    "sbd": (lambda tree: tree.ending(".mat"), lambda tree, files, _: open_sbd(tree, files)),
}
"""The formats that are no pictures: what finds their files, and what opens them (its last argument: --skip-bad)."""


def open_source(tree: Tree, kind: str, *, nearest: bool, skip_bad: bool, known: Sequence[Colour]) -> Source:
    """The samples of a tree in a format, or, if `kind` is "auto", in the one format that it holds.

    nearest, known: see `open_masks`. skip_bad: see `open_coco`.

    Raises:
        DataError: none, or several; or its files are wrong.
    """
    found = {name: find(tree) for name, (find, _) in READERS.items() if kind in ("auto", name)}
    counts = {name: len(files) for name, files in found.items()}
    pairing = pair_masks(tree) if kind in ("auto", *MASKS) else Pairing()
    counts[kind if kind in MASKS else "voc" if is_voc(tree) else "numbers or colours"] = len(pairing.pairs)
    there = [name for name, count in counts.items() if count]
    if not there:
        raise DataError(_nothing(tree, kind))
    if len(there) > 1:
        each = ", ".join(f"{name} ({counts[name]})" for name in there)
        raise DataError(f"expected labels of one format, found {each}: choose by --format, or name fewer folders")
    name = there[0]
    if name in READERS:
        source = READERS[name][1](tree, found[name], skip_bad)
    else:
        source = open_masks(tree, pairing, kind, nearest=nearest, known=known)
    if not source.items and not source.wrong:
        raise DataError(f"expected pictures named as their labels ({source.format}), found none: {tree.census()}")
    return source


def _nothing(tree: Tree, kind: str) -> str:
    if kind not in ("auto", *MASKS):
        return f"expected labels of the format {kind} ({FORMATS[kind]}), found {tree.census()}"
    what = "pictures with labels of the same names"
    return f"expected {what} (as a.jpg and a_mask.png, or images/a.jpg and labels/a.png), found {tree.census()}"
