"""The runs of an ablation: planned, trained, and found again."""

import argparse
import dataclasses
import multiprocessing
import re
import shutil
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import torch

from segmodel.common import cli
from segmodel.common.errors import UserError
from segmodel.model.config import VARIANTS
from segmodel.model.store import read_checkpoint
from segmodel.training import run_folder
from segmodel.training.run import train
from segmodel.training.settings import SECTIONS, Config, resolve

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
    different = differences(run_folder.recorded_config(run.folder), run.config)
    if different:
        more = f" (and {len(different) - 1} more)" if len(different) > 1 else ""
        raise UserError(f"{run.folder}: trained with another configuration: {different[0]}{more}")


def train_run(run: Run) -> int:
    """Trains a run, or goes on with it, or does nothing if it is finished; returns the exit status."""
    if is_finished(run.folder):
        return 0
    print(f"\n{run.name}", flush=True)
    if (run.folder / "last.safetensors").is_file():
        return cli.run("train", lambda _: train(run.config, run.folder, resume=True), [])
    if any(run.folder.glob("*.safetensors")):
        raise UserError(f"{run.folder}: expected last.safetensors beside its other checkpoints")
    if run.folder.exists():
        shutil.rmtree(run.folder)  # stopped before its first checkpoint: nothing to go on from
    return cli.run("train", lambda _: train(run.config, run.folder), [])


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
    base = resolve(argparse.Namespace(**vars(options), variant="guide"))  # the full model
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
            config = run_folder.recorded_config(folder)
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
