"""Makes a data set of one's own pictures, ready to train on, of what annotation tools write.

python -m segmodel.data import SOURCE... --output mine     # SOURCE: a folder, a .zip, or a file of annotations
python -m segmodel.data import masks/ photos/ --output mine --map "10=road,11=road,255=ignore"

Pictures and labels may lie anywhere below the sources: they are paired by name (a.jpg and a_mask.png, images/a.jpg and
labels/a.png, ...), and what has no partner, or several, is listed. Nothing of a source is changed. --output becomes

    images/train/*  labels/train/*.png  images/val/*  labels/val/*.png  classes.toml  sheet.png (look at it)

Formats: FORMATS
What no shape of labelme, YOLO or COCO covers is background. Where shapes overlap, labelme's later one lies on top; of
YOLO and COCO the one of fewer pixels. A class without a pixel is left out. Train and val are those of the source, by
folders or lists of these names, if it has both; else a share is held out, by seed.

Pictures are copied byte by byte. One with an EXIF orientation is turned upright and saved again: JPEG with quality 95,
others without loss. Its label is taken as it is if it has the size of the upright picture; else it is turned too.
"""

from __future__ import annotations

import posixpath
import shutil
import textwrap
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from segmodel.common import cli, options
from segmodel.common.errors import DataError, UserError, one_line
from segmodel.common.files import PARTIAL, replacing_folder
from segmodel.common.labels import IGNORE
from segmodel.common.locks import LOCK
from segmodel.common.options import Section, option
from segmodel.common.reading import limit, open_file
from segmodel.common.tables import Table
from segmodel.common.terminal import say
from segmodel.data.folder import SPLITS
from segmodel.data.importing.classes import Classes, decide, mapped_colours, read_map
from segmodel.data.importing.formats import FORMATS, open_source
from segmodel.data.importing.source import Found, Item, Source, hexadecimal
from segmodel.data.importing.splits import held_out, listed_splits, tree_splits
from segmodel.data.importing.tree import Tree, listed
from segmodel.data.importing.write import Looked, each, look, written

SHOWN = 20  # problems that are printed
ODD_PICTURES = (".heic", ".heif", ".avif", ".svg", ".psd", ".cr2", ".nef", ".dng", ".arw")


@dataclass(frozen=True)
class ImportOptions(Section):
    """Options of `import`."""

    format: str = option("auto", "of the labels, if not found out", choices=("auto", *FORMATS))
    map: str = option("", "renames, merges, ignores: KEY=CLASS,...; KEY: a number, #rrggbb, a name, or * (others)")
    val_share: float = option(0.2, "share of the samples that is held out", at_least=0, below=1)
    seed: int = option(0, "of the choice of these", at_least=0)
    train_list: str = option("", "file of names, one a line, that train")
    val_list: str = option("", "file of names, one a line, that are held out")
    label_suffix: str = option("", "what the names of labels end in, if not _mask, _gt, _labelIds and the like")
    labels_drawn_on: str = option(
        "auto",
        "on the upright picture, or on the pixels as stored",
        choices=("auto", "upright", "stored"),
    )
    nearest: bool = option(False, "labels saved with loss: each pixel is the nearest of the known colours, or 0 or 255")
    keep_absent: bool = option(False, "keep classes without a pixel")
    skip_bad: bool = option(False, "leave out samples that cannot be read, instead of stopping")
    workers: int = option(-1, "processes that read; -1: one less than processors, at most 8", at_least=-1, at_most=256)


def main(arguments: Sequence[str], *, show: Callable[[Sequence[str]], int]) -> int:
    """The command; `show` is that of the sheet of pictures."""
    formats = "; ".join(f"{name} ({what})" for name, what in FORMATS.items())
    text = str(__doc__).replace("Formats: FORMATS", textwrap.fill(f"Formats, found out or named: {formats}.", 100))
    parser = cli.Parser("data import", text)
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="folder, .zip or file with pictures or labels")
    parser.add_argument("--output", required=True, metavar="DIR", help="the data set, a new or empty folder")
    parser.add_argument("--overwrite", action="store_true", help="replace a data set that is there")
    options.add_flags(parser, {"import": ImportOptions})
    given = parser.parse_args(arguments)
    chosen, output = options.from_flags(given, ImportOptions), Path(given.output)
    mapping = read_map(chosen.map)
    sources = [_existing(text) for text in given.sources]
    _check_output(output, sources, given.overwrite)
    with replacing_folder("--output", output) as folder, _unpacked(sources, folder / ".unpacked") as roots:
        scratch = folder / ".unpacked" / "pictures"
        tree = Tree(roots, suffix=chosen.label_suffix, without=output, scratch=scratch)
        _write(tree, chosen, mapping, folder)
    show([f"folder:{output}", "--output", str(output / "sheet.png"), "--variants", "0", "--images", "8"])
    say("", f"{output} is ready; next:", f"  python -m segmodel.data check folder:{output}",
        f"  python -m segmodel.train --recipe small --data folder:{output}")  # fmt: skip
    return 0


