"""Pipes in the place of files, endless tails, texts nested too deep, numbers and paths too large, models that compute
NaN, and pictures that would start a program."""

import math
import os
import socket
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bad_input_commands import given, kept, model
from bad_input_tools import Kind, Room, environment

from segmodel import GuidanceCRF, SegModel
from segmodel.data import open_data
from segmodel.evaluation.per_image import read_per_image
from segmodel.inference.inputs import read_scores
from segmodel.inference.refine import refine, refine_mask
from segmodel.inference.refinement import read_settings
from segmodel.inference.windows import mapped
from segmodel.model.weights import read_weights
from segmodel.training.class_weights import read_class_weights
from segmodel.training.report import run_report

Attempt = Callable[[Room], Any]
GIBIBYTES = 1 << 32
STEM = "backbone.conv1.weight"
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(harmed.txt) (w) file closefile\nshowpage\n"
REFINE = ("refine", "own/images/train/a.png", "s.npy", "--output", "x.png")
PREDICT = ("predict", "run", "own/images/train/a.png", "--output", "new", "--device", "cpu")


def instead(name: str, attempt: Attempt, *, make: Callable[[str], object] = os.mkfifo) -> Attempt:
    """The attempt with a pipe in the place of this file, which may not be there."""

    def tried(room: Room) -> Any:
        path = room.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        make(str(path))
        try:
            return attempt(room)
        finally:
            path.unlink(missing_ok=True)

    return tried


def bind(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)


def command(*arguments: object) -> Attempt:
    return lambda room: room.command(*arguments)


def train(*arguments: object) -> Attempt:
    return lambda room: room.train(*arguments)


def sample(room: Room) -> str:
    return room.sample()


def scores(room: Room) -> None:
    np.save(room.path / "s.npy", np.zeros((2, 5, 9), np.float32))


def shown(room: Room) -> str:
    """What the report says of the picture that cannot be shown."""
    room.file("run/metrics.jsonl", "")
    page = run_report(room.run)
    return (
        next(line for line in page.splitlines() if "cannot be shown" in line).partition("shown (")[2].partition(")<")[0]
    )


