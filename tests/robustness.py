"""The table of what was tried to break this and what came of it; every number is one that the scripts wrote.

    python tests/robustness.py                                # all anew (an hour or two), then the table
    python tests/robustness.py --from fuzz.json kills.json soak.json load.json ...   # of the scripts' own --json files

What bad input the table of test_bad_input.py holds is counted, its test is run, and two processes are made to disagree.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distributed_tools import DIFFERENCES, SMALL, different_folders, differing
from test_bad_input import KINDS

HERE = Path(__file__).parent
SCRIPTS = {"fuzz": [], "kills": ["--kills", "100"], "soak": ["--faults", "30"], "load": [], "many": [],
           "contention": []}  # fmt: skip
SHORT = ["test_bad_input.py", "test_faults.py", "test_kills.py", "test_fuzz.py", "training/test_disagreement.py",
         "data/test_loading.py", "common/test_reading.py", "model/test_finite.py"]  # fmt: skip
"""The short forms, in the suite."""
Rows = list[Sequence[object]]
MISSING = "not measured"


def run_all(folder: Path) -> list[Path]:
    """Runs the scripts; the files that they wrote."""
    for name, arguments in SCRIPTS.items():
        subprocess.run([sys.executable, HERE / f"{name}.py", *arguments, "--json", folder / f"{name}.json"], check=True)
    for name, measure in {"ranks": ranks, "short": short}.items():
        (folder / f"{name}.json").write_text(json.dumps({name: measure()}))
    return [folder / f"{name}.json" for name in (*SCRIPTS, "ranks", "short")]


def read(files: list[Path]) -> dict[str, Any]:
    """The records of the scripts, told apart by what they hold; of fuzz, kills and soak there may be several."""
    records: dict[str, Any] = {name: {} for name in (*SCRIPTS, "ranks", "short")} | {"kills": [], "soak": []}
    marks = {"killed": "kills", "survived": "soak", "many": "many", "predictions": "load", "contention": "contention",
             "ranks": "ranks", "short": "short"}  # fmt: skip
    for file in files:
        content = json.loads(file.read_text())
        kind = next((name for mark, name in marks.items() if mark in content), "fuzz")
        if kind in ("kills", "soak"):
            records[kind].append(content)
        else:
            records[kind] |= content.get(kind, content)
    return records


def short() -> dict[str, float]:
    """Kinds of bad input whose test passes, all of them or an error; and the seconds that all short forms take."""
    start = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", *(HERE / name for name in SHORT)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=HERE.parent)
    return {"kinds": len(KINDS), "seconds": round(time.monotonic() - start)}


def ranks() -> dict[str, Sequence[object]]:
    """Of two processes that differ: status and line of each, and seconds between their ends."""
    rows: dict[str, Sequence[object]] = {}
    for kind in DIFFERENCES:
        with tempfile.TemporaryDirectory() as place:
            arguments = [*SMALL, "--precision", "float32", "--output", f"{place}/run"]
            arguments += ["--data", "folder:own"] if kind == "files" else []
            start = time.monotonic()
            results, apart = differing(kind, arguments, different_folders(Path(place)))
            seconds = time.monotonic() - start
        said = [text.replace("segmodel.train: error: ", "").strip() or signal.Signals(-status).name
                for status, text in results]  # fmt: skip
        if said[0].partition(": ")[2] == said[1].partition(": ")[2]:
            said = [said[0].replace("process 0: ", "both: ", 1)]
        lines = "<br>".join(line.replace("|", "\\|").replace(place, "") for line in said)
        statuses = " and ".join(str(status) for status, _ in results)
        rows[kind] = statuses, lines, f"{apart:.1f}", f"{seconds:.0f}"
    return rows


def table(head: Sequence[str], rows: Rows) -> str:
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *lines, ""])


def growth(part: dict[str, float]) -> str:
    return (f"{part['growth_percent']} % of {part['mebibytes']:.0f} MiB, {part['files_growth']} open files, "
            f"{part['threads_growth']} threads, {part['shared_growth']} files in /dev/shm")  # fmt: skip


def tried(records: dict[str, Any]) -> Rows:
    """What was tried, how often or with what result, and how."""
    survived = sum((Counter(soak["survived"]) for soak in records["soak"]), Counter[str]())
    killed = sum((Counter(kills["killed"]) for kills in records["kills"]), Counter[str]())
    lost = [item for record in (*records["soak"], *records["kills"]) for item in record["lost"]]
    executions = sum(target["executions"] for target in records["fuzz"].values())
    readers = f"fuzz executions, {len(records['fuzz'])} readers, nothing but documented errors"
    counted, names = records["short"], " ".join(SHORT)
    bad = "kinds of bad input: one line that names it, or the right result"
    return [
        (bad, counted.get("kinds", MISSING), "`pytest tests/test_bad_input.py`"),
        (readers, f"{executions:,}", "`tox -e fuzz`"),
        ("SIGKILL of a command that writes, survived", killed.total(), "`tox -e kills`"),
        *((f"  {kind}", count, "") for kind, count in killed.items()),
        ("faults during trainings, survived", survived.total() or MISSING, "`tox -e soak`"),
        *((f"  {kind}", count, "") for kind, count in sorted(survived.items())),
        ("steps soaked", sum(soak["steps"] for soak in records["soak"]) or MISSING, ""),
        ("lost: weights, momentum, figures, files", ", ".join(lost) or "nothing", ""),
        *((f"growth over {part['count']:.0f} {name} in one process, after half of them", growth(part), "`tox -e load`")
          for name, part in records["load"].items()),
        *([] if records["load"] else [("growth over 2,000 steps and 2,000 predictions", MISSING, "`tox -e load`")]),
        *((f"two processes on one {name}, {part['rounds']} rounds",
           f"{part['written']} writers, {part['refused']} refusals of one line; of {part['reads']} reads "
           f"{part['broken reads']} broken, {part['lines twice']} lines twice", "`tox -e contention`")
          for name, part in records["contention"].items()),
        *((name, f"{part['seconds']} s, {part['mebibytes']} MiB at most", "`python tests/many.py`")
          for name, part in records["many"].items()),
        ("seconds of the short forms in the suite, one process", counted.get("seconds", MISSING), f"`pytest {names}`"),
    ]  # fmt: skip


def page(records: dict[str, Any]) -> str:
    readers = ", ".join(f"{name} {target['executions']}" for name, target in records["fuzz"].items())
    title = "# What was tried to break it\n\nWritten by `python tests/robustness.py`; not by hand.\n"
    what = table(("tried", "number", "command"), tried(records))
    head = ("two processes that differ in", "statuses", "what they say", "seconds between their ends", "seconds in all")
    differing = table(head, [(kind, *row) for kind, row in records["ranks"].items()])
    return "\n".join([title, what, differing, f"Executions of each reader: {readers}.", ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="files", type=Path, nargs="+", metavar="JSON", help="take these runs' numbers")
    parser.add_argument("--only", choices=["ranks", "short"], help="what this script itself measures, to --write")
    parser.add_argument("--write", type=Path, default=HERE / "ROBUSTNESS.md", metavar="FILE")
    options = parser.parse_args()
    if options.only:
        options.write.write_text(json.dumps({options.only: {"ranks": ranks, "short": short}[options.only]()}) + "\n")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        text = page(read(options.files or run_all(Path(folder))))
    options.write.write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
