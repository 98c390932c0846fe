"""The recipes that ship: each is read, names its sources, builds its model, and trains where a tiny tree is cheap."""

import re
from importlib import resources
from pathlib import Path

import pytest
import torch
from data_tools import save_image, save_label
from distributed_tools import train

from segmodel.common.errors import UserError
from segmodel.data import KINDS
from segmodel.segmodel import SegModel
from segmodel.training.settings import SECTIONS, TrainConfig, make_config, read_recipe, recipe_names

PAPER = ("voc-resnet101", "cityscapes-resnet101", "ade20k-resnet101", "coco-pretrain", "voc-coco-joint")
CLASSES = {"voc-resnet101": 21, "cityscapes-resnet101": 19, "ade20k-resnet101": 150, "coco-pretrain": 81,
           "voc-coco-joint": 21}  # fmt: skip


def text(name: str) -> str:
    return (resources.files("segmodel") / "training" / "recipes" / f"{name}.toml").read_text(encoding="utf-8")


def test_the_paper_has_its_recipes():
    assert set(recipe_names()) == {*PAPER, "scenes"}
    with pytest.raises(UserError, match="--recipe: expected one of"):
        read_recipe("../recipes/scenes")


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_builds_its_model(name):
    config = make_config(read_recipe(name))
    with torch.device("meta"):  # shapes alone
        model = SegModel(CLASSES.get(name, 12), config.model).eval()
        scores = model.head.feature_context.centre(model.features(torch.empty(1, 3, *config.augmentation.crop)))
    assert scores.shape[1] == config.model.patch_size**2 * CLASSES.get(name, 12)
    kinds = re.findall(r"(?:^|\+)(?:\d\*)?(\w+)", config.train.data)
    assert set(kinds) <= set(KINDS)


@pytest.mark.parametrize("name", PAPER)
def test_a_recipe_of_the_paper_gives_sources_score_and_settings(name):
    content, config = text(name), make_config(read_recipe(name))
    values = [line for line in content.splitlines() if re.match(r"\w+ = ", line)]
    assert not [line for line in values if "#" not in line and "validate_every" not in line]
    assert "The paper" in content.split("[model]")[0]
    assert set(SECTIONS) == {line.strip("[]") for line in content.splitlines() if line.startswith("[")}
    paper, train = TrainConfig(), config.train
    for setting in ("batch_size", "rate", "power", "momentum", "weight_decay", "keep", "mining"):
        assert getattr(train, setting) == getattr(paper, setting)
    assert config.model.depth == 101
    assert config.augmentation.scale == (0.5, 2.0)
    assert train.init_weights  # from scratch only if somebody says so


def voc(root: Path) -> str:
    lists = root / "VOC2012" / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split in ("train", "val"):
        names = [f"2007_00000{number}" for number in range(2)]
        for name in names:
            save_image(root / "VOC2012" / "JPEGImages" / f"{name}.jpg")
            save_label(root / "VOC2012" / "SegmentationClass" / f"{name}.png", [0, 1, 20, 255])
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return f"voc:{root}"


def cityscapes(root: Path) -> str:
    for split in ("train", "val"):
        name = "aachen_000000_000019"
        save_image(root / "leftImg8bit" / split / "aachen" / f"{name}_leftImg8bit.png")
        save_label(root / "gtFine" / split / "aachen" / f"{name}_gtFine_labelIds.png", list(range(34)))
    return f"cityscapes:{root}"


def ade(root: Path) -> str:
    for split, name in (("training", "ADE_train_00000001"), ("validation", "ADE_val_00000001")):
        save_image(root / "images" / split / f"{name}.jpg")
        save_label(root / "annotations" / split / f"{name}.png", [0, 1, 75, 150])
    return f"ade20k:{root}"


TINY = ["--init-weights", "", "--depth", "18", "--width", "4", "--stem-width", "4", "--label-hidden", "4", "--crop",
        "33,33", "--batch-size", "2", "--steps", "1", "--workers", "0", "--pictures", "0", "--device", "cpu",
        "--precision", "float32", "--batch-norm-epochs", "1", "--allow-absent"]  # fmt: skip


@pytest.mark.parametrize(("name", "tree"), list(zip(PAPER[:3], (voc, cityscapes, ade), strict=True)))
def test_a_recipe_starts_on_a_tree_as_the_official_one_ships(tmp_path, name, tree):
    spec = tree(tmp_path / "data")
    folder = tmp_path / "run"
    assert train(["--recipe", name, "--data", spec, *TINY, "--output", str(folder)]) == (0, "")
    assert (folder / "report.html").exists()


def test_a_recipe_does_not_start_from_nothing_by_itself(tmp_path):
    status, message = train(
        ["--recipe", "voc-resnet101", "--data", voc(tmp_path / "data"), "--output", str(tmp_path / "x")]
    )
    assert status == 2
    assert "resnet101.pth: no such weight file" in message
    assert not (tmp_path / "x").exists()
