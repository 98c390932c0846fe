"""The torch head, loss, training step, batch-norm statistics and figures against the NumPy oracle.

Parameters are drawn, none at its initial value, and copied over. Float64 must agree within 1e-9 of the scale: a few
hundred roundings of colours up to 255 and their squares, through at most three filter iterations.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from segmodel.evaluation import metrics
from segmodel.model import context_crf, guidance_crf, upsampling
from segmodel.model import head as head_module
from segmodel.model.config import ModelConfig
from segmodel.reference import head as oracle
from segmodel.reference import objective as equations
from segmodel.reference.context_crf import Ring
from segmodel.training import objective, optimisation, statistics

some = settings(max_examples=30, deadline=None, derandomize=True)
few = settings(max_examples=10, deadline=None, derandomize=True)


@dataclass(frozen=True)
class Case:
    """One model and one batch."""

    images: int = 2
    height: int = 37
    width: int = 50
    features: int = 3
    labels: int = 3
    stride: int = 16
    patch_size: int = 2
    rings: tuple[tuple[int, int], ...] = ((1, 1), (0, 2))
    label_context: str = "box_rings"
    label_steps: int = 2
    label_pool: int = 3
    upsampling: str = "learnable"
    guidance: str = "joint"
    radius: int = 1
    eps: float = 1.0
    iterations: int = 3
    border: str = "clipped"
    keep: float = 0.5
    mining: str = "pixel"
    ignored: float = 0.2
    twins: bool = False  # all images of the batch alike: every probability is tied
    seed: int = 0


CASES = st.builds(
    Case,
    images=st.integers(1, 3),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    features=st.integers(1, 4),
    labels=st.integers(1, 4),
    stride=st.sampled_from([8, 16, 32]),
    patch_size=st.sampled_from([1, 2, 4]),
    rings=st.sampled_from([(), ((1, 1),), ((0, 2), (2, 1)), ((2, 6), (4, 12))]),
    label_context=st.sampled_from(["max_pool", "box_rings", "none"]),
    label_steps=st.integers(0, 2),
    label_pool=st.sampled_from([1, 3, 25]),
    upsampling=st.sampled_from(["learnable", "bilinear"]),
    guidance=st.sampled_from(["joint", "inference", "off"]),
    radius=st.integers(0, 3),
    eps=st.sampled_from([1.0, 30.0]),
    iterations=st.integers(0, 3),
    border=st.sampled_from(["clipped", "constant"]),
    keep=st.sampled_from([0.1, 0.5, 1.0]),
    mining=st.sampled_from(["pixel", "block"]),
    ignored=st.sampled_from([0.0, 0.3, 1.0]),
    twins=st.booleans(),
    seed=st.integers(0, 99),
).filter(lambda case: case.rings or case.label_context != "box_rings")


class Model(nn.Module):
    """The head with given features, for functions that expect a model of images alone."""

    def __init__(self, head: head_module.SegmentationHead):
        super().__init__()
        self.head = head
        self.features = torch.empty(0)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features.to(image.dtype), image)


def build(case: Case) -> Model:
    torch.manual_seed(case.seed)
    config = ModelConfig(
        output_stride=case.stride,
        patch_size=case.patch_size,
        rings=case.rings,
        label_context=case.label_context,
        label_steps=case.label_steps,
        label_hidden=5,
        label_pool=case.label_pool,
        upsampling=case.upsampling,
        guidance=case.guidance,
        guidance_radius=case.radius,
        guidance_eps=case.eps,
        guidance_iterations=case.iterations,
    )
    head = head_module.SegmentationHead(case.features, case.labels, config).double()
    head.crf.border = case.border
    for parameter in head.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    model = Model(head)
    model.features = torch.randn(case.images, case.features, *(-(-s // case.stride) for s in (case.height, case.width)),
                                 dtype=torch.float64)  # fmt: skip
    if case.twins:
        model.features[:] = model.features[:1].clone()
    return model


def batch(case: Case) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(case.seed)
    shape = (1 if case.twins else case.images, case.height, case.width)
    images = rng.uniform(0, 255, (shape[0], 3, *shape[1:]))
    labels = rng.integers(0, case.labels, shape)
    labels[rng.random(shape) < case.ignored] = 255
    copies = case.images // shape[0]
    return torch.from_numpy(np.tile(images, (copies, 1, 1, 1))), torch.from_numpy(np.tile(labels, (copies, 1, 1)))


def settings_of(case: Case, *, guidance: bool) -> oracle.HeadConfig:
    return oracle.HeadConfig(
        stride=case.stride,
        patch_size=case.patch_size,
        rings=tuple(Ring(*ring) for ring in case.rings),
        label_context=case.label_context,
        label_steps=case.label_steps,
        label_pool=case.label_pool,
        guidance=guidance,
        radius=case.radius,
        epsilon=case.eps,
        iterations=case.iterations,
        border=case.border,
    )


def array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy().copy()


def copied(name: str, values: np.ndarray) -> tuple[str, np.ndarray]:
    """Name and layout of one of the head's parameters (or its gradient) in the reference."""
    *place, last = name.removeprefix("head.").split(".")
    if place[:1] == ["feature_context"]:
        key = ["ring", place[2], last] if place[1] == "rings" else ["centre", last]
    elif place[:1] == ["label_context"]:
        inner = {"rings": ["ring", place[-1]]}.get(place[2], place[2:]) if len(place) > 2 else ["hidden"]
        key = ["label", place[1], *inner, last]
    else:
        key = [{"up": "upsampling"}.get(place[0], place[0]), last]
    if values.ndim == 4:
        values = values[:, 0].transpose(1, 2, 0) if key[0] == "upsampling" else values.transpose(2, 3, 1, 0)
    flat = key[0] == "centre" or key[-2] == "output"
    return ".".join(key), values[0, 0] if flat and values.ndim == 4 else values


