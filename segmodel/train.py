"""Trains a SegModel.

    python -m segmodel.train                                         # built-in scenes, minutes on two CPU cores
    python -m segmodel.train --data voc:VOCdevkit --init-weights resnet101.pth
    python -m segmodel.train --resume runs/2026-01-31_120000

The run folder holds config.toml, metrics.jsonl, the checkpoints last and best, and pictures of predictions.
Settings come from, each over the one before: defaults (the paper's), a recipe, --config, --variant, flags.
"""

import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from segmodel import cli, pictures
from segmodel.backbone import load_initial_weights
from segmodel.checkpoint import (
    build_model,
    read_checkpoint,
    restore_momentum,
    save_checkpoint,
    versions,
    write_atomically,
)
from segmodel.data import Augmentation, AugmentedData, open_data
from segmodel.evaluate import (
    Precision,
    autocast,
    autocast_dtype,
    choose_device,
    evaluate,
    label_maps,
    place,
    result_json,
)
from segmodel.loader import BatchKeys, load_batches, steps_per_epoch
from segmodel.metrics import Scores, table
from segmodel.model import VARIANTS, ModelConfig, SegModel
from segmodel.optimisation import make_optimizer, poly_rate, recompute_batch_norm, training_step
from segmodel.options import UserError, add_flags, build, flag_values, option, read_toml, to_toml


@dataclass(frozen=True)
class TrainConfig:
    """What to train on and how; the defaults are the paper's."""

    data: str = option("scenes", "scenes, camvid:PATH, voc:PATH or folder:PATH")
    init_weights: str = option("", "backbone weights, .safetensors or .pth with torchvision's names", "Sec. 7.1.2")
    seed: int = option(0, "seed of weights, order and augmentation")
    epochs: int = option(36, "passes over the training set", "Sec. 7.3")
    steps: int = option(0, "stop after so many steps instead (0: epochs decide)")
    batch_size: int = option(16, "images a step", "Sec. 7.1.2")
    rate: float = option(0.01, "initial learning rate", "Sec. 7.1.2")
    power: float = option(0.9, "power of the poly schedule", "works cited in Sec. 7.1.2")
    momentum: float = option(0.9, "momentum of SGD", "Sec. 7.1.2")
    weight_decay: float = option(1e-4, "weight decay (lambda of Eq. 17)", "Sec. 7.1.2")
    keep: float = option(0.5, "share of the pixels kept, those with the larger loss", "Sec. 7.1.2")
    mining: Literal["pixel", "block"] = option("pixel", "decide for each pixel (text) or each 4x4 block (code)")
    mining_from: float = option(0.0, "share of the training before mining starts (short trainings: 0.3 is better)")
    joint_from: float = option(0.0, "share of the training before the guidance CRF joins (from scratch: 0.6 is better)")
    batch_norm_epochs: float = option(1.0, "passes that recompute the batch-norm statistics at the end", "Sec. 7.1.2")
    validate_every: int = option(1, "epochs between validations (0: only at the end)")
    validate_images: int = option(0, "validation images used during training (0: all)")
    pictures: int = option(6, "validation images drawn at each validation")
    checkpoint_minutes: float = option(10.0, "minutes between checkpoints beside those at validations")
    precision: Precision = option("auto", "dtype of the convolutions; auto: bfloat16 where it is fast")
    workers: int = option(-1, "loader processes (-1: one for each core but one, at most 8)")
    device: str = option("auto", "cpu, cuda, ...; auto: a GPU where there is one")

    def __post_init__(self) -> None:
        at_least = {"epochs": 1, "batch_size": 1, "workers": -1} | dict.fromkeys(
            ("steps", "validate_every", "validate_images", "pictures", "batch_norm_epochs", "rate", "momentum",
             "weight_decay", "seed", "joint_from", "mining_from"), 0)  # fmt: skip
        for name, low in at_least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name}: expected at least {low}, got {getattr(self, name)}")
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep: expected more than 0 and at most 1, got {self.keep}")


SECTIONS = {"model": ModelConfig, "augmentation": Augmentation, "train": TrainConfig}


@dataclass(frozen=True)
class Config:
    """The three sections together, as config.toml holds them."""

    model: ModelConfig = field(default_factory=ModelConfig)
    augmentation: Augmentation = field(default_factory=Augmentation)
    train: TrainConfig = field(default_factory=TrainConfig)


