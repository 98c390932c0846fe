"""Exports a model, guidance CRF included, to one file that runs without this package, and checks it.

    python -m segmodel.export RUN --format onnx --output model.onnx   # needs the extra [onnx]; runs in onnxruntime
    python -m segmodel.export RUN --format pt2 --output model.pt2     # torch.export.load(FILE).module()(image)

The input "image" is float32 (N, 3, H, W), RGB in 0..255; the output "scores" float32 (N, C, H, W). N, H and W are free,
from 1 on. The file is kept only if its scores equal the model's within 1e-4 on ten sizes.
"""

import copy
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as symbolic_config

from segmodel.common import cli
from segmodel.common.errors import UserError
from segmodel.common.files import output_file, replacing
from segmodel.common.options import Section, add_flags, from_flags, option
from segmodel.common.tables import Table
from segmodel.experiments.timing import picture, timed
from segmodel.inference.views import check_predicts
from segmodel.model.network import Network
from segmodel.model.store import find_checkpoint, load_network, normalisation

SIZES = ((1, 1, 1), (2, 1, 50), (3, 17, 33), (1, 64, 64), (2, 65, 97), (1, 127, 250), (1, 240, 320), (1, 375, 500),
         (1, 481, 353), (1, 1080, 1920))  # fmt: skip
"""(N, H, W) of the images on which a file is compared with the model."""
TOLERANCE = 1e-4
"""Largest difference of a score: ten or so float32 roundings of scores up to 50, summed in another order."""
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
Runner = Callable[[Tensor], Tensor]


class _Scores(nn.Module):
    """The model with its guidance switch set: a graph has no options."""

    def __init__(self, model: Network, guidance: bool | None):
        super().__init__()
        self.model, self.guidance = model, guidance

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image, guidance=self.guidance)


def export_program(model: Network, *, guidance: bool | None = None) -> ExportedProgram:
    """The model as a graph of standard operators with free batch, height and width (from 1 on), float32, on the CPU.

    Raises:
        ValueError: a head that is not ``exportable``.
    """
    if not model.head.feature_context.exportable:
        raise ValueError(f"head: {model.config.head!r} has operators that depend on the image's size: it "
                         "cannot be exported")  # fmt: skip
    model = copy.deepcopy(model).eval().float().to("cpu")
    sizes = {0: Dim("batch", min=1), 2: Dim("height", min=1), 3: Dim("width", min=1)}
    # Sizes of 1 are sizes like any other (the default makes two graphs of them), and what the solver cannot prove, that
    # the scores have as many cells as the guide, is left to the check below.
    with torch.no_grad(), symbolic_config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        program = torch.export.export(
            _Scores(model, guidance), (torch.zeros(2, 3, 70, 93),), dynamic_shapes={"image": sizes}, strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )  # fmt: skip
    for node in list(program.graph.nodes):
        # checks at run time: some demand more than one cell an image, which nothing relies on
        if node.target is torch.ops.aten._assert_scalar.default:
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program


def card(model: Network) -> dict[str, str]:
    """What a file says about its model: JSON texts by name."""
    about = {"classes": model.classes, "palette": model.palette.tolist(), "input": normalisation(model)}
    output = "scores N, C, H, W: softmax over C gives probabilities, argmax labels"
    return {name: json.dumps(value) for name, value in about.items()} | {"output": output}


def save_pt2(program: ExportedProgram, path: Path, about: dict[str, str]) -> None:
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={"card.json": json.dumps(about)})


def load_pt2(path: Path) -> Runner:
    with path.open("rb") as file:
        module = torch.export.load(file).module()
    return lambda image: module(image)


def save_onnx(program: ExportedProgram, path: Path, about: dict[str, str]) -> None:
    # onnxruntime optimises when it loads; folding constants here takes minutes and gains nothing
    converted: Any = torch.onnx.export(
        program, input_names=["image"], output_names=["scores"], external_data=False, verbose=False, optimize=False
    )
    converted.model.metadata_props.update(about)
    converted.save(str(path), external_data=False)