PIPE = "expected a regular file, got a pipe"
PIPES = [
    Kind("pipe as classes.toml", instead("own/classes.toml", sample), f"classes.toml: cannot be read: {PIPE}"),
    Kind("pipe as a list", instead("own/train.txt", sample), f"train.txt: cannot be read: {PIPE}"),
    Kind(
        "pipe as a listed picture", instead("own/p.png", lambda r: r.listed("p.png p.png")), "no such file: own/p.png"
    ),
    Kind("pipe as a picture", instead("p.png", lambda r: r.predict("p.png")), "p.png: "),
    Kind("pipe as a picture of the API", instead("p.png", lambda r: model().segment("p.png")), PIPE),
    Kind("pipe as a run", instead("p", command("evaluate", "p")), "found a pipe or device"),
    Kind(
        "pipe as a checkpoint", instead("p.safetensors", lambda r: SegModel.load("p.safetensors")), "a pipe or device"
    ),
    Kind("pipe as the card beside", instead("kept/card.json", lambda r: read_card(r)), f"not a readable card ({PIPE})"),
    Kind("pipe as a configuration", instead("p.toml", train("--config", "p.toml")), f"not a TOML file ({PIPE})"),
    Kind("pipe as a run's configuration", instead("run/config.toml", command("train", "--resume", "run")), PIPE),
    Kind(
        "pipe as a last checkpoint",
        instead("run/last.safetensors", command("export", *PREDICT[1:2], "--format", "pt2", "--output", "x.pt2")),
        "run: expected a run folder",
    ),
    Kind("pipe as a journal", instead("run/metrics.jsonl", command("report", "run")), PIPE),
    Kind("pipe as sessions", instead("run/sessions.jsonl", given("run/metrics.jsonl", "", "report", "run")), PIPE),
    Kind("pipe as a picture of a run", instead("run/pictures/step_1.png", shown), PIPE),
    Kind("pipe as class weights", instead("w.toml", train("--class-weights", "w.toml")), PIPE),
    Kind("pipe as weights, .pth", instead("w.pth", train("--init-weights", "w.pth")), PIPE),
    Kind("pipe as weights, .safetensors", instead("w.safetensors", train("--init-weights", "w.safetensors")), PIPE),
    Kind("pipe as a model to start from", instead("m", train("--init-model", "m")), "m: expected a run folder"),
    Kind("pipe as scores", instead("s.npy", command(*REFINE)), PIPE),
    Kind("pipe as mapped scores", instead("s.npy", lambda r: mapped("s.npy")), PIPE),
    Kind("pipe as scores to tune on", instead("scores/a.npy", command("tune", "scores", "--data", "folder:own")), PIPE),
    Kind("pipe as a mask of the API", instead("m.png", lambda r: refine_mask("m.png", "own/images/train/a.png")), PIPE),
    Kind(
        "pipe as the picture of a refinement",
        instead("p.png", lambda r: refine(np.zeros((2, 5, 9), np.float32), "p.png")),
        PIPE,
    ),
    Kind(
        "pipe as settings", instead("s.json", lambda r: scores(r) or r.command(*REFINE, "--settings", "s.json")), PIPE
    ),
    Kind(
        "pipe as figures to compare with", instead("f.jsonl", command("evaluate", "run", "--compare", "f.jsonl")), PIPE
    ),
    Kind("pipe as a model of an ensemble", instead("m", command(*PREDICT, "--ensemble", "m")), "m: expected a run"),
    Kind(
        "pipe as a source of import",
        instead("set", command("data.__main__", "import", "set", "--output", "new")),
        "found no files",
    ),
    Kind(
        "pipe as an archive",
        instead("set.zip", command("data.__main__", "import", "set.zip", "--output", "new")),
        f"set.zip: cannot be unpacked: {PIPE}",
    ),
    Kind("pipe as SBD's labels", lambda r: matlab(r), PIPE),
    Kind("pipe as COCO's instances", instead("coco/annotations/instances_train.json", lambda r: coco(r)), "coco: "),
    Kind(
        "pipe as a list of names of import",
        instead(
            "n.txt",
            lambda r: (
                r.picture("set/a.png")
                and r.picture("set/a_mask.png", np.eye(21, 37, dtype=np.uint8))
                and r.command(
                    "data.__main__", "import", "set", "--output", "new", "--train-list", "n.txt", "--workers", "0"
                )
            ),
        ),
        "n.txt",
    ),
    Kind(
        "socket as a configuration", instead("s", train("--config", "s"), make=bind), "expected a regular file, got a s"
    ),
    Kind(
        "socket as classes.toml", instead("own/classes.toml", sample, make=bind), "expected a regular file, got a sock"
    ),
    Kind("socket as scores", instead("s.npy", command(*REFINE), make=bind), "expected a regular file, got a socket"),
    Kind(
        "link to a pipe",
        instead("p", lambda r: os.symlink("p", "l.toml") or r.train("--config", "l.toml")),
        f"l.toml: not a TOML file ({PIPE})",
    ),
]


def read_card(room: Room) -> object:
    model().save_pretrained(room.path / "made")
    (room.path / "made" / "model.safetensors").rename(room.path / "kept" / "model.safetensors")
    return SegModel.load(room.path / "kept")


def matlab(room: Room) -> object:
    room.file("sbd/train.txt", "a\n")
    room.picture("sbd/img/a.jpg")
    (room.path / "sbd" / "cls").mkdir()
    os.mkfifo(room.path / "sbd" / "cls" / "a.mat")
    from segmodel.data.voc import read_mat

    return read_mat(room.path / "sbd" / "cls" / "a.mat")


