"""Reports: well-formed, self-contained pages whose text, curves and pictures are those that were given."""

import base64
import io
import json
import math
import re
import shutil
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from distributed_tools import SMALL, train
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from segmodel import report
from segmodel.common import cli, html
from segmodel.common.tables import Table
from segmodel.model.store import read_checkpoint
from segmodel.training import trainer

NASTY = "<script>alert('&\"')</script>"


class Balanced(HTMLParser):
    """Collects text and fails on tags that do not close in order."""

    VOID = ("meta", "img", "path", "circle", "br")

    def __init__(self):
        super().__init__()
        self.open, self.text, self.tags = [], "", []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def parse(text: str) -> Balanced:
    parser = Balanced()
    parser.feed(text)
    assert not parser.open
    return parser


def test_a_page_is_well_formed_escaped_and_needs_nothing_beside_it():
    blocks = [
        html.heading(NASTY),
        html.paragraph(NASTY),
        Table(NASTY, [NASTY, "x"], [[NASTY, 1.234], ["b", float("nan")]], NASTY).html(),
        html.picture(np.zeros((4, 5, 3), np.uint8), NASTY),
        html.curves({NASTY: [(0, 1), (1, 2)]}, x_label=NASTY, y_label=NASTY, caption=NASTY),
        html.dots([html.Dots(NASTY, 1, [0, 2], (0, 2, 1), NASTY)], NASTY),
        html.configuration(NASTY),
        html.folded(NASTY, html.paragraph(NASTY)),
        html.swatches([NASTY], np.zeros((1, 3), np.uint8)),
        html.configuration({"a": NASTY, "section": {"b": [1, 2]}}),
    ]
    text = html.page(NASTY, blocks)
    parsed = parse(text)
    assert "script" not in [tag for tag, _ in parsed.tags]
    assert parsed.text.count(NASTY) >= 10
    assert "1.23" in parsed.text
    assert "[section]\nb = [1, 2]" in parsed.text
    links = [value for _, attributes in parsed.tags for name, value in attributes.items() if name in ("src", "href")]
    assert all(link.startswith("data:") for link in links)
    assert "url(" not in text


def test_a_picture_is_kept_to_the_last_bit():
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    data = re.search(r"base64,([^\"]+)", html.picture(pixels, ""))[1]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), pixels)
    with pytest.raises(ValueError, match="pixels: expected uint8"):
        html.picture(pixels.astype(np.float32), "")


def test_a_table_checks_its_rows():
    with pytest.raises(ValueError, match="rows: expected 2 cells, got 1"):
        Table("", ["a", "b"], [["x"]])


numbers = st.one_of(st.floats(-1e9, 1e9), st.just(float("nan")), st.just(float("inf")))


@example([[(0.0, 5e-324)]])
@example([[(0.0, 0.0), (5e-324, 5e-324)]])
@given(st.lists(st.lists(st.tuples(numbers, numbers), max_size=5), max_size=3))
def test_curves_are_well_formed_and_inside_their_frame(lists):
    text = html.curves({f"curve {index}": curve for index, curve in enumerate(lists)}, caption="c")
    figure = ElementTree.fromstring(text)
    for element in figure.iter():
        if element.get("fill") == "none":
            places = [tuple(map(float, pair.split())) for pair in re.split("[ML]", element.get("d"))[1:]]
            assert all(57.9 <= x <= 628.1 and 11.9 <= y <= 296.1 for x, y in places)


def test_a_curve_goes_through_its_points_and_has_a_gap_where_one_is_missing():
    points = [(0, 0.0), (10, 1.0), (20, float("nan")), (30, 0.5), (40, 0.0)]
    figure = ElementTree.fromstring(html.curves({"a": points}))
    path = next(element.get("d") for element in figure.iter() if element.get("fill") == "none")
    assert path == "M58.0 296.0L200.5 12.0M485.5 154.0L628.0 296.0"


rows_of_dots = st.builds(
    html.Dots, st.text("ab<", max_size=3), numbers, st.lists(numbers, max_size=3),
    st.none() | st.tuples(numbers, numbers, numbers), st.text("ab<", max_size=3),
)  # fmt: skip


@given(st.lists(rows_of_dots, max_size=4))
def test_dots_are_well_formed_and_inside_their_frame(rows):
    figure = ElementTree.fromstring(html.dots(rows, "c"))
    places = [float(value[:-1]) for element in figure.iter() for name, value in element.items()
              if name in ("cx", "x1", "x2", "x") and value.endswith("%")]  # fmt: skip
    assert all(1.9 <= place <= 98.1 for place in places)
    assert len(list(figure.iter("{http://www.w3.org/2000/svg}circle"))) == sum(
        map(math.isfinite, (value for row in rows for value in (row.value, *row.parts)))
    )