def load_onnx(path: Path) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(["scores"], {"image": image.numpy()})[0])


FORMATS: dict[str, tuple[Callable[[ExportedProgram, Path, dict[str, str]], None], Callable[[Path], Runner]]] = {
    "onnx": (save_onnx, load_onnx),
    "pt2": (save_pt2, load_pt2),
}


class Check(NamedTuple):
    """Of one size: the largest difference of a score, and the milliseconds of the model and of the file."""

    size: tuple[int, int, int]
    difference: float
    model_ms: float
    file_ms: float


def compare(model: Network, run: Runner, sizes: Sequence[tuple[int, int, int]], guidance: bool | None) -> list[Check]:
    """Compares an exported model with its source on images of each size (N, H, W); the faster of two calls is timed.

    Raises:
        ValueError: scores of another shape.
    """
    checks = []
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for size in sizes:
            image = picture(*size, generator)
            calls: tuple[Runner, Runner] = (lambda x: model(x, guidance=guidance), run)
            (expected, own), (got, other) = (
                min((timed(partial(call, image)) for _ in range(2)), key=itemgetter(1)) for call in calls
            )
            if expected.shape != got.shape:
                raise ValueError(f"{size}: expected scores {tuple(expected.shape)}, got {tuple(got.shape)}")
            checks.append(Check(size, float((expected - got).abs().max()), own, other))
    return checks


@dataclass(frozen=True)
class ExportOptions(Section):
    """How to export."""

    guidance: Literal["configured", "on", "off"] = option("configured", "guidance CRF; configured: as in the run")
    overwrite: bool = option(False, "replace the file if it is there already")
    quick: bool = option(False, "check the sizes below 1 megapixel only")


def main(arguments: Sequence[str]) -> int:
    parser = cli.Parser("export", __doc__ or "")
    parser.add_argument("run", metavar="RUN", help="run folder, model folder or checkpoint file")
    parser.add_argument("--format", choices=list(FORMATS), required=True, help="onnx, or pt2 (torch.export)")
    parser.add_argument("--output", required=True, metavar="FILE", help="the file to write")
    add_flags(parser, {"export": ExportOptions})
    given = parser.parse_args(arguments)
    options = from_flags(given, ExportOptions)
    target = output_file("--output", given.output, endings=(f".{given.format}",), overwrite=options.overwrite)
    missing = [name for name in ONNX_PACKAGES if given.format == "onnx" and importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"--format onnx: needs {', '.join(missing)}: python -m pip install 'segmodel[onnx]'")
    guidance = {"configured": None, "on": True, "off": False}[options.guidance]
    model = load_network(given.run, Network).float()
    check_predicts(model)
    try:
        program = export_program(model, guidance=guidance)
    except ValueError as error:
        raise UserError(f"{given.run}: {error}") from error
    save, load = FORMATS[given.format]
    sizes = [size for size in SIZES if not options.quick or size[1] * size[2] < 1e6]
    with replacing(target) as partial:
        save(program, partial, card(model))
        checks = compare(model, load(partial), sizes, guidance)
        rows = [[" x ".join(map(str, size)), f"{difference:.1e}", *times] for size, difference, *times in checks]
        print(Table("", ["N x H x W", "difference", "model, ms", f"{given.format}, ms"], rows).text())
        worst = torch.tensor([check.difference for check in checks]).max().item()  # NaN, where there is one
        if not worst <= TOLERANCE:
            raise RuntimeError(f"the file differs from the model by {worst:.1e}, allowed {TOLERANCE:.0e}: not kept")
    size = f"{target.stat().st_size / 2**20:.1f} MiB"
    print(f"{target}: {find_checkpoint(given.run)} in {size}, differs by at most {worst:.1e}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("export", main))
