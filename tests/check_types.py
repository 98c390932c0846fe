"""Runs mypy on the installed package and fails unless every one of its files was checked (see tox.ini)."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

spec = find_spec("segmodel")
assert spec is not None
assert spec.origin is not None
files = len(list(Path(spec.origin).parent.rglob("*.py")))
settings = Path(__file__).parents[1] / "pyproject.toml"
command = [sys.executable, "-m", "mypy", "--config-file", str(settings), "-p", "segmodel"]
result = subprocess.run(command, capture_output=True, text=True, check=False)
print(result.stdout, result.stderr, sep="")
checked = re.search(r"(\d+) source files", result.stdout)
if checked is None or int(checked[1]) < files:
    sys.exit(f"mypy checked {checked and checked[1]} files of {files}")
sys.exit(result.returncode)
