"""Checkpoints: one safetensors file that holds everything, and a JSON file beside it for people.

Weights carry the model's parameter names; training state (momentum) is kept under ``momentum/NAME``. What describes
them (configuration, classes, step, scores, versions) is JSON in the file's header, so that one atomic rename replaces
a checkpoint as a whole; nothing in it is ever executed.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from segmodel.common.environment import versions
from segmodel.common.errors import UserError
from segmodel.common.files import json_text, replacing, write_atomically
from segmodel.common.options import build, check_values
from segmodel.model.config import ModelConfig
from segmodel.model.network import Network
from segmodel.model.weights import LoadReport, copy_fitting

AnyNetwork = TypeVar("AnyNetwork", bound=Network)
FORMAT = 1
MOMENTUM = "momentum/"
CARD: dict[str, tuple[type, ...]] = {
    "model": (dict,), "classes": (list,), "palette": (list,), "data": (str,), "step": (int,),
    "best": (int, float, type(None)), "finished": (bool,), "scaler": (dict, type(None)),
}  # fmt: skip
"""Types of the card's values, those that are there; ``build_model`` needs the first three."""


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
            if saved.shape != parameter.shape:
                raise UserError(f"{MOMENTUM}{name}: expected {tuple(parameter.shape)}, got {tuple(saved.shape)}")
            # cloned as the parameter lies in memory: sums in another order would not resume to the last bit
            optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(saved)


def without_momentum(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's own tensors of a checkpoint."""
    return {name: value for name, value in tensors.items() if not name.startswith(MOMENTUM)}


def save_checkpoint(
    path: Path, model: Network, card: Mapping[str, Any], *, optimizer: torch.optim.Optimizer | None = None
) -> None:
    """Writes ``path`` (.safetensors) and the card beside it (.json); with the optimiser, training can go on from it."""
    tensors = dict(model.state_dict())
    if optimizer is not None:
        tensors.update(momentum_tensors(model, optimizer))
    full = {"format": FORMAT, **card, "versions": versions()}
    with replacing(path) as partial:
        # not safetensors' own writing of files: killed, it would leave a hidden one of the checkpoint's size
        contiguous = {name: value.contiguous() for name, value in tensors.items()}
        partial.write_bytes(save(contiguous, {"segmodel": json_text(full)}))
    write_atomically(path.with_suffix(".json"), json_text(full, indent=1) + "\n")


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint file that a path means: itself, or the best, else the last, of a run folder."""
    path = Path(path)
    names = ("best.safetensors", "last.safetensors", "model.safetensors")
    candidates = [path / name for name in names] if path.is_dir() else [path]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise UserError(
        f"{path}: expected a run folder or a checkpoint file, found {'none in it' if path.is_dir() else 'nothing'}"
    )


def read_checkpoint(path: str | Path, *, weights: bool = True) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Card and tensors of a checkpoint file; without ``weights`` only its header is read, and there are no tensors.

    The file is opened once, since a training may replace it at any moment: safetensors opens one for PyTorch twice, and
    would give the header of one checkpoint and the data of the next.

    Raises:
        UserError: unreadable, truncated, not written by segmodel, or a card with values of other types.
    """
    try:
        if weights:
            content = Path(path).read_bytes()
            tensors = load(content)  # checks the header, too
            metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__")
        else:
            with safe_open(path, framework="np") as file:
                tensors, metadata = {}, file.metadata()
        card = json.loads((metadata or {}).get("segmodel", "null"))
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]  # torch's may have its stack below
        raise UserError(f"{path}: not a readable checkpoint ({reason})") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        found = card.get("format") if isinstance(card, dict) else "none"
        raise UserError(f"{path}: expected a segmodel checkpoint of format {FORMAT}, got format {found}")
    check_types(path, card)
    return card, tensors


def check_types(path: str | Path, card: Mapping[str, Any]) -> None:
    """The values of a card, as far as ``CARD`` knows them."""
    for name in CARD.keys() & card.keys():
        if type(card[name]) not in CARD[name]:
            expected = " or ".join(kind.__name__ for kind in CARD[name])
            raise UserError(f"{path}: card: {name}: expected {expected}, got {card[name]!r:.60}")


