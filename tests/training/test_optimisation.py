import torch
from torch import nn

from segmodel.model.config import ModelConfig
from segmodel.segmodel import SegModel
from segmodel.training.optimisation import make_optimizer, parameter_groups
from segmodel.training.statistics import recompute_batch_norm


def tiny() -> SegModel:
    return SegModel(3, ModelConfig(depth=18, width=4, stem_width=4))


def test_every_parameter_is_in_one_group() -> None:
    model = tiny()
    members = [parameter for group in parameter_groups(model) for parameter in group["params"]]
    assert sorted(map(id, members)) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_the_heads_weights_and_biases_alone_follow_its_rate() -> None:
    model = tiny()
    before = {id(p): g["rate_factor"] for g in make_optimizer(model).param_groups for p in g["params"]}
    groups = make_optimizer(model, head_rate=10.0).param_groups
    ratio = {id(p): g["rate_factor"] / before[id(p)] for g in groups for p in g["params"]}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            own = name.startswith("head.") and not name.startswith(("head.crf", "head.up"))
            assert ratio[id(parameter)] == (10.0 if own else 1.0), name


def test_batch_norm_statistics_are_those_of_inference_whatever_the_random_numbers() -> None:
    """DeepLabV3's head has a batch norm behind a dropout, some of timm's models one behind a dropped path."""

    class DropPath(nn.Module):
        def forward(self, x):
            return x * torch.bernoulli(torch.full((len(x), 1, 1, 1), 0.5)) if self.training else x

    statistics = []
    for seed in (0, 1):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Sequential(nn.Dropout(0.5), DropPath()), nn.BatchNorm2d(3)).train()
        batch = torch.randn(2, 3, 4, 4)
        torch.manual_seed(seed)
        recompute_batch_norm(model, model, [batch])
        statistics.append(model[1].running_mean)
        assert all(module.training for module in model.modules())
        torch.testing.assert_close(model[1].running_mean, batch.mean((0, 2, 3)))
    assert torch.equal(*statistics)
