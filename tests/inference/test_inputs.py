"""What the refinement takes: layouts, lists, objects of other libraries, guides of any bands and ranges."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segmodel.inference.guides import image_tensor
from segmodel.inference.inputs import _fits, check_layout
from segmodel.inference.refine import refine, refine_mask
from segmodel.inference.refine_labels import refine_labels
from segmodel.inference.refine_map import refine_map
from segmodel.model.guided_filter import guide_from_image

CPU = torch.device("cpu")


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def picture(height: int = 24, width: int = 32, bands: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, bands), np.uint8)


@settings(max_examples=200, deadline=None)
@given(height=st.integers(64, 2000), width=st.integers(64, 2000), stride=st.sampled_from([1, 4, 8, 14, 16, 32]),
       classes=st.integers(2, 150), up=st.booleans())  # fmt: skip
def test_scores_of_any_stride_are_taken_as_they_lie(height, width, stride, classes, up):
    h, w = (-(-side // stride) if up else max(1, side // stride) for side in (height, width))
    turned = abs(np.log(classes / h * width / height)) < abs(np.log(h / w * width / height)) + 1e-9
    if not turned:  # as many classes as would be rows of a better ratio: only the name of the layout can tell
        check_layout("scores", numbers(1), (classes, h, w), (height, width))
    if w != classes and not _fits((w, classes), (height, width)):
        with pytest.raises(ValueError, match='layout="HWC"'):
            check_layout("scores", numbers(1), (h, w, classes), (height, width))


@pytest.mark.parametrize(
    ("shape", "size", "first"),
    [
        ((150, 128, 128), (480, 640), True),  # an image squeezed into a square
        ((128, 128, 150), (480, 640), False),
        ((128, 128, 23), (512, 512), False),
        ((23, 128, 128), (512, 512), True),
        ((16, 16, 15), (512, 512), False),  # 15 columns of 16 rows would almost fit
        ((19, 512, 1024), (480, 640), True),  # neither fits, class first is nearer
        ((480, 640, 2), (480, 640), False),
        ((21, 94, 125), (375, 500), True),
    ],
)
def test_a_layout_that_cannot_be_is_refused(shape, size, first):
    if first:
        check_layout("scores", numbers(*shape), shape, size)
    else:
        with pytest.raises(
            ValueError, match=r"scores: expected height and width last beside an image of .*; give layout"
        ):
            check_layout("scores", numbers(*shape), shape, size)


def test_scores_of_a_turned_photograph_are_refused():
    """A telephone stores a picture lying and says by EXIF that it stands."""
    with pytest.raises(
        ValueError, match=r"image of 96 x 128, got float32 \(3, 32, 24\), which fits it turned; turn one"
    ):
        refine(numbers(3, 32, 24), picture(96, 128))
    assert refine(numbers(3, 32, 24), picture(96, 128), layout="CHW").shape == (3, 96, 128)


def test_a_named_layout_is_that_of_the_result_too():
    scores, image = numbers(2, 4, 6, 8), np.stack([picture(), picture(seed=1)])
    expected = refine(scores, image)
    last = refine(scores.transpose(0, 2, 3, 1), image, layout="HWC")
    np.testing.assert_array_equal(last, expected.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(refine(scores, image, layout="CHW"), expected)
    tensor = refine(torch.from_numpy(scores[0]).permute(1, 2, 0), image[0], layout="HWC")
    np.testing.assert_allclose(tensor.permute(2, 0, 1), refine(scores[0], image[0]), rtol=1e-5, atol=1e-5)
    masks = scores[0] > 0
    np.testing.assert_array_equal(refine_mask(masks.transpose(1, 2, 0), image[0], layout="HWC").transpose(2, 0, 1),
                                  refine_mask(masks, image[0]))  # fmt: skip
    labels = scores[0].round().astype(np.int16)
    np.testing.assert_array_equal(refine_labels(labels.transpose(1, 2, 0), image[0], layout="HWC").transpose(2, 0, 1),
                                  refine_labels(labels, image[0]))  # fmt: skip
    np.testing.assert_array_equal(refine_map(scores[0].transpose(1, 2, 0), image[0], layout="HWC").transpose(2, 0, 1),
                                  refine_map(scores[0], image[0]))  # fmt: skip


class Interface:
    """An array of another library that only has the older interface."""

    def __init__(self, values: np.ndarray):
        self.values, self.__array_interface__ = values, values.__array_interface__


class Array:
    """As those of TensorFlow and JAX: no NumPy array, but one can be had."""

    def __init__(self, values: np.ndarray):
        self.values = values

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self.values


@pytest.mark.parametrize("wrap", [Array, Interface])
def test_arrays_of_other_libraries(wrap):
    scores, image = numbers(3, 6, 8), picture()
    expected = refine(scores, image)
    result = refine(wrap(scores), wrap(image))
    assert isinstance(result, np.ndarray)
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(refine_mask(wrap(scores[0] > 0), wrap(image)), refine_mask(scores[0] > 0, image))


def test_lists_of_scores_and_of_images_of_different_sizes():
    images = [picture(24, 32), picture(40, 20, seed=1)]
    scores = [numbers(3, 6, 8), numbers(5, 10, 5)]
    for got, values, image in zip(refine(scores, images), scores, images, strict=True):
        np.testing.assert_array_equal(got, refine(values, image))
    masks = [values[0] > 0 for values in scores]
    assert [mask.shape for mask in refine_mask(masks, tuple(images))] == [(24, 32), (40, 20)]
    with pytest.raises(ValueError, match=r"image: expected a list of 2, one for each in the first list, got uint8"):
        refine(scores, images[0])
    with pytest.raises(ValueError, match=r"image: expected a list of 2, .*, got 1"):
        refine(scores, images[:1])


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 6, 16])
def test_guides_of_many_bands_as_array_and_as_tensor(bands):
    scores, image = numbers(3, 6, 8), picture(bands=bands)
    expected = refine(scores, image, stride=2)
    assert np.abs(expected - refine(scores, image, stride=2, weight=0)).max() > 0.01
    first = image.transpose(2, 0, 1)
    np.testing.assert_array_equal(refine(scores, first, stride=2, image_layout="CHW"), expected)
    np.testing.assert_allclose(refine(torch.from_numpy(scores), torch.from_numpy(first), stride=2), expected,
                               rtol=1e-4, atol=1e-4)  # fmt: skip
    again = refine(scores, np.concatenate([image, image[..., :1]], 2), stride=2) if bands < 16 else None
    assert again is None or np.abs(again - expected).max() < 10  # a band twice is no error


@settings(max_examples=20, deadline=None)
@given(bands=st.integers(1, 6), low=st.floats(-1000, 1000), span=st.floats(0.1, 1e4), seed=st.integers(0, 99))
def test_a_range_is_a_linear_map_to_bytes(bands, low, span, seed):
    numbers_ = np.random.default_rng(seed)
    colours = numbers_.uniform(0, 255, (1, bands, 5, 7))
    spans = span * numbers_.uniform(0.5, 2, bands)
    ranges = [(low, low + one) for one in spans]
    given_ = low + colours * spans[:, None, None] / 255
    given_ = np.clip(given_, low, low + spans[:, None, None])
    got = image_tensor(torch.from_numpy(given_), image_range=ranges, device=CPU)
    np.testing.assert_allclose(got, colours, rtol=0, atol=1e-6)
    np.testing.assert_allclose(guide_from_image(torch.from_numpy(given_), (5, 7), ranges), colours, rtol=0, atol=1e-6)


def test_pictures_of_sixteen_bits_and_features_are_asked_for_their_range():
    image, scores = picture(), numbers(3, 6, 8)
    wide = image.astype(np.uint16) * 257
    np.testing.assert_allclose(refine(scores, wide, image_range=(0, 65535)), refine(scores, image), rtol=0, atol=1e-3)
    for values in (wide, torch.from_numpy(wide).permute(2, 0, 1), Image.fromarray(wide[..., 0])):
        with pytest.raises(ValueError, match=r"image: expected image_range=\(black, white\) for .*int16, got none"):
            refine(scores, values)
    assert refine(scores, Image.fromarray(wide[..., 0]), image_range=(0, 65535)).shape == (3, 24, 32)
    features = torch.randn(1, 12, 24, 32)
    with pytest.raises(ValueError, match=r"expected colours in 0..255, got -.*; give image_range=\(black, white\)"):
        refine(torch.from_numpy(scores)[None], features)
    assert refine(torch.from_numpy(scores)[None], features, image_range=(-6, 6)).shape == (1, 3, 24, 32)


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (picture(12, 14, 16), {}, r"bands that can be told from rows, got uint8 \(12, 14, 16\); give image_layout"),
        (picture(6, 40, 50), {}, r'got uint8 \(6, 40, 50\); bands first\? Then give image_layout="CHW"'),
        (torch.zeros(40, 50, 3), {}, r"image: expected a tensor .*; bands last\? Then give image_layout=\"HWC\""),
        (torch.zeros(12, 50, 3), {}, r"bands that can be told from rows"),
        (picture(20, 20, 17), {}, r"of 1 to 16 bands, got uint8 \(20, 20, 17\)$"),
        (picture(), {"layout": "RGB"}, r'image_layout: expected "CHW" or "HWC", got \'RGB\''),
        (picture(), {"image_range": [(0, 255)] * 2}, r"expected \(low, high\), or one for each of 3 bands, got 2"),
        (picture(), {"image_range": [(0, 255), (0, 255), (0, 9)]}, r"range, 0 to 9, got 0 to 255 in band 2; clip them"),
        (picture(), {"image_range": (0, 9)}, r"image: expected values in image_range, 0 to 9, got"),
        (picture() / np.nan, {"image_range": (0, 255)}, r"image: expected values in image_range, 0 to 255, got nan"),
    ],
)  # fmt: skip
def test_a_guide_that_could_be_misread_is_refused(image, options, message):
    with pytest.raises(ValueError, match=message):
        image_tensor(image, **{"image_range": None, **options}, device=CPU)
