"""The command that times loader and training: three figures that fit together."""

import re

from distributed_tools import SMALL

from segmodel import throughput
from segmodel.common import cli


def test_the_three_figures(capsys):
    assert cli.run("throughput", throughput.main, [*SMALL, "--batches", "3"]) == 0
    text = capsys.readouterr().out
    loader, training, both, waiting = map(float, re.findall(r"([\d.]+) (?:images/s|% of)", text))
    assert min(loader, training, both) > 0
    assert 0 < waiting < 100  # without workers every image is waited for
    assert cli.run("throughput", throughput.main, ["--batches", "0"]) == 2
    assert "--batches: expected at least 1" in capsys.readouterr().err
