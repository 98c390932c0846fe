"""Trains the configurations of Table 3 and two peers on one data set, and compares them.

    python -m segmodel.ablate --output DIR                                  # built-in scenes
    python -m segmodel.ablate --output DIR --data voc:VOCdevkit --init-weights resnet101.pth --seeds 0,1
    python -m segmodel.ablate --output DIR --report-only                    # what DIR/runs holds, as it is

DIR gets runs/VARIANT-seedS (ordinary run folders), figures/ (what each predicts, in numbers), report.html with tables 3
and 4 and figures 5 to 7, and results.json. Called again, it goes on: nothing that is finished is done twice.
Every option of segmodel.train may be given; what makes a variant comes last and cannot be overridden.
"""

import argparse
import dataclasses
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import torch

from segmodel import cli, train
from segmodel.checkpoint import read_checkpoint, write_atomically
from segmodel.configuration import SECTIONS, Config
from segmodel.data import open_data
from segmodel.evaluate import class_numbers
from segmodel.model import VARIANTS
from segmodel.options import UserError, add_flags, to_toml

WITHOUT_EFFECT = ("workers", "checkpoint_minutes", "pictures", "keep_last", "tensorboard", "timeout_minutes")
"""Settings of training that change no weight: runs that differ in them are the same run."""


@dataclass(frozen=True)
class Run:
    """One training: ``folder`` is DIR/runs/VARIANT-seedS."""

    variant: str
    seed: int
    folder: Path
    config: Config

    @property
    def name(self) -> str:
        return self.folder.name


def variant_config(base: Config, variant: str, seed: int) -> Config:
    """The configuration of one run: what makes the variant comes last."""
    try:
        return dataclasses.replace(
            base,
            model=dataclasses.replace(base.model, **VARIANTS[variant]),
            train=dataclasses.replace(base.train, seed=seed),
        )
    except ValueError as error:
        raise UserError(f"--variants: {variant}: {error}") from error


def differences(first: Config, second: Config) -> list[str]:
    """Settings that would give other weights: "section.name: one value or another"."""
    found = []
    for title in SECTIONS:
        one, other = (dataclasses.asdict(getattr(config, title)) for config in (first, second))
        found += [
            f"{title}.{name}: {one[name]!r} or {other[name]!r}"
            for name in one
            if one[name] != other[name] and not (title == "train" and name in WITHOUT_EFFECT)
        ]
    return found


def is_finished(folder: Path) -> bool:
    """Whether a run folder's last checkpoint is that of the whole training; False without one."""
    file = folder / "last.safetensors"
    return file.is_file() and bool(read_checkpoint(file, weights=False)[0].get("finished"))


def check_folder(run: Run) -> None:
    """A folder that is there must hold this very run.

    Raises:
        UserError: it holds another one (the first difference is named), or something else.
    """
    if not run.folder.exists():
        return
    if not (run.folder / "config.toml").is_file():
        raise UserError(f"{run.folder}: expected a run folder or nothing, found no config.toml in it")
    different = differences(train.recorded_config(run.folder), run.config)
    if different:
        more = f" (and {len(different) - 1} more)" if len(different) > 1 else ""
        raise UserError(f"{run.folder}: trained with another configuration: {different[0]}{more}")


def train_run(run: Run) -> int:
    """Trains a run, or goes on with it, or does nothing if it is finished; returns the exit status."""
    if is_finished(run.folder):
        return 0
    print(f"\n{run.name}", flush=True)
    if (run.folder / "last.safetensors").is_file():
        return cli.run("train", train.main, ["--resume", str(run.folder)])
    if any(run.folder.glob("*.safetensors")):
        raise UserError(f"{run.folder}: expected last.safetensors beside its other checkpoints")
    if run.folder.exists():
        shutil.rmtree(run.folder)  # stopped before its first checkpoint: nothing to go on from
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "config.toml"
        write_atomically(file, to_toml({title: getattr(run.config, title) for title in SECTIONS}))
        return cli.run("train", train.main, ["--config", str(file), "--output", str(run.folder)])


