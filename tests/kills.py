"""SIGKILL at any moment of each command that writes: given again it ends as the undisturbed one, and nothing is lost.

    python tests/kills.py --kills 100    # tox -e kills

After each kill, whatever lies at the names of results is whole. The same command, which the user would give again, then
ends with the undisturbed one's results: bytes of weights, labels and settings, figures without times.
"""

import argparse
import contextlib
import importlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bad_input_tools import furnish
from distributed_tools import start
from PIL import Image
from safetensors.torch import load_file
from soak import TINY, check_visible, figures

PATIENCE = 300  # seconds for one command
SHARES = {"train": 6, "predict": 5, "evaluate": 4, "tune": 2, "ablate": 2, "export": 1}
"""How many kills each command gets of so many in all; export takes longest."""
CHAIN = 10
"""Most kills before the command may end."""
TIMES = {"seconds", "time", "time_ms", "milliseconds", "versions", "environment", "when"}


def called(started: str, command: str, arguments: Sequence[str]) -> tuple[int, str]:
    """Exit status and error output of a command; ``started`` is a file that appears when it begins."""
    from segmodel.common import cli

    module = importlib.import_module(f"segmodel.{command}")
    errors = io.StringIO()
    Path(started).touch()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        status = cli.run(command, module.main, arguments)
    return status, errors.getvalue()


@dataclass(frozen=True)
class Command:
    """A command that writes an output; ``again``: what a user gives after a kill; ``result``: what must be equal."""

    name: str
    arguments: Callable[[Path], list[str]]
    result: Callable[[Path], dict[str, Any]]
    again: Callable[[Path], list[str]]


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(part) for key, part in value.items() if key not in TIMES}
    return [without_times(part) for part in value] if isinstance(value, list) else value


def content(file: Path) -> Any:
    if file.suffix == ".safetensors":
        return {name: tensor.numpy().tobytes() for name, tensor in load_file(file).items()}
    return without_times(json.loads(file.read_text())) if file.suffix == ".json" else file.read_bytes()


def files(*endings: str) -> Callable[[Path], dict[str, Any]]:
    """The contents of an output, a file or the files of a folder with these endings."""

    def result(output: Path) -> dict[str, Any]:
        found = [output] if output.is_file() else sorted(output.rglob("*"))
        return {str(file.relative_to(output)): content(file) for file in found if file.suffix in endings}

    return result


def trained(output: Path) -> dict[str, Any]:
    """Weights, momentum and figures of all runs below a folder."""
    runs = [file.parent for file in sorted(output.rglob("last.safetensors"))]
    found = files(".safetensors")(output)
    return found | {f"{run.relative_to(output)}: figures": figures(run) for run in runs}


def exported(output: Path) -> dict[str, Any]:
    """The scores that an exported file gives."""
    import torch

    from segmodel.experiments.exported import load_pt2

    image = torch.arange(3 * 20 * 30).reshape(1, 3, 20, 30).float() % 256
    return {"scores": load_pt2(output)(image).detach().numpy().tobytes()}


def resumed(arguments: Callable[[Path], list[str]]) -> Callable[[Path], list[str]]:
    """--resume where there is a run; where it was killed before it had settings there is nothing to lose: anew."""

    def again(output: Path) -> list[str]:
        settings = output / "config.toml"
        if settings.exists() and settings.stat().st_size:
            return ["--resume", str(output)]
        shutil.rmtree(output, ignore_errors=True)
        return arguments(output)

    return again


