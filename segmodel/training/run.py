"""Training as one call: of a new run, or of one to be continued."""

import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from segmodel.common import distributed
from segmodel.common.device import choose_device
from segmodel.common.environment import processor, versions
from segmodel.common.errors import UserError
from segmodel.common.files import append_line, json_text, writing
from segmodel.model.store import read_checkpoint
from segmodel.training.run_folder import RunFolder
from segmodel.training.settings import Config, differences, settings_of
from segmodel.training.trainer import Trainer
from segmodel.training.watching import say


def agreed(work: Callable[[], Any]) -> Any:
    """What this gives in the process that writes, in all of them.

    Raises:
        UserError: that of the writer, in all of them.
    """
    try:
        result = work() if distributed.is_writer() else None
    except UserError as error:
        result = error
    result = distributed.from_writer(result)
    if isinstance(result, UserError):
        raise result
    return result


def begin(trainer: Trainer, held: ExitStack, *, named: bool, command: str) -> None:
    """Makes the folder of a new run, and prints and records what is trained."""
    config = trainer.config
    trainer.folder = agreed(lambda: held.enter_context(trainer.folder.claimed(named=named)))
    try:
        agreed(lambda: record(trainer, command))
        agreed(lambda: trainer.folder.write_config(config))  # last: a run that is killed before has not begun
    except UserError:
        if distributed.is_writer():
            trainer.folder.give_up()
        raise
    precision = precision_of(trainer)
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    say(f"{config.train.data}: {len(trainer.data)} train and {len(trainer.validation)} val images, "
        f"{len(trainer.data.classes)} classes; {parameters / 1e6:.2f} M parameters; "
        f"{trainer.progress.total_steps} steps of {config.train.optimizer}, rate {config.train.rate:g}; "
        f"{trainer.device}, {precision}; {trainer.folder.path}")  # fmt: skip
    for note in dict.fromkeys((*trainer.data.notes, *trainer.validation.notes)):
        say(f"note: {note}")
    if words := hint(config, images=len(trainer.data), device=trainer.device):
        say(words)


def hint(config: Config, *, images: int, device: torch.device) -> str:
    """A line for who meets the paper's defaults with less than they need; "" for others."""
    model, train = config.model, config.train
    large = model.backbone == "resnet" and model.depth >= 101 and train.batch_size >= 16
    if not large or (device.type != "cpu" and images >= 500):
        return ""
    return (f"hint: ResNet-{model.depth}, crop {config.augmentation.crop[0]} and batches of {train.batch_size} are for "
            f"thousands of pictures and a GPU, not for {images} on {device}: --recipe small derives smaller ones from "
            f"the data")  # fmt: skip


def say_where(folder: RunFolder) -> None:
    """Says at which step a run goes on, before its data are opened."""
    if not folder.last.exists():
        say(f"{folder.path}: no checkpoint yet, begins anew")
        return
    card = read_checkpoint(folder.last, weights=False)[0]
    if card.get("finished", True):
        return
    settings = card.get("settings", {}).get("train", {"steps": 1})
    epoch = "" if settings["steps"] else f", epoch {1 + card['step'] * settings['epochs'] // card['total_steps']}"
    say(f"{folder.path}: goes on after step {card['step']} of {card['total_steps']}{epoch}")


def extended(trainer: Trainer, longer: Mapping[str, int]) -> bool:
    """Whether a resumed run that is finished has more steps to do, by ``--epochs`` or by its config.toml.

    The rate is that of the poly schedule over all steps, old and new: it jumps from 0 to ``base (1 - old / all) **
    power``, as a run of so many epochs has it there, and falls to 0 again. Mining and guidance CRF stay as they were at
    the end; momentum, best checkpoint and the order of the data go on.

    Raises:
        UserError: settings that were changed without giving it more to do.
    """
    progress, folder, settings = trainer.progress, trainer.folder, trainer.config.train
    changed = differences(trainer.trained_with, trainer.config) if trainer.trained_with else []
    epochs = progress.step / trainer.steps_per_epoch
    if not longer and not any(text.startswith(("train.epochs:", "train.steps:")) for text in changed):
        if changed:
            raise UserError(f"{folder.settings}: {changed[0]}: the run is finished with the first; to train it further "
                            f"with the other: --resume {folder.path} --epochs N, N above {epochs:g}")  # fmt: skip
        say(f"{folder.path}: finished already, at step {progress.step} ({epochs:g} epochs); "
            f"to train it further: --resume {folder.path} --epochs N, N above {epochs:g}")  # fmt: skip
        return False
    if progress.total_steps <= progress.step:
        name, had = ("steps", progress.step) if settings.steps else ("epochs", epochs)
        where = f"--{name}" if longer else f"{folder.settings}: {name}"
        raise UserError(f"{where}: expected more than the run has, {had:g}, got {getattr(settings, name)}")
    progress.extended_at, progress.finished = progress.extended_at or progress.step, False
    if distributed.is_writer():
        folder.write_config(trainer.config)
    say(f"{folder.path}: extended from {progress.step} to {progress.total_steps} steps; the rate goes on at "
        f"{trainer.rate():.3g}, as at this step of a run of that length")  # fmt: skip
    return True


