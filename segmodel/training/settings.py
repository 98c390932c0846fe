"""The settings of a run: model, augmentation and training, from defaults (the paper's), recipes, files and flags."""

import argparse
import os
import re
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal

from segmodel.common.device import Precision
from segmodel.common.errors import UserError
from segmodel.common.options import Section, add_flags, build, flag_values, option, read_toml
from segmodel.data import Augmentation, open_data
from segmodel.model.config import VARIANTS, ModelConfig
from segmodel.model.store import described_model
from segmodel.training.small import small_recipe
from segmodel.training.watching import say


@dataclass(frozen=True)
class TrainConfig(Section):
    """What to train on and how; the defaults are the paper's."""

    data: str = option("scenes", "data set, such as voc:PATH; python -m segmodel.data --help lists them")
    allow_absent: bool = option(False, "train even where a class has no pixel, or no label map two classes")
    init_weights: str = option(
        "",
        "backbone weights, .safetensors or .pth with torchvision's (or timm's) names; timm: those that timm downloads",
        "Sec. 7.1.2",
    )
    init_model: str = option(
        "", "a run, or a checkpoint of one, to start from: its architecture and the weights that fit"
    )
    seed: int = option(0, "seed of weights, order and augmentation", at_least=0, at_most=2**63 - 1)
    epochs: int = option(36, "passes over the training set", "Sec. 7.3", at_least=1, at_most=10**6)
    steps: int = option(0, "stop after so many steps instead (0: epochs decide)", at_least=0, at_most=10**9)
    batch_size: int = option(16, "images a step, of all processes together", "Sec. 7.1.2", at_least=1, at_most=65536)
    accumulate: int = option(
        1,
        "parts of a batch, one after the other; mining and batch norm see a part at a time",
        at_least=1,
        at_most=65536,
    )
    optimizer: Literal["sgd", "adamw"] = option(
        "sgd",
        "SGD with momentum, or AdamW (the default of timm models with trained weights unless --rate is given)",
        "Sec. 7.1.2",
    )
    rate: float = option(
        0.01,
        "initial learning rate (AdamW: 0.001; from trained weights 0.00025, --head-rate 8)",
        "Sec. 7.1.2",
        at_least=0,
    )
    head_rate: float = option(
        1.0, "rate of the head's weights and biases over the backbone's (10: common elsewhere)", at_least=0
    )
    warm_up: int = option(0, "steps over which the rate rises from nothing to that of its schedule", at_least=0)
    power: float = option(0.9, "power of the poly schedule", "works cited in Sec. 7.1.2", at_least=0)
    momentum: float = option(0.9, "momentum of the optimiser", "Sec. 7.1.2", at_least=0, at_most=1)
    weight_decay: float = option(1e-4, "weight decay (lambda of Eq. 17)", "Sec. 7.1.2", at_least=0)
    keep: float = option(0.5, "share of the pixels kept, those with the larger loss", "Sec. 7.1.2", above=0, at_most=1)
    mining: Literal["pixel", "block"] = option("pixel", "decide for each pixel (text) or each 4x4 block (code)")
    mining_scope: Literal["global", "process"] = option("global", "mine over the whole batch, or in each process alone")
    class_weights: str = option(
        "none",
        "weights of the classes in the loss: none, median_frequency (counted in the training set), or a file of "
        "NAME = WEIGHT (TOML, JSON or text)",
    )
    mining_from: float = option(
        0.0, "share of the training before mining starts (short trainings: 0.3 is better)", at_least=0, at_most=1
    )
    joint_from: float = option(
        0.0, "share of the training before the guidance CRF joins (from scratch: 0.6 is better)", at_least=0, at_most=1
    )
    hold_out: int = option(
        0,
        "training pictures left out of the training, on which the guidance of the finished model is chosen: none, "
        "trained, or untrained with settings from the scores or tuned (guidance off: it stays off)",
        at_least=0,
        at_most=10**6,
    )
    frozen_batch_norm: bool = option(
        False, "the backbone's batch norms keep the statistics of its weights, in training and at its end"
    )
    batch_norm_epochs: float = option(
        1.0, "passes for batch-norm statistics at the end", "Sec. 7.1.2: several", at_least=0, at_most=1000
    )
    validate_every: int = option(1, "epochs between validations (0: only at the end)", at_least=0, at_most=10**6)
    validate_images: int = option(0, "validation images used during training (0: all)", at_least=0)
    pictures: int = option(6, "validation images drawn at each validation, at most 40", at_least=0, at_most=40)
    checkpoint_minutes: float = option(
        10.0, "minutes between checkpoints beside those at validations", at_least=0, at_most=10**6
    )
    keep_last: int = option(
        1, "newest checkpoints kept: last, and more than 1 as copies step_NUMBER beside it", at_least=1, at_most=10**6
    )
    tensorboard: bool = option(False, "write for TensorBoard too (extra [tensorboard])")
    precision: Precision = option("auto", "dtype of the convolutions; auto: bfloat16 where it is fast")
    workers: int = option(-1, "loader processes (-1: one for each core but one, at most 8)", at_least=-1, at_most=256)
    device: str = option("auto", "cpu, cuda, ...; auto: a GPU where there is one")
    compile: bool = option(False, "train with torch.compile")
    checkpoint_activations: bool = option(False, "keep less memory: the backbone's blocks run twice", "Sec. 7.1.2")
    deterministic: bool = option(False, "the same bits each time on a GPU too, slower")
    timeout_minutes: float = option(
        10.0, "minutes that a process waits for another one before it fails", above=0, at_most=10**5
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.init_model and self.init_weights:
            raise ValueError("init_model: expected not beside init_weights")

    @property
    def pretrained(self) -> bool:
        """Whether the backbone starts from trained weights."""
        return bool(self.init_weights or self.init_model)


WITHOUT_EFFECT = {f"train.{name}" for name in ("workers", "checkpoint_minutes", "pictures", "keep_last", "tensorboard",
                                               "timeout_minutes")}  # fmt: skip
"""Settings that change no weight: runs that differ in nothing else are the same run."""
SECTIONS = {"model": ModelConfig, "augmentation": Augmentation, "train": TrainConfig}


@dataclass(frozen=True)
class Config:
    """The three sections together, as config.toml holds them."""

    model: ModelConfig = field(default_factory=ModelConfig)
    augmentation: Augmentation = field(default_factory=Augmentation)
    train: TrainConfig = field(default_factory=TrainConfig)


def settings_of(config: Config) -> dict[str, Any]:
    """The settings that weights depend on, as "section.name"."""
    values = {f"{part}.{name}": value for part in SECTIONS for name, value in vars(getattr(config, part)).items()}
    return {name: value for name, value in values.items() if name not in WITHOUT_EFFECT}


def differences(first: Config, second: Config) -> list[str]:
    """Settings that would give other weights: "section.name: one value or another"."""
    one, other = settings_of(first), settings_of(second)
    return [f"{name}: {one[name]!r} or {other[name]!r}" for name in one if one[name] != other[name]]


def make_config(*layers: dict[str, dict[str, Any]]) -> Config:
    """Defaults, overridden by each layer in turn."""
    parts = {name: build(section, *(layer.get(name, {}) for layer in layers)) for name, section in SECTIONS.items()}
    return Config(**parts)


SMALL = "small"
"""The recipe that is no file, see ``training.small``."""
RECIPES = resources.files("segmodel") / "training" / "recipes"


def recipe_names() -> list[str]:
    return sorted(item.name.removesuffix(".toml") for item in RECIPES.iterdir())


def read_recipe(name: str) -> dict[str, dict[str, Any]]:
    """A configuration that ships with the package."""
    if name not in recipe_names():
        raise UserError(f"--recipe: expected one of {', '.join(recipe_names())}, small, got {name!r}")
    with resources.as_file(RECIPES / f"{name}.toml") as path:
        return read_toml(path, SECTIONS)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """The flags that ``resolve`` reads."""
    parser.add_argument("--config", metavar="FILE", help="TOML file with sections [model], [augmentation], [train]")
    parser.add_argument("--recipe", metavar="NAME", help="settings that ship with the package: "
                        + ", ".join(recipe_names()) + "; or small: derived from the number and size of the pictures "
                        "and the cores here (default: scenes for that data, else none)")  # fmt: skip
    parser.add_argument("--variant", choices=list(VARIANTS), help="a row of Table 3 (guide: the full model) or a peer")
    add_flags(parser, SECTIONS)


def resolve(options: Any) -> Config:
    """The configuration that the flags, files and recipes describe."""
    flags = flag_values(options, SECTIONS)
    file = read_toml(options.config, SECTIONS) if options.config else {}
    recipe = options.recipe
    train = {**file.get("train", {}), **flags.get("train", {})}
    kind = re.split("[:+]", train.get("data", TrainConfig.data))[0]
    if recipe is None and kind in recipe_names():
        recipe = kind  # the built-in scenes have one of their own
    variant = {"model": VARIANTS[options.variant]} if options.variant else {}
    for name in variant.get("model", {}).keys() & flags.get("model", {}).keys():
        raise UserError(f"--{name.replace('_', '-')}: expected not beside --variant {options.variant}, which sets it")
    start = train.get("init_model")
    begun = {"model": described_model(start), "train": {"init_weights": ""}} if start else {}
    if start and options.variant:  # of the parts that the model lacks the variant may have some
        lacking = {**VARIANTS["unary"], "head": begun["model"].get("head")}
        begun["model"] = {name: value for name, value in begun["model"].items() if value != lacking.get(name, "")}
    if recipe == SMALL:
        data = open_data(train.get("data", TrainConfig.data), split="train")
        base = small_recipe(data, device=train.get("device", TrainConfig.device))
    else:
        base = read_recipe(recipe) if recipe else {}
    layers = base, begun, file, variant, flags
    config = implied(*layers)
    if recipe == SMALL and os.environ.get("RANK", "0") == "0":
        say(described(config, images=len(data)))
    return config


def implied(*layers: dict[str, dict[str, Any]]) -> Config:
    """``make_config`` over defaults that follow from other settings: how weights that others trained go on.

    Measured on EfficientNet-Lite 2 (RESULTS.md): SGD at the paper's rate is slower by far, and the statistics of small
    batches harm weights that were trained with those of large ones.
    """
    config = make_config(*layers)
    pretrained, train = config.train.pretrained, dict[str, Any]()
    if pretrained and config.model.backbone != "resnet":
        train = {"frozen_batch_norm": True}
        if not any("rate" in layer.get("train", {}) for layer in layers):  # a rate that is given is one of SGD
            train["optimizer"] = "adamw"
    if make_config({"train": train}, *layers).train.optimizer == "adamw":
        rates = {"rate": 2.5e-4, "head_rate": 8.0} if pretrained else {"rate": 1e-3}
        train |= {**rates, "weight_decay": 0.01, "warm_up": 10}
    return make_config({"model": context_for(config), "train": train}, *layers)


def context_for(config: Config) -> dict[str, Any]:
    """The context CRF's windows where a crop has fewer cells than the paper's, 20 (321 pixels at stride 16).

    Rings and pooling window keep their share of the map: those of the paper would lie outside it. The pooling window is
    counted in label cells, of which a feature cell of the paper's has 2 x 2: with other n it covers as much.
    """
    share = min(1.0, min(config.augmentation.crop) // config.model.output_stride / 20)
    pool = odd(share * ModelConfig.label_pool * config.model.patch_size / ModelConfig.patch_size)
    rings = [[max(1, round(share * radius)), max(1, round(share * distance))] for radius, distance in ModelConfig.rings]
    return {"rings": rings, "label_pool": pool}


def odd(side: float) -> int:
    """A window's side in whole cells, an odd number."""
    return round(side) // 2 * 2 + 1


def described(config: Config, *, images: int) -> str:
    """What the recipe "small", and what was given beside it, have come to."""
    model, train = config.model, config.train
    backbone = f"ResNet-{model.depth}" if model.backbone == "resnet" else model.backbone
    judged = f"a validation every {train.validate_every} epochs" if train.validate_every else "validated at the end"
    length = f"{train.steps} steps" if train.steps else f"{train.epochs} epochs"
    text = (f"recipe small, for {images} pictures: {backbone}, crop {config.augmentation.crop[0]}, batches of "
            f"{train.batch_size}, {length}, rate {train.rate:g}, mining from {train.mining_from:g} and guidance CRF "
            f"from {train.joint_from:g} of them on, {judged}")  # fmt: skip
    return (
        text
        if train.pretrained
        else f"{text}; from nothing: pre-trained weights (--init-weights) help more than all else"
    )
