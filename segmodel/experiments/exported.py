"""Exported files: the graphs of a model and of the refinement, their two formats, and the check against the source."""

import copy
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as symbolic_config
from torch.nn import functional

from segmodel.experiments.timing import picture, timed
from segmodel.inference.refinement import refined_with, refining_crf
from segmodel.inference.refinement_module import RefinementModule
from segmodel.kernels.box_filter import pooled_means
from segmodel.model.network import Network
from segmodel.model.store import normalisation
from segmodel.model.untrained_crf import Resolved, UntrainedCRF

SIZES = ((1, 1, 1), (2, 1, 50), (3, 17, 33), (1, 64, 64), (2, 65, 97), (1, 127, 250), (1, 240, 320), (1, 375, 500),
         (1, 481, 353), (1, 1080, 1920))  # fmt: skip
"""(N, H, W) of the images on which a file is compared with its source."""
TOLERANCE = 1e-5
"""Largest difference of a score, as a share of the image's largest: some hundred float32 roundings."""
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
IMAGE = {0: "batch", 2: "height", 3: "width"}
Size = tuple[int, int, int]
Runner = Callable[..., Tensor]


@dataclass(frozen=True)
class Source:
    """What is exported.

    graph: the module whose operators make the graph; source: what its result is compared with.
    example: its inputs by name, of a typical size; free: the names of each input's free sizes by dimension.
    draw: inputs of a size (N, H, W) for the check.
    output: name of the result. about: what a file says about itself, JSON texts by name.
    """

    graph: nn.Module
    source: Runner
    example: dict[str, Tensor]
    free: dict[str, dict[int, str]]
    draw: Callable[[Size, torch.Generator], tuple[Tensor, ...]]
    output: str
    about: dict[str, str]


class _OfImage(nn.Module):
    """A model with its guidance switch set, as a graph has no options; with ``labels`` it ends in labels."""

    def __init__(self, model: Network, guidance: bool | None, labels: bool):
        super().__init__()
        self.model, self.guidance, self.labels = model, guidance, labels

    def forward(self, image: Tensor) -> Tensor:
        return _result(self.model(image, guidance=self.guidance), self.labels)


class _OfScores(nn.Module):
    """A refinement; with ``labels`` it ends in labels."""

    def __init__(self, own: Resolved, labels: bool):
        super().__init__()
        self.refine, self.labels = RefinementModule(own), labels

    def forward(self, scores: Tensor, image: Tensor) -> Tensor:
        return _result(self.refine(scores, image), self.labels)


def _result(scores: Tensor, labels: bool) -> Tensor:
    """The scores ``(N, C, H, W)``, or the labels ``(N, H, W)``, uint8."""
    return scores.argmax(1).to(torch.uint8) if labels else scores


def of_model(model: Network, *, guidance: bool | None = None, labels: bool = False) -> Source:
    """A model, guidance CRF included (None: as configured), float32 on the CPU; it stays as it is itself.

    Raises:
        ValueError: a head that is not ``exportable``, or a guidance CRF whose settings follow from each picture.
    """
    if not model.head.feature_context.exportable:
        raise ValueError(f"head: {model.config.head!r} has operators that depend on the image's size: it "
                         "cannot be exported")  # fmt: skip
    own = model.head.chosen
    if guidance is not False and isinstance(own, UntrainedCRF) and not own.fixed:
        raise ValueError("the settings of its guidance follow from each picture's scores, which no graph can hold: "
                         "expected --guidance off, and behind it segmodel.refine, or export --refine")  # fmt: skip
    model = copy.deepcopy(model).eval().float().to("cpu")
    about = {"classes": model.classes, "palette": model.palette.tolist(), "input": normalisation(model)}
    return Source(
        graph=_OfImage(model, guidance, labels),
        source=partial(model, guidance=guidance),
        example={"image": torch.zeros(2, 3, 70, 93)},
        free={"image": IMAGE},
        draw=lambda size, generator: (picture(*size, generator),),
        output="labels" if labels else "scores",
        about={name: json.dumps(value) for name, value in about.items()} | {"output": _meaning(labels)},
    )