def coco(room: Room) -> object:
    (room.path / "coco" / "train").mkdir()
    return open_data("coco:coco", split="train")


def tailed(name: str, read: Attempt, size: int = GIBIBYTES) -> Attempt:
    """The attempt where this file, made if it is not there, has grown to so many bytes, none of them on the disk."""

    def attempt(room: Room) -> Any:
        path = room.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.truncate(path, size)
        try:
            return read(room)
        finally:
            path.unlink()

    return attempt


def arrays(room: Room) -> tuple[int, ...]:
    scores(room)
    os.truncate(room.path / "s.npy", GIBIBYTES)
    return read_scores(room.path / "s.npy").shape


def saved(content: object, **options: Any) -> Attempt:
    def attempt(room: Room) -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.save(content, room.path / "w.pth", **options)
        return room.train("--init-weights", "w.pth")

    return attempt


def compressed(room: Room) -> object:
    """A .pth of a few bytes that unpacks to more."""
    torch.save({"conv1.weight": torch.zeros(4, 3, 7, 7)}, room.path / "a.pth")
    with zipfile.ZipFile(room.path / "a.pth") as source, zipfile.ZipFile("w.pth", "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return room.train("--init-weights", "w.pth")


def quantised() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.zeros(4, 3, 7, 7), 0.1, 0, torch.qint8)


def header(length: int) -> Attempt:
    return lambda room: SegModel.load(room.file("h.safetensors", length.to_bytes(8, "little") + b"{}" * 9))