def test_a_bar_has_the_colour_of_its_side_and_dots_their_places():
    rows = [html.Dots("a", 5, (0, 10), (4, 6, 3)), html.Dots("b", 5, (), (4, 6, 7)), html.Dots("c", 5, (), (4, 6, 5))]
    figure = ElementTree.fromstring(html.dots(rows))
    lines = [element for element in figure.iter() if element.tag.endswith("line")]
    bars = [(line.get("stroke"), line.get("x1"), line.get("x2")) for line in lines if line.get("stroke-width") == "3"]
    assert bars == [(colour, "40.40%", "59.60%") for colour in (html.RISE, html.FALL, html.NEITHER)]
    ticks = [line.get("x1") for line in lines if line.get("stroke-width") == "2"]
    assert ticks == ["30.80%", "69.20%", "50.00%"]
    dots = [(dot.get("cx"), dot.get("r")) for dot in figure.iter() if dot.tag.endswith("circle")]
    assert dots == [("50.00%", "6"), ("2.00%", "2.5"), ("98.00%", "2.5"), ("50.00%", "6"), ("50.00%", "6")]


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=5), st.floats(0.01, 1e3))
def test_an_axis_spans_its_least_and_holds_all_values(values, least):
    low, high = html._limits(values, least=least)
    assert 0 <= low <= min(values)
    assert max(values) <= high * (1 + 1e-12)
    assert high - low >= least * (1 - 1e-6)
    assert high - low <= max(least * (1 + 1e-6), max(values) - min(values)) or max(values) == min(values)


def test_a_matrix_of_shares_is_the_darker_the_larger():
    text = html.heat([NASTY, "b"], np.array([[1.0, 0.0], [np.nan, 0.5]]), corner="truth", caption=NASTY)
    assert re.findall(r"0\.\d+\)\">(\d+)<", text) == ["100", "0", "50"]
    assert "rgba(59,118,196,0.750)" in text
    assert parse(text).text.count(NASTY) == 3


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_and_inside(low, span):
    ticks = html._ticks(low, low + span)
    assert 2 <= len(ticks) <= 11
    assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in ticks)


def test_the_report_of_a_run_has_its_curves_tables_pictures_and_settings(tmp_path, capsys):
    (tmp_path / "config.toml").write_text('[train]\ndata = "<b>"\n')
    (tmp_path / "pictures").mkdir()
    for step in (2, 4):
        Image.new("RGB", (2000, 20), (step, 0, 0)).save(tmp_path / "pictures" / f"step_00000{step}.png")
    scores = {"iou": {"sky": 0.5, "<road>": None}, "miou": 0.5, "pixel_accuracy": 0.75, "mean_accuracy": None}
    lines = [
        {"kind": "start", "step": 0, "versions": {"torch": "9.9"}},
        *({"kind": "train", "step": step, "loss": 1 / step, "images_per_second": 8.0} for step in (1, 2, 3, 4)),
        {"kind": "val", "step": 4, "miou": 0.5, "miou_guidance_off": 0.25, "miou_guidance_on": None},
    ]
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert cli.run("report", report.main, [str(tmp_path)]) == 0  # of a run that goes on
    assert "(not finished)" in (tmp_path / "report.html").read_text()
    Image.new("RGB", (100, 20)).save(tmp_path / "pictures" / "worst.png")
    session = {"time": "now", "step": 0, "command": "python -m segmodel.train --data '<b>'", "processor": "<cpu>",
               "cores": 2, "threads": 1, "gpu": None, "processes": 1}  # fmt: skip
    (tmp_path / "sessions.jsonl").write_text(json.dumps(session) + "\n" + json.dumps({**session, "step": 3}) + "\n")
    (tmp_path / "last.json").write_text(json.dumps({"classes": ["sky", "<road>"], "palette": [[1, 2, 3], [4, 5, 6]]}))
    lines.append({"kind": "final", "step": 4, "guidance_off": scores, "guidance_on": scores, "seconds": 3661.4,
                  "confusion": [[3, 1], [0, 0]], "worst": [{"name": "<a>.jpg", "miou": 0.125}]})  # fmt: skip
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert cli.run("report", report.main, [str(tmp_path)]) == 0
    page = parse((tmp_path / "report.html").read_text())
    for words in (
        "guidance off", "training loss", "<road>", "50.00", 'data = "<b>"', 'torch = "9.9"',
        "From left to right: photograph, truth",
        "Duration: 1:01:01 (hours:minutes:seconds), on <cpu>, 2 cores, threads: 1.", "--data '<b>'  # now, from step 3",
        "sky<road>25.001", "lowest mIoU at the end, from above: <a>.jpg 12.5 %",
    ):  # fmt: skip
        assert words in page.text, words
    widths = [int(attributes["width"]) for tag, attributes in page.tags if tag == "img"]
    assert widths == [100, 1600, 800]
    text = (tmp_path / "report.html").read_text()
    assert text.count('background:rgba(59,118,196,0.562)">75<') == 1  # sky as sky; <road> has no pixel
    heat = text[text.index('<table class="heat">') :]
    assert heat[: heat.index("</table>")].count("<td>–</td>") == 2  # noqa: RUF001
    assert [style for tag, a in page.tags if tag == "i" for style in a.values()] == [
        "background:rgb(1,2,3)", "background:rgb(4,5,6)"]  # fmt: skip
    lines.append({"kind": "train", "step": 5, "loss": 1.0, "images_per_second": 8.0})  # extended, and not at its end
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert cli.run("report", report.main, [str(tmp_path)]) == 0
    assert "(not finished)" in (tmp_path / "report.html").read_text()
    assert "Confusion" not in (tmp_path / "report.html").read_text()
    (tmp_path / "pictures" / "step_000001.png").write_bytes(b"broken")
    assert cli.run("report", report.main, [str(tmp_path)]) == 0
    assert (
        "step_000001.png: cannot be shown (cannot be read as an image: cannot identify"
        in (tmp_path / "report.html").read_text()
    )
    file.unlink()
    assert cli.run("report", report.main, [str(tmp_path)]) == 2
    assert "expected a run folder" in capsys.readouterr().err


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    folder = tmp_path_factory.mktemp("template") / "run"
    assert train([*SMALL, "--precision", "float32", "--steps", "2", "--pictures", "1", "--output", str(folder)])[0] == 0
    return folder


