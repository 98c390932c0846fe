"""Refinement tile by tile: equal to the whole at any size and cut, memory bounded, files by windows."""

import re

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional

from segmodel.common import cli
from segmodel.common.errors import UserError
from segmodel.experiments.timing import added_memory
from segmodel.inference.refine import refine
from segmodel.inference.refinement import refined, refining_crf
from segmodel.inference.tiles import Plan, Tiles, bytes_of, interpolation, plan, refine_tiles
from segmodel.inference.windows import ArrayWindows, picture_windows, release
from segmodel.model.guidance_crf import GuidanceCRF
from segmodel.model.untrained_crf import Refinement
from segmodel.refine import main


def scene(size, cells, classes=3, bands=3, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    rows, columns = (np.arange(side) * 6 // side for side in size)
    picture = 40 * ((rows[:, None] + columns) % 5)[..., None] + rng.integers(0, 30, (*size, bands))
    return 3 * rng.standard_normal((classes, *cells)).astype(dtype), picture.astype(np.uint8)


def by_tiles(scores, picture, own, tile, trained=None):
    size, resolved = picture.shape[:2], own.resolved(torch.from_numpy(scores)[None], picture.shape[:2])
    halo = -(-resolved.reach // resolved.stride) * resolved.stride
    cut = Plan(size, tuple(side * resolved.stride for side in tile), halo, resolved.stride, 0)
    work = Tiles(ArrayWindows(scores, axis=1), picture_windows(picture), cut, refining_crf(resolved, trained, (0, 255)))
    out = np.full((len(scores), *size), np.nan, scores.dtype)
    for rows, columns in cut.tiles():
        for part, values in work.refined(rows, columns):
            out[:, part, columns] = values
    return out


def whole(scores, picture, own):
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].to(torch.promote_types(torch.float32, own_dtype(scores)))
    return refined(torch.from_numpy(scores)[None], pixels, own, None, (0, 255))[0].numpy()


def own_dtype(scores):
    return torch.from_numpy(scores).dtype


@settings(deadline=None, max_examples=8)
@given(
    st.tuples(st.integers(20, 90), st.integers(20, 90)),
    st.tuples(st.integers(1, 100), st.integers(1, 100)),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from([1, 2, 3, 4, 8]),
    st.integers(0, 3),
    st.sampled_from([0.0, 0.75]),
    st.integers(0, 3),
    st.sampled_from([np.float32, np.float64]),
    st.booleans(),
)
@example((20, 52), (7, 18), (1, 1), 3, 0, 0.0, 0, np.float32, True)  # positions of thirds, rounded as in the whole
def test_tiles_are_the_whole(size, cells, tile, stride, radius, balance, iterations, dtype, on_blocks):
    cells = tuple(-(-side // stride) for side in size) if on_blocks else cells
    scores, picture = scene(size, cells, dtype=dtype)
    own = Refinement(stride=stride, radius=radius, weight=4.0, balance=balance, iterations=iterations)
    difference = np.abs(by_tiles(scores, picture, own, tile) - whole(scores, picture, own)).max()
    assert difference < (1e-5 if dtype == np.float32 else 1e-9)


def test_a_halo_that_is_too_narrow_is_seen():
    scores, picture = scene((80, 80), (20, 20))
    own = Refinement(stride=4, radius=2, weight=8.0, iterations=3)
    resolved = own.resolved(torch.from_numpy(scores)[None], (80, 80))
    cut = Plan((80, 80), (16, 16), 8, 4, 0)
    work = Tiles(ArrayWindows(scores, axis=1), picture_windows(picture), cut, refining_crf(resolved, None, (0, 255)))
    ((part, values),) = work.refined(slice(16, 32), slice(16, 32))
    assert np.abs(values - whole(scores, picture, own)[:, part, 16:32]).max() > 1e-3


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(2, 9000), st.data())
def test_interpolation_is_that_of_torch(cells, pixels, data):
    start = data.draw(st.integers(0, pixels - 1))
    part = slice(start, data.draw(st.integers(start + 1, pixels)))
    line = torch.randn(1, 1, 1, cells, generator=torch.Generator().manual_seed(0))
    larger = cells > pixels
    expected = functional.interpolate(line, (1, pixels), mode="bilinear", antialias=larger)[0, 0, 0, part]
    index, weight = interpolation(cells, pixels, part, np.dtype(np.float32), antialias=larger)
    assert np.abs((line[0, 0, 0].numpy()[index] * weight).sum(1) - expected.numpy()).max() < 1e-5


def test_public_function_is_refine_with_labels_or_logits(tmp_path):
    scores, picture = scene((700, 1100), (88, 138), classes=4)
    own = Refinement(stride=4, radius=3, weight=4.0, balance=0.5, iterations=1)
    expected = refine(scores, picture, stride=4, radius=3, weight=4.0, balance=0.5, iterations=1)
    small = plan((700, 1100), own.resolved(torch.zeros(1), (700, 1100)), classes=4, bands=3, max_memory=2**62)
    least = small.memory - 1
    cut = plan((700, 1100), own.resolved(torch.zeros(1), (700, 1100)), classes=4, bands=3, max_memory=least)
    assert len(list(small.tiles())) == 1 < len(list(cut.tiles()))
    logits = refine_tiles(scores, picture, own=own, labels=False, max_memory=least)
    assert logits.dtype == np.float32
    assert np.abs(logits - expected).max() < 1e-5
    np.save(tmp_path / "scores.npy", scores)
    np.save(tmp_path / "picture.npy", picture)
    path = refine_tiles(tmp_path / "scores.npy", tmp_path / "picture.npy", tmp_path / "labels.npy", own=own)
    assert path == tmp_path / "labels.npy"
    labels = np.load(path)
    assert labels.dtype == np.uint8
    assert (labels == logits.argmax(0)).mean() > 0.9999
    assert sorted(file.name for file in tmp_path.iterdir()) == ["labels.npy", "picture.npy", "scores.npy"]


def test_the_command_refines_a_geotiff_and_a_photograph(tmp_path, capsys):
    rasterio = pytest.importorskip("rasterio")
    scores, picture = scene((300, 420), (75, 105))
    np.save(tmp_path / "s.npy", scores)
    Image.fromarray(picture).save(tmp_path / "i.png")
    with rasterio.open(tmp_path / "i.tif", "w", driver="GTiff", height=300, width=420, count=3, dtype="uint8",
                       crs="EPSG:32633") as file:  # fmt: skip
        file.write(np.moveaxis(picture, 2, 0))
    options = ["--radius", "2", "--max-memory", "600MB"]
    for image, output in (("i.tif", "o.tif"), ("i.png", "o.npy")):
        given = [str(tmp_path / image), str(tmp_path / "s.npy"), "--output", str(tmp_path / output), *options]
        assert cli.run("refine", main, given) == 0
    with rasterio.open(tmp_path / "o.tif") as file:
        assert np.array_equal(file.read(1), np.load(tmp_path / "o.npy"))
    expected = refine(scores, picture, radius=2)
    assert (np.load(tmp_path / "o.npy") == expected.argmax(0)).mean() > 0.9999
    assert np.abs(refine(scores, picture, radius=2, max_memory=2**30) - expected).max() < 1e-5
    capsys.readouterr()
    wrong = {
        ("--max-memory", "much"): "max_memory: expected a size such as 4GB or 800MB, got 'much'",
        ("--max-memory", "1MB"): "max_memory: expected at least",
        ("--max-memory", "1GB", "--labels"): "--max-memory: expected one picture and scores",
    }
    for more, message in wrong.items():
        given = [str(tmp_path / "i.png"), str(tmp_path / "s.npy"), "--output", str(tmp_path / "p.npy"), *more]
        assert cli.run("refine", main, given) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "p.npy").exists()


def test_a_trained_crf_has_its_own_reach():
    scores, picture = scene((64, 64), (16, 16))
    crf = GuidanceCRF(3, radius=2, iterations=2, weight=1.5)
    found = refine_tiles(scores, picture, crf=crf, labels=False)
    assert np.abs(found - refine(scores, picture, crf=crf)).max() < 1e-5


@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize(("classes", "bands", "stride", "cells"), [(8, 3, 4, 300), (2, 3, 1, 300), (24, 1, 4, 600)])
def test_memory_is_as_planned(tmp_path, monkeypatch, classes, bands, stride, cells, backend):
    monkeypatch.setenv("SEGMODEL_BACKEND", backend)
    size = (800, 800) if stride == 1 else (2000, 2000)
    scores, picture = scene(size, (cells, cells), classes=classes, bands=bands, dtype=np.float32)
    np.save(tmp_path / "s.npy", scores.astype(np.float16))
    np.save(tmp_path / "i.npy", picture)
    del scores, picture
    own = Refinement(stride=stride, radius=2, weight=4.0, balance=0.5, iterations=1)
    resolved = own.resolved(torch.zeros(1), size)
    memory = plan(size, resolved, classes=classes, bands=bands, max_memory=2**62).memory
    files = [tmp_path / f"{name}.npy" for name in "sio"]
    refine_tiles(
        scene((40, 40), (10, 10), classes=classes, bands=bands)[0], np.zeros((40, 40, bands), np.uint8), own=own
    )
    used = added_memory(lambda: refine_tiles(*files, own=own, max_memory=memory))
    if used is None:
        pytest.skip("Linux's counters are missing")
    print(f"planned {memory / 2**20:.0f} MiB, used {used:.0f} MiB")
    assert used * 2**20 < memory


def test_geotiff_keeps_its_georeference(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    scores, picture = scene((600, 700), (150, 175))
    transform = rasterio.transform.from_origin(500000, 4100000, 0.5, 0.5)
    with rasterio.open(tmp_path / "i.tif", "w", driver="GTiff", height=600, width=700, count=3, dtype="uint8",
                       crs="EPSG:32633", transform=transform) as file:  # fmt: skip
        file.write(np.moveaxis(picture, 2, 0))
    own = Refinement(stride=4, radius=2, weight=4.0, iterations=2)
    expected = refine_tiles(scores, picture, own=own)
    refine_tiles(scores, tmp_path / "i.tif", tmp_path / "o.tif", own=own)
    with rasterio.open(tmp_path / "o.tif") as file:
        assert file.crs.to_epsg() == 32633
        assert file.transform == transform
        assert np.array_equal(file.read(1), expected)
    refine_tiles(scores, tmp_path / "i.tif", tmp_path / "l.tif", own=own, labels=False)
    with rasterio.open(tmp_path / "l.tif") as file:
        assert (file.count, file.dtypes[0]) == (3, "float32")
        assert np.array_equal(file.read().argmax(0), expected)
    (tmp_path / "broken.tif").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"broken.tif: cannot be read as a picture"):
        refine_tiles(scores, tmp_path / "broken.tif")


def test_pages_of_a_mapped_file_are_let_go(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(10))
    array = np.lib.format.open_memmap(tmp_path / "a.npy", mode="r+")
    array[3] = 7
    release(array[2:5])
    release(np.arange(3))
    assert array[3] == 7
    changed = np.load(tmp_path / "a.npy", mmap_mode="c")
    changed[0] = 5
    release(changed)  # changes that are this process's alone stay
    assert changed[0] == 5


def test_sizes_of_memory():
    found = [bytes_of(text) for text in ("4GB", "1.5 GiB", "800m", "2000000")]
    assert found == [2**32, 3 * 2**29, 800 * 2**20, 2 * 10**6]
    for text in ("", "0", "GB", "4 gallons", "-3GB"):
        with pytest.raises(ValueError, match=re.escape(f"got {text!r}")):
            bytes_of(text)


BAD = {
    "scores: expected finite": lambda s, i: (np.where(s > 2, np.nan, s), i, {}),
    "scores: expected logits": lambda s, i: (np.full((2, 8, 8), 0.5, np.float32), i, {}),
    "scores: expected floating point": lambda s, i: (s[0], i, {}),
    "class last": lambda s, i: (np.zeros((32, 32, 2), np.float32), i, {}),
    "image_range: expected": lambda s, i: (s, i.astype(np.uint16), {}),
    "image: expected": lambda s, i: (s, i[..., 0, 0], {}),
    "max_memory: expected at least": lambda s, i: (s, i, {"max_memory": 1000}),
    "labels: expected at most 256": lambda s, i: (np.random.rand(257, 2, 2).astype(np.float32) - 5, i, {}),  # noqa: NPY002
}


@pytest.mark.parametrize("message", BAD)
def test_what_does_not_fit_is_named(message, tmp_path):
    scores, picture, options = BAD[message](*scene((32, 32), (8, 8)))
    with pytest.raises(ValueError, match=message):
        refine_tiles(scores, picture, tmp_path / "out.npy", own=Refinement.paper(), **options)
    assert not list(tmp_path.iterdir())
