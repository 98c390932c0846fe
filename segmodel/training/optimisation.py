"""One training step and what surrounds it: parameter groups and the poly rate (Sec. 6, 7.1.2)."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from segmodel.common.errors import UserError
from segmodel.training.objective import hard_pixel_loss


def parameter_groups(
    model: nn.Module, *, weight_decay: float = 1e-4, head_rate: float = 1.0, ring_rate: float = 0.1
) -> list[dict]:
    """Weights: rate x1, decayed. Biases: rate x2, not decayed (authors' code). The rest: rate x1, not decayed.

    The rest is what decay towards zero would harm: scales of batch norm, the CRF's weight and compatibility. Nor are
    the up-sampling filters decayed, which are bilinear and not zero at rest.

    Two kinds move slower, because at x1 a step moves the scores many times as far as one of the other weights: the
    rings of feature context at ``ring_rate``, 9 D inputs each that share their mean (at x1 Context diverges where Unary
    trains), and at x0.1 the up-sampling filters, whose few values every pixel shares.

    ``head_rate`` multiplies the rates of the weights and biases of the head, which starts from nothing.
    """
    kinds = {
        "weights": (1.0, weight_decay),
        "rings": (ring_rate, weight_decay),
        "biases": (2.0, 0.0),
        "rest": (1.0, 0.0),
        "filters": (0.1, 0.0),
    }
    members: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        factor, decay = kinds[parameter_kind(name, parameter)]
        if name.startswith("head.") and not name.startswith(("head.crf.", "head.up.")):
            factor *= head_rate
        members.setdefault((factor, decay), []).append(parameter)
    return [
        {"params": group, "rate_factor": factor, "weight_decay": decay} for (factor, decay), group in members.items()
    ]


def parameter_kind(name: str, parameter: Tensor) -> str:
    """The kind of a network's parameter, see ``parameter_groups``."""
    if name.endswith("bias"):
        return "biases"
    if name.startswith("head.up."):
        return "filters"
    if name.startswith("head.feature_context.rings."):
        return "rings"
    return "rest" if parameter.ndim < 2 or name.startswith("head.crf.") else "weights"


def make_optimizer(
    model: nn.Module,
    *,
    kind: Literal["sgd", "adamw"] = "sgd",
    rate: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    head_rate: float = 1.0,
) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW (Loshchilov and Hutter, 2019), over ``parameter_groups``.

    Momentum is AdamW's first beta.
    """
    # AdamW moves each weight of a ring as far as one of the centre's, however small its gradient
    ring_rate = 0.02 if kind == "adamw" else 0.1
    groups = parameter_groups(model, weight_decay=weight_decay, head_rate=head_rate, ring_rate=ring_rate)
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=(momentum, 0.999))
    return torch.optim.SGD(groups, lr=rate, momentum=momentum)


STATE = {"sgd": {"": "momentum_buffer"}, "adamw": {"": "exp_avg", "#squares": "exp_avg_sq", "#step": "step"}}
"""What an optimiser keeps of a parameter: what follows the parameter's name in a checkpoint, and PyTorch's name."""


def momentum_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's momentum, and what else it keeps, by parameter name, for a checkpoint."""
    state, kept = optimizer.state, STATE[type(optimizer).__name__.lower()]
    return {
        name + suffix: state[parameter][entry]
        for name, parameter in model.named_parameters()
        for suffix, entry in kept.items()
        if parameter in state and state[parameter].get(entry) is not None
    }


def restore_momentum(model: nn.Module, optimizer: torch.optim.Optimizer, momentum: Mapping[str, Tensor]) -> None:
    """The inverse of ``momentum_of``.

    Raises:
        UserError: a tensor of another shape, or the state of another kind of optimiser.
    """
    kept = STATE[type(optimizer).__name__.lower()]
    for name, parameter in model.named_parameters():
        found = {suffix: momentum[name + suffix] for suffix in STATE["adamw"] if name + suffix in momentum}
        if not found:
            continue  # it has had no gradient yet
        if found.keys() != kept.keys():
            raise UserError(f"momentum/{name}: expected that of {type(optimizer).__name__}, got another optimiser's")
        for suffix, saved in found.items():
            like = torch.zeros(()) if suffix == "#step" else parameter
            if saved.shape != like.shape:
                raise UserError(f"momentum/{name}{suffix}: expected {tuple(like.shape)}, got {tuple(saved.shape)}")
            # cloned as the parameter lies in memory: sums in another order would not resume to the last bit
            optimizer.state[parameter][kept[suffix]] = torch.empty_like(like).copy_(saved)


def poly_rate(step: int, total: int, *, base: float, power: float = 0.9) -> float:
    """``base * (1 - step / total) ** power``: the rate of step 0..total-1."""
    return base * (1 - step / total) ** power


def training_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    *,
    rate: float,
    keep: float = 0.5,
    mining: Literal["pixel", "block"] = "pixel",
    guidance: bool | None = None,
    autocast: torch.dtype | None = None,
    scaler: torch.amp.GradScaler | None = None,
    parts: int = 1,
    across: bool = False,
    class_weights: Tensor | None = None,
) -> Tensor:
    """One step of the optimiser on a batch; returns the loss before it (detached).

    Args:
        images: ``(N, 3, H, W)`` in 0..255, labels: ``(N, H, W)`` int64.
        rate: learning rate of this step, multiplied by each group's ``rate_factor``.
        keep, mining, class_weights: see ``hard_pixel_loss``.
        guidance: False leaves the guidance CRF out of this step, None follows the model's configuration.
        autocast: dtype of the convolutions, None for the parameters' own. scaler: for float16.
        parts: the batch goes through in so many equal parts, one after the other, and their gradients are averaged;
            mining and batch norm see one part at a time, and the loss is the mean of the parts'.
        across: mine over all processes, see ``hard_pixel_loss``; the loss returned is this process's share.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_factor"]
    optimizer.zero_grad(set_to_none=True)
    losses = []
    for number, (image, label) in enumerate(zip(images.chunk(parts), labels.chunk(parts), strict=True), 1):
        whole = number == parts or not hasattr(model, "no_sync")  # processes exchange gradients once, in the last part
        with nullcontext() if whole else cast(Any, model).no_sync():
            with torch.autocast(images.device.type, dtype=autocast, enabled=autocast is not None):
                scores = model(image) if guidance is None else model(image, guidance=guidance)
            loss = hard_pixel_loss(scores, label, keep=keep, mining=mining, across=across, class_weights=class_weights)
            loss = loss / parts
            (loss if scaler is None else scaler.scale(loss)).backward()
        losses.append(loss.detach())
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    return torch.stack(losses).sum()
