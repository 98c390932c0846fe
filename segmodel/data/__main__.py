"""Checks and shows a data set before a model is trained on it.

python -m segmodel.data check voc:VOCdevkit,sbd=benchmark_RELEASE   # reads every file once, reports what is wrong
python -m segmodel.data show cityscapes:PATH --output sheet.png     # samples before and after augmentation
"""

import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from segmodel.common import cli, options
from segmodel.common.files import output_file
from segmodel.common.labels import IGNORE
from segmodel.common.options import Section, UserError, option
from segmodel.common.pictures import colourise, overlay, save_picture, sheet
from segmodel.common.tables import Table
from segmodel.data import USAGE, Augmentation, AugmentedData, DataError, SegmentationData, index_data, open_data
from segmodel.data.base import evenly_spaced
from segmodel.data.loading import loaded


@dataclass(frozen=True)
class CheckOptions(Section):
    """Options of `check`."""

    split: tuple[str, ...] = option(("train", "val"), "only these parts of the data, such as train,val")
    problems: int = option(50, "print at most so many problems", at_least=0)
    workers: int = option(-1, "processes that read; -1: one less than processors, at most 8", at_least=-1)


@dataclass(frozen=True)
class ShowOptions(Section):
    """Options of `show`."""

    split: str = option("train", "part of the data")
    images: int = option(6, "samples, evenly spaced", at_least=1)
    variants: int = option(2, "random variants of each", at_least=0)
    seed: int = option(0, "of the variants", at_least=0)
    width: int = option(320, "largest width of a picture", at_least=16)


def check(arguments: Sequence[str]) -> int:
    parser = cli.Parser("data check", "Reads every image and label once and reports what is wrong, and class counts.")
    parser.add_argument("data", help="data set; python -m segmodel.data --help lists the kinds")
    options.add_flags(parser, {"check": CheckOptions})
    given = parser.parse_args(arguments)
    chosen = options.from_flags(given, CheckOptions)
    problems = _Problems(chosen.problems)
    for split in chosen.split:
        try:
            data = index_data(given.data, split=split)
        except DataError as error:
            print(f"{given.data}, {split}: cannot be opened")
            problems.add(*error.args)
            continue
        for source in dict.fromkeys(data.sources()):
            _check_source(source, split, chosen.workers, problems)
    print(f"\n{problems.count} problem{'s' * (problems.count != 1)}" if problems.count else "\nnothing is wrong")
    return 2 if problems.count else 0


class _Problems:
    """Counts problems and prints the first `most`."""

    def __init__(self, most: int) -> None:
        self.most, self.count = most, 0

    def add(self, *lines: str) -> None:
        for line in lines:
            self.count += 1
            if self.count <= self.most:
                tqdm.write(f"  wrong: {line}")
            elif self.count == self.most + 1:
                tqdm.write(f"  ... more than {self.most} problems: the others are only counted (--problems)")


def _label_counts(data: SegmentationData, index: int) -> tuple[np.ndarray, tuple[int, ...]]:
    """Pixels of each label value, (256,), and (height, width) of a sample."""
    label = data[index].label
    return np.bincount(label.ravel(), minlength=256), label.shape


def _check_source(data: SegmentationData, split: str, workers: int, problems: _Problems) -> None:
    print(f"\n{data.name}, {split}: {len(data)} samples, {len(data.classes)} classes")
    known = data.problems()
    problems.add(*known.values())
    indices = [index for index in range(len(data)) if index not in known]
    pixels, images, sizes = np.zeros(256, np.int64), np.zeros(256, np.int64), Counter[tuple[int, ...]]()
    empty: list[int] = []
    found = loaded(partial(_label_counts, data), indices, workers=workers)
    bar = tqdm(found, total=len(indices), desc=f"{data.name}, {split}", unit="sample", disable=None)
    for index, item in zip(indices, bar, strict=True):
        if isinstance(item, DataError):
            problems.add("; ".join(item.args))
            continue
        counts, size = item
        pixels += counts
        images += counts > 0
        sizes[size] += 1
        if not counts[:IGNORE].any():
            empty.append(index)
    if sizes:
        print(_class_table(data.classes, pixels, images, note=_size_line(sizes)).text())
    if empty:
        print(f"note: nothing but ignored pixels in {len(empty)} samples, the first is number {empty[0]}")
    absent = [name for name, count in zip(data.classes, images, strict=False) if not count]
    if absent:
        is_mask = len(data.classes) == 2 and images[IGNORE]
        hint = "; a mask of 0 and 255? Its classes must be 0 and 1" if is_mask else ""
        print(f"note: no pixel of {', '.join(absent)}{hint}")


