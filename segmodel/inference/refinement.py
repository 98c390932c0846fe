"""Refinement of any model's scores by a guidance CRF, untrained or trained, on blocks of a picture (Sec. 5)."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from segmodel.common.errors import NotFiniteError, UserError
from segmodel.common.options import check_values
from segmodel.common.reading import parse_json, read_text
from segmodel.inference.views import Crf
from segmodel.model.finite import check_scores, is_finite
from segmodel.model.guidance_crf import GuidanceCRF
from segmodel.model.guided_filter import Ranges, guide_from_image
from segmodel.model.untrained_crf import Refinement, Resolved, balanced_crf
from segmodel.model.upsampling import area_average, enlarge


def own_settings(settings: dict[str, float], crf: GuidanceCRF | None) -> Refinement:
    """The settings, checked; beside a trained crf only the stride may be given (4 if it is not)."""
    known = [item.name for item in fields(Refinement)]
    allowed = known if crf is None else ["stride"]
    for name in settings:
        if name not in allowed:
            why = " beside a crf, which has its own" if name in known else ""
            raise ValueError(f"{name}: expected one of {', '.join(allowed)}{why}")
    return Refinement(**settings) if crf is None else replace(Refinement.paper(), **settings)  # type: ignore[arg-type]


def refined(
    scores: Tensor, image: Tensor, own: Refinement, trained: GuidanceCRF | None, image_range: tuple[float, float]
) -> Tensor:
    """N C h w and N B H W (or 1 B H W: one picture for all) -> N C H W. Settings that are None are each picture's."""
    found = [own.resolved(part[None], image.shape[-2:]) for part in scores]
    if len(set(found)) > 1:
        pictures = image.expand(len(scores), -1, -1, -1)
        parts = zip(scores.split(1), pictures.split(1), found, strict=True)
        return torch.cat([refined_with(part, picture, item.stride, refining_crf(item, trained, image_range))
                          for part, picture, item in parts])  # fmt: skip
    return refined_with(scores, image, found[0].stride, refining_crf(found[0], trained, image_range))


def refined_with(scores: Tensor, image: Tensor, stride: int, crf: Crf) -> Tensor:
    """N C h w and N 3 H W -> N C H W with any CRF on blocks of ``stride`` pixels."""
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


def refining_crf(own: Resolved, trained: GuidanceCRF | None, image_range: Ranges) -> Crf:
    """The untrained or trained guidance CRF, for images in ``image_range``; the settings are resolved."""

    def crf(scores: Tensor, guide: Tensor) -> Tensor:
        guide = guide_from_image(guide, guide.shape[2:], image_range)
        if trained is None:
            result = balanced_crf(scores, guide, own)
            if not is_finite(result):
                raise NotFiniteError("the refined scores are NaN or infinite (too large for their type?)")
            return result
        if len(trained.compatibility) != scores.shape[1]:
            raise ValueError(f"crf: expected one of {scores.shape[1]} classes, as the scores have, "
                             f"got {len(trained.compatibility)}")  # fmt: skip
        low, high = trained.image_range
        pixels = guide.expand(len(scores), -1, -1, -1) * ((high - low) / 255) + low
        return check_scores(trained(scores, pixels), trained, lambda: trained(scores, pixels))

    return crf


def read_settings(path: str | Path) -> dict[str, Any]:
    """The settings in a JSON file of ``segmodel.tune``, their types checked; UserError for any other file."""
    try:
        settings = parse_json(read_text(path, most="SEGMODEL_MAX_CONFIG_BYTES"))["settings"]
        if not isinstance(settings, dict) or not settings:
            raise ValueError(f"settings: expected a table, got {settings!r:.60}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--settings: {path}: expected a file of segmodel.tune ({error})") from error
    settings = check_values({"settings": settings}, {"settings": Refinement}, str(path))["settings"]
    if "radius" in settings:
        settings.setdefault("balance", 0.0)  # files from before there was one
    return settings
