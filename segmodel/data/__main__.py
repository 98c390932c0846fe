"""A look at a data set before a model is trained on it.

python -m segmodel.data check voc:VOCdevkit,sbd=benchmark_RELEASE   # reads every file once, reports what is wrong
python -m segmodel.data show cityscapes:PATH --output sheet.png     # samples before and after augmentation

Data sets: scenes, voc:PATH, voc:PATH,sbd=PATH, sbd:PATH, cityscapes:PATH, cityscapes:PATH,coarse, ade20k:PATH,
coco:PATH (also ,voc and ,trainval), camvid:PATH, folder:PATH; several of the same classes joined by +; N*KIND:PATH is
seen N times as often.
"""

import multiprocessing
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from segmodel.common import cli, options
from segmodel.common.files import output_file
from segmodel.common.labels import IGNORE
from segmodel.common.options import UserError
from segmodel.common.pictures import colourise, overlay, save_picture, sheet
from segmodel.data import Augmentation, AugmentedData, DataError, MixedData, SegmentationData, index_data, open_data
from segmodel.data.base import evenly_spaced

Examined = tuple[str, np.ndarray, tuple[int, int]]  # what is wrong, or "" with pixels of each value and height, width
_data: SegmentationData  # of a worker process


def check(arguments: Sequence[str]) -> int:
    parser = cli.Parser("data check", "Reads every image and label once and reports what is wrong, and class counts.")
    parser.add_argument("data", help="data set; python -m segmodel.data --help lists the kinds")
    parser.add_argument("--split", action="append", help="only this part (may be repeated; default: train and val)")
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="print N problems at most (default: 50)")
    parser.add_argument("--workers", type=int, default=-1, metavar="N",
                        help="processes that read (default: one less than processors, at most 8)")  # fmt: skip
    given = parser.parse_args(arguments)
    for name, least in (("limit", 0), ("workers", -1)):
        if getattr(given, name) < least:
            raise UserError(f"--{name}: expected at least {least}, got {getattr(given, name)}")
    workers = given.workers if given.workers >= 0 else min(8, (os.cpu_count() or 1) - 1)
    problems = _Problems(given.limit)
    for split in given.split or ("train", "val"):
        try:
            data = index_data(given.data, split=split)
        except DataError as error:
            print(f"{given.data}, {split}: cannot be opened")
            problems.add(*error.args)
            continue
        for part in dict.fromkeys(_parts(data)):
            _check_part(part, split, workers, problems)
    print(f"\n{problems.count} problem{'s' * (problems.count != 1)}" if problems.count else "\nnothing is wrong")
    return 2 if problems.count else 0


class _Problems:
    """Prints what is wrong, up to a limit, and counts it."""

    def __init__(self, limit: int) -> None:
        self.limit, self.count = limit, 0

    def add(self, *lines: str) -> None:
        for line in lines:
            self.count += 1
            if self.count <= self.limit:
                tqdm.write(f"  wrong: {line}")
            elif self.count == self.limit + 1:
                tqdm.write(f"  ... more than {self.limit} problems: the others are counted only (--limit)")


def _parts(data: SegmentationData) -> Iterator[SegmentationData]:
    if isinstance(data, MixedData):
        for part in data.parts:
            yield from _parts(part)
    else:
        yield data


def _check_part(data: SegmentationData, split: str, workers: int, problems: _Problems) -> None:
    print(f"\n{data.name}, {split}: {len(data)} samples, {len(data.classes)} classes")
    known = data.problems()
    problems.add(*known.values())
    indices = [index for index in range(len(data)) if index not in known]
    pixels, images, sizes = np.zeros(256, np.int64), np.zeros(256, np.int64), Counter[tuple[int, int]]()
    empty: list[int] = []
    with tqdm(total=len(indices), desc=f"{data.name}, {split}", unit="sample", disable=None) as bar:
        for index, (wrong, counts, size) in zip(indices, _examined(data, indices, workers), strict=True):
            bar.update()
            if wrong:
                problems.add(wrong)
                continue
            pixels += counts
            images += counts > 0
            sizes[size] += 1
            if not counts[:IGNORE].any():
                empty.append(index)
    if sizes:
        print(_class_table(data.classes, pixels, images))
        print(_size_line(sizes))
    if empty:
        print(f"note: nothing but ignored pixels in {len(empty)} samples, the first is number {empty[0]}")
    absent = [name for name, count in zip(data.classes, images, strict=False) if not count]
    if absent:
        masks = len(data.classes) == 2 and images[IGNORE]
        print(
            f"note: no pixel of {', '.join(absent)}"
            + "; a mask of 0 and 255? Its classes must be 0 and 1" * bool(masks)
        )


