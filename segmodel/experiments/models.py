"""Times of the model: its variants (Table 4), its parts, and its growth with the image."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from segmodel.common.device import Precision, autocast, autocast_dtype, place
from segmodel.experiments.timing import Call, Times, compare, inputs
from segmodel.kernels import patch_rearrange
from segmodel.model.config import VARIANTS, ModelConfig
from segmodel.model.context_crf import ring_scores
from segmodel.model.network import Network
from segmodel.model.upsampling import area_average, enlarge

PAPER = ModelConfig()
"""ResNet-101, the full model of Table 4."""
CLASSES = 21
SIZE = (300, 500)
"""Height and width of Table 4's image."""
SIZES = ((150, 250), (300, 500), (600, 1000))
TABLE_4 = ("unary", "context", "patch", "guide")


def whole_models(
    configs: Mapping[str, ModelConfig], num_classes: int, size: tuple[int, int], *,
    device: torch.device, dtype: torch.dtype | None,
) -> dict[str, Call]:  # fmt: skip
    """A call of each model on an image of ``size`` (height, width); weights are random: times do not depend on them."""
    image = inputs(1, *size)[1].to(device).contiguous(memory_format=torch.channels_last)
    models = {name: place(Network(num_classes, config).eval(), device) for name, config in configs.items()}

    @torch.inference_mode()
    def call(model: Network) -> None:
        with autocast(device, dtype):
            model(image)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return {name: partial(call, model) for name, model in models.items()}


def part_calls(model: Network, size: tuple[int, int], dtype: torch.dtype | None) -> dict[str, Call]:
    """A call of each part of the full model, on the CPU, on what the parts before it give."""
    head, device = model.head, torch.device("cpu")
    image = inputs(1, *size)[1].contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), autocast(device, dtype):
        features = model.features(image)
        patches = head.feature_context(features)
        scores = patch_rearrange(patches, patch_size=head.patch_size)
        coarse = head.coarse(features, size)
    guide = area_average(image, head.guidance_stride)
    context: Any = head.feature_context
    parts: dict[str, Call] = {
        "whole": lambda: model(image),
        "backbone": lambda: model.features(image),
        "feature context, whole": lambda: context(features),
        "feature context, centre": lambda: context.centre(features),
        "patch rearrange": lambda: patch_rearrange(patches, patch_size=head.patch_size),
        "label context": lambda: [message(scores) for message in head.label_context],
        "up-sampling": lambda: head.upsample(scores.float()),
        "guide, area average": lambda: area_average(image, head.guidance_stride),
        "guidance CRF": lambda: head.crf(coarse, guide),
        "final enlargement": lambda: enlarge(coarse, head.guidance_stride),
    }
    if context.shapes:
        parts["feature context, first ring"] = lambda: ring_scores(
            features, context.rings[0].weight, radius=context.shapes[0][0], dilation=context.shapes[0][1]
        )

    def timed(part: Call) -> Any:
        with torch.inference_mode(), autocast(device, dtype):
            return part()

    return {name: partial(timed, part) for name, part in parts.items()}


def model_tables(seconds: float, *, precision: Precision) -> Iterator[tuple[str, Times]]:
    """Titles and times on the CPU, as they come: Table 4, the parts of the full model, its growth with the image."""
    device = torch.device("cpu")
    dtype = autocast_dtype(precision, device)
    configs = {name: replace(PAPER, **VARIANTS[name]) for name in TABLE_4}

    def table(names: Sequence[str], size: tuple[int, int]) -> Times:
        chosen = {name: configs[name] for name in names}
        return compare(whole_models(chosen, CLASSES, size, device=device, dtype=dtype), seconds)

    words, size = f"ResNet-{PAPER.depth}, {CLASSES} classes, {dtype or torch.float32}", "{}x{}".format(*SIZE)
    yield f"Table 4: {words}, one image of {size}", table(TABLE_4, SIZE)
    parts = part_calls(place(Network(CLASSES, PAPER).eval(), device), SIZE, dtype)
    yield f"Parts of the full model, {size}; ratio: share of the whole", compare(parts, seconds)
    for high, wide in SIZES:
        yield f"Growth: {high}x{wide}", table(("unary", "guide"), (high, wide))
