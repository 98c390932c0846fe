"""The folder of a run, and how far the run is."""

import itertools
import shlex
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segmodel.common import distributed
from segmodel.common.errors import UserError
from segmodel.common.files import replacing, write_output
from segmodel.common.options import read_toml, to_toml
from segmodel.training.settings import SECTIONS, Config, make_config


@dataclass
class Progress:
    """How far a training is.

    step: done, of total_steps. best: validation mIoU. finished: its report is written. extended_at: the steps that it
    had when it was first finished and extended, else 0. seconds: that it has taken, breaks between sessions left out.
    """

    total_steps: int
    step: int = 0
    best: float = -1.0
    finished: bool = False
    extended_at: int = 0
    seconds: float = 0.0

    def before(self, share: float) -> bool:
        """Whether less than this share of the training, of its first part where it was extended, is done."""
        return share == 1 or self.step < share * (self.extended_at or self.total_steps)

    @property
    def at_end(self) -> bool:
        return self.step == self.total_steps

    def card(self) -> dict[str, Any]:
        """Its part of a checkpoint's card."""
        return asdict(self)

    def restore(self, file: Path, card: dict[str, Any]) -> None:
        """Takes over what the card of a checkpoint says.

        Raises:
            UserError: it is not the card of a training's checkpoint.
        """
        if {"step", "best", "finished"} - card.keys() or card["step"] < 0:
            raise UserError(f"{file}: expected the state of a training in its card, got none")
        self.step, self.best, self.finished = card["step"], card["best"], card["finished"]
        self.extended_at, self.seconds = card.get("extended_at", 0), card.get("seconds", 0.0)


@dataclass(frozen=True)
class RunFolder:
    """A folder with config.toml, metrics.jsonl, checkpoints (last, best, step_NUMBER), pictures and report.html.

    sessions.jsonl: a line for each time that a process trained in it: command, machine, time.
    """

    path: Path

    @property
    def settings(self) -> Path:
        return self.path / "config.toml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def sessions(self) -> Path:
        return self.path / "sessions.jsonl"

    @property
    def last(self) -> Path:
        return self.checkpoint("last")

    def picture(self, name: str) -> Path:
        return self.path / "pictures" / f"{name}.png"

    def checkpoint(self, name: str) -> Path:
        return self.path / f"{name}.safetensors"

    def next_commands(self) -> str:
        """What to do with a finished run, a command a line."""
        run = shlex.quote(str(self.path))
        lines = [
            f"evaluate {run}",
            f"predict {run} PHOTOS --output predictions",
            f"export {run} --format onnx --output model.onnx",
            f"report {run}",
        ]
        return "\n".join(["next:", *(f"  python -m segmodel.{line}" for line in lines)])

    def config(self) -> Config:
        """The configuration of the run that is there.

        Raises:
            UserError: there is none, or it cannot be read.
        """
        settings = read_toml(self.settings, SECTIONS)
        if not settings:
            raise UserError(
                f"{self.settings}: expected the settings of a run, got an empty file (was it killed as it began?)"
            )
        return make_config(settings)

    def write_config(self, config: Config) -> None:
        """Writes config.toml.

        Raises:
            UserError: it cannot be written.
        """
        write_output("--output", self.settings, to_toml({name: getattr(config, name) for name in SECTIONS}))

    def check_free(self) -> None:
        """Raises a UserError unless the folder is new or empty, or begun by this job before torchrun restarted it."""
        try:
            occupied = self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir()))
        except OSError as error:
            raise UserError(f"--output: {self.path}: cannot be read ({error.strerror})") from error
        if occupied and not (distributed.restarts() and self.settings.exists()):
            raise UserError(f"--output: {self.path}: expected an empty or new folder")

    def claim(self, *, named: bool) -> "RunFolder":
        """The folder, made for this run alone by an empty config.toml; unless ``named``, the next name that is free.

        Raises:
            UserError: it cannot be made, or another run has claimed it.
        """
        numbers, folder = itertools.count(2), self
        while True:
            try:
                folder.path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"--output: {folder.path}: cannot be made ({error.strerror})") from error
            try:
                folder.settings.open("x").close()
                return folder
            except FileExistsError as error:
                if distributed.restarts():
                    return folder
                if named:
                    raise UserError(f"--output: {folder.path}: expected an empty or new folder") from error
            except OSError as error:
                raise UserError(f"--output: {folder.path}: cannot be written ({error.strerror})") from error
            folder = RunFolder(self.path.with_name(f"{self.path.name}-{next(numbers)}"))

    def keep_step(self, step: int, count: int) -> None:
        """Copies the last checkpoint to step_NUMBER, and deletes all but the newest ``count`` of these.

        Copies, not links: to go back to one of them, a user copies it over last.safetensors.
        """
        kept = self.checkpoint(f"step_{step:06d}")
        for source, target in ((self.last, kept), (self.last.with_suffix(".json"), kept.with_suffix(".json"))):
            with replacing(target) as partial:
                shutil.copyfile(source, partial)
        files = self.path.glob("step_*.safetensors")
        steps = {file: int(file.stem[5:]) for file in files if file.stem[5:].isdecimal()}
        # steps beyond the present one are of before the run went back: they are deleted first
        for old in sorted(steps, key=lambda file: (steps[file] <= step, steps[file]))[:-count]:
            old.unlink()
            old.with_suffix(".json").unlink(missing_ok=True)
