"""Several processes that share each batch, on PyTorch's own engine (``torchrun --nproc-per-node N``).

What one process computes from the whole batch is computed from all of its parts here: batch-norm statistics, mining
threshold, normaliser, loss and confusion matrices. Without a process group every function is for one process alone.
"""

import json
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from segmodel.common.errors import UserError


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_writer() -> bool:
    """Whether this process writes files and prints."""
    return rank() == 0


def _variable(name: str, default: int) -> int:
    """A number that torchrun sets."""
    text = os.environ.get(name, str(default))
    if not (text.isascii() and text.isdecimal()):
        raise UserError(f"{name}: expected a whole number in this environment variable of torchrun, got {text!r}")
    return int(text)


def local_processes() -> int:
    """Processes on this machine, which share its cores."""
    return _variable("LOCAL_WORLD_SIZE", 1)


def restarts() -> int:
    """How often torchrun has restarted this job after a failure."""
    return _variable("TORCHELASTIC_RESTART_COUNT", 0)


_LOST = re.compile(r"gloo|nccl|connection|timed? ?out|broken pipe|socket|\bstore\b", re.IGNORECASE)
"""In what PyTorch raises when another process is lost."""
_store: dist.Store | None = None
"""Where the processes meet before they share anything else."""
_groups: list[Any] = []
"""Process groups, kept until this process ends: gloo's destructor holds the interpreter's lock while it waits for
threads that may be waiting for that lock themselves, to let go of the last tensor."""


@contextmanager
def process_group(
    device: torch.device, *, timeout_minutes: float, same: Mapping[str, Any] | None = None
) -> Iterator[torch.device]:
    """Joins the processes that torchrun started, if it did; gives each its own GPU and yields the device.

    A process that waits longer than the timeout for another one fails, as it does at once where a connection closes.

    Args:
        same: what must be the same in all of them, see ``require_same``; compared before they are joined.

    Raises:
        UserError: it is not the same, or torchrun's variables are wrong. RuntimeError: another process is lost.
    """
    global _store
    if _variable("WORLD_SIZE", 1) == 1:
        yield device
        return
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise UserError(f"{', '.join(missing)}: expected beside WORLD_SIZE; torchrun sets these environment variables")
    if device.type == "cuda":
        local = _variable("LOCAL_RANK", 0)
        if local >= torch.cuda.device_count():
            raise UserError(f"--nproc-per-node: expected at most {torch.cuda.device_count()} (GPUs here)")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    timeout = timedelta(minutes=timeout_minutes)
    try:
        _store, own, world = next(dist.rendezvous("env://", timeout=timeout))
        if world == local_processes():  # torchrun keeps the store: addresses of dead processes would be found in it
            _store = dist.PrefixStore(f"restart {restarts()}", _store)  # on several machines the counts may differ
        _compare(_store, own, world, "settings", same or {})
        dist.init_process_group(backend, store=_store, rank=own, world_size=world, timeout=timeout)
        _groups.append(dist.group.WORLD)
        yield device
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not _LOST.search(str(error)):
            raise
        reason = re.sub(r"^\[[^\]]*\] *", "", " ".join(str(error).split()))  # without the place in gloo's code
        raise RuntimeError(f"another process is lost (see its error) or has not answered for {timeout_minutes:g} "
                           f"minutes: {reason:.160}") from error  # fmt: skip
    finally:
        _store = None
        if dist.is_initialized():
            dist.destroy_process_group()


def require_same(what: str, facts: Mapping[str, Any]) -> None:
    """Compares facts (JSON values by name) of all processes, each time under another name ``what``.

    Raises:
        UserError: in every process, the first difference. RuntimeError: a process is lost.
    """
    if _store is not None:
        _compare(_store, rank(), world_size(), what, facts)


def _compare(store: dist.Store, own: int, world: int, what: str, facts: Mapping[str, Any]) -> None:
    store.set(f"{what} of {own}", json.dumps(facts))
    found = [json.loads(store.get(f"{what} of {other}")) for other in range(world)]
    read, deadline = store.add(f"{what} read", 1), time.monotonic() + 10
    for other, theirs in enumerate(found):
        for name in dict.fromkeys([*found[0], *theirs]):
            first, second = found[0].get(name), theirs.get(name)
            if first != second:
                while own == 0 and read < world and time.monotonic() < deadline:  # the store may end with this process
                    time.sleep(0.01)
                    read = store.add(f"{what} read", 0)
                raise UserError(f"{name}: expected the same in all processes, got {first!r:.80} in process 0 and "
                                f"{second!r:.80} in process {other}")  # fmt: skip


