"""Trains a SegModel.

    python -m segmodel.train                                         # built-in scenes, minutes on two CPU cores
    python -m segmodel.train --data voc:VOCdevkit --init-weights resnet101.pth
    python -m segmodel.train --init-model runs/voc --data folder:mine   # fine-tunes a model on other data
    python -m segmodel.train --resume runs/2026-01-31_120000
    torchrun --nproc-per-node 4 -m segmodel.train ...                # four processes share each batch

The run folder holds config.toml, metrics.jsonl, the checkpoints last and best, pictures of predictions, and at the end
report.html. Settings come from, each over the one before: defaults (the paper's), a recipe, --config, --variant, flags.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segmodel.common import cli, distributed
from segmodel.common.errors import UserError
from segmodel.training.run import train
from segmodel.training.run_folder import RunFolder
from segmodel.training.settings import add_settings, resolve


def make_parser() -> cli.Parser:
    parser = cli.Parser("train", __doc__)
    parser.add_argument("--output", metavar="DIR", help="run folder, empty or new (default: runs/TIME)")
    parser.add_argument("--resume", metavar="RUN", help="continue a run exactly where its last checkpoint is "
                        "(where its data has moved, change its config.toml)")  # fmt: skip
    add_settings(parser)
    return parser


def folder_to_resume(options: Any, arguments: Sequence[str]) -> Path | None:
    """The run of --resume or, where torchrun starts this job again after a failure, the one it had begun."""
    if options.resume:
        given = [text for text in arguments if text.startswith("--") and text not in ("--debug",)]
        if [text.split("=")[0] for text in given] != ["--resume"]:
            raise UserError(f"--resume: expected no other setting beside it, got {' '.join(given)}")
        return Path(options.resume)
    if not options.output and os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0":
        raise UserError("--output: expected with torchrun --max-restarts, so that a restarted run finds its folder")
    begun = distributed.restarts() and (Path(options.output) / "last.safetensors").exists()
    return Path(options.output) if begun else None


def main(arguments: Sequence[str]) -> int:
    options = make_parser().parse_args(arguments)
    resumed = folder_to_resume(options, arguments)
    if resumed:
        return train(RunFolder(resumed).config(), resumed, resume=True)
    config = resolve(options)
    folder = Path(options.output or Path("runs") / time.strftime("%Y-%m-%d_%H%M%S"))
    if options.output:
        RunFolder(folder).check_free()
    return train(config, folder, named=bool(options.output))


if __name__ == "__main__":
    sys.exit(cli.run("train", main))
