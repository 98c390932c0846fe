"""Overlays, legends and sheets: what is painted where."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmodel.common.pictures import ENTRY, LINE, changes, colourise, edges, legend, overlay, sheet

PALETTE = np.array([(10, 20, 30), (200, 0, 0), (0, 200, 0)], np.uint8)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["background", "Background", "sky"]))
def test_nothing_is_laid_over_the_background(seed, name):
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (9, 11, 3), dtype=np.uint8)
    label = random.choice([0, 1, 2, 255], (9, 11)).astype(np.uint8)
    drawn = overlay(image, label, PALETTE, classes=(name, "a", "b"))
    inner, behind = ~edges(label), label == 0
    assert (drawn[~inner] == 255).all()
    mixed = np.round(0.4 * image + 0.6 * colourise(label, PALETTE))
    clear = behind & (name.lower() == "background")
    assert np.array_equal(drawn[inner & clear], image[inner & clear])
    assert np.array_equal(drawn[inner & ~clear], mixed[inner & ~clear].astype(np.uint8))


def test_a_legend_has_the_colours_of_the_classes_that_are_asked_for():
    drawn = legend({255, 0, 2}, ("sky", "a", "b"), PALETTE, width=2 * ENTRY)
    assert drawn.shape == (2 * LINE, 2 * ENTRY, 3)
    for place, colour in enumerate([(10, 20, 30), (0, 200, 0), (255, 255, 255)]):
        y, x = LINE * (place // 2), ENTRY * (place % 2)
        assert tuple(drawn[y + 8, x + 8].tolist()) == colour
        assert (drawn[y : y + LINE, x + 20 : x + ENTRY] < 128).any()  # a name
    assert legend(range(3), ("a", "b", "c"), PALETTE, width=5).shape == (3 * LINE, ENTRY, 3)


def test_a_name_that_is_too_long_stays_within_its_entry():
    long = legend([0, 1], ("x" * 500, "y"), PALETTE, width=2 * ENTRY)
    short = legend([0, 1], ("x", "y"), PALETTE, width=2 * ENTRY)
    assert np.array_equal(long[:, ENTRY:], short[:, ENTRY:])


@pytest.mark.parametrize("gap", [0, 4])
def test_columns_with_headings_are_aligned_above_a_legend(gap):
    colours = np.arange(4, dtype=np.uint8).reshape(2, 2)
    rows = [[np.full((5, 30 + 9 * row, 3), colour) for colour in colours[row]] for row in range(2)]
    key = np.zeros((7, 100, 3), np.uint8)
    drawn = sheet(rows, gap=gap, headings=("left", "right"), legend=key)
    assert drawn.shape == (gap + LINE + gap + 2 * (5 + gap) + 7 + gap, max(100, 2 * 39 + gap) + 2 * gap, 3)
    for row in range(2):
        y = 2 * gap + LINE + row * (5 + gap)
        for column in range(2):
            x = gap + column * (39 + gap)
            assert np.array_equal(drawn[y : y + 5, x : x + 30 + 9 * row], rows[row][column])
            assert (drawn[gap : gap + LINE, x : x + 39] < 128).any()
    assert not drawn[-gap - 7 : -gap or None, gap : gap + 100].any()


def test_changes_show_who_was_right():
    truth, before, after = np.array([[[0, 0, 0, 0, 255]], [[0, 1, 0, 1, 0]], [[0, 0, 1, 2, 1]]], np.uint8)
    image = np.zeros((1, 5, 3), np.uint8)
    same, mended, spoilt, wrong, ignored = changes(image, truth, before, after)[0].tolist()
    assert same == ignored == [170, 170, 170]
    assert mended[1] == max(mended) > 1.5 * mended[0]
    assert spoilt[0] == max(spoilt) > 3 * spoilt[1]
    assert wrong == [235, 160, 40]
