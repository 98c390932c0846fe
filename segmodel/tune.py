"""Settings of segmodel.refine for a model's scores: found on a few labelled images, judged on others.

    python -m segmodel.tune SCORES --data folder:mine --output tuned.json   # SCORES/NAME.npy of any model: (C, h, w)
    python -m segmodel.tune RUN --data voc:VOCdevkit --report val           # a run of segmodel.train, guidance off

One setting after the other (radius, weight, eps) is set to the best of a few values until none changes any more. The
weight 0 is among them: where no refinement helps, none is the result.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from segmodel.common import cli
from segmodel.common.device import autocast, autocast_dtype, choose_device, place, to_batch
from segmodel.common.environment import versions
from segmodel.common.errors import UserError
from segmodel.common.files import json_text, output_file, write_output
from segmodel.common.options import Section, add_flags, from_flags, option
from segmodel.common.tables import Table
from segmodel.data import Sample, SegmentationData, open_data
from segmodel.data.base import evenly_spaced
from segmodel.evaluation.evaluate import check_classes
from segmodel.experiments.tuning import TRIMAP, Labelled, Metric, report, tune_refinement
from segmodel.inference.inputs import read_scores, scores_and_pixels
from segmodel.inference.refinement import Refinement
from segmodel.inference.settings import DEVICE
from segmodel.model.network import Network
from segmodel.model.store import load_network


@dataclass(frozen=True)
class Options(Section):
    """On which images the settings are found and judged."""

    split: str = option("train", "part of the data to tune on")
    images: int = option(24, "evenly spaced images of it; 0: all", at_least=0)
    metric: Metric = option("miou", "what to maximise")
    stride: int = option(4, "blocks of the CRF; 1: full size", at_least=1)
    report: str | None = option(None, "then judge the settings on this part of the data")
    report_images: int = option(0, "evenly spaced images of it; 0: all", at_least=0)
    output: str | None = option(None, "write settings and figures to this file, for segmodel.refine")
    overwrite: bool = option(False, "replace the output if it is there already")
    device: str = option("auto", DEVICE)


def scores_of(source: str, device: str, data: SegmentationData) -> Callable[[Sample], np.ndarray]:
    """Logits of a sample: out of a folder of NAME.npy files, or from a run on the data's classes, guidance off."""
    folder = Path(source)
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        marks: dict[str, int] = {}

        def read(sample: Sample) -> np.ndarray:
            file, mark = folder / f"{sample.name}.npy", hash(sample.image.tobytes())
            if marks.setdefault(sample.name, mark) != mark:
                raise UserError(f"{file}: expected pictures of different names, got two that are named {sample.name}")
            return read_scores(file)

        return read
    place_ = choose_device(device)
    model, dtype = place(load_network(source, Network), place_), autocast_dtype("auto", place_)
    check_classes(source, model.classes, data)

    @torch.inference_mode()
    def scores(sample: Sample) -> np.ndarray:
        with autocast(place_, dtype):
            logits: Tensor = model(to_batch(sample.image[None].copy(), place_), guidance=False)
        return logits[0].float().cpu().numpy()

    return scores


def labelled(
    data: SegmentationData, limit: int, scores: Callable[[Sample], np.ndarray], name: str
) -> Iterator[Labelled]:
    """Evenly spaced samples (0: all) with their scores."""
    for index in tqdm(evenly_spaced(len(data), limit), desc=name, unit="image", disable=None):
        sample = data[index]
        logits = scores(sample)
        if logits.ndim != 3 or 0 in logits.shape or len(logits) != len(data.classes):
            raise UserError(f"{sample.name}: expected scores of {len(data.classes)} classes, got {logits.shape}")
        try:
            scores_and_pixels(logits, sample.image)
        except ValueError as error:
            raise UserError(f"{sample.name}: {error}") from error
        yield logits, sample.image, sample.label


def table(title: str, result: Mapping[str, Mapping[str, float]]) -> Table:
    """Figures of ``report`` in percent, and how they change."""
    names = {"miou": "mIoU", "boundary_iou": "Boundary IoU", f"trimap_{TRIMAP}": f"trimap {TRIMAP} px"}
    before, after = result["before"], result["after"]
    rows = [[name, 100 * before[key], 100 * after[key], f"{100 * (after[key] - before[key]):+.2f}"]
            for key, name in names.items()]  # fmt: skip
    more = max(0, 1000 * (after["seconds"] - before["seconds"]))
    return Table(title, ["%", "before", "after", "change"], rows, f"{more:.0f} ms an image")


def make_parser() -> cli.Parser:
    parser = cli.Parser("tune", __doc__ or "")
    parser.add_argument("scores", metavar="SCORES|RUN", help="folder of NAME.npy logits, or a run or checkpoint")
    parser.add_argument("--data", required=True, help="as for segmodel.train, such as folder:PATH")
    add_flags(parser, {"tuning": Options})
    return parser


def main(arguments: Sequence[str]) -> int:
    given = make_parser().parse_args(arguments)
    options: Options = from_flags(given, Options)
    output = output_file("--output", options.output, overwrite=options.overwrite) if options.output else None
    data = open_data(given.data, split=options.split)
    held_out = open_data(given.data, split=options.report) if options.report else None
    scores = scores_of(given.scores, options.device, data)
    samples = list(labelled(data, options.images, scores, "scores"))
    tuned = tune_refinement(samples, metric=options.metric, start=replace(Refinement.paper(), stride=options.stride))
    settings = asdict(tuned.settings)
    print(", ".join(f"{name} {value:g}" for name, value in settings.items()))
    print(f"{given.data}, {options.split}, {len(samples)} images: {options.metric} {100 * tuned.before:.2f} -> "
          f"{100 * tuned.after:.2f} ({len(tuned.tried)} settings tried)")  # fmt: skip
    content = {"settings": settings, "data": given.data, "split": options.split, "images": len(samples),
               "metric": options.metric, "before": tuned.before, "after": tuned.after}  # fmt: skip

    def keep() -> None:
        if output:
            write_output("--output", output, json_text({**content, "versions": versions()}, indent=1) + "\n")

    keep()
    if held_out is not None:
        del samples
        result = report(labelled(held_out, options.report_images, scores, "report"), tuned.settings)
        count = len(evenly_spaced(len(held_out), options.report_images))
        print("\n" + table(f"{given.data}, {options.report}, {count} images:", result).text())
        content["report"] = {"split": options.report, "images": count, **result}
        keep()
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("tune", main))
