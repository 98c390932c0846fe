"""Random faults while a model trains: each time the run is resumed, and it ends as the undisturbed one, bit for bit.

    python tests/soak.py --faults 30    # tox -e soak

Faults: SIGKILL, SIGTERM, SIGINT at any moment; files that cannot grow beyond a random size (as on a full disk: a write
ends half way); a loader process killed; an image that vanishes; weights that become infinite. Meanwhile the run folder
is read all the time: whatever is visible there is whole.
"""

import argparse
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bad_input_tools import furnish
from distributed_tools import start, together, train
from PIL import Image
from safetensors.torch import load_file

from segmodel.model.store import read_checkpoint

TINY = [
    "--depth", "18", "--width", "4", "--stem-width", "4", "--label-hidden", "4", "--rings", "[1,2]",
    "--label-pool", "5", "--batch-size", "2", "--crop", "32,32", "--workers", "1", "--pictures", "1", "--precision",
    "float32", "--device", "cpu", "--checkpoint-minutes", "0", "--validate-every", "2", "--batch-norm-epochs", "0.5",
]  # fmt: skip
STATUS: dict[str, tuple[int | None, str]] = {
    "SIGKILL": (None, ""),
    "SIGTERM": (143, "to go on: --resume"),
    "SIGINT": (130, "to go on: --resume"),
    "full disk": (1, "File too large"),
    "loader killed": (1, "DataLoader worker"),
    "image vanished": (2, "no such file"),
    "infinite weights": (1, "the loss is nan"),
}
"""Each fault with the exit status and the words that it leads to."""
PATIENCE = 300  # seconds for one session: on two busy cores importing torch and starting alone took 30


def train_with(fault: str, after: int, number: float, arguments: Sequence[str]) -> tuple[int, str]:
    """Training in a process of its own, which some faults strike from inside, before the step after so many."""
    from segmodel.training import trainer

    original, count = trainer.training_step, 0

    def step(model: Any, *given: Any, **options: Any) -> Any:
        nonlocal count
        if count == after and fault == "full disk":
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(number * 200_000), resource.RLIM_INFINITY))
        if count == after and fault == "infinite weights":
            with torch.no_grad():
                next(model.parameters())[0] = float("inf")
        count += 1
        return original(model, *given, **options)

    trainer.training_step = step
    return train(arguments)


def steps_done(folder: Path) -> int:
    file = folder / "metrics.jsonl"
    return file.read_text().count('"train"') if file.exists() else 0


def check_visible(folder: Path) -> None:
    """Whatever lies in the run folder, but for partial files, is whole."""
    for file in folder.rglob("*"):
        try:
            if file.suffix == ".safetensors":
                read_checkpoint(file)
            elif file.suffix == ".json":
                json.loads(file.read_text())
            elif file.suffix == ".toml":
                tomllib.loads(file.read_text())
            elif file.suffix == ".png":
                Image.open(file).load()
        except FileNotFoundError:
            continue  # a partial file that has taken its place meanwhile


def strike(fault: str, process: Any, own: Path) -> None:
    """A fault from outside."""
    if fault.startswith("SIG"):
        os.kill(process.pid, getattr(signal, fault))
    elif fault == "loader killed":
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGKILL)
    elif fault == "image vanished":
        (own / "images" / "train" / "a.png").rename(own / "away.png")


def disturb(fault: str, folder: Path, arguments: Sequence[str], rng: random.Random, own: Path) -> bool:
    """One session that the fault ends; False if the training was over before."""
    after, before = rng.randrange(1, 4), steps_done(folder)
    (process,), queue = start(1, train_with, fault, after, rng.random(), arguments)
    deadline = time.monotonic() + PATIENCE
    while steps_done(folder) < before + after and process.is_alive() and time.monotonic() < deadline:
        check_visible(folder)
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.05))  # anywhere in a step, a validation or the writing of a checkpoint
    if process.is_alive():
        strike(fault, process, own)
    while process.is_alive() and queue.empty() and time.monotonic() < deadline:
        check_visible(folder)
        time.sleep(0.01)
    result = None if process.exitcode == -signal.SIGKILL else queue.get(timeout=PATIENCE)[1]
    process.join(PATIENCE)
    if (own / "away.png").exists():
        (own / "away.png").rename(own / "images" / "train" / "a.png")
    check_visible(folder)
    if isinstance(result, tuple) and result == (0, ""):
        return False
    status, words = STATUS[fault]
    assert (result is None) == (status is None), (fault, result)
    if result is not None:
        assert result[0] == status, (fault, result)
        assert words in result[1], (fault, result)
        assert len(result[1].splitlines()) == 1, (fault, result)
    return True


def figures(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl but for times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if key not in ("images_per_second", "data_wait", "seconds")}
        for line in lines
    ]


def lost(whole: Path, broken: Path) -> list[str]:
    """What the disturbed run has otherwise than the undisturbed one."""
    found = []
    for name in ("last.safetensors", "best.safetensors"):
        ours, theirs = load_file(whole / name), load_file(broken / name)
        found += [f"{name}: {key}" for key in ours.keys() | theirs.keys()
                  if key not in ours or key not in theirs or not torch.equal(ours[key], theirs[key])]  # fmt: skip
    if figures(whole) != figures(broken):
        found.append("metrics.jsonl")
    found += [str(file) for file in broken.rglob("*.partial")]
    names = [{str(file.relative_to(folder)) for file in folder.rglob("*")} for folder in (whole, broken)]
    return found + sorted(names[0] ^ names[1])


def soak(place: Path, faults: Sequence[str], rng: random.Random) -> dict[str, Any]:
    """Trains once undisturbed and once with these faults; what was survived, and what was lost."""
    furnish(place)
    own = place / "own"
    for index in range(6):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(own / "images" / "train" / f"c{index}.png")
        Image.fromarray(pixels[..., 0] % 2).save(own / "labels" / "train" / f"c{index}.png")
    steps = 4 * len(faults) + 6
    settings = ["--data", f"folder:{own}", *TINY, "--steps", str(steps)]
    whole, broken = place / "whole", place / "broken"
    assert together(1, train, [*settings, "--output", str(whole)]) == [(0, "")]  # with the disturbed run's threads
    arguments, survived = [*settings, "--output", str(broken)], Counter[str]()
    for fault in faults:
        survived[fault] += disturb(fault, broken, arguments, rng, own)
        arguments = ["--resume", str(broken)]
    assert together(1, train, arguments) == [(0, "")]
    return {"faults": sum(survived.values()), "steps": steps, "survived": dict(survived), "lost": lost(whole, broken)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=int(os.environ.get("SEGMODEL_SOAK_FAULTS", "30")))
    parser.add_argument(
        "--seed", type=int, default=time.time_ns() % 2**32, help="of kinds and moments (default: the time)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the numbers to this file as well")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    kinds = list(STATUS)
    faults = [kinds[index % len(kinds)] for index in range(options.faults)]
    rng.shuffle(faults)
    with tempfile.TemporaryDirectory() as place:
        result = soak(Path(place), faults, rng) | {"seed": options.seed}
    print(json.dumps(result, indent=1))
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    return 1 if result["lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
