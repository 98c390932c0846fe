"""Activation checkpointing: the same numbers from less memory; and the command that counts it."""

import json

import pytest
import torch

from segmodel import benchmark
from segmodel.common import cli
from segmodel.experiments import memory
from segmodel.model.backbone import ResNet
from segmodel.model.config import ModelConfig
from segmodel.segmodel import SegModel
from segmodel.training.optimisation import make_optimizer, training_step

SMALL = dict(width=4, stem_width=4, rings=((1, 2),), label_pool=5, label_hidden=4)


def trained(recompute: bool, **changes) -> SegModel:
    """A model after three steps of SGD."""
    torch.manual_seed(0)
    model = SegModel(3, ModelConfig(**SMALL, **changes)).train()
    model.backbone.recompute = recompute
    optimizer = make_optimizer(model, rate=0.1)
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        images = 255 * torch.rand(2, 3, 33, 40, generator=generator)
        labels = torch.randint(0, 3, (2, 33, 40), generator=generator)
        training_step(model, optimizer, images, labels, rate=0.1, keep=0.5)
    return model


@pytest.mark.parametrize("changes", [{"depth": 18}, {"depth": 50, "preactivation": True}])
def test_checkpointing_changes_no_bit_and_updates_statistics_once(changes):
    plain, recomputed = trained(False, **changes), trained(True, **changes)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, recomputed.state_dict()[name]), name
    assert recomputed.backbone.layer1[0].bn1.num_batches_tracked == 3


def test_checkpointing_compiles_to_the_same_numbers():
    torch.manual_seed(0)
    plain, compiled = (ResNet(18, width=4, stem_width=4).train() for _ in range(2))
    for model in (plain, compiled):  # a block of each stage: strided and not, with a projection and without
        model.layer2, model.layer3, model.layer4 = (stage[:1] for stage in (model.layer2, model.layer3, model.layer4))
    compiled.load_state_dict(plain.state_dict())
    compiled.recompute = True
    images = torch.randn(2, 3, 33, 40)
    for model, call in ((plain, plain), (compiled, torch.compile(compiled, backend="aot_eager"))):
        call(images).square().mean().backward()
        assert model.layer1[0].bn1.num_batches_tracked == 1
    for (name, expected), found in zip(plain.named_parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-6, msg=name)
    for (name, expected), found in zip(plain.named_buffers(), compiled.buffers(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6, msg=name)


def test_activation_bytes_of_a_single_convolution_are_its_input_and_the_losses_tensors():
    class Tiny(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.conv(x)

    images, labels = torch.rand(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.int64)
    # the image, log p (3 x 8 x 8), labels (int64), the selection (bool) and scalars
    count = memory.activation_bytes(Tiny(), images, labels)
    assert 0 <= count - (4 * 192 + 4 * 192 + 8 * 64 + 64) < 64


def test_the_command_reports_at_most_half_and_the_peak(tmp_path, capsys):
    file = tmp_path / "figures.json"
    arguments = ["--only", "memory", "--depth", "50", "--crop", "97,97", "--image", "65,130", "--classes", "4"]
    assert cli.run("benchmark", benchmark.main, [*arguments, "--json", str(file)]) == 0
    text = capsys.readouterr().out
    assert "ResNet-50, 4 classes, float32; training step of 2 crops of 97x97, inference on an image of 65x130" in text
    plain, recomputed, loaded, peak = (row["MiB"] for row in json.loads(file.read_text())["memory"])
    assert recomputed <= 0.5 * plain
    assert 100 < loaded <= peak
    assert cli.run("benchmark", benchmark.main, ["--only", "memory", "--crop", "9"]) == 2
    assert "--crop" in capsys.readouterr().err