def _examined(data: SegmentationData, indices: list[int], workers: int) -> Iterator[Examined]:
    _start_worker(data)
    if workers < 1:
        yield from map(_examine, indices)
        return
    with multiprocessing.Pool(workers, initializer=_start_worker, initargs=(data, True)) as pool:
        yield from pool.imap(_examine, indices, chunksize=8)


def _start_worker(data: SegmentationData, is_process: bool = False) -> None:
    global _data
    _data = data
    if is_process:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the main process decides


def _examine(index: int) -> Examined:
    try:
        label = _data[index].label
    except DataError as error:
        return "; ".join(error.args), np.zeros(256, np.int64), (0, 0)
    return "", np.bincount(label.ravel(), minlength=256), (label.shape[0], label.shape[1])


def _class_table(classes: Sequence[str], pixels: np.ndarray, images: np.ndarray) -> str:
    width = max(len(name) for name in (*classes, "(ignored)"))
    lines = [f"{'class':<{width}}{'pixels':>16}{'share, %':>10}{'images':>9}"]
    for name, value in (*zip(classes, range(len(classes)), strict=True), ("(ignored)", IGNORE)):
        if pixels[value]:
            share = 100 * pixels[value] / pixels.sum()
            lines.append(f"{name:<{width}}{pixels[value]:>16,}{share:>10.3f}{images[value]:>9}")
    return "\n".join(lines)


def _size_line(sizes: Counter[tuple[int, int]]) -> str:
    common = ", ".join(f"{width}x{height} ({count})" for (height, width), count in sizes.most_common(5))
    heights, widths = zip(*sizes, strict=True)
    more = f" ... {len(sizes)} sizes in all, width {min(widths)}..{max(widths)}, height {min(heights)}..{max(heights)}"
    return f"width x height: {common}{more * (len(sizes) > 5)}"


def show(arguments: Sequence[str]) -> int:
    parser = cli.Parser("data show", "Draws samples and random variants of them, with their labels, on one sheet.")
    parser.add_argument("data", help="data set; python -m segmodel.data --help lists the kinds")
    parser.add_argument("--output", required=True, metavar="FILE", help="PNG file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace that file if it is there already")
    parser.add_argument("--split", default="train", help="part of the data (default: train)")
    parser.add_argument("--count", type=int, default=6, help="samples, evenly spaced (default: 6)")
    parser.add_argument("--variants", type=int, default=2, help="variants of each (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="of the variants (default: 0)")
    parser.add_argument("--width", type=int, default=320, help="largest width of a picture (default: 320)")
    options.add_flags(parser, {"augmentation": Augmentation})
    given = parser.parse_args(arguments)
    for name, least in (("count", 1), ("variants", 0), ("width", 16), ("seed", 0)):
        if getattr(given, name) < least:
            raise UserError(f"--{name}: expected at least {least}, got {getattr(given, name)}")
    output = output_file("--output", given.output, endings=(".png",), overwrite=given.overwrite)
    values = options.flag_values(given, {"augmentation": Augmentation}).get("augmentation", {})
    augmentation = options.build(Augmentation, values)
    data = open_data(given.data, split=given.split)
    augmented = AugmentedData(data, augmentation, seed=given.seed)
    rows, seen = [], set[int]()
    for index in evenly_spaced(len(data), given.count):
        samples = [data[index], *(augmented[epoch, index] for epoch in range(given.variants))]
        seen.update(*(np.unique(sample.label).tolist() for sample in samples))
        drawn = [(sample.image, overlay(sample.image, sample.label, data.palette)) for sample in samples]
        rows.append([_fitted(picture, given.width) for pair in drawn for picture in pair])
    rows.append([_legend(data, seen, width=sum(picture.shape[1] for picture in rows[0]))])
    try:
        save_picture(output, sheet(rows))
    except OSError as error:
        raise UserError(f"--output: {given.output}: cannot be written ({error.strerror})") from error
    print(f"{given.data}, {given.split}: {len(rows) - 1} of {len(data)} samples, each with {given.variants} variants, "
          f"in {given.output}")  # fmt: skip
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
    parser = cli.Parser("data", __doc__ or "")
    parser.add_argument("command", choices=COMMANDS, help="each has a --help of its own")
    return COMMANDS[parser.parse_args(arguments[:1]).command](arguments[1:])


if __name__ == "__main__":
    sys.exit(cli.run("data", main))