def goes_on(trainer: Trainer, longer: Mapping[str, int]) -> bool:
    """Whether a resumed run has steps to do; says what its config.toml changes, or that it is finished.

    Raises:
        UserError: ``--epochs`` for a run that is not finished, or see ``extended``.
    """
    if trainer.progress.finished:
        return extended(trainer, longer)
    changed = differences(trainer.trained_with, trainer.config) if trainer.trained_with else []
    if longer and (changed or not trainer.trained_with):
        raise UserError(f"--{next(iter(longer))}: expected for a finished run, and {trainer.folder.path} is at step "
                        f"{trainer.progress.step}; first --resume {trainer.folder.path}")  # fmt: skip
    for text in changed:
        say(f"{trainer.folder.settings}: changed since the checkpoint, {text}")
    return True


def precision_of(trainer: Trainer) -> str:
    """What the model computes in."""
    train = trainer.config.train
    return train.precision if train.precision == "float64" else str(trainer.dtype or torch.float32)


def record(trainer: Trainer, command: str) -> None:
    """Opens the journal, which begins with versions and device, and adds this process, the writer, to sessions.jsonl.

    Raises:
        UserError: they cannot be written.
    """
    gpu = torch.cuda.get_device_name(trainer.device) if trainer.device.type == "cuda" else None
    machine = {"processor": processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "gpu": gpu,
               "processes": distributed.world_size()}  # fmt: skip
    line = {"time": time.strftime("%Y-%m-%d %H:%M:%S"), "step": trainer.progress.step, "command": command, **machine}
    with writing("", trainer.folder.path):
        trainer.open_journal()
        if trainer.journal and not trainer.journal.started:
            weights = trainer.class_weights
            weighted = {"class_weights": dict(zip(trainer.data.classes, weights, strict=True))} if weights else {}
            trainer.log("start", versions=versions(), device=str(trainer.device), threads=torch.get_num_threads(),
                        processes=distributed.world_size(), precision=precision_of(trainer), **weighted)  # fmt: skip
        append_line(trainer.folder.sessions, json_text(line))


def be_deterministic() -> None:
    """PyTorch's reproducible algorithms; it warns where it has none."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


def train(
    config: Config,
    folder: Path,
    *,
    named: bool = True,
    resume: bool = False,
    longer: Mapping[str, Any] | None = None,
    command: str = "",
) -> int:
    """Trains a new run in ``folder``, or continues the one that is there; returns the exit status.

    Args:
        named: the user chose the folder, so that another run in it is an error; else the next free name is taken.
        longer: "epochs" or "steps" to extend a finished run to, see ``extended``.
        command: for the report.

    Raises:
        UserError, DataError: settings, data or a folder that cannot be used.
    """
    if config.train.deterministic:
        be_deterministic()
    if longer:
        changes: dict[str, Any] = {"steps": 0, **longer}
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, **changes))
    timeout, device = config.train.timeout_minutes, choose_device(config.train.device)
    same = settings_of(config) | {f"version of {name}": text for name, text in versions().items()} | {"resume": resume}
    with ExitStack() as held, distributed.process_group(device, timeout_minutes=timeout, same=same) as device:
        if resume:
            agreed(lambda: held.enter_context(RunFolder(folder).held()))
            say_where(RunFolder(folder))
        trainer = Trainer(config, distributed.from_writer(folder), device, resume=resume)
        if resume:
            if not goes_on(trainer, longer or {}):
                return 0
            agreed(lambda: record(trainer, command))
        else:
            # only now: what is wrong with the data shows before a folder is made
            begin(trainer, held, named=named, command=command)
        return trainer.run()
