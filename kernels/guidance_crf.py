"""The guidance CRF (Algorithm 1), read on scores: a score is a negative energy."""

from collections.abc import Callable
from numbers import Real

import torch
from torch import Tensor

from . import backend as _backend
from .guided_filter import PreparedGuide, composite, composite_filter, filter_planes, guide_for
from .registration import register

CONTIGUOUS = torch.contiguous_format


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

    Differentiable once (a second derivative raises). A guide that requires a gradient gets it, through slower
    standard operators. The backward reads every q, ``iterations`` times the scores in float32.
    NaN and infinities propagate. ``torch.func.grad`` and forward mode raise.

    Args:
        scores: :math:`\phi^u`, ``N L H W``, float16, bfloat16 (computed in float32), float32 or float64.
        guide: ``N 3 H W`` or ``N 1 H W`` with colours in 0..255, or a prepared guide (see ``guided_filter``).
        compatibility: :math:`\mu`, ``L L``, gradient supported; None is Potts (1 - identity) without the product.
        weight: :math:`\lambda`, a number or a tensor with one element, gradient supported.
        radius, eps, border, backend: those of ``guided_filter``.
        iterations: :math:`k_{max} \ge 0`; 0 returns a copy of the scores.

    Returns the scores :math:`\phi` after the last iteration, in the shape and dtype of ``scores``.

    Raises:
        ValueError: on a wrong rank, shape, dtype, device, radius, eps, border, iterations or backend.
    """
    _backend.check_map("scores", scores)
    _check(scores, compatibility, weight, iterations)
    backend = _backend.requested(backend)
    engine = _backend.choose(backend, scores)
    prepared = guide_for(scores, guide, radius, eps, border, backend)
    planes, dtype = prepared.planes, prepared.planes.dtype
    if iterations == 0:
        return scores.clone()
    if not isinstance(weight, Tensor):
        weight = torch.full((), float(weight), dtype=dtype, device=scores.device)
    weight = weight.to(scores.device, dtype).reshape(())
    if compatibility is not None:
        compatibility = compatibility.to(dtype)
    if composite(planes, backend):
        return _composite_crf(scores, prepared, compatibility, weight, iterations)
    wanted = [scores, weight] if compatibility is None else [scores, weight, compatibility]
    save = torch.is_grad_enabled() and any(x.requires_grad for x in wanted)
    phi, _ = torch.ops.segmodel.guidance_crf(
        scores, planes, compatibility, weight, prepared.radius, prepared.border, iterations, save, engine
    )
    return phi.to(scores.dtype)


def _check(scores: Tensor, compatibility: Tensor | None, weight: float | Tensor, iterations: int) -> None:
    labels = scores.shape[1]
    if compatibility is not None:
        if not isinstance(compatibility, Tensor):
            raise ValueError(f"compatibility: expected a tensor, got {type(compatibility).__name__}")
        if tuple(compatibility.shape) != (labels, labels):
            raise ValueError(f"compatibility: expected shape {(labels, labels)}, got {tuple(compatibility.shape)}")
        if compatibility.device != scores.device:
            raise ValueError(f"compatibility: expected device {scores.device}, got {compatibility.device}")
        _backend.check_no_tangent("compatibility", compatibility)
    if isinstance(weight, Tensor):
        if weight.numel() != 1:
            raise ValueError(f"weight: expected a number or one element, got shape {tuple(weight.shape)}")
        _backend.check_no_tangent("weight", weight)
    elif not isinstance(weight, Real):
        raise ValueError(f"weight: expected a number or one element, got {weight!r}")
    _backend.check_count("iterations", iterations)


def _composite_crf(
    scores: Tensor, guide: PreparedGuide, compatibility: Tensor | None, weight: Tensor, iterations: int
) -> Tensor:
    """Standard operators: for export, and for the gradient of the guide."""
    with torch.autocast(scores.device.type, enabled=False):
        phi = unary = scores.to(guide.planes.dtype)
        for _ in range(iterations):
            g = composite_filter(phi.softmax(dim=1), guide)
            phi = unary - weight * messages(compatibility, g)
        return phi.to(scores.dtype)


def messages(compatibility: Tensor | None, g: Tensor) -> Tensor:
    """Mu g over the labels of N L H W; Potts is the sum over all labels minus the own one."""
    if compatibility is None:
        return g.sum(dim=1, keepdim=True) - g
    return torch.matmul(compatibility, g.flatten(2)).view(g.shape)


def forward(
    scores: Tensor,
    planes: Tensor,
    compatibility: Tensor | None,
    weight: Tensor,
    radius: int,
    border: str,
    iterations: int,
    save: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Phi after the last iteration, and every q (iterations N L H W) if they are to be saved."""
    first, step, _ = steps(backend)
    unary, phi = scores.contiguous(), torch.empty_like(scores, memory_format=CONTIGUOUS)
    beliefs = planes.new_empty((iterations if save else 1, *scores.shape))
    with torch.autocast(scores.device.type, enabled=False):
        q = first(unary, beliefs[0])
        for k in range(1, iterations + 1):
            g = filter_planes(q, planes, radius, border, False, backend)
            message = g if compatibility is None else messages(compatibility, g)
            last = k == iterations
            q = step(
                unary, message, weight, compatibility is None, not last, phi if last else beliefs[k % len(beliefs)]
            )
    return phi, beliefs if save else beliefs.new_empty((0, *scores.shape))


