"""A room with a tiny model, a small data set and broken files of every sort, in which commands and functions are tried.

``Room.command`` runs a command in this process and gives its exit status and the last line of stderr; everything that
lay in the room before is compared with what lies there afterwards.
"""

import importlib
import os
import signal
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.fx.experimental.symbolic_shapes  # torch would load it late: where its files may not be read
from PIL import Image
from safetensors.torch import save_file

from segmodel.common import cli
from segmodel.common.options import to_toml
from segmodel.model.config import ModelConfig
from segmodel.model.store import save_checkpoint
from segmodel.segmodel import SegModel
from segmodel.training.settings import make_config

MODEL = {"depth": 18, "width": 4, "stem_width": 4, "label_hidden": 4, "rings": ((1, 2),), "label_pool": 5}
CLASSES = ["sky", "rest"]
PALETTE = [[10, 20, 30], [1, 2, 3]]
TRAIN = [
    "--epochs", "1", "--batch-size", "2", "--crop", "32,32", "--workers", "0", "--pictures", "0", "--precision",
    "float32", "--device", "cpu",
]  # fmt: skip
SIZE = (21, 37)  # height, width


@dataclass(frozen=True)
class Kind:
    """One kind of bad input; ``expected`` is a part of the message, or the right result where there is no error.

    status: of the command, where it is one: 2 the user's input, 1 what the run has come to.
    """

    name: str
    attempt: Callable[["Room"], Any]
    expected: object
    status: int = 2


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit status, all of stderr, what it changed of the files that were there, and stdout."""

    status: int
    errors: str
    harmed: list[str]
    output: str = ""


def model_flags() -> list[str]:
    rings = "[1,2]"
    flags = {name: value for name, value in MODEL.items() if name != "rings"}
    return [*(text for name, value in flags.items() for text in (f"--{name.replace('_', '-')}", str(value))),
            "--rings", rings]  # fmt: skip


def pixels(size: tuple[int, int] = SIZE, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, channels), dtype=np.uint8).squeeze()


def png(width: int, height: int, *, bits: int = 8, kind: int = 2, data: bytes = b"", broken: bool = False) -> bytes:
    """A PNG file with this header, whatever its data."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content) ^ broken)

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def jpeg(mode: str = "RGB", **options: Any) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels()).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@contextmanager
def as_somebody_else() -> Iterator[None]:
    """Root may read and write everything; nobody may not. (Other users are refused as they are.)"""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class Hang(BaseException):
    """Something took longer than it may."""


@contextmanager
def time_limit(seconds: int, *, busy: bool = False) -> Iterator[None]:
    """Raises ``Hang`` after so many seconds, or seconds of the processor."""

    def stop(*_: object) -> None:
        raise Hang

    timer, number = (signal.ITIMER_PROF, signal.SIGPROF) if busy else (signal.ITIMER_REAL, signal.SIGALRM)
    signal.signal(number, stop)
    signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        signal.setitimer(timer, 0)


