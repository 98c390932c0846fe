"""The runs of an ablation: planning them, training them, finding the finished ones."""

import argparse
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from datetime import timedelta
from operator import attrgetter
from pathlib import Path

import torch

from segmodel.common import cli
from segmodel.common.errors import UserError
from segmodel.common.options import Section, option
from segmodel.common.terminal import Prefixed, say
from segmodel.experiments.variants import FIELDS, Variant, of_folder, parse_variant
from segmodel.model.config import VARIANTS
from segmodel.model.store import read_checkpoint
from segmodel.training.run import train
from segmodel.training.run_folder import RunFolder
from segmodel.training.settings import Config, differences, resolve


@dataclass(frozen=True)
class AblationOptions(Section):
    """What to train and what to report."""

    variants: tuple[str, ...] | None = option(
        None,
        f"some of {', '.join(VARIANTS)}, each as it is or as NAME:FIELD=VALUE+FIELD=VALUE with other settings, such as "
        "patch:patch_size=4; none: these six, with --report-only all that are there",
    )
    seeds: tuple[int, ...] | None = option(
        None, "seeds; none: 0,1, with --report-only all that are there", at_least=0, at_most=2**63 - 1
    )
    jobs: int = option(1, "runs trained at a time", at_least=1, at_most=4 * (os.cpu_count() or 1))
    report_only: bool = option(False, "train nothing, report the finished runs; settings of training have no effect")
    classes: tuple[str, ...] = option((), "also the mean IoU over these classes, names")
    time_size: tuple[int, int] = option((300, 500), "HEIGHT,WIDTH of the image of Table 4", at_least=1, at_most=99999)
    time_seconds: float = option(10.0, "time for each model there", above=0, at_most=10**5)
    dense: bool = option(True, "also the bilateral dense CRF, where pydensecrf is installed (slow)")
    ceilings: bool = option(False, "also the best scores that codes of n x n can reach")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.chosen()

    def chosen(self) -> list[Variant] | None:
        """The variants given, in order; None if none were."""
        if self.variants is None:
            return None
        return sorted({parse_variant(text) for text in self.variants}, key=attrgetter("order"))


@dataclass(frozen=True)
class Run:
    """One training: ``folder`` is DIR/runs/VARIANT-seedS."""

    variant: Variant
    seed: int
    folder: Path
    config: Config

    @property
    def name(self) -> str:
        return self.folder.name


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
    """Trains a run, or continues it; returns the exit status."""
    if any(run.folder.glob("*.safetensors")) and not (run.folder / "last.safetensors").is_file():
        raise UserError(f"{run.folder}: expected last.safetensors beside its other checkpoints")
    return cli.run("train", lambda _: train(run.config, run.folder, resume=RunFolder(run.folder).has_begun()), [])


def _begin_job(threads: int) -> None:
    """A process that trains, and ends when the one that started it is gone: a pool would wait for work for ever."""
    torch.set_num_threads(threads)
    sys.stdout, sys.stderr = Prefixed(sys.stdout), Prefixed(sys.stderr)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)  # a training saves its state after the step; what waits for work ends


def _train_job(run: Run) -> int:
    Prefixed.prefix = f"{run.name}: "
    status = train_run(run)
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(status)
    return status


@dataclass
class Tally:
    """Says which run begins, and how many are done: ``todo`` of ``total`` are left at the start."""

    total: int
    todo: int
    begun: int = 0

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        if self.todo < self.total:
            say(f"{self.total - self.todo} of {self.total} runs are finished already")

    def begin(self, run: Run) -> None:
        self.begun += 1
        say("", f"{run.name}: run {self.total - self.todo + self.begun} of {self.total}")

    def end(self, running: int) -> None:
        """So many others are running, and half done on average."""
        done = self.begun - running
        left = (time.monotonic() - self.started) * (self.todo / (done + running / 2) - 1)
        words = f", about {timedelta(seconds=round(left))} left" if done < self.todo else ""
        say("", f"{self.total - self.todo + done} of {self.total} runs done{words}")


def train_all(runs: Sequence[Run], *, jobs: int) -> int:
    """Trains those that are not finished, ``jobs`` at a time, and says how many are.

    None is begun after a failure; returns the status of that, else 0.
    """
    todo = [run for run in runs if not is_finished(run.folder)]
    tally = Tally(len(runs), len(todo))
    if jobs > 1:
        return _train_together(todo, jobs, tally)
    for run in todo:
        tally.begin(run)
        if status := train_run(run):
            return status
        tally.end(0)
    return 0


