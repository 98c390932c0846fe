"""Networks in files: one format for a run's checkpoints and for the folders that are given to others.

A checkpoint is one safetensors file. Weights carry the network's parameter names; training state (momentum) is kept
under ``momentum/NAME``. What describes them (configuration, classes, step, scores, versions) is a *card*: JSON in the
file's header, so that one atomic rename replaces a checkpoint as a whole, and a copy beside it for people. Nothing in
it is ever executed.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from segmodel.common.environment import versions
from segmodel.common.errors import Note, NotFiniteError, UserError
from segmodel.common.files import json_text, replacing, write_atomically
from segmodel.common.options import build, check_values
from segmodel.common.reading import parse_json, read_text
from segmodel.model.config import ModelConfig
from segmodel.model.finite import fault
from segmodel.model.network import Network
from segmodel.model.tensors import read_safetensors
from segmodel.model.untrained_crf import chosen_guidance
from segmodel.model.weights import LoadReport, copy_fitting

AnyNetwork = TypeVar("AnyNetwork", bound=Network)
FORMAT = 1
MOMENTUM = "momentum/"
CARD: dict[str, tuple[type, ...]] = {
    "model": (dict,), "classes": (list,), "palette": (list,), "data": (str,), "step": (int,),
    "best": (int, float, type(None)), "finished": (bool,), "scaler": (dict, type(None)),
    "class_weights": (list, type(None)), "settings": (dict,), "guidance": (dict, type(None)),
}  # fmt: skip
"""Types of a card's values, where they are there; ``build_network`` needs the first three."""
ABOUT = ("data", "scores", "licence", "training_data", "step", "total_steps")
"""What a card may say beyond the network itself; ``Network.card`` holds it."""
OWN = {"format", "model", "classes", "palette", "input", "weights", "versions", "best", "finished", "scaler",
       "class_weights", "settings", "extended_at", "seconds"}  # fmt: skip
"""What ``Network.card`` leaves out."""
SHARED, COPY = "model.safetensors", "card.json"
"""Names of the two files in a folder of ``save_pretrained``."""
CHECKSUM, UNKNOWN = "sha256", 64 * "0"
"""Name of the checksum in the card of a file's header, and what stands there while it is computed (of it all)."""


def save_checkpoint(
    path: Path,
    model: Network,
    card: Mapping[str, Any],
    *,
    momentum: Mapping[str, Tensor] | None = None,
    copy: str | None = None,
) -> None:
    """Writes a checkpoint ``path`` (.safetensors) and its card beside it.

    Args:
        momentum: by parameter name; a training can be resumed from a file that has it.
        copy: name of the card's file; None: that of the checkpoint, with .json.

    Raises:
        OSError: they cannot be written.
    """
    tensors = dict(model.state_dict()) | {MOMENTUM + name: value for name, value in (momentum or {}).items()}
    full = {"format": FORMAT, **card, "versions": versions()}
    with replacing(path) as partial:
        # not safetensors' own writing of files: killed, it would leave a hidden one of the checkpoint's size
        contiguous = {name: value.contiguous() for name, value in tensors.items()}
        content = memoryview(save(contiguous, {"segmodel": json_text({**full, CHECKSUM: UNKNOWN})}))
        header = bytes(content[: header_length(content)])
        marked = header.replace(_entry(UNKNOWN), _entry(checksum(header, content[len(header) :])))
        with partial.open("wb") as file:
            file.write(marked)
            file.write(content[len(header) :])
    write_atomically(path.with_name(copy or f"{path.stem}.json"), json_text(full, indent=1) + "\n")


def header_length(content: memoryview) -> int:
    """Bytes before the tensors of a safetensors file."""
    return 8 + int.from_bytes(content[:8], "little")


def checksum(header: bytes, tensors: memoryview) -> str:
    """SHA-256 of a checkpoint, in whose header ``UNKNOWN`` stands in the place of the checksum."""
    digest = hashlib.sha256(header)
    digest.update(tensors)
    return digest.hexdigest()


def _entry(value: str) -> bytes:
    """The end of the card, which is JSON in a text of the header's JSON."""
    return rf'\"{CHECKSUM}\": \"{value}\"}}"'.encode()


def _check_bits(path: str | Path, content: memoryview, said: object) -> None:
    """Every bit of a checkpoint is as it was written; a file without a checksum is only noted."""
    if said is None:
        warnings.warn(Note(f"{path}: has no checksum, as a file of a former version: a flipped bit would not be "
                           "noticed"), stacklevel=2)  # fmt: skip
        return
    length = header_length(content)
    unmarked = bytes(content[:length]).replace(_entry(str(said)), _entry(UNKNOWN))
    if checksum(unmarked, content[length:]) != said:
        raise UserError(f"{path}: damaged: expected the checksum {said!s:.16}..., got another (copy the file anew)")


