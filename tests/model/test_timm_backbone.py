"""timm models as backbones. With timm: features, weights, colours. Without: one line that says what to install."""

import importlib
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

from segmodel import ModelConfig, SegModel
from segmodel.model import timm_backbone
from segmodel.model.timm_backbone import TimmBackbone

try:
    timm = importlib.import_module("timm")
except ImportError:  # not installed, or without the torchvision that it needs
    timm = None
needs_timm = pytest.mark.skipif(timm is None, reason="timm (extra [timm]) cannot be imported")


def test_without_timm_the_extra_is_named(monkeypatch):
    def absent(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(timm_backbone, "import_module", absent)
    with pytest.raises(ValueError, match=r"needs the extra: python -m pip install 'segmodel\[timm\]' \(No module"):
        SegModel(2, ModelConfig(backbone="timm:resnet18"))


@pytest.mark.parametrize("name", ["", "timm:", "vgg", "Resnet"])
def test_other_backbones_are_errors(name):
    with pytest.raises(ValueError, match="backbone: expected resnet or timm:NAME, got"):
        ModelConfig(backbone=name)


class StandIn(torch.nn.Module):
    """What this package uses of a timm feature model, as timm documents it: rounds sizes down, flattened names."""

    def __init__(self, stride: int):
        super().__init__()
        self.stages_0 = torch.nn.Conv2d(3, 6, stride, stride)
        self.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.3, 0.2, 0.25)}
        self.feature_info = SimpleNamespace(channels=lambda: [4, 6], reduction=lambda: [4, stride])
        self.channels_last = self.checkpointing = False

    def set_grad_checkpointing(self, enable):
        self.checkpointing = enable

    def forward(self, x):
        features = self.stages_0(x)
        return [x, features.permute(0, 2, 3, 1) if self.channels_last else features]


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(
        timm_backbone, "_create", lambda name, stride, pretrained: StandIn(32 if name == "fixed" else stride)
    )


@pytest.mark.parametrize(("height", "width"), [(1, 1), (16, 16), (17, 50)])
def test_any_size_gives_whole_cells_and_scores(stand_in, height, width):
    config = ModelConfig(backbone="timm:stand_in", rings=((1, 1),), label_hidden=2, label_pool=3)
    model = SegModel(2, config).eval()
    image = 255 * torch.rand(1, 3, height, width)
    assert model.features(image).shape == (1, 6, -(-height // 16), -(-width // 16))
    assert model(image).shape == (1, 2, height, width)
    torch.testing.assert_close(model.image_mean.flatten(), 255 * torch.tensor([0.5, 0.4, 0.3]))
    torch.testing.assert_close(model.image_std.flatten(), 255 * torch.tensor([0.3, 0.2, 0.25]))


@pytest.mark.parametrize("channels_last", [False, True])
def test_cells_are_filled_up_to_the_right_and_below(stand_in, channels_last):
    backbone, image = TimmBackbone("stand_in", output_stride=16), torch.randn(1, 3, 17, 50)
    backbone.body.channels_last = channels_last
    whole = torch.zeros(1, 3, 32, 64)
    whole[..., :17, :50] = image
    assert torch.equal(backbone(image), backbone.body.stages_0(whole))


def test_timms_own_checkpointing_recomputes(stand_in):
    backbone = TimmBackbone("stand_in", output_stride=16)
    for enable in (True, False):
        backbone.recompute = enable
        assert (backbone.recompute, backbone.body.checkpointing) == (enable, enable)


def test_models_within_a_wrapper_recompute_and_others_say_that_they_cannot(stand_in):
    backbone = TimmBackbone("stand_in", output_stride=16)
    inner = backbone.body

    class Wrapper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = inner

    backbone.body = Wrapper()
    backbone.recompute = True
    assert inner.checkpointing
    backbone.body = torch.nn.Identity()
    backbone.recompute = False
    with pytest.raises(ValueError, match="checkpoint_activations: timm:stand_in cannot"):
        backbone.recompute = True
    assert not backbone.recompute

    class Refusing(torch.nn.Module):
        def set_grad_checkpointing(self, enable):
            assert not enable, "not supported"

    backbone.body = Refusing()
    backbone.recompute = False
    with pytest.raises(ValueError, match="checkpoint_activations: timm:stand_in cannot"):
        backbone.recompute = True


def test_the_default_stride_is_not_passed_on(monkeypatch):
    create = Mock(side_effect=lambda name, output_stride=32, **options: StandIn(output_stride))
    monkeypatch.setattr(
        timm_backbone, "import_module", lambda name: SimpleNamespace(is_model=bool, create_model=create)
    )
    for stride, passed in ((16, {"output_stride": 16}), (32, {})):
        TimmBackbone("any", output_stride=stride)
        create.assert_called_with("any", pretrained=False, features_only=True, **passed)


def test_another_stride_is_an_error(stand_in):
    with pytest.raises(ValueError, match="timm:fixed: its last features have stride 32, not the output_stride 8"):
        TimmBackbone("fixed", output_stride=8)


def test_weight_files_have_timms_names(stand_in, tmp_path):
    backbone, source = TimmBackbone("stand_in", output_stride=16), StandIn(16)
    torch.save({"stages.0.weight": source.stages_0.weight.detach(), "head.fc.bias": torch.ones(2)}, tmp_path / "w.pth")
    report = backbone.load_weights(tmp_path / "w.pth")
    assert report.loaded == ("body.stages_0.weight",)
    assert report.unused == ("head.fc.bias",)
    assert torch.equal(backbone.body.stages_0.weight, source.stages_0.weight)
    assert len(backbone.load_weights("timm").loaded) == 2


@needs_timm
@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "mobilenetv3_small_050", "efficientnet_lite0"])
def test_models_of_timm(name, tmp_path):
    for stride in (8, 16, 32):
        backbone = TimmBackbone(name, output_stride=stride).eval()
        backbone.recompute = True
        features = backbone(torch.randn(1, 3, 33, 70))
        assert features.shape == (1, backbone.channels, -(-33 // stride), -(-70 // stride))
    whole = timm.create_model(name, pretrained=False).state_dict()
    torch.save(whole, tmp_path / "whole.pth")
    renamed = backbone.read_weights(tmp_path / "whole.pth")
    assert {key for key in backbone.state_dict() if key not in renamed} == set()


@needs_timm
def test_timms_models_without_such_features_are_named():
    with pytest.raises(ValueError, match=r"timm .* has no model 'resnet1234' \(for instance "):
        TimmBackbone("resnet1234", output_stride=16)
    with pytest.raises(ValueError, match="timm:vgg11 has no features at output stride 16"):
        TimmBackbone("vgg11", output_stride=16)
