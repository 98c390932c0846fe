"""The guidance CRF (Algorithm 1), read on scores: a score is a negative energy."""

import torch
from torch import Tensor

from . import backend as _backend
from .guided_filter import PreparedGuide, filter_with, guide_for


def guidance_crf(
    scores: Tensor,
    guide: Tensor | PreparedGuide,
    *,
    compatibility: Tensor | None = None,
    weight: float | Tensor = 2.0,
    radius: int = 3,
    eps: float = 1.0,
    iterations: int = 3,
    border: str = "clipped",
    backend: str = "auto",
) -> Tensor:
    r"""Algorithm 1: :math:`q = softmax(\phi)`, :math:`\phi = \phi^u - \lambda \mu W q`, ``iterations`` times.

    Args:
        scores: :math:`\phi^u`, ``N L H W``, float16, bfloat16 (computed in float32), float32 or float64.
        guide: ``N 3 H W`` or ``N 1 H W`` with colours in 0..255, or a prepared guide (see ``guided_filter``).
        compatibility: :math:`\mu`, ``L L``, gradient supported; None is Potts (1 - identity) without the product.
        weight: :math:`\lambda`, a number or a tensor with one element, gradient supported.
        radius, eps, border: those of ``guided_filter``.
        iterations: :math:`k_{max} \ge 0`; 0 returns the scores.
        backend: "auto", "torch" or "triton".

    Returns:
        The scores :math:`\phi` after the last iteration, in the shape and dtype of ``scores``.

    Raises:
        ValueError: on a wrong rank, shape, dtype, device, radius, eps, border, iterations or backend.
    """
    _backend.check_map("scores", scores)
    _backend.choose(backend, scores.device)
    labels = scores.shape[1]
    if compatibility is not None and tuple(compatibility.shape) != (labels, labels):
        raise ValueError(f"compatibility: expected shape {(labels, labels)}, got {tuple(compatibility.shape)}")
    if isinstance(weight, Tensor) and weight.numel() != 1:
        raise ValueError(f"weight: expected a number or one element, got shape {tuple(weight.shape)}")
    if not isinstance(iterations, int) or iterations < 0:
        raise ValueError(f"iterations: expected an integer >= 0, got {iterations!r}")
    prepared = guide_for(scores, guide, radius=radius, eps=eps, border=border)
    with torch.autocast(scores.device.type, enabled=False):
        unary = scores.to(prepared.planes.dtype)
        if isinstance(weight, Tensor):
            weight = weight.to(unary.dtype).reshape(())
        if compatibility is not None:
            compatibility = compatibility.to(unary.dtype)
        phi = unary
        for _ in range(iterations):
            g = filter_with(phi.softmax(dim=1), prepared)
            phi = unary - weight * compatibility_product(compatibility, g)
        return phi.to(scores.dtype)


def compatibility_product(compatibility: Tensor | None, g: Tensor) -> Tensor:
    """Mu g over the labels of N L H W; Potts needs no product."""
    if compatibility is None:
        return g.sum(dim=1, keepdim=True) - g
    return torch.einsum("lm,nmhw->nlhw", compatibility, g)
