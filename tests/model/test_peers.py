from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segmodel import train
from segmodel.model.config import VARIANTS, ModelConfig
from segmodel.model.peers import ASPP, PPM, PYRAMID
from segmodel.segmodel import SegModel


@pytest.mark.parametrize("head", [ASPP, PPM])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 4), (9, 7)])
def test_scores_have_the_features_size_in_both_modes(head: type, size: tuple[int, int]) -> None:
    module = head(16, 5, ModelConfig())
    features = torch.randn(2, 16, *size, requires_grad=True)
    for mode in (True, False):
        scores = module.train(mode)(features)
        assert scores.shape == (2, 5, *size)
    scores.square().sum().backward()
    assert features.grad is not None
    assert all(p.grad is not None for p in module.parameters())


def test_published_widths_at_2048_channels() -> None:
    aspp, ppm = ASPP(2048, 21, ModelConfig()), PPM(2048, 21, ModelConfig())
    assert [branch[0].out_channels for branch in aspp.branches] == [256] * 4
    assert [branch[0].dilation[0] for branch in aspp.branches] == [1, 6, 12, 18]
    assert aspp.join[0][0].in_channels == 5 * 256
    assert ppm.join[0][0].in_channels == 4096
    assert ppm.join[0][0].out_channels == 512
    assert len(ppm.levels) == len(PYRAMID)


def block(layers: nn.Sequential, x: Tensor, dilation: int = 1) -> Tensor:
    """Convolution without a bias, normalisation and ReLU from the tensors of a block."""
    weight, norm = layers[0].weight, layers[1]
    y = F.conv2d(x, weight, padding=dilation * (weight.shape[-1] // 2), dilation=dilation)
    return F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias).relu()


def image_mean(layers: nn.Sequential, x: Tensor) -> Tensor:
    """The branch of the mean of the image: a convolution with a bias and ReLU."""
    mean = x.mean((2, 3), keepdim=True)
    return F.conv2d(mean, layers[1].weight, layers[1].bias).relu().expand(-1, -1, *x.shape[2:])


def dropouts(head: nn.Module) -> list[tuple[type, float]]:
    return [(type(module), module.p) for module in head.modules() if isinstance(module, nn.Dropout | nn.Dropout2d)]


def test_aspp_computes_what_its_paper_says() -> None:
    torch.manual_seed(0)
    head, x = ASPP(16, 5, ModelConfig()), torch.randn(2, 16, 9, 7)
    head(x)  # for running statistics that are not those of the start
    scores = head.eval()(x)
    parts = [block(branch, x, dilation) for branch, dilation in zip(head.branches, (1, 6, 12, 18), strict=True)]
    joined = block(head.join[0], torch.cat([*parts, image_mean(head.image, x)], 1))
    torch.testing.assert_close(scores, head.classifier(block(head.join[2], joined)), rtol=1e-5, atol=1e-6)
    assert dropouts(head) == [(nn.Dropout, 0.5)]


@pytest.mark.parametrize(("stride", "dilations"), [(8, [12, 24, 36]), (16, [6, 12, 18]), (32, [3, 6, 9])])
def test_aspp_sees_as_far_at_every_stride(stride: int, dilations: list[int]) -> None:
    head = SegModel(3, ModelConfig(depth=18, width=2, output_stride=stride, **VARIANTS["aspp"])).head.feature_context
    assert [branch[0].dilation[0] for branch in head.branches[1:]] == dilations


def test_ppm_computes_what_its_paper_says() -> None:
    torch.manual_seed(0)
    head, x = PPM(16, 5, ModelConfig()), torch.randn(2, 16, 9, 7)
    head(x)
    scores = head.eval()(x)
    parts = [x, image_mean(head.levels[0], x)]
    for bins, level in zip((2, 3, 6), head.levels[1:], strict=True):
        pooled = block(level[1], F.adaptive_avg_pool2d(x, bins))
        parts.append(F.interpolate(pooled, (9, 7), mode="bilinear", align_corners=False))
    expected = head.classifier(block(head.join[0], torch.cat(parts, 1)))
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-6)
    assert dropouts(head) == [(nn.Dropout2d, 0.1)]


@pytest.mark.parametrize("variant", ["aspp", "ppm"])
def test_a_peer_trains_and_predicts_in_the_models_place(variant: str) -> None:
    config = ModelConfig(**{"depth": 18, "width": 4, "stem_width": 4} | VARIANTS[variant])
    model = SegModel(4, config)
    image = 255 * torch.rand(2, 3, 40, 33)
    assert model.train()(image).shape == (2, 4, 40, 33)
    assert model.eval()(image[:1, :, :1, :1]).shape == (1, 4, 1, 1)


def test_a_peer_predicts_no_patches() -> None:
    with pytest.raises(ValueError, match="patch_size: expected 1 with the head aspp, got 2"):
        SegModel(4, ModelConfig(depth=18, width=4, head="aspp"))


@pytest.mark.parametrize("variant", ["aspp", "ppm"])
def test_a_finished_run_has_batch_norm_statistics_in_its_head(variant: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    sizes = ["--depth", "18", "--width", "4", "--stem-width", "4", "--workers", "0", "--pictures", "0"]
    data = ["--data", "scenes:train=16,val=1", "--steps", "2", "--batch-norm-epochs", "1"]
    assert train.main(["--output", str(run), "--variant", variant, *sizes, *data]) == 0
    norms = [m for m in SegModel.load(run / "last.safetensors").head.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert all(norm.num_batches_tracked > 0 and norm.running_mean.abs().sum() > 0 for norm in norms)
