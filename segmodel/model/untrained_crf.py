"""The untrained guidance CRF: its settings, given or from the scores, and its computation (Sec. 5, Algorithm 1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from segmodel.common.errors import UserError
from segmodel.common.options import Section, check_values, option
from segmodel.kernels import box_filter, guidance_crf, guided_filter, prepare_guide
from segmodel.kernels.guided_filter import PreparedGuide
from segmodel.model.crf_defaults import settings_from


@dataclass(frozen=True)
class Refinement(Section):
    """Settings of an untrained refinement. None: from the scores and the picture's size, see ``crf_defaults``."""

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


@dataclass(frozen=True)
class UntrainedCRF:
    """The untrained guidance CRF on a model's own cells (a ``Refiner``), with settings that each picture may complete.

    The stride of the settings is of no account: the cells are the model's.
    """

    settings: Refinement

    @property
    def fixed(self) -> bool:
        """Whether no picture has to complete them."""
        return None not in vars(replace(self.settings, stride=1)).values()

    def __call__(self, scores: Tensor, guide: Tensor) -> Tensor:
        own = replace(self.settings, stride=1)
        if self.fixed:
            return balanced_crf(scores, guide, own.resolved(scores, scores.shape[2:]))
        pairs = zip(scores.split(1), guide.split(1), strict=True)
        return torch.cat([balanced_crf(part, picture, own.resolved(part, part.shape[2:])) for part, picture in pairs])


crf_from_scores = UntrainedCRF(Refinement())
"""All settings from each picture's scores."""


def chosen_guidance(where: str, choice: Mapping[str, Any] | None) -> UntrainedCRF | Literal[False] | None:
    """What a card's ``guidance`` makes a head use, see ``SegmentationHead.chosen``.

    Raises:
        UserError: it is no such choice.
    """
    way = (choice or {"way": "trained"}).get("way")
    if choice and "settings" in choice:
        settings = check_values({"guidance": choice["settings"]}, {"guidance": Refinement}, where).get("guidance", {})
        try:
            return UntrainedCRF(Refinement(**settings))
        except ValueError as error:
            raise UserError(f"{where}: card: guidance: {error}") from error
    if way not in ("none", "trained"):
        raise UserError(f"{where}: card: guidance: expected settings, or the way none or trained, got {way!r:.60}")
    return False if way == "none" else None


def _prepared(guide: Tensor, radius: int, eps: float, count: int) -> PreparedGuide:
    """A guide of ``count`` pictures, or of one for all of them: its moments are computed once."""
    prepared = prepare_guide(guide, radius=radius, eps=eps)
    if guide.shape[0] == count:  # not len(): a graph's batch has no length yet
        return prepared
    planes = prepared.planes.expand(count, -1, -1, -1)
    return replace(prepared, planes=planes.contiguous() if planes.is_cuda else planes)
