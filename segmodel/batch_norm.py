"""Recomputes the batch-norm statistics of a finished run over its training set (Sec. 7.1.2).

    python -m segmodel.batch_norm RUN               # writes RUN/best_batch_norm.safetensors
    python -m segmodel.batch_norm RUN/last.safetensors --epochs 3 --output three.safetensors

Weights stay as they are, and so does the checkpoint that is read. mIoU on the validation set is printed before and
after.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from tqdm import tqdm

from segmodel.common import cli
from segmodel.common.device import autocast_dtype, choose_device, place
from segmodel.common.errors import UserError
from segmodel.common.files import output_file, writing
from segmodel.common.options import Section, add_flags, from_flags, option
from segmodel.common.terminal import say
from segmodel.data import AugmentedData, open_data
from segmodel.evaluation.evaluate import check_classes, evaluate, result_json
from segmodel.model.network import Network
from segmodel.model.store import build_network, find_checkpoint, read_checkpoint, save_checkpoint
from segmodel.training import statistics
from segmodel.training.batches import BatchKeys, load_batches, steps_per_epoch
from segmodel.training.run_folder import RunFolder


@dataclass(frozen=True)
class BatchNormOptions(Section):
    """How long, and where the result goes."""

    epochs: float = option(1.0, "passes over the training set", above=0, below=1000)
    output: str = option("", "file to write; none: NAME_batch_norm.safetensors beside NAME.safetensors")
    overwrite: bool = option(False, "replace that file if it is there already")


def main(arguments: Sequence[str]) -> int:
    parser = cli.Parser("batch_norm", __doc__ or "")
    parser.add_argument("run", metavar="RUN", help="run folder (its best checkpoint) or a checkpoint file in it")
    add_flags(parser, {"batch norm": BatchNormOptions})
    given = parser.parse_args(arguments)
    options = from_flags(given, BatchNormOptions)
    source = find_checkpoint(given.run)
    beside = source.with_name(f"{source.stem}_batch_norm.safetensors")
    output = output_file("--output", options.output or str(beside), endings=(".safetensors",),
                         overwrite=options.overwrite)  # fmt: skip
    config = RunFolder(source.parent).config()
    train = config.train
    device = choose_device(train.device)
    dtype = autocast_dtype(train.precision, device)
    card, tensors = read_checkpoint(source)  # once, for a training may replace it meanwhile
    model = place(build_network(source, card, tensors, Network), device)
    data, validation = (open_data(train.data, split=split) for split in ("train", "val"))
    check_classes(source, model.classes, data)
    statistics.set_training(model, frozen=train.frozen_batch_norm)
    if not statistics.learning_norms(model):
        raise UserError(f"{source}: expected batch norms with statistics of their own, got frozen ones alone")
    before = evaluate(model, validation, dtype=dtype, description="before")["model"]
    count = max(1, round(options.epochs * steps_per_epoch(len(data), train.batch_size)))
    first = card.get("total_steps", 0)  # samples that the training has not seen, as at its own end
    keys = BatchKeys(len(data), train.batch_size, train.seed, first, first + count)
    augmented = AugmentedData(data, config.augmentation, seed=train.seed)
    batches = load_batches(augmented, keys, workers=train.workers, device=device)
    bar = tqdm(batches, "batch norm", count, unit="batch", disable=None)
    statistics.recompute(model, (batch.images for batch in bar), dtype)
    after = evaluate(model, validation, dtype=dtype, description="after")["model"]
    with writing("--output", output):
        save_checkpoint(output, model, {**card, "scores": result_json(after, data.classes)})
    say(str(source),
        f"{train.data}, val: mIoU {100 * before.miou:.2f} before, {100 * after.miou:.2f} after {count} batches",
        f"checkpoint: {output}")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("batch_norm", main))
