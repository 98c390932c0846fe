"""What label maps hold, and sets on which a model would train in vain."""

from pathlib import Path

import pytest
from data_tools import SIZE, save_image, save_label

from segmodel.data import DataError, open_data
from segmodel.data.content import class_pixels, require_learnable


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four samples of train, one of val, of three classes; 9 is ignored."""
    root = tmp_path / "mine"
    for split, number in [*(("train", number) for number in range(4)), ("val", 0)]:
        save_image(root / "images" / split / f"{number}.png", seed=number)
        save_label(root / "labels" / split / f"{number}.png", [0, 1, 9] if number < 3 else [2])
    classes = [f'{{name = "{name}", colour = [{number}, 0, 0]}}' for number, name in enumerate(("sky", "sea", "sun"))]
    (root / "classes.toml").write_text(f"ignore = 9\nclasses = [{', '.join(classes)}]\n")
    return root


def relabel(root: Path, *values: list[int]) -> None:
    for number, numbers in enumerate(values):
        save_label(root / "labels" / "train" / f"{number}.png", numbers)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("times", [1, 2])
def test_counts_are_those_of_the_label_maps(folder, workers, times):
    data = open_data(f"{times}*folder:{folder}", split="train")
    labels = [data[index].label for index in range(len(data))]
    content = class_pixels(data, workers=workers)
    for value in range(256):
        having = [label for label in labels if (label == value).any()]
        assert content.pixels[value] == sum((label == value).sum() for label in labels)
        assert content.images[value] == len(having)
        assert content.beside[value] == sum((label != 255).sum() for label in having)
    assert (content.maps, content.mixed) == (4 * times, 3 * times)
    assert content.pixels.sum() == 4 * times * SIZE[0] * SIZE[1]


def test_pictures_are_not_read(folder):
    for image in (folder / "images" / "train").iterdir():
        image.write_bytes(b"no picture")
    assert class_pixels(open_data(f"folder:{folder}", split="train"), workers=0).maps == 4


@pytest.mark.parametrize(
    ("labels", "messages"),
    [
        ([[0, 1], [0, 1], [2], [2]], []),
        ([[0, 1]] * 4, ["mine, train: no pixel of sun in 4 label maps (--allow-absent trains all the same)"]),
        ([[0, 1], [0], [0], [9]], ["no pixel of sun in 4"]),
        ([[0], [1], [2], [0, 9]], ["each of 4 label maps is all of one class ("]),
        ([[0, 9]] * 4, ["no pixel of sea, sun in 4 label maps; are these masks of 0 and 255", "all of one class ("]),
        ([[9]] * 4, ["no pixel of sky, sea, sun in 4 label maps (", "all of one class ("]),
    ],
)  # fmt: skip
def test_what_keeps_a_model_from_learning(folder, labels, messages):
    relabel(folder, *labels)
    data = open_data(f"folder:{folder}", split="train")
    if not messages:
        require_learnable(data, name="mine", workers=0)
        return
    with pytest.raises(DataError) as error:
        require_learnable(data, name="mine", workers=0)
    assert len(error.value.args) == len(messages)
    for message, part in zip(error.value.args, messages, strict=True):
        assert part in message


def test_no_verdict_where_time_runs_out(folder):
    relabel(folder, [0], [0], [0], [0])
    require_learnable(open_data(f"folder:{folder}", split="train"), name="mine", workers=0, seconds=0)


def test_a_label_that_cannot_be_read_is_named(folder):
    data = open_data(f"folder:{folder}", split="train")
    relabel(folder, [7])
    for attempt in (lambda: class_pixels(data, workers=0), lambda: require_learnable(data, name="m", workers=0)):
        with pytest.raises(DataError, match=r"0\.png: label value 7 at row 0"):
            attempt()
