"""The folder of a run: how it is claimed, what its settings are, which checkpoints stay in it."""

import itertools
import shutil
from pathlib import Path

from segmodel.common import distributed
from segmodel.common.errors import UserError
from segmodel.common.files import replacing
from segmodel.common.options import read_toml
from segmodel.training.settings import SECTIONS, Config, make_config


def check_folder(folder: Path) -> None:
    """A new run needs an empty folder or none; one that torchrun starts again may lie there without a checkpoint."""
    try:
        occupied = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise UserError(f"--output: {folder}: cannot be read ({error.strerror})") from error
    if occupied and not (distributed.restarts() and (folder / "config.toml").exists()):
        raise UserError(f"--output: {folder}: expected an empty or new folder")


def recorded_config(folder: Path) -> Config:
    """The configuration of a run that is there."""
    file = folder / "config.toml"
    settings = read_toml(file, SECTIONS)
    if not settings:
        raise UserError(f"{file}: expected the settings of a run, got an empty file (was it killed as it began?)")
    return make_config(settings)


def claim(folder: Path, *, named: bool) -> Path:
    """The folder with a config.toml in it that this run alone has made; without a name of its own the next free one.

    Raises:
        UserError: it cannot be made, or another run was faster.
    """
    first, numbers = folder.name, itertools.count(2)
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--output: {folder}: cannot be made ({error.strerror})") from error
        try:
            (folder / "config.toml").open("x").close()
            return folder
        except FileExistsError as error:
            if distributed.restarts():
                return folder
            if named:
                raise UserError(f"--output: {folder}: expected an empty or new folder") from error
        except OSError as error:
            raise UserError(f"--output: {folder}: cannot be written ({error.strerror})") from error
        folder = folder.with_name(f"{first}-{next(numbers)}")


def keep_steps(path: Path, step: int, count: int) -> None:
    """Keeps a copy of the checkpoint ``path`` as step_NUMBER beside it, and ``count`` such at most.

    A run goes back to one of them when it is copied over last.safetensors: hence no links, which would be written too.
    """
    kept = path.with_name(f"step_{step:06d}.safetensors")
    for source, target in ((path, kept), (path.with_suffix(".json"), kept.with_suffix(".json"))):
        with replacing(target) as partial:
            shutil.copyfile(source, partial)
    steps = {file: int(file.stem[5:]) for file in path.parent.glob("step_*.safetensors") if file.stem[5:].isdecimal()}
    # those of a course that the run has gone back from are the first to go
    for old in sorted(steps, key=lambda file: (steps[file] <= step, steps[file]))[:-count]:
        old.unlink()
        old.with_suffix(".json").unlink(missing_ok=True)
