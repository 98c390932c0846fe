"""Commands killed at random moments: what is visible then is whole, and in the end the same commands do their work.

    python tests/kills.py --kills 100    # tox -e kills

Of train (also --resume), ablate, tune, evaluate, predict and data import. After all kills each command runs once more:
its status is 0, no partial file, lock or scratch folder is left, and the journal of the run has each line once.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bad_input_tools import furnish
from contention import PATIENCE, command, read_all, twice
from distributed_tools import SMALL, start

TINY = [*SMALL, "--precision", "float32", "--batch-size", "2", "--joint-from", "0", "--checkpoint-minutes", "0"]
COMMANDS: dict[str, tuple[Sequence[str], float]] = {
    "train": (["train", *TINY, "--steps", "6", "--pictures", "1", "--keep-last", "2", "--output", "new"], 8),
    "ablate": (["ablate", *TINY, "--steps", "2", "--variants", "unary", "--seeds", "0", "--time-size", "9,9",
                "--time-seconds", "0.01", "--output", "table"], 6),
    "tune": (["tune", "run", "--data", "folder:own", "--images", "1", "--output", "tuned.json", "--overwrite"], 4),
    "evaluate": (["evaluate", "run", "--device", "cpu", "--json", "e.json", "--per-image", "p.jsonl"], 2),
    "predict": (["predict", "run", "photos", "--output", "out", "--overwrite", "--device", "cpu"], 2),
    "import": (["data.__main__", "import", "own/images/train", "own/labels/train", "--output", "mine", "--overwrite",
                "--workers", "0"], 2),
}  # fmt: skip
"""Arguments, and seconds within which the kill comes; a command that is ready before was not killed."""
LEFT = (".partial", ".old", ".lock")


def arguments_of(name: str) -> Sequence[str]:
    """Those of the command; a training that has begun is resumed."""
    config = Path("new/config.toml")
    begun = name == "train" and config.exists() and config.stat().st_size > 0
    return ["train", "--resume", "new"] if begun else COMMANDS[name][0]


def broken() -> int:
    """Visible files that are not whole; the settings of a run that has not begun are empty."""
    count = sum(read_all(Path(), part)[1] for part in ("run", "output file", "prediction folder"))
    empty = [file for file in Path().rglob("config.toml") if file.stat().st_size == 0]
    journals = [file.with_name("metrics.jsonl") for file in empty]
    return count - len(empty) - sum(file.exists() and file.stat().st_size == 0 for file in journals)


def kill_all(kills: int, rng: random.Random) -> dict[str, Any]:
    """What was killed, and what came of it; the working directory is the place."""
    furnish(Path())
    shutil.copytree("own/images/val", "photos")
    killed, harm, names = Counter[str](), 0, list(COMMANDS)
    while killed.total() < kills:
        name = min(names, key=lambda name: (killed[name], rng.random()))
        (process,), _ = start(1, command, *arguments_of(name))
        process.join(rng.uniform(0.05, COMMANDS[name][1]))
        killed[name] += process.is_alive()
        process.kill()
        process.join()
        harm += broken() != 0
        if name == "train" and rng.random() < 0.2:
            shutil.rmtree("new", ignore_errors=True)
    failed = []
    for name in names:
        (process,), queue = start(1, command, *arguments_of(name))
        status, text = queue.get(timeout=5 * PATIENCE)[1]
        process.join(PATIENCE)
        failed += [f"{name}: {status} {text}"] * (status != 0)
    left = [str(file) for file in Path().rglob("*") if file.name.endswith(LEFT)]
    return {"killed": dict(killed), "broken": harm, "failed": failed, "left": left,
            "lines twice": twice(Path("new/metrics.jsonl"))}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--json", metavar="FILE", type=os.path.abspath, help="write the numbers to this file as well")
    options = parser.parse_args()
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        try:
            result = {"kills": kill_all(options.kills, random.Random(options.seed)), "seed": options.seed}
        finally:
            os.chdir(before)
    print(json.dumps(result, indent=1))
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    return any(result["kills"][name] for name in ("broken", "failed", "left", "lines twice"))


if __name__ == "__main__":
    sys.exit(main())