def make_config(*layers: dict[str, dict[str, Any]]) -> Config:
    """Defaults, overridden by each layer in turn."""
    parts = {name: build(section, *(layer.get(name, {}) for layer in layers)) for name, section in SECTIONS.items()}
    return Config(**parts)


def recipe_names() -> list[str]:
    return sorted(item.name.removesuffix(".toml") for item in (resources.files("segmodel") / "recipes").iterdir())


def read_recipe(name: str) -> dict[str, dict[str, Any]]:
    """A configuration that ships with the package."""
    if name not in recipe_names():
        raise UserError(f"--recipe: expected one of {', '.join(recipe_names())}, got {name!r}")
    with resources.as_file(resources.files("segmodel") / "recipes" / f"{name}.toml") as path:
        return read_toml(path, SECTIONS)


class StopSignal:
    """Remembers SIGINT or SIGTERM until the step is done; a second one acts at once."""

    def __init__(self) -> None:
        self.number = 0

    def __enter__(self) -> "StopSignal":
        self.old = {number: signal.signal(number, self._remember) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _: object) -> None:
        if self.number:
            raise KeyboardInterrupt
        self.number = number


class Trainer:
    """One run: model, data, optimiser, and the folder that they are written to."""

    def __init__(self, config: Config, folder: Path, *, resume: bool):
        self.config, self.folder = config, folder
        train = config.train
        self.device = choose_device(train.device)
        self.dtype = autocast_dtype(train.precision, self.device)
        self.data = open_data(train.data, split="train")
        self.validation = open_data(train.data, split="val")
        self.augmented = AugmentedData(self.data, config.augmentation, seed=train.seed)
        self.steps_per_epoch = steps_per_epoch(len(self.data), train.batch_size)
        self.total = train.steps or train.epochs * self.steps_per_epoch
        self.step, self.best, self.finished = 0, -1.0, False
        self.scaler = torch.amp.GradScaler(self.device.type) if self.dtype == torch.float16 else None
        if resume:
            self._restore()
        else:
            self._initialise()

    def _initialise(self) -> None:
        train = self.config.train
        torch.manual_seed(train.seed)
        try:
            self.model = SegModel(len(self.data.classes), self.config.model)
            if train.init_weights:
                print(f"{train.init_weights}: {load_initial_weights(self.model.backbone, train.init_weights)}")
        except ValueError as error:
            raise UserError(str(error)) from error
        self._place()

    def _place(self) -> None:
        place(self.model, self.device)
        train = self.config.train
        self.optimizer = make_optimizer(
            self.model, rate=train.rate, momentum=train.momentum, weight_decay=train.weight_decay
        )

    def _restore(self) -> None:
        file = self.folder / "last.safetensors"
        card, tensors = read_checkpoint(file)
        if card["classes"] != list(self.data.classes):
            raise UserError(f"{file}: trained on other classes than {self.config.train.data} has")
        self.model = build_model(file, card, tensors)
        self._place()
        restore_momentum(self.model, self.optimizer, tensors)
        self.step, self.best, self.finished = card["step"], card["best"], card["finished"]
        if self.scaler is not None and card.get("scaler"):
            self.scaler.load_state_dict(card["scaler"])
        metrics = self.folder / "metrics.jsonl"
        lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
        kept = [line for line in lines if json.loads(line)["step"] <= self.step]
        write_atomically(metrics, "".join(line + "\n" for line in kept))

    def save(self, name: str, *, scores: Scores | None = None) -> None:
        """Writes the checkpoint ``name``; only "last" holds what training needs to go on."""
        card = {
            "model": asdict(self.config.model),
            "classes": list(self.data.classes),
            "palette": self.data.palette.tolist(),
            "data": self.config.train.data,
            "step": self.step,
            "total_steps": self.total,
            "best": self.best,
            "finished": self.finished,
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
            "scores": result_json(scores, self.data.classes) if scores else None,
        }
        optimizer = self.optimizer if name == "last" else None
        save_checkpoint(self.folder / f"{name}.safetensors", self.model, card, optimizer=optimizer)

    def log(self, kind: str, **values: Any) -> None:
        line = json.dumps({"kind": kind, "step": self.step, **values}).replace("NaN", "null")
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def batches(self, first: int, last: int) -> Iterator[tuple[Tensor, Tensor]]:
        train = self.config.train
        keys = BatchKeys(len(self.data), train.batch_size, train.seed, first, last)
        return load_batches(self.augmented, keys, workers=train.workers, device=self.device)

    def optimise(self, stop: StopSignal) -> None:
        """All steps from the present one to the last, with validations and checkpoints; returns early on a signal."""
        train = self.config.train
        self.model.train()
        progress = tqdm(total=self.total, initial=self.step, desc="train", unit="step", disable=None)
        saved_at = logged_at = time.monotonic()
        for images, labels in self.batches(self.step, self.total):
            rate = poly_rate(self.step, self.total, base=train.rate, power=train.power)
            loss = training_step(
                self.model, self.optimizer, images, labels, rate=rate,
                keep=1.0 if self.step < train.mining_from * self.total else train.keep, mining=train.mining,
                guidance=False if self.step < train.joint_from * self.total else None,
                autocast=self.dtype, scaler=self.scaler,
            ).item()  # fmt: skip
            if not np.isfinite(loss):
                raise FloatingPointError(f"the loss is {loss} at step {self.step} (lower --rate?)")
            self.step += 1
            progress.update()
            now = time.monotonic()
            speed, logged_at = len(images) / (now - logged_at), now
            progress.set_postfix_str(f"loss {loss:.3f}, rate {rate:.2g}, {speed:.0f} images/s", refresh=False)
            self.log("train", loss=round(loss, 6), rate=rate, images_per_second=round(speed, 2))
            every = train.validate_every * self.steps_per_epoch
            if every and self.step % every == 0 and self.step < self.total:
                self.validate()
                saved_at = logged_at = time.monotonic()
            elif now - saved_at > 60 * train.checkpoint_minutes:
                self.save("last")
                saved_at = now
            if stop.number:
                break
        progress.close()

    def validate(self) -> list[Scores]:
        """Figures on the validation set with the guidance CRF off and on; keeps the best and the last checkpoint."""
        limit = self.config.train.validate_images if self.step < self.total else 0
        scores = evaluate(
            self.model, self.validation, modes=(False, True), dtype=self.dtype, description="validate", leave=False,
            limit=limit,
        )  # fmt: skip
        off, on = scores
        chosen = off if self.config.model.guidance == "off" else on
        self.log("val", miou=chosen.miou, miou_guidance_off=off.miou, miou_guidance_on=on.miou,
                 pixel_accuracy=chosen.pixel_accuracy, images=limit or len(self.validation))  # fmt: skip
        tqdm.write(f"step {self.step}: mIoU {100 * chosen.miou:.2f} (guidance off {100 * off.miou:.2f})")
        self.draw()
        fewer_before = self.finished and self.config.train.validate_images  # then "best" was judged on other images
        if chosen.miou > self.best or fewer_before:
            self.best = chosen.miou
            self.save("best", scores=chosen)
        self.save("last", scores=chosen)
        return scores

    @property
    def picture(self) -> Path:
        """Where the sheet of the present step lies."""
        return self.folder / "pictures" / f"step_{self.step:06d}.png"

    def draw(self) -> None:
        """A sheet of input, truth and prediction (guidance off, on) of evenly spaced validation images."""
        count = min(self.config.train.pictures, len(self.validation))
        if not count:
            return
        rows = []
        was_training = self.model.training
        self.model.eval()
        for index in np.linspace(0, len(self.validation) - 1, count).astype(int):
            sample = self.validation[int(index)]
            labels = label_maps(self.model, sample.image, modes=(False, True), dtype=self.dtype)
            drawn = [pictures.colourise(label, self.data.palette) for label in (sample.label, *labels)]
            rows.append([sample.image, *drawn])
        self.model.train(was_training)
        self.picture.parent.mkdir(exist_ok=True)
        pictures.save_picture(self.picture, pictures.sheet(rows))

    def finish(self) -> None:
        """Batch-norm statistics anew, the final figures, checkpoint and pictures."""
        count = round(self.config.train.batch_norm_epochs * self.steps_per_epoch)
        batches = tqdm(self.batches(self.total, self.total + count), "batch norm", count, unit="batch", disable=None)

        def forward(images: Tensor) -> None:
            with autocast(self.device, self.dtype):
                self.model.features(images)

        recompute_batch_norm(self.model, forward, (images for images, _ in batches))
        self.finished = True
        scores = self.validate()
        print(f"\n{self.config.train.data}, val: {len(self.validation)} images\n")
        print(table({"guidance off": scores[0], "guidance on": scores[1]}, self.data.classes))
        print(f"\ncheckpoint: {self.folder / 'last.safetensors'}")
        if self.config.train.pictures:
            print(f"pictures (input, truth, guidance off, guidance on): {self.picture}")

    def run(self) -> int:
        """Trains to the end; on SIGINT or SIGTERM the state is saved and 128 + signal returned."""
        with StopSignal() as stop:
            self.optimise(stop)
            self.save("last")
            if stop.number:
                print(f"stopped at step {self.step} of {self.total}; to go on: --resume {self.folder}", file=sys.stderr)
                return 128 + stop.number
        self.finish()
        return 0


