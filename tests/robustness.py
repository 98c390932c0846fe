"""The table of what was tried to break this and what came of it; every number is one that the scripts wrote.

    python tests/robustness.py                                # the four scripts anew (hours), then the table
    python tests/robustness.py --from fuzz.json soak.json load.json contention.json   # of their --json files

What bad input the table of test_bad_input.py holds is counted, and its test is run.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from test_bad_input import KINDS

HERE = Path(__file__).parent
SCRIPTS = {"fuzz": ["--executions", "1000"], "soak": ["--faults", "30"], "load": [], "contention": []}


def run_all(folder: Path) -> list[Path]:
    """Runs the scripts; the files that they wrote."""
    for name, arguments in SCRIPTS.items():
        subprocess.run([sys.executable, HERE / f"{name}.py", *arguments, "--json", folder / f"{name}.json"], check=True)
    return [folder / f"{name}.json" for name in SCRIPTS]


def read(files: list[Path]) -> dict[str, Any]:
    """The records of one fuzz, any number of soaks, one load and contention, told apart by what they hold."""
    records: dict[str, Any] = {"soak": []}
    for file in files:
        content = json.loads(file.read_text())
        if "survived" in content:
            records["soak"].append(content)
        elif "contention" in content:
            records |= content
        else:
            records["load" if "predictions" in content else "fuzz"] = content
    return records


def passed() -> int:
    """Kinds of bad input whose test passes; all of them, or an error."""
    command = [sys.executable, "-m", "pytest", "-q", HERE / "test_bad_input.py"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=HERE.parent)
    return len(KINDS)


def table(records: dict[str, Any]) -> str:
    survived = sum((Counter(soak["survived"]) for soak in records["soak"]), Counter[str]())
    lost = [item for soak in records["soak"] for item in soak["lost"]]
    executions = sum(target["executions"] for target in records["fuzz"].values())
    rows = [
        (
            "kinds of bad input: one line that names it, or the right result",
            passed(),
            "`pytest tests/test_bad_input.py`",
        ),
        (
            f"fuzz executions, {len(records['fuzz'])} readers, nothing but documented errors",
            executions,
            "`tox -e fuzz`",
        ),
        ("faults during trainings, survived", survived.total(), "`tox -e soak`"),
        *((f"  {kind}", count, "") for kind, count in sorted(survived.items())),
        ("steps soaked", sum(soak["steps"] for soak in records["soak"]), ""),
        ("lost: weights, momentum, figures, files", ", ".join(lost) or "nothing", ""),
    ]
    if "load" not in records:
        rows.append(
            ("growth over a long training and 2,000 predictions in one process", "not measured", "`tox -e load`")
        )
    for name, part in records.get("load", {}).items():
        text = (f"{part['growth_percent']} % of {part['mebibytes']:.0f} MiB, {part['files_growth']} open files, "
                f"{part['threads_growth']} threads, {part['shared_growth']} files in /dev/shm")  # fmt: skip
        rows.append(
            (f"growth over {part['count']:.0f} {name} in one process, after half of them", text, "`tox -e load`")
        )
    for name, part in records.get("contention", {}).items():
        text = (f"{part['written']} writers, {part['refused']} refusals of one line; of {part['reads']} reads "
                f"{part['broken reads']} broken, {part['lines twice']} lines twice")  # fmt: skip
        rows.append((f"two processes on one {name}, {part['rounds']} rounds", text, "`tox -e contention`"))
    lines = [f"| {name} | {value} | {command} |" for name, value, command in rows]
    readers = ", ".join(f"{name} {target['executions']}" for name, target in records["fuzz"].items())
    return "\n".join(
        ["# What was tried to break it", "", "Written by `python tests/robustness.py`; not by hand.", "",
         "| tried | number | command |", "|---|---|---|", *lines, "", f"Executions of each reader: {readers}.", ""]
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="files", type=Path, nargs="+", metavar="JSON", help="take these runs' numbers")
    parser.add_argument("--write", type=Path, default=HERE / "ROBUSTNESS.md", metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = table(read(options.files or run_all(Path(folder))))
    options.write.write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
