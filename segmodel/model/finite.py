"""NaN is never a result: finds what a model computes it from."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from segmodel.common.errors import NotFiniteError


def is_finite(x: Tensor) -> bool:
    """Whether all values of a tensor (not empty) are finite; in one pass, which makes no tensor of its size."""
    return all(math.isfinite(value.item()) for value in x.detach().aminmax())


def fault(tensors: Mapping[str, Tensor]) -> str:
    """What is wrong with the first of these tensors that no model can predict with, "" if with none."""
    for name, value in tensors.items():
        if value.is_floating_point() and value.numel() and not is_finite(value):
            return f"{name}: expected finite values, got NaN or infinity"
        if name.endswith("running_var") and bool((value < 0).any()):
            return f"{name}: expected a variance of at least 0, got {value.min().item():g}"
    return ""


def first_fault(model: nn.Module, compute: Callable[[], object]) -> str:
    """What is wrong in a model whose scores are not finite: its first bad tensor, else its first module that makes one.

    compute: what the scores came from, done once more.
    """
    if found := fault(model.state_dict()):
        return found
    bad: list[str] = []

    def look(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, given: Any, result: Any) -> None:
            if not bad and isinstance(result, Tensor) and result.is_floating_point() and not is_finite(result):
                bad.append(name)

        return hook

    hooks = [part.register_forward_hook(look(name)) for name, part in model.named_modules() if name]
    try:
        compute()
    finally:
        for hook in hooks:
            hook.remove()
    name = bad[0] if bad else "scores"
    return f"{name}: expected finite values, computed NaN or infinity (all tensors of the model are finite)"


def check_scores(scores: Tensor, model: nn.Module, compute: Callable[[], object]) -> Tensor:
    """The scores.

    Raises:
        NotFiniteError: NaN or infinity; the message names the first bad tensor.
    """
    if not is_finite(scores):
        with torch.no_grad():
            raise NotFiniteError(f"the model's scores are NaN or infinite: {first_fault(model, compute)}")
    return scores