def _class_table(classes: Sequence[str], pixels: np.ndarray, images: np.ndarray, note: str) -> Table:
    rows = [
        (name, f"{pixels[value]:,}", f"{100 * pixels[value] / pixels.sum():.3f}", images[value])
        for value, name in (*enumerate(classes), (IGNORE, "(ignored)"))
        if pixels[value]
    ]
    return Table("pixels of each class, and images that show it", ("class", "pixels", "share, %", "images"), rows, note)


def _size_line(sizes: Counter[tuple[int, ...]]) -> str:
    common = ", ".join(f"{width}x{height} ({count})" for (height, width), count in sizes.most_common(5))
    heights, widths = zip(*sizes, strict=True)
    more = f" ... {len(sizes)} sizes in all, width {min(widths)}..{max(widths)}, height {min(heights)}..{max(heights)}"
    return f"width x height: {common}{more * (len(sizes) > 5)}"


def show(arguments: Sequence[str]) -> int:
    parser = cli.Parser("data show", "Draws samples and random variants of them, with their labels, on one sheet.")
    parser.add_argument("data", help="data set; python -m segmodel.data --help lists the kinds")
    parser.add_argument("--output", required=True, metavar="FILE", help="PNG file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace that file if it exists")
    options.add_flags(parser, {"show": ShowOptions, "augmentation": Augmentation})
    given = parser.parse_args(arguments)
    chosen = options.from_flags(given, ShowOptions)
    augmentation = options.from_flags(given, Augmentation)
    output = output_file("--output", given.output, endings=(".png",), overwrite=given.overwrite)
    data = open_data(given.data, split=chosen.split)
    augmented = AugmentedData(data, augmentation, seed=chosen.seed)
    rows, seen = [], set[int]()
    for index in evenly_spaced(len(data), chosen.images):
        samples = [data[index], *(augmented[epoch, index] for epoch in range(chosen.variants))]
        seen.update(*(np.unique(sample.label).tolist() for sample in samples))
        drawn = [(sample.image, overlay(sample.image, sample.label, data.palette)) for sample in samples]
        rows.append([_fitted(picture, chosen.width) for pair in drawn for picture in pair])
    rows.append([_legend(data, seen, width=sum(picture.shape[1] for picture in rows[0]))])
    try:
        save_picture(output, sheet(rows))
    except OSError as error:
        raise UserError(f"--output: {given.output}: cannot be written ({error.strerror})") from error
    count = f"{len(rows) - 1} of {len(data)} samples, each with {chosen.variants} variants"
    print(f"{given.data}, {chosen.split}: {count}, in {given.output}")
    return 0


def _fitted(picture: np.ndarray, width: int) -> np.ndarray:
    image = Image.fromarray(picture)
    image.thumbnail((width, 4 * width), Image.Resampling.BOX)
    return np.asarray(image)


def _legend(data: SegmentationData, seen: set[int], *, width: int) -> np.ndarray:
    """Colours and names of the classes that occur, in columns of 160 pixels."""
    columns, line = max(1, width // 160), 18
    names = [(value, "(ignored)" if value == IGNORE else data.classes[value]) for value in sorted(seen)]
    legend = Image.new("RGB", (max(width, 160), line * (1 + (len(names) - 1) // columns)), "white")
    pen = ImageDraw.Draw(legend)
    for place, (value, name) in enumerate(names):
        x, y = 160 * (place % columns), line * (place // columns)
        colour = tuple(colourise(np.array([[value]]), data.palette)[0, 0].tolist())
        pen.rectangle((x + 2, y + 2, x + 14, y + 14), fill=colour, outline="black")
        pen.text((x + 20, y + 2), name, fill="black")
    return np.asarray(legend)


COMMANDS = {"check": check, "show": show}


def main(arguments: Sequence[str]) -> int:
    if [text.partition("=")[0] for text in arguments].count("--split") > 1:
        raise UserError("--split: expected once, with a list such as train,val, got it twice")
    mixes = "several of the same classes are joined by +; N*KIND:PATH is seen N times as often."
    parser = cli.Parser("data", f"{__doc__}\n{textwrap.fill(f'Data sets: {USAGE}; {mixes}', 100)}")
    parser.add_argument("command", choices=COMMANDS, help="each has a --help of its own")
    return COMMANDS[parser.parse_args(arguments[:1]).command](arguments[1:])


if __name__ == "__main__":
    sys.exit(cli.run("data", main))
