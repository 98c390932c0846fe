"""Augmentation: exact about interpolation, padding, mirror and colour, and reproducible whoever asks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from segmodel.data import Augmentation, AugmentedData, Sample, open_data

OFF = {"scale": (1.0, 1.0), "aspect": (1.0, 1.0), "colour_shift": 0, "mirror": False}


def random_sample(height: int, width: int, seed: int = 0) -> Sample:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Sample(image, rng.choice(np.array([0, 1, 2, 255], np.uint8), (height, width)), "random")


def same(a: Sample, b: Sample) -> bool:
    return np.array_equal(a.image, b.image) and np.array_equal(a.label, b.label) and a.name == b.name


def test_everything_switched_off_changes_nothing():
    sample = random_sample(20, 30)
    assert same(Augmentation(crop=(20, 30), **OFF)(sample, np.random.default_rng(0)), sample)


@pytest.mark.parametrize("aspect", [1.0, 0.8, 1.6])
@pytest.mark.parametrize("scale", [0.5, 0.83, 1.0, 1.37, 2.0])
@pytest.mark.parametrize("crop", [(16, 24), (90, 31), (100, 120), (20, 60)])
def test_equals_a_crop_of_the_whole_resized_pair(scale, aspect, crop):
    """Only the crop is computed, but the result is that of resizing all (cubic; nearest) and cropping or padding.

    Colours may differ by one level: the kernel's positions are computed from another origin. Which axis Pillow resizes
    first, rounding in between, depends on the size of what is resized: one of the two orders fits."""
    sample = random_sample(45, 61)
    height, width = round(45 * scale / aspect**0.5), round(61 * scale * aspect**0.5)
    image, cubic = Image.fromarray(sample.image), Image.Resampling.BICUBIC
    orders = [image.resize(first, cubic).resize((width, height), cubic) for first in ((width, 45), (61, height))]
    rows = np.floor((np.arange(height) + 0.5) * 45 / height).astype(int)
    columns = np.floor((np.arange(width) + 0.5) * 61 / width).astype(int)
    whole_label = sample.label[rows][:, columns]
    places = set()
    for seed in range(4):
        options = OFF | {"scale": (scale, scale), "aspect": (aspect, aspect)}
        result = Augmentation(crop=crop, **options)(sample, np.random.default_rng(seed))
        padded = np.full((height + 2 * crop[0], width + 2 * crop[1]), 255, np.uint8)
        padded[crop[0] : crop[0] + height, crop[1] : crop[1] + width] = whole_label
        windows = np.lib.stride_tricks.sliding_window_view(padded, crop)
        near = np.argwhere((windows[..., ::5, ::5] == result.label[::5, ::5]).all(axis=(2, 3)))
        found = [place for place in near.tolist() if np.array_equal(windows[*place], result.label)]
        assert len(found) == 1
        y, x = found[0]
        places.add((y, x))
        apart = []
        for whole in orders:
            pixels = np.empty((*padded.shape, 3), np.int64)
            pixels[:] = (124, 116, 104)
            pixels[crop[0] : crop[0] + height, crop[1] : crop[1] + width] = np.asarray(whole)
            apart.append(np.abs(pixels[y : y + crop[0], x : x + crop[1]] - result.image).max())
        assert min(apart) <= 1
        # a crop inside the image never shows padding, an image inside the crop is never cut
        assert min(crop[0], height) <= y <= max(crop[0], height)
        assert min(crop[1], width) <= x <= max(crop[1], width)
    assert len(places) > 2


@pytest.mark.parametrize("axis", [0, 1])
def test_edges_of_image_and_label_lie_in_the_same_place(axis):
    """Stripes, jittered in scale and aspect: where the image crosses grey, to a part of a pixel, and where the label
    changes. Rounding to whole pixels scatters by 0.3; the mean of 4,000 edges by 0.005."""
    stripes = (np.arange(300) // 17 % 2).astype(np.uint8)
    label = np.broadcast_to(stripes[:, None] if axis == 0 else stripes, (300, 300))
    sample = Sample(np.repeat(255 * label[..., None], 3, axis=2), np.ascontiguousarray(label), "stripes")
    augmentation = Augmentation(crop=(140, 8) if axis == 0 else (8, 140), colour_shift=0, mirror=False)
    apart = []
    for seed in range(500):
        result = augmentation(sample, np.random.default_rng(seed))
        row = np.s_[:, 4] if axis == 0 else np.s_[4]
        bright, numbers = result.image[row][:, 0].astype(float), result.label[row].astype(int)
        for edge in np.flatnonzero(np.abs(np.diff(numbers)) == 1) + 1:  # not those of the padding
            near = slice(max(edge - 2, 0), edge + 2)
            sign = numbers[edge] - numbers[edge - 1]
            line = sign * (bright[near] - 127.5)  # rises through 0 where the image's edge is
            place = np.flatnonzero((line[:-1] < 0) & (line[1:] >= 0))
            if len(line) == 4 and len(place) == 1:
                before, after = line[place[0] : place[0] + 2]
                apart.append(edge - (near.start + place[0] + 0.5 - before / (after - before)))
    assert len(apart) > 2000
    assert np.mean(apart) == pytest.approx(0, abs=0.02)


def test_labels_stay_labels_and_padding_is_mean_colour_and_ignored():
    sample = random_sample(10, 12)
    augmentation = Augmentation(crop=(64, 64), colour_shift=20, mean_colour=(1, 2, 3))
    for seed in range(50):
        result = augmentation(sample, np.random.default_rng(seed))
        assert set(np.unique(result.label)) <= {0, 1, 2, 255}
        outside = (result.image == (1, 2, 3)).all(axis=2)
        assert (result.label[outside] == 255).all()
        assert outside.sum() >= 64 * 64 - 27 * 27 * 1.3


def test_mirror_turns_image_and_label_together():
    label = np.arange(20 * 12, dtype=np.uint8).reshape(20, 12)
    sample = Sample(np.repeat(label[..., None], 3, axis=2), label, "ramp")
    augmentation = Augmentation(crop=(20, 12), **(OFF | {"mirror": True}))
    turned = 0
    for seed in range(200):
        result = augmentation(sample, np.random.default_rng(seed))
        assert np.array_equal(result.image[..., 1], result.label)
        assert np.array_equal(result.label, label) or np.array_equal(result.label, label[:, ::-1])
        turned += not np.array_equal(result.label, label)
    assert 70 < turned < 130  # 100 expected, standard deviation 7


def test_colour_shift_is_one_integer_a_channel_half_of_the_time():
    levels = np.array([[0, 100, 130, 255]], np.uint8)
    sample = Sample(np.repeat(levels[..., None], 3, axis=2), np.zeros((1, 4), np.uint8), "levels")
    augmentation = Augmentation(crop=(1, 4), **(OFF | {"colour_shift": 20}))
    shifts = []
    for seed in range(2000):
        image = augmentation(sample, np.random.default_rng(seed)).image.astype(int)[0]
        shift = image[1] - 100
        assert np.array_equal(image, np.clip(levels[0][:, None].astype(int) + shift, 0, 255))
        shifts.append(shift)
    drawn = np.array(shifts)
    assert (drawn.min(), drawn.max()) == (-20, 19)
    assert abs((drawn == 0).mean() - (0.5 + 0.5 / 40)) < 0.03
    assert np.abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.1


def test_every_choice_has_a_draw_of_its_own():
    place = np.arange(256, dtype=np.uint8).reshape(16, 16)
    sample = Sample(np.full((16, 16, 3), 100, np.uint8), place, "places")
    augmentation = Augmentation(crop=(4, 4), **(OFF | {"mirror": True, "colour_shift": 20}))
    rows = []
    for seed in range(600):
        result = augmentation(sample, np.random.default_rng(seed))
        left, right = (int(value) for value in result.label[0, [0, -1]])
        shift = result.image[0, 0].astype(int) - 100
        rows.append([left // 16, min(left, right) % 16, left > right, *shift, *(shift != 0)])
    drawn = np.array(rows, float).T
    assert [set(places) for places in drawn[:2]] == 2 * [set(range(13))]
    assert np.abs(np.corrcoef(drawn) - np.eye(9)).max() < 0.2  # the standard deviation of each is 0.04


def test_scale_and_aspect_follow_their_laws():
    """In a crop larger than any result, the valid labels show the resized size."""
    sample = Sample(np.zeros((200, 200, 3), np.uint8), np.zeros((200, 200), np.uint8), "square")
    augmentation = Augmentation(crop=(460, 460), colour_shift=0, mirror=False)
    scales, aspects = [], []
    for seed in range(400):
        valid = augmentation(sample, np.random.default_rng(seed)).label == 0
        height, width = valid.any(axis=1).sum(), valid.any(axis=0).sum()
        assert valid.sum() == height * width
        scales.append(math.log2(math.sqrt(height * width) / 200))
        aspects.append(width / height)
    assert -1.01 < min(scales) < -0.95
    assert 0.95 < max(scales) < 1.01
    assert abs(np.mean(scales)) < 0.1  # exponential: as many halved as doubled
    assert 0.79 < min(aspects) < 0.82
    assert 1.22 < max(aspects) < 1.26


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    crop=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 2**32),
)
def test_any_size_gives_exactly_the_crop(size, crop, seed):
    result = Augmentation(crop=crop)(random_sample(*size), np.random.default_rng(seed))
    assert result.image.shape == (*crop, 3)
    assert result.image.dtype == np.uint8
    assert result.label.shape == crop
    assert result.label.dtype == np.uint8
    assert result.image.flags.writeable
    assert result.label.flags.writeable
    assert set(np.unique(result.label)) <= {0, 1, 2, 255}


def test_a_sample_depends_on_seed_epoch_and_index_only():
    data = open_data("scenes:train=6", split="train")
    augmented = AugmentedData(data, Augmentation(crop=(40, 56)), seed=5)
    assert len(augmented) == 6
    keys = [(epoch, index) for epoch in (0, 1) for index in range(6)]
    expected = {key: augmented[key] for key in keys}
    for key in reversed(keys):
        assert same(augmented[key], expected[key])
    assert not same(expected[0, 2], expected[1, 2])
    other = AugmentedData(data, Augmentation(crop=(40, 56)), seed=6)
    assert not same(other[0, 2], expected[0, 2])


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_number_of_workers_changes_nothing(workers):
    augmented = AugmentedData(open_data("scenes:train=6", split="train"), Augmentation(crop=(32, 32)), seed=1)
    keys = [(3, index) for index in (4, 0, 5, 1, 3, 2)]
    loader = DataLoader(augmented, sampler=keys, batch_size=2, num_workers=workers, collate_fn=list)
    loaded = [sample for batch in loader for sample in batch]
    assert all(same(sample, augmented[key]) for sample, key in zip(loaded, keys, strict=True))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"crop": (0, 5)}, "crop: expected"),
        ({"scale": (0.0, 2.0)}, "scale: expected"),
        ({"scale": (2.0, 0.5)}, "scale: expected"),
        ({"aspect": (1.0, math.inf)}, "aspect: expected"),
        ({"aspect": (math.nan, 1.0)}, "aspect: expected"),
        ({"colour_shift": -1}, "colour_shift: expected"),
        ({"mean_colour": (0, 0, 300)}, "mean_colour: expected"),
    ],
)
def test_wrong_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**({"crop": (5, 5)} | wrong))
