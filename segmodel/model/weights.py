"""Weights of others: files with torchvision's or timm's names, copied where names and shapes fit."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class LoadReport:
    """What a weight file gave: names loaded, names of the model left as they were, names of the file unused."""

    loaded: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        def some(names: tuple[str, ...]) -> str:
            return f"{len(names)}" + (f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else "")

        return f"{len(self.loaded)} tensors loaded, new: {some(self.new)}, unused: {some(self.unused)}"


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors`` file or of a ``.pth`` file (read without executing pickled code).

    Wrappers (``state_dict``, ``model``) and the prefixes ``module.`` and ``backbone.`` are taken off.

    Raises:
        ValueError: no such file, or not a file of weights.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such weight file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load

            content: object = load(path.read_bytes())  # opened once, see store.read_checkpoint
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # every reader has its own exceptions; the user needs one line
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{path}: not a readable weight file ({reason})") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: expected a table of tensors, got {type(content).__name__}")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    for prefix in ("module.", "backbone."):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def copy_fitting(
    module: nn.Module, tensors: Mapping[str, Tensor], path: str | Path, *, may_differ: tuple[str, ...] = ()
) -> LoadReport:
    """Copies the tensors of ``path`` that have name and shape of one of the module's.

    Raises:
        ValueError: a shape that does not fit (names that begin with one of ``may_differ`` then stay new), NaN or
            infinity, or nothing that fits.
    """
    own = module.state_dict()
    fitting = {}
    for name in [name for name in own if name in tensors]:
        value, shape = tensors[name], tuple(own[name].shape)
        if value.shape != shape:
            if name.startswith(may_differ):
                continue
            raise ValueError(f"{path}: {name}: expected shape {shape}, got {tuple(value.shape)}"
                             " (do --depth, --width, --stem-width and --preactivation fit this file?)")  # fmt: skip
        if value.layout != torch.strided or value.is_meta or value.is_complex() or not torch.isfinite(value).all():
            raise ValueError(f"{path}: {name}: expected real, finite values, got others")
        fitting[name] = value
    if not fitting:
        raise ValueError(f"{path}: no tensor fits this model (first names: {', '.join(list(tensors)[:3])})")
    module.load_state_dict(fitting, strict=False)
    counters = [name for name in own if name.endswith("num_batches_tracked")]
    new = tuple(name for name in own if name not in fitting and name not in counters)
    return LoadReport(tuple(fitting), new, tuple(name for name in tensors if name not in fitting))
