"""Mutation fuzzing of every reader of bytes from outside: whatever they hold, the documented errors and nothing else.

    python tests/fuzz.py --executions 4000    # of each target; SEGMODEL_FUZZ_EXECUTIONS says the same (tox -e fuzz)

A target is a reader with good files of its kind. These are mutated; in the suite by Hypothesis, which makes what it
finds small. An execution fails on any other error, on a message of more than one printable line, and after ``SECONDS``;
a target, if it took more memory than ``MEBIBYTES``.
"""

import argparse
import json
import os
import random
import resource
import shutil
import struct
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bad_input_tools import environment, furnish, time_limit
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save

from segmodel.common.errors import DataError, UserError
from segmodel.common.options import parsed, read_toml
from segmodel.data import open_data
from segmodel.data.folder import read_classes
from segmodel.data.images import index_values, read_image, read_label
from segmodel.data.importing.command import _unpacked as unpacked_sources
from segmodel.data.importing.formats import open_source
from segmodel.data.importing.tree import Tree
from segmodel.data.importing.write import look
from segmodel.evaluation.per_image import read_per_image
from segmodel.inference.inputs import read_scores
from segmodel.inference.refinement import read_settings
from segmodel.model.network import Network
from segmodel.model.resnet import ResNet
from segmodel.model.store import build_network, read_checkpoint
from segmodel.segmodel import SegModel
from segmodel.training.class_weights import read_class_weights
from segmodel.training.report import run_report
from segmodel.training.settings import SECTIONS, make_config

