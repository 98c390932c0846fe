"""Data sets: `open_data("voc:PATH", split="train")`; `open_data("voc:PATH+2*coco:PATH,voc", split="train")` mixes."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from segmodel.common.errors import DataError
from segmodel.data.ade20k import ade20k, ade20k_ids
from segmodel.data.augmentation import Augmentation, AugmentedData
from segmodel.data.base import MixedData, Sample, SegmentationData
from segmodel.data.camvid import camvid
from segmodel.data.cityscapes import cityscapes, cityscapes_ids
from segmodel.data.coco import coco
from segmodel.data.folder import SPLITS, folder
from segmodel.data.lists import existing_folder
from segmodel.data.scenes import scenes
from segmodel.data.voc import sbd, voc

__all__ = ["Augmentation", "AugmentedData", "DataError", "MixedData", "Sample", "SegmentationData", "open_data"]


@dataclass(frozen=True)
class Kind:
    """How the data sets of one kind are opened.

    open: called with the root folder (which exists), split=SPLIT and the options given; if `form` is set, with the text
        after the colon in place of the folder.
    splits: allowed values of SPLIT.
    options: "NAME", passed on as NAME=True (- as _), or "NAME=" for NAME=PATH.
    form: what may follow the kind's name if that is no path.
    ids: the label values (C,) uint8 that the published files have for classes of these names, if not 0..C-1.
    """

    open: Callable[..., SegmentationData]
    splits: tuple[str, ...] = ("train", "val")
    options: tuple[str, ...] = ()
    form: str = ""
    ids: Callable[[Sequence[str]], np.ndarray] | None = None

    def usage(self, name: str) -> str:
        """The specification of such a set, such as voc:PATH[,sbd=PATH]."""
        options = "".join(f"[,{option}{'PATH' * option.endswith('=')}]" for option in self.options)
        return f"{name}{self.form or ':PATH' + options}"


KINDS = {
    "scenes": Kind(scenes, form="[:train=N,val=N,shores=1]"),
    "voc": Kind(voc, options=("sbd=",)),
    "sbd": Kind(sbd),
    "cityscapes": Kind(cityscapes, options=("coarse",), ids=cityscapes_ids),
    "ade20k": Kind(ade20k, ids=ade20k_ids),
    "coco": Kind(coco, options=("voc", "trainval", "skip-bad")),
    "camvid": Kind(camvid, splits=SPLITS),
    "folder": Kind(folder, splits=SPLITS),
}
USAGE = ", ".join(kind.usage(name) for name, kind in KINDS.items())
PUBLISHED_IDS = {name: kind.ids for name, kind in KINDS.items() if kind.ids}
_PLUS = re.compile(rf"\+(?=(?:\d{{1,4}}\*)?(?:{'|'.join(KINDS)})(?:[:+]|$))")  # a path may hold a + of its own
_TIMES = re.compile(r"(\d{1,4})\*(.*)", re.DOTALL)


def open_data(spec: str, *, split: str) -> SegmentationData:
    """The data set that `spec` names: one of `KINDS`, or several joined by +; N*KIND:PATH is seen N times as often.

    `USAGE` lists the forms, each kind's module explains them. All parts of a mix must have the same classes; only the
    first is validated on. split: "train" or "val" (camvid and folder: "test" too).

    Raises:
        DataError: the kind, the split, a list or a file that it names is wrong; contents are checked when read.
    """
    data = index_data(spec, split=split)
    problems = data.problems()
    if problems:
        raise DataError(*problems.values())
    return data


def index_data(spec: str, *, split: str) -> SegmentationData:
    """As `open_data`, without checking that the listed files exist."""
    parts: list[SegmentationData] = []
    for text in _PLUS.split(spec)[: None if split == "train" else 1]:
        times, part = match.groups() if (match := _TIMES.fullmatch(text)) else ("1", text)
        if not 1 <= int(times) <= 1000:
            raise DataError(f"data: expected a part 1 to 1000 times, got {text!r}")
        parts += [_one(part, split)] * (int(times) if split == "train" else 1)
    return parts[0] if len(parts) == 1 else MixedData(parts, name="+".join(dict.fromkeys(p.name for p in parts)))


def _one(spec: str, split: str) -> SegmentationData:
    name, _, rest = spec.partition(":")
    if name not in KINDS:
        raise DataError(f"data: expected one of {', '.join(KINDS)}, got {spec!r}")
    kind = KINDS[name]
    if not rest and not kind.form:
        raise DataError(f"data: expected {name}:PATH, got {spec!r}")
    if split not in kind.splits:
        *others, last = kind.splits
        raise DataError(f"{name}: split: expected {', '.join(others)} or {last}, got {split!r}")
    if kind.form:
        return kind.open(rest, split=split)
    # A folder's name may hold a comma.
    path, *given = rest.split(",") if kind.options and not os.path.isdir(rest) else [rest]
    options: dict[str, str | bool] = {}
    for text in given:
        option, sign, value = text.partition("=")
        if option + sign not in kind.options or bool(sign) != bool(value) or option.replace("-", "_") in options:
            raise DataError(f"data: expected {kind.usage(name)}, got {spec!r}")
        options[option.replace("-", "_")] = value or True
    return kind.open(existing_folder(path, name), split=split, **options)