def new_folder(output: str | None) -> Path:
    """``output``, or runs/TIME; it must be empty or not there yet."""
    folder = Path(output) if output else Path("runs") / time.strftime("%Y-%m-%d_%H%M%S")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"--output: {folder}: expected an empty or new folder")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output: {folder}: cannot be made ({error.strerror})") from error
    return folder


def make_parser() -> cli.Parser:
    parser = cli.Parser("train", __doc__)
    parser.add_argument("--output", metavar="DIR", help="run folder, empty or new (default: runs/TIME)")
    parser.add_argument("--resume", metavar="RUN", help="continue a run exactly where its last checkpoint is")
    parser.add_argument("--config", metavar="FILE", help="TOML file with sections [model], [augmentation], [train]")
    parser.add_argument("--recipe", metavar="NAME", help="settings that ship with the package: "
                        + ", ".join(recipe_names()) + " (default: scenes for that data, else none)")  # fmt: skip
    parser.add_argument("--variant", choices=list(VARIANTS), help="a column of Table 3; guide is the full model")
    add_flags(parser, SECTIONS)
    return parser


def resolve(options: Any) -> Config:
    """The configuration that the flags, files and recipes describe."""
    flags = flag_values(options, SECTIONS)
    file = read_toml(options.config, SECTIONS) if options.config else {}
    recipe = options.recipe
    if recipe is None and not options.config and flags.get("train", {}).get("data", "scenes").startswith("scenes"):
        recipe = "scenes"
    variant = {"model": VARIANTS[options.variant]} if options.variant else {}
    return make_config(read_recipe(recipe) if recipe else {}, file, variant, flags)


