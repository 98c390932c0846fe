"""Class weights: read from files, counted as SegNet did, kept in the checkpoint."""

import json

import numpy as np
import pytest
import torch
from distributed_tools import SMALL, train, train_with_fault
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from segmodel.common.errors import UserError
from segmodel.data import Sample, SegmentationData, open_data
from segmodel.data.content import class_pixels
from segmodel.reference.objective import median_frequency_weights
from segmodel.training import trainer
from segmodel.training.class_weights import median_frequency, read_class_weights

NAMES = ("sky", "traffic sign", "#a=b")


class Drawn(SegmentationData):
    """Random labels; the last class is absent."""

    name, classes, palette = "drawn", NAMES, np.zeros((3, 3), np.uint8)

    def __init__(self, images: int, seed: int):
        rng = np.random.default_rng(seed)
        self.labels = [rng.choice([0, 1, 255], (4, 5), p=[0.7, 0.1, 0.2]).astype(np.uint8) for _ in range(images)]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        return Sample(np.zeros((4, 5, 3), np.uint8), self.labels[index], str(index))


@given(st.integers(1, 5), st.integers(0, 99))
def test_median_frequency_is_the_oracles(images, seed):
    data = Drawn(images, seed)
    weights = median_frequency(class_pixels(data, workers=0), 3)
    np.testing.assert_allclose(weights, median_frequency_weights([x.astype(int) for x in data.labels], 3), rtol=1e-14)
    assert weights[2] == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", '{"traffic sign": 2, "sky": 0.5, "#a=b": 1e1}'),
        ("b.json", "[0.5, 2, 10]"),
        ("c.toml", '"traffic sign" = 2\nsky = 0.5 # rare\n"#a=b" = 10.0\n'),
        ("d.txt", "# of my own\nsky = 0.5\ntraffic sign: 2  # seldom\n\n#a=b = 10\n".replace("#a=b =", "'#a=b' =")),
        ("e", "\ufeff0.5\n2 # the second\n\n10\n"),
    ],
)
def test_a_file_gives_each_class_its_weight(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_class_weights(str(tmp_path / name), NAMES).tolist() == [0.5, 2.0, 10.0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", "cannot be read (Expecting"),
        ("a.json", "3", "expected NAME = WEIGHT for each class or a list, got 3"),
        ("a.json", '{"sky": 1, "sky": 2}', "'sky' a second time"),
        ("a.json", "[1, 2]", "expected 3 weights, got 2"),
        ("a.json", "[1, 2, true]", "#a=b: expected a finite number above 0, got True"),
        ("a.json", "[1, 2, NaN]", "#a=b: expected a finite number above 0, got nan"),
        ("a.json", "[1, 0, 2]", "traffic sign: expected a finite number above 0, got 0"),
        ("a.toml", "sky = 1\nsky = 2", "cannot be read ("),
        ("a.toml", "[weights]\nsky = 1", "'weights': expected one of the classes sky, traffic sign, #a=b"),
        ("a.txt", "sky = 1\n'#a=b' = 2", "expected a weight for every class, got none for traffic sign"),
        ("a.txt", "sky = heavy", "expected NAME = WEIGHT or WEIGHT, got 'sky = heavy'"),
        ("a.txt", "sky = 1\n2\n3", "None: expected one of the classes"),
        ("a.txt", "sky = -1\ntraffic sign = 1\n'#a=b' = 1", "sky: expected a finite number above 0, got -1.0"),
        ("a.txt", "1\ninf\n1", "traffic sign: expected a finite number above 0, got inf"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_class_weights(str(tmp_path / name), NAMES)
    assert str(caught.value).startswith(f"--class-weights: {tmp_path / name}: ")
    assert message in str(caught.value)
    with pytest.raises(UserError, match=r"cannot be read .*expected none, median_frequency or a file"):
        read_class_weights(str(tmp_path / "median-frequency"), NAMES)


def test_a_resumed_run_has_its_weights_from_the_checkpoint_and_counts_nothing(tmp_path, monkeypatch):
    arguments = [*SMALL, "--steps", "6", "--class-weights", "median_frequency", "--output"]
    assert train([*arguments, str(tmp_path / "whole")]) == (0, "")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert train_with_fault("term", 3, [*arguments, str(tmp_path / "run")])[0] == 143
    monkeypatch.setattr(trainer, "class_weights", None)
    assert train(["--resume", str(tmp_path / "run")]) == (0, "")
    whole, resumed = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    card = json.loads((tmp_path / "run" / "last.json").read_text())
    data = open_data(SMALL[1], split="train")
    counted = median_frequency_weights([data[index].label.astype(int) for index in range(len(data))], len(data.classes))
    np.testing.assert_allclose(card["class_weights"], counted, rtol=1e-14)
    monkeypatch.undo()
    assert train([*SMALL, "--steps", "6", "--output", str(tmp_path / "plain")]) == (0, "")
    plain = load_file(tmp_path / "plain" / "last.safetensors")
    assert any(not torch.equal(value, plain[name]) for name, value in whole.items())


def test_the_weights_of_a_file_outlive_it(tmp_path):
    file, folder = tmp_path / "weights.txt", tmp_path / "run"
    file.write_text("\n".join(str(number + 1) for number in range(12)))
    arguments = [*SMALL, "--class-weights", str(file), "--output", str(folder)]
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setenv("RANK", "0")
        patch.setenv("WORLD_SIZE", "1")
        assert train_with_fault("term", 2, arguments)[0] == 143
    file.unlink()
    assert train(["--resume", str(folder)]) == (0, "")
    assert json.loads((folder / "last.json").read_text())["class_weights"] == list(range(1, 13))
