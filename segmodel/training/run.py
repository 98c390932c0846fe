"""Training as one call: of a new run, or of one to be continued."""

import os
from pathlib import Path

import torch

from segmodel.common import distributed
from segmodel.common.device import choose_device
from segmodel.common.environment import versions
from segmodel.training.settings import Config
from segmodel.training.trainer import Trainer, say


def begin(trainer: Trainer, *, named: bool) -> None:
    """Makes the folder of a new run, and prints and records what is trained."""
    config = trainer.config
    if distributed.is_writer():
        trainer.folder = trainer.folder.claim(named=named)
        trainer.folder.write_config(config)
    trainer.folder = distributed.from_writer(trainer.folder)
    trainer.open_journal()
    precision = config.train.precision if config.train.precision == "float64" else trainer.dtype or torch.float32
    trainer.log("start", versions=versions(), device=str(trainer.device), threads=torch.get_num_threads(),
                processes=distributed.world_size(), precision=str(precision))  # fmt: skip
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    say(f"{config.train.data}: {len(trainer.data)} train and {len(trainer.validation)} val images, "
        f"{len(trainer.data.classes)} classes; {parameters / 1e6:.2f} M parameters; "
        f"{trainer.progress.total_steps} steps; {trainer.device}, {precision}; {trainer.folder.path}")  # fmt: skip


def be_deterministic() -> None:
    """PyTorch's reproducible algorithms; it warns where it has none."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


def train(config: Config, folder: Path, *, named: bool = True, resume: bool = False) -> int:
    """Trains a new run in ``folder``, or continues the one that is there; returns the exit status.

    Args:
        named: the user chose the folder, so that another run in it is an error; else the next free name is taken.

    Raises:
        UserError, DataError: settings, data or a folder that cannot be used.
    """
    if config.train.deterministic:
        be_deterministic()
    timeout = config.train.timeout_minutes
    with distributed.process_group(choose_device(config.train.device), timeout_minutes=timeout) as device:
        trainer = Trainer(config, distributed.from_writer(folder), device, resume=resume)
        if trainer.progress.finished:
            say(f"{folder}: finished already, at step {trainer.progress.step}")
            return 0
        if resume:
            trainer.open_journal()
        else:
            # only now: what is wrong with the data shows before a folder is made
            begin(trainer, named=named)
        return trainer.run()