def zipped(**limits: str) -> Attempt:
    def attempt(room: Room) -> object:
        with zipfile.ZipFile("set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name in ("a.png", "a_mask.png"):
                archive.writestr(name, bytes(10**6))
        with environment(**limits):
            return room.command("data.__main__", "import", "set.zip", "--output", "new")

    return attempt


SIZES = [
    Kind(
        "tail behind a checkpoint",
        tailed("run/last.safetensors", lambda r: SegModel.load("run")),
        "as its header says, got",
    ),
    Kind(
        "tail behind a configuration", tailed("c.toml", train("--config", "c.toml"), 1 << 21), "at most 1048576 bytes"
    ),
    Kind("tail behind classes.toml", tailed("own/classes.toml", sample), "(SEGMODEL_MAX_CONFIG_BYTES), got 4294967296"),
    Kind("tail behind a list", tailed("own/train.txt", sample), "(SEGMODEL_MAX_LIST_BYTES), got 4294967296"),
    Kind("tail behind a picture", tailed("own/images/train/a.png", sample), "(SEGMODEL_MAX_PICTURE_BYTES), got 42949"),
    Kind("tail behind a label", tailed("own/labels/train/a.png", sample), "(SEGMODEL_MAX_PICTURE_BYTES), got 42949"),
    Kind(
        "tail behind a journal", tailed("run/metrics.jsonl", lambda r: run_report(r.run)), "(SEGMODEL_MAX_JSON_BYTES)"
    ),
    Kind(
        "tail behind weights, .pth",
        tailed("w.pth", lambda r: read_weights("w.pth"), 1 << 35),
        "(SEGMODEL_MAX_ARRAY_BYTES)",
    ),
    Kind(
        "tail behind weights, .safetensors",
        tailed("w.safetensors", lambda r: read_weights("w.safetensors")),
        "not a readable weight",
    ),
    Kind("tail behind settings", tailed("s.json", lambda r: read_settings("s.json")), "(SEGMODEL_MAX_CONFIG_BYTES)"),
    Kind(
        "tail behind class weights", tailed("w.txt", lambda r: read_class_weights("w.txt", ["a"])), "MAX_CONFIG_BYTES"
    ),
    Kind("tail behind figures", tailed("f.jsonl", lambda r: read_per_image("f.jsonl", 2)), "(SEGMODEL_MAX_JSON_BYTES)"),
    Kind("tail behind scores, which are read alone", arrays, (2, 5, 9)),
    Kind(
        "scores of more than the limit",
        tailed("s.npy", lambda r: read_scores(Path("s.npy")), 1 << 35),
        "SEGMODEL_MAX_ARRAY",
    ),
    Kind("tail behind a card", lambda r: kept(text=" " * (1 << 21))(r), "(SEGMODEL_MAX_CONFIG_BYTES), got 2097152"),
    Kind("header of a terabyte", header(1 << 40), "expected a header of at most 18 bytes, got 1099511627776"),
    Kind("header of more than there is", header(19), "expected a header of at most 18 bytes, got 19"),
    Kind(
        "header that is no table",
        lambda r: SegModel.load(r.file("h.safetensors", (2).to_bytes(8, "little") + b"[]")),
        "expected a table as its header",
    ),
    Kind(
        "checkpoint of three bytes",
        lambda r: SegModel.load(r.file("h.safetensors", b"abc")),
        "not a readable checkpoint",
    ),
    Kind("checkpoint with one byte more", lambda r: longer(r, b"\0"), "as its header says, got"),
    Kind("checkpoint cut short by one byte", lambda r: longer(r, None), "as its header says, got"),
    Kind("compressed .pth", compressed, "expected parts that are not compressed"),
    Kind(
        "quantised .pth",
        saved({"conv1.weight": quantised()}),
        "conv1.weight: expected plain tensors of torch.float32, got q",
    ),
    Kind("sparse .pth", saved({"conv1.weight": torch.zeros(4, 3, 7, 7).to_sparse()}), "expected plain tensors"),
    Kind(
        ".pth of small floats", saved({"conv1.weight": torch.zeros(4, 3, 7, 7).to(torch.float8_e5m2)}), "plain tensors"
    ),
    Kind(
        ".pth of whole numbers", saved({"conv1.weight": torch.zeros(4, 3, 7, 7, dtype=torch.int64)}), "got torch.int64"
    ),
    Kind("archive over the limit", zipped(SEGMODEL_MAX_ARCHIVE_BYTES="100000"), "at most 100000 bytes unpacked"),
    Kind("archive of too many files", zipped(SEGMODEL_MAX_ARCHIVE_FILES="1"), "expected at most 1 files"),
    Kind("archive of more than the disk holds", lambda r: full(r), "has room for 0"),
]


def longer(room: Room, more: bytes | None) -> object:
    file = room.run / "last.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] if more is None else content + more)
    return SegModel.load(room.run)


def full(room: Room) -> object:
    from segmodel.data.importing import command as importing

    before, room_for = importing.shutil.disk_usage, type("Usage", (), {"free": 0})
    importing.shutil.disk_usage = lambda place: room_for  # type: ignore[assignment]
    try:
        return zipped()(room)
    finally:
        importing.shutil.disk_usage = before


DEEP, HUGE = "[" * 100_000, "9" * 4000
DOTTED = f"{'.'.join('a' * 9000)} = 1"


def card_of(text: str) -> Attempt:
    """A checkpoint whose card is this text."""

    def attempt(room: Room) -> object:
        from safetensors.torch import load_file, save_file

        save_file(load_file(room.run / "last.safetensors"), room.path / "c.safetensors", {"segmodel": text})
        return room.evaluate("c.safetensors")

    return attempt


NESTED = [
    Kind("configuration nested without end", lambda r: r.configured(f"a = {DEEP}"), "nested too deeply"),
    Kind("configuration of endless keys", lambda r: r.configured(DOTTED), "keys of at most 16 dotted parts"),
    Kind("configuration of endless tables", lambda r: r.configured(f"[{'.'.join('a' * 9000)}]"), "at most 16 dotted"),
    Kind("configuration of endless quoted keys", lambda r: r.configured('"a" . ' * 99 + "b = 1"), "at most 16 dotted"),
    Kind("configuration of a huge number", lambda r: r.configured(f"[train]\nepochs = {HUGE}"), "at most 64 bits"),
    Kind("configuration of a huge number of 16", lambda r: r.configured(f"a = 0x{HUGE}"), "at most 64 bits"),
    Kind("classes.toml of endless keys", lambda r: r.classes(DOTTED), "keys of at most 16 dotted parts"),
    Kind("classes.toml of a huge number", lambda r: r.classes(f"ignore = {HUGE}"), "at most 64 bits"),
    Kind("card in a header nested without end", card_of(DEEP), "not a readable checkpoint (nested too deeply)"),
    Kind("card of a huge number", card_of(f'{{"format": {HUGE}}}'), "whole numbers of at most 64 bits"),
    Kind("card beside nested without end", kept(text=DEEP), "not a readable card (nested too deeply)"),
    Kind("card beside of a huge number", kept(text=HUGE), "whole numbers of at most 64 bits"),
    Kind("settings nested without end", given("s.json", DEEP, *REFINE, "--settings", "s.json"), "nested too deeply"),
    Kind(
        "settings of a huge number",
        given("s.json", f'{{"settings": {{"radius": {HUGE}}}}}', *REFINE, "--settings", "s.json"),
        "at most 64 bits",
    ),
    Kind(
        "class weights nested without end",
        lambda r: r.train("--class-weights", r.file("w.json", DEEP)),
        "nested too deeply",
    ),
    Kind(
        "class weights of a huge number",
        lambda r: r.train("--class-weights", r.file("w.toml", f"sky = {HUGE}")),
        "at most 64 bits",
    ),
    Kind("figures nested without end", given("f.jsonl", DEEP, "evaluate", "run", "--compare", "f.jsonl"), "too deeply"),
    Kind(
        "figures of a huge number", given("f.jsonl", HUGE, "evaluate", "run", "--compare", "f.jsonl"), "at most 64 bits"
    ),
    Kind("journal nested without end", lambda r: given("run/metrics.jsonl", DEEP, "report", "run")(r).status, 0),
    Kind("journal of a huge number", lambda r: given("run/metrics.jsonl", HUGE, "report", "run")(r).status, 0),
    Kind("flag of a huge number", train("--validate-every", "9" * 400), "expected at most 64 bits"),
    Kind("flag nested without end", train("--rings", DEEP), "--rings: expected a list"),
]

LONG = "n" * 5000
PATHS = [
    Kind("path too long: run", command("evaluate", LONG), "expected a run folder or a checkpoint file"),
    Kind("path too long: picture", lambda r: r.predict(LONG), LONG[:60]),
    Kind("path too long: configuration", train("--config", LONG), "File name too long"),
    Kind("path too long: class weights", train("--class-weights", f"{LONG}.toml"), "File name too long"),
    Kind("path too long: weights", train("--init-weights", f"{LONG}.pth"), "File name too long"),
    Kind("path too long: model to start from", train("--init-model", LONG), "expected a run folder"),
    Kind("path too long: data", lambda r: open_data(f"folder:{LONG}", split="train"), "folder: expected a folder"),
    Kind("path too long: output", command(*PREDICT[:3], "--output", LONG), "File name too long"),
    Kind("path too long: resumed run", command("train", "--resume", LONG), "File name too long"),
    Kind("path too long: report", command("report", LONG), "File name too long"),
    Kind("path too long: scores", command(*REFINE[:2], f"{LONG}.npy", "--output", "x.png"), "File name too long"),
    Kind(
        "path too long: refined", lambda r: scores(r) or r.command(*REFINE[:3], "--output", f"{LONG}.png"), "too long"
    ),
    Kind("path too long: exported", command("export", "run", "--format", "pt2", "--output", f"{LONG}.pt2"), "too long"),
    Kind("path too long: figures", command("evaluate", "run", "--json", LONG), "File name too long"),
    Kind("path too long: source of import", command("data.__main__", "import", LONG, "--output", "new"), "too long"),
    Kind("path too long: tuned scores", command("tune", LONG, "--data", "folder:own"), LONG[:60]),
    Kind("path too long: entry of a list", lambda r: r.listed(f"{LONG}.png {LONG}.png"), "no such file"),
]


def limited(*arguments: object) -> Attempt:
    return lambda room: scores(room) or room.command(*arguments)


BOUNDS = [
    Kind("a million loaders", train("--workers", "1000000"), "workers: expected at most 256, got 1000000"),
    Kind(
        "a million loaders that check", command("data.__main__", "check", "folder:own", "--workers", "1000000"), "256"
    ),
    Kind(
        "a million loaders that import",
        command("data.__main__", "import", "own", "--output", "new", "--workers", "1000000"),
        "at most 256",
    ),
    Kind("a billion iterations", limited(*REFINE, "--iterations", "1000000000"), "iterations: expected at most 1000"),
    Kind("stride of a billion", limited(*REFINE, "--stride", "1000000000"), "stride: expected at most 4096"),
    Kind("radius of a billion", limited(*REFINE, "--radius", "1000000000"), "radius: expected at most 10000"),
    Kind("tune: stride of a billion", command("tune", "run", "--data", "folder:own", "--stride", "1000000000"), "4096"),
    Kind("window of a billion", command(*PREDICT, "--window", "1000000000,1000000000"), "--window: expected at most"),
    Kind("scale of a billion", command(*PREDICT, "--scales", "1000000000"), "--scales: expected at most 64"),
    Kind("a billion pictures a pass", command(*PREDICT, "--batch-size", "1000000000"), "expected at most 65536"),
    Kind("a billion resamples", command("evaluate", "run", "--bootstrap", "1000000000"), "expected at most 1e+06"),
    Kind("trimap of a billion", command("evaluate", "run", "--trimap", "1000000000"), "expected at most 100000"),
    Kind("batch of a billion", train("--batch-size", "1000000000"), "expected at most 65536"),
    Kind("a billion parts", train("--accumulate", "1000000000"), "expected at most 65536"),
    Kind("a trillion epochs", train("--epochs", "1000000000000"), "expected at most 1e+06"),
    Kind("a trillion steps", train("--steps", "1000000000000"), "expected at most 1e+09"),
    Kind("crop of a billion", train("--crop", "1000000000,1000000000"), "expected at most 65536"),
    Kind("a million years of patience", train("--timeout-minutes", "1e12"), "expected at most 100000"),
    Kind("a billion checkpoints", train("--keep-last", "1000000000"), "expected at most 1e+06"),
    Kind(
        "a billion samples to show",
        command("data.__main__", "show", "folder:own", "--output", "x.png", "--images", "1000000000"),
        "at most 10000",
    ),
]


def changed(change: Callable[[dict[str, torch.Tensor]], object], then: Callable[[Room, Path], Any]) -> Attempt:
    return lambda room: then(room, room.checkpoint(tensors=change))


def predicted(room: Room, file: Path) -> Any:
    return room.command("predict", file, "own/images/train/a.png", "--output", "new", "--device", "cpu")


def overflow(tensors: dict[str, torch.Tensor]) -> None:
    """Every tensor is finite, and what the first convolution makes is not."""
    tensors[STEM].fill_(3e38)


def spoilt(room: Room, crf: GuidanceCRF) -> object:
    with torch.no_grad():
        crf.compatibility[0, 1] = math.nan
    return refine(np.zeros((2, 6, 10), np.float32), "own/images/train/a.png", crf=crf)


VARIANCE = "backbone.bn1.running_var"
NOT_FINITE = [
    Kind(
        "NaN weights that predict", changed(lambda t: t[STEM].fill_(math.nan), predicted), f"{STEM}: expected finite", 1
    ),
    Kind("infinite weights", changed(lambda t: t[STEM][0].fill_(math.inf), predicted), f"{STEM}: expected finite", 1),
    Kind(
        "infinite statistics",
        changed(lambda t: t[VARIANCE].fill_(math.inf), predicted),
        f"{VARIANCE}: expected finite",
        1,
    ),
    Kind(
        "negative variance",
        changed(lambda t: t[VARIANCE].fill_(-1), predicted),
        f"{VARIANCE}: expected a variance of at least 0, got -1",
        1,
    ),
    Kind("finite weights, infinite scores", changed(overflow, predicted), "scores are NaN or infinite: backbone.", 1),
    Kind(
        "finite weights, infinite scores, evaluated",
        changed(overflow, lambda r, file: r.evaluate(file)),
        "scores are NaN or infinite: backbone.",
        1,
    ),
    Kind(
        "finite weights, infinite scores, exported",
        changed(overflow, lambda r, file: r.command("export", file, "--format", "pt2", "--output", "x.pt2")),
        "NaN",
        1,
    ),
    Kind(
        "finite weights, infinite scores, of the API",
        changed(overflow, lambda r, file: SegModel.load(file).segment("own/images/train/a.png")),
        "scores are NaN or inf",
    ),
    Kind(
        "NaN weights to tune on",
        changed(lambda t: t[STEM].fill_(math.nan), lambda r, file: r.command("tune", file, "--data", "folder:own")),
        f"{STEM}: expected finite",
        1,
    ),
    Kind(
        "NaN weights to start from",
        changed(lambda t: t[STEM].fill_(math.nan), lambda r, file: r.train("--init-model", file)),
        f"{STEM}: expected finite",
        1,
    ),
    Kind(
        "NaN weights to go on with",
        lambda r: r.resumed(tensors=lambda t: t[STEM].fill_(math.nan)),
        f"{STEM}: expected finite",
        1,
    ),
    Kind("NaN weights to go on with, by overflow", lambda r: r.resumed(tensors=overflow), "the loss is nan", 1),
    Kind("NaN in a CRF of the API", lambda r: spoilt(r, GuidanceCRF(2)), "compatibility: expected finite values"),
    Kind(
        "scores that overflow",
        lambda r: refine(np.full((2, 6, 10), 3e38, np.float32) * [[[1]], [[-1]]], "own/images/train/a.png").shape,
        (2, 21, 37),
    ),
]

PROGRAMS = [
    Kind("EPS as a picture", lambda r: r.predict(r.file("e.png", EPS)), "cannot identify image file"),
    Kind("EPS by its own name", lambda r: r.predict(r.file("e.eps", EPS)), "e.eps"),
    Kind("EPS as a picture of data", lambda r: r.file("own/images/train/a.png", EPS) and r.sample(), "cannot identify"),
    Kind("EPS as a label", lambda r: r.label(EPS) and r.sample(), "cannot identify image file"),
    Kind("EPS as a picture of the API", lambda r: model().segment(r.file("e.png", EPS)), "cannot identify image file"),
    Kind("EPS as a mask", lambda r: refine_mask(r.file("m.png", EPS), "own/images/train/a.png"), "cannot identify"),
    Kind(
        "EPS as a picture of a run",
        lambda r: r.file("run/pictures/step_1.png", EPS) and shown(r),
        "cannot be read as an image: cannot identify image file, expected one of JPEG, PNG, BMP, TIFF, WEBP, PPM, GIF",
    ),
    Kind(
        "EPS as labels of unknown classes",
        lambda r: (r.own / "classes.toml").unlink() or (r.label(EPS) and r.sample()),
        "no such file",
    ),
    Kind("PDF as a picture", lambda r: r.predict(r.file("e.png", b"%PDF-1.4\n%%EOF\n")), "cannot identify image file"),
]

READERS = [*PIPES, *SIZES, *NESTED, *PATHS, *BOUNDS, *NOT_FINITE, *PROGRAMS]