def described_classes(path: str | Path, card: Mapping[str, Any]) -> tuple[tuple[str, ...], np.ndarray]:
    """Names (C) and palette ``(C, 3)`` uint8 in a card.

    Raises:
        UserError: there are none, or others.
    """
    classes = card.get("classes")
    if not classes or not all(isinstance(name, str) for name in classes):
        raise UserError(f"{path}: expected a list of class names in its card, got {classes!r:.60}")
    palette = np.asarray(card.get("palette"), object)
    if palette.shape != (len(classes), 3) or not all(type(v) is int and 0 <= v <= 255 for v in palette.flat):
        raise UserError(f"{path}: card: palette: expected {len(classes)} x 3 whole numbers of 0..255, got "
                        f"{card.get('palette')!r:.60}")  # fmt: skip
    return tuple(classes), palette.astype(np.uint8)


def build_network(
    path: str | Path, card: Mapping[str, Any], tensors: Mapping[str, Tensor], kind: type[AnyNetwork]
) -> AnyNetwork:
    """The network, of this kind, that a checkpoint describes, with its weights, in evaluation mode.

    Raises:
        UserError: names, shapes or values (NaN, infinity) that cannot be those of the model that the card describes.
    """
    classes, palette = described_classes(path, card)
    values = check_values({"model": card.get("model")}, {"model": ModelConfig}, str(path))
    weights = without_momentum(tensors)
    try:
        config = build(ModelConfig, values.get("model", {}))
        check_weights(path, len(classes), config, weights)  # first the shapes: the card may be a stranger's
        model = kind(len(classes), config)
    except ValueError as error:
        raise error if isinstance(error, UserError) else UserError(f"{path}: card: model: {error}") from error
    model.to(next(value.dtype for value in weights.values() if value.is_floating_point()))
    model.load_state_dict(weights)
    model.classes, model.palette = classes, palette
    own = {"format", "model", "classes", "palette", "input", "weights", "versions", "best", "finished", "scaler"}
    model.card = {name: value for name, value in card.items() if name not in own}
    return model.eval()


def check_weights(path: str | Path, num_classes: int, config: ModelConfig, weights: Mapping[str, Tensor]) -> None:
    """The names and shapes of the model, made without memory, and finite values."""
    with torch.device("meta"):
        own = Network(num_classes, config).state_dict()
    for name in sorted(own.keys() | weights.keys()):
        expected = tuple(own[name].shape) if name in own else "nothing"
        got = tuple(weights[name].shape) if name in weights else "nothing"
        if expected != got:
            raise UserError(f"{path}: {name}: expected {expected}, got {got}")
    for name, value in weights.items():
        if value.is_floating_point() != own[name].is_floating_point() or value.dtype.itemsize < 2:
            raise UserError(f"{path}: {name}: expected {own[name].dtype}, got {value.dtype}")
        if not torch.isfinite(value).all():
            raise UserError(f"{path}: {name}: expected finite values, got NaN or infinity")


def load_network(path: str | Path, kind: type[AnyNetwork]) -> AnyNetwork:
    """The network of a run folder or a checkpoint file, ready for inference; see ``SegModel.load``."""
    file = find_checkpoint(path)
    return build_network(file, *read_checkpoint(file), kind)


def described_model(path: str | Path) -> dict[str, Any]:
    """The architecture that a run or checkpoint names: checked values of ``ModelConfig``.

    Raises:
        UserError: as ``find_checkpoint`` and ``read_checkpoint``, or a card without a model.
    """
    file = find_checkpoint(path)
    card, _ = read_checkpoint(file, weights=False)
    return check_values({"model": card.get("model", {})}, {"model": ModelConfig}, str(file)).get("model", {})


def load_initial_model(model: Network, path: str | Path) -> LoadReport:
    """Copies what fits, in name and shape, of a run's or checkpoint's weights; what hangs on other classes stays new.

    Raises:
        UserError, ValueError: as ``read_checkpoint`` and ``copy_fitting``.
    """
    file = find_checkpoint(path)
    _, tensors = read_checkpoint(file)
    return copy_fitting(model, without_momentum(tensors), file, may_differ=("head.",))
