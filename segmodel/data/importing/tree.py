"""Finds the files of the sources, and pairs pictures with their labels by name.

A name is compared without its ending, without words such as `_mask` or `_leftImg8bit` at its end (or start), and
without regard to case; of the folders it lies in, those called images, labels, masks and the like do not count. Files
of one source that agree in all this are a pair; then files of different sources, then files whose own names agree.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segmodel.common.errors import DataError
from segmodel.common.reading import open_file
from segmodel.data.images import has_picture_name, picture_endings, read_image
from segmodel.data.lists import misplaced

LABEL_WORDS = (
    "mask", "masks", "gt", "label", "labels", "labelids", "labeltrainids", "seg", "segs", "segmentation",
    "segmentations", "segmentationclass", "segmentationclassaug", "annot", "annots", "annotation", "annotations", "ann",
    "anns", "lbl", "lbls", "truth", "groundtruth", "target", "targets", "cls", "gtfine", "gtcoarse",
)  # fmt: skip
IMAGE_WORDS = (
    "image", "images", "img", "imgs", "jpegimages", "photo", "photos", "picture", "pictures", "rgb", "sat", "input",
    "inputs", "leftimg8bit", "original", "originals",
)  # fmt: skip
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_SKIPPED_FOLDERS = {
    "__macosx", "segmentationobject", "segmentationclassvisualization", "visualization", "visualisation", "overlay",
    "overlays", "preview", "previews", "vis", "viz", "inst",
}  # fmt: skip
_SKIPPED_NAMES = re.compile(r"[_\-.](gt(fine|coarse)_(color|instanceids|instancetrainids)|vis|viz|overlay|preview)$")
_ALL = "|".join(sorted((*LABEL_WORDS, *IMAGE_WORDS), key=len, reverse=True))
_SPLIT_WORDS = "|".join(sorted(SPLITS, key=len, reverse=True))
_WORD = re.compile(rf"({_SPLIT_WORDS})?({_ALL})")  # such as labels or trainannot
_AT_END = re.compile(rf"(.*?)((?:(?:^|[_\-. ]+)(?:{_ALL}|fuse|l))+)", re.IGNORECASE)  # CamVid: _L, Supervisely: ___fuse
_AT_START = re.compile(rf"((?:(?:{_ALL})[_\-. ]+)+)(.+)")
_SPLIT = re.compile(rf"({_SPLIT_WORDS})(?:\d{{4}}|{_ALL}|$)")
_SPLIT_FOLDER = re.compile(rf"({_SPLIT_WORDS})(\d{{4}})?")
_PARTS = re.compile(r"[_\-. ]+")


@dataclass(frozen=True)
class File:
    """A file of a source; `folders` are those it lies in below `root`, in lower case.

    only: the name of its source, in lower case, if there are several sources: one may hold the labels alone.
    suffix: what the names of labels end in, if the user says so.
    """

    path: Path
    root: Path
    folders: tuple[str, ...]
    only: str = ""
    suffix: str = ""

    @property
    def core(self) -> str:
        """The file's name without endings, and without words for labels and pictures at its end."""
        stem = _stem(self.path.name)
        if self.has_suffix:
            return stem.removesuffix(self.suffix)
        match = _AT_END.fullmatch(stem)
        return match[1] if match else stem

    @property
    def has_suffix(self) -> bool:
        return bool(self.suffix) and _stem(self.path.name).endswith(self.suffix)

    @property
    def name(self) -> str:
        """What a sample of this picture is called: its path below the root, without words for pictures and splits."""
        folders = self.path.relative_to(self.root).parts[:-1]
        kept = [part for part in folders if not _role(part.casefold()) and not _SPLIT_FOLDER.fullmatch(part.casefold())]
        return "/".join(part for part in (*kept, self.core.strip(". ")) if part) or "sample"

    def roles(self) -> tuple[int, int]:
        """What it is by its name, and by its folder: 1 a label, -1 a picture, 0 unknown."""
        stem = _stem(self.path.name).casefold()
        end, start = _AT_END.fullmatch(stem), _AT_START.fullmatch(stem)
        own = (_role(end[2]) or 1) if end else int(_role(start[1]) == 1) if start else 0  # a camera's IMG_1 is no word
        return own, next((role for part in (*reversed(self.folders), self.only) if (role := _role(part))), 0)

    def split(self) -> str:
        """The split that a folder, or a file of annotations, is named after; "" if none is."""
        named = (*self.folders, _stem(self.path.name).casefold() if self.path.suffix == ".json" else "")
        words = (word for part in reversed(named) for word in _PARTS.split(part))
        return next((SPLITS[found[1]] for word in words if (found := _SPLIT.match(word))), "")


