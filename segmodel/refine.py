"""Sharper boundaries for the output of any segmentation model: the guidance CRF on its scores (Sec. 5, 7.2).

    python -m segmodel.refine photo.jpg scores.npy --output labels.png     # (C, h, w) logits -> labels (.npy: logits)
    python -m segmodel.refine photo.jpg mask.png --output refined.png      # a mask of 0 and 1, or of 0 and 255
    python -m segmodel.refine photo.jpg labels.png --labels --output refined.png --compare compared.png
    python -m segmodel.refine PHOTOS SCORES --output refined               # folders: files of the same names
    python -m segmodel.refine photo.jpg scores.npy --page explore.html     # sliders for the settings, in a browser
    python -m segmodel.refine scene.tif scores.npy --max-memory 2GB --output labels.tif   # of any size, tile by tile

The settings that suit a model's scores are found by `python -m segmodel.tune`; --settings reads its file.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from tqdm import tqdm

from segmodel.common import cli
from segmodel.common.errors import DataError, UserError
from segmodel.common.files import claim_folder, output_file, write_output, writing
from segmodel.common.options import Section, add_flags, build, flag_values, from_flags, option
from segmodel.common.terminal import say
from segmodel.data.images import picture_endings, pictures_below
from segmodel.inference.refine import HARD
from segmodel.inference.refine_files import Job, Kind, explored, refine_file
from segmodel.inference.refinement import read_settings
from segmodel.inference.tiles import MEMORY, bytes_of, refine_tiles
from segmodel.inference.windows import GEO
from segmodel.model.untrained_crf import Refinement

ENDINGS = (".npy", ".png", ".tif", ".tiff", ".bmp", ".gif")
"""Of files that hold scores, masks or labels, in the order in which they are looked for."""


@dataclass(frozen=True)
class Options(Section):
    """What is refined and written."""

    layout: Literal["CHW", "HWC"] | None = option(None, "of the scores, where it cannot be told")
    ignore: int = option(255, "with --labels: the number of pixels without a class")
    fill: bool = option(False, "with --labels: give those pixels a class")
    confidence: float = option(0.7, "in hard masks and labels: the higher, the less they change", above=0.5, below=1)
    format: Literal["png", "npy"] = option("png", "of the files in a folder")
    max_memory: str | None = option(
        None, "such as 2GB: refine one picture of any size tile by tile; scores.npy to labels .npy or .tif (GeoTIFF)"
    )
    image_range: tuple[float, float] | None = option(None, "black,white of a picture of more than 8 bits, with tiles")
    overwrite: bool = option(False, "replace outputs that are there already; in a folder they are skipped otherwise")


def find_jobs(images: Path, scores: Path, output: Path, ending: str, compared: Path | None) -> list[Job]:
    """A job for each file of scores below one folder, whose image has the same path, but for the ending, below another.

    Raises:
        UserError: no such pair, an image that is missing, or two files of one name.
    """
    pictures: dict[Path, Path] = {}
    for file in pictures_below(images, picture_endings()):
        name = file.relative_to(images).with_suffix("")
        if pictures.setdefault(name, file) != file:
            raise UserError(f"{images}: expected one image of a name, got {pictures[name].name} and {file.name}")
    found: dict[Path, Path] = {}
    for file in pictures_below(scores, ENDINGS):
        name = file.relative_to(scores).with_suffix("")
        if found.setdefault(name, file) != file:
            raise UserError(f"{scores}: expected one file of a name, got {found[name].name} and {file.name}")
    if not found:
        raise UserError(f"{scores}: expected files of scores, masks or labels ({', '.join(ENDINGS)}), got none")
    missing = [name for name in found if name not in pictures]
    if missing:
        raise UserError(f"{images}: expected an image for each file in {scores}, got none for {missing[0]}"
                        + f" and {len(missing) - 1} more" * (len(missing) > 1))  # fmt: skip
    if len(found) < len(pictures):
        say(f"{len(pictures) - len(found)} of {len(pictures)} images have no file in {scores} and are left out")
    return [Job(pictures[name], file, output / f"{name}{ending}", compared / f"{name}.png" if compared else None)
            for name, file in found.items()]  # fmt: skip


def refine_folder(jobs: Sequence[Job], kind: Kind, options: Options, settings: dict[str, Any]) -> None:
    """Refines what is not there yet, and says what changed."""
    todo = [job for job in jobs if options.overwrite or not job.output.exists()]
    if len(todo) < len(jobs):
        say(f"{len(jobs) - len(todo)} of {len(jobs)} outputs are there already and stay (--overwrite replaces them)")
    changed = pixels = 0
    wrong: list[str] = []
    for job in tqdm(todo, unit="image", disable=None):
        for path in filter(None, (job.output, job.compared)):
            with writing("--output", path):
                path.parent.mkdir(parents=True, exist_ok=True)
        try:
            moved, size, line = refine_file(job, kind, vars(options), settings)
        except (UserError, DataError) as error:  # the others need not wait for it
            wrong.append(f"{error}")
            continue
        changed, pixels = changed + moved, pixels + size
        say(line)
    if pixels:
        share = 100 * changed / pixels
        say(f"{len(todo) - len(wrong)} refined: {changed:,} of {pixels:,} pixels changed ({share:.2f} %)")
    for text in wrong[:-1]:
        say(f"segmodel.refine: error: {text}", error=True)
    if wrong:
        raise UserError(wrong[-1])


def refine_large(image: Path, scores: Path, output: Path, own: Refinement, options: Options) -> None:
    """Refines one picture tile by tile, and says in how much time."""
    start = time.perf_counter()
    try:
        memory = MEMORY if options.max_memory is None else bytes_of(options.max_memory)
        if output.suffix.lower() == ".png":
            raise ValueError("--output: expected an .npy or .tif file with --max-memory, got a .png")
        with writing("--output", output):
            refine_tiles(
                scores, image, output, own=own, image_range=options.image_range, max_memory=memory, progress=True
            )
    except ValueError as error:
        raise UserError(str(error)) from error
    say(f"{output}: written in {time.perf_counter() - start:.1f} s with at most {memory / 2**20:.0f} MiB")


def write_page(
    image: Path, scores: Path, given: argparse.Namespace, kind: Kind, options: Options, settings: dict[str, Any]
) -> None:
    """Writes the page on which the settings are tried by hand."""
    if kind not in ("scores", "probabilities") or image.is_dir() or options.max_memory is not None:
        raise UserError("--page: expected one picture and its scores (C, h, w), got other options")
    page = output_file("--page", given.page, endings=(".html",), overwrite=options.overwrite)
    names = given.names.split(",") if given.names else ()
    text = explored(image, scores, kind, names=names, layout=options.layout, settings=settings)
    write_output("--page", page, text)
    say(f"{page}: {len(text.encode()) / 1024:.0f} KiB")


def make_parser() -> cli.Parser:
    parser = cli.Parser("refine", __doc__ or "")
    parser.add_argument("image", metavar="IMAGE|FOLDER", help="the picture, or a folder of pictures")
    parser.add_argument("scores", metavar="SCORES.npy|MASK.png|FOLDER",
                        help="logits (C, h, w), a mask, or labels; or a folder of such files")  # fmt: skip
    parser.add_argument("--output", metavar="FILE|FOLDER",
                        help=".png: labels or mask; .npy: logits, labels or mask")  # fmt: skip
    parser.add_argument("--page", metavar="FILE.html", help="of scores: a page to try the settings by hand, offline")
    parser.add_argument("--names", metavar="NAME,NAME", help="of the classes, for the page")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--labels", action="store_true", help="the file is a label map: numbers, or a colour a class")
    what.add_argument("--probabilities", action="store_true",
                      help="of scores: they are probabilities; of a grey picture: 255 is probability 1")  # fmt: skip
    what.add_argument("--logits", action="store_true", help="the file is logits (h, w) of a mask")
    parser.add_argument("--compare", metavar="FILE|FOLDER", help="draw before, after, boundaries and close-ups")
    parser.add_argument("--settings", metavar="FILE", help="settings that segmodel.tune wrote; flags override them")
    add_flags(parser, {"files": Options, "settings": Refinement})
    return parser


def main(arguments: Sequence[str]) -> int:
    given = make_parser().parse_args(arguments)
    options: Options = from_flags(given, Options)
    kept = read_settings(given.settings) if given.settings else {}
    flags = flag_values(given, {"": Refinement}).get("", {})
    settings = {name: value for name, value in asdict(build(Refinement, kept, flags)).items() if value is not None}
    kind: Kind = next((name for name in get_args(Kind) if getattr(given, name, None) is True), "scores")
    settings = {**HARD, **settings} if kind == "labels" else settings
    rest = "" if len(settings) == len(fields(Refinement)) else "; what is not named follows from the scores"
    say("settings: " + ", ".join(f"{name} {value}" for name, value in settings.items()) + rest)
    image, scores = Path(given.image), Path(given.scores)
    if given.page:
        write_page(image, scores, given, kind, options, settings)
    if not given.output:
        if given.page:
            return 0
        raise UserError("--output: expected a file or a folder, or --page, got neither")
    large = options.max_memory is not None or Path(given.output).suffix.lower() in GEO
    if large and (kind != "scores" or given.compare or image.is_dir() or options.layout == "HWC"):
        raise UserError("--max-memory: expected one picture and scores (C, h, w), without --compare, got other options")
    if given.compare and Path(given.compare).resolve() == Path(given.output).resolve():
        raise UserError(f"--compare: expected another place than that of --output, got {given.compare}")
    if image.is_dir() != scores.is_dir():
        folder, other = (image, scores) if image.is_dir() else (scores, image)
        raise UserError(f"{other}: expected a folder, as {folder} is one")
    if image.is_dir():
        output, compared = Path(given.output), Path(given.compare) if given.compare else None
        inputs = (image.resolve(), scores.resolve())
        for name, path in (("--output", output), ("--compare", compared)):
            if path and (path.is_file() or path.resolve() in inputs):
                raise UserError(f"{name}: expected a folder of its own, got {path}")
        jobs = find_jobs(image, scores, output, f".{options.format}", compared)
        claim_folder("--output", output)
        if compared:
            claim_folder("--compare", compared)
        refine_folder(jobs, kind, options, settings)
        return 0
    endings = (".png", ".npy", ".tif", ".tiff")
    output = output_file("--output", given.output, endings=endings, overwrite=options.overwrite)
    if large:
        refine_large(image, scores, output, build(Refinement, settings), options)
        return 0
    compared = given.compare and output_file("--compare", given.compare, endings=(".png",), overwrite=options.overwrite)
    _, _, line = refine_file(Job(image, scores, output, compared), kind, vars(options), settings)
    say(line)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("refine", main))
