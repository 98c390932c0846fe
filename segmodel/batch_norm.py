"""Batch-norm statistics of a finished run, computed anew over its training set (Sec. 7.1.2).

    python -m segmodel.batch_norm RUN               # writes RUN/best_batch_norm.safetensors
    python -m segmodel.batch_norm RUN/last.safetensors --epochs 3 --output three.safetensors

Weights stay as they are, and so does the checkpoint that is read. Figures on the validation set are printed for both.
"""

import sys
from collections.abc import Sequence

from torch import Tensor
from tqdm import tqdm

from segmodel.common import cli
from segmodel.common.device import autocast, autocast_dtype, choose_device, place
from segmodel.common.errors import UserError
from segmodel.common.files import output_file
from segmodel.common.options import read_toml
from segmodel.data import AugmentedData, open_data
from segmodel.evaluation.evaluate import check_classes, evaluate, result_json
from segmodel.model.network import Network
from segmodel.model.store import build_network, find_checkpoint, read_checkpoint, save_checkpoint
from segmodel.training.batches import BatchKeys, load_batches, steps_per_epoch
from segmodel.training.settings import SECTIONS, make_config
from segmodel.training.statistics import recompute_batch_norm


def main(arguments: Sequence[str]) -> int:
    parser = cli.Parser("batch_norm", __doc__)
    parser.add_argument("run", metavar="RUN", help="run folder (its best checkpoint) or a checkpoint file in it")
    parser.add_argument("--epochs", type=float, default=1.0, help="passes over the training set (default: 1)")
    parser.add_argument("--output", metavar="FILE", help="default: NAME_batch_norm.safetensors beside NAME.safetensors")
    parser.add_argument("--overwrite", action="store_true", help="replace that file if it is there already")
    options = parser.parse_args(arguments)
    if not 0 < options.epochs < 1000:
        raise UserError(f"--epochs: expected more than 0 and less than 1000, got {options.epochs}")
    source = find_checkpoint(options.run)
    beside = source.with_name(f"{source.stem}_batch_norm.safetensors")
    output = output_file("--output", options.output or str(beside), endings=(".safetensors",),
                         overwrite=options.overwrite)  # fmt: skip
    config = make_config(read_toml(source.parent / "config.toml", SECTIONS))
    train = config.train
    device = choose_device(train.device)
    dtype = autocast_dtype(train.precision, device)
    card, tensors = read_checkpoint(source)  # once, for a training may replace it meanwhile
    model = place(build_network(source, card, tensors, Network), device)
    data, validation = (open_data(train.data, split=split) for split in ("train", "val"))
    check_classes(source, model.classes, data)
    before = evaluate(model, validation, dtype=dtype, description="before")["model"]
    per_epoch = steps_per_epoch(len(data), train.batch_size)
    count = max(1, round(options.epochs * per_epoch))
    first = card.get("total_steps", 0)  # samples that the training has not seen, as at its own end
    augmented = AugmentedData(data, config.augmentation, seed=train.seed)
    keys = BatchKeys(len(data), train.batch_size, train.seed, first, first + count)
    batches = load_batches(augmented, keys, workers=train.workers, device=device)

    def forward(images: Tensor) -> None:
        with autocast(device, dtype):
            model.head.feature_context(model.features(images))  # the peers have batch norms there

    bar = tqdm(batches, "batch norm", count, unit="batch", disable=None)
    recompute_batch_norm(model, forward, (batch.images for batch in bar))
    after = evaluate(model, validation, dtype=dtype, description="after")["model"]
    save_checkpoint(output, model, {**card, "scores": result_json(after, data.classes)})
    print(f"{train.data}, val: mIoU {100 * before.miou:.2f} before, {100 * after.miou:.2f} after {count} batches")
    print(f"checkpoint: {output}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run("batch_norm", main))
