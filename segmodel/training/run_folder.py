"""The folder of a run, and how far the run is."""

import itertools
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segmodel.common import distributed
from segmodel.common.errors import UserError
from segmodel.common.files import PARTIAL, replacing, sweep, sync_folder, write_output, writing
from segmodel.common.locks import LOCK, Taken, locked
from segmodel.common.options import read_toml, to_toml
from segmodel.common.reading import check_regular, limit
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

    sessions.jsonl: a line for each time that a process trained in it: command, machine, time. config.toml is empty
    until the first lines of both are written: a run that is killed before has not begun.
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

    def next_commands(self) -> list[str]:
        """What to do with a finished run, a command a line."""
        run = shlex.quote(str(self.path))
        lines = [
            f"evaluate {run}",
            f"predict {run} PHOTOS --output predictions",
            f"export {run} --format onnx --output model.onnx",
            f"report {run}",
        ]
        return ["next:", *(f"  python -m segmodel.{line}" for line in lines)]

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

    def own(self, path: Path) -> Path:
        """A path in the folder, checked before it is read or written.

        Raises:
            UserError: a link that leads out of the folder (SEGMODEL_FOLLOW_LINKS=1 allows it), or a pipe or the like.
        """
        real = Path(os.path.realpath(path))
        if not limit("SEGMODEL_FOLLOW_LINKS") and not real.is_relative_to(os.path.realpath(self.path)):
            raise UserError(f"{path}: is a link that leads out of the run's folder (SEGMODEL_FOLLOW_LINKS=1 allows it)")
        try:
            if path.exists():
                check_regular(os.stat(path))
        except ValueError as error:
            raise UserError(f"{path}: {error}") from error
        return path

    @contextmanager
    def held(self, option: str = "--resume") -> Iterator[None]:
        """This process alone writes the folder while the block runs; what killed ones left half written is deleted.

        Raises:
            UserError: another process does, or something in it that is no file of a run, see ``own``.
        """
        with locked(self.path / LOCK, f"{option}: {self.path}"):
            for path in self.path.rglob("*"):
                self.own(path)
            sweep(self.path)
            yield

    def has_begun(self) -> bool:
        """Whether something is there that a training needs, or that is none of its own.

        Raises:
            UserError: the folder cannot be read.
        """
        own = {self.settings.name, self.metrics.name, self.sessions.name, LOCK}
        if self.path.exists() and not self.path.is_dir():
            return True
        try:
            found = {path.name for path in self.path.iterdir() if path.suffix != PARTIAL} if self.path.exists() else ()
            return bool(set(found) - own) or (self.settings.exists() and self.settings.stat().st_size > 0)
        except OSError as error:
            raise UserError(f"--output: {self.path}: cannot be read ({error.strerror})") from error

    def is_free(self) -> bool:
        """Whether no run has begun in the folder, or one of this job before torchrun restarted it."""
        return not self.has_begun() or (distributed.restarts() > 0 and self.settings.exists())

    def check_free(self) -> None:
        """Raises a UserError unless the folder ``is_free``."""
        if not self.is_free():
            raise UserError(f"--output: {self.path}: expected an empty or new folder")

    @contextmanager
    def claimed(self, *, named: bool) -> Iterator["RunFolder"]:
        """The folder, made and held for this new run alone; unless ``named``, the next name that is free.

        Raises:
            UserError: it cannot be made, or another run is in it.
        """
        numbers, folder = itertools.count(2), self
        with ExitStack() as held:
            while not folder._claimed(held, named=named):
                if named:
                    raise UserError(f"--output: {self.path}: expected an empty or new folder")
                folder = RunFolder(self.path.with_name(f"{self.path.name}-{next(numbers)}"))
            yield folder

    def _claimed(self, held: ExitStack, *, named: bool) -> bool:
        """Whether the folder has become this run's own."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            sync_folder(self.path.parent)
        except OSError as error:
            raise UserError(f"--output: {self.path}: cannot be made ({error.strerror})") from error
        if not self.is_free():
            return False
        try:
            held.enter_context(self.held("--output"))
        except Taken:
            if named:
                raise
            return False
        if not self.is_free():  # who held it has begun a run meanwhile
            return False
        if not self.has_begun():
            self.give_up()  # what a run that was killed as it began has left
        with writing("--output", self.path):
            self.settings.touch()
        return True

    def give_up(self) -> None:
        """Deletes what a run that has not begun has made in its folder."""
        for path in (self.metrics, self.sessions, self.settings):
            path.unlink(missing_ok=True)

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
