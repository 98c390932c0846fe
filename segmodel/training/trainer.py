"""One run of training: model, data and optimiser, from the first step to the report."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from segmodel.common import distributed
from segmodel.common.device import autocast_dtype, place
from segmodel.common.errors import UserError, one_line
from segmodel.common.options import check_values
from segmodel.common.pictures import save_picture
from segmodel.data import AugmentedData, DataError, SegmentationData, open_data
from segmodel.data.base import evenly_spaced, set_apart
from segmodel.data.content import require_learnable
from segmodel.evaluation.evaluate import Whole, evaluate_whole, result_json
from segmodel.evaluation.metrics import Scores, mean_iou, table
from segmodel.inference.views import check_predicts
from segmodel.model.network import Network
from segmodel.model.store import (
    build_network,
    find_checkpoint,
    load_initial_model,
    momentum_in,
    read_checkpoint,
    save_checkpoint,
)
from segmodel.model.untrained_crf import chosen_guidance
from segmodel.training import journal, report, statistics
from segmodel.training.batches import Batch, BatchKeys, Timed, load_batches, steps_per_epoch
from segmodel.training.class_weights import class_weights
from segmodel.training.guidance import choose_guidance
from segmodel.training.optimisation import make_optimizer, momentum_of, poly_rate, restore_momentum, training_step
from segmodel.training.run_folder import Progress, RunFolder
from segmodel.training.settings import SECTIONS, Config, make_config
from segmodel.training.stopping import StopSignal
from segmodel.training.watching import StepLog, bar, say


def data_facts(data: SegmentationData, *, name: str) -> dict[str, Any]:
    """What must be the same wherever a data set is read, without a look into its files."""
    files = hashlib.sha256(os.fsencode("\n".join(file.name for one in data.sources() for file in one.files())))
    rules = [one.rules() for one in data.sources()]
    return {f"{name}: images": len(data), f"{name}: classes": list(data.classes), f"{name}: label values": rules,
            f"{name}: names of the files": files.hexdigest()}  # fmt: skip


class Trainer:
    """One run: model, data and optimiser, how far it is, and the folder that it is written to.

    Every process of a distributed run has one; only the first of them, the writer, touches the folder.
    """

    def __init__(self, config: Config, folder: Path, device: torch.device, *, resume: bool):
        self.config, self.folder, self.device = config, RunFolder(folder), device
        train = config.train
        self.dtype = autocast_dtype(train.precision, self.device)
        self.data = open_data(train.data, split="train")
        self.validation = open_data(train.data, split="val")
        if self.validation.classes != self.data.classes:
            raise UserError(f"data: {train.data}: expected the same classes in train and val, got others in val")
        if distributed.world_size() > 1:
            for split, data in (("train", self.data), ("val", self.validation)):
                distributed.require_same(split, data_facts(data, name=f"data: {train.data}, {split}"))
        self.data, self.held_out = set_apart(self.data, train.hold_out, flag="hold_out")
        self.augmented = AugmentedData(self.data, config.augmentation, seed=train.seed)
        self.steps_per_epoch = steps_per_epoch(len(self.data), train.batch_size)
        self.progress = Progress(train.steps or train.epochs * self.steps_per_epoch)
        self.scaler = torch.amp.GradScaler(self.device.type) if self.dtype == torch.float16 else None
        self.class_weights: list[float] | None = None
        self.trained_with: Config | None = None
        self.keys(0, 0)  # an error now if the batch cannot be shared
        if train.tensorboard:
            journal.summary_writer()  # or if it is not installed
        if resume and self.folder.last.exists():
            self._restore()
        else:  # also a run that was killed before its first checkpoint
            self._initialise()
        self.counted_until = time.monotonic()
        self.journal: journal.Journal | None = None
        self.sheet: Path | None = None

    def _initialise(self) -> None:
        train = self.config.train
        torch.manual_seed(train.seed)
        try:
            self.model = Network(len(self.data.classes), self.config.model)
            if train.init_weights:
                say(f"{train.init_weights}: {self.model.backbone.load_weights(train.init_weights)}")
            if train.init_model:
                say(f"{find_checkpoint(train.init_model)}: {load_initial_model(self.model, train.init_model)}")
        except ValueError as error:
            raise error if isinstance(error, UserError) else UserError(str(error)) from error
        if not train.allow_absent:
            require_learnable(self.data, name=train.data, workers=train.workers)
        self._weigh_classes()
        self._place()

    def _weigh_classes(self) -> None:
        """Takes the class weights from where the settings say, and prints them."""
        train = self.config.train
        if train.class_weights != "none":
            weights, table = class_weights(train.class_weights, self.data, workers=train.workers)
            self.class_weights = weights.tolist()
            say(table, "")

    def _place(self) -> None:
        """Model and optimiser on the device; ``self.trained`` is the model, parallel and compiled where asked for."""
        train = self.config.train
        if train.precision == "float64":
            self.model.double()
        if distributed.world_size() > 1:
            distributed.synchronise_batch_norm(self.model, self.device)
        place(self.model, self.device)
        own, weights = next(self.model.parameters()), self.class_weights
        self.loss_weights = None if weights is None else torch.tensor(weights, dtype=own.dtype, device=own.device)
        self.optimizer = make_optimizer(self.model, kind=train.optimizer, rate=train.rate, momentum=train.momentum,
                                        weight_decay=train.weight_decay, head_rate=train.head_rate)  # fmt: skip
        try:
            self.model.backbone.recompute = train.checkpoint_activations
        except ValueError as error:
            raise UserError(str(error)) from error
        partly = train.joint_from > 0 or self.model.backbone.leaves_unused
        trained = distributed.parallel(self.model, unused=partly)
        self.trained: nn.Module = torch.compile(trained) if train.compile else trained  # type: ignore[assignment]

    def _restore(self) -> None:
        file = self.folder.last
        card, tensors = read_checkpoint(file)
        self.progress.restore(file, card)
        if card["classes"] != list(self.data.classes):
            raise UserError(f"{file}: trained on other classes than {self.config.train.data} has")
        self.model = build_network(file, card, tensors, Network)
        trained = check_values({**card.get("settings", {}), "model": card["model"]}, SECTIONS, str(file))
        self.trained_with = make_config(trained) if "settings" in card else None
        if self.trained_with and self.trained_with.train.class_weights == self.config.train.class_weights:
            self.class_weights = card["class_weights"]  # not counted anew
        else:
            self._weigh_classes()
        self._place()
        restore_momentum(self.model, self.optimizer, momentum_in(tensors))
        if self.scaler is not None and card.get("scaler"):
            self.scaler.load_state_dict(card["scaler"])

    def open_journal(self) -> None:
        """Opens the journal where the run is, in the process that writes it."""
        if distributed.is_writer():
            self.journal = journal.Journal(self.folder, self.progress, tensorboard=self.config.train.tensorboard)

    def log(self, kind: str, **values: Any) -> None:
        if self.journal:
            self.journal.log(kind, self.progress.step, **values)

    def save(self, name: str, *, scores: Scores | None = None) -> None:
        """Writes the checkpoint ``name``; only "last" holds what training needs to continue.

        Raises:
            NotFiniteError: the model has become one that cannot predict; the checkpoint before is kept.
        """
        check_predicts(self.model, self.dtype)  # in every process: all of them end
        if not distributed.is_writer():
            return
        self.count_seconds()
        card = {
            "model": asdict(self.config.model),
            "classes": list(self.data.classes),
            "palette": self.data.palette.tolist(),
            "data": self.config.train.data,
            **self.progress.card(),
            "class_weights": self.class_weights,
            "settings": {name: asdict(getattr(self.config, name)) for name in ("augmentation", "train")},
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
            "scores": result_json(scores, self.data.classes) if scores else None,
            "guidance": self.model.card.get("guidance"),
        }
        momentum = momentum_of(self.model, self.optimizer) if name == "last" else {}
        save_checkpoint(self.folder.checkpoint(name), self.model, card, momentum=momentum)
        if name == "last" and self.config.train.keep_last > 1:
            self.folder.keep_step(self.progress.step, self.config.train.keep_last)

    def count_seconds(self) -> float:
        """The seconds that the run has taken until now, former sessions included."""
        now = time.monotonic()
        self.progress.seconds, self.counted_until = self.progress.seconds + now - self.counted_until, now
        return self.progress.seconds

    def keys(self, first: int, last: int) -> BatchKeys:
        train = self.config.train
        share = distributed.rank(), distributed.world_size()
        return BatchKeys(len(self.data), train.batch_size, train.seed, first, last, share=share, parts=train.accumulate)

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        return load_batches(
            self.augmented, self.keys(first, last), workers=self.config.train.workers, device=self.device
        )

    def train_on(self, batch: Batch, rate: float) -> float:
        """One step at this rate; returns the loss of the whole batch before it."""
        train, step = self.config.train, self.progress.step
        # for heads with dropout: a function of seed, step and process, so that a resumed run draws the same
        drawn = np.random.SeedSequence((train.seed, step, distributed.rank())).generate_state(1, np.uint64)[0]
        torch.manual_seed(int(drawn))
        loss = training_step(
            self.trained, self.optimizer, batch.images, batch.labels, rate=rate,
            keep=1.0 if self.progress.before(train.mining_from) else train.keep, mining=train.mining,
            guidance=False if self.progress.before(train.joint_from) else None,
            autocast=self.dtype, scaler=self.scaler, parts=train.accumulate, across=train.mining_scope == "global",
            class_weights=self.loss_weights,
        )  # fmt: skip
        return distributed.total(loss).item() / distributed.world_size()

    def rate(self) -> float:
        """The learning rate of the present step (poly schedule, after a linear warm-up)."""
        train, progress = self.config.train, self.progress
        rate = poly_rate(progress.step, progress.total_steps, base=train.rate, power=train.power)
        return rate * min(1.0, (progress.step + 1) / (train.warm_up + 1))

    def optimise(self, stop: StopSignal) -> None:
        """All steps from the present one to the last, with validations and checkpoints; returns early on a signal."""
        train, progress = self.config.train, self.progress
        statistics.set_training(self.model, frozen=train.frozen_batch_norm)
        shown = StepLog(progress.step, progress.total_steps, steps_per_epoch=self.steps_per_epoch)
        saved_at = logged_at = time.monotonic()
        batches = Timed(self.batches(progress.step, progress.total_steps))
        while (batch := self.next_batch(batches, stop)) is not None:
            rate = self.rate()
            loss = self.train_on(batch, rate)
            if not np.isfinite(loss):
                raise FloatingPointError(
                    f"the loss is {loss} at step {progress.step} (lower --rate?) on {', '.join(batch.names)}; "
                    f"the last checkpoint is kept: {self.folder.last}"
                )
            progress.step += 1
            now = time.monotonic()
            seconds, logged_at = now - logged_at, now
            speed, wait = train.batch_size / seconds, batches.waited / seconds
            shown.add(progress.step, loss=loss, rate=rate, speed=speed, waiting=wait)
            self.log("train", loss=round(loss, 6), rate=rate, images_per_second=round(speed, 2),
                     data_wait=round(wait, 3))  # fmt: skip
            every = train.validate_every * self.steps_per_epoch
            if every and progress.step % every == 0 and not progress.at_end:
                self.validate()
                saved_at = logged_at = time.monotonic()
            elif now - saved_at > 60 * train.checkpoint_minutes:
                self.save("last")
                saved_at = now
        shown.close()

    def next_batch(self, batches: Iterator[Batch], stop: StopSignal) -> Batch | None:
        """The batch of the present step; None if there is none left, or if a process was told to stop.

        Raises:
            DataError, RuntimeError: a file or a loader of this or another process is lost; the state is saved before.
        """
        failure = None
        try:
            batch = None if stop.number else next(batches, None)  # at once: a signal may have ended the loader, too
        except (DataError, RuntimeError) as error:
            batch, failure = None, error
        stopped, failed = stop.agreed(self.device, failed=failure is not None)
        if failed and not stopped:
            self.save("last")
            distributed.from_writer(None)  # a process that ends makes torchrun end the others
            raise failure or RuntimeError("another process cannot go on, see its error; the state is saved")
        return None if stopped else batch

    @property
    def titles(self) -> tuple[str, str]:
        """What results are called; the guidance CRF of a model without one is an untrained one."""
        untrained = self.config.model.guidance == "off" or bool(self.model.head.chosen)
        return "guidance off", "guidance on" + " (untrained)" * untrained

    @property
    def guided(self) -> bool:
        """Whether the model's own results are those with guidance."""
        return self.config.model.guidance != "off" and self.model.head.chosen is not False

    def validate(self) -> list[Whole]:
        """Results on the validation set with the guidance CRF off and on; keeps the best and the last checkpoint."""
        progress = self.progress
        limit = 0 if progress.at_end else self.config.train.validate_images
        images = min(limit or len(self.validation), len(self.validation))
        found = evaluate_whole(
            self.model, self.validation, guidance={"off": False, "on": True}, dtype=self.dtype, images=limit,
            confusion=progress.at_end, description="validate", leave=False,
        )  # fmt: skip
        off, on = found["off"].scores, found["on"].scores
        chosen = on if self.guided else off
        self.log("val", miou=chosen.miou, miou_guidance_off=off.miou, miou_guidance_on=on.miou,
                 pixel_accuracy=chosen.pixel_accuracy, images=images)  # fmt: skip
        named = zip(self.titles, (off, on), strict=True)
        say(f"step {progress.step}: mIoU, {', '.join(f'{title} {100 * scores.miou:.2f}' for title, scores in named)}")
        self.draw()
        # "best" may have been judged on fewer images until now
        fewer_before = progress.at_end and 0 < self.config.train.validate_images < len(self.validation)
        if chosen.miou > progress.best or fewer_before:
            progress.best = chosen.miou
            self.save("best", scores=chosen)
        if not progress.at_end:  # at the end it is saved once the report is written
            self.save("last", scores=chosen)
        return [found["off"], found["on"]]

    @contextmanager
    def spared(self, what: str) -> Iterator[None]:
        """What a run does without: if it fails, that is said, and the run goes on."""
        try:
            yield
        except Exception as error:
            say(f"note: {what} not written: {type(error).__name__}: {one_line(error)}")

    def choose_guidance(self) -> None:
        """Lets the model take, from now on, the guidance that is best on the pictures held out."""
        if not self.held_out or self.config.model.guidance == "off":
            return
        say(f"guidance: the best of some on {len(self.held_out)} pictures held out")
        found = choose_guidance(self.model, self.held_out, dtype=self.dtype) if distributed.is_writer() else None
        found = distributed.from_writer(found)
        say(str(found))
        self.log("guidance", **vars(found))
        self.model.card["guidance"] = found.choice
        self.model.head.chosen = chosen_guidance(str(self.folder.path), found.choice)

    def draw(self) -> None:
        """A sheet of evenly spaced validation images."""
        if self.journal and self.config.train.pictures:
            shown = evenly_spaced(len(self.validation), self.config.train.pictures)
            sheet = journal.validation_sheet(self.model, self.validation, shown, dtype=self.dtype)
            with self.spared("picture"):
                self.sheet = self.journal.picture(self.progress.step, sheet)

    def draw_worst(self, result: Whole) -> list[dict[str, Any]]:
        """A sheet of the validation images of lowest mIoU (of the classes in it or in its prediction); who they are."""
        figures = mean_iou(result.counts)
        worst = [index for index in np.argsort(figures) if not np.isnan(figures[index])][: self.config.train.pictures]
        if worst:
            sheet = journal.validation_sheet(self.model, self.validation, worst, dtype=self.dtype)
            with self.spared("picture"):
                save_picture(self.folder.picture("worst"), sheet)
        return [{"name": self.validation[index].name, "miou": float(figures[index])} for index in worst]

    def finish(self) -> None:
        """Recomputes batch-norm statistics, then writes the final figures, pictures, report and checkpoint."""
        train, total = self.config.train, self.progress.total_steps
        learning = bool(statistics.learning_norms(self.model))
        count = round(train.batch_norm_epochs * self.steps_per_epoch) * learning
        say(f"batch-norm statistics of {count} batches, then " * learning + f"{len(self.validation)} validation images")
        batches = bar(self.batches(total, total + count), desc="batch norm", total=count, unit="batch")
        statistics.recompute(self.model, (batch.images for batch in batches), self.dtype)
        self.choose_guidance()
        results = self.validate()
        off, on = (result.scores for result in results)
        chosen = results[self.guided]
        classes = self.data.classes
        if not distributed.is_writer():
            return
        self.log("final", guidance_off=result_json(off, classes), guidance_on=result_json(on, classes),
                 confusion=np.asarray(chosen.confusion).tolist(), worst=self.draw_worst(chosen),
                 seconds=round(self.count_seconds(), 1))  # fmt: skip
        file = None
        with self.spared("report"):
            file = report.write_report(self.folder.path)
        self.progress.finished = True
        self.save("last", scores=chosen.scores)
        say("", f"{self.config.train.data}, val: {len(self.validation)} images", "",
            *table(dict(zip(self.titles, (off, on), strict=True)), classes).split("\n"))  # fmt: skip
        absent = [name for name, iou in zip(classes, off.iou, strict=True) if np.isnan(iou)]
        if absent:
            say("", f"no pixel of {', '.join(absent)}: the mean is over the others")
        say("", f"checkpoint: {self.folder.last}")
        if self.sheet:
            say(f"pictures ({', '.join(journal.COLUMNS)}): {self.sheet}")
        say(*[f"report: {file}"] * (file is not None), "", *self.folder.next_commands())

    def run(self) -> int:
        """Trains to the end; on SIGINT or SIGTERM the state is saved and 128 + signal returned."""
        with StopSignal() as stop:
            if self.progress.step == 0:
                self.save("last")  # from here on there is something to resume
            self.optimise(stop)
            self.save("last")
            stop.agreed(self.device)  # the others wait here for the writer; a signal meanwhile shows in the next
            if stop.agreed(self.device)[0]:
                steps = f"{self.progress.step} of {self.progress.total_steps}"
                say(f"stopped at step {steps}; to go on: --resume {self.folder.path}", error=True)
                return 128 + stop.number
        self.finish()
        if self.journal:
            self.journal.close()
        return 0
