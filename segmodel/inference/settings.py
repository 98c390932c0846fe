"""The options that evaluate and predict share, and the models that they name."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from segmodel.common.device import autocast_dtype, choose_device, place
from segmodel.common.errors import UserError
from segmodel.common.options import add_flags, build, flag_values
from segmodel.inference.views import InferenceConfig
from segmodel.model.guidance_crf import GuidanceCRF
from segmodel.model.network import Network
from segmodel.model.store import load_network


def add_inference_options(parser: argparse.ArgumentParser, *, modes: Sequence[str]) -> None:
    """The options that evaluate and predict share."""
    parser.add_argument("--ensemble", action="append", default=[], metavar="RUN",
                        help="a further run or checkpoint whose result is fused; may be repeated")  # fmt: skip
    parser.add_argument("--guidance", choices=modes, help="guidance CRF (default: on where a radius or weight is "
                        "given, else as in the run's configuration)")  # fmt: skip
    parser.add_argument("--guidance-radius", type=int, metavar="R", help="an untrained guidance CRF (Potts) instead of "
                        "the run's, with this radius (Sec. 7.2: added at inference)")  # fmt: skip
    parser.add_argument("--guidance-weight", type=float, metavar="W", help="the same, with this weight lambda")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: a GPU where there is one)")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16", "float16"), default="auto",
                        help="dtype of the convolutions (default: auto)")  # fmt: skip
    add_flags(parser, {"inference": InferenceConfig})


def inference_config(options: argparse.Namespace) -> InferenceConfig:
    return build(InferenceConfig, flag_values(options, {"inference": InferenceConfig}).get("inference", {}))


def guidance_modes(options: argparse.Namespace) -> dict[str, bool | None]:
    """What to compute, by title: the ``guidance`` modes of the options."""
    given = {"--guidance-radius": options.guidance_radius, "--guidance-weight": options.guidance_weight}
    named = [name for name, value in given.items() if value is not None]
    if options.guidance in ("off", "configured") and named:
        raise UserError(f"{named[0]}: expected the guidance CRF on, got --guidance {options.guidance}")
    choice = options.guidance or ("on" if named else "configured")
    titles: dict[str, dict[str, bool | None]] = {
        "configured": {"model": None}, "on": {"guidance on": True}, "off": {"guidance off": False},
        "both": {"guidance off": False, "guidance on": True},
    }  # fmt: skip
    return titles[choice]


def load_for_inference(
    paths: Sequence[str | Path], options: argparse.Namespace
) -> tuple[list[Network], torch.dtype | None]:
    """The models of some paths on the device, with the guidance CRF that the options ask for, and the autocast dtype.

    Raises:
        UserError: no such checkpoint, options that it cannot follow, or models of different classes.
    """
    device = choose_device(options.device)
    models = [load_network(path, Network) for path in paths]
    for path, model in zip(paths, models, strict=True):
        if model.classes != models[0].classes:
            raise UserError(f"{path}: expected the classes of {paths[0]}, got {', '.join(model.classes)}")
        _replace_guidance(model, radius=options.guidance_radius, weight=options.guidance_weight)
    return [place(model, device) for model in models], autocast_dtype(options.precision, device)


def _replace_guidance(model: Network, *, radius: int | None, weight: float | None) -> None:
    """An untrained guidance CRF in the place of the model's, where a radius or weight is given."""
    given = {"guidance_radius": radius, "guidance_weight": weight}
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        return
    try:
        config = dataclasses.replace(model.config, **changes)  # type: ignore[arg-type]
    except ValueError as error:
        raise UserError(f"--{str(error).replace('_', '-', 1)}") from error
    model.head.crf = GuidanceCRF(
        model.num_classes,
        radius=config.guidance_radius,
        eps=config.guidance_eps,
        weight=config.guidance_weight,
        iterations=config.guidance_iterations,
    )
