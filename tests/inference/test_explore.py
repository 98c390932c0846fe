"""The page on which a refinement is tried by hand: what is stored in it, and its JavaScript against ``refine``."""

import base64
import json
import re
import zlib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segmodel import reference
from segmodel.common import cli
from segmodel.inference import explore
from segmodel.inference.explore import explorer
from segmodel.inference.refinement import refined
from segmodel.model.untrained_crf import Refinement, Resolved
from segmodel.model.upsampling import area_average
from segmodel.refine import main

SETTINGS = [
    {"stride": 4, "radius": 3, "weight": 2.0, "balance": 0.0, "iterations": 3},
    {"stride": 3, "radius": 9, "weight": 6.5, "balance": 0.4, "iterations": 2, "eps": 30.0},
    {"stride": 1, "radius": 2, "weight": 4.0, "balance": 1.0, "iterations": 1},
    {"stride": 8, "radius": 20, "weight": 1.0, "balance": 0.2, "iterations": 5, "eps": 0.05},
]


def pictures(height: int = 50, width: int = 67, classes: int = 4, stride: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Scores (C, h, w) of blobs at a stride, and a picture (H, W, 3) whose colours go with them."""
    rng = np.random.default_rng(3)
    cells = (classes, -(-height // stride), -(-width // stride))
    scores = 3 * rng.normal(size=cells).astype(np.float32)
    label = scores.argmax(0).repeat(stride, 0).repeat(stride, 1)[:height, :width]
    image = rng.integers(0, 256, (classes, 3))[label] + rng.integers(-20, 20, (height, width, 1))
    return scores, image.clip(0, 255).astype(np.uint8)


def stored(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def unpacked(text: str) -> np.ndarray:
    low, high = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(2, -1).astype(np.uint16)
    return low + (high << 8)


def scores_of(data: dict) -> np.ndarray:
    return unpacked(data["scores"]).view(np.float16).reshape(len(data["classes"]), *data["cells"]).astype(np.float32)


@pytest.mark.parametrize("own", SETTINGS)
@pytest.mark.parametrize("stride", [8, 3, 1])
def test_the_javascript_computes_what_refine_does(own: dict, stride: int):
    """Also where the scores are those of the blocks (3 and 1), and where a last block is not whole."""
    mini_racer = pytest.importorskip(
        "py_mini_racer", reason="the embedded V8 is an extra: pip install 'segmodel[test]'"
    )
    scores, image = pictures(stride=stride)
    data = stored(explorer(scores, image, title="t", **own))
    guide = data["guides"][str(own["stride"])]
    colours = unpacked(guide["colours"]).reshape(3, -1) / guide["units"]
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    np.testing.assert_allclose(colours, area_average(pixels, own["stride"])[0].reshape(3, -1), rtol=0, atol=1e-4)
    context = mini_racer.MiniRacer()
    context.eval(Path(reference.__file__).with_name("arithmetic.js").read_text(encoding="utf-8"))
    values = {"scores": scores_of(data).reshape(len(scores), -1).tolist(), "guide": colours.tolist(),
              "own": data["settings"], "cells": data["cells"], "size": data["size"]}  # fmt: skip
    told = json.loads(
        context.eval(f"""
        const {{scores, guide, own, cells, size}} = {json.dumps(values)};
        const blocks = size.map((side) => Math.ceil(side / own.stride));
        const given = cells.every((side, k) => side === blocks[k]);
        const fine = scores.map((plane) => interpolate(plane, cells, size));
        const coarse = given ? scores : fine.map((plane) => blockMeans(plane, size, own.stride));
        const found = refine(coarse.map((plane) => Float64Array.from(plane)), given ? null : fine, size, guide, own);
        JSON.stringify([Array.from(found.labels), Array.from(found.best)])
    """)
    )
    expected = refined(torch.from_numpy(scores_of(data))[None], pixels, Refinement(**own), None, (0, 255))[0].numpy()
    labels = np.reshape(told[0], image.shape[:2])
    np.testing.assert_allclose(np.reshape(told[1], image.shape[:2]), expected.max(0), rtol=0, atol=1e-3)
    gap = np.diff(np.sort(expected, axis=0)[-2:], axis=0)[0]
    assert (labels == expected.argmax(0))[gap > 1e-3].all()
    before = scores.argmax(0).repeat(stride, 0).repeat(stride, 1)[: len(labels), : labels.shape[1]]
    assert own["balance"] == 1 or (labels != before).any()


def test_the_settings_and_classes_are_on_the_page():
    scores, image = pictures()
    page = explorer(scores, image, title="photo <1>", names=["sky", "</script>", "c", "d"])
    data = stored(page)
    found = Refinement().resolved(torch.from_numpy(scores)[None], image.shape[:2])
    assert data["settings"] == {name: pytest.approx(value, rel=1e-3) for name, value in asdict(found).items()}
    assert data["names"] == ["sky", "</script>", "c", "d"]
    assert "photo &lt;1&gt;" in page
    assert page.count("</script>") == 2
    assert "0 of 3,350 pixels (0.00 %) have another label" in page
    assert not re.search(r"(?:src|href)=[\"'](?!data:image/jpeg)", page)


@pytest.mark.parametrize(("limits", "notes"), [
    ({"LARGEST": 62_000}, ["Scores are means of 2 x 2"]),
    ({"PIXELS": 900}, ["A pixel of this page is 2 x 2 of the photograph"]),
    ({"POSSIBLE": 0.3, "LARGEST": 1}, ["1 of 5 classes are left out"]),
])  # fmt: skip
def test_what_is_too_large_is_stored_more_coarsely_and_said(limits: dict, notes: list[str],
                                                            monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    rng = np.random.default_rng(0)
    scores, image = rng.normal(size=(5, 40, 52)).astype(np.float32), pictures(40, 52)[1]
    scores[3] -= 6
    for name, value in limits.items():
        monkeypatch.setattr(explore, name, value)
    if "LARGEST" in limits and "POSSIBLE" not in limits:
        monkeypatch.setattr(explore, "LARGEST", len(explorer(scores, image, title="t")) - 3000)
    page = explorer(scores, image, title="t", stride=2, radius=2, weight=2.0, balance=0.0)
    assert all(note in page for note in notes)
    factor = stored(page)["factor"]
    assert stored(page)["settings"]["stride"] * factor == 2


def test_labels_are_counted_against_refine_where_scores_are_coarser(monkeypatch: pytest.MonkeyPatch):
    scores = np.random.default_rng(0).normal(size=(3, 50, 67)).astype(np.float32)
    monkeypatch.setattr(explore, "LARGEST", 0)
    page = explorer(scores, pictures()[1], title="t")
    wrong = int(re.search(r"With the first settings ([\d,]+) of", page)[1].replace(",", ""))
    assert wrong > 1000


def test_the_rounded_settings_are_four_digits():
    found = explore._rounded(Resolved(4, 3, 1.00004, 6.83726, 0.123456, 3))
    assert (found.eps, found.weight, found.balance) == (1.0, 6.837, 0.1235)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    scores, image = pictures()
    Image.fromarray(image).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", scores)
    shares = np.exp(scores) / np.exp(scores).sum(0)
    np.save(tmp_path / "shares.npy", shares)
    np.save(tmp_path / "mask.npy", (shares[0] > 0.5))

    def run(*arguments: object) -> int:
        return cli.run("refine", main, [str(tmp_path / "a.png"), *map(str, arguments)])

    assert run(tmp_path / "a.npy", "--page", tmp_path / "a.html", "--radius", 5, "--names", "p,q,r,s") == 0
    data = stored((tmp_path / "a.html").read_text())
    assert data["settings"]["radius"] == 5
    assert data["names"] == list("pqrs")
    assert run(tmp_path / "shares.npy", "--probabilities", "--page", tmp_path / "b.html", "--output",
               tmp_path / "b.png") == 0  # fmt: skip
    assert (tmp_path / "b.html").exists()
    assert (tmp_path / "b.png").exists()
    np.testing.assert_allclose(scores_of(stored((tmp_path / "b.html").read_text())), scores - scores.max(0), atol=2e-2)
    capsys.readouterr()
    for arguments, message in (
        ((tmp_path / "a.npy",), "--output: expected a file or a folder, or --page, got neither"),
        ((tmp_path / "a.npy", "--page", tmp_path / "a.html"), "exists already"),
        ((tmp_path / "a.npy", "--page", tmp_path / "a.txt"), "--page: expected a .html file in an existing folder"),
        ((tmp_path / "a.npy", "--page", tmp_path / "c.html", "--names", "p,q"), "names: expected one for each"),
        (
            (tmp_path / "a.npy", "--page", tmp_path / "c.html", "--labels"),
            "--page: expected one picture and its scores",
        ),
        ((tmp_path / "mask.npy", "--page", tmp_path / "c.html"), "expected floating point (C, h, w)"),
        ((tmp_path / "shares.npy", "--page", tmp_path / "c.html"), "say --probabilities"),
    ):
        assert run(*arguments) == 2
        errors = capsys.readouterr().err
        assert message in errors
        assert errors.count("\n") == 1
    assert not (tmp_path / "c.html").exists()
