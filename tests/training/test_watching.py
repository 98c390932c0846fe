"""What a training says: lines where no terminal shows a bar; the recipe "small" and the hint that leads to it."""

import json
from types import SimpleNamespace

import pytest
import torch
from distributed_tools import SMALL, train
from hypothesis import given
from hypothesis import strategies as st

from segmodel import train as command
from segmodel.common import cli
from segmodel.model.config import ModelConfig
from segmodel.training import watching
from segmodel.training.run import hint
from segmodel.training.settings import Config, TrainConfig, implied, resolve
from segmodel.training.small import derived
from segmodel.training.watching import StepLog

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_a_line_comes_at_most_every_thirty_seconds(monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr(watching.time, "monotonic", lambda: now)
    log = StepLog(100, 200, steps_per_epoch=50)
    for step in range(101, 121):
        now += 4
        log.add(step, loss=step - 100.0, rate=0.01, speed=2.0, waiting=0.5)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "step 108 of 200 (epoch 3): loss 4.500, rate 0.01, 2 images/s, 0:06:08 left",
        "step 116 of 200 (epoch 3): loss 12.500, rate 0.01, 2 images/s, 0:05:36 left",
    ]


def test_a_terminal_has_a_bar_and_no_lines(monkeypatch, capsys):
    log = StepLog(0, 4, steps_per_epoch=2)
    log.bar = SimpleNamespace(disable=False, update=lambda: None, set_postfix_str=lambda *given, **options: None)
    log.said -= 1000
    log.add(1, loss=1.0, rate=0.01, speed=2.0, waiting=0.5)
    assert capsys.readouterr().out == ""


@given(st.integers(1, 20_000), st.integers(8, 4000), st.integers(1, 64), st.booleans())
def test_the_small_recipe_is_a_configuration_whatever_the_data(images, side, cores, gpu):
    values = derived(images, side, cores=cores, gpu=gpu)
    config = implied(values)
    crop, train = config.augmentation.crop[0], config.train
    assert 65 <= crop <= 321
    assert crop <= max(65, side)
    assert train.batch_size <= images
    assert 10 <= train.epochs <= 600
    assert train.epochs // train.validate_every <= 20
    assert all(distance <= crop // 16 for _, distance in config.model.rings)
    assert not hint(config, images=images, device=GPU if gpu else CPU)


def test_what_the_small_recipe_makes_of_fifty_photographs():
    values = derived(50, 375, cores=2, gpu=False)
    assert values["model"] == {"depth": 18}
    assert values["augmentation"] == {"crop": (225, 225)}
    assert values["train"]["epochs"] == 118
    assert derived(321, 428, cores=1, gpu=True)["augmentation"] == {"crop": (321, 321)}
    assert [derived(count, 375, cores=2, gpu=False)["train"]["hold_out"] for count in (50, 200, 5000)] == [0, 10, 24]


def test_flags_lie_over_the_small_recipe_and_it_says_what_came_of_it(capsys):
    arguments = ["--recipe", "small", "--data", "scenes:train=16,val=3", "--epochs", "7", "--device", "cpu"]
    config = resolve(command.make_parser().parse_args(arguments))
    assert (config.train.epochs, config.train.batch_size, config.model.depth) == (7, 8, 18)
    assert config.augmentation.crop == (97, 97)
    assert (config.model.rings, config.model.label_pool) == (((1, 2), (1, 4)), 9)
    assert capsys.readouterr().out.startswith(
        "recipe small, for 16 pictures: ResNet-18, crop 97, batches of 8, 7 epochs, "
    )


def test_the_small_recipe_trains(tmp_path):
    arguments = [*SMALL[:2], *SMALL[2:10], "--workers", "0", "--device", "cpu", "--steps", "2", "--pictures", "1"]
    assert train(["--recipe", "small", *arguments, "--output", str(tmp_path / "run")]) == (0, "")
    assert json.loads((tmp_path / "run" / "last.json").read_text())["settings"]["train"]["mining_from"] == 0.3


@pytest.mark.parametrize(
    ("depth", "batch", "images", "device", "hinted"),
    [(101, 16, 10_000, CPU, True), (101, 16, 50, GPU, True), (101, 16, 10_000, GPU, False), (18, 16, 50, CPU, False),
     (101, 4, 50, CPU, False)],
)  # fmt: skip
def test_the_defaults_on_a_cpu_or_a_small_set_lead_to_the_small_recipe(depth, batch, images, device, hinted):
    config = Config(model=ModelConfig(depth=depth), train=TrainConfig(batch_size=batch))
    assert ("--recipe small" in hint(config, images=images, device=device)) == hinted


def test_an_unknown_recipe_is_named_with_small_among_the_others(capsys):
    assert cli.run("train", command.main, ["--recipe", "tiny"]) == 2
    assert "small, got 'tiny'" in capsys.readouterr().err