@pytest.fixture
def finished(template, tmp_path):
    """A tiny run that is finished."""
    return shutil.copytree(template, tmp_path / "run")


def disturbed(folder, monkeypatch, change):
    """Trains the run two steps on; ``change`` is made to its folder before the last of them."""
    original, count = trainer.training_step, 0

    def step(*given, **options):
        nonlocal count
        count += 1
        if count == 2:
            change(folder)
        return original(*given, **options)

    monkeypatch.setattr(trainer, "training_step", step)
    return train(["--resume", str(folder), "--steps", "4"])


def strays(folder):
    for name in ("step_.png", "step_x.png", "step_²³.png", "step_000001.png", "a.txt"):
        (folder / "pictures" / name).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    (folder / "pictures" / "step_000002.png").unlink()
    (folder / "pictures" / "step_000002.png").mkdir()


def no_pictures(folder):
    shutil.rmtree(folder / "pictures")
    (folder / "pictures").write_text("a file")


def page_is_folder(folder):
    (folder / "report.html").unlink()
    (folder / "report.html").mkdir()


def journal_has(text):
    def change(folder):
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(f"{text}\n")

    return change


def sessions_are_broken(folder):
    (folder / "sessions.jsonl").write_text('{"time": ')


@pytest.mark.parametrize(
    "change",
    [
        strays, no_pictures, page_is_folder, sessions_are_broken, journal_has("[" * 99999),
        journal_has('{"kind": "train", "step": 1' + "0" * 400 + ', "loss": 1e999}'),
        journal_has('{"kind": "train", "step": ' + "1" * 5000 + "}"), journal_has('{"kind": "val", "step": 1}'),
    ],
    ids=["strays", "no pictures", "page is a folder", "sessions", "deep", "huge", "too many digits", "incomplete"],
)  # fmt: skip
def test_a_report_never_keeps_a_training_from_its_end(finished, monkeypatch, change):
    assert disturbed(finished, monkeypatch, change) == (0, "")
    card, _ = read_checkpoint(finished / "last.safetensors", weights=False)
    assert (card["finished"], card["step"]) == (True, 4)
    assert train(["--resume", str(finished)]) == (0, "")


def test_what_a_link_leads_to_outside_is_not_copied_into_the_page(finished, tmp_path, capsys):
    (tmp_path / "secret").write_text("[train]\npassword = 1\n")
    Image.new("RGB", (12345 // 15, 9), "red").save(tmp_path / "secret.png")
    picture = finished / "pictures" / "step_000002.png"
    picture.unlink()
    picture.symlink_to(tmp_path / "secret.png")
    assert cli.run("report", report.main, [str(finished)]) == 0
    page = (finished / "report.html").read_text()
    assert "step_000002.png: cannot be shown (is a link that leads out of the run" in page
    assert 'width="823"' not in page
    for name in ("config.toml", "sessions.jsonl", "metrics.jsonl"):
        (finished / name).rename(tmp_path / name)
        (finished / name).symlink_to(tmp_path / "secret")
        capsys.readouterr()
        assert cli.run("report", report.main, [str(finished)]) == 2
        assert f"{name}: is a link that leads out of the run's folder" in capsys.readouterr().err
        assert train(["--resume", str(finished), "--steps", "5"])[0] == 2
        (finished / name).unlink()
        (tmp_path / name).rename(finished / name)
    (tmp_path / "page").write_text("mine")
    (finished / "report.html").unlink()
    (finished / "report.html").symlink_to(tmp_path / "page")
    assert cli.run("report", report.main, [str(finished)]) == 2
    assert (tmp_path / "page").read_text() == "mine"