def _role(text: str) -> int:
    words = {match[2] for word in _PARTS.split(text) if (match := _WORD.fullmatch(word))}
    return 1 if words & set(LABEL_WORDS) else -1 if words else 0


def _stem(name: str) -> str:
    """The name without its ending, and without a picture's ending before that, as in a.jpg.png."""
    stem = Path(name).stem
    return re.sub(r"\.(jpe?g|png|bmp|tiff?|webp)(?=$|___fuse$)", "", stem, flags=re.IGNORECASE)


class Tree:
    """The files of all sources, without hidden ones and without drawings and instances that tools write beside labels.

    suffix: what the names of labels end in, if the user says so. without: where the data set will be, in which, and in
    its partial form, nothing is looked for.
    scratch: a folder for pictures that a format holds within itself.
    notes: a line on links that lead out of their source.
    """

    def __init__(self, sources: Sequence[Path], *, suffix: str = "", without: Path, scratch: Path) -> None:
        self.files: list[File] = []
        self.notes: list[str] = []
        self.scratch = scratch
        for source in sources:
            if source.is_file():
                root, paths = source.resolve().parent, [source.resolve()]
            else:
                root = source
                own = {_within(root, without), _within(root, without.with_name(f"{without.name}.partial"))}
                paths = sorted(path for path in root.rglob("*") if own.isdisjoint(path.parents) and path.is_file())
            out = misplaced(root, paths)
            if out:
                self.notes.append(listed("links out of the source", [paths[index] for index in out]))
            only = source.name.casefold() if len(sources) > 1 else ""
            files = (_file(path, root, only, suffix) for index, path in enumerate(paths) if index not in out)
            self.files += [file for file in files if file]
        endings = picture_endings()
        self.pictures = [file for file in self.files if has_picture_name(file.path, endings)]

    def ending(self, *endings: str) -> list[File]:
        """The files with one of these endings, such as ".json"."""
        return [file for file in self.files if file.path.suffix.lower() in endings]

    def json(self, keys: Sequence[str]) -> list[File]:
        """The JSON files in which all these keys occur somewhere: they are not parsed, for they may be large."""
        return [file for file in self.ending(".json") if _holds(file.path, [f'"{key}"'.encode() for key in keys])]

    def named(self, *names: str) -> list[Path]:
        """The files of these names, the highest in the folders first."""
        found = [file for file in self.files if file.path.name.lower() in names]
        return [file.path for file in sorted(found, key=lambda file: (len(file.folders), file.path))]

    def census(self) -> str:
        """What there is, such as "12 .jpg, 3 .txt"."""
        endings = Counter(file.path.suffix.lower() or "without ending" for file in self.files).most_common(6)
        return ", ".join(f"{count} {ending}" for ending, count in endings) or "no files"


def _holds(file: Path, words: Sequence[bytes]) -> bool:
    missing, before = set(words), b""
    with open_file(file, most="SEGMODEL_MAX_JSON_BYTES") as opened:
        while missing and (part := opened.read(1 << 24)):
            missing -= {word for word in missing if word in before + part}
            before = part[-64:]
    return not missing


def _within(root: Path, folder: Path) -> Path | None:
    """The folder as a path below the root, if it lies there."""
    real, real_root = folder.resolve(), root.resolve()
    return root / real.relative_to(real_root) if real.is_relative_to(real_root) else None


def _file(path: Path, root: Path, only: str, suffix: str) -> File | None:
    parts = [part.casefold() for part in path.relative_to(root).parts]
    hidden = any(part.startswith(".") for part in parts)
    if hidden or _SKIPPED_FOLDERS & set(parts[:-1]) or _SKIPPED_NAMES.search(_stem(parts[-1])):
        return None
    return File(path, root, tuple(parts[:-1]), only, suffix)


def listed(what: str, names: Sequence[object], most: int = 5) -> str:
    """Such as "pictures without a label: 7, left out: a.jpg, b.jpg, ..."."""
    more = ", ..." * (len(names) > most)
    return f"{what}: {len(names)}, left out: {', '.join(map(str, names[:most]))}{more}"