def parameters_of(model: nn.Module) -> dict[str, np.ndarray]:
    return dict(copied(name, array(value)) for name, value in model.named_parameters())


def oracle_scores(case: Case, model: Model, images: Tensor, *, guidance: bool):
    """Scores of every image, stacked, and the function from their gradient to all gradients (summed over images)."""
    config, parameters = settings_of(case, guidance=guidance), parameters_of(model)
    results = [
        oracle.head(array(f).transpose(1, 2, 0), array(image).transpose(1, 2, 0), parameters, config)
        for f, image in zip(model.features, images, strict=True)
    ]

    def pullback(gradient: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        each = [image_pullback(g) for (_, image_pullback), g in zip(results, gradient, strict=True)]
        total = {name: sum(gradients[name] for _, gradients in each) for name in each[0][1]}
        return np.stack([features for features, _ in each]), total

    return np.stack([scores for scores, _ in results]), pullback


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float = 1e-9) -> None:
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


def channels_last(tensor: Tensor) -> np.ndarray:
    return array(tensor).transpose(0, 2, 3, 1)


def check_scores(case: Case) -> None:
    model, (images, _) = build(case), batch(case)
    for training in (True, False):
        guidance = case.guidance == "joint" or (case.guidance == "inference" and not training)
        model.train(training)
        expected, _ = oracle_scores(case, model, images, guidance=guidance)
        assert_close(channels_last(model(images)), expected)


def check_loss_and_gradients(case: Case) -> None:
    model, (images, labels) = build(case).train(), batch(case)
    model.features.requires_grad_()
    loss = objective.hard_pixel_loss(model(images), labels, keep=case.keep, mining=case.mining)
    loss.backward()
    scores, pullback = oracle_scores(case, model, images, guidance=case.guidance == "joint")
    expected, scores_gradient = equations.mined_loss(scores, labels.numpy(), fraction=case.keep, mining=case.mining)
    features_gradient, gradients = pullback(scores_gradient)
    assert_close(array(loss), np.array(expected))
    assert_close(channels_last(model.features.grad), features_gradient)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        key, found = copied(name, array(parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)))
        assert_close(found, gradients.get(key, np.zeros_like(found)))


def check_training(case: Case, *, steps: int = 5) -> None:
    """Five steps through the function that training calls; parameters and losses after each."""
    model, (images, labels) = build(case).train(), batch(case)
    optimizer = optimisation.make_optimizer(model, rate=0.5, momentum=0.9, weight_decay=0.01)
    theta = parameters_of(model)
    fixed = {copied(name, array(p))[0] for name, p in model.named_parameters() if not p.requires_grad}
    velocity = {name: np.zeros_like(value) for name, value in theta.items()}
    for step in range(steps):
        scores, pullback = oracle_scores(case, model, images, guidance=case.guidance == "joint")
        expected, scores_gradient = equations.mined_loss(scores, labels.numpy(), fraction=case.keep, mining=case.mining)
        _, gradients = pullback(scores_gradient)
        gradients = {name: gradients.get(name, np.zeros_like(value)) for name, value in theta.items()}
        rate = equations.poly_rate(step, steps=steps, base=0.5)
        updated, velocity = equations.sgd_step(theta, gradients, velocity, rate=rate, weight_decay=0.01)
        theta = {name: theta[name] if name in fixed else updated[name] for name in theta}
        loss = optimisation.training_step(
            model, optimizer, images, labels, rate=optimisation.poly_rate(step, steps, base=0.5),
            keep=case.keep, mining=case.mining,
        )  # fmt: skip
        assert_close(array(loss), np.array(expected), 1e-8)
        for name, value in parameters_of(model).items():
            assert_close(value, theta[name], 1e-8)  # five steps of rate 0.5 carry the 1e-9 of each gradient along


