"""Times the operators and the model against the peers that are installed; memory; the loader.

    python -m segmodel.benchmark --json FILE                     # operators, model, GPU
    python -m segmodel.benchmark --only operators --threads 1,2 --seconds 1.5 --json FILE
    python -m segmodel.benchmark --only memory                   # of the paper's ResNet-101, or of other settings
    python -m segmodel.benchmark --only loader --data voc:PATH   # does it keep the training fed?
    python -m segmodel.benchmark --only refinement --data voc:PATH --scores FOLDER|RUN --html FILE

The last one is about quality too: refinement of a model's scores (as for segmodel.tune) by every method at hand.

Peers: OpenCV's ximgproc.guidedFilter (opencv-contrib-python-headless), kornia's guided_blur, pydensecrf. All
contestants of a table take turns in one run, so that their ratios survive a busy machine; a result that differs from
its peer's where both must agree is an error. Settings of training (as for segmodel.train) describe the model, crop and
batch of the tables memory and loader, and the precision of the model's times.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from segmodel.common import cli
from segmodel.common.device import Precision
from segmodel.common.environment import environment, peer
from segmodel.common.errors import UserError
from segmodel.common.files import output_file, write_output
from segmodel.common.html import page
from segmodel.common.options import Section, add_flags, from_flags, option
from segmodel.common.tables import Table
from segmodel.common.terminal import say
from segmodel.data import open_data
from segmodel.experiments import gpu, refinement
from segmodel.experiments.loader import loader_table
from segmodel.experiments.memory import memory_table
from segmodel.experiments.models import model_tables
from segmodel.experiments.operators import first_calls, operator_tables
from segmodel.experiments.scored import labelled, scores_of
from segmodel.experiments.timing import Times, times_table
from segmodel.inference.refinement import read_settings
from segmodel.training.settings import Config, add_settings, resolve

Part = Literal["operators", "model", "gpu", "memory", "loader", "refinement"]


@dataclass(frozen=True)
class BenchmarkOptions(Section):
    """What to measure."""

    only: tuple[Part, ...] = option(("operators", "model", "gpu"), f"some of {', '.join(get_args(Part))}")
    threads: tuple[int, ...] = option(
        (), "threads of torch and OpenCV (operators: 1, then 2; model: 2; else torch's own)", at_least=1, at_most=1024
    )
    seconds: float = option(2.0, "time for each contestant of a table", above=0, at_most=10**5)
    json: str = option("", "write the figures to this file as well")
    classes: int = option(21, "memory: classes of the model", at_least=1, at_most=255)
    image: tuple[int, int] = option((1024, 2048), "memory: HEIGHT,WIDTH at inference", at_least=1, at_most=99999)
    batches: int = option(20, "loader: batches to time", at_least=1, at_most=10**6)


@dataclass(frozen=True)
class RefinementOptions(Section):
    """Of the part refinement."""

    scores: str | None = option(None, "folder of NAME.npy logits, or a run or checkpoint of segmodel.train")
    split: str = option("val", "part of the data that is judged on")
    images: int = option(0, "evenly spaced images of it; 0: all", at_least=0)
    peers_split: str = option("train", "part on which the other methods choose among a few settings")
    peers_images: int = option(0, "evenly spaced images of it; 0: their usual settings", at_least=0)
    settings: str | None = option(None, "settings that segmodel.tune wrote, as one more method")
    html: str | None = option(None, "write table and plots of quality against time to this page")


def refinement_part(options: RefinementOptions, data: str) -> dict[str, Any]:
    """Prints the table, writes the page, and returns the figures of each method."""
    if not data or not options.scores:
        raise UserError("--only refinement: expected --data and --scores")
    page_file = output_file("--html", options.html, endings=(".html",), overwrite=True) if options.html else None
    judged = open_data(data, split=options.split)
    scores = scores_of(options.scores, "auto", judged)
    compared = refinement.methods(read_settings(options.settings) if options.settings else None)
    tuning = []
    if options.peers_images:
        peers_data = open_data(data, split=options.peers_split)
        tuning = list(labelled(peers_data, options.peers_images, scores, options.peers_split))
    picked = [(method, refinement.chosen(method, tuning)) for method in compared if not method.lacks]
    outcomes = refinement.run_methods(labelled(judged, options.images, scores, options.split), picked)
    values = refinement.figures(outcomes)
    count = len(next(iter(outcomes.values())).found.names)
    title = f"refinement, {data}, {options.split}, {count} images, {torch.get_num_threads()} threads"
    table = refinement.refinement_table(title, values, [method for method in compared if method.lacks])
    say("", table)
    if page_file:
        write_output("--html", page_file, page("Refinement", [table.html(), *refinement.refinement_plots(values)]))
    return values


def time_tables(options: BenchmarkOptions, precision: Precision) -> Iterator[tuple[str, Times]]:
    """Titles and milliseconds of the operators and the model, as they come."""
    for threads in options.threads or (1, 2):
        use_threads(threads)
        if "operators" in options.only:
            for title, rows in operator_tables(options.seconds):
                yield f"{title}; threads: {threads}", rows
    if "operators" in options.only:
        yield "first call of refine in a process", first_calls()
    if "model" in options.only:
        yield from model_tables(options.seconds, precision=precision)


def memory_settings(given: argparse.Namespace) -> Config:
    """Those of segmodel.train where data, a recipe or a file is given, else the paper's with two images a batch."""
    if given.config or given.recipe or "data" in given:
        return resolve(given)
    return resolve(argparse.Namespace(**{"batch_size": 2, **vars(given), "recipe": ""}))


def use_threads(count: int) -> None:
    torch.set_num_threads(count)
    if (cv2 := peer("cv2")) is not None:
        cv2.setNumThreads(count)


def main(arguments: Sequence[str]) -> int:
    parser = cli.Parser("benchmark", __doc__ or "")
    add_flags(parser, {"benchmark": BenchmarkOptions, "refinement": RefinementOptions})
    add_settings(parser)
    given = parser.parse_args(arguments)
    options, config = from_flags(given, BenchmarkOptions), resolve(given)
    if "model" in options.only and config.train.precision == "float64":
        raise UserError("--precision: expected auto, float32, bfloat16 or float16 for the model's times, got float64")
    json_file = output_file("--json", options.json, overwrite=True) if options.json else None
    report: dict[str, Any] = environment()
    if options.threads:
        use_threads(options.threads[-1])
    say(json.dumps({**report, "threads": torch.get_num_threads()}))
    if {"operators", "model"} & set(options.only):
        report["milliseconds"] = {}
        for title, rows in time_tables(options, config.train.precision):
            report["milliseconds"][title] = rows
            say("", times_table(title, rows, "ms"))
    report["threads"] = torch.get_num_threads()
    if "gpu" in options.only:
        report["gpu"] = gpu.measure()
        say("", *f"GPU: {gpu.text(report['gpu'])}".split("\n"))
    others: dict[str, Callable[[], Table]] = {
        "memory": lambda: memory_table(memory_settings(given), options.classes, options.image),
        "loader": lambda: loader_table(config, options.batches),
    }
    for name in (name for name in others if name in options.only):
        table = others[name]()
        report[name] = table.records()
        say("", table)
    if "refinement" in options.only:
        report["refinement"] = refinement_part(from_flags(given, RefinementOptions), vars(given).get("data", ""))
    if json_file:
        write_output("--json", json_file, json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("benchmark", main))
