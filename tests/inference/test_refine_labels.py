"""Label maps: boundaries move to the image's edges, values and ignored pixels stay, pictures keep their kind."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segmodel.inference.refine import refine_mask
from segmodel.inference.refine_labels import _filled, refine_labels


def stripes(shift: int = 0, size: tuple[int, int] = (48, 60)) -> tuple[np.ndarray, np.ndarray]:
    """Labels 0, 1, 2 in upright stripes and an image of them; the labels' boundaries are ``shift`` pixels off."""
    columns = np.arange(size[1])
    truth = np.tile((columns // (size[1] // 3)).clip(0, 2), (size[0], 1))
    colours = np.array([[20, 30, 40], [200, 60, 60], [60, 180, 90]], np.uint8)
    return np.roll(truth, shift, 1) if shift else truth, colours[truth]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64])
def test_boundaries_move_to_the_edges_and_values_stay_what_they_are(dtype):
    truth, image = stripes()
    labels, _ = stripes(3)
    labels[:, :3] = 0
    ids = np.array([3, 7, 101], dtype)
    strong = {"weight": 4.0, "balance": 0.25}
    result = refine_labels(ids[labels], image, **strong)
    assert result.dtype == dtype
    assert set(np.unique(result)) == set(ids)
    assert (labels != truth).any(0).sum() == 6  # columns: three at each of two edges
    assert (result != ids[truth]).any(0).sum() <= 2
    tensor = refine_labels(torch.from_numpy(ids[labels]), torch.from_numpy(image).permute(2, 0, 1), **strong)
    np.testing.assert_array_equal(tensor.numpy(), result)
    np.testing.assert_array_equal(refine_labels(ids[labels][None], image, **strong)[0], result)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), classes=st.integers(1, 6), offset=st.sampled_from([0, -3, 90]), masked=st.booleans())
def test_only_labels_that_are_there_come_out_and_ignored_pixels_stay(seed, classes, offset, masked):
    random = np.random.default_rng(seed)
    labels = np.kron(random.integers(0, classes, (5, 4)), np.ones((5, 6), int)) * 10 + offset
    labels[random.random(labels.shape) < 0.2 * masked] = 255
    image = random.integers(0, 256, (*labels.shape, 3), np.uint8)
    result = refine_labels(labels, image)
    assert set(np.unique(result)) <= set(np.unique(labels))
    np.testing.assert_array_equal(result == 255, labels == 255)
    filled = refine_labels(labels, image, fill=True)
    assert set(np.unique(filled)) <= set(np.unique(labels)) - {255}
    np.testing.assert_array_equal(filled[labels != 255], result[labels != 255])
    order = random.permutation(classes)  # which number a class has makes no difference
    number = {value * 10 + offset: 1000 + int(order[value]) for value in range(classes)} | {255: 255}
    renamed = np.vectorize(number.get)(labels)
    agree = (refine_labels(renamed, image) == np.vectorize(number.get)(result)).mean()
    assert agree > 0.98  # sums in another order; a tie may fall the other way


def test_what_is_ignored_is_filled_up_to_the_edge():
    truth, image = stripes()
    labels = truth.copy()
    labels[:, 10:34] = 255  # across the edge at 20, far wider than a window of 3 blocks
    filled = refine_labels(labels, image, fill=True)
    assert (filled == truth).mean() > 0.97
    assert (refine_labels(labels, image, ignore=None) == 255).any()  # without it, 255 is a class
    nothing = np.full_like(labels, 255)
    np.testing.assert_array_equal(refine_labels(nothing, image, fill=True), nothing)
    one = np.where(labels == 255, 255, 9)
    assert (refine_labels(one, image, fill=True) == 9).all()


def test_the_middle_of_a_large_hole_gets_the_class_that_is_nearer():
    """From where no message of the CRF comes."""
    truth, image = stripes(size=(48, 360))
    labels = truth.copy()
    labels[:, 40:200] = 255  # the edge is at 120
    filled = refine_labels(labels, image, fill=True, radius=1, iterations=1)
    assert (filled[:, 50:90] == 0).all()
    assert (filled[:, 150:190] == 1).all()


