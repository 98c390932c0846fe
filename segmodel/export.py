"""Exports a model, guidance CRF included, to one file that runs without this package, and checks it.

    python -m segmodel.export RUN --format onnx --output model.onnx   # needs the extra [onnx]; runs in onnxruntime
    python -m segmodel.export RUN --format pt2 --output model.pt2     # torch.export.load(FILE).module()(image)
    python -m segmodel.export RUN --format onnx --labels --output labels.onnx        # ends in labels, uint8
    python -m segmodel.export --refine --settings tuned.json --format onnx --output refine.onnx   # for any model

The input "image" is float32 (batch, 3, height, width), RGB in 0..255; the output "scores" float32 (batch, C, height,
width), or with --labels "labels" uint8 (batch, height, width). batch, height and width are free, from 1 on.

--refine exports what segmodel.refine does alone: "scores" (batch, classes, rows, columns), logits of any model and any
size, and "image" give "refined" at the image's size. Its settings are fixed in the file, so all of them have to be
given: by --settings, a file of segmodel.tune, or by flags (segmodel.refine prints those that it takes).

The file is kept only if its scores equal the source's on ten sizes.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from segmodel.common import cli
from segmodel.common.errors import UserError
from segmodel.common.files import output_file, replacing, writing
from segmodel.common.options import Section, add_flags, build, flag_values, from_flags, option
from segmodel.common.tables import Table
from segmodel.common.terminal import say
from segmodel.experiments.exported import (
    FORMATS,
    SIZES,
    TOLERANCE,
    Runner,
    Source,
    compare,
    missing_packages,
    of_model,
    of_refinement,
)
from segmodel.inference.refinement import read_settings
from segmodel.inference.views import check_predicts
from segmodel.model.network import Network
from segmodel.model.store import find_checkpoint, load_network
from segmodel.model.untrained_crf import Refinement, Resolved


@dataclass(frozen=True)
class ExportOptions(Section):
    """How to export."""

    guidance: Literal["configured", "on", "off"] = option("configured", "guidance CRF; configured: as in the run")
    labels: bool = option(False, "the file ends in labels (batch, height, width), uint8, in place of scores")
    tolerance: float = option(
        TOLERANCE, "largest difference of a score in the check, as a share of the image's largest score", above=0
    )
    overwrite: bool = option(False, "replace the file if it is there already")
    quick: bool = option(False, "check the sizes below 1 megapixel only")


def make_parser() -> cli.Parser:
    parser = cli.Parser("export", __doc__ or "")
    parser.add_argument("run", nargs="?", metavar="RUN", help="run folder, model folder or checkpoint file")
    parser.add_argument("--refine", action="store_true", help="export the refinement alone, in place of a RUN")
    parser.add_argument("--format", choices=list(FORMATS), required=True, help="onnx, or pt2 (torch.export)")
    parser.add_argument("--output", required=True, metavar="FILE", help="the file to write")
    parser.add_argument("--settings", metavar="FILE", help="with --refine: settings that segmodel.tune wrote; flags "
                        "override them")  # fmt: skip
    add_flags(parser, {"export": ExportOptions, "settings, with --refine": Refinement})
    return parser


def fixed_settings(kept: dict[str, Any], flags: dict[str, Any]) -> Resolved:
    """All settings of a refinement; UserError for one that is not given."""
    settings = asdict(build(Refinement, kept, flags))
    missing = ", ".join("--" + name for name, value in settings.items() if value is None)
    if missing:
        raise UserError(f"--refine: settings are fixed in a file: expected {missing} too, or --settings FILE with them")
    return Resolved(**settings)


def check(source: Source, run: Runner, options: ExportOptions, kind: str) -> float:
    """Prints the comparison of a file with its source, a row a size, and returns the largest share.

    Raises:
        RuntimeError: a difference beyond the tolerance.
    """
    sizes = [size for size in SIZES if not options.quick or size[1] * size[2] < 1e6]
    checks = compare(source, run, sizes)
    head = ["N x H x W", "difference", "of the largest", "other labels", "torch, ms", f"{kind}, ms"]
    rows = [[" x ".join(map(str, size)), f"{difference:.1e}", f"{share:.1e}", changed, *times]
            for size, difference, share, changed, *times in checks]  # fmt: skip
    say(Table("", head, rows))
    worst = max(item.share for item in checks)
    # a label is decided by two scores
    if not worst <= (2 if options.labels else 1) * options.tolerance:
        raise RuntimeError(f"the file's scores differ by {worst:.1e} of the largest, allowed {options.tolerance:.0e} "
                           "(--tolerance): not kept")  # fmt: skip
    return worst


def main(arguments: Sequence[str]) -> int:
    given = make_parser().parse_args(arguments)
    options: ExportOptions = from_flags(given, ExportOptions)
    flags = flag_values(given, {"": Refinement}).get("", {})
    if given.refine == (given.run is not None):
        raise UserError("expected RUN, or --refine in its place")
    if not given.refine and (flags or given.settings):
        raise UserError(f"--{'settings' if given.settings else next(iter(flags))}: expected with --refine only")
    target = output_file("--output", given.output, endings=(f".{given.format}",), overwrite=options.overwrite)
    if missing := missing_packages(given.format):
        raise UserError(f"--format onnx: needs {', '.join(missing)}: python -m pip install 'segmodel[onnx]'")
    if given.refine:
        if options.guidance != "configured":
            raise UserError("--guidance: expected with a RUN only")
        own = fixed_settings(read_settings(given.settings) if given.settings else {}, flags)
        name = "the refinement with " + ", ".join(f"{name} {value}" for name, value in asdict(own).items())
        source = of_refinement(own, labels=options.labels)
    else:
        guidance = {"configured": None, "on": True, "off": False}[options.guidance]
        model, name = load_network(given.run, Network).float(), str(find_checkpoint(given.run))
        check_predicts(model)
        try:
            source = of_model(model, guidance=guidance, labels=options.labels)
        except ValueError as error:
            raise UserError(f"{given.run}: {error}") from error
    serialised, load = FORMATS[given.format]
    content = serialised(source)
    with writing("--output", target), replacing(target) as partial:
        partial.write_bytes(content)
        worst = check(source, load(partial), options, given.format)
    say(f"{target}: {name}; {len(content) / 2**20:.1f} MiB, differs by at most {worst:.1e} of the largest score")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("export", main))