def steps(backend: str) -> tuple[Callable, Callable, Callable]:
    """What lies before the first filter, between two, and between two of the backward: one pass each, or as below."""
    if backend == "triton":
        from . import triton_guidance_crf

        return beliefs_of, triton_guidance_crf.update, triton_guidance_crf.update_backward
    if backend == "numba":
        from . import numba_guidance_crf

        return numba_guidance_crf.beliefs, numba_guidance_crf.update, numba_guidance_crf.update_backward
    return beliefs_of, update, update_backward


def beliefs_of(scores: Tensor, out: Tensor) -> Tensor:
    return torch.softmax(scores, dim=1, dtype=out.dtype, out=out)


def update(unary: Tensor, message: Tensor, weight: Tensor, potts: bool, softmax: bool, out: Tensor) -> Tensor:
    """``unary - weight * mu g`` into ``out``, and its softmax if wanted; ``message`` is g with Potts, else mu g.

    Overwrites the message.
    """
    if potts:
        torch.sub(message.sum(dim=1, keepdim=True), message, out=message)
    phi = torch.addcmul(unary, weight, message, value=-1, out=message if softmax else out)
    return torch.softmax(phi, dim=1, out=out) if softmax else phi


def update_backward(h: Tensor, q: Tensor, weight: Tensor, potts: bool, total: Tensor) -> tuple[Tensor, Tensor]:
    """The next step of the backward, added to ``total``; and d_weight, which is 0 unless Potts. Overwrites h."""
    d_weight = torch.dot(h.flatten(), q.flatten()) - h.sum() if potts else torch.zeros_like(weight)
    d_q = h.mul_(weight if potts else -weight)
    step = torch.ops.aten._softmax_backward_data(d_q, q, 1, q.dtype)
    total += step
    return step, d_weight


def backward(
    grad: Tensor,
    beliefs: Tensor,
    planes: Tensor,
    compatibility: Tensor | None,
    weight: Tensor,
    radius: int,
    border: str,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the scores, the compatibility (empty for Potts) and the weight.

    W acts on space and mu on labels, so they commute and h = W^T dphi serves all three: dmu = -lambda h q^T,
    dq = -lambda mu^T h, and dlambda = -<h, mu q>. No g is needed, and with Potts no product: a term that is the
    same for all labels vanishes behind the softmax, and sum_l q_l = 1.
    """
    *_, step_backward = steps(backend)
    step = grad.to(planes.dtype).contiguous()
    total = step.clone()
    labels = 0 if compatibility is None else grad.shape[1]
    d_compatibility, d_weight = planes.new_zeros((labels, labels)), torch.zeros_like(weight)
    with torch.autocast(grad.device.type, enabled=False):
        for q in reversed(beliefs.unbind(0)):
            h = filter_planes(step, planes, radius, border, True, backend)
            if compatibility is not None:
                product = torch.matmul(h.flatten(2), q.flatten(2).mT).sum(0)
                d_weight -= (product * compatibility).sum()
                d_compatibility -= weight * product
                h = messages(compatibility.mT, h)
            step, d_potts = step_backward(h, q, weight, compatibility is None, total)
            d_weight += d_potts
    return total.to(grad.dtype), d_compatibility, d_weight


def _fake(scores, planes, compatibility, weight, radius, border, iterations, save, backend):
    beliefs = planes.new_empty((iterations if save else 0, *scores.shape))
    return torch.empty_like(scores, memory_format=CONTIGUOUS), beliefs


def _fake_backward(grad, beliefs, planes, compatibility, weight, radius, border, backend):
    labels = 0 if compatibility is None else grad.shape[1]
    scores = torch.empty_like(grad, memory_format=CONTIGUOUS)
    return scores, planes.new_empty((labels, labels)), torch.empty_like(weight)


def _setup(ctx, inputs, output) -> None:
    _, planes, compatibility, weight, ctx.radius, ctx.border, _, _, ctx.backend = inputs
    ctx.save_for_backward(planes, compatibility, weight, output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx, grad: Tensor | None, _beliefs: Tensor | None):
    if grad is None:
        return (None,) * 9
    planes, compatibility, weight, beliefs = ctx.saved_tensors
    scores, d_compatibility, d_weight = torch.ops.segmodel.guidance_crf_backward(
        grad, beliefs, planes, compatibility, weight, ctx.radius, ctx.border, ctx.backend
    )
    return scores, None, None if compatibility is None else d_compatibility, d_weight, *(None,) * 5


register(forward, "guidance_crf", fake=_fake, setup=_setup, backward=_backward)
register(backward, "guidance_crf_backward", fake=_fake_backward)
