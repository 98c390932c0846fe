"""The benchmark command on tiny sizes: every table, its JSON, and no figures for a GPU that is not there."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from segmodel import benchmark
from segmodel.common import cli
from segmodel.experiments import models, operators, timing
from segmodel.model.config import ModelConfig


def test_writes_all_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(operators, "FILTER_SIZES", ((2, 20, 24),))
    monkeypatch.setattr(operators, "CRF_SIZE", (2, 24, 28))
    monkeypatch.setattr(operators, "RADII", (1, 2))
    monkeypatch.setattr(operators, "BANDS", (3, 4))
    monkeypatch.setattr(operators, "PROCESSES", 1)
    monkeypatch.setattr(operators, "BACKENDS", {"segmodel": "torch"})
    monkeypatch.setattr(models, "PAPER", ModelConfig(depth=18, width=4, stem_width=4))
    monkeypatch.setattr(models, "SIZE", (40, 50))
    monkeypatch.setattr(models, "SIZES", ((20, 30), (40, 50)))
    threads, file = torch.get_num_threads(), tmp_path / "figures.json"
    try:
        assert cli.run("benchmark", benchmark.main, ["--threads", "1", "--seconds", "0.01", "--json", str(file)]) == 0
    finally:
        torch.set_num_threads(threads)
    report = json.loads(file.read_text())
    assert report["threads"] == 1
    assert report["versions"]["torch"] == torch.__version__
    tables = list(report["milliseconds"].values())
    assert len(tables) == 12
    assert all("segmodel" in table for table in tables[:5])
    first = tables.pop(7)
    assert list(tables[7]) == ["unary", "context", "patch", "guide"]
    assert {"whole", "backbone", "feature context, first ring", "guidance CRF"} < tables[8].keys()
    for rows in tables:
        assert next(iter(rows.values()))["ratio"] == next(iter(rows.values()))["round_p50"] == 1.0
        for row in rows.values():
            assert 0 < row["round_p20"] <= row["round_p50"] <= row["round_p80"]
    for rows in [*tables, first]:
        for row in rows.values():
            assert 0 < row["min"] <= row["p20"] <= row["p50"] <= row["p80"]
    if not torch.cuda.is_available():
        assert report["gpu"] == "not measured"
        assert "not measured" in capsys.readouterr().out


def test_a_peer_that_disagrees_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Filter:
        def filter(self, maps: np.ndarray) -> np.ndarray:
            return maps + 1

    class OpenCV:
        class ximgproc:
            createGuidedFilter = staticmethod(lambda picture, radius, eps: Filter())

    monkeypatch.setattr(operators, "peer", lambda name: OpenCV if name == "cv2" else None)
    with pytest.raises(RuntimeError, match="differ"):
        operators.filter_calls(*timing.inputs(2, 20, 24))


def test_bad_arguments_exit_with_status_2(capsys: pytest.CaptureFixture) -> None:
    assert cli.run("benchmark", benchmark.main, ["--threads", "0"]) == 2
    assert "--threads: expected at least 1" in capsys.readouterr().err
