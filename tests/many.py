"""A list of 1,000,000 lines and folders of 100,000 pictures: seconds until the first result, and the most memory.

    python tests/many.py    # some minutes, most of them to make the folders

The pictures are tiny and hard links of some; each measurement is a process of its own, and its seconds begin when it
has imported what it needs.
"""

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bad_input_tools import furnish
from PIL import Image

LINKS = 30_000
"""Names of one file, fewer than file systems allow."""


def linked(folder: Path, content: np.ndarray, count: int) -> None:
    """Fills a folder with so many pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:06d}.png"
        if number % LINKS == 0:
            Image.fromarray(content).save(path)
            source = path
        else:
            os.link(source, path)


def first_sample(spec: str) -> None:
    from segmodel.data import open_data

    open_data(spec, split="train")[0]


def first_problem(spec: str) -> None:
    """The check of every entry before any is read."""
    from segmodel.data import index_data

    index_data(spec, split="train").problems()


def first_label(run: str, folder: str, output: str) -> None:
    from segmodel.common import cli
    from segmodel.predict import main

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    import segmodel.inference.views as views

    original, done = views.Prediction.labels, 0

    def labels(self: Any) -> np.ndarray:
        nonlocal done
        done += 1
        if done > 1:  # the first has been written
            stop()
        return original(self)

    views.Prediction.labels = labels  # type: ignore[method-assign]
    assert cli.run("predict", main, [run, folder, "--output", output, "--device", "cpu"]) == 130
    assert len(os.listdir(output)) >= 1


def measured(queue: Any, work: Callable[..., None], arguments: tuple[str, ...]) -> None:
    import segmodel.predict  # noqa: F401

    start = time.monotonic()
    work(*arguments)
    queue.put((time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def measure(work: Callable[..., None], *arguments: str) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=measured, args=(queue, work, arguments))
    process.start()
    seconds, mebibytes = queue.get(timeout=1800)
    process.join()
    return {"seconds": round(seconds, 1), "mebibytes": round(mebibytes)}


def nothing() -> None:
    """What a process has imported."""


def run(place: Path, lines: int, count: int) -> dict[str, dict[str, float]]:
    furnish(place)
    own = place / "many"
    picture, label = np.zeros((16, 16, 3), np.uint8), np.eye(16, dtype=np.uint8)
    for split, number in (("train", count), ("val", 2)):
        linked(own / "images" / split, picture, number)
        linked(own / "labels" / split, label, number)
    (own / "classes.toml").write_text('classes = ["a", "b"]\n')
    spec, words = f"folder:{own}", f"folder of {count:,} pictures"
    found = {
        "nothing but the imports": measure(nothing),
        f"{words}: first sample": measure(first_sample, spec),
        f"{words}: first label of predict": measure(first_label, str(place / "run"), str(own / "images" / "train"),
                                                    str(place / "labels")),
    }  # fmt: skip
    entries = (
        f"images/train/{number % count:06d}.png labels/train/{number % count:06d}.png" for number in range(lines)
    )
    (own / "train.txt").write_text("\n".join(entries))
    (own / "val.txt").write_text("images/val/000000.png labels/val/000000.png\n")
    found[f"list of {lines:,} lines: first sample"] = measure(first_sample, spec)
    found[f"list of {lines:,} lines: all entries looked at"] = measure(first_problem, spec)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--json", metavar="FILE", help="write the numbers to this file as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        result = {"many": run(Path(place), options.lines, options.pictures)}
    print(json.dumps(result, indent=1))
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
