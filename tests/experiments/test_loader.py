"""The benchmark of loader and training: three figures that fit together."""

import json

from distributed_tools import SMALL

from segmodel import benchmark
from segmodel.common import cli


def test_the_three_figures(tmp_path, capsys):
    arguments = ["--only", "loader", "--json", str(tmp_path / "figures.json"), *SMALL, "--batches", "3"]
    assert cli.run("benchmark", benchmark.main, arguments) == 0
    assert "Loader: scenes:train=16,val=3, 8 images a batch, 3 batches, cpu" in capsys.readouterr().out
    rows = json.loads((tmp_path / "figures.json").read_text())["loader"]
    loader, training, both = (row["images/s"] for row in rows)
    waiting = rows[2]["waiting for data, %"]
    assert min(loader, training, both) > 0
    assert 0 < waiting < 100  # without workers every image is waited for
    assert cli.run("benchmark", benchmark.main, ["--batches", "0"]) == 2
    assert "--batches: expected at least 1" in capsys.readouterr().err
