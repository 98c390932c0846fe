"""Segments pictures: for each a label PNG with a palette, and an overlay to look at.

python -m segmodel.predict RUN photo.jpg folder_of_photos --output predictions
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from segmodel import cli
from segmodel.data.base import read_image
from segmodel.evaluate import add_inference_options, label_maps, load_for_inference
from segmodel.options import UserError
from segmodel.pictures import overlay, save_label, save_picture


def find_images(paths: Iterable[str]) -> list[tuple[Path, Path]]:
    """(file, name under the output without ending) of each picture; folders are searched through."""
    known = set(Image.registered_extensions())
    found: list[tuple[Path, Path]] = []
    for text in paths:
        path = Path(text)
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in known and file.is_file())
            if not inside:
                raise UserError(f"{path}: no picture in this folder")
            found += [(file, file.relative_to(path).with_suffix("")) for file in inside]
        elif path.is_file():
            found.append((path, Path(path.stem)))
        else:
            raise UserError(f"{path}: no such file or folder")
    taken: dict[Path, Path] = {}
    for file, name in found:
        if taken.setdefault(name, file) != file:
            raise UserError(f"{file}: its prediction would overwrite that of {taken[name]} (both are named {name})")
    return found


def main(arguments: Sequence[str]) -> int:
    parser = cli.Parser("predict", __doc__)
    parser.add_argument("run", help="run folder or checkpoint file")
    parser.add_argument("images", nargs="+", metavar="IMAGE|FOLDER", help="pictures, or folders of pictures")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for NAME.png and NAME_overlay.png")
    parser.add_argument("--overwrite", action="store_true", help="replace predictions that are there already")
    add_inference_options(parser, modes=("configured", "on", "off"))
    options = parser.parse_args(arguments)
    images = find_images(options.images)
    output = Path(options.output)
    targets = [(output / f"{name}.png", output / f"{name}_overlay.png") for _, name in images]
    there = [file for pair in targets for file in pair if file.exists()]
    if there and not options.overwrite:
        raise UserError(f"{there[0]}: exists already (--overwrite replaces it)")
    model, dtype = load_for_inference(options.run, options)
    mode = {"configured": None, "on": True, "off": False}[options.guidance]
    for (file, _), (label_file, overlay_file) in zip(tqdm(images, unit="image", disable=None), targets, strict=True):
        pixels, _ = read_image(file)
        label = label_maps(model, pixels, modes=[mode], dtype=dtype)[0]
        try:
            label_file.parent.mkdir(parents=True, exist_ok=True)
            save_label(label_file, label, model.palette)
            save_picture(overlay_file, overlay(pixels, label, model.palette))
        except OSError as error:
            raise UserError(
                f"--output: {error.filename or label_file}: cannot be written ({error.strerror})"
            ) from error
    print(f"{len(images)} pictures segmented, in {output}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("predict", main))
