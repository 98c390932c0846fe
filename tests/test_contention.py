"""Two processes on one run, output file and prediction folder: a few rounds (contention.py has the thousand)."""

from pathlib import Path

import pytest
from contention import WORK, failed, measure


@pytest.mark.parametrize("part", WORK)
def test_one_of_two_processes_writes_and_the_other_is_told(part: str, tmp_path: Path) -> None:
    result = measure(part, tmp_path, 4)
    assert not failed(result), result
    assert result["held rounds"] == 2
    assert result["written"] >= 4
    assert result["reads"] > 0
