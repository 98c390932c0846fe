"""A training and thousands of predictions in one process: memory and open files stay as they are after a warm-up.

    python tests/load.py --steps 2000 --predictions 2000    # tox -e load

Warm-up: the first half of each. Growth is that of the largest resident size in the last quarter over the largest in the
third, in percent; of the open files, the difference.
"""

import argparse
import json
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from bad_input_tools import furnish

from segmodel.inference.views import label_maps
from segmodel.segmodel import SegModel
from segmodel.training.optimisation import make_optimizer, training_step

LIMIT = 1.0
"""Percent."""


def resident_mebibytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def trained(folder: Path, count: int) -> Iterator[None]:
    """Training steps on small batches."""
    model = SegModel.load(folder / "run").train()
    optimizer = make_optimizer(model)
    rng = np.random.default_rng(0)
    for _ in range(count):
        images = torch.from_numpy(rng.integers(0, 256, (2, 3, 48, 48))).float()
        training_step(model, optimizer, images, torch.from_numpy(rng.integers(0, 2, (2, 48, 48))), rate=1e-3)
        yield


def predicted(folder: Path, count: int) -> Iterator[None]:
    """Predictions of pictures of many sizes, each read from a file, with the model read anew from time to time."""
    from PIL import Image

    from segmodel.common.pictures import save_label
    from segmodel.data.images import read_image

    rng = random.Random(0)
    sizes = [(rng.randrange(16, 97), rng.randrange(16, 97)) for _ in range(20)]
    model = SegModel.load(folder / "run")
    for index in range(count):
        if index % 100 == 99:
            model = SegModel.load(folder / "run")
        height, width = sizes[index % len(sizes)]
        Image.new("RGB", (width, height), (index % 256, 9, 9)).save(folder / "x.png")
        label = label_maps(model, read_image(folder / "x.png")[0], guidance={"on": True})["on"]
        save_label(folder / "y.png", label, model.palette)
        yield


def growth(work: Iterator[None], count: int) -> dict[str, float]:
    """Resident size and open files while the work is done."""
    sizes, files = [], []
    for _ in work:
        sizes.append(resident_mebibytes())
        files.append(len(os.listdir("/proc/self/fd")))
    third, last = max(sizes[count // 2 : 3 * count // 4]), max(sizes[3 * count // 4 :])
    return {
        "count": count, "mebibytes": round(last, 1), "growth_percent": round(100 * (last / third - 1), 2),
        "files": files[-1], "files_growth": files[-1] - files[count // 2],
    }  # fmt: skip


def measure(steps: int, predictions: int) -> dict[str, dict[str, float]]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        furnish(folder)
        return {
            "training steps": growth(trained(folder, steps), steps),
            "predictions": growth(predicted(folder, predictions), predictions),
        }


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
    return any(part["growth_percent"] > LIMIT or part["files_growth"] for part in result.values())


if __name__ == "__main__":
    sys.exit(main())
