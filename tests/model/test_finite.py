"""NaN is never a result: of whatever makes the scores NaN, the first bad tensor is named."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from segmodel.common.errors import NotFiniteError
from segmodel.inference.views import InferenceConfig, check_predicts, predict_images
from segmodel.model.config import ModelConfig
from segmodel.model.finite import check_scores, fault, is_finite
from segmodel.segmodel import SegModel

SMALL = ModelConfig(depth=18, width=4, stem_width=4, label_hidden=4, rings=((1, 2),), label_pool=5)
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_value_is_enough(bad):
    x = torch.zeros(3, 5, 7)
    assert is_finite(x)
    x[2, 4, 6] = bad
    assert not is_finite(x)
    assert fault({"a": torch.ones(2), "b": x, "c": x}) == "b: expected finite values, got NaN or infinity"
    assert fault({"n": torch.tensor(3), "empty": torch.zeros(0), "x": torch.ones(2).half()}) == ""
    assert fault({"bn.running_var": torch.tensor([1.0, -0.5])}).endswith("of at least 0, got -0.5")


def spoil(model: SegModel, name: str, value: float) -> None:
    with torch.no_grad():
        model.state_dict()[name].fill_(value)


FAULTS = [
    ("backbone.conv1.weight", math.nan, "backbone.conv1.weight: expected finite"),
    ("backbone.bn1.running_var", math.nan, "backbone.bn1.running_var: expected finite"),
    ("head.crf.compatibility", math.nan, "head.crf.compatibility: expected finite"),
    ("backbone.conv1.weight", 3e38, r"backbone\.\S+: expected finite values, computed NaN or infinity \(all tensors"),
]


@pytest.mark.parametrize(("name", "value", "expected"), FAULTS)
@pytest.mark.parametrize("window", [None, (32, 32)])
def test_a_model_that_computes_nan_gives_no_labels(name, value, expected, window):
    model = SegModel(3, SMALL).eval()
    predict_images([model], IMAGE[None], guidance={"on": True}, config=InferenceConfig(window=window))
    spoil(model, name, value)
    with pytest.raises(NotFiniteError, match=expected):
        predict_images([model], IMAGE[None], guidance={"on": True}, config=InferenceConfig(window=window))
    with pytest.raises(NotFiniteError, match=expected):
        check_predicts(model.train())
    assert model.training
    with pytest.raises(NotFiniteError, match=expected):
        model.segment(IMAGE)


def test_the_first_module_that_computes_it_is_named():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    with torch.no_grad():
        for part in model:
            part.weight.fill_(1e30)
    x = torch.ones(1, 2)
    with pytest.raises(NotFiniteError, match=r"NaN or infinite: 1: expected finite values, computed"):
        check_scores(model(x), model, lambda: model(x))
    assert not any(part._forward_hooks for part in model)
