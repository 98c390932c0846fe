"""Several processes that train together on this machine, started without torchrun's overhead; and their faults."""

import contextlib
import io
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

SMALL = [
    "--data", "scenes:train=16,val=3", "--depth", "18", "--width", "4", "--stem-width", "4", "--label-hidden", "4",
    "--batch-size", "8", "--crop", "64,64", "--workers", "0", "--pictures", "0", "--precision", "float64",
    "--rings", "[1,2]", "--label-pool", "5", "--device", "cpu", "--steps", "20", "--validate-every", "0",
    "--batch-norm-epochs", "0.5", "--joint-from", "0.5", "--rate", "0.02", "--keep", "0.5",
]  # fmt: skip
"""Twenty steps in seconds, batch norm, mining and guidance CRF included."""


COMMANDS = ("train", "predict", "evaluate", "tune", "ablate", "export")
PRELOADED = [*(f"segmodel.{name}" for name in COMMANDS), "segmodel.kernels.numba_guidance_crf", "torch.nn.parallel",
             "torch._dynamo"]  # fmt: skip
"""Imported once for all processes: an optimiser alone imports torch._dynamo, more than half of a short training."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(world: int, target: Callable[..., Any], *arguments: Any) -> tuple[list[Any], Any]:
    """Processes that run ``target(*arguments)`` in one process group, and the queue of their (rank, result)."""
    context = multiprocessing.get_context("forkserver")  # torch is imported once, and no thread is forked
    context.set_forkserver_preload(PRELOADED)
    results = context.Queue()
    port = free_port()
    processes = []
    for rank in range(world):
        variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world,
                     "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}  # fmt: skip
        process = context.Process(target=_enter, args=(variables, results, target, arguments))
        process.start()
        processes.append(process)
    return processes, results


def together(world: int, target: Callable[..., Any], *arguments: Any) -> list[Any]:
    """The results of all processes, by rank."""
    processes, queue = start(world, target, *arguments)
    results = dict(queue.get(timeout=300) for _ in processes)
    for process in processes:
        process.join(60)
    return [results[rank] for rank in range(world)]


def _enter(variables: Mapping[str, Any], queue: Any, target: Callable[..., Any], arguments: Sequence[Any]) -> None:
    import torch

    os.environ.update({name: str(value) for name, value in variables.items()})
    torch.set_num_threads(1)
    try:
        queue.put((variables["RANK"], target(*arguments)))
    except Exception as error:
        queue.put((variables["RANK"], error))


def train(arguments: Sequence[str]) -> tuple[int, str]:
    """Exit status and error output of the train command."""
    from segmodel.common import cli
    from segmodel.train import main

    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        status = cli.run("train", main, arguments)
    return status, errors.getvalue()


def train_with_fault(fault: str, at: int, arguments: Sequence[str]) -> tuple[int, str]:
    """Training in which the last process, before its step ``at``: "kill"s itself, "hang"s, gets a "term" signal, or
    meets a "broken" file."""
    from segmodel.common.errors import DataError
    from segmodel.training import trainer

    original, original_batches, count = trainer.training_step, trainer.load_batches, 0
    last = int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1

    def step(*given: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == at and last and fault != "broken":
            if fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if fault == "hang":
                time.sleep(600)
            signal.raise_signal(signal.SIGTERM)
        return original(*given, **options)

    def batches(*given: Any, **options: Any) -> Any:
        for number, batch in enumerate(original_batches(*given, **options), 1):
            if number == at and last and fault == "broken":
                raise DataError("b.png: broken")
            yield batch

    trainer.training_step, trainer.load_batches = step, batches
    try:
        return train(arguments)
    finally:
        trainer.training_step, trainer.load_batches = original, original_batches


DIFFERENCES: dict[str, tuple[list[str], list[str]]] = {
    "rate": (["--rate", "0.02"], ["--rate", "0.03"]),
    "seed": (["--seed", "0"], ["--seed", "1"]),
    "batch": (["--batch-size", "8"], ["--batch-size", "16"]),
    "data": (["--data", "scenes:train=16,val=3"], ["--data", "scenes:train=24,val=3"]),
    "files": ([], []),
    "version": ([], []),
    "one broken file": ([], []),
    "one is lost": ([], []),
}
"""What two processes differ in -> the flags of the first and of the second."""


def train_differently(kind: str, arguments: Sequence[str], folders: Sequence[str]) -> tuple[int, str, float]:
    """Training in which this process differs from the other in this; status, error output, and when it ended.

    folders: the data of each process where files differ: with one name, as on two machines.
    """
    import segmodel

    rank = int(os.environ["RANK"])
    own = [*arguments, *DIFFERENCES[kind][rank]]
    if kind == "version" and rank:
        segmodel.__version__ = "0.0.1"
    if kind == "files":
        os.chdir(folders[rank])
    fault = {"one broken file": "broken", "one is lost": "kill"}.get(kind, "none")
    status, errors = train_with_fault(fault, 2, own)
    return status, errors, time.time()


def differing(kind: str, arguments: Sequence[str], folders: Sequence[str]) -> tuple[list[tuple[int, str]], float]:
    """Status and error output of two processes that differ in this, (-9, "") of a killed one; and the seconds from the
    first's end to the last's."""
    processes, queue = start(2, train_differently, kind, arguments, folders)
    lost = 1 if kind == "one is lost" else 0
    results: dict[int, tuple[int, str]] = {1: (-signal.SIGKILL, "")} if lost else {}
    ends = []
    for _ in range(2 - lost):
        rank, found = queue.get(timeout=300)
        if isinstance(found, Exception):
            raise found
        results[rank] = found[:2]
        ends.append(found[2])
    for process in processes:
        process.join(60)
    return [results[rank] for rank in range(2)], max(ends) - min(ends)


def different_folders(place: Path) -> list[str]:
    """Data of one name in two places, of which the second has a picture more."""
    import numpy as np
    from PIL import Image

    for count in (2, 3):
        for split in ("train", "val"):
            for part in ("images", "labels"):
                (place / str(count) / "own" / part / split).mkdir(parents=True)
                for index in range(count):
                    pixels = np.full((48, 48, 3)[: 3 if part == "images" else 2], index % 2, np.uint8)
                    pixels[:9] = 1
                    Image.fromarray(pixels).save(place / str(count) / "own" / part / split / f"{index}.png")
        (place / str(count) / "own" / "classes.toml").write_text('classes = ["a", "b"]\n')
    return [str(place / "2"), str(place / "3")]