def _existing(text: str) -> Path:
    if not Path(text).exists():
        raise UserError(f"SOURCE: {text}: no such file or folder")
    return Path(text)


def _check_output(output: Path, sources: Sequence[Path], overwrite: bool) -> None:
    if output.exists() and not output.is_dir():
        raise UserError(f"--output: expected a folder, got the file {output}")
    if any(source.resolve().is_relative_to(output.resolve()) for source in sources):
        raise UserError(f"--output: {output}: holds a source; sources are never changed")
    there = {path.name for path in output.iterdir()} if output.is_dir() else set[str]()
    there = {name for name in there if not name.endswith((LOCK, PARTIAL))}  # left by a command that was killed
    if there and not overwrite:
        raise UserError(f"{output}: exists already (--overwrite replaces it)")
    if strange := sorted(there - OWN):
        raise UserError(f"--overwrite: {output}: expected nothing but {', '.join(sorted(OWN))}, got {strange[0]}")


OWN = {"images", "labels", "classes.toml", "sheet.png"}  # all that the folder holds


@contextmanager
def _unpacked(sources: Sequence[Path], scratch: Path) -> Iterator[list[Path]]:
    """The sources, with a folder in the place of each .zip; they are gone afterwards."""
    roots = []
    try:
        for number, source in enumerate(sources):
            if source.suffix.lower() != ".zip" or source.is_dir():
                roots.append(source)
                continue
            roots.append(scratch / str(number) / source.stem)
            try:
                with open_file(source, most="SEGMODEL_MAX_ARCHIVE_BYTES") as file, zipfile.ZipFile(file) as archive:
                    _check_archive(archive, scratch)
                    archive.extractall(roots[-1])
            except Exception as error:  # each way of packing has its own; the user needs one line
                raise DataError(f"{source}: cannot be unpacked: {one_line(error)}") from error
        yield roots
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _check_archive(archive: zipfile.ZipFile, scratch: Path) -> None:
    """ValueError if it holds more than the limits say, or than the disk has room for; no more bytes than it names of a
    file are ever unpacked."""
    entries = archive.infolist()
    size, most = sum(entry.file_size for entry in entries), limit("SEGMODEL_MAX_ARCHIVE_BYTES")
    if len(entries) > limit("SEGMODEL_MAX_ARCHIVE_FILES"):
        raise ValueError(f"expected at most {limit('SEGMODEL_MAX_ARCHIVE_FILES')} files (SEGMODEL_MAX_ARCHIVE_FILES), "
                         f"got {len(entries)}")  # fmt: skip
    if size > most:
        raise ValueError(f"expected at most {most} bytes unpacked (SEGMODEL_MAX_ARCHIVE_BYTES), got {size}")
    place = next(folder for folder in scratch.absolute().parents if folder.is_dir())
    if size > (free := shutil.disk_usage(place).free):
        raise ValueError(f"unpacked it takes {size} bytes, and {place} has room for {free}")


def _write(tree: Tree, chosen: ImportOptions, mapping: dict[str, str], folder: Path) -> None:
    try:
        known = mapped_colours(mapping)
        source = open_source(tree, chosen.format, nearest=chosen.nearest, skip_bad=chosen.skip_bad, known=known)
    except DataError as error:
        raise _stopped(error.args, "") from error
    items, looks = _looked(source, chosen)
    odd = [file.path for file in tree.ending(*ODD_PICTURES)]
    notes = [*tree.notes, *source.notes, *([listed("pictures to save as JPEG or PNG first", odd)] if odd else [])]
    found = _merged(items, looks)
    classes = decide(source.values(found), found, mapping, keep_absent=chosen.keep_absent)
    splits, how = _splits(tree, chosen, items, looks, classes)
    left_out = [item.name for item, split in zip(items, splits, strict=True) if not split]
    notes += [listed("samples in no list or folder of train, val or test", left_out)] if left_out else []
    notes += (
        [f"classes without a pixel, left out (--keep-absent): {', '.join(classes.absent)}"] if classes.absent else []
    )
    unnamed = [text for name, text in zip(classes.names, classes.sources, strict=True) if name == f"class_{text}"]
    if unnamed:
        told = ",".join(f"{text}=NAME" for text in unnamed[:3]) + ",..." * (len(unnamed) > 3)
        notes.append(f'--map "{told}", or a classes.txt with a name a line, gives classes their names')
    turned = sum(look.orientation > 1 for look in looks)
    notes += [f"pictures with an EXIF orientation, now upright: {turned}"] if turned else []
    work = [(item, split, name) for item, split, name in _named(items, splits) if split]
    write = partial(written, source, chosen.labels_drawn_on, classes, folder)
    counts = {split: np.zeros((0, IGNORE + 1), np.int64) for split in SPLITS}
    results = each(write, work, workers=chosen.workers, title="written")
    for (_, split, _), result in zip(work, results, strict=True):
        if isinstance(result, DataError):  # it could be read a moment ago
            raise result
        counts[split] = np.concatenate([counts[split], result[None]])
    classes.write(folder / "classes.toml")
    sizes = ", ".join(f"{len(rows)} {split}" for split, rows in counts.items() if len(rows))
    say(f"{source.format}: {len(work)} samples: {sizes} ({how})")
    for note in notes:
        say(f"note: {note}")
    say("", _table(classes, counts), "")


