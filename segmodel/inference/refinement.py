"""The settings of an untrained refinement, and its computation (Sec. 5, Algorithm 1)."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from segmodel.common.errors import UserError, read_text
from segmodel.common.options import Section, check_values, option
from segmodel.inference.views import Crf
from segmodel.kernels import guidance_crf
from segmodel.model.guidance_crf import GuidanceCRF
from segmodel.model.guided_filter import guide_from_image
from segmodel.model.upsampling import area_average, enlarge


@dataclass(frozen=True)
class Refinement(Section):
    """Settings of an untrained refinement; the defaults are the paper's."""

    stride: int = option(4, "the CRF works on blocks of stride x stride pixels; 1: full size", "Sec. 5", at_least=1)
    radius: int = option(3, "radius of the guided filter's window, in blocks", "authors' code", at_least=0)
    eps: float = option(1.0, "epsilon of Eq. 12, for colours in 0..255", "Sec. 5", above=0)
    weight: float = option(2.0, "lambda of Algorithm 1", "authors' code", at_least=0)
    iterations: int = option(3, "iterations of Algorithm 1", "Sec. 5", at_least=0)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, np.generic):
                object.__setattr__(self, name, value.item())
        super().__post_init__()


def own_settings(settings: dict[str, float], crf: GuidanceCRF | None) -> Refinement:
    """The settings, checked; beside a trained crf only the stride may be given."""
    known = [item.name for item in fields(Refinement)]
    allowed = known if crf is None else ["stride"]
    for name in settings:
        if name not in allowed:
            why = " beside a crf, which has its own" if name in known else ""
            raise ValueError(f"{name}: expected one of {', '.join(allowed)}{why}")
    return Refinement(**settings)  # type: ignore[arg-type]


def refined(scores: Tensor, image: Tensor, stride: int, crf: Crf) -> Tensor:
    """N C h w and N 3 H W -> N C H W."""
    height, width = image.shape[-2:]
    wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
    guide = area_average(image.to(wide.dtype), stride)
    if scores.shape[2:] == guide.shape[2:]:
        return enlarge(crf(wide, guide), stride)[:, :, :height, :width].to(scores.dtype)
    larger = scores.shape[2] > height or scores.shape[3] > width
    fine = functional.interpolate(wide, (height, width), mode="bilinear", align_corners=False, antialias=larger)
    coarse = area_average(fine, stride)
    refined = crf(coarse, guide)
    if stride > 1:
        refined = fine + enlarge(refined - coarse, stride)[:, :, :height, :width]
    return refined.to(scores.dtype)


def refining_crf(own: Refinement, trained: GuidanceCRF | None, image_range: tuple[float, float]) -> Crf:
    """The untrained or trained guidance CRF, for images in ``image_range``."""

    def crf(scores: Tensor, guide: Tensor) -> Tensor:
        guide = guide_from_image(guide, guide.shape[2:], image_range)
        if trained is None:
            return guidance_crf(scores, guide, **{name: value for name, value in vars(own).items() if name != "stride"})
        if len(trained.compatibility) != scores.shape[1]:
            raise ValueError(f"crf: expected one of {scores.shape[1]} classes, as the scores have, "
                             f"got {len(trained.compatibility)}")  # fmt: skip
        low, high = trained.image_range
        return trained(scores, guide * ((high - low) / 255) + low)

    return crf


def read_settings(path: str | Path) -> dict[str, Any]:
    """The settings in a JSON file of ``segmodel.tune``, their types checked; UserError for any other file."""
    try:
        settings = json.loads(read_text(path, most="SEGMODEL_MAX_CONFIG_BYTES"))["settings"]
        if not isinstance(settings, dict) or not settings:
            raise ValueError(f"settings: expected a table, got {settings!r:.60}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"--settings: {path}: expected a file of segmodel.tune ({error})") from error
    return check_values({"settings": settings}, {"settings": Refinement}, str(path))["settings"]
