"""One run of training: model, data and optimiser, from the first step to the last checkpoint."""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from segmodel.common import distributed
from segmodel.common.device import autocast_dtype, place
from segmodel.common.errors import UserError
from segmodel.common.files import write_atomically
from segmodel.data import AugmentedData, DataError, open_data
from segmodel.evaluation.evaluate import evaluate, result_json
from segmodel.evaluation.metrics import Scores, table
from segmodel.model.network import Network
from segmodel.model.store import build_network, load_initial_model, momentum_in, read_checkpoint, save_checkpoint
from segmodel.training import journal, report, statistics
from segmodel.training.batches import Batch, BatchKeys, Timed, load_batches, steps_per_epoch
from segmodel.training.optimisation import make_optimizer, momentum_of, poly_rate, restore_momentum, training_step
from segmodel.training.run_folder import keep_steps
from segmodel.training.settings import Config


class StopSignal:
    """Remembers SIGINT or SIGTERM until the step is done; a second one acts at once."""

    def __init__(self) -> None:
        self.number = 0

    def __enter__(self) -> "StopSignal":
        self.old = {number: signal.signal(number, self._remember) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _: object) -> None:
        if self.number:
            raise KeyboardInterrupt
        self.number = number
        if distributed.is_writer():  # not print: it may be interrupted itself
            os.write(
                2, b"\nstopping after this step; a second time stops at once, and loses the steps since the last save\n"
            )


