"""Checkpoints: one safetensors file that holds everything, and a JSON file beside it for people.

Weights carry the model's parameter names; training state (momentum) is kept under ``momentum/NAME``. What describes
them (configuration, classes, step, scores, versions) is JSON in the file's header, so that one atomic rename replaces
a checkpoint as a whole; nothing in it is ever executed.
"""

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import segmodel
from segmodel.model import ModelConfig, SegModel
from segmodel.options import UserError, build, check_values

FORMAT = 1
MOMENTUM = "momentum/"


def write_atomically(path: Path, text: str) -> None:
    """The file either has the whole text or stays as it was."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    return {
        "segmodel": segmodel.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def momentum_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's momentum by parameter name."""
    state = optimizer.state
    return {
        MOMENTUM + name: state[parameter]["momentum_buffer"]
        for name, parameter in model.named_parameters()
        if parameter in state and state[parameter].get("momentum_buffer") is not None
    }


def restore_momentum(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of ``momentum_tensors``."""
    for name, parameter in model.named_parameters():
        saved = tensors.get(MOMENTUM + name)
        if saved is not None:
            # cloned as the parameter lies in memory: sums in another order would not resume to the last bit
            optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(saved)


def save_checkpoint(
    path: Path, model: SegModel, card: Mapping[str, Any], *, optimizer: torch.optim.Optimizer | None = None
) -> None:
    """Writes ``path`` (.safetensors) and the card beside it (.json); with the optimiser, training can go on from it."""
    tensors = dict(model.state_dict())
    if optimizer is not None:
        tensors.update(momentum_tensors(model, optimizer))
    full = {"format": FORMAT, **card, "versions": versions()}
    partial = path.with_name(path.name + ".partial")
    save_file({name: value.contiguous() for name, value in tensors.items()}, partial, {"segmodel": json.dumps(full)})
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
    write_atomically(path.with_suffix(".json"), json.dumps(full, indent=1) + "\n")


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint file that a path means: itself, or the best, else the last, of a run folder."""
    path = Path(path)
    candidates = [path / "best.safetensors", path / "last.safetensors"] if path.is_dir() else [path]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise UserError(
        f"{path}: expected a run folder or a checkpoint file, found {'none in it' if path.is_dir() else 'nothing'}"
    )


def read_checkpoint(path: str | Path, *, weights: bool = True) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Card and tensors of a checkpoint file; without ``weights`` only its header is read, and there are no tensors.

    Raises:
        UserError: unreadable, truncated, or not written by segmodel.
    """
    try:
        with safe_open(path, framework="pt") as file:
            card = json.loads((file.metadata() or {}).get("segmodel", "null"))
            names = file.keys() if weights else ()
            tensors = {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{path}: not a readable checkpoint ({error})") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        found = card.get("format") if isinstance(card, dict) else "none"
        raise UserError(f"{path}: expected a segmodel checkpoint of format {FORMAT}, got format {found}")
    return card, tensors


def build_model(path: str | Path, card: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SegModel:
    """The model that a checkpoint describes, with its weights, in evaluation mode."""
    classes = card.get("classes")
    if not isinstance(classes, list) or not classes:
        raise UserError(f"{path}: expected a list of class names in its card, got {classes!r}")
    values = check_values({"model": card.get("model")}, {"model": ModelConfig}, str(path))
    model = SegModel(len(classes), build(ModelConfig, values.get("model", {})))
    own = model.state_dict()
    weights = {name: value for name, value in tensors.items() if not name.startswith(MOMENTUM)}
    for name in own.keys() | weights.keys():
        expected = tuple(own[name].shape) if name in own else "nothing"
        got = tuple(weights[name].shape) if name in weights else "nothing"
        if expected != got:
            raise UserError(f"{path}: {name}: expected {expected}, got {got}")
    model.load_state_dict(weights)
    model.classes = tuple(classes)
    model.palette = np.asarray(card["palette"], np.uint8)
    return model.eval()


def load_model(path: str | Path) -> SegModel:
    """See ``SegModel.load``."""
    file = find_checkpoint(path)
    return build_model(file, *read_checkpoint(file))