SECONDS = 30
MEBIBYTES = 400
PIXELS = 1_000_000  # SEGMODEL_MAX_PIXELS meanwhile: a large picture is not what is looked for
NUMBERS = (0, 1, 127, 128, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
WORDS = (
    b"\0", b"\n", b"\r\n", b"../", b"/", b" ", b"\t", b"\xef\xbb\xbf", b"[", b"]", b"{", b"}", b'"', b"=", b",", b"nan",
    b"inf", b"-1", b"1e999", b"9" * 400, b"true", b"null", b"[" * 3000, b"\xff\xfe", b"\x1b[2J", b"a" * 5000,
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """``read(folder, content)`` hands the bytes to a reader, which may raise ``errors``."""

    read: Callable[[Path, bytes], object]
    seeds: tuple[bytes, ...]
    errors: tuple[type[Exception], ...] = (DataError, UserError)


def mutated(seed: bytes, edits: list[tuple[str, float, int]], other: bytes) -> bytes:
    """The seed after these edits, each (kind, place in 0..1, number)."""
    content = bytearray(seed)
    for kind, where, number in edits:
        place = int(where * len(content))
        if kind == "flip" and content:
            content[min(place, len(content) - 1)] ^= 1 << number % 8
        elif kind == "byte" and content:
            content[min(place, len(content) - 1)] = number % 256
        elif kind == "number":
            size, value = (1, 2, 4, 8)[number % 4], NUMBERS[number // 4 % len(NUMBERS)]
            content[place : place + size] = value.to_bytes(8, ("little", "big")[number // 64 % 2])[:size]
        elif kind == "word":
            content[place:place] = WORDS[number % len(WORDS)]
        elif kind == "cut":
            del content[place : place + number % 64]
        elif kind == "repeat":
            content[place:place] = content[place : place + number % 256] * (1 + number // 256 % 4)
        elif kind == "end":
            del content[place:]
        elif kind == "join":
            content[place:] = other[int(where * len(other)) :]
    return bytes(content)


KINDS = ("flip", "byte", "number", "word", "cut", "repeat", "end", "join")
EDITS = st.lists(
    st.tuples(st.sampled_from(KINDS), st.floats(0, 1), st.integers(0, 2**16 - 1)), min_size=1, max_size=8
)  # fmt: skip


def written(name: str, read: Callable[[Path], object]) -> Callable[[Path, bytes], object]:
    """A reader of files as a reader of bytes."""

    def attempt(folder: Path, content: bytes) -> object:
        path = folder / name
        path.write_bytes(content)
        return read(path)

    return attempt


def pictures(*formats: str, mode: str = "RGB") -> tuple[bytes, ...]:
    pixels = np.random.default_rng(0).integers(0, 2, (9, 13, 3), dtype=np.uint8)
    files = []
    for name in formats:
        file = BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(pixels).convert("RGB").convert(mode).save(file, name, exif=exif)
        files.append(file.getvalue())
    return tuple(files)


def training(path: Path) -> object:
    return make_config(read_toml(path, SECTIONS))


def flag(folder: Path, content: bytes) -> None:
    """A command-line text for each type of setting."""
    text = content.decode("utf-8", "surrogateescape")
    for kind in (int, float, bool, str, tuple[int, int], tuple[tuple[int, int], ...], int | None):
        try:
            parsed(text, kind, "--flag")
        except UserError:
            continue


def model(path: Path) -> object:
    return build_network(path, *read_checkpoint(path), Network)


def card(source: bytes) -> Callable[[Path, bytes], object]:
    """The JSON in a checkpoint's header, mutated on its own, so that the file around it stays whole."""
    length = struct.unpack("<Q", source[:8])[0]
    header, data = json.loads(source[8 : 8 + length]), source[8 + length :]

    def attempt(folder: Path, content: bytes) -> object:
        header["__metadata__"]["segmodel"] = content.decode("utf-8", "replace")
        packed = json.dumps(header).encode()
        return written("card.safetensors", model)(folder, struct.pack("<Q", len(packed)) + packed + data)

    return attempt


def sample(spec: str) -> Callable[[Path], object]:
    """The first sample of a data set, for readers that work when a sample is read."""
    return lambda path: open_data(spec, split="train")[0]


def matlab(*, packed: bool) -> bytes:
    from scipy.io import savemat

    file = BytesIO()
    savemat(file, {"GTcls": {"Segmentation": np.zeros((9, 13), np.uint8)}}, do_compression=packed)
    return file.getvalue()


def instances() -> bytes:
    """COCO's JSON with a polygon and both kinds of run lengths."""
    masks: list[Any] = [
        [[1, 1, 9, 1, 9, 7]],
        {"size": [9, 13], "counts": [17, 50, 50]},
        {"size": [9, 13], "counts": "e3"},
    ]
    annotations = [{"id": i, "image_id": 1, "category_id": 1, "iscrowd": i % 2, "segmentation": mask}
                   for i, mask in enumerate(masks)]  # fmt: skip
    images = [{"id": 1, "file_name": "a.png", "height": 9, "width": 13}]
    return json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cup"}]}).encode()


def labels(path: Path) -> object:
    """What data import makes of a file of labels and what lies beside it."""
    tree = Tree([path.parent], without=path.parent / "out", scratch=path.parent / "scratch")
    source = open_source(tree, "auto", nearest=False, skip_bad=False, known=())
    found = [look(source, "auto", item) for item in source.items]
    if source.wrong:
        raise DataError(*source.wrong)
    return source.values({number: one for looked in found for number, one in looked.found.items()})


def shapes() -> bytes:
    """labelme's JSON with a polygon, a circle and a mask."""
    mask = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAAAAABX3VL4AAAADklEQVR4nGNg+M/0nwEABgYCAX4eAgoAAAAASUVORK5CYII="
    entries = [
        {"label": "cup", "shape_type": "polygon", "points": [[1, 1], [9.5, 1], [9, 7]]},
        {"label": "cap", "shape_type": "circle", "points": [[5, 5], [6, 6]]},
        {"label": "cup", "shape_type": "mask", "points": [[1, 1], [2, 2]], "mask": mask},
    ]
    return json.dumps({"shapes": entries, "imagePath": "a.png", "imageHeight": 9, "imageWidth": 13}).encode()


def unpacked(path: Path) -> list[Path]:
    """What data import finds in an archive."""
    with unpacked_sources([path], path.parent / "scratch") as roots:
        return [file for root in roots for file in root.rglob("*")]


def archive() -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("set/a.png", pictures("PNG")[0])
        target.writestr("set/a_mask.png", pictures("PNG", mode="L")[0])
    return file.getvalue()


def texts(folder: Path) -> dict[str, tuple[str, Callable[[Path], object], tuple[bytes, ...]]]:
    """Readers of texts that other commands wrote or a user did: title -> file, reader, good files."""
    row = {"image": "a", "result": "model", "miou": 0.5, "correct": [1, 2], "true": [2, 3], "predicted": [3, 2]}
    line = {"kind": "train", "step": 1, "loss": 0.7, "rate": 0.1, "images_per_second": 2.0, "data_wait": 0.0}
    result = {"miou": 0.5, "pixel_accuracy": 0.5, "mean_accuracy": 0.5, "iou": {"a": 0.5, "b": None}}
    final = {"kind": "final", "step": 1, "guidance_off": result, "guidance_on": result, "confusion": [[1, 2], [3, 4]],
             "seconds": 3.5, "worst": [{"name": "a", "miou": 0.25}]}  # fmt: skip
    journal = "\n".join(json.dumps(one) for one in (line, {**line, "step": 2}, final)).encode()
    session = {"time": "now", "step": 0, "command": "train", "processor": "x", "cores": 2, "threads": 1, "gpu": None,
               "processes": 1}  # fmt: skip
    SegModel.load(folder / "run").save_pretrained(folder / "kept")
    shutil.copytree(folder / "run", folder / "sessions")
    (folder / "sessions" / "metrics.jsonl").write_bytes(journal)
    weights = (b"sky = 1\nrest = 2.5\n", b'{"sky": 1, "rest": 2}', b"[1, 2]")
    card = (folder / "kept" / "card.json").read_bytes()
    return {
        "journal": ("run/metrics.jsonl", lambda path: run_report(path.parent), (journal,)),
        "sessions": ("sessions/sessions.jsonl", lambda path: run_report(path.parent), (json.dumps(session).encode(),)),
        "figures of images": ("f.jsonl", lambda path: read_per_image(str(path), 2), (json.dumps(row).encode(),)),
        "class weights, .toml": ("w.toml", lambda path: read_class_weights(str(path), ("sky", "rest")), weights),
        "class weights, .json": ("w.json", lambda path: read_class_weights(str(path), ("sky", "rest")), weights),
        "class weights, text": ("w.txt", lambda path: read_class_weights(str(path), ("sky", "rest")), weights),
        "card beside a model": ("kept/card.json", lambda path: SegModel.load(path.parent), (card,)),
        "archive, .zip": ("set.zip", unpacked, (archive(),)),
    }


def make_targets(folder: Path) -> dict[str, Target]:
    """All targets; the folder gets what they need around them."""
    furnish(folder)
    run, own = folder / "run", folder / "own"
    checkpoint = (run / "last.safetensors").read_bytes()
    with safe_open(run / "last.safetensors", framework="pt") as file:
        values_of_card = json.loads(file.metadata()["segmodel"])
        del values_of_card["sha256"]  # else whatever is changed is found at once, and nothing else is tried
        text = json.dumps(values_of_card).encode()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    backbone = ResNet(18, width=4, stem_width=4)
    torch.save(tensors, folder / "seed.pth")
    torch.save({"state_dict": tensors}, folder / "old.pth", _use_new_zipfile_serialization=False)
    weights = tuple((folder / name).read_bytes() for name in ("seed.pth", "old.pth"))
    into = backbone.load_weights
    array = BytesIO()
    np.save(array, np.zeros((2, 3, 4), np.float32))
    lists = (
        b"images/train/a.png labels/train/a.png\nimages/train/b.png labels/train/b.png\r\n",
        b"/x/y/images/a.png b\n",
    )
    values = index_values(2)
    colours = np.array([[0, 0, 0], [1, 1, 1]], np.uint8)
    targets = {
        "list of files": Target(
            written("own/train.txt", lambda path: open_data(f"folder:{own}", split="train")), lists
        ),
        "configuration": Target(
            written("config.toml", training), ((run / "config.toml").read_bytes(), b"[train]\nrate=1")
        ),
        "flags": Target(flag, (b"[1,2],[3,4]", b"0.5", b"true", b"17")),
        "classes.toml": Target(written("classes.toml", read_classes), ((own / "classes.toml").read_bytes(),)),
        "image": Target(written("x", read_image), pictures("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM")),
        "label, numbers": Target(
            written("x", lambda p: read_label(p, values=values)), pictures("PNG", "TIFF", mode="L")
        ),
        "label, colours": Target(
            written("x", lambda p: read_label(p, values=values, colours=colours)), pictures("PNG", "BMP")
        ),
        "checkpoint": Target(written("x.safetensors", model), (checkpoint, save(tensors, {"segmodel": text.decode()}))),
        "card of a checkpoint": Target(card(checkpoint), (text,)),
        "weights, .pth": Target(written("x.pth", into), weights, (ValueError,)),
        "weights, .safetensors": Target(written("x.safetensors", into), (checkpoint,), (ValueError,)),
        "scores, .npy": Target(written("x.npy", read_scores), (array.getvalue(),)),
        "settings of a refinement": Target(
            written("x.json", read_settings), (b'{"settings": {"radius": 3, "eps": 1.0}}',)
        ),
    }
    polygons, words = (
        (b"0 0.1 0.1 0.9 0.1 0.9 0.9\n2 0 0 1 0 1 1\n",),
        (b"names: [a, b]\n", b"names:\n  0: a\n  1: 'b'"),
    )
    known = (b"# label:color_rgb:parts:actions\na:0,0,0::\nb:1,1,1::\nc:1,0,0::\n",)
    for name, file, seeds in (
        ("labels of labelme", "a.json", (shapes(),)),
        ("labels of YOLO", "a.txt", polygons),
        ("names of YOLO", "data.yaml", words),
        ("names of CVAT", "labelmap.txt", known),
    ):
        place = folder / name
        place.mkdir()
        (place / "a.png").write_bytes(pictures("PNG")[0])
        if file == "data.yaml":
            (place / "a.txt").write_bytes(polygons[0])
        if file == "labelmap.txt":
            (place / "a_mask.png").write_bytes(pictures("PNG")[0])
        targets[name] = Target(written(f"{name}/{file}", labels), seeds)
    others = texts(folder)
    targets |= {title: Target(written(name, read), seeds) for title, (name, read, seeds) in others.items()}
    if find_spec("scipy"):
        sbd = folder / "sbd"
        for part in ("img", "cls"):
            (sbd / part).mkdir(parents=True)
        (sbd / "train.txt").write_text("a\n")
        (sbd / "img" / "a.jpg").write_bytes(pictures("JPEG")[0])
        seeds = (matlab(packed=True), matlab(packed=False))
        targets["SBD labels, .mat"] = Target(written("sbd/cls/a.mat", sample(f"sbd:{sbd}")), seeds)
    if find_spec("pycocotools"):
        (folder / "coco" / "annotations").mkdir(parents=True)
        (folder / "coco" / "train").mkdir()
        (folder / "coco" / "train" / "a.png").write_bytes(pictures("PNG")[0])
        read = written("coco/annotations/instances_train.json", sample(f"coco:{folder / 'coco'}"))
        targets["COCO instances"] = Target(read, (instances(),))
    return targets


def execute(target: Target, folder: Path, content: bytes) -> None:
    """One execution: it ends well or with a documented error in one printable line."""
    try:
        with time_limit(SECONDS, busy=True):
            target.read(folder, content)
    except target.errors as error:
        first = str(error) if isinstance(error, DataError | UserError) else ""
        assert first.isprintable(), first


def drawn(rng: random.Random) -> list[tuple[str, float, int]]:
    """Edits as ``EDITS`` draws them, some thirty times as fast."""
    return [(rng.choice(KINDS), rng.random(), rng.randrange(2**16)) for _ in range(rng.randint(1, 8))]


def hammer(target: Target, folder: Path, executions: int, rng: random.Random) -> int:
    """As ``fuzz`` without Hypothesis: what an execution failed on is kept in a file, and not made smaller."""
    before = peak_mebibytes()
    with environment(SEGMODEL_MAX_PIXELS=str(PIXELS)):
        for _ in range(executions):
            content = mutated(rng.choice(target.seeds), drawn(rng), rng.choice(target.seeds))
            try:
                execute(target, folder, content)
            except BaseException:
                Path("fuzz_failed.bin").write_bytes(content)
                raise
    grown = peak_mebibytes() - before
    assert grown < MEBIBYTES, f"{grown:.0f} MiB more memory"
    return executions


def fuzz(target: Target, folder: Path, executions: int, *, derandomize: bool) -> int:
    """Mutates the target's seeds so many times; the number of executions."""
    count = 0

    @settings(max_examples=executions, deadline=None, database=None, derandomize=derandomize,
              phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.sampled_from(target.seeds), st.sampled_from(target.seeds), EDITS)
    def attempt(seed: bytes, other: bytes, edits: list[tuple[str, float, int]]) -> None:
        nonlocal count
        count += 1
        execute(target, folder, mutated(seed, edits, other))

    before = peak_mebibytes()
    with environment(SEGMODEL_MAX_PIXELS=str(PIXELS)):
        for seed in target.seeds:
            execute(target, folder, seed)
        attempt()
    grown = peak_mebibytes() - before
    assert grown < MEBIBYTES, f"{grown:.0f} MiB more memory"
    return count + len(target.seeds)


def peak_mebibytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = int(os.environ.get("SEGMODEL_FUZZ_EXECUTIONS", "4000"))
    parser.add_argument("--executions", type=int, default=default, help="of each target (default: %(default)s)")
    parser.add_argument("--shrink", type=int, default=0, help="and so many by Hypothesis, which makes failures small")
    parser.add_argument("--only", nargs="+", default=[], metavar="TARGET")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32, help="of the edits (default: the time)")
    parser.add_argument("--json", metavar="FILE", help="write the numbers to this file as well")
    options = parser.parse_args()
    torch.set_num_threads(1)
    done = {}
    with tempfile.TemporaryDirectory() as name:
        for title, target in make_targets(Path(name)).items():
            start, memory = time.monotonic(), peak_mebibytes()
            if options.only and title not in options.only:
                continue
            count = hammer(target, Path(name), options.executions, random.Random(f"{options.seed} {title}"))
            if options.shrink:
                count += fuzz(target, Path(name), options.shrink, derandomize=False)
            done[title] = {"executions": count, "seconds": round(time.monotonic() - start),
                           "mebibytes": round(peak_mebibytes() - memory)}  # fmt: skip
            print(title, done[title], flush=True)
            if options.json:
                Path(options.json).write_text(json.dumps(done, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