def check_batch_norm(seed: int = 0) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).double()
    batches = [torch.randn(2 + k, 3, 5, 6, dtype=torch.float64) for k in range(3)]
    model(batches[0] * 9)  # statistics to be forgotten
    statistics.recompute_batch_norm(model, model, batches)
    mean, variance = equations.recomputed_batch_norm([channels_last(model[0](each)) for each in batches])
    assert_close(array(model[1].running_mean), mean)
    assert_close(array(model[1].running_var), variance)


def check_figures(seed: int = 0, labels: int = 5) -> None:
    rng = np.random.default_rng(seed)
    counts, total = np.zeros((3, labels), np.int64), np.zeros((labels, labels), np.int64)
    for _ in range(3):
        truth, predicted = rng.integers(0, labels - 1, (6, 7)), rng.integers(0, labels - 2, (6, 7))
        truth[rng.random(truth.shape) < 0.2] = 255
        counts += metrics.class_counts(predicted, truth, labels)
        total += equations.confusion_matrix(truth, predicted, labels)
    scores = metrics.scores(counts)
    np.testing.assert_allclose(scores.iou, equations.intersection_over_union(total), rtol=1e-12)
    for found, figure in (
        (scores.miou, equations.mean_iou),
        (scores.pixel_accuracy, equations.pixel_accuracy),
        (scores.mean_accuracy, equations.mean_accuracy),
    ):
        np.testing.assert_allclose(found, figure(total), rtol=1e-12)


@some
@given(CASES)
def test_scores(case: Case) -> None:
    check_scores(case)


@some
@given(CASES)
def test_loss_and_every_gradient(case: Case) -> None:
    check_loss_and_gradients(case)


@few
@given(CASES)
def test_five_training_steps(case: Case) -> None:
    check_training(case)


@few
@given(st.integers(0, 99), st.integers(3, 6))
def test_batch_norm_and_figures(seed: int, labels: int) -> None:
    check_batch_norm(seed)
    check_figures(seed, labels)


