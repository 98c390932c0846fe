"""Both pages in a browser without a network: sliders are moved, and what is read there is compared with the oracle."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("playwright.sync_api", reason="drives a browser: tox -e browser")
pytest.importorskip("docutils", reason="the paper's page is an extra: pip install 'segmodel[page]'")

from playwright.sync_api import sync_playwright

from segmodel.common import html
from segmodel.common.tables import Table
from segmodel.inference.explore import explorer
from segmodel.inference.refine import refine
from segmodel.inference.refinement import read_settings
from segmodel.reference import figures, page
from segmodel.reference.arrays import bilinear_upsample, one_hot, softmax
from segmodel.reference.bilinear_target import coarse_targets, fit_scores
from segmodel.reference.context_crf import Ring, ring_boxes
from segmodel.reference.guidance_crf import guidance_crf_steps, guidance_functional, potts
from segmodel.reference.guided_filter import BORDERS, guided_filter_adjoint

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = os.environ.get("SEGMODEL_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
WIDTHS = pytest.mark.parametrize("width", [1300, 390])
if BROWSER is None:
    pytest.skip(f"no browser: none of {', '.join(NAMES)} on the path, no SEGMODEL_BROWSER", allow_module_level=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])  # root in a container
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Any, file: Path, width: int, scheme: str = "light", *, drawn: str = ".numbers tbody tr"
) -> Iterator[Any]:
    """A page whose figures are drawn; at the end there was no error, no request, and nothing wider than the screen."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True,
                                  permissions=["clipboard-read", "clipboard-write"])  # fmt: skip
    tab, wrong = context.new_page(), []
    tab.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("request", lambda request: None if request.url.startswith(("data:", "blob:", file.as_uri()))
           else wrong.append(request.url))  # fmt: skip
    tab.goto(file.as_uri())
    tab.wait_for_selector(drawn)
    settle(tab)
    yield tab
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert not wrong
    context.close()


def settle(tab: Any) -> None:
    """Waits until what a slider asked for is drawn."""
    tab.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def move(place: Any, **sliders: float) -> None:
    """Sets sliders by the start of their names."""
    for name, value in sliders.items():
        place.locator(f'input[type=range][name^="{name.replace("_", " ")}"]').fill(str(value))
    settle(place.page if hasattr(place, "page") else place)


def table(place: Any, number: int = 0) -> list[list[str]]:
    """The rows of a figure's table of numbers."""
    rows = place.locator(".numbers:has(tbody)").filter(has=place.page.locator("thead")).nth(number).locator("tbody tr")
    return [[cell.replace("\u2212", "-").replace(",", "") for cell in row.locator("th, td").all_inner_texts()]
            for row in rows.all()]  # fmt: skip


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("paper") / "paper.html"
    file.write_text(page.render([("image", "a picture", "1 x 3 x 8 x 8")]), encoding="utf-8")
    assert file.stat().st_size <= 600 * 1024
    return file


@WIDTHS
def test_weights_of_a_pixel(browser: Any, paper: Path, width: int):
    data = figures.weights_data()
    guide = figures.scene()[0][22:52, 56:96].round().clip(0, 255)
    with opened(browser, paper, width) as tab:
        place = tab.locator("[data-figure=weights]")
        move(place, radius=2, epsilon=1.5)
        canvas = place.locator("canvas").nth(1)
        canvas.focus()
        for key in ("ArrowUp", "ArrowUp", "ArrowUp", "ArrowLeft"):  # the third meets the border
            tab.keyboard.press(key)
        settle(tab)
        found, pixel = np.array([row[1:] for row in table(place)], float), 0 * data["width"] + 13
        assert "Pixel i: row 0, column 13" in place.inner_text()
        area = canvas.bounding_box()
        canvas.hover(position={"x": 15.5 / data["width"] * area["width"], "y": 1.5 / data["height"] * area["height"]})
        settle(tab)
        hovered = place.locator(".status").nth(1).inner_text()
        place.locator("canvas").nth(0).click(position={"x": 20.5 * area["width"] / 40, "y": 15.5 * area["height"] / 30})
        settle(tab)
        assert "row 15, column 20" in place.locator(".status").nth(0).inner_text()

    def row(i: int, border: str) -> np.ndarray:
        """Row i of W: the adjoint applied to pixel i alone."""
        here = np.zeros((*guide.shape[:2], 1))
        here.flat[i] = 1
        epsilon = float(f"{10**1.5:.4g}")
        return guided_filter_adjoint(here, guide, radius=2, epsilon=epsilon, border=border).ravel()

    for column, border in zip(found.T, BORDERS, strict=True):
        w = row(pixel, border)
        negative = w[w < -1e-12]
        expected = [w.sum(), w[pixel], w.max(), w.min(), len(negative), negative.sum()]
        np.testing.assert_allclose(column, expected, rtol=0, atol=5.1e-5)
    other = data["width"] + 15
    assert (
        f"row 1, column 15; w_ij = {row(pixel, 'clipped')[other]:.6f}, w_ji = {row(other, 'clipped')[pixel]:.6f}"
        in hovered
    )


