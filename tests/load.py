"""A training and thousands of predictions in one process: memory, open files, threads and /dev/shm stay as they are.

    python tests/load.py --steps 2000 --predictions 2000    # tox -e load

Steps are those of the train command, with a loader's worker; predictions are the predict command, one picture each,
locks, model and files included. Warm-up: the first half of each. Growth is that of the largest value in the last
quarter over the largest in the third, in percent; of open files, threads and files in /dev/shm, the difference.
"""

import argparse
import contextlib
import io
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bad_input_tools import TRAIN, furnish, model_flags
from PIL import Image

from segmodel import predict, train
from segmodel.common import cli
from segmodel.training import trainer

LIMIT = 1.0
"""Percent."""
SHARED = Path("/dev/shm")
Sample = dict[str, float]


def resident_mebibytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def sample() -> Sample:
    """What this process holds now; in /dev/shm, the files of all processes."""
    return {
        "mebibytes": resident_mebibytes(),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "shared": len(list(SHARED.iterdir())) if SHARED.is_dir() else 0,
    }


def quietly(name: str, main: Callable[..., int], arguments: list[str]) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as errors:
        status = cli.run(name, main, arguments)
    assert status == 0, (out.getvalue(), errors.getvalue())


def trained(folder: Path, count: int) -> list[Sample]:
    """Samples after each step of a training."""
    original, samples = trainer.training_step, list[Sample]()

    def step(*given: Any, **options: Any) -> Any:
        loss = original(*given, **options)
        samples.append(sample())
        return loss

    trainer.training_step = step
    try:
        quietly("train", train.main, ["--data", f"folder:{folder / 'own'}", *model_flags(), *TRAIN, "--workers", "1",
                                      "--steps", str(count), "--output", str(folder / "new")])  # fmt: skip
    finally:
        trainer.training_step = original
    return samples


def predicted(folder: Path, count: int) -> list[Sample]:
    """Samples after each call of the predict command, with pictures of many sizes."""
    rng = random.Random(0)
    sizes = [(rng.randrange(16, 97), rng.randrange(16, 97)) for _ in range(20)]
    samples = []
    for index in range(count):
        height, width = sizes[index % len(sizes)]
        Image.new("RGB", (width, height), (index % 256, 9, 9)).save(folder / "x.png")
        quietly("predict", predict.main, [str(folder / "run"), str(folder / "x.png"), "--output", str(folder / "out"),
                                          "--overwrite", "--device", "cpu"])  # fmt: skip
        samples.append(sample())
    return samples


def growth(samples: list[Sample]) -> dict[str, float]:
    """How much more there is in the last quarter than in the third."""
    count = len(samples)
    third, last = (
        {name: max(one[name] for one in part) for name in part[0]}
        for part in (samples[count // 2 : 3 * count // 4], samples[3 * count // 4 :])
    )
    return {
        "count": count, "mebibytes": round(last["mebibytes"], 1),
        "growth_percent": round(100 * (last["mebibytes"] / third["mebibytes"] - 1), 2),
        **{name: last[name] for name in ("files", "threads", "shared")},
        **{f"{name}_growth": last[name] - third[name] for name in ("files", "threads", "shared")},
    }  # fmt: skip


def measure(steps: int, predictions: int) -> dict[str, dict[str, float]]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        furnish(folder)
        return {
            "training steps": growth(trained(folder, steps)),
            "predictions": growth(predicted(folder, predictions)),
        }


def failed(part: dict[str, float]) -> bool:
    return part["growth_percent"] > LIMIT or any(part[f"{name}_growth"] > 0 for name in ("files", "threads", "shared"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--predictions", type=int, default=2000)
    parser.add_argument("--json", metavar="FILE", help="write the numbers to this file as well")
    options = parser.parse_args()
    result = measure(options.steps, options.predictions)
    print(json.dumps(result, indent=1))
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    return any(map(failed, result.values()))


if __name__ == "__main__":
    sys.exit(main())
