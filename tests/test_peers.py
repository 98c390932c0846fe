from pathlib import Path

import pytest
import torch

from segmodel import train
from segmodel.checkpoint import load_model
from segmodel.model import VARIANTS, ModelConfig, SegModel
from segmodel.peers import ASPP, PPM, PYRAMID


@pytest.mark.parametrize("head", [ASPP, PPM])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 4), (9, 7)])
def test_scores_have_the_features_size_in_both_modes(head: type, size: tuple[int, int]) -> None:
    module = head(16, 5)
    features = torch.randn(2, 16, *size, requires_grad=True)
    for mode in (True, False):
        scores = module.train(mode)(features)
        assert scores.shape == (2, 5, *size)
    scores.square().sum().backward()
    assert features.grad is not None
    assert all(p.grad is not None for p in module.parameters())


def test_published_widths_at_2048_channels() -> None:
    aspp, ppm = ASPP(2048, 21), PPM(2048, 21)
    assert [branch[0].out_channels for branch in aspp.branches] == [256] * 4
    assert [branch[0].dilation[0] for branch in aspp.branches] == [1, 6, 12, 18]
    assert aspp.join[0][0].in_channels == 5 * 256
    assert ppm.join[0][0].in_channels == 4096
    assert ppm.join[0][0].out_channels == 512
    assert len(ppm.levels) == len(PYRAMID)


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
    norms = [m for m in load_model(run / "last.safetensors").head.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert all(norm.num_batches_tracked > 0 and norm.running_mean.abs().sum() > 0 for norm in norms)
