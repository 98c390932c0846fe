"""A short run of the fuzzer (fuzz.py has the long one), and that it would notice."""

from pathlib import Path

import pytest
from bad_input_tools import Hang
from fuzz import Target, execute, fuzz, make_targets

from segmodel.common.errors import DataError

EXECUTIONS = 100  # of each target: some 20 seconds in all


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def targets(folder: Path) -> dict[str, Target]:
    return make_targets(folder)


NAMES = (
    "list of files", "configuration", "flags", "classes.toml", "image", "label, numbers", "label, colours",
    "checkpoint", "card of a checkpoint", "weights, .pth", "weights, .safetensors", "scores, .npy",
    "settings of a refinement",
    "SBD labels, .mat", "COCO instances", "labels of labelme", "labels of YOLO", "names of YOLO", "names of CVAT",
    "journal", "sessions", "figures of images", "class weights, .toml", "class weights, .json", "class weights, text",
    "card beside a model", "archive, .zip",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")  # what readers of broken files say is theirs
def test_broken_files_lead_to_documented_errors_alone(name: str, folder: Path, targets: dict[str, Target]):
    if name not in targets:
        pytest.skip("needs scipy, which writes SBD's files here, or pycocotools (extra coco)")
    assert fuzz(targets[name], folder, EXECUTIONS, derandomize=True) >= EXECUTIONS


def test_all_targets_are_run(targets):
    assert set(targets) <= set(NAMES)


def broken(folder: Path, content: bytes) -> None:
    if content[:2] != b"ok":
        raise KeyError(content)


def talkative(folder: Path, content: bytes) -> None:
    if content[:2] != b"ok":
        error = DataError("")
        error.args = ("two\nlines",)
        raise error


@pytest.mark.parametrize(("read", "expected"), [(broken, KeyError), (talkative, AssertionError)])
def test_the_fuzzer_finds_what_is_planted(read, expected, folder):
    with pytest.raises(expected):
        fuzz(Target(read, (b"ok, this is fine",)), folder, EXECUTIONS, derandomize=True)


def test_the_fuzzer_stops_what_hangs(folder, monkeypatch):
    def hang(folder: Path, content: bytes) -> None:
        while True:
            pass

    monkeypatch.setattr("fuzz.SECONDS", 1)
    with pytest.raises(Hang):
        execute(Target(hang, (b"",)), folder, b"")
