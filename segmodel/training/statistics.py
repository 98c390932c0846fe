"""Batch-norm statistics: frozen in a training, or recomputed after it (Sec. 7.1.2)."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from segmodel.common.device import autocast, evaluating
from segmodel.model.network import Network


def learning_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The batch norms that are in training mode."""
    norms = (module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))
    return [norm for norm in norms if norm.training]


def set_training(model: Network, *, frozen: bool) -> None:
    """Training mode; with ``frozen`` the backbone's batch norms stay in evaluation mode."""
    model.train()
    if frozen:
        for norm in learning_norms(model.backbone):
            norm.eval()


def recompute(model: Network, images: Iterable[Tensor], dtype: torch.dtype | None) -> int:
    """``recompute_batch_norm`` of a network on batches ``(N, 3, H, W)`` in 0..255; ``dtype``: see ``autocast``."""
    device = next(model.parameters()).device

    def forward(batch: Tensor) -> None:
        with autocast(device, dtype):
            model.head.feature_context(model.features(batch))  # the peers have batch norms there

    return recompute_batch_norm(model, forward, images)


@torch.no_grad()
def recompute_batch_norm(model: nn.Module, forward: Callable[[Tensor], object], batches: Iterable[Tensor]) -> int:
    """Replaces the running statistics of ``learning_norms`` by their plain mean over the given batches (Sec. 7.1.2).

    Weights stay as they are, and nothing is dropped out, as at inference. ``forward`` takes one batch through the
    model. Returns the number of batches; with none the statistics stay as they were.
    """
    norms = learning_norms(model)
    momenta = [norm.momentum for norm in norms]
    count = 0
    try:
        with evaluating(model):
            for norm in norms:
                norm.training = True  # not train(): whatever drops at random within a norm stays out
            for batch in batches:
                if count == 0:
                    for norm in norms:
                        norm.reset_running_stats()
                        norm.momentum = None  # a cumulative mean
                forward(batch)
                count += 1
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return count
