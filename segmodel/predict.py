"""Segments pictures: each gets a label PNG with a palette, and an overlay to look at.

python -m segmodel.predict RUN photo.jpg folder_of_photos --output predictions
python -m segmodel.predict RUN photos --output predictions --write labels,probabilities --scales 0.75,1,1.25 --mirror
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from segmodel.common import cli
from segmodel.common.errors import DataError, UserError
from segmodel.common.files import claim_folder, writing
from segmodel.common.options import Section, add_flags, from_flags, option
from segmodel.common.pictures import overlay, save_label, save_picture, save_probabilities
from segmodel.common.terminal import say
from segmodel.data import PUBLISHED_IDS
from segmodel.data.images import picture_endings, pictures_below, read_image
from segmodel.inference.settings import GUIDANCE, add_inference_options, load_for_inference
from segmodel.inference.views import Prediction, predict_images, same_size_batches
from segmodel.model.network import Network
from segmodel.model.store import find_checkpoint

KINDS = {"labels": ".png", "overlay": "_overlay.png", "probabilities": ".npz"}


@dataclass(frozen=True)
class Options(Section):
    """What is predicted and written."""

    write: tuple[str, ...] = option(
        ("labels", "overlay"), "labels: NAME.png with a palette; overlay: NAME_overlay.png; probabilities: NAME.npz, "
        "float16 (C, H, W)"
    )  # fmt: skip
    ids: str = option(
        "classes",
        "values of the label files: class numbers, Cityscapes' ids, or class numbers + 1 as in ADE20K",
        choices=("classes", *PUBLISHED_IDS),
    )  # fmt: skip
    overwrite: bool = option(False, "replace predictions that are there already")
    guidance: Literal["configured", "on", "off", "auto"] | None = option(
        None, "configured, on, off or auto: " + GUIDANCE
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for kind in self.write or ("",):
            if kind not in KINDS:
                raise UserError(f"write: expected some of {', '.join(KINDS)}, got {kind!r}")


def find_images(paths: Iterable[str]) -> list[tuple[Path, Path]]:
    """(file, path below the output folder without ending) of each picture, also of those in folders at any depth."""
    known = picture_endings()
    found: list[tuple[Path, Path]] = []
    for text in paths:
        path = Path(text)
        if os.path.isdir(path):  # unlike the path's own methods it never raises, whatever the name
            inside = [file for file in pictures_below(path, known) if file.is_file()]
            if not inside:
                raise UserError(f"{path}: no picture in this folder")
            found += [(file, file.relative_to(path).with_suffix("")) for file in inside]
        elif os.path.isfile(path):
            found.append((path, Path(path.stem)))
        else:
            raise UserError(f"{path}: no such file or folder")
    return found


def find_targets(images: Sequence[tuple[Path, Path]], kinds: Sequence[str], output: Path) -> list[dict[str, Path]]:
    """The files to write for each picture, by kind; UserError if one would be written twice or is a picture itself."""
    folders: dict[Path, Path] = {}  # each is looked up once: of 100,000 pictures they are a few

    def resolved(path: Path) -> Path:
        if path.parent not in folders:
            folders[path.parent] = path.parent.resolve()
        return path.resolve() if os.path.islink(path) else folders[path.parent] / path.name

    pictures = {resolved(file) for file, _ in images}
    taken: dict[Path, Path] = {}
    targets = [{kind: output / f"{name}{KINDS[kind]}" for kind in kinds} for _, name in images]
    for (file, _), files in zip(images, targets, strict=True):
        for target in files.values():
            if resolved(target) in pictures:
                raise UserError(f"{target}: a result would overwrite this picture; expected another --output")
            if taken.setdefault(target, file) != file:
                raise UserError(f"{file}: its result would overwrite that of {taken[target]} (both are {target})")
    return targets


def write(
    targets: dict[str, Path], pixels: np.ndarray, prediction: Prediction, *, ids: np.ndarray, model: Network
) -> None:
    """Writes the files of one picture ``(H, W, 3)`` by kind, each replaced as a whole."""
    labels = prediction.labels()[0]
    palette = np.full((int(ids.max()) + 1, 3), 255, np.uint8)
    palette[ids] = model.palette
    for kind, file in targets.items():
        with writing("--output", file):
            file.parent.mkdir(parents=True, exist_ok=True)
            if kind == "labels":
                save_label(file, ids[labels], palette)
            elif kind == "overlay":
                save_picture(file, overlay(pixels, labels, model.palette, classes=model.classes))
            else:
                save_probabilities(file, prediction.probabilities()[0], model.classes)


def main(arguments: Sequence[str]) -> int:
    parser = cli.Parser("predict", __doc__)
    parser.add_argument("run", help="run folder (its best checkpoint) or checkpoint file")
    parser.add_argument("images", nargs="+", metavar="IMAGE|FOLDER", help="pictures, or folders of pictures")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the results")
    add_flags(parser, {"results": Options})
    add_inference_options(parser)
    given = parser.parse_args(arguments)
    options: Options = from_flags(given, Options)
    images, output = find_images(given.images), Path(given.output)
    targets = find_targets(images, options.write, output)
    claim_folder("--output", output)
    there = [file for files in targets for file in files.values() if file.exists()]
    if there and not options.overwrite:
        raise UserError(f"{there[0]}: exists already (--overwrite replaces it)")
    setup = load_for_inference(given.run, given, options.guidance)
    model = setup.models[0]
    try:
        numbers = np.arange(model.num_classes, dtype=np.uint8)
        ids = numbers if options.ids == "classes" else PUBLISHED_IDS[options.ids](model.classes)
    except DataError as error:
        raise UserError(f"--ids: {error}") from error
    unreadable: list[str] = []
    turned: list[Path] = []

    def readable() -> Iterator[tuple[dict[str, Path], np.ndarray]]:
        for (file, _), files in zip(images, targets, strict=True):
            try:
                picture, orientation = read_image(file)
            except DataError as error:
                unreadable.append(str(error))
                continue
            if orientation > 1:
                turned.append(file)
            yield files, picture

    with tqdm(total=len(images), unit="image", disable=None) as progress:
        for batch, pixels in same_size_batches(readable(), setup.config.batch_size, image=lambda pair: pair[1]):
            (prediction,) = predict_images(images=pixels, **vars(setup)).values()
            for index, (files, picture) in enumerate(batch):
                write(files, picture, prediction.image(index), ids=ids, model=model)
            progress.update(len(batch))
    say(f"{find_checkpoint(given.run)}: {len(images) - len(unreadable)} pictures segmented, in {output}")
    if turned:
        say(f"turned upright, as their EXIF orientation says: {len(turned)}, the first is {turned[0]}")
    for line in unreadable[:-1]:
        say(f"segmodel.predict: error: {line}", error=True)
    if unreadable:
        raise UserError(unreadable[-1])
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("predict", main))