class Trainer:
    """One run: model, data, optimiser, and the folder that they are written to.

    Every process of a distributed run has one; only the first of them, the writer, touches the folder.
    """

    def __init__(self, config: Config, folder: Path, device: torch.device, *, resume: bool):
        self.config, self.folder, self.device = config, folder, device
        train = config.train
        self.dtype = autocast_dtype(train.precision, self.device)
        self.data = open_data(train.data, split="train")
        self.validation = open_data(train.data, split="val")
        if self.validation.classes != self.data.classes:
            raise UserError(f"data: {train.data}: expected the same classes in train and val, got others in val")
        self.augmented = AugmentedData(self.data, config.augmentation, seed=train.seed)
        self.steps_per_epoch = steps_per_epoch(len(self.data), train.batch_size)
        self.total = train.steps or train.epochs * self.steps_per_epoch
        self.step, self.best, self.finished = 0, -1.0, False
        self.scaler = torch.amp.GradScaler(self.device.type) if self.dtype == torch.float16 else None
        self.keys(0, 0)  # whether the batch can be shared shows now
        if train.tensorboard:
            journal.summary_writer()  # and whether it is there
        if resume and (folder / "last.safetensors").exists():
            self._restore()
        else:  # also a run that was killed before its first checkpoint
            self._initialise()
        self.journal: journal.Journal | None = None

    def _initialise(self) -> None:
        train = self.config.train
        torch.manual_seed(train.seed)
        try:
            self.model = Network(len(self.data.classes), self.config.model)
            if train.init_weights:
                loaded = self.model.backbone.load_weights(train.init_weights)
                say(f"{train.init_weights}: {loaded}")
            if train.init_model:
                say(f"{train.init_model}: {load_initial_model(self.model, train.init_model)}")
        except ValueError as error:
            raise UserError(str(error)) from error
        self._place()

    def _place(self) -> None:
        """Model and optimiser as they train; ``self.trained`` is the same model within what the options put around."""
        train = self.config.train
        if train.precision == "float64":
            self.model.double()
        if distributed.world_size() > 1:
            distributed.synchronise_batch_norm(self.model, self.device)
        place(self.model, self.device)
        self.optimizer = make_optimizer(
            self.model,
            rate=train.rate,
            momentum=train.momentum,
            weight_decay=train.weight_decay,
            head_rate=train.head_rate,
        )
        try:
            self.model.backbone.recompute = train.checkpoint_activations
        except ValueError as error:
            raise UserError(str(error)) from error
        partly = train.joint_from > 0 or self.model.backbone.leaves_unused
        trained = distributed.parallel(self.model, unused=partly)
        self.trained: nn.Module = torch.compile(trained) if train.compile else trained  # type: ignore[assignment]

    def _restore(self) -> None:
        file = self.folder / "last.safetensors"
        card, tensors = read_checkpoint(file)
        missing = {"step", "best", "finished"} - card.keys()
        if missing or card["step"] < 0:
            raise UserError(f"{file}: expected the state of a training in its card, got none")
        if card["classes"] != list(self.data.classes):
            raise UserError(f"{file}: trained on other classes than {self.config.train.data} has")
        self.model = build_network(file, card, tensors, Network)
        self._place()
        restore_momentum(self.model, self.optimizer, momentum_in(tensors))
        self.step, self.best, self.finished = card["step"], card["best"], card["finished"]
        if self.scaler is not None and card.get("scaler"):
            self.scaler.load_state_dict(card["scaler"])

    def open_journal(self) -> None:
        """The first process writes on where the run is; lines that will come again are dropped, and one cut short."""
        if not distributed.is_writer():
            return
        metrics = self.folder / "metrics.jsonl"
        text = metrics.read_text(encoding="utf-8", errors="replace") if metrics.exists() else ""
        again = {("val", self.total), ("final", self.total)} if not self.finished else set()
        kept = []
        for line in text.splitlines():
            with suppress(ValueError, TypeError, KeyError):
                values = json.loads(line)
                if values["step"] <= self.step and (values["kind"], values["step"]) not in again:
                    kept.append(line + "\n")
        write_atomically(metrics, "".join(kept))
        self.journal = journal.Journal(self.folder, tensorboard=self.config.train.tensorboard, first=self.step)

    def log(self, kind: str, **values: Any) -> None:
        if self.journal:
            self.journal.log(kind, self.step, **values)

    def save(self, name: str, *, scores: Scores | None = None) -> None:
        """Writes the checkpoint ``name``; only "last" holds what training needs to go on."""
        if not distributed.is_writer():
            return
        card = {
            "model": asdict(self.config.model),
            "classes": list(self.data.classes),
            "palette": self.data.palette.tolist(),
            "data": self.config.train.data,
            "step": self.step,
            "total_steps": self.total,
            "best": self.best,
            "finished": self.finished,
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
            "scores": result_json(scores, self.data.classes) if scores else None,
        }
        momentum = momentum_of(self.model, self.optimizer) if name == "last" else {}
        file = self.folder / f"{name}.safetensors"
        save_checkpoint(file, self.model, card, momentum=momentum)
        if name == "last" and self.config.train.keep_last > 1:
            keep_steps(file, self.step, self.config.train.keep_last)

    def keys(self, first: int, last: int) -> BatchKeys:
        train = self.config.train
        share = distributed.rank(), distributed.world_size()
        return BatchKeys(len(self.data), train.batch_size, train.seed, first, last, share=share, parts=train.accumulate)

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        return load_batches(
            self.augmented, self.keys(first, last), workers=self.config.train.workers, device=self.device
        )

    def train_on(self, batch: Batch) -> float:
        """One step; the loss of the whole batch before it."""
        train = self.config.train
        # for heads with dropout: drawn anew from seed, step and process, so that a resumed run draws the same
        drawn = np.random.SeedSequence((train.seed, self.step, distributed.rank())).generate_state(1, np.uint64)[0]
        torch.manual_seed(int(drawn))
        loss = training_step(
            self.trained, self.optimizer, batch.images, batch.labels,
            rate=poly_rate(self.step, self.total, base=train.rate, power=train.power),
            keep=1.0 if self.step < train.mining_from * self.total else train.keep, mining=train.mining,
            guidance=False if self.step < train.joint_from * self.total else None,
            autocast=self.dtype, scaler=self.scaler, parts=train.accumulate, across=train.mining_scope == "global",
        )  # fmt: skip
        return distributed.total(loss).item() / distributed.world_size()

    def optimise(self, stop: StopSignal) -> None:
        """All steps from the present one to the last, with validations and checkpoints; returns early on a signal."""
        train = self.config.train
        self.model.train()
        progress = bar(total=self.total, initial=self.step, desc="train", unit="step")
        saved_at = logged_at = time.monotonic()
        batches = Timed(self.batches(self.step, self.total))
        while (batch := self.next_batch(batches, stop)) is not None:
            rate = poly_rate(self.step, self.total, base=train.rate, power=train.power)
            loss = self.train_on(batch)
            if not np.isfinite(loss):
                raise FloatingPointError(
                    f"the loss is {loss} at step {self.step} (lower --rate?) on {', '.join(batch.names)}; "
                    f"the last checkpoint is kept: {self.folder / 'last.safetensors'}"
                )
            self.step += 1
            progress.update()
            now = time.monotonic()
            seconds, logged_at = now - logged_at, now
            speed, wait = train.batch_size / seconds, batches.waited / seconds
            text = f"loss {loss:.3f}, rate {rate:.2g}, {speed:.0f} images/s, {100 * wait:.0f} % waiting for data"
            progress.set_postfix_str(text, refresh=False)
            self.log("train", loss=round(loss, 6), rate=rate, images_per_second=round(speed, 2),
                     data_wait=round(wait, 3))  # fmt: skip
            every = train.validate_every * self.steps_per_epoch
            if every and self.step % every == 0 and self.step < self.total:
                self.validate()
                saved_at = logged_at = time.monotonic()
            elif now - saved_at > 60 * train.checkpoint_minutes:
                self.save("last")
                saved_at = now
        progress.close()

    def next_batch(self, batches: Iterator[Batch], stop: StopSignal) -> Batch | None:
        """That of the next step; None after the last one, or where a process was told to stop.

        Raises:
            DataError, RuntimeError: this or another process has lost a file or a loader; what was learnt is kept.
        """
        failure = None
        try:
            batch = None if stop.number else next(batches, None)  # at once: a signal may have ended the loader, too
        except (DataError, RuntimeError) as error:
            batch, failure = None, error
        told, failed = self.agreed(stop, failed=failure is not None)
        if failed and not told:
            self.save("last")
            distributed.from_writer(None)  # a process that ends makes torchrun end the others
            raise failure or RuntimeError("another process cannot go on, see its error; the state is saved")
        return None if told else batch

    def agreed(self, stop: StopSignal, *, failed: bool = False) -> tuple[bool, bool]:
        """Whether a process, this or another, was told to stop, and whether one has failed: the same in all."""
        told = distributed.total(torch.tensor([stop.number > 0, failed], dtype=torch.int64, device=self.device))
        if told[0] and not stop.number:
            stop.number = signal.SIGTERM
        return bool(told[0]), bool(told[1])

    def validate(self) -> list[Scores]:
        """Figures on the validation set with the guidance CRF off and on; keeps the best and the last checkpoint."""
        limit = self.config.train.validate_images if self.step < self.total else 0
        images = min(limit or len(self.validation), len(self.validation))
        scores = evaluate(
            self.model, self.validation, guidance={"off": False, "on": True}, dtype=self.dtype, images=limit,
            description="validate", leave=False,
        )  # fmt: skip
        off, on = scores["off"], scores["on"]
        chosen = off if self.config.model.guidance == "off" else on
        self.log("val", miou=chosen.miou, miou_guidance_off=off.miou, miou_guidance_on=on.miou,
                 pixel_accuracy=chosen.pixel_accuracy, images=images)  # fmt: skip
        if distributed.is_writer():
            tqdm.write(f"step {self.step}: mIoU {100 * chosen.miou:.2f} (guidance off {100 * off.miou:.2f})")
        self.draw()
        # "best" may have been judged on fewer images until now
        fewer_before = self.step == self.total and 0 < self.config.train.validate_images < len(self.validation)
        if chosen.miou > self.best or fewer_before:
            self.best = chosen.miou
            self.save("best", scores=chosen)
        if self.step < self.total:  # else it is saved when all that is to be said is written
            self.save("last", scores=chosen)
        return [off, on]

    def draw(self) -> None:
        """A sheet of evenly spaced validation images."""
        count = min(self.config.train.pictures, len(self.validation))
        if self.journal and count:
            sheet = journal.validation_sheet(
                self.model, self.validation, palette=self.data.palette, count=count, dtype=self.dtype
            )
            self.picture = self.journal.picture(self.step, sheet)

    def finish(self) -> None:
        """Batch-norm statistics anew, the final figures, checkpoint, pictures and report."""
        count = round(self.config.train.batch_norm_epochs * self.steps_per_epoch)
        batches = bar(self.batches(self.total, self.total + count), desc="batch norm", total=count, unit="batch")
        statistics.recompute(self.model, (batch.images for batch in batches), self.dtype)
        off, on = self.validate()
        classes = self.data.classes
        self.log("final", guidance_off=result_json(off, classes), guidance_on=result_json(on, classes))
        if not distributed.is_writer():
            return
        file = report.write_report(self.folder)
        self.finished = True
        self.save("last", scores=off if self.config.model.guidance == "off" else on)
        print(f"\n{self.config.train.data}, val: {len(self.validation)} images\n")
        print(table({"guidance off": off, "guidance on": on}, classes))
        absent = [name for name, iou in zip(classes, off.iou, strict=True) if np.isnan(iou)]
        if absent:
            print(f"\nno pixel of {', '.join(absent)}: the mean is over the others")
        print(f"\ncheckpoint: {self.folder / 'last.safetensors'}")
        if self.config.train.pictures:
            print(f"pictures ({journal.COLUMNS}): {self.picture}")
        print(f"report: {file}")

    def run(self) -> int:
        """Trains to the end; on SIGINT or SIGTERM the state is saved and 128 + signal returned."""
        with StopSignal() as stop:
            if self.step == 0:
                self.save("last")  # from here on there is something to resume
            self.optimise(stop)
            self.save("last")
            self.agreed(stop)  # the others wait here for the writer; a signal that comes meanwhile shows in the next
            if self.agreed(stop)[0]:
                say(f"stopped at step {self.step} of {self.total}; to go on: --resume {self.folder}", file=sys.stderr)
                return 128 + stop.number
        self.finish()
        if self.journal:
            self.journal.close()
        return 0


def say(text: str, **options: Any) -> None:
    """Prints, once for all processes."""
    if distributed.is_writer():
        print(text, **options)


def bar(*arguments: Any, **options: Any) -> tqdm:
    """A progress bar on a terminal, one for all processes."""
    return tqdm(*arguments, **options, disable=None if distributed.is_writer() else True)