def eager_head(case: Case, model: Model, images: Tensor) -> Tensor:
    """The same head in the usual torch operators, in the dtype of its inputs: the yardstick for float32."""
    head, c, n = model.head, case.labels, case.patch_size
    mean = lambda x, r: functional.avg_pool2d(x, 2 * r + 1, 1, r, count_include_pad=False)  # noqa: E731

    def rings(x: Tensor, convolutions: nn.ModuleList, factor: int) -> Any:
        shapes = [(r * factor, d * factor) for r, d in case.rings]
        parts = zip(convolutions, shapes, strict=True)
        return sum(functional.conv2d(mean(x, r), k.weight, padding=d, dilation=d) for k, (r, d) in parts)

    features = model.features.to(images.dtype)
    coarse = head.feature_context.centre(features) + rings(features, head.feature_context.rings, 1)
    size = coarse.shape[-2:]
    first = coarse.reshape(-1, n, n, c, *size).permute(0, 3, 4, 1, 5, 2).reshape(-1, c, n * size[0], n * size[1])
    s = first
    for step in head.label_context:
        if case.label_context == "max_pool":
            m = functional.max_pool2d(s, case.label_pool, 1, case.label_pool // 2)
            hidden = step.hidden(m / (m.square().sum(1, keepdim=True) + 1e-5).sqrt())
        else:
            hidden = rings(s.softmax(1), step.rings, n) + step.bias[:, None, None]
        s = first + step.output(hidden)
    f, g = head.factor, head.guidance_stride
    if head.up is not None:
        padded = functional.pad(s, (1, 1, 1, 1), mode="replicate")
        s = functional.conv_transpose2d(padded, head.up.weight, stride=f, padding=3 * f // 2, groups=c)
    else:
        s = functional.interpolate(s, scale_factor=f, mode="bilinear")
    s = s[:, :, : -(-case.height // g), : -(-case.width // g)]
    padded = functional.pad(images, (0, -case.width % g, 0, -case.height % g), mode="replicate")
    guide, phi, r = functional.avg_pool2d(padded, g), s, case.radius
    mu = mean(guide, r)
    outer = lambda a, b: a[:, :, None] * b[:, None]  # noqa: E731
    second = mean(outer(guide, guide).flatten(1, 2), r).unflatten(1, (3, 3)) - outer(mu, mu)
    inverse = (second.permute(0, 3, 4, 1, 2) + case.eps * torch.eye(3, dtype=s.dtype)).inverse()
    for _ in range(case.iterations):
        q = phi.softmax(1)
        cross = mean(outer(guide, q).flatten(1, 2), r).unflatten(1, (3, c)) - outer(mu, mean(q, r))
        slope = torch.einsum("nhwab,nbchw->nachw", inverse, cross)
        offset = mean(q, r) - (slope * mu[:, :, None]).sum(1)
        q = (mean(slope.flatten(1, 2), r).unflatten(1, (3, c)) * guide[:, :, None]).sum(1) + mean(offset, r)
        phi = s - head.crf.weight * torch.einsum("ab,nbhw->nahw", head.crf.compatibility, q)
    return functional.interpolate(phi, scale_factor=g, mode="bilinear")[:, :, : case.height, : case.width]


@some
@given(CASES)
def test_float32_errs_at_most_twice_as_much_as_eager_torch(case: Case) -> None:
    case = Case(**(vars(case) | {"guidance": "joint", "border": "clipped", "label_pool": 3}))
    model, (images, _) = build(case).eval(), batch(case)
    # both start from float32 values, so that only the arithmetic is compared
    model, images = model.float().double(), images.float().double()
    model.features = model.features.float().double()
    expected, _ = oracle_scores(case, model, images, guidance=True)
    assert_close(channels_last(eager_head(case, model, images)), expected)  # the yardstick is sound
    model, images = model.float(), images.float()
    with torch.no_grad():
        ours, eager = (channels_last(f) for f in (model(images), eager_head(case, model, images)))
    # float32 can be right by luck: one rounding of the largest score is always allowed
    slack = 4 * np.finfo(np.float32).eps * max(1.0, float(np.abs(expected).max()))
    assert np.abs(ours - expected).max() <= 2 * np.abs(eager - expected).max() + slack


Check = Callable[[], None]
Plant = Callable[[pytest.MonkeyPatch], None]


def swapped(function: Callable, **changes: Callable[[Any], Any]) -> Callable:
    """``function`` with some of its keyword arguments changed."""
    return lambda *args, **kwargs: function(*args, **(kwargs | {k: f(kwargs[k]) for k, f in changes.items()}))


def pixel_shuffle(x: Tensor, *, patch_size: int) -> Tensor:
    return functional.pixel_shuffle(x, patch_size)


def padded_counts(features: Tensor, *, radii: tuple[int, ...]) -> tuple[Tensor, ...]:
    return tuple(functional.avg_pool2d(features, 2 * r + 1, 1, r) for r in radii)


def groups_with_decayed_biases(model: nn.Module, *, weight_decay: float, **options: float) -> list[dict]:
    groups = optimisation_groups(model, weight_decay=weight_decay, **options)
    return [group | {"weight_decay": weight_decay} for group in groups]


def put(target: object, name: str, value: object) -> Plant:
    """Something that puts a faulty part in the place of a sound one."""
    return lambda patch: patch.setattr(target, name, value)


def strict_threshold(losses: Tensor, valid: Tensor, keep: float, across: bool, **_: bool) -> Tensor:
    threshold = torch.as_tensor(threshold_with_ties(losses, valid, keep, across))
    values = losses[valid]
    above = values[values > threshold]
    return above.min() if above.numel() else threshold


def blocks_of_valid_points(losses: Tensor, valid: Tensor, *options: Any) -> Tensor:
    spread = valid[:, ::4, ::4].repeat_interleave(4, 1).repeat_interleave(4, 2)
    return hard_blocks(losses, valid, *options) & spread[:, : valid.shape[1], : valid.shape[2]]


def image_by_image(scores: Tensor, labels: Tensor, **options: Any) -> Tensor:
    each = [hard_pixel_loss(s[None], label[None], **options) for s, label in zip(scores, labels, strict=True)]
    return torch.stack(each).mean()


torch_sgd = torch.optim.SGD
threshold_with_ties = objective._threshold
hard_blocks = objective._hard_blocks
hard_pixel_loss = objective.hard_pixel_loss
optimisation_groups = optimisation.parameter_groups
upsampling_forward = upsampling.LearnableUpsampling.forward
RICH = Case()
TWINS = Case(twins=True, images=3, ignored=0.0, keep=0.4)
POOLED = Case(label_context="max_pool")
crf, pool = context_crf.kernels.guidance_crf, context_crf.kernels.distance_aware_pool
scores_agree, gradients_agree, training_agrees = (
    partial(check, RICH) for check in (check_scores, check_loss_and_gradients, check_training)
)

FAULTS: list[tuple[str, Check, Plant]] = [
    (
        "the rings' radii in the wrong order",
        scores_agree,
        put(context_crf.kernels, "distance_aware_pool", swapped(pool, radii=lambda radii: tuple(reversed(radii)))),
    ),
    ("box means over zero padding", scores_agree, put(context_crf.kernels, "distance_aware_pool", padded_counts)),
    ("PixelShuffle's channel order", scores_agree, put(context_crf.kernels, "patch_rearrange", pixel_shuffle)),
    (
        "the sign of lambda",
        scores_agree,
        put(guidance_crf, "guidance_crf", swapped(crf, weight=lambda weight: -weight)),
    ),
    (
        "the compatibility transposed",
        scores_agree,
        put(guidance_crf, "guidance_crf", swapped(crf, compatibility=lambda mu: mu.T)),
    ),
    (
        "epsilon added twice",
        scores_agree,
        put(guidance_crf, "guidance_crf", swapped(crf, eps=lambda eps: 2 * eps)),
    ),
    (
        "no gradient through the probabilities of Algorithm 1",
        gradients_agree,
        put(
            guidance_crf,
            "guidance_crf",
            lambda s, guide, **options: s + (crf(s.detach(), guide, **options) - s.detach()),
        ),
    ),
    (
        "a guide that is sampled, not averaged",
        scores_agree,
        put(head_module, "area_average", lambda image, factor: image[:, :, ::factor, ::factor]),
    ),
    (
        "up-sampling with aligned corners",
        scores_agree,
        put(
            head_module,
            "enlarge",
            lambda x, factor: functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=True),
        ),
    ),
    (
        "the learnable up-sampling shifted by a pixel",
        scores_agree,
        put(upsampling.LearnableUpsampling, "forward", lambda self, x: upsampling_forward(self, x).roll(1, -1)),
    ),
    (
        "the label context's norm without its small constant",
        lambda: check_scores(POOLED),
        put(
            context_crf.MaxPoolLabelContext,
            "forward",
            lambda self, x: self.output(self.hidden(functional.normalize(self.pool(x), dim=1))),
        ),
    ),
    (
        "ties at the mining threshold dropped",
        lambda: check_loss_and_gradients(TWINS),
        put(objective, "_threshold", strict_threshold),
    ),
    (
        "ties at the mining threshold of blocks kept",
        lambda: check_loss_and_gradients(replace(TWINS, mining="block")),
        put(objective, "_threshold", lambda *arguments, **_: threshold_with_ties(*arguments)),
    ),
    (
        "blocks dropped whose grid point is ignored",
        lambda: check_loss_and_gradients(replace(RICH, mining="block", ignored=0.4)),
        put(objective, "_hard_blocks", blocks_of_valid_points),
    ),
    ("mining image by image", training_agrees, put(optimisation, "hard_pixel_loss", image_by_image)),
    ("decay on biases", training_agrees, put(optimisation, "parameter_groups", groups_with_decayed_biases)),
    (
        "Nesterov's momentum",
        training_agrees,
        put(
            optimisation.torch.optim,
            "SGD",
            lambda *args, **options: torch_sgd(*args, **options, nesterov=True),
        ),
    ),
    (
        "a linear schedule",
        training_agrees,
        put(optimisation, "poly_rate", lambda step, total, base: base * (1 - step / total)),
    ),
    (
        "batch-norm statistics that are not reset",
        check_batch_norm,
        put(nn.BatchNorm2d, "reset_running_stats", lambda self: None),
    ),
    (
        "absent classes counted with an IoU of zero",
        check_figures,
        put(metrics, "_mean", lambda values: float(np.nan_to_num(values).mean())),
    ),
]


@pytest.mark.parametrize(("check", "plant"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
def test_a_planted_fault_turns_the_comparison_red(check: Check, plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    check()
    plant(monkeypatch)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check()
