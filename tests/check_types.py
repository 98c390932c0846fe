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
result = subprocess.run([sys.executable, "-m", "mypy", "-p", "segmodel"], capture_output=True, text=True, check=False)
print(result.stdout, result.stderr, sep="")
checked = re.search(r"(\d+) source files", result.stdout)
if checked and int(checked[1]) != files:
    sys.exit(f"mypy checked {checked[1]} files of {files}")
sys.exit(result.returncode)
