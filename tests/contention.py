"""Two processes on one run, on one output file, on one prediction folder: one writes, the other is told so.

    python tests/contention.py --rounds 1000    # tox -e contention

Each round both processes begin at the same moment. In every second round the one that came first waits in the midst of
its work until the other has given up; in the others nothing holds them. Meanwhile a third process reads all that is
visible: it has to be whole. In the end no line of the run's journal stands there twice, and nothing is left over.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_input_tools import furnish
from distributed_tools import SMALL, start, train
from PIL import Image

REFUSED = "is being written by "
TINY = [*SMALL, "--precision", "float32", "--batch-size", "2", "--joint-from", "0", "--batch-norm-epochs", "0"]
PATIENCE = 120  # seconds for one round
CONTENT = {name: json.dumps([name] * 50_000) for name in ("one", "two")}


def command(name: str, *arguments: object) -> tuple[int, str]:
    """Exit status and error output of a command."""
    import importlib

    from segmodel.common import cli

    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        status = cli.run(name, importlib.import_module(f"segmodel.{name}").main, [str(text) for text in arguments])
    return status, errors.getvalue()


def on_run(folder: Path, number: int, own: str, hold: Callable[[], None]) -> tuple[int, str]:
    """One more step of the run."""
    from segmodel.training import trainer

    original = trainer.training_step

    def step(*given: Any, **options: Any) -> Any:
        hold()
        return original(*given, **options)

    trainer.training_step = step
    try:
        return train(["--resume", str(folder / "run"), "--steps", str(number + 2)])
    finally:
        trainer.training_step = original


def on_file(folder: Path, number: int, own: str, hold: Callable[[], None]) -> tuple[int, str]:
    """What a command does with its output: it is checked, then there is work, then it is written."""
    from segmodel.common.errors import UserError
    from segmodel.common.files import output_file, write_atomically, write_output
    from segmodel.common.locks import claims

    write_atomically(folder / "free.json", CONTENT[own])  # as a program does that knows of no claims
    try:
        with claims():
            output = output_file("--json", str(folder / "out.json"), overwrite=True)
            hold()
            write_output("--json", output, CONTENT[own])
    except UserError as error:
        return 2, f"{error}\n"
    return 0, ""


def on_predictions(folder: Path, number: int, own: str, hold: Callable[[], None]) -> tuple[int, str]:
    """Two pictures segmented into a folder."""
    from segmodel import predict

    original = predict.predict_images

    def held(**options: Any) -> Any:
        hold()
        return original(**options)

    predict.predict_images = held
    try:
        return command("predict", folder / "model", folder / "photos", "--output", folder / "out", "--overwrite",
                       "--device", "cpu")  # fmt: skip
    finally:
        predict.predict_images = original


WORK = {"run": on_run, "output file": on_file, "prediction folder": on_predictions}


def contend(
    part: str, folder: Path, rounds: int, own: str, barrier: Any, given_up: Any, outcomes: Any
) -> list[tuple[int, str]]:
    """All rounds of one of the two processes."""
    for number in range(rounds):
        barrier.wait(PATIENCE)
        hold = (lambda: given_up.wait(PATIENCE)) if number % 2 == 0 else (lambda: None)
        outcome = WORK[part](folder, number, own, hold)
        if outcome[0]:
            given_up.set()
        outcomes.put((number, *outcome))
        if barrier.wait(PATIENCE) == 0:
            given_up.clear()
        barrier.wait(PATIENCE)
    return []


def read_all(folder: Path, part: str) -> tuple[int, int]:
    """Files read, and how many of them were empty or not whole."""
    wanted = {"run": ("metrics.jsonl", "config.toml", "last.json", "report.html"), "output file": (".json",),
              "prediction folder": (".png",)}[part]  # fmt: skip
    files = [file for file in folder.rglob("*") if file.name.endswith(wanted) and not file.name.startswith(".")]
    broken = 0
    for file in files:
        try:
            if file.suffix == ".png":
                Image.open(file).load()
            elif file.suffix == ".jsonl":
                [json.loads(line) for line in file.read_text().split("\n")[:-1]]
                assert file.read_text()
            elif file.suffix == ".json":
                json.loads(file.read_text())
            else:
                assert file.read_text().endswith(("\n", ">\n"))
        except FileNotFoundError:
            continue
        except (ValueError, OSError, AssertionError):
            broken += 1
    return len(files), broken


def twice(file: Path) -> int:
    """Lines of a journal that stand there again: a step of the training, or a result of a step."""
    if not file.exists():
        return 0
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    counts = Counter((line["kind"], line["step"]) for line in lines)
    return sum(count - 1 for count in counts.values())


def measure(part: str, folder: Path, rounds: int) -> dict[str, Any]:
    """Lets two processes contend, and reads what they write."""
    if part == "run":
        assert train([*TINY, "--steps", "1", "--output", str(folder / "run")]) == (0, "")
    read, place = folder / {"run": "run", "output file": ".", "prediction folder": "out"}[part], folder
    if part == "prediction folder":
        furnish(place)
        (place / "run").rename(place / "model")
        (place / "own" / "images" / "val").rename(place / "photos")
        (place / "out").mkdir()
    context = multiprocessing.get_context("forkserver")
    barrier, given_up, outcomes = context.Barrier(2), context.Event(), context.Queue()
    pairs = [start(1, contend, part, place, rounds, own, barrier, given_up, outcomes) for own in CONTENT]
    found: list[tuple[int, int, str]] = []
    reads = broken = 0
    deadline = time.monotonic() + PATIENCE * rounds
    while len(found) < 2 * rounds and time.monotonic() < deadline:
        assert all(process.is_alive() or process.exitcode == 0 for (process,), _ in pairs), found[-2:]
        files, wrong = read_all(read, part)
        reads, broken = reads + files, broken + wrong
        while not outcomes.empty():
            found.append(outcomes.get())
    for (process,), queue in pairs:
        assert queue.get(timeout=PATIENCE)[1] == []
        process.join(PATIENCE)
    by_round: dict[int, list[tuple[int, str]]] = {}
    for number, status, text in found:
        by_round.setdefault(number, []).append((status, text))
    held = [sorted(outcomes) for number, outcomes in by_round.items() if number % 2 == 0]
    refusals = [text for outcomes in by_round.values() for status, text in outcomes if status == 2 and REFUSED in text]
    left = [str(file) for file in folder.rglob("*") if file.name.endswith((".partial", ".lock", ".old"))]
    return {
        "rounds": len(by_round), "written": sum(status == 0 for _, status, _ in found), "refused": len(refusals),
        "held rounds with one writer and one refusal of one line": sum(
            one[0] == 0 and two[0] == 2 and REFUSED in two[1] and two[1].count("\n") == 1 for one, two in held),
        "held rounds": len(held), "rounds without a writer": sum(
            all(status for status, _ in outcomes) for outcomes in by_round.values()),
        "other errors": sorted({text for _, status, text in found if status not in (0, 2)}),
        "reads": reads, "broken reads": broken, "lines twice": twice(folder / "run" / "metrics.jsonl"), "left": left,
    }  # fmt: skip


def failed(result: dict[str, Any]) -> bool:
    return bool(result["broken reads"] or result["lines twice"] or result["left"] or result["other errors"]
                or result["rounds without a writer"] or result["held rounds"] != result["held rounds with one writer "
                "and one refusal of one line"])  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--only", choices=list(WORK), nargs="+", default=list(WORK))
    parser.add_argument("--json", metavar="FILE", help="write the numbers to this file as well")
    options = parser.parse_args()
    results = {}
    for part in options.only:
        with tempfile.TemporaryDirectory() as name:
            results[part] = measure(part, Path(name), options.rounds)
    text = json.dumps({"contention": results}, indent=1)
    print(text)
    if options.json:
        Path(options.json).write_text(text + "\n")
    return any(map(failed, results.values()))


if __name__ == "__main__":
    sys.exit(main())
