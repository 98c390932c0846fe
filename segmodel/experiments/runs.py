"""The runs of an ablation: planning them, training them, finding the finished ones."""

import argparse
import dataclasses
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import torch

from segmodel.common import cli
from segmodel.common.errors import UserError
from segmodel.common.options import Section, option
from segmodel.common.terminal import say
from segmodel.model.config import VARIANTS
from segmodel.model.store import read_checkpoint
from segmodel.training.run import train
from segmodel.training.run_folder import RunFolder
from segmodel.training.settings import Config, differences, resolve


@dataclass(frozen=True)
class AblationOptions(Section):
    """What to train and what to report."""

    variants: tuple[str, ...] = option(tuple(VARIANTS), "variants, some of these", choices=tuple(VARIANTS))
    seeds: tuple[int, ...] | None = option(
        None, "seeds; none: 0,1, with --report-only all that are there", at_least=0, at_most=2**63 - 1
    )
    jobs: int = option(1, "runs trained at a time", at_least=1, at_most=4 * (os.cpu_count() or 1))
    report_only: bool = option(False, "train nothing, report the finished runs; settings of training have no effect")
    classes: tuple[str, ...] = option((), "also the mean IoU over these classes, names")
    time_size: tuple[int, int] = option((300, 500), "HEIGHT,WIDTH of the image of Table 4", at_least=1, at_most=99999)
    time_seconds: float = option(10.0, "time for each variant there", above=0, at_most=10**5)
    dense: bool = option(True, "also the bilateral dense CRF, where pydensecrf is installed (slow)")
    ceilings: bool = option(False, "also the best scores that codes of n x n can reach")


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
    """The configuration of one run: the base with what makes the variant, and the seed."""
    try:
        model = dataclasses.replace(base.model, **VARIANTS[variant])
        return dataclasses.replace(base, model=model, train=dataclasses.replace(base.train, seed=seed))
    except ValueError as error:
        raise UserError(f"--variants: {variant}: {error}") from error


def is_finished(folder: Path) -> bool:
    """Whether a run folder holds the checkpoint of a finished training."""
    file = folder / "last.safetensors"
    return file.is_file() and bool(read_checkpoint(file, weights=False)[0].get("finished"))


def check_folder(run: Run) -> None:
    """Checks that the folder of a run, where it exists, holds this very run.

    Raises:
        UserError: it holds another one (the message names the first difference), or something else.
    """
    if not run.folder.exists():
        return
    if not (run.folder / "config.toml").is_file():
        raise UserError(f"{run.folder}: expected a run folder or nothing, found no config.toml in it")
    if not RunFolder(run.folder).has_begun():  # it was killed as it began
        return
    different = differences(RunFolder(run.folder).config(), run.config)
    if different:
        more = f" (and {len(different) - 1} more)" if len(different) > 1 else ""
        raise UserError(f"{run.folder}: trained with another configuration: {different[0]}{more}")


def train_run(run: Run) -> int:
    """Trains a run, or continues it, unless it is finished; returns the exit status."""
    if is_finished(run.folder):
        return 0
    say("", run.name)
    if any(run.folder.glob("*.safetensors")) and not (run.folder / "last.safetensors").is_file():
        raise UserError(f"{run.folder}: expected last.safetensors beside its other checkpoints")
    return cli.run("train", lambda _: train(run.config, run.folder, resume=RunFolder(run.folder).has_begun()), [])


def _begin_job(threads: int) -> None:
    """A process that trains, and ends when the one that started it is gone: a pool would wait for work for ever."""
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)  # a training saves its state after the step; what waits for work ends


def _train_job(run: Run) -> int:
    status = train_run(run)
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(status)
    return status


def train_all(runs: Sequence[Run], *, jobs: int) -> int:
    """Trains the runs, ``jobs`` at a time, and starts none after a failure; returns the status of that, else 0."""
    if jobs == 1:
        return next(filter(None, map(train_run, runs)), 0)
    threads = max(1, torch.get_num_threads() // jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_begin_job, initargs=(threads,)) as pool:
        waiting, running, status = list(reversed(runs)), set[Future[int]](), 0
        while running or (waiting and not status):
            # no more than can run now: a pool trains whatever it has been given, interrupted or not
            while waiting and not status and len(running) < jobs:
                running.add(pool.submit(_train_job, waiting.pop()))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            status = status or max(future.result() for future in done)
        return status


def planned_runs(given: argparse.Namespace, options: AblationOptions, output: Path) -> list[Run]:
    """Every variant with every seed, with the settings of training in ``given``; folders that exist must fit."""
    if "seed" in given:
        raise UserError("--seed: expected --seeds here, such as --seeds 0,1")
    base = resolve(argparse.Namespace(**vars(given), variant="guide"))  # the full model
    runs = [
        Run(variant, seed, output / "runs" / f"{variant}-seed{seed}", variant_config(base, variant, seed))
        for seed in sorted(set((0, 1) if options.seeds is None else options.seeds))
        for variant in VARIANTS
        if variant in options.variants
    ]
    if not runs:
        raise UserError("--variants, --seeds: expected at least one of each, got none")
    for run in runs:
        check_folder(run)
    return runs


def misfit(run: Run) -> str:
    """What in a run's model is not as its variant has it; "" if all is."""
    for name in {"patch": ["patch_size"], "guide": ["patch_size", "guidance"]}.get(run.variant, []):
        value = getattr(run.config.model, name)
        if value == VARIANTS["unary"][name]:
            return f"{name} {value}"
    return next(iter(differences(run.config, variant_config(run.config, run.variant, run.seed))), "")


def finished_runs(output: Path, options: AblationOptions) -> tuple[list[Run], list[str]]:
    """The finished runs in OUTPUT/runs, and how they differ from the first beside variant and seed.

    Raises:
        UserError: there are none, a model is not what its folder's name says, or not all have the same data.
    """
    runs = []
    for folder in (output / "runs").glob("*-seed*"):
        match = re.fullmatch(r"(.+)-seed(\d+)", folder.name)
        wanted = match and match[1] in options.variants and (options.seeds is None or int(match[2]) in options.seeds)
        if match and wanted and is_finished(folder):
            runs.append(Run(match[1], int(match[2]), folder, RunFolder(folder).config()))
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