def save_pretrained(model: Network, folder: str | Path, **about: Any) -> None:
    """See ``SegModel.save_pretrained``."""
    folder = Path(folder)
    if len(model.classes) != model.num_classes or np.shape(model.palette) != (model.num_classes, 3):
        raise ValueError(f"model.classes, model.palette: expected those of {model.num_classes} classes, got "
                         f"{len(model.classes)} and {len(model.palette)}")  # fmt: skip
    for name, value in about.items():
        if name not in ABOUT:
            raise ValueError(f"{name}: expected one of {', '.join(ABOUT)}")
        try:
            json_text(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: expected what JSON can hold ({error})") from error
    described = {"model": asdict(model.config), "classes": list(model.classes), "input": normalisation(model),
                 "palette": np.asarray(model.palette).tolist(), "weights": SHARED}  # fmt: skip
    card = json.loads(json_text({**described, **model.card, **about}))
    check_types(folder, card)  # what loading would refuse
    described_classes(folder, card)
    check_weights(folder, model.num_classes, model.config, model.state_dict())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_checkpoint(folder / SHARED, model, card, copy=COPY)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from error


def normalisation(model: Network) -> dict[str, Any]:
    """How a network takes an image, for its card; it normalises the colours itself."""
    mean, std = ([round(x, 6) for x in value.flatten().tolist()] for value in (model.image_mean, model.image_std))
    return {"layout": "N, 3, H, W", "channels": "RGB", "range": [0, 255], "mean": mean, "std": std,
            "normalised": "inside the model"}  # fmt: skip


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint file that a path means: itself; of a run folder the best, else the last; a model folder's own."""
    path = Path(path)
    is_folder = os.path.isdir(path)  # unlike the path's own methods these never raise, whatever the name
    names = ("best.safetensors", "last.safetensors", SHARED)
    candidates = [path / name for name in names] if is_folder else [path]
    for candidate in candidates:
        if os.path.isfile(candidate):
            return candidate
    found = "none in it" if is_folder else "a pipe or device" if os.path.exists(path) else "nothing"
    raise UserError(f"{path}: expected a run folder or a checkpoint file, found {found}")


def read_checkpoint(path: str | Path, *, weights: bool = True) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Card and tensors of a checkpoint file; without ``weights`` only its header is read, and there are no tensors.

    Raises:
        UserError: unreadable, truncated, with another checksum than it says, not written by segmodel, a card with
            values of other types, or another one in the copy beside it.
    """
    try:
        metadata, tensors, content = read_safetensors(path, tensors=weights)
        card = parse_json(metadata.get("segmodel", "null"))
    except (OSError, SafetensorError, ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]  # torch's may have its stack below
        raise UserError(f"{path}: not a readable checkpoint ({reason})") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        found = card.get("format") if isinstance(card, dict) else "none"
        raise UserError(f"{path}: expected a segmodel checkpoint of format {FORMAT}, got format {found}")
    said = card.pop(CHECKSUM, None)
    if weights:
        _check_bits(path, memoryview(content), said)
    check_types(path, card)
    _check_copy(Path(path), card)
    return card, tensors


def _check_copy(path: Path, card: Mapping[str, Any]) -> None:
    """The card beside the weights of a model folder says what the header says, if it is there."""
    copy = path.with_name(COPY)
    if path.name != SHARED or not copy.exists():
        return
    try:
        beside = parse_json(read_text(copy, most="SEGMODEL_MAX_CONFIG_BYTES"))
    except (OSError, ValueError) as error:
        raise UserError(f"{copy}: not a readable card ({error})") from error
    other = beside if isinstance(beside, dict) else {}
    differing = sorted(name for name in card.keys() | other.keys() if card.get(name) != other.get(name))
    if differing:
        raise UserError(
            f"{copy}: differs from the card in {SHARED} ({', '.join(differing)}); save_pretrained writes both"
        )


def momentum_in(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The momentum in a checkpoint's tensors, by parameter name."""
    return {name.removeprefix(MOMENTUM): value for name, value in tensors.items() if name.startswith(MOMENTUM)}


def without_momentum(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's own tensors of a checkpoint."""
    return {name: value for name, value in tensors.items() if not name.startswith(MOMENTUM)}


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
        UserError: names or shapes that cannot be those of the model that the card describes. NotFiniteError: NaN,
            infinity or negative variances.
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
    model.card = {name: value for name, value in card.items() if name not in OWN}
    model.head.chosen = chosen_guidance(str(path), card.get("guidance"))
    expected = json.loads(json_text(normalisation(model)))
    if card.get("input", expected) != expected:
        raise UserError(f"{path}: card: input: expected {expected}, got {card['input']!r:.200}")
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
    if found := fault(weights):
        raise NotFiniteError(f"{path}: {found}")


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
