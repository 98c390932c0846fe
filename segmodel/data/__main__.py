"""Makes, checks and shows a data set before a model is trained on it.

python -m segmodel.data import photos/ masks/ --output mine         # from what annotation tools write
python -m segmodel.data check voc:VOCdevkit,sbd=benchmark_RELEASE   # reads every file once, reports what is wrong
python -m segmodel.data show cityscapes:PATH --output sheet.png     # samples before and after augmentation
"""

import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from tqdm import tqdm

from segmodel.common import cli, options
from segmodel.common.errors import printable
from segmodel.common.files import output_file, writing
from segmodel.common.labels import IGNORE, is_background
from segmodel.common.options import Section, UserError, option
from segmodel.common.pictures import legend, overlay, reduced, save_picture, sheet
from segmodel.common.tables import Table
from segmodel.common.terminal import say
from segmodel.data import USAGE, Augmentation, AugmentedData, DataError, SegmentationData, index_data, open_data
from segmodel.data.base import evenly_spaced
from segmodel.data.content import Content, label_counts
from segmodel.data.folder import __doc__ as FOLDER
from segmodel.data.importing import command as importing
from segmodel.data.loading import loaded


@dataclass(frozen=True)
class CheckOptions(Section):
    """Options of `check`."""

    split: tuple[str, ...] = option(("train", "val"), "only these parts of the data, such as train,val")
    allow_absent: bool = option(False, "classes without a pixel, or one class a label map, are no problem")
    problems: int = option(50, "print at most so many problems", at_least=0)
    workers: int = option(-1, "processes that read; -1: one less than processors, at most 8", at_least=-1, at_most=256)


@dataclass(frozen=True)
class ShowOptions(Section):
    """Options of `show`."""

    split: str = option("train", "part of the data")
    images: int = option(6, "samples, evenly spaced", at_least=1, at_most=10**4)
    variants: int = option(2, "random variants of each", at_least=0, at_most=100)
    seed: int = option(0, "of the variants", at_least=0)
    width: int = option(320, "largest width of a picture", at_least=16, at_most=10**4)


def check(arguments: Sequence[str]) -> int:
    parser = cli.Parser("data check", "Reads every image and label once and reports what is wrong, and class counts.")
    parser.add_argument("data", help="data set; python -m segmodel.data --help lists the kinds")
    options.add_flags(parser, {"check": CheckOptions})
    given = parser.parse_args(arguments)
    chosen = options.from_flags(given, CheckOptions)
    problems = _Problems(chosen.problems)
    advice = dict[str, None]()
    for split in chosen.split:
        try:
            data = index_data(given.data, split=split)
        except DataError as error:
            say(f"{given.data}, {split}: cannot be opened")
            problems.add(*error.args)
            advice[error.advice] = None
            continue
        content = Content()
        for source in dict.fromkeys(data.sources()):
            content.join(_check_source(source, split, chosen.workers, problems))
        _check_content(data, split, content, problems, allowed=chosen.allow_absent)
    for text in filter(None, advice):
        say("", *text.split("\n"))
    say("", f"{problems.count} problem{'s' * (problems.count != 1)}" if problems.count else "nothing is wrong")
    return 2 if problems.count else 0


class _Problems:
    """Counts problems and prints the first `most`."""

    def __init__(self, most: int) -> None:
        self.most, self.count = most, 0

    def add(self, *lines: str) -> None:
        for line in lines:
            self.count += 1
            if self.count <= self.most:
                say(f"  wrong: {line}")
            elif self.count == self.most + 1:
                say(f"  ... more than {self.most} problems: the others are only counted (--problems)")


def _look(data: SegmentationData, index: int) -> tuple[np.ndarray, tuple[int, ...], str]:
    """Pixels of each label value, (256,), (height, width), and what has been turned, of a sample."""
    sample = data[index]
    return label_counts(sample.label), sample.label.shape, sample.turned


