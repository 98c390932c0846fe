"""Registers the operators as ``torch.ops.segmodel.*``: for eager mode, autograd, torch.compile and autocast alike."""

from collections.abc import Callable
from typing import Any

import torch


def register(
    function: Callable[..., Any],
    name: str,
    *,
    fake: Callable[..., Any],
    setup: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
) -> None:
    """Make ``function`` the operator ``segmodel::name``, computed in float32 under autocast.

    Not by ``torch.library.custom_op``, whose first call imports torch's compiler: 1.7 s.

    Args:
        function: annotated tensors and numbers in, new tensors out; it runs without autograd.
        fake: the same signature; tensors of the result's shapes, dtypes and strides.
        setup, backward: those of ``torch.library.register_autograd``; without them a derivative is a RuntimeError.
    """
    operator = f"segmodel::{name}"
    schema = torch.library.infer_schema(function, mutates_args=())
    torch.library.define(operator, schema, tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.impl(operator, "default", function)
    torch.library.register_fake(operator, fake)

    def missing(ctx: Any, *gradients: Any) -> None:
        raise RuntimeError(f"{operator}: there is no autograd formula for it")

    torch.library.register_autograd(operator, backward or missing, setup_context=setup)
    for device in ("cpu", "cuda"):
        torch.library.register_autocast(operator, device, torch.float32)
