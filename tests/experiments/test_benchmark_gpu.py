"""The GPU's tables where there is no GPU: the calls that can run, and what is printed."""

import pytest
import torch

from segmodel.experiments import gpu, timing
from segmodel.kernels import guided_filter, prepare_guide


def test_calls_on_the_torch_path() -> None:
    """What can run here does; the rest needs a GPU, or a compiler."""
    scores, guide = timing.inputs(2, 12, 13)
    calls = gpu.calls(scores, guide)
    for name, given in (
        ("guided filter, torch", guide),
        ("guided filter, torch, prepared guide", prepare_guide(guide)),
    ):
        expected = guided_filter(scores, given, backend="torch")
        torch.testing.assert_close(calls[name](), expected, rtol=0, atol=0)
    assert calls["guidance CRF, torch"]().shape == scores.shape
    d_scores, d_weight = calls["guidance CRF with gradient, torch"]()
    assert d_scores.shape == scores.shape
    assert d_weight.shape == ()
    assert gpu.filter_bytes(scores) == 4 * 12 * 13 * (2 * 10 + 15)


def test_what_is_printed() -> None:
    row = {"p20": 1.0, "p50": 2.0, "p80": 3.0}
    times = {gpu.MEASURED: row, "other": {**row, "p50": 5.0}, "share of the copy rate": 0.5}
    out = gpu.text({"device": "A", "copy rate, GB/s": 4000, "1x2x3x4": times})
    assert "A, copies 4000 GB/s" in out
    assert "2.50" in out
    assert "50 % of the copy rate" in out


@pytest.mark.gpu
def test_tables_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "SIZES", ((1, 2, 40, 50),))
    report = gpu.measure()
    assert isinstance(report, dict)
    assert 0 < report["1x2x40x50"]["share of the copy rate"] < 1
