"""One training step and what surrounds it: parameter groups, poly rate, batch-norm statistics (Sec. 6, 7.1.2)."""

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from segmodel.losses import hard_pixel_loss


def parameter_groups(model: nn.Module, *, weight_decay: float = 1e-4) -> list[dict]:
    """Weights: rate x1, decayed. Biases: rate x2, not decayed (authors' code). The rest: rate x1, not decayed.

    The rest is what decay towards zero would harm: scales of batch norm, the CRF's weight and compatibility, and the
    up-sampling filters, which are bilinear and not zero at rest.
    """
    groups = {
        "weights": {"rate_factor": 1.0, "weight_decay": weight_decay},
        "biases": {"rate_factor": 2.0, "weight_decay": 0.0},
        "rest": {"rate_factor": 1.0, "weight_decay": 0.0},
    }
    members: dict[str, list[nn.Parameter]] = {name: [] for name in groups}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        kind = "biases" if name.endswith("bias") else "weights"
        if kind == "weights" and (parameter.ndim < 2 or "crf." in name or "up." in name):
            kind = "rest"
        members[kind].append(parameter)
    return [{"params": members[name], **settings} for name, settings in groups.items() if members[name]]


def make_optimizer(
    model: nn.Module, *, rate: float = 0.01, momentum: float = 0.9, weight_decay: float = 1e-4
) -> torch.optim.SGD:
    """SGD with momentum over ``parameter_groups``."""
    return torch.optim.SGD(parameter_groups(model, weight_decay=weight_decay), lr=rate, momentum=momentum)


def poly_rate(step: int, total: int, *, base: float, power: float = 0.9) -> float:
    """``base * (1 - step / total) ** power``: the rate of step 0..total-1."""
    return base * (1 - step / total) ** power


def training_step(
    model: nn.Module,
    optimizer: torch.optim.SGD,
    images: Tensor,
    labels: Tensor,
    *,
    rate: float,
    keep: float = 0.5,
    mining: Literal["pixel", "block"] = "pixel",
    guidance: bool | None = None,
    autocast: torch.dtype | None = None,
    scaler: torch.amp.GradScaler | None = None,
) -> Tensor:
    """One step of SGD on a batch; returns the loss before it (detached).

    Args:
        images: ``(N, 3, H, W)`` in 0..255, labels: ``(N, H, W)`` int64.
        rate: learning rate of this step, multiplied by each group's ``rate_factor``.
        keep, mining: see ``hard_pixel_loss``.
        guidance: False leaves the guidance CRF out of this step, None follows the model's configuration.
        autocast: dtype of the convolutions, None for the parameters' own. scaler: for float16.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_factor"]
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(images.device.type, dtype=autocast, enabled=autocast is not None):
        scores = model(images) if guidance is None else model(images, guidance=guidance)
    loss = hard_pixel_loss(scores, labels, keep=keep, mining=mining)
    if scaler is None:
        loss.backward()
        optimizer.step()
    else:
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    return loss.detach()


@torch.no_grad()
def recompute_batch_norm(model: nn.Module, forward: Callable[[Tensor], object], batches: Iterable[Tensor]) -> int:
    """Replaces every batch norm's running statistics by their plain mean over the given batches (Sec. 7.1.2).

    Weights stay as they are. ``forward`` takes one batch through the model. Returns the number of batches;
    with none the statistics stay as they were.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    was_training = model.training
    count = 0
    model.train()
    for batch in batches:
        if count == 0:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # a cumulative mean
        forward(batch)
        count += 1
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(was_training)
    return count