@dataclass
class Pairing:
    """Pairs of a picture and its label; and pictures, labels and groups of files that are no pair."""

    pairs: list[tuple[File, File]] = field(default_factory=list)
    pictures: list[Path] = field(default_factory=list)
    labels: list[Path] = field(default_factory=list)
    several: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """A line for each sort of file that is left out."""
        sorts = (
            ("pictures without a label", self.pictures),
            ("labels without a picture", self.labels),
            ("names of more than two files", self.several),
        )
        return [listed(what, files) for what, files in sorts if files]


def _plain(folders: Sequence[str]) -> tuple[str, ...]:
    """Folders without what names labels or pictures: train_masks and trainannot become train, masks nothing."""
    parts = [[_WORD.sub(r"\1", word) if _WORD.fullmatch(word) else word for word in _PARTS.split(f)] for f in folders]
    return tuple(filter(None, ("_".join(filter(None, words)) for words in parts)))


def _without_start(core: str) -> str:
    match = _AT_START.fullmatch(core)
    return match[2] if match else core


_STAGES: tuple[Callable[[File], Hashable], ...] = (
    lambda file: (file.root, _plain(file.folders), file.core.casefold()),
    lambda file: (_plain(file.folders), file.core.casefold()),
    lambda file: file.core.casefold() or file.path,
    lambda file: _without_start(file.core.casefold()) or file.path,
)
_FEW = 256  # colours of a label that no word tells from its picture, at most; the picture has four times as many
_BY_CONTENT = 2  # in so many stages the pixels may tell which of two files is the label
Roles = Callable[[Sequence[File], int], Sequence[int]]


def pair(pictures: Iterable[File], labels: Iterable[File]) -> Pairing:
    """Pairs pictures with label files of another kind."""
    roles = {file: -1 for file in pictures} | {file: 1 for file in labels}
    return _paired(list(roles), lambda group, stage: [roles[file] for file in group])


def pair_pictures(files: Sequence[File]) -> Pairing:
    """Pairs pictures with labels that are pictures too: by name, by folder, or the one of few colours is the label."""
    labels = [file for file in files if file.has_suffix]
    if labels:
        return pair([file for file in files if not file.has_suffix and file.roles()[0] < 1], labels)
    return _paired(files, _picture_roles)


def _picture_roles(group: Sequence[File], stage: int) -> Sequence[int]:
    own, folder = zip(*(file.roles() for file in group), strict=True)
    known = [a or b for a, b in zip(own, folder, strict=True)]
    if len(group) != 2 or known.count(1) == 1:
        return [role or -1 for role in known] if len(group) > 1 and 1 in known else known
    by = next((by for by in (own, folder) if by[0] != by[1]), None)
    if by and 1 in by:
        return [1, -1] if by[0] > by[1] else [-1, 1]
    if by or stage < _BY_CONTENT:
        colours = [_colours(file.path) for file in group]
        label = int(by[1] > by[0] if by else colours[1] < colours[0])
        if colours[label] <= _FEW and 4 * colours[label] <= colours[1 - label]:
            return [1, -1] if label == 0 else [-1, 1]
    return known


def _colours(path: Path) -> int:
    """Different colours on a grid of about 200 x 200 pixels; a million if the picture cannot be read."""
    try:
        pixels, _ = read_image(path)
    except DataError:
        return 1_000_000
    step = max(1, max(pixels.shape) // 200)
    return len(np.unique(pixels[::step, ::step].reshape(-1, 3), axis=0))


def _paired(files: Sequence[File], roles: Roles) -> Pairing:
    result, left = Pairing(), list(files)
    for stage, key in enumerate(_STAGES):
        done: set[File] = set()
        for group in _grouped(left, key):
            found = roles(group, stage) if len(group) == 2 else ()
            if sorted(found) == [-1, 1]:
                result.pairs.append((group[found.index(-1)], group[found.index(1)]))
                done.update(group)
        left = [file for file in left if file not in done]
    for group in _grouped(left, _STAGES[2]):
        found = roles(group, len(_STAGES))
        if 1 in found and -1 in found:
            result.several.append(" + ".join(str(file.path) for file in group[:4]))
            continue
        for file, role in zip(group, found, strict=True):
            (result.labels if role == 1 else result.pictures).append(file.path)
    result.pairs.sort(key=lambda pair: pair[0].path)
    return result


def _grouped(files: Iterable[File], key: Callable[[File], Hashable]) -> list[list[File]]:
    groups: dict[Hashable, list[File]] = defaultdict(list)
    for file in files:
        groups[key(file)].append(file)
    return list(groups.values())