def _train_together(runs: Sequence[Run], jobs: int, tally: Tally) -> int:
    """As ``train_all``, in a process for each job."""
    threads = max(1, torch.get_num_threads() // jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_begin_job, initargs=(threads,)) as pool:
        waiting, running, status = list(reversed(runs)), set[Future[int]](), 0
        while running or (waiting and not status):
            # no more than can run now: a pool trains whatever it has been given, interrupted or not
            while waiting and not status and len(running) < jobs:
                tally.begin(waiting[-1])
                running.add(pool.submit(_train_job, waiting.pop()))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            status = status or max(future.result() for future in done)
            if not status:
                tally.end(len(running))
        return status


def planned_runs(given: argparse.Namespace, options: AblationOptions, output: Path) -> list[Run]:
    """Every variant with every seed, with the settings of training in ``given``; folders that exist must fit."""
    if "seed" in given:
        raise UserError("--seed: expected --seeds here, such as --seeds 0,1")
    base = resolve(argparse.Namespace(**vars(given), variant="guide"))  # the full model
    variants = options.chosen()
    variants = [Variant(name) for name in VARIANTS] if variants is None else variants
    for number, variant in enumerate(variants):
        for other in variants[:number]:
            if variant.config(base, 0) == other.config(base, 0):
                raise UserError(f"--variants: expected different ones, got {variant.name} beside {other.name}, "
                                "which is the same")  # fmt: skip
    runs = [
        Run(variant, seed, output / "runs" / f"{variant.folder}-seed{seed}", variant.config(base, seed))
        for seed in sorted(set((0, 1) if options.seeds is None else options.seeds))
        for variant in variants
    ]
    if not runs:
        raise UserError("--variants, --seeds: expected at least one of each, got none")
    for run in runs:
        check_folder(run)
    return runs


def misfit(run: Run) -> str:
    """What in a run's model is not as its variant has it; "" if all is."""
    own = dict(run.variant.settings)
    for name in {"patch": ["patch_size"], "guide": ["patch_size", "guidance"]}.get(run.variant.base, []):
        value = getattr(run.config.model, name)
        if name not in own and value == VARIANTS["unary"][name]:
            return f"{name} {value}"
    return next(iter(differences(run.config, run.variant.config(run.config, run.seed))), "")


def unlike(run: Run, first: Run) -> list[str]:
    """How the settings of two runs differ, beside seeds and what makes their variants."""
    own = {".".join((FIELDS[field][0], field)) for one in (run, first) for field, _ in one.variant.settings}
    bare, other = (Variant("unary").config(one.config, 0) for one in (run, first))
    return [text for text in differences(bare, other) if text.partition(":")[0] not in own]


def finished_runs(output: Path, options: AblationOptions) -> tuple[list[Run], list[str]]:
    """The finished runs in OUTPUT/runs, and how they differ from the first beside variant and seed.

    Raises:
        UserError: there are none, a model is not what its folder's name says, or not all have the same data.
    """
    runs, chosen = [], options.chosen()
    for folder in (output / "runs").glob("*-seed*"):
        match = re.fullmatch(r"(.+)-seed(\d+)", folder.name)
        variant = of_folder(match[1]) if match else None
        if match is None or variant is None or (chosen is not None and variant not in chosen):
            continue
        if (options.seeds is None or int(match[2]) in options.seeds) and is_finished(folder):
            runs.append(Run(variant, int(match[2]), folder, RunFolder(folder).config()))
    if not runs:
        raise UserError(f"{output / 'runs'}: expected finished runs named VARIANT-seedS, found none")
    runs.sort(key=lambda run: (run.variant.order, run.seed))
    notes = []
    for run in runs:
        wrong = misfit(run)
        if wrong:
            raise UserError(f"{run.folder}: not the variant {run.variant.name}: {wrong}")
        if run.config.train.data != runs[0].config.train.data:
            raise UserError(f"{run.folder}: trained on {run.config.train.data}, "
                            f"but {runs[0].name} on {runs[0].config.train.data}")  # fmt: skip
        notes += [f"{run.name}: {text} ({runs[0].name})" for text in unlike(run, runs[0])]
    return runs, notes