@WIDTHS
@pytest.mark.parametrize("drawn", [False, True])
def test_algorithm_1(browser: Any, paper: Path, width: int, drawn: bool):
    image, labels = figures.scene(96)
    coarse = np.log(np.maximum(coarse_targets(one_hot(labels, 3), factor=4), 0.1))
    scores, guide, mu = bilinear_upsample(coarse, factor=4), image.round().clip(0, 255), potts(3)
    with opened(browser, paper, width, "dark") as tab:
        place = tab.locator("[data-figure=algorithm]")
        move(place, **{"lambda": 6.5, "radius": 7, "epsilon": 2, "iterations": 4})
        if drawn:
            place.get_by_label("mu(a, b)").fill("-3.5")
            mu[0, 1] = -3.5
            settle(tab)
        found, status = table(place), place.locator(".status").inner_text()
    options = {"compatibility": mu, "weight": 6.5, "radius": 7, "epsilon": 100.0}
    steps = guidance_crf_steps(scores, guide, iterations=4, **options)
    values = [guidance_functional(softmax(phi), scores, guide, **options) for phi in steps]
    np.testing.assert_allclose([float(row[1]) for row in found], values, rtol=1e-6, atol=0.01)
    wrong = [100 * (phi.argmax(2) != labels).mean() for phi in steps]
    assert [row[2] for row in found] == [f"{share:.2f} %" for share in wrong]
    edge = np.zeros(labels.shape, bool)
    edge[1:] |= labels[1:] != labels[:-1]
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    near = np.lib.stride_tricks.sliding_window_view(np.pad(edge, 2), (5, 5)).any((2, 3))
    assert [row[3] for row in found] == [f"{100 * (phi.argmax(2) != labels)[near].mean():.2f} %" for phi in steps]
    rises = sum(after > before + 1e-9 * abs(before) for before, after in pairwise(values))
    assert f"F rises {rises} times of 4" in status
    assert ("Nothing is promised" in status) == drawn


@WIDTHS
def test_cells_and_rings(browser: Any, paper: Path, width: int):
    with opened(browser, paper, width) as tab:
        place = tab.locator("[data-figure=cells]")
        move(place, first_pixel=5, pixels_of_b=4, pixels_of_a=7)
        cells = table(place)
        place = tab.locator("[data-figure=rings]")
        place.locator('input[name="near ring: radius"]').fill("4")
        place.locator('input[name="far ring: distance"]').fill("9")
        settle(tab)
        rings = table(place)
    line = np.array([int(i >= 5 and (i - 5) % 11 < 4) for i in range(48)])
    for row, n in zip(cells, (1, 2, 4), strict=True):
        cell = 16 // n
        p = one_hot(line[None].repeat(cell, axis=0), 2)
        histogram, scores = coarse_targets(p, factor=cell)[0, :, 1], fit_scores(p, factor=cell)
        said = bilinear_upsample(scores, factor=cell)[0].argmax(1)
        assert row[:4] == [f"{n}", f"{cell}", f"{((histogram > 0) & (histogram < 1)).sum()} of {48 // cell}",
                           f"{(said != line).sum()} of 48"]  # fmt: skip
        np.testing.assert_allclose(np.array(row[4].split(), float), histogram, rtol=0, atol=5.1e-4)
        np.testing.assert_allclose(np.array(row[5].split(), float), softmax(scores)[0, :, 1], rtol=0, atol=5.1e-4)
    seen = np.zeros((2, 27, 27), int)
    for count, ring in zip(seen, (Ring(4, 6), Ring(4, 9)), strict=True):
        for top, bottom, left, right in ring_boxes(ring):
            count[13 + top : 14 + bottom, 13 + left : 14 + right] += 1
    for row, count, side in zip(rings, seen, (21, 27), strict=False):
        assert row[1:] == ["9", "9 x 9 = 81", f"{side} x {side}", f"{(count > 0).sum()}", f"{(count > 1).sum()}"]
    assert rings[2][4] == f"{seen.any(0).sum()} of 729"