def _check_source(data: SegmentationData, split: str, workers: int, problems: _Problems) -> Content:
    say("", f"{data.name}, {split}: {len(data)} samples, {len(data.classes)} classes")
    for note in data.notes:
        say(f"note: {note}")
    known = data.problems()
    problems.add(*known.values())
    indices = [index for index in range(len(data)) if index not in known]
    content, sizes = Content(), Counter[tuple[int, ...]]()
    special: dict[str, list[int]] = {"empty": [], "single": [], "image": [], "both": []}
    found = loaded(partial(_look, data), indices, workers=workers)
    bar = tqdm(found, total=len(indices), desc=printable(f"{data.name}, {split}"), unit="sample", disable=None)
    for index, item in zip(indices, bar, strict=True):
        if isinstance(item, DataError):
            problems.add("; ".join(item.args))
            continue
        counts, size, turned = item
        content.add(counts)
        sizes[size] += 1
        classes = int(np.count_nonzero(counts[:IGNORE]))
        for kind in ({0: "empty", 1: "single"}.get(classes), turned):
            if kind:
                special[kind].append(index)
    if sizes:
        say(_class_table(data.classes, content.pixels, content.images, note=_size_line(sizes)))
    words = {
        "empty": "nothing but ignored pixels in",
        "single": "one class alone in the label maps of",
        "image": "turned upright, as the EXIF orientation says, with labels taken as drawn on the upright picture:",
        "both": "turned upright with their labels, which have the size of the picture as stored:",
    }
    for kind, indices in special.items():
        if indices:
            say(f"note: {words[kind]} {len(indices)} samples, the first is number {indices[0]}")
    return content


def _check_content(data: SegmentationData, split: str, content: Content, problems: _Problems, *, allowed: bool) -> None:
    """What keeps a model from learning is wrong in train, unless it is allowed; a mask's 255 is so everywhere."""
    if split == "train" or content.is_ignored_mask():
        for line in content.faults(data.classes) if content.maps else []:
            if allowed:
                say(f"note: {line}")
            else:
                problems.add(f"{data.name}, {split}: {line} (--allow-absent if that is meant)")
    elif absent := content.absent(data.classes):
        say(f"note: no pixel of {', '.join(absent)}")


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
    numbers = range(1, chosen.variants + 1)
    titles = ["image", "labels", *(f"variant {number}{part}" for number in numbers for part in ("", ", labels"))]
    rows, seen = [], set[int]()
    for index in evenly_spaced(len(data), chosen.images):
        samples = [data[index], *(augmented[epoch, index] for epoch in range(chosen.variants))]
        seen.update(*(np.unique(sample.label).tolist() for sample in samples))
        laid = partial(overlay, palette=data.palette, classes=data.classes)
        drawn = [picture for sample in samples for picture in (sample.image, laid(sample.image, sample.label))]
        rows.append([reduced(picture, 4 * chosen.width, widest=chosen.width) for picture in drawn])
    names = [f"{name} (clear)" if is_background(name) else name for name in data.classes]
    key = legend(seen, names, data.palette, width=sum(picture.shape[1] for picture in rows[0]))
    with writing("--output", output):
        save_picture(output, sheet(rows, headings=titles, legend=key))
    count = f"{len(rows)} of {len(data)} samples, each with {chosen.variants} variants"
    say(f"{given.data}, {chosen.split}: {count}, in {given.output}")
    return 0


Command = Callable[[Sequence[str]], int]
COMMANDS: dict[str, Command] = {"check": check, "show": show, "import": partial(importing.main, show=show)}


def main(arguments: Sequence[str]) -> int:
    if [text.partition("=")[0] for text in arguments].count("--split") > 1:
        raise UserError("--split: expected once, with a list such as train,val, got it twice")
    mixes = "several of the same classes are joined by +; N*KIND:PATH is seen N times as often."
    parser = cli.Parser("data", f"{__doc__}\n{textwrap.fill(f'Data sets: {USAGE}; {mixes}', 100)}\n\n{FOLDER}")
    parser.add_argument("command", choices=COMMANDS, help="each has a --help of its own")
    return COMMANDS[parser.parse_args(arguments[:1]).command](arguments[1:])


if __name__ == "__main__":
    sys.exit(cli.run("data", main))
