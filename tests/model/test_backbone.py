"""The hole algorithm keeps what pre-trained weights compute; weight files load by name and are reported on."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch.nn import functional as F

from segmodel.model.resnet import LAYERS, ResNet
from segmodel.model.weights import read_weights


def small(depth: int = 50, **options) -> ResNet:
    return ResNet(depth, width=2, stem_width=4, **options).double().eval()


@settings(max_examples=12, deadline=None)
@given(
    depth=st.sampled_from([18, 34, 50]),
    variant=st.sampled_from([{}, {"stride_in_1x1": True}, {"preactivation": True}]),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
)
def test_dilated_features_hold_those_of_the_strided_network(depth, variant, height, width):
    if depth < 50 and "preactivation" in variant:
        variant = {}
    torch.manual_seed(height * 100 + width)
    strided = small(depth, output_stride=32, **variant)
    image = torch.randn(1, 3, height, width, dtype=torch.float64)
    expected = strided(image)
    for output_stride in (16, 8):
        dense = small(depth, output_stride=output_stride, **variant)
        dense.load_state_dict(strided.state_dict())
        features = dense(image)
        assert features.shape[2:] == (-(-height // output_stride), -(-width // output_stride))
        step = 32 // output_stride
        # the same sums in the same order or nearly: float64 rounding only
        torch.testing.assert_close(features[:, :, ::step, ::step], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("output_stride", [32, 16, 8])
@pytest.mark.parametrize("depth", [18, 50])
def test_equals_timms_resnet_with_the_same_weights(depth, output_stride):
    timm = pytest.importorskip("timm", reason="compares with timm")
    torch.manual_seed(depth)
    options = {"features_only": True, "out_indices": (4,), "output_stride": output_stride}
    theirs = timm.create_model(f"resnet{depth}", pretrained=False, **options).double().eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1)  # timm starts the last of a block at zero
    ours = ResNet(depth, output_stride=output_stride).double().eval()
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(1, 3, 65, 90, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(ours(image), theirs(image)[0], rtol=1e-9, atol=1e-9)


class Published:
    """The network of He et al. at stride 32, from its tensors alone."""

    def __init__(self, state: dict[str, torch.Tensor], preactivation: bool):
        self.state, self.preactivation = state, preactivation

    def conv(self, name, x, stride=1):
        weight = self.state[f"{name}.weight"]
        return F.conv2d(x, weight, None, stride, weight.shape[-1] // 2)

    def norm(self, name, x):
        parts = (self.state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts)

    def block(self, name, x, stride):
        deep, shortcut = f"{name}.conv3.weight" in self.state, x
        y = self.norm(f"{name}.bn1", self.conv(f"{name}.conv1", x, 1 if deep else stride)).relu()
        y = self.norm(f"{name}.bn2", self.conv(f"{name}.conv2", y, stride if deep else 1))
        if deep:
            y = self.norm(f"{name}.bn3", self.conv(f"{name}.conv3", y.relu()))
        if f"{name}.downsample.0.weight" in self.state:
            shortcut = self.norm(f"{name}.downsample.1", self.conv(f"{name}.downsample.0", x, stride))
        return (y + shortcut).relu()

    def preactivation_block(self, name, x, stride):
        active, shortcut = self.norm(f"{name}.bn1", x).relu(), x
        y = self.norm(f"{name}.bn2", self.conv(f"{name}.conv1", active)).relu()
        y = self.norm(f"{name}.bn3", self.conv(f"{name}.conv2", y, stride)).relu()
        if f"{name}.downsample.0.weight" in self.state:
            shortcut = self.conv(f"{name}.downsample.0", active, stride)
        return self.conv(f"{name}.conv3", y) + shortcut

    def __call__(self, x):
        block = self.preactivation_block if self.preactivation else self.block
        x = F.max_pool2d(self.norm("bn1", self.conv("conv1", x, 2)).relu(), 3, 2, 1)
        for name in dict.fromkeys(key[:8] for key in self.state if key.startswith("layer")):  # layer1.0, ...
            x = block(name, x, 2 if name in ("layer2.0", "layer3.0", "layer4.0") else 1)
        return self.norm("last.0", x).relu() if self.preactivation else x


@pytest.mark.parametrize(("depth", "preactivation"), [(18, False), (50, False), (50, True)])
def test_features_are_those_of_the_published_network(depth, preactivation):
    torch.manual_seed(0)
    network, image = small(depth, output_stride=32, preactivation=preactivation), torch.randn(1, 3, 65, 65).double()
    network.train()(image)  # for running statistics that are not those of the start
    expected = Published(network.state_dict(), preactivation)(image)
    torch.testing.assert_close(network.eval()(image), expected, rtol=1e-10, atol=1e-12)


def test_convolutions_start_with_the_variance_of_what_they_give():
    torch.manual_seed(0)
    weight = ResNet(18, width=8, stem_width=4).layer4[0].conv1.weight  # (64, 32, 3, 3)
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.03)  # of 18432 values


GRADIENTS = """
import torch
from segmodel.model.resnet import ResNet