def of_refinement(own: Resolved, *, labels: bool = False) -> Source:
    """The untrained refinement with fixed settings: scores of any model and the picture -> scores at its size."""

    def drawn(size: Size, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Scores of an eighth of the picture's size, of its blocks, of its own size or of a larger one, in turn."""
        images, height, width = size
        grids = [tuple(-(-side // cell) for side in (height, width)) for cell in (8, own.stride, 1)]
        grids.append((height + 3, 2 * width))
        grid = grids[SIZES.index(size) % 4] if height < 1080 else grids[0]
        spots = 4 * torch.randn(images, 5, -(-height // 16), -(-width // 16), generator=generator)
        return functional.interpolate(spots, grid, mode="bilinear"), picture(*size, generator)

    return Source(
        graph=_OfScores(own, labels),
        source=lambda scores, image: refined_with(scores, image, own.stride, refining_crf(own, None, (0, 255))),
        example={"scores": torch.zeros(2, 5, 31, 24), "image": torch.zeros(2, 3, 70, 93)},
        free={"scores": {0: "batch", 1: "classes", 2: "rows", 3: "columns"}, "image": IMAGE},
        draw=drawn,
        output="labels" if labels else "refined",
        about={"settings": json.dumps(asdict(own)), "input": "scores N, C, h, w: logits; image N, 3, H, W: RGB, 0..255",
               "output": _meaning(labels)},
    )  # fmt: skip


def _meaning(labels: bool) -> str:
    if labels:
        return "labels N, H, W: the numbers of classes"
    return "scores N, C, H, W: softmax over C gives probabilities, argmax labels"


def export_program(source: Source) -> ExportedProgram:
    """A graph of standard operators, whose free sizes may be any from 1 on."""
    names = {name for free in source.free.values() for name in free.values()}
    sizes = {name: Dim(name, min=1) for name in names}
    free = tuple({axis: sizes[name] for axis, name in axes.items()} for axes in source.free.values())
    # Sizes of 1 are sizes like any other (the default makes two graphs of them), and what the solver cannot prove, that
    # the scores have as many cells as the guide, is left to the check below.
    with torch.no_grad(), symbolic_config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        program = torch.export.export(
            source.graph, tuple(source.example.values()), dynamic_shapes=free, strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )  # fmt: skip
    for node in list(program.graph.nodes):
        # checks at run time: some demand more than one cell an image, which nothing relies on
        if node.target is torch.ops.aten._assert_scalar.default:
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program


def pt2_bytes(source: Source) -> bytes:
    file = io.BytesIO()  # into memory first: PyTorch's writer aborts the process where a disk is full
    torch.export.save(export_program(source), file, extra_files={"card.json": json.dumps(source.about)})
    return file.getvalue()


def load_pt2(path: Path) -> Runner:
    with path.open("rb") as file:
        module = torch.export.load(file).module()
    return lambda *inputs: module(*inputs)


def onnx_bytes(source: Source) -> bytes:
    with pooled_means():
        program = export_program(source)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # that torchvision, which nothing needs, is missing
    with warnings.catch_warnings(action="ignore"):  # the exporter's about itself
        converted: Any = torch.onnx.export(
            program, input_names=list(source.example), output_names=[source.output],
            dynamic_shapes=tuple(source.free.values()), external_data=False, verbose=False,
            opset_version=18,  # from 19 on pooling may be dilated, and onnxruntime's takes ten times as long
        )  # fmt: skip
    converted.model.metadata_props.update(source.about)
    return converted.model_proto.SerializeToString()


def load_onnx(path: Path) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        arrays = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, arrays)[0])

    return run


FORMATS: dict[str, tuple[Callable[[Source], bytes], Callable[[Path], Runner]]] = {
    "onnx": (onnx_bytes, load_onnx),
    "pt2": (pt2_bytes, load_pt2),
}


def missing_packages(kind: str) -> list[str]:
    return [name for name in ONNX_PACKAGES if kind == "onnx" and importlib.util.find_spec(name) is None]


class Check(NamedTuple):
    """Of one size.

    difference: the largest of a score; of labels, what the source's score of a label is below its best. share: of the
        largest score, or of 1 if none is as large.
    changed: pixels with another label than the source's.
    source_ms, file_ms: milliseconds of the source and of the file, the faster of two calls.
    """

    size: Size
    difference: float
    share: float
    changed: int
    source_ms: float
    file_ms: float


def compare(source: Source, run: Runner, sizes: Sequence[Size]) -> list[Check]:
    """Compares what a file computes with its source on images of each size.

    Raises:
        ValueError: a result of another shape.
    """
    checks = []
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for size in sizes:
            inputs = source.draw(size, generator)
            (expected, own), (got, other) = (
                min((timed(partial(call, *inputs)) for _ in range(2)), key=itemgetter(1))
                for call in (source.source, run)
            )
            shape = (expected.shape[0], *expected.shape[2:]) if source.output == "labels" else expected.shape
            if shape != got.shape:
                raise ValueError(f"{size}: expected {source.output} {tuple(shape)}, got {tuple(got.shape)}")
            best, labels = expected.max(1)
            if source.output == "labels":
                chosen = got.long().clamp(max=expected.shape[1] - 1)
                difference, found = (best - expected.gather(1, chosen[:, None])[:, 0]).max(), got
            else:
                difference, found = (expected - got).abs().max(), got.argmax(1)
            share = float(difference) / max(float(expected.abs().max()), 1.0)
            checks.append(Check(size, float(difference), share, int((found != labels).sum()), own, other))
    return checks
