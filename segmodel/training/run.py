"""Training as one call: a new run, or one that goes on."""

import os
from pathlib import Path
from typing import Any

import torch

from segmodel.common import distributed
from segmodel.common.device import choose_device
from segmodel.common.environment import versions
from segmodel.common.errors import UserError
from segmodel.common.files import write_output
from segmodel.common.options import to_toml
from segmodel.training.run_folder import claim
from segmodel.training.settings import SECTIONS, Config
from segmodel.training.trainer import Trainer, say


def begin(trainer: Trainer, *, named: bool) -> None:
    """Makes the folder of a new run and says what it is."""
    config = trainer.config
    if distributed.is_writer():
        trainer.folder = claim(trainer.folder, named=named)
        file = trainer.folder / "config.toml"
        try:
            write_output("--output", file, to_toml(asdict_shallow(config)))
        except UserError:
            file.unlink(missing_ok=True)
            raise
    folder = trainer.folder = distributed.from_writer(trainer.folder)
    trainer.open_journal()
    precision = config.train.precision if config.train.precision == "float64" else trainer.dtype or torch.float32
    trainer.log("start", versions=versions(), device=str(trainer.device), threads=torch.get_num_threads(),
                processes=distributed.world_size(), precision=str(precision))  # fmt: skip
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    say(f"{config.train.data}: {len(trainer.data)} train and {len(trainer.validation)} val images, "
        f"{len(trainer.data.classes)} classes; {parameters / 1e6:.2f} M parameters; {trainer.total} steps; "
        f"{trainer.device}, {precision}; {folder}")  # fmt: skip


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
        if trainer.finished:
            say(f"{folder}: finished already, at step {trainer.step}")
            return 0
        if resume:
            trainer.open_journal()
        else:
            # only now: what is wrong with the data shows before a folder is made
            begin(trainer, named=named)
        return trainer.run()


def asdict_shallow(config: Config) -> dict[str, Any]:
    return {name: getattr(config, name) for name in SECTIONS}