def total(x: Tensor) -> Tensor:
    """Sum over the processes, in place, without a gradient."""
    if dist.is_initialized():
        dist.all_reduce(x)
    return x


def gathered(x: Tensor) -> Tensor:
    """The tensors of all processes, of one shape, joined in their first dimension, without a gradient."""
    if not dist.is_initialized():
        return x
    parts = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(parts, x)
    return torch.cat(parts)


def from_writer(value: Any) -> Any:
    """The first process's value, everywhere."""
    values = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(values)
    return values[0]


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batches of all processes, each with the same number of values (CPU, gloo).

    ``torch.nn.SyncBatchNorm`` is the same for GPUs only.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(x)
        y, mean, variance = _Normalise.apply(x, self.weight, self.bias, self.eps)
        if self.track_running_stats:
            assert self.num_batches_tracked is not None  # for mypy: these are buffers here
            assert self.running_mean is not None
            assert self.running_var is not None
            self.num_batches_tracked.add_(1)
            factor = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
            count = world_size() * x.numel() // x.shape[1]
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), factor)
            self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var.dtype), factor)
        return y


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias, mean and variance over all processes; returns all three.

    The gradients of weight and bias are this process's own: DistributedDataParallel adds them up.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        wide = x.to(weight.dtype)  # statistics of half precision in float32
        count = world_size() * x.numel() // x.shape[1]
        mean = total(wide.sum((0, 2, 3))) / count
        centred = wide - _planes(mean)
        variance = total(centred.square().sum((0, 2, 3))) / count
        scale = (variance + eps).rsqrt()
        y = torch.addcmul(_planes(bias), centred, _planes(scale * weight))
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.mark_non_differentiable(mean, variance)
        return y.to(x.dtype), mean, variance

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, scale = ctx.saved_tensors
        wide = grad.to(weight.dtype)
        normal = (x.to(weight.dtype) - _planes(mean)) * _planes(scale)
        d_bias, d_weight = wide.sum((0, 2, 3)), (wide * normal).sum((0, 2, 3))
        count = world_size() * x.numel() // x.shape[1]
        means = total(torch.stack([d_bias, d_weight])) / count
        d_x = (wide - _planes(means[0]) - normal * _planes(means[1])) * _planes(scale * weight)
        return d_x.to(x.dtype), d_weight, d_bias, None


def _planes(x: Tensor) -> Tensor:
    return x[:, None, None]


def synchronise_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """Every batch norm replaced by one over all processes; parameters, buffers and names stay.

    Raises:
        UserError: a batch norm of an unknown kind, which may do more than to normalise.
    """
    kinds = {type(m) for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    strange = kinds - {nn.BatchNorm2d, BatchNorm2d, nn.SyncBatchNorm}
    if device.type == "cuda":
        strange -= {nn.BatchNorm1d, nn.BatchNorm3d}
    if device.type == "cuda" and strange and all(kind.__module__.startswith("timm.") for kind in strange):
        from timm.layers import convert_sync_batchnorm  # timm's own hold an activation, which torch's would drop

        return convert_sync_batchnorm(model)
    if strange:
        names = ", ".join(sorted(kind.__name__ for kind in strange))
        raise UserError(f"{names}: cannot be synchronised between processes on {device}")
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                own = BatchNorm2d(child.num_features, child.eps, child.momentum)
                own.__dict__.update(child.__dict__)
                setattr(parent, name, own)
    return model


def parallel(model: nn.Module, *, unused: bool) -> nn.Module:
    """The model with gradients averaged over the processes in its backward pass.

    ``unused``: some steps leave parameters out (the guidance CRF before it joins), or all do (some of timm's features).
    """
    if world_size() == 1:
        return model
    with warnings.catch_warnings():  # the new name of broadcast_buffers is not in torch 2.11
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(model, broadcast_buffers=False, find_unused_parameters=unused)
