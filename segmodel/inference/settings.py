"""What evaluate and predict share: their options, and the models and kinds of guidance that these ask for."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, make_dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from segmodel.common.device import autocast_dtype, choose_device, place
from segmodel.common.errors import UserError
from segmodel.common.options import Section, add_flags, from_flags, option
from segmodel.inference.views import Guidance, InferenceConfig
from segmodel.model.config import ModelConfig
from segmodel.model.guidance_crf import GuidanceCRF
from segmodel.model.network import Network
from segmodel.model.store import load_network
from segmodel.model.untrained_crf import crf_from_scores

DEVICE = "cpu, cuda, ...; auto: a GPU where there is one"
GUIDANCE = ("guidance CRF; auto: an untrained one whose settings follow from the scores, as in segmodel.refine; "
            "none: on where one of its settings is given, else as the run has it, configured or chosen")  # fmt: skip
UntrainedCRF = make_dataclass(
    "UntrainedCRF",
    [
        (item.name, item.type, option(None, f"an untrained guidance CRF (Potts): {item.metadata['help']}", "the run's"))
        for item in fields(ModelConfig)
        if item.name.startswith("guidance_")
    ],
)
"""The settings of a guidance CRF that takes the place of the run's where one of them is given (Sec. 7.2)."""


@dataclass(frozen=True)
class Execution(Section):
    """Where and how the models run."""

    device: str = option("auto", DEVICE)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = option("auto", "dtype of the convolutions")


@dataclass(frozen=True)
class Setup:
    """The arguments of ``predict_images`` and ``evaluate_images`` that the options stand for."""

    models: list[Network]
    guidance: Mapping[str, Guidance | Sequence[Guidance]]
    config: InferenceConfig
    dtype: torch.dtype | None


def add_inference_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that evaluate and predict share."""
    parser.add_argument("--ensemble", action="append", default=[], metavar="RUN",
                        help="a further run or checkpoint whose result is fused; may be repeated")  # fmt: skip
    add_flags(parser, {"inference": InferenceConfig, "execution": Execution, "guidance CRF": UntrainedCRF})


def load_for_inference(run: str | Path, options: argparse.Namespace, guidance: str | None) -> Setup:
    """The models of a run and the ensemble on the device, and what to compute with them.

    Args:
        guidance: configured, on, off, both, auto; None: on where a setting of the CRF is given, else configured.

    Raises:
        UserError: no such checkpoint, options that contradict each other, or models of different classes.
    """
    config, execution = from_flags(options, InferenceConfig), from_flags(options, Execution)
    changes = {name: value for name, value in asdict(from_flags(options, UntrainedCRF)).items() if value is not None}
    if changes and guidance in ("off", "configured", "auto"):
        flag = f"--{next(iter(changes)).replace('_', '-')}"
        raise UserError(f"{flag}: expected the guidance CRF on, got --guidance {guidance}")
    device = choose_device(execution.device)
    paths = [run, *options.ensemble]
    models = [place(load_network(path, Network), device) for path in paths]
    for path, model in zip(paths, models, strict=True):
        if model.classes != models[0].classes:
            raise UserError(f"{path}: expected the classes of {paths[0]}, got {', '.join(model.classes)}")
    try:
        configs = [replace(model.config, **changes) for model in models]
    except ValueError as error:
        raise UserError(f"--{str(error).replace('_', '-', 1)}") from error
    on = [GuidanceCRF.configured(len(models[0].classes), config).to(device) for config in configs] if changes else True
    titles: dict[str, dict[str, Guidance | Sequence[Guidance]]] = {
        "configured": {"model": None}, "on": {"guidance on": on}, "off": {"guidance off": False},
        "both": {"guidance off": False, "guidance on": on}, "auto": {"guidance auto": crf_from_scores},
    }  # fmt: skip
    ways = titles[guidance or ("on" if changes else "configured")]
    return Setup(models, ways, config, autocast_dtype(execution.precision, device))
