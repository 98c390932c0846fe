"""Every block of README, RESULTS and CONTRIBUTING: Python runs, shell lines have only options that there are.

The libraries of others are stood in for by modules whose outputs have the same form.
"""

import importlib
import re
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[1]
TEXTS = [ROOT / "README.md", ROOT / "RESULTS.md", ROOT / "CONTRIBUTING.md"]
if not all(text.exists() for text in TEXTS):
    pytest.skip("the texts are not beside the tests", allow_module_level=True)


def blocks(kind: str) -> list[str]:
    return [
        block
        for text in TEXTS
        for block in re.findall(rf"```{kind}\n(.*?)```", text.read_text(encoding="utf-8"), re.DOTALL)
    ]


class Network(torch.nn.Module):
    """Logits (N, classes, H / stride, W / stride) in the form that ``pack`` gives them."""

    def __init__(self, classes, stride, pack):
        super().__init__()
        self.layer, self.pack = torch.nn.Conv2d(3, classes, stride, stride), pack

    def forward(self, batch=None, *, pixel_values=None):
        return self.pack(self.layer(pixel_values if batch is None else batch))


def tensor(picture: Image.Image, size: tuple[int, int]) -> torch.Tensor:
    return torch.from_numpy(np.array(picture.resize(size))).permute(2, 0, 1) / 255


def stand_ins() -> dict[str, object]:
    weights = SimpleNamespace(DEFAULT=SimpleNamespace(transforms=lambda: lambda picture: tensor(picture, (130, 104))))
    deeplab = {"DeepLabV3_ResNet50_Weights": weights,
               "deeplabv3_resnet50": lambda weights: Network(21, 1, lambda scores: {"out": scores})}  # fmt: skip
    encoders = SimpleNamespace(get_preprocessing_fn=lambda name: lambda picture: picture / 255.0)
    unet = {"Unet": lambda name, encoder_weights, classes: Network(classes, 1, lambda x: x), "encoders": encoders}
    loaded = SimpleNamespace(
        from_pretrained=lambda name: Network(150, 4, lambda scores: SimpleNamespace(logits=scores))
    )
    processor = SimpleNamespace(
        from_pretrained=lambda name: lambda images, return_tensors: {"pixel_values": tensor(images, (128, 128))[None]}
    )
    return {
        "torchvision": {}, "torchvision.models": {}, "torchvision.models.segmentation": deeplab,
        "segmentation_models_pytorch": unet,
        "transformers": {"AutoModelForSemanticSegmentation": loaded, "AutoImageProcessor": processor},
    }  # fmt: skip


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.split("\n")[0])
def test_python_blocks_run(block, tmp_path, monkeypatch):
    for name, content in stand_ins().items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    if "labels" in names and "photo.jpg" in block:
        assert tuple(names["labels"].shape) == (1, 64, 96)


def commands() -> list[str]:
    lines = "\n".join(blocks("sh")).split("\n")
    for text in TEXTS:
        lines += re.findall(r"`(python -m segmodel[^`]*)`", text.read_text(encoding="utf-8").replace("\n", " "))
    return [part for line in lines for part in re.findall(r"python -m segmodel[^&]*", line)]


@pytest.mark.parametrize("command", commands())
def test_commands_have_only_options_that_there_are(command, capsys, monkeypatch):
    words = shlex.split(command, comments=True)[2:]
    module = importlib.import_module(words[0])
    if hasattr(module, "__path__") or words[0] == "segmodel":
        module = importlib.import_module(f"{words[0]}.__main__")
    monkeypatch.setattr(sys, "argv", [words[0], "--help"])
    own = words[1:2] if words[0] == "segmodel.data" else []  # its commands have a --help each
    arguments = [] if module.main.__code__.co_argcount == 0 else [[*own, "--help"]]
    with suppress(SystemExit):
        module.main(*arguments)
    known = set(re.findall(r"--[a-z][\w-]*", capsys.readouterr().out))
    given = {word.split("=")[0] for word in words[1:] if word.startswith("--") and word != "..."}
    assert given <= known, f"unknown: {given - known}"


def test_pictures_and_links_are_there():
    for text in TEXTS:
        for target in re.findall(r"\]\(([^)#]+)\)", text.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (ROOT / target).exists(), target
    assert (ROOT / "tests" / "scenes.png").stat().st_size < 300_000
