"""Weights of others: files with torchvision's or timm's names, copied where names and shapes fit."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from segmodel.common.errors import NotFiniteError
from segmodel.model.finite import fault
from segmodel.model.tensors import read_pth, read_safetensors


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
    try:
        content: object = read_safetensors(path)[1] if path.suffix == ".safetensors" else read_pth(path)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such weight file") from error
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
        ValueError: a shape that does not fit (names that begin with one of ``may_differ`` then stay new), tensors of
            another kind, or nothing that fits. NotFiniteError: NaN or infinity.
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
        plain = value.layout == torch.strided and not (value.is_meta or value.is_quantized or value.is_complex())
        if not plain or value.is_floating_point() != own[name].is_floating_point() or value.dtype.itemsize < 2:
            kind = "quantised" if value.is_quantized else f"{value.dtype}, {value.layout}"
            raise ValueError(f"{path}: {name}: expected plain tensors of {own[name].dtype}, got {kind}")
        if found := fault({name: value}):
            raise NotFiniteError(f"{path}: {found}")
        fitting[name] = value
    if not fitting:
        raise ValueError(f"{path}: no tensor fits this model (first names: {', '.join(list(tensors)[:3])})")
    module.load_state_dict(fitting, strict=False)
    counters = [name for name in own if name.endswith("num_batches_tracked")]
    new = tuple(name for name in own if name not in fitting and name not in counters)
    return LoadReport(tuple(fitting), new, tuple(name for name in tensors if name not in fitting))