def test_a_binary_label_map_is_refined_as_a_mask():
    labels, image = stripes(3)
    mask = labels == 1
    both = refine_labels(mask.astype(np.uint8), image) == refine_mask(mask, image)
    assert both.mean() > 0.99


def test_many_other_classes_do_not_blur_the_choice():
    """Forty classes far away change nothing at a boundary: what is computed there are the classes nearby."""
    labels, image = stripes(3, (48, 240))
    few = refine_labels(labels, image)
    many = labels.copy()
    many[:8, 200:] = 40 + np.arange(40) % 40
    changed = refine_labels(many, image, radius=3, weight=2.0)
    expected = refine_labels(labels, image, radius=3, weight=2.0)
    np.testing.assert_array_equal(changed[:, :120], expected[:, :120])
    assert few.shape == labels.shape


def test_labels_smaller_than_the_image_come_out_at_its_size():
    truth, image = stripes()
    small = truth[::4, ::4].copy()
    small[0, 0] = 255
    result = refine_labels(small, image)
    assert result.shape == truth.shape
    np.testing.assert_array_equal(np.argwhere(result == 255), np.argwhere(np.kron(small, np.ones((4, 4))) == 255))
    rough = np.kron(small, np.ones((4, 4), int))
    assert (result == truth).mean() >= (rough == truth).mean()


def test_pictures_stay_of_their_kind(tmp_path):
    labels, image = stripes(3)
    expected = refine_labels(labels, image)
    palette = Image.fromarray(labels.astype(np.uint8))
    palette.putpalette([9, 9, 9, 250, 0, 0, 0, 250, 0])
    result = refine_labels(palette, Image.fromarray(image))
    assert result.mode == "P"
    assert result.getpalette()[:9] == [9, 9, 9, 250, 0, 0, 0, 250, 0]
    np.testing.assert_array_equal(np.array(result), expected)
    colours = np.array([[9, 9, 9], [250, 0, 0], [0, 0, 255]], np.uint8)  # the last is 255 as a number: no "ignored"
    Image.fromarray(colours[labels]).save(tmp_path / "colours.png")
    drawn = refine_labels(tmp_path / "colours.png", image)
    assert drawn.mode == "RGB"
    np.testing.assert_array_equal(np.array(drawn), colours[expected])
    wide = Image.fromarray(1000 * labels.astype(np.uint16))
    np.testing.assert_array_equal(np.array(refine_labels(str_saved(wide, tmp_path), image)), 1000 * expected)


def str_saved(picture: Image.Image, folder) -> str:
    picture.save(folder / "wide.png")
    return str(folder / "wide.png")


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 17), width=st.integers(1, 17), seed=st.integers(0, 99))
def test_filling_keeps_what_is_known_and_stays_within_it(height, width, seed):
    random = torch.Generator().manual_seed(seed)
    weight = (torch.rand(1, 1, height, width, generator=random) < 0.2).double()
    weight[0, 0, 0, 0] = 1
    values = torch.rand(1, 3, height, width, generator=random).double()
    filled = _filled(values * weight, weight)
    known = weight.expand_as(values) > 0
    torch.testing.assert_close(filled[known], values[known], rtol=0, atol=1e-6)
    assert filled.min() >= values[known].min() - 1e-6
    assert filled.max() <= values[known].max() + 1e-6


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (np.zeros((8, 8)), {}, r"labels: expected whole numbers .*, got float64 \(8, 8\); refine takes scores"),
        (np.zeros((2, 2, 8, 8), int), {}, r"labels: expected whole numbers \(H, W\) or \(N, H, W\), got int64"),
        (np.zeros((48, 60, 1), int), {}, r'labels: expected height and width last .* give layout="HWC"'),
        (np.zeros((8, 8), int), {"confidence": 0.5}, "confidence: expected more than 0.5 and less than 1, got 0.5"),
        (np.zeros((8, 8), int), {"sigma": 3}, "sigma: expected one of"),
        (Image.new("RGBA", (60, 48)), {}, "labels: expected numbers or colours, got a picture of mode RGBA"),
        (Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 60, 3), np.uint8)), {}, "a photograph?"),
        ("none.png", {}, "none.png: no such file"),
    ],
)  # fmt: skip
def test_what_is_no_label_map_is_refused(labels, options, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        refine_labels(labels, stripes()[1], **options)