def commands(place: Path) -> list[Command]:
    """The commands with what they need in a folder."""
    furnish(place)
    own, photos = place / "own", place / "photos"
    photos.mkdir()
    for index in range(8):
        pixels = np.random.default_rng(index).integers(0, 256, (90, 120, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{index}.png")
        for split in ("train", "val")[: 1 + (index < 1)]:
            Image.fromarray(pixels[:40, :48]).save(own / "images" / split / f"c{index}.png")
            Image.fromarray(pixels[:40, :48, 0] % 2).save(own / "labels" / split / f"c{index}.png")
    run, data, device = str(place / "run"), f"folder:{own}", ["--device", "cpu"]
    tiny = ["--data", data, *TINY, "--workers", "0", "--steps", "8"]
    ablated = [*tiny, "--variants", "unary,patch", "--seeds", "0", "--time-seconds", "0.01", "--time-size", "40,40",
               "--no-dense"]  # fmt: skip

    def train(output: Path) -> list[str]:
        return [*tiny, "--output", str(output)]

    def same(*given: str, output: str = "--output", more: Sequence[str] = ()) -> tuple[Any, Any]:
        return (lambda path: [*given, output, str(path)]), (lambda path: [*given, output, str(path), *more])

    predict = same(run, str(photos), *device, more=["--overwrite"])
    evaluate = same(run, "--data", data, "--boundary", *device, output="--json")
    tune = same(run, "--data", data, "--images", "6", *device, more=["--overwrite"])
    export = same(run, "--format", "pt2", "--quick", more=["--overwrite"])
    ablate = same(*ablated)
    return [
        Command("train", train, trained, resumed(train)),
        Command("predict", predict[0], files(".png"), predict[1]),
        Command("evaluate", evaluate[0], files(".json"), evaluate[1]),
        Command("tune", tune[0], files(".json"), tune[1]),
        Command("ablate", ablate[0], trained, ablate[1]),
        Command("export", export[0], exported, export[1]),
    ]


def output_of(place: Path, command: Command, name: str) -> Path:
    endings = {"evaluate": ".json", "tune": ".json", "export": ".pt2"}
    return place / f"{command.name}-{name}{endings.get(command.name, '')}"


def attempt(
    place: Path, command: Command, arguments: list[str], *, kill_after: float | None = None
) -> tuple[Any, float]:
    """What a command ended with, None if it was killed, and its seconds."""
    started = place / "started"
    started.unlink(missing_ok=True)
    (process,), queue = start(1, called, str(started), command.name, arguments)
    deadline = time.monotonic() + PATIENCE
    while not started.exists() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.001)
    begun = time.monotonic()
    if kill_after is not None:
        process.join(kill_after)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            process.join(PATIENCE)
            return None, kill_after
    result = queue.get(timeout=PATIENCE)[1]
    process.join(PATIENCE)
    return result, time.monotonic() - begun


def whole(output: Path) -> None:
    """Whatever is visible at the names of results is whole."""
    if output.is_dir():
        check_visible(output)
        for file in output.rglob("*.png"):
            Image.open(file).load()
    elif output.exists() and output.suffix == ".json":
        json.loads(output.read_text())
    elif output.exists():
        exported(output)


def disturb(place: Path, command: Command, kills: int, rng: random.Random) -> tuple[int, list[str]]:
    """Kills that a command survived, up to ``CHAIN`` of them one after the other, and what was lost."""
    output = output_of(place, command, "whole")
    result, seconds = attempt(place, command, command.arguments(output))
    assert result == (0, ""), (command.name, result)
    expected, lost, done = command.result(output), list[str](), 0
    assert expected
    while done < kills:
        output = output_of(place, command, str(done))
        arguments = command.arguments(output)
        for left in range(min(CHAIN, kills - done), -1, -1):
            moment = rng.uniform(0, seconds) if left else None
            result, _ = attempt(place, command, arguments, kill_after=moment)
            if result is not None:
                break
            done += 1
            whole(output)
            arguments = command.again(output)
        if result[0]:
            lost.append(f"{command.name}: {result}")
            continue
        found = command.result(output)
        names = expected.keys() | found.keys()
        lost += [f"{command.name}: {name}" for name in names if expected.get(name) != found.get(name)]
        shutil.rmtree(output) if output.is_dir() else output.unlink()
    return done, lost


def kill(place: Path, kills: int, rng: random.Random, only: Sequence[str] = ()) -> dict[str, Any]:
    """The kills that all commands survived, and what was lost."""
    chosen = [command for command in commands(place) if not only or command.name in only]
    shares = {command.name: SHARES[command.name] for command in chosen}
    survived, lost, begun = Counter[str](), list[str](), time.monotonic()
    for command in chosen:
        count = -(-kills * shares[command.name] // sum(shares.values()))
        done, found = disturb(place, command, count, rng)
        survived[command.name], lost = done, lost + found
        print(command.name, done, found, f"{time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    return {"killed": dict(survived), "lost": lost, "seconds": round(time.monotonic() - begun)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=int(os.environ.get("SEGMODEL_KILLS", "100")))
    parser.add_argument("--only", nargs="+", default=[], choices=list(SHARES))
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32, help="of the moments (default: the time)")
    parser.add_argument("--json", metavar="FILE", help="write the numbers to this file as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        result = kill(Path(place), options.kills, random.Random(options.seed), options.only) | {"seed": options.seed}
    print(json.dumps(result, indent=1))
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    return 1 if result["lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
