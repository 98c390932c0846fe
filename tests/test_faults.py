"""Faults while a model trains: a short soak (soak.py has the long one), and writes that fail."""

import random
import resource
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from soak import STATUS, lost, soak

from segmodel.common.files import write_atomically
from segmodel.common.pictures import save_label
from segmodel.model.config import ModelConfig
from segmodel.model.store import save_checkpoint
from segmodel.segmodel import SegModel

SMALL = ModelConfig(depth=18, width=4, stem_width=4, label_hidden=4, rings=((1, 2),), label_pool=5)


def test_after_one_fault_of_each_kind_nothing_is_lost(tmp_path):
    kinds = [kind for kind in STATUS if kind != "SIGKILL"]  # that has a test of its own
    result = soak(tmp_path, kinds, random.Random(0))
    assert result["lost"] == []
    assert result["survived"] == dict.fromkeys(kinds, 1)
    weights = load_file(tmp_path / "broken" / "last.safetensors")
    name = next(name for name in weights if name.endswith("conv1.weight"))
    weights[name][0] += 1e-6
    save_file(weights, tmp_path / "broken" / "best.safetensors")
    (tmp_path / "broken" / "last.json").unlink()
    found = lost(tmp_path / "whole", tmp_path / "broken")  # it would notice
    assert f"best.safetensors: {name}" in found
    assert found[-1] == "last.json"


@pytest.mark.parametrize("size", [1, 20_000, 100_000])
def test_a_full_disk_leaves_the_checkpoint_before_and_no_partial_file(tmp_path: Path, size: int):
    """Files may not grow beyond a size: the system lets a write end half way and the next one fail."""
    model, file = SegModel(2, SMALL), tmp_path / "last.safetensors"
    save_checkpoint(file, model, {"step": 1})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert size < len(before["last.safetensors"])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_checkpoint(file, model, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path):
    file = tmp_path / "a.txt"
    write_atomically(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(file, "half of the n\udc80")
    with pytest.raises(OSError, match="No such file"):
        save_label(tmp_path / "none" / "a.png", np.zeros((2, 2)), np.zeros((1, 3), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert file.read_text() == "old"


def test_checkpoints_have_the_mode_that_other_new_files_have(tmp_path):
    (tmp_path / "other").write_text("")
    save_checkpoint(tmp_path / "last.safetensors", SegModel(2, SMALL), {})  # others may read it too
    assert (tmp_path / "last.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