def _looked(source: Source, chosen: ImportOptions) -> tuple[list[Item], list[Looked]]:
    """The samples that can be read, and what they hold."""
    results = list(
        each(partial(look, source, chosen.labels_drawn_on), source.items, workers=chosen.workers, title="read")
    )
    wrong = [*source.wrong, *(line for result in results if isinstance(result, DataError) for line in result.args)]
    if wrong and not chosen.skip_bad:
        raise _stopped(wrong, f" of {len(source.items) + len(source.wrong)} samples (--skip-bad leaves them out)")
    source.notes += [listed("samples that cannot be read", wrong)] if wrong else []
    good = [(item, result) for item, result in zip(source.items, results, strict=True) if isinstance(result, Looked)]
    if not good:
        raise _stopped(wrong, " and no good sample")
    return [item for item, _ in good], [result for _, result in good]


def _stopped(wrong: Sequence[str], what: str) -> DataError:
    """Prints what is wrong; the error is the one line, or their number."""
    if len(wrong) == 1:
        return DataError(wrong[0])
    for line in wrong[:SHOWN]:
        say(f"  wrong: {line}")
    return DataError(f"{len(wrong)} problems{what}, the first: {wrong[0]}")


def _merged(items: Sequence[Item], looks: Sequence[Looked]) -> dict[int, Found]:
    """What all samples together hold.

    Raises:
        DataError: two palettes give the same number different colours.
    """
    found: dict[int, Found] = {}
    first: dict[int, Item] = {}
    for item, looked in zip(items, looks, strict=True):
        for number, one in looked.found.items():
            before = found.setdefault(number, replace(one, pixels=0))
            if before.colour != one.colour and before.colour and one.colour:
                raise DataError(
                    f"label value {number}: is {hexadecimal(before.colour)} in the palette of {first[number].label}, "
                    f"{hexadecimal(one.colour)} in that of {item.label} (--format colours takes the colours)"
                )
            first.setdefault(number, item)
            found[number] = Found(before.pixels + one.pixels, before.colour or one.colour)
    return found


def _splits(
    tree: Tree, chosen: ImportOptions, items: Sequence[Item], looks: Sequence[Looked], classes: Classes
) -> tuple[list[str], str]:
    """The split of each sample, "" if it is in none, and how it was found."""
    if chosen.train_list or chosen.val_list:
        return listed_splits(items, chosen.train_list, chosen.val_list), "by lists"
    said = tree_splits(tree, items)
    if any(said):
        return said, "as the source has them"
    shown = [frozenset(classes.targets[number] for number in look.found) - {IGNORE} for look in looks]
    return held_out(shown, share=chosen.val_share, seed=chosen.seed), f"by seed {chosen.seed}"


def _named(items: Sequence[Item], splits: Sequence[str]) -> Iterator[tuple[Item, str, str]]:
    """Samples with names of their own, without folders that all are in; the second of a name becomes NAME_2."""
    used: Counter[tuple[str, str]] = Counter()
    folders = posixpath.commonpath([f"/{posixpath.dirname(item.name)}" for item in items]).strip("/")
    for item, split in zip(items, splits, strict=True):
        first = name = item.name[len(folders) :].lstrip("/")
        number = 1
        while used[split, name.casefold()]:
            number += 1
            name = f"{first}_{number}"
        used[split, name.casefold()] += 1
        yield item, split, name


def _table(classes: Classes, counts: dict[str, np.ndarray]) -> Table:
    pixels = sum(rows.sum(0) for rows in counts.values())
    total = int(np.sum(pixels))
    shown = {split: rows for split, rows in counts.items() if len(rows)}
    rows = [
        (name, source, f"{pixels[value]:,}", f"{100 * pixels[value] / total:.3f}",
         *((split[:, value] > 0).sum() for split in shown.values()))
        for value, name, source in [*zip(range(IGNORE), classes.names, classes.sources, strict=False),
                                    (IGNORE, "(ignored)", "")]
    ]  # fmt: skip
    head = ("class", "from", "pixels", "share, %", *(f"{split} images" for split in shown))
    return Table("pixels of each class, and images that show it", head, rows)