@WIDTHS
def test_ones_own_picture(browser: Any, width: int, tmp_path: Path):
    folder = Path(__file__).parent
    image = np.asarray(Image.open(folder / "cat.jpg").convert("RGB"))
    scores = np.load(folder / "cat_scores.npy").astype(np.float32)
    exact = torch.from_numpy(scores - scores.max(0)).half().float().numpy()  # as the page has them
    file = tmp_path / "explore.html"
    file.write_text(explorer(scores, image, title="cat", names=["ground", "cat"]), encoding="utf-8")
    assert file.stat().st_size <= 600 * 1024

    def counts(refined: np.ndarray) -> list[list[int]]:
        before, after = (labels.argmax(0) for labels in (refine(exact, image, weight=0.0, stride=4), refined))
        return [[int((labels == label).sum()) for labels in (before, after)] for label in (0, 1)]

    with opened(browser, file, width) as tab:
        place = tab.locator("#explorer")
        for moved in ({}, {"weight": 5.3, "radius": 9, "balance": 0.25}, {"stride": 1, "epsilon": 1, "iterations": 2}):
            move(place, **moved)
            tab.get_by_role("button", name="Copy settings").click()
            tab.wait_for_function("document.body.innerText.includes('copied')")
            (tmp_path / "settings.json").write_text(tab.evaluate("navigator.clipboard.readText()"))
            own = read_settings(tmp_path / "settings.json")
            expected = counts(refine(exact, image, **own))
            found = np.array([row[3:] for row in table(place, 1)], int)
            assert np.abs(found - expected).max() <= 2  # where two scores are equal to 1e-5
            assert int(table(place)[0][1]) > 0
        assert own["stride"] == 3  # the second that is offered: those of one pixel would make the file too large
        assert (own["weight"], own["radius"], own["balance"], own["eps"]) == (5.3, 9, 0.25, 10)
        before = tab.locator("canvas").evaluate("(canvas) => canvas.toDataURL()")
        tab.locator("canvas").scroll_into_view_if_needed()
        area = tab.locator("canvas").bounding_box()
        tab.mouse.move(area["x"] + area["width"] / 2, area["y"] + 40)
        tab.mouse.down()
        tab.mouse.move(area["x"] + area["width"] / 4, area["y"] + 40)
        tab.mouse.up()
        settle(tab)
        assert float(tab.locator('input[name="dividing line"]').input_value()) == pytest.approx(25, abs=1)
        assert tab.locator("canvas").evaluate("(canvas) => canvas.toDataURL()") != before
        tab.locator('input[name="dividing line"]').focus()
        tab.keyboard.press("ArrowRight")
        assert float(tab.locator('input[name="dividing line"]').input_value()) > 25
        tab.get_by_role("button", name="First settings").click()
        settle(tab)
        first = json.loads(tab.locator(".settings").inner_text())["settings"]
    assert first["stride"] == 4
    assert first["weight"] != 5.3


@WIDTHS
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_ablation_s_first_table_and_plot_fit_a_telephone(browser: Any, tmp_path: Path, width: int, scheme: str):
    name = "guide:guidance_radius=12+guidance_weight=8+learn_compatibility=false+label_steps=2"
    head = ["variant", "mIoU %", "gain", "95 % interval", "over"]
    rows = [["unary", 60.1, None, None, None], [name, 62.5, 2.4, "+1.00 to +3.80 *", "unary"]]
    plot = html.dots([html.Dots("unary", 60.1, (59, 61.2)), html.Dots(name, 62.5, (62, 63), (61.1, 63.9, 60.1), "o")])
    file = tmp_path / "report.html"
    file.write_text(html.page("Ablation", [Table("", head, rows).html(), plot, html.heading(name, level=3)]), "utf-8")
    with opened(browser, file, width, scheme, drawn="svg circle") as tab:
        table, variant, gain, figure = (tab.locator(place).bounding_box() for place in (
            "figure:has(table)", "tbody td >> nth=0", "tbody tr >> nth=1 >> td >> nth=2", "svg"))  # fmt: skip
        assert gain["x"] + gain["width"] <= table["x"] + table["width"], "the gain shows without scrolling"
        assert 250 < figure["width"] <= width
        letters = tab.locator("svg text").first.evaluate("(text) => parseFloat(getComputedStyle(text).fontSize)")
        assert letters >= (16 if width < 400 else 12)
        assert figure["height"] == 2 * 44 + 24
        colours = [tab.evaluate(f"getComputedStyle(document.querySelector('{place}')).{what}")
                   for place, what in (("body", "backgroundColor"), ("svg text", "fill"))]  # fmt: skip
        light, dark = sorted(colours, key=lambda text: -int(text[4:-1].split(",")[0]))
        assert (colours[0] == light) == (scheme == "light")
        assert light != dark
    assert variant["width"] >= 100
