"""Trains a SegModel.

    python -m segmodel.train                                         # built-in scenes, minutes on two CPU cores
    python -m segmodel.train --data voc:VOCdevkit --init-weights resnet101.pth
    python -m segmodel.train --init-model runs/voc --data folder:mine   # fine-tunes a model on other data
    python -m segmodel.train --resume runs/2026-01-31_120000
    python -m segmodel.train --resume runs/2026-01-31_120000 --epochs 72   # more of a run that is finished
    python -m segmodel.train --recipe small --data folder:mine       # few pictures, few cores
    torchrun --nproc-per-node 4 -m segmodel.train ...                # four processes share each batch

The run folder holds config.toml, metrics.jsonl, sessions.jsonl (commands and machines), the checkpoints last and best,
pictures of predictions, and at the end report.html. Where stderr is no terminal, a line at most every 30 s says how far
it is. Settings come from, each over the one before: defaults (the paper's), a recipe, --config, --variant, flags.
"""

import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segmodel.common import cli, distributed
from segmodel.common.errors import UserError
from segmodel.common.options import flag_values
from segmodel.training.run import train
from segmodel.training.run_folder import RunFolder
from segmodel.training.settings import SECTIONS, add_settings, resolve


def make_parser() -> cli.Parser:
    parser = cli.Parser("train", __doc__)
    parser.add_argument("--output", metavar="DIR", help="run folder, empty or new (default: runs/TIME)")
    parser.add_argument("--resume", metavar="RUN", help="continue a run exactly where its last checkpoint is "
                        "(where its data has moved, change its config.toml); of a finished one --epochs N, or --steps "
                        "N, trains on at the rate that a run of that length has there")  # fmt: skip
    add_settings(parser)
    return parser


def folder_to_resume(options: Any, arguments: Sequence[str]) -> Path | None:
    """The run of --resume or, where torchrun starts this job again after a failure, the one it had begun."""
    if options.resume:
        given = [text.split("=")[0] for text in arguments if text.startswith("--")]
        others = [name for name in given if name not in ("--resume", "--epochs", "--steps", "--debug")]
        if others or given.count("--resume") > 1 or {"--epochs", "--steps"} <= set(given):
            raise UserError(f"--resume: expected no other setting beside it, but --epochs or --steps for more of a "
                            f"finished run, got {' '.join(given)}")  # fmt: skip
        return Path(options.resume)
    if not options.output and os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0":
        raise UserError("--output: expected with torchrun --max-restarts, so that a restarted run finds its folder")
    begun = distributed.restarts() and (Path(options.output) / "last.safetensors").exists()
    return Path(options.output) if begun else None


def main(arguments: Sequence[str]) -> int:
    options = make_parser().parse_args(arguments)
    resumed = folder_to_resume(options, arguments)
    command = shlex.join(["python", "-m", "segmodel.train", *arguments])
    if resumed:
        longer = flag_values(options, SECTIONS).get("train", {}) if options.resume else {}
        return train(RunFolder(resumed).config(), resumed, resume=True, longer=longer, command=command)
    config = resolve(options)
    folder = Path(options.output or Path("runs") / time.strftime("%Y-%m-%d_%H%M%S"))
    if options.output:
        RunFolder(folder).check_free()
    return train(config, folder, named=bool(options.output), command=command)


if __name__ == "__main__":
    sys.exit(cli.run("train", main))