def train_all(runs: Sequence[Run], *, jobs: int) -> int:
    """Trains the runs, ``jobs`` at a time, and begins none after one has failed; returns that one's status, else 0."""
    if jobs == 1:
        for run in runs:
            status = train_run(run)
            if status:
                return status
        return 0
    threads = max(1, torch.get_num_threads() // jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        waiting, running, status = list(reversed(runs)), set[Future[int]](), 0
        while running or (waiting and not status):
            # no more than are running: what a pool has been given it trains, interrupted or not
            while waiting and not status and len(running) < jobs:
                running.add(pool.submit(train_run, waiting.pop()))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            status = status or max(future.result() for future in done)
        return status


def planned_runs(options: argparse.Namespace) -> list[Run]:
    """Every variant with every seed, as the options describe them; whatever is there already must fit."""
    if "seed" in vars(options):
        raise UserError("--seed: expected --seeds here, such as --seeds 0,1")
    base = train.resolve(argparse.Namespace(**vars(options), variant="guide"))  # the full model
    runs = [
        Run(variant, seed, options.output / "runs" / f"{variant}-seed{seed}", variant_config(base, variant, seed))
        for seed in options.seeds
        for variant in options.variants
    ]
    for run in runs:
        check_folder(run)
    return runs


def misfit(run: Run) -> str:
    """What in a run's model is not as its variant has it; "" if all is."""
    model = run.config.model
    off = [name for name, value in VARIANTS["unary"].items() if getattr(model, name) == value]
    if run.variant in ("patch", "guide") and "patch_size" in off:
        return f"patch_size {model.patch_size}"
    if run.variant == "guide" and "guidance" in off:
        return f"guidance {model.guidance}"
    return next(iter(differences(run.config, variant_config(run.config, run.variant, run.seed))), "")


def finished_runs(output: Path, variants: Sequence[str], seeds: Sequence[int] | None) -> tuple[list[Run], list[str]]:
    """The finished runs in OUTPUT/runs, and in what they differ from the first beside variant and seed.

    Raises:
        UserError: there are none, a model is not what its folder's name says, or not all have the same data.
    """
    runs = []
    for folder in sorted((output / "runs").glob("*-seed*")):
        match = re.fullmatch(r"([a-z]+)-seed(\d+)", folder.name)
        if not match or match[1] not in variants or (seeds is not None and int(match[2]) not in seeds):
            continue
        if is_finished(folder):
            config = train.recorded_config(folder)
            runs.append(Run(match[1], int(match[2]), folder, config))
    if not runs:
        raise UserError(f"{output / 'runs'}: expected finished runs named VARIANT-seedS, found none")
    runs.sort(key=lambda run: (list(VARIANTS).index(run.variant), run.seed))
    notes = []
    for run in runs:
        wrong = misfit(run)
        if wrong:
            raise UserError(f"{run.folder}: not the variant {run.variant}: {wrong}")
        if run.config.train.data != runs[0].config.train.data:
            raise UserError(f"{run.folder}: trained on {run.config.train.data}, "
                            f"but {runs[0].name} on {runs[0].config.train.data}")  # fmt: skip
        bare, first = (variant_config(one.config, "unary", 0) for one in (run, runs[0]))
        notes += [f"{run.name}: {text} ({runs[0].name})" for text in differences(bare, first)]
    return runs, notes


def names_list(text: str) -> list[str]:
    """Variants, separated by commas."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in VARIANTS:
            raise UserError(f"--variants: expected some of {', '.join(VARIANTS)}, got {name!r}")
    return sorted(set(names), key=list(VARIANTS).index)


def numbers_list(text: str) -> list[int]:
    """Seeds, separated by commas."""
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = [-1]
    if min(seeds) < 0:
        raise UserError(f"--seeds: expected whole numbers from 0 on, separated by commas, got {text!r}")
    return sorted(set(seeds))


def size_pair(text: str) -> tuple[int, int]:
    """WIDTHxHEIGHT as (height, width)."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not match:
        raise UserError(f"--time-size: expected WIDTHxHEIGHT such as 500x300, got {text!r}")
    return int(match[2]), int(match[1])


def make_parser() -> cli.Parser:
    parser = cli.Parser("ablate", __doc__)
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="folder of runs and report")
    parser.add_argument("--variants", default=",".join(VARIANTS), help=f"default: {','.join(VARIANTS)}")
    parser.add_argument("--seeds", help="default: 0,1; with --report-only all that are there")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs trained at a time (default: 1)")
    parser.add_argument("--report-only", action="store_true", help="train nothing, report the finished runs (settings "
                        "of training have no effect)")  # fmt: skip
    parser.add_argument("--classes", help="also the mean IoU over these classes: names, separated by commas")
    parser.add_argument("--time-size", default="500x300", metavar="WxH", help="image of Table 4 (default: 500x300)")
    parser.add_argument("--time-seconds", type=float, default=10.0, metavar="S", help="time for each variant there")
    parser.add_argument("--no-dense", action="store_true", help="without the bilateral dense CRF (slow; pydensecrf)")
    parser.add_argument("--ceilings", action="store_true", help="also the best scores that codes of n x n can reach")
    parser.add_argument("--config", metavar="FILE", help="TOML file with sections [model], [augmentation], [train]")
    parser.add_argument("--recipe", metavar="NAME", help="settings that ship with the package (as for segmodel.train)")
    add_flags(parser, SECTIONS)
    return parser


def main(arguments: Sequence[str]) -> int:
    options = make_parser().parse_args(arguments)
    options.variants = names_list(options.variants)
    seeds = numbers_list(options.seeds) if options.seeds is not None else None
    options.seeds = seeds or [0, 1]
    options.time_size = size_pair(options.time_size)
    if options.jobs < 1 or options.jobs > 4 * (os.cpu_count() or 1):
        raise UserError(f"--jobs: expected 1 to {4 * (os.cpu_count() or 1)}, got {options.jobs}")
    if not options.time_seconds > 0:
        raise UserError(f"--time-seconds: expected more than 0, got {options.time_seconds}")
    if options.report_only:
        runs, notes = finished_runs(options.output, options.variants, seeds)
    else:
        runs, notes = planned_runs(options), []
        class_numbers(options.classes, open_data(runs[0].config.train.data, split="val").classes)  # a wrong name now
        try:
            (options.output / "runs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--output: {options.output / 'runs'}: cannot be made ({error.strerror})") from error
        status = train_all(runs, jobs=options.jobs)
        if status:
            if status > 128:  # a signal: train has said so, and saved its state
                print(f"segmodel.ablate: the same command goes on with {options.output}", file=sys.stderr)
            return status
    from segmodel.ablate_report import write_report

    write_report(runs, notes, options)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("ablate", main))