class Room:
    """A folder to try things in: ``run`` (a run folder of a tiny model), ``own`` (a data set), ``new`` (nothing)."""

    nobody = False
    """Whether commands run as a user who may neither read nor write here."""

    def __init__(self, path: Path, capture: Any):
        self.path, self.capture = path, capture
        self.run, self.own, self.new = path / "run", path / "own", path / "new"

    def file(self, name: str, content: bytes | str = b"") -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def picture(self, name: str, content: np.ndarray | Image.Image | None = None, **options: Any) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = (
            content if isinstance(content, Image.Image) else Image.fromarray(pixels() if content is None else content)
        )
        image.save(path, **options)
        return path

    def snapshot(self) -> dict[str, bytes]:
        files = (file for file in self.path.rglob("*") if file.is_file() and not file.is_symlink())
        return {str(file.relative_to(self.path)): file.read_bytes() for file in files}

    def command(self, name: str, *arguments: object) -> Outcome:
        module = importlib.import_module(f"segmodel.{name}")
        before = self.snapshot()
        self.capture.readouterr()
        with as_somebody_else() if self.nobody else nullcontext():
            status = cli.run(name, module.main, [str(text) for text in arguments])
        after = self.snapshot()
        harmed = [file for file, content in before.items() if after.get(file) != content]
        harmed += [file for file in after if file.endswith(".partial")]
        output, errors = self.capture.readouterr()
        return Outcome(status, errors, harmed, output)

    def predict(self, *images: object, **variables: str) -> Outcome:
        with environment(**variables):
            return self.command("predict", self.run, *images, "--output", self.new, "--device", "cpu")

    def predicted(self, image: Path) -> str:
        """The documented right result: size of the prediction, which is that of the picture, upright."""
        outcome = self.predict(image)
        assert outcome.status == 0, outcome.errors
        label = Image.open(self.new / f"{image.stem}.png")
        return f"{label.mode} {label.width}x{label.height}"

    def train(self, *arguments: object) -> Outcome:
        return self.command("train", "--data", f"folder:{self.own}", *model_flags(), *TRAIN, *arguments,
                            "--output", self.new)  # fmt: skip

    def configured(self, text: str | bytes) -> Outcome:
        return self.train("--config", self.file("settings.toml", text))

    def label(self, content: np.ndarray | Image.Image | bytes, name: str = "labels/train/a.png") -> Path:
        """Puts this in the place of a label."""
        path = self.own / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            self.picture(f"own/{name}", content)
        return path

    def listed(self, text: str | bytes, index: int | None = None) -> Any:
        """The names (or one sample) of the data that this train.txt lists."""
        from segmodel.data import open_data

        self.file("own/train.txt", text)
        data = open_data(f"folder:{self.own}", split="train")
        return " ".join(data[i].name for i in range(len(data))) if index is None else data[index]

    def sample(self, index: int = 0) -> str:
        from segmodel.data import open_data

        sample = open_data(f"folder:{self.own}", split="train")[index]
        return f"{sample.image.shape} {sorted(set(sample.label.ravel().tolist()))}"

    def classes(self, text: str) -> Any:
        self.file("own/classes.toml", text)
        return self.sample()

    def checkpoint(
        self, *, card: Callable[[dict], None] | None = None, tensors: Callable[[dict], None] | None = None
    ) -> Path:
        """The run's checkpoint with its card or its tensors changed."""
        import json

        from safetensors import safe_open

        source = self.run / "last.safetensors"
        with safe_open(source, framework="pt") as file:
            values = json.loads(file.metadata()["segmodel"])
            del values["sha256"]  # as in a file of a former version
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if card:
            card(values)
        if tensors:
            tensors(weights)
        save_file(weights, self.path / "changed.safetensors", {"segmodel": json.dumps(values)})
        return self.path / "changed.safetensors"

    def evaluate(self, *arguments: object) -> Outcome:
        return self.command("evaluate", *arguments, "--device", "cpu")

    def resumed(self, **changes: Any) -> Outcome:
        """Resuming with this checkpoint in the place of the last."""
        self.checkpoint(**changes).replace(self.run / "last.safetensors")
        return self.command("train", "--resume", self.run)


def furnish(path: Path) -> None:
    """The run and the data of a room."""
    torch.manual_seed(0)
    model = SegModel(2, ModelConfig(**MODEL))
    run = path / "run"
    run.mkdir(parents=True)
    card = {"model": asdict(model.config), "classes": CLASSES, "palette": PALETTE, "data": "folder:own",
            "step": 1, "total_steps": 2, "best": 0.5, "finished": False, "scaler": None, "scores": None}  # fmt: skip
    save_checkpoint(run / "last.safetensors", model, card)
    settings = {"data": "folder:own", "batch_size": 2, "epochs": 2, "workers": 0, "pictures": 0,
                "precision": "float32", "device": "cpu"}  # fmt: skip
    config = make_config({"model": MODEL, "augmentation": {"crop": (32, 32)}, "train": settings})
    sections = {name: getattr(config, name) for name in ("model", "augmentation", "train")}
    (run / "config.toml").write_text(to_toml(sections))
    own = path / "own"
    for split in ("train", "val"):
        for part in ("images", "labels"):
            (own / part / split).mkdir(parents=True)
        for name in ("a", "b"):
            Image.fromarray(pixels()).save(own / "images" / split / f"{name}.png")
            Image.fromarray(np.resize(np.array([0, 1, 255], np.uint8), SIZE)).save(
                own / "labels" / split / f"{name}.png"
            )
    entries = [f'{{name = "{name}", colour = {colour}}}' for name, colour in zip(CLASSES, PALETTE, strict=True)]
    (own / "classes.toml").write_text(f"ignore = 255\nclasses = [{', '.join(entries)}]\n")
