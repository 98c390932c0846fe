"""Sharper boundaries for the output of any segmentation model: the guidance CRF on its scores (Sec. 5, 7.2).

    python -m segmodel.refine photo.jpg scores.npy --output labels.png     # (C, h, w) logits -> labels (.npy: logits)
    python -m segmodel.refine photo.jpg mask.png --output refined.png      # a 0/1 mask, or grey as probability

The settings that suit a model's scores are found by `python -m segmodel.tune`; --settings reads its file.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from segmodel.common import cli
from segmodel.common.errors import UserError
from segmodel.common.files import output_file, replacing
from segmodel.common.labels import voc_palette
from segmodel.common.options import add_flags, build, flag_values
from segmodel.common.pictures import save_label, save_picture
from segmodel.data.images import read_image
from segmodel.inference.inputs import read_scores
from segmodel.inference.refine import refine
from segmodel.inference.refinement import Refinement, read_settings


def _read_mask(path: Path) -> np.ndarray:
    pixels, _ = read_image(path)
    grey = pixels[..., 0]
    if not (pixels == grey[..., None]).all():
        raise UserError(f"{path}: expected a grey mask, got colours (give labels as scores in an .npy file)")
    if set(np.unique(grey)) <= {0, 1} or set(np.unique(grey)) <= {0, 255}:
        return grey
    return grey / np.float32(255)


def _write(path: Path, result: np.ndarray, *, soft: bool) -> None:
    """Writes logits or a mask: .npy as they are, .png the labels or the mask in 0..255."""
    if path.suffix.lower() == ".npy":
        with replacing(path) as partial, partial.open("wb") as file:
            np.save(file, result)
    elif result.ndim == 3:
        save_label(path, result.argmax(0), voc_palette(256))
    else:
        save_picture(path, ((255 * result).round() if soft else result).astype(np.uint8))


def main(arguments: Sequence[str]) -> int:
    parser = cli.Parser("refine", __doc__)
    parser.add_argument("image", metavar="IMAGE", help="the picture")
    parser.add_argument("scores", metavar="SCORES.npy|MASK.png",
                        help="logits (C, h, w), probabilities (h, w), or a grey picture of a mask")  # fmt: skip
    parser.add_argument("--output", required=True, metavar="FILE", help=".png: labels or mask; .npy: logits or mask")
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it is there already")
    parser.add_argument("--settings", metavar="FILE", help="settings that segmodel.tune wrote; flags override them")
    add_flags(parser, {"settings": Refinement})
    options = parser.parse_args(arguments)
    output = output_file("--output", options.output, endings=(".png", ".npy"), overwrite=options.overwrite)
    kept = read_settings(options.settings) if options.settings else {}
    settings = asdict(build(Refinement, kept, flag_values(options, {"": Refinement}).get("", {})))
    image, orientation = read_image(Path(options.image))
    source = Path(options.scores)
    scores = read_scores(source) if source.suffix.lower() == ".npy" else _read_mask(source)
    if output.suffix.lower() == ".png":
        scores = scores[0] if scores.ndim == 4 and len(scores) == 1 else scores
        if scores.ndim == 4 or (scores.ndim == 3 and len(scores) > 255):
            raise UserError(f"{source}: expected (C, h, w) with at most 255 classes for a PNG, got {scores.shape}")
    height, width = image.shape[:2]
    if orientation > 4 and (scores.shape[-2] - scores.shape[-1]) * (height - width) < 0:
        raise UserError(f"{source}: expected scores of the upright picture, {width}x{height} (EXIF orientation "
                        f"{orientation} is applied), got {scores.shape[-1]}x{scores.shape[-2]}")  # fmt: skip
    try:
        refined = refine(scores, image, **settings)
    except ValueError as error:
        raise UserError(f"{source}: {error}") from error
    try:
        _write(output, refined, soft=scores.dtype.kind == "f")
    except OSError as error:
        raise UserError(f"--output: {output}: cannot be written ({error.strerror})") from error
    used = ", ".join(f"{name} {value}" for name, value in settings.items())
    turned = f" (turned upright, EXIF orientation {orientation})" if orientation > 1 else ""
    print(f"{output}: {refined.shape[-1]}x{refined.shape[-2]}{turned}, {used}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("refine", main))