torch.set_num_threads(1)
torch.manual_seed(0)
for depth, options in ((18, {}), (50, {"stride_in_1x1": True}), (50, {"stride_in_1x1": True, "preactivation": True})):
    network = ResNet(depth, width=2, stem_width=4, output_stride=32, **options).to(memory_format=torch.channels_last)
    convs = [m for m in network.modules() if getattr(m, "kernel_size", 0) == (1, 1) and m.stride == (2, 2)]
    assert len(convs) == (6 if options else 3), convs
    for conv in 9 * convs:
        x = torch.randn(8, conv.in_channels, 16, 16).contiguous(memory_format=torch.channels_last).requires_grad_()
        conv.zero_grad()
        conv(x).sum().backward()
        expected = x[:, :, ::2, ::2].sum((0, 2, 3))[:, None, None].expand_as(conv.weight)
        torch.testing.assert_close(conv.weight.grad, expected, rtol=1e-4, atol=1e-3)  # sums of 512 values in float32
"""


def test_strided_1x1_convolutions_of_few_channels_have_right_gradients():
    """In a process of its own: where oneDNN is wrong (see the backbone), it crashes or hangs."""
    done = subprocess.run([sys.executable, "-c", GRADIENTS], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


def test_parameter_names_and_shapes_are_those_of_torchvision():
    state = ResNet(50).state_dict()
    shapes = {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_var": (64,),
        "layer1.0.conv1.weight": (64, 64, 1, 1),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer1.0.downsample.1.bias": (256,),
        "layer3.5.conv2.weight": (256, 256, 3, 3),
        "layer4.2.bn3.num_batches_tracked": (),
    }
    for name, shape in shapes.items():
        assert tuple(state[name].shape) == shape
    assert len(state) == 318  # as torchvision's resnet50 without fc
    weights = sum(value.numel() for name, value in ResNet(18).named_parameters())
    assert weights == 11_689_512 - 513_000  # torchvision's resnet18 less its fc


@pytest.mark.parametrize("depth", sorted(LAYERS))
def test_every_depth_has_its_number_of_weighted_layers(depth):
    names = [name for name, value in small(depth).named_parameters() if value.ndim == 4 and "downsample" not in name]
    assert len(names) + 1 == depth  # the classifier is the one more


def test_the_stages_are_those_of_the_paper():
    assert LAYERS == {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 20}, "depth: expected one of"),
        ({"output_stride": 4}, "output_stride: expected 8, 16 or 32, got 4"),
        ({"depth": 18, "preactivation": True}, "preactivation: expected a depth"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ResNet(**{"width": 2, **options})


def test_weights_load_from_both_formats_with_a_report(tmp_path):
    source, target = small(18), small(18)
    state = {name: value.contiguous() for name, value in source.state_dict().items()}
    save_file({**state, "fc.weight": torch.zeros(3, 3)}, tmp_path / "weights.safetensors")
    report = target.load_weights(tmp_path / "weights.safetensors")
    assert set(report.loaded) == set(state)
    assert report.new == ()
    assert report.unused == ("fc.weight",)
    assert "unused: 1 (fc.weight)" in str(report)
    partial = {f"module.{name}": value for name, value in state.items() if not name.startswith("layer4")}
    torch.save({"state_dict": partial}, tmp_path / "weights.pth")
    other = small(18)
    report = other.load_weights(tmp_path / "weights.pth")
    assert report.new
    assert all(name.startswith("layer4") for name in report.new)
    torch.testing.assert_close(other.conv1.weight, source.conv1.weight)


@pytest.mark.parametrize(
    ("wrapper", "prefix"), [("model", ""), ("state_dict", "backbone."), ("", "module."), ("", "module.backbone.")]
)
def test_wrappers_and_prefixes_in_weight_files_are_taken_off(wrapper, prefix, tmp_path):
    tensors = {f"{prefix}conv1.weight": torch.ones(1)}
    torch.save({wrapper: tensors} if wrapper else tensors, tmp_path / "weights.pth")
    assert list(read_weights(tmp_path / "weights.pth")) == ["conv1.weight"]


def test_weight_files_that_do_not_fit_are_errors(tmp_path):
    with pytest.raises(ValueError, match="no such weight file"):
        read_weights(tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ValueError, match="not a readable weight file"):
        read_weights(tmp_path / "text.pth")
    save_file({"other": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"no tensor fits this model \(first names: other\)"):
        small(18).load_weights(tmp_path / "other.safetensors")
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "wide.safetensors")
    with pytest.raises(ValueError, match=r"conv1.weight: expected shape \(4, 3, 7, 7\), got \(64, 3, 7, 7\)"):
        small(18).load_weights(tmp_path / "wide.safetensors")


def test_pickled_code_in_a_weight_file_is_not_executed(tmp_path):
    class Harm:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"conv1.weight": Harm()}, tmp_path / "harm.pth")
    with pytest.raises(ValueError, match="not a readable weight file"):
        read_weights(tmp_path / "harm.pth")
    assert not (tmp_path / "executed").exists()
