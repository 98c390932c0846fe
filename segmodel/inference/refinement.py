"""The settings of an untrained refinement, and its computation (Sec. 5, Algorithm 1)."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from segmodel.common.errors import NotFiniteError, UserError
from segmodel.common.options import Section, check_values, option
from segmodel.common.reading import parse_json, read_text
from segmodel.inference.defaults import settings_from
from segmodel.inference.views import Crf
from segmodel.kernels import box_filter, guidance_crf, guided_filter, prepare_guide
from segmodel.kernels.guided_filter import PreparedGuide
from segmodel.model.finite import check_scores, is_finite
from segmodel.model.guidance_crf import GuidanceCRF
from segmodel.model.guided_filter import Ranges, guide_from_image
from segmodel.model.upsampling import area_average, enlarge


@dataclass(frozen=True)
class Refinement(Section):
    """Settings of an untrained refinement. None: from the scores and the picture's size, see ``defaults``."""

    stride: int | None = option(
        None,
        "the CRF works on blocks of stride x stride pixels; 1: full size",
        "from the scores",
        at_least=1,
        at_most=4096,
    )
    radius: int | None = option(
        None, "radius of the guided filter's window, in blocks", "from the scores", at_least=0, at_most=10**4
    )
    eps: float = option(1.0, "epsilon of Eq. 12, for colours in 0..255", "Sec. 5", above=0)
    weight: float | None = option(None, "lambda of Algorithm 1", "from the scores", at_least=0)
    balance: float | None = option(
        None, "share of the window's plain mean that its message leaves out; 0: the paper's", "from the scores",
        at_least=0, at_most=1,
    )  # fmt: skip
    iterations: int | None = option(None, "iterations of Algorithm 1", "from the scores", at_least=0, at_most=1000)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, np.generic):
                object.__setattr__(self, name, value.item())
        super().__post_init__()

    @classmethod
    def paper(cls) -> "Refinement":
        """The paper's settings, of a CRF that is trained jointly."""
        return cls(stride=4, radius=3, weight=2.0, balance=0.0, iterations=3)

    def resolved(self, scores: Tensor, size: Sequence[int]) -> "Resolved":
        """Every None replaced: for the whole scores ``(1, C, h, w)`` of a picture of ``size`` (H, W)."""
        found = settings_from(scores, size, self.stride) if None in vars(self).values() else {}
        return Resolved(**{name: found[name] if value is None else value for name, value in vars(self).items()})


@dataclass(frozen=True)
class Resolved:
    """A ``Refinement`` in which nothing is None any more."""

    stride: int
    radius: int
    eps: float
    weight: float
    balance: float
    iterations: int

    @property
    def reach(self) -> int:
        """How many pixels of the picture away a pixel of the result can depend on.

        On blocks a filter reaches two windows far; the means of blocks, and the enlargement of what the CRF changed,
        add less than two blocks. Scores of another size are interpolated before, which adds one and a half of their
        own cells.
        """
        return self.stride * (2 * self.radius * self.iterations + 2)


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


def balanced_crf(scores: Tensor, guide: Tensor, own: Resolved) -> Tensor:
    """Algorithm 1 with Potts; with a balance, W q is less that share of B q.

    B is the plain mean over the same windows, twice as the guided filter's: W for a picture without edges.
    """
    prepared = _prepared(guide, own.radius, own.eps, scores.shape[0])
    if 0 in (own.balance, own.weight, own.iterations):
        return guidance_crf(scores, prepared, weight=own.weight, iterations=own.iterations)
    phi = scores
    for _ in range(own.iterations):
        q = phi.softmax(1)
        mean = box_filter(box_filter(q, radius=own.radius), radius=own.radius)
        phi = scores + own.weight * (guided_filter(q, prepared) - own.balance * mean + (own.balance - 1))
    return phi


def crf_from_scores(scores: Tensor, guide: Tensor) -> Tensor:
    """The untrained guidance CRF on a model's own cells (a ``Crf``), each picture's settings from its scores."""
    own = Refinement(stride=1)
    pairs = zip(scores.split(1), guide.split(1), strict=True)
    return torch.cat([balanced_crf(part, picture, own.resolved(part, part.shape[2:])) for part, picture in pairs])


def _prepared(guide: Tensor, radius: int, eps: float, count: int) -> PreparedGuide:
    """A guide of ``count`` pictures, or of one for all of them: its moments are computed once."""
    prepared = prepare_guide(guide, radius=radius, eps=eps)
    if guide.shape[0] == count:  # not len(): a graph's batch has no length yet
        return prepared
    planes = prepared.planes.expand(count, -1, -1, -1)
    return replace(prepared, planes=planes.contiguous() if planes.is_cuda else planes)


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
