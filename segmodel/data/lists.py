"""Lists of image and label files, and where the listed files may lie."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from segmodel.common.errors import DataError, one_line
from segmodel.common.reading import limit, read_text


@dataclass(frozen=True)
class Pair:
    """The files of one sample; `where` names the line of the list they come from."""

    image: Path
    label: Path
    name: str
    where: str


def misplaced(root: Path, paths: Sequence[Path]) -> dict[int, str]:
    """Files that are missing, or outside the root once links are followed: index -> one line.

    The root itself may be a link. A link within it that leads out of it is an error unless SEGMODEL_FOLLOW_LINKS is 1:
    a downloaded list or archive must not decide which other files of this machine are read.
    """
    real_root, real_folders, wrong = root.resolve(), dict[Path, Path](), dict[int, str]()
    follow = limit("SEGMODEL_FOLLOW_LINKS")
    for index, path in enumerate(paths):
        if not os.path.isfile(path):  # unlike the path's own methods it never raises, whatever the name
            wrong[index] = f"no such file: {path}"
        elif not follow:
            if path.parent not in real_folders:
                real_folders[path.parent] = path.parent.resolve()
            real = path.resolve() if os.path.islink(path) else real_folders[path.parent]
            if not real.is_relative_to(real_root):
                wrong[index] = (
                    f"expected a path inside {root}, got a link out of it: {path} (SEGMODEL_FOLLOW_LINKS=1 allows that)"
                )
    return wrong


def existing_folder(path: str | Path, what: str) -> Path:
    """The path of a folder that exists; `what` opens the message if it does not."""
    if not os.path.isdir(path):  # unlike the path's own methods these never raise, whatever the name
        raise DataError(f"{what}: expected a folder, got {path} ({'a file' if os.path.exists(path) else 'missing'})")
    return Path(path)


def read_lines(path: Path, *, fields: int, expected: str) -> list[tuple[str, list[str]]]:
    """File and line number (as a text), and the fields of each line of a list; empty lines are left out.

    fields: their number in a line. expected: what they are, for messages.
    """
    try:
        lines = read_text(path, most="SEGMODEL_MAX_LIST_BYTES", encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file (a list of {expected})") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {one_line(error)}") from error
    rows = [(f"{path}, line {number}", line.split()) for number, line in enumerate(lines, start=1) if line.strip()]
    wrong = [f"{where}: expected {expected}, got {' '.join(row)!r:.200}" for where, row in rows if len(row) != fields]
    if not rows:
        wrong = [f"{path}: expected at least one line ({expected}), got an empty list"]
    if wrong:
        raise DataError(*wrong)
    return rows


def inside(root: Path, entry: str, where: str) -> Path:
    """The path that an entry of a list names, which must lie in the root (`misplaced` also follows links)."""
    path = Path(entry)
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise DataError(f"{where}: expected a path inside {root}, got {entry!r:.200}")
    return root / path


def read_pairs(list_path: Path, root: Path) -> list[Pair]:
    """Pairs from a list of IMAGE LABEL lines.

    Of an absolute entry such as /SegNet/CamVid/train/a.png, written on another machine, the last two parts, folder and
    file, are taken below the root. Samples are named after their image files; if two images of the list share a
    name, by their paths below the root, with the endings where those too are needed.
    """
    files: list[tuple[Path, Path, str]] = []
    for where, entries in read_lines(list_path, fields=2, expected="IMAGE LABEL"):
        image, label = ("/".join(Path(e).parts[1:][-2:]) if os.path.isabs(e) else e for e in entries)
        files.append((inside(root, image, where), inside(root, label, where), where))
    ways: tuple[Callable[[Path], str], ...] = (
        lambda image: image.stem,
        lambda image: image.relative_to(root).with_suffix("").as_posix(),
        lambda image: image.relative_to(root).as_posix(),
    )
    different = len({image for image, _, _ in files})
    tried = ([way(image) for image, _, _ in files] for way in ways)
    names = next(found for found in tried if len(set(found)) == different)
    return [Pair(image, label, name, where) for (image, label, where), name in zip(files, names, strict=True)]
