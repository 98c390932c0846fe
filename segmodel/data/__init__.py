"""Data sets: `open_data("scenes" | "camvid:PATH" | "voc:PATH" | "folder:PATH", split="train")`."""

from collections.abc import Callable

from .augmentation import Augmentation, AugmentedData
from .base import DataError, Sample, SegmentationData
from .camvid import camvid
from .folder import folder
from .scenes import scenes
from .voc import voc

__all__ = ["Augmentation", "AugmentedData", "DataError", "Sample", "SegmentationData", "open_data"]
KINDS: dict[str, Callable[..., SegmentationData]] = {"scenes": scenes, "camvid": camvid, "voc": voc, "folder": folder}


def open_data(spec: str, *, split: str) -> SegmentationData:
    """The data set that `spec`, KIND or KIND:PATH, names.

    "scenes" (drawn on the fly; "scenes:train=2000,val=50" sets the number of scenes), "camvid:PATH", "voc:PATH",
    "folder:PATH"; split is "train" or "val" (camvid and folder: "test" too). Raises DataError, one line, if the
    kind, the split, the lists or any file they name is wrong; file contents are checked when they are read.
    """
    kind, _, rest = spec.partition(":")
    if kind not in KINDS:
        raise DataError(f"data: expected one of {', '.join(KINDS)}, got {spec!r}")
    if kind != "scenes" and not rest:
        raise DataError(f"data: expected {kind}:PATH, got {spec!r}")
    return KINDS[kind](rest, split=split)
