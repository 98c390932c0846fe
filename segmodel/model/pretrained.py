"""Model folders for others: ``model.safetensors`` with the weights, and ``card.json`` with all that describes them.

Nothing in a folder is executed when it is loaded. The card stands in the weights' header as well, so that the file
alone is a checkpoint like any other; a card.json that says something else is an error.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from segmodel.common.errors import UserError
from segmodel.common.files import json_text
from segmodel.model.network import Network
from segmodel.model.store import (
    AnyNetwork,
    build_network,
    check_types,
    check_weights,
    described_classes,
    read_checkpoint,
    save_checkpoint,
)

WEIGHTS, CARD = "model.safetensors", "card.json"
ABOUT = ("data", "scores", "licence", "training_data", "step", "total_steps")
"""What a card says beyond the model itself, as far as it is known; ``model.card`` holds it."""


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
    card = json.loads(json_text(_card(model, {**model.card, **about})))
    check_types(folder, card)  # what loading would refuse
    described_classes(folder, card)
    check_weights(folder, model.num_classes, model.config, model.state_dict())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_checkpoint(folder / WEIGHTS, model, card)
        (folder / WEIGHTS).with_suffix(".json").replace(folder / CARD)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from error


def _card(model: Network, about: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": asdict(model.config),
        "classes": list(model.classes),
        "palette": np.asarray(model.palette).tolist(),
        "input": normalisation(model),
        "weights": WEIGHTS,
        **about,
    }


def normalisation(model: Network) -> dict[str, Any]:
    """How the model takes an image; it normalises the colours itself."""
    return {
        "layout": "N, 3, H, W",
        "channels": "RGB",
        "range": [0, 255],
        "mean": [round(value, 6) for value in model.image_mean.flatten().tolist()],
        "std": [round(value, 6) for value in model.image_std.flatten().tolist()],
        "normalised": "inside the model",
    }


def from_pretrained(folder: str | Path, kind: type[AnyNetwork]) -> AnyNetwork:
    """See ``SegModel.from_pretrained``."""
    folder = Path(folder)
    for name in (WEIGHTS, CARD):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: expected a folder with {WEIGHTS} and {CARD}, found no {name}")
    card, tensors = read_checkpoint(folder / WEIGHTS)
    try:
        beside = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{folder / CARD}: not a readable card ({error})") from error
    differing = sorted(name for name in card.keys() | _keys(beside) if card.get(name) != _get(beside, name))
    if differing:
        raise UserError(f"{folder / CARD}: differs from the card in {WEIGHTS} ({', '.join(differing)}); "
                        "save_pretrained writes both")  # fmt: skip
    model = build_network(folder / WEIGHTS, card, tensors, kind)
    expected = json.loads(json_text(normalisation(model)))
    if card.get("input") != expected:
        raise UserError(f"{folder / CARD}: input: expected {expected}, got {card.get('input')!r:.200}")
    return model


def _keys(card: object) -> set[str]:
    return set(card) if isinstance(card, dict) else {"format"}


def _get(card: object, name: str) -> object:
    return card.get(name) if isinstance(card, dict) else None
