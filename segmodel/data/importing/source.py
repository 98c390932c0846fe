"""What every format of labels gives: samples, their label values, and what the values stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Value:
    """What one value of the labels stands for.

    name: of its class. keys: other texts that --map may call it by, such as "10" or "#ff0000". colour: of its class.
    unknown: what is wrong unless --map says what the value stands for; "" if nothing is.
    """

    name: str
    keys: tuple[str, ...] = ()
    colour: Colour | None = None
    ignored: bool = False
    unknown: str = ""


@dataclass(frozen=True)
class Item:
    """One sample: `name` is a path without ending below images/SPLIT, `label` whatever the format reads it from.

    split: "train", "val" or "test" if the source says so, else "".
    """

    name: str
    image: Path
    label: Any
    split: str = ""


@dataclass(frozen=True)
class Found:
    """What is known of one label value once all labels are read: its pixels, and its colour in the files' palettes."""

    pixels: int
    colour: Colour | None = None


@dataclass
class Source:
    """The samples of one format; plain attributes only, so that loader workers can pickle it.

    format: its name. notes: lines on what was left out and why. wrong: lines on labels that cannot be read, which
    are no items.
    """

    format: str
    items: list[Item] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def label(self, item: Item, size: tuple[int, int]) -> np.ndarray:
        """The label values (H, W) of a sample, int32; `size` is the (height, width) of its upright picture.

        Raises:
            DataError: the label cannot be read.
        """
        raise NotImplementedError

    def colours(self, item: Item) -> dict[int, Colour]:
        """The colours that the label's own palette gives its values, if it has one."""
        return {}

    def where(self, item: Item) -> str:
        """The file that holds the label, for messages."""
        return str(item.label)

    def values(self, found: Mapping[int, Found]) -> dict[int, Value]:
        """What the label values stand for, at least all those found, in the order of the classes to be."""
        raise NotImplementedError


def hexadecimal(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def packed(pixels: np.ndarray) -> np.ndarray:
    """Colours (..., 3) uint8 as numbers of 24 bits, int32."""
    red, green, blue = np.moveaxis(pixels.astype(np.int32), -1, 0)
    return (red << 16) | (green << 8) | blue


def unpacked(number: int) -> Colour:
    return number >> 16, number >> 8 & 255, number & 255
