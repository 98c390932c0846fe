"""Data sets: `open_data("voc:PATH", split="train")`; `open_data("voc:PATH+2*coco:PATH,voc", split="train")` mixes."""

import re
from collections.abc import Callable

from .ade20k import ade20k
from .augmentation import Augmentation, AugmentedData
from .base import DataError, MixedData, Sample, SegmentationData
from .camvid import camvid
from .cityscapes import cityscapes
from .coco import coco
from .folder import folder
from .scenes import scenes
from .voc import sbd, voc

__all__ = ["Augmentation", "AugmentedData", "DataError", "MixedData", "Sample", "SegmentationData", "open_data"]
KINDS: dict[str, Callable[..., SegmentationData]] = {
    "scenes": scenes,
    "voc": voc,
    "sbd": sbd,
    "cityscapes": cityscapes,
    "ade20k": ade20k,
    "coco": coco,
    "camvid": camvid,
    "folder": folder,
}
_PLUS = re.compile(rf"\+(?=(?:\d{{1,4}}\*)?(?:{'|'.join(KINDS)})(?:[:+]|$))")  # a path may hold a + of its own
_TIMES = re.compile(r"(\d{1,4})\*(.*)", re.DOTALL)


def open_data(spec: str, *, split: str) -> SegmentationData:
    """The data set that `spec` names: KIND:PATH, or several joined by +, N*KIND:PATH to see one N times as often.

    scenes (drawn on the fly; scenes:train=2000,val=50,shores=1: see data/scenes.py), voc:PATH, voc:PATH,sbd=PATH,
    sbd:PATH, cityscapes:PATH, cityscapes:PATH,coarse, ade20k:PATH, coco:PATH, coco:PATH,voc, coco:PATH,trainval,
    camvid:PATH, folder:PATH. All parts of a mix must have the same classes; only its first part is validated on.

    split is "train" or "val" (camvid and folder: "test" too). Raises DataError if the kind, the split, the lists or
    any file they name is wrong; file contents are checked when they are read.
    """
    data = index_data(spec, split=split)
    problems = data.problems()
    if problems:
        raise DataError(*problems.values())
    return data


def index_data(spec: str, *, split: str) -> SegmentationData:
    """The same without a look at whether the files are there."""
    parts: list[SegmentationData] = []
    for text in _PLUS.split(spec)[: None if split == "train" else 1]:
        times, part = match.groups() if (match := _TIMES.fullmatch(text)) else ("1", text)
        if not 1 <= int(times) <= 1000:
            raise DataError(f"data: expected a part 1 to 1000 times, got {text!r}")
        parts += [_one(part, split)] * (int(times) if split == "train" else 1)
    return parts[0] if len(parts) == 1 else MixedData(parts, name="+".join(dict.fromkeys(p.name for p in parts)))


def _one(spec: str, split: str) -> SegmentationData:
    kind, _, rest = spec.partition(":")
    if kind not in KINDS:
        raise DataError(f"data: expected one of {', '.join(KINDS)}, got {spec!r}")
    if kind != "scenes" and not rest:
        raise DataError(f"data: expected {kind}:PATH, got {spec!r}")
    return KINDS[kind](rest, split=split)