def main(arguments: Sequence[str]) -> int:
    options = make_parser().parse_args(arguments)
    if options.resume:
        given = [text for text in arguments if text.startswith("--") and text not in ("--debug",)]
        if [text.split("=")[0] for text in given] != ["--resume"]:
            raise UserError(f"--resume: expected no other setting beside it, got {' '.join(given)}")
        folder = Path(options.resume)
        config = make_config(read_toml(folder / "config.toml", SECTIONS))
        trainer = Trainer(config, folder, resume=True)
        if trainer.finished:
            print(f"{folder}: finished already, at step {trainer.step}")
            return 0
        return trainer.run()
    config = resolve(options)
    trainer = Trainer(config, Path(), resume=False)  # whatever is wrong with the data shows before a folder is made
    trainer.folder = folder = new_folder(options.output)
    write_atomically(folder / "config.toml", to_toml(asdict_shallow(config)))
    trainer.log("start", versions=versions(), device=str(trainer.device), threads=torch.get_num_threads(),
                precision=str(trainer.dtype or torch.float32))  # fmt: skip
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    print(f"{config.train.data}: {len(trainer.data)} train and {len(trainer.validation)} val images, "
          f"{len(trainer.data.classes)} classes; {parameters / 1e6:.2f} M parameters; {trainer.total} steps; "
          f"{trainer.device}, {trainer.dtype or torch.float32}; {folder}")  # fmt: skip
    return trainer.run()


def asdict_shallow(config: Config) -> dict[str, Any]:
    return {name: getattr(config, name) for name in SECTIONS}


if __name__ == "__main__":
    sys.exit(cli.run("train", main))
