"""Names of variants with settings, the rows that they are compared with, and the images where two differ most."""

import json
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from segmodel.common.errors import UserError
from segmodel.common.options import parsed
from segmodel.evaluation.boundary import SHARE
from segmodel.evaluation.evaluate import Counter
from segmodel.experiments.figures import most_changed, words_of_change
from segmodel.experiments.results import AS_IT_IS, WIDTHS
from segmodel.experiments.tables import Pair, Result, gains_table, part_pairs
from segmodel.experiments.variants import FIELDS, SHARED, Variant, of_folder, parse_variant, reference
from segmodel.model.config import VARIANTS
from segmodel.training.settings import Config

WORDS = st.text('ab1:/*?%|<>\\"=_-.\u00e9', max_size=9)
VALUES = {
    int: st.integers(-(2**60), 2**60),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    str: WORDS,
    tuple[tuple[int, int], ...]: st.lists(st.tuples(st.integers(), st.integers()).filter(
        lambda pair: max(map(abs, pair)) < 2**60), max_size=3).map(tuple),
}  # fmt: skip
SETTINGS = st.lists(
    st.sampled_from([name for name, (_, hint) in FIELDS.items() if hint in VALUES]).flatmap(
        lambda name: st.tuples(st.just(name), VALUES[FIELDS[name][1]])
    ),
    max_size=3,
    unique_by=lambda pair: pair[0],
)


@example("guide", [("rate", 1e300), ("backbone", "timm:a/b*?%|<>")])
@given(st.sampled_from(sorted(VARIANTS)), SETTINGS)
def test_a_variant_is_found_by_its_name_and_by_its_folder(base: str, settings: list) -> None:
    ordered = tuple(sorted(settings, key=lambda pair: list(FIELDS).index(pair[0])))
    variant = Variant(base, ordered)
    text = f"{base}:{'+'.join(name + '=' + _given(value) for name, value in settings)}" if settings else base
    assert parse_variant(text) == variant
    assert parse_variant(variant.name) == variant
    assert of_folder(variant.folder) == variant
    assert not set(variant.folder) & set('/\\:*?"<>|\0 \n')
    (alone,) = parsed(variant.name, tuple[str, ...], "variants")
    assert alone == variant.name
    assert parsed(f"{variant.name}, unary", tuple[str, ...], "variants") == (variant.name, "unary")


def _given(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@pytest.mark.parametrize("name", ["", "mine", "patch+", "patch+patch_sise=4", "guide+seed=3", "patch+patch_size=x"])
def test_other_folders_are_no_variants(name: str) -> None:
    assert of_folder(name) is None


def test_a_setting_wins_over_what_makes_the_variant_and_nothing_else_changes() -> None:
    plain, other = Variant("unary").config(Config(), 3), parse_variant("unary:patch_size=4+rate=1").config(Config(), 3)
    assert (plain.model.patch_size, plain.model.guidance, plain.train.seed) == (1, "off", 3)
    found = {name for part in ("model", "augmentation", "train") for name, value in vars(getattr(other, part)).items()
             if value != getattr(getattr(plain, part), name)}  # fmt: skip
    assert found == {"patch_size", "label_pool", "rate"}  # the window covers as much of the picture whatever n is
    assert (plain.model.label_pool, other.model.label_pool) == (13, 51)
    assert parse_variant("context:label_pool=7").config(Config(), 0).model.label_pool == 7
    with pytest.raises(UserError, match="--variants: patch:patch_size=0: patch_size: expected at least 1, got 0"):
        parse_variant("patch:patch_size=0").config(Config(), 0)
    assert not SHARED & FIELDS.keys()


def test_rows_stand_in_order_and_gain_over_the_row_they_belong_to() -> None:
    texts = ["ppm", "guide:guidance_radius=12", "guide", "patch:patch_size=16", "patch:patch_size=4", "patch", "unary",
             "guide:guidance_radius=3+rate=0.1", "context:rings=[[2,3]]", "context:rings=[[1,9]]"]  # fmt: skip
    variants = sorted(map(parse_variant, texts), key=lambda variant: variant.order)
    found = [(variant.name, one.name if (one := reference(variant, variants)) else None) for variant in variants]
    assert found == [
        ("unary", None),
        ("context:rings=[[1,9]]", "unary"),
        ("context:rings=[[2,3]]", "context:rings=[[1,9]]"),
        ("patch", "context:rings=[[1,9]]"),
        ("patch:patch_size=4", "patch"),
        ("patch:patch_size=16", "patch"),
        ("guide", "patch"),
        ("guide:guidance_radius=3+rate=0.1", "guide"),
        ("guide:guidance_radius=12", "guide"),
        ("ppm", "guide"),
    ]
    assert reference(Variant("aspp"), [Variant("aspp"), Variant("ppm")]) is None


def counted(maps: np.ndarray, truth: np.ndarray):
    counter = Counter(3, boundary=SHARE, widths=WIDTHS)
    for number, (prediction, label) in enumerate(zip(maps, truth, strict=True)):
        counter.add(prediction, label, name=f"image {number}")
    return counter.evaluation()


def test_the_images_that_change_most_and_what_changed() -> None:
    truth = np.repeat(np.array([[0] * 8 + [1] * 8], np.uint8), 6, 0).reshape(6, 4, 4)
    before, after = truth.copy(), truth.copy()
    before[1], after[1] = 1, 0  # as good as before
    before[2] = 2  # nothing right before, all right now
    before[3, 0] = 2
    after[4, :3] = 2
    after[5, 0, 0] = 2
    one, other = counted(before, truth), counted(after, truth)
    assert most_changed(one, other) == [2, 3, 4]
    assert most_changed(other, one) == [4, 5, 2]
    assert most_changed(one, one) == []
    rows = [Result(Variant(name), AS_IT_IS, {7: figures}) for name, figures in (("unary", one), ("guide", other))]
    pair = part_pairs(rows)["guide"]
    assert (pair.one, pair.other, pair.seeds) == (*rows, [7])
    assert words_of_change(pair, 7, 4, "abc") == "image 4: mIoU 100.0 to 25.0; a 100 to 0, b 100 to 50"
    assert words_of_change(pair, 7, 5, "abc") == "image 5: mIoU 100.0 to 93.8; a 100 to 88"


def test_an_image_without_labels_has_not_changed() -> None:
    truth = np.full((2, 4, 4), 255, np.uint8)
    truth[1] = 0
    before = np.zeros((2, 4, 4), np.uint8)
    assert most_changed(counted(before, truth), counted(before + 1, truth)) == [1]


def test_a_pair_is_compared_over_the_seeds_that_both_have() -> None:
    truth = np.zeros((3, 2, 2), np.uint8)
    right, wrong = counted(truth, truth), counted(truth + 1, truth)
    one = Result(Variant("unary"), AS_IT_IS, {0: wrong, 1: right})
    other = Result(Variant("context"), AS_IT_IS, {1: right, 2: wrong})
    pair = Pair(one, other)
    assert pair.seeds == [1]
    assert pair.gain().value == 0
    assert not math.isnan(pair.gain().low)
    rows = [Result(Variant(name), AS_IT_IS, {1: right}) for name in ("unary", "guide")]
    steps = [row[0] for row in gains_table(rows, []).rows]
    assert steps == ["unary -> guide"]
    assert part_pairs([one, Result(Variant("context"), AS_IT_IS, {5: right})]) == {}
