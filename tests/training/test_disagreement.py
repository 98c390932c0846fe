"""Two processes of one training that disagree: all end soon, with one line each that names the difference."""

import pytest
from distributed_tools import DIFFERENCES, SMALL, different_folders, differing

EXPECTED = {
    "rate": "train.rate: expected the same in all processes, got 0.02 in process 0 and 0.03 in process 1",
    "seed": "train.seed: expected the same in all processes, got 0 in process 0 and 1 in process 1",
    "batch": "train.batch_size: expected the same in all processes, got 8 in process 0 and 16 in process 1",
    "data": "train.data: expected the same in all processes, got 'scenes:train=16,val=3' in process 0 and 'scenes:tra",
    "files": "data: folder:own, train: images: expected the same in all processes, got 2 in process 0",
    "version": "version of segmodel: expected the same in all processes, got '",
}


@pytest.mark.parametrize("kind", DIFFERENCES)
def test_processes_that_disagree_end_with_the_difference(kind, tmp_path):
    arguments = [*SMALL, "--precision", "float32", "--output", str(tmp_path / "run")]
    arguments += ["--data", "folder:own"] if kind == "files" else []
    results, seconds = differing(kind, arguments, different_folders(tmp_path))
    for rank, (status, text) in enumerate(results):
        if kind in EXPECTED:
            assert status == 2
            assert text.startswith(f"segmodel.train: error: process {rank}: {EXPECTED[kind]}")
        elif kind == "one broken file":
            assert (status, "b.png: broken" in text) == ((2, True) if rank else (1, False))
        elif rank == 0:
            assert status == 1
            assert "another process is lost (see its error) or has not answered for 10 minutes: " in text
            assert "gloo/" not in text
        assert len(text.splitlines()) == (status > 0)
    assert seconds < 30
    assert (tmp_path / "run").exists() == (kind not in EXPECTED)
