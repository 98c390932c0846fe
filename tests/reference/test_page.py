"""The page: complete, self-contained, its equations typeset; and the command that writes it."""

import base64
import html
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("docutils", reason="the page is an extra: pip install 'segmodel[page]'")

from segmodel.reference import CONTENTS, MODULES, __main__, figures, page
from segmodel.reference.errata import ERRATA

STAGES = [("image", "a picture", "1 x 3 x 8 x 8"), ("scores", "the end", "1 x 21 x 8 x 8")]


@pytest.fixture(scope="module")
def text() -> str:
    return page.render(STAGES)


def test_every_equation_and_module_has_its_place(text: str) -> None:
    for place in (*(entry.oracle for entry in CONTENTS.values()), *MODULES):
        assert f'id="{place}"' in text
        assert f'href="#{place}"' in text
    for dotted in (name for entry in CONTENTS.values() for name in entry[1:] if name):
        folder, file, _ = dotted.split(".")
        assert f"<code>{dotted}</code> in <code>segmodel/{folder}/{file}.py</code>" in text
    assert text.count("<math") > 80
    compact = re.sub(r"\s", "", text)
    for number in range(1, 18):
        assert f'<mostretchy="false">(</mo><mn>{number}</mn><mostretchy="false">)</mo>' in compact


def test_nothing_failed_to_parse(text: str) -> None:
    for sign in ("system-message", "problematic", ":math:", ":func:", "\\frac", "\\sum"):
        assert sign not in re.sub(r"<pre><code>.*?</code></pre>", "", text, flags=re.S)


def test_nothing_is_fetched(text: str) -> None:
    addresses = re.findall(r"""(?:src|href)=["']([^"'#]+)""", text)
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    assert "@import" not in text
    assert "url(" not in text


def test_every_link_leads_somewhere(text: str) -> None:
    places = re.findall(r'id="([^"]+)"', text)
    assert len(places) == len(set(places))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(places)


def test_all_figures_and_misprints_are_there(text: str) -> None:
    count = sum(len(drawn) for drawn in page.STILL.values())
    assert text.count("<figure>") == count + 1  # and Fig. 4
    assert text.count("<tr>") > len(ERRATA)
    assert "1 x 21 x 8 x 8" in text
    assert all(row.test in text for row in ERRATA)
    assert "nan" not in "".join(re.findall(r"<svg.*?</svg>", text, flags=re.S)).lower().split('"')


@pytest.mark.parametrize("figure", page.LIVE.values())
def test_a_live_figure_has_its_code_its_data_and_links(text: str, figure: page.Live) -> None:
    (place,) = re.findall(rf'<figure class="live" id="live-{figure.name}".*?</figure>', text, flags=re.S)
    assert re.search(rf"FIGURES = .*\b{figure.name}: ", text)
    assert json.loads(re.search('json">(.*)</script>', place)[1]) == figure.data()
    for oracle, *others in (CONTENTS[entry] for entry in figure.entries):
        assert f'href="#{oracle}"' in place
        assert all(f'href="#{oracle}:{other}"' in place for other in others if other)


def test_the_page_begins_with_the_paper_and_ends_with_the_vocabulary(text: str) -> None:
    places = [text.index(part) for part in ("<h1>", "CVPR 2017", "<math", "<nav>", "<main>")]
    assert places == sorted(places)
    assert re.findall(r'<section id="(\w+)"', text) == [*(name for name in MODULES if name != "arrays"), "arrays"]


def test_highlighting_keeps_the_code_and_marks_how_far_a_line_is_indented() -> None:
    code = page.code_without_docstring(page.highlighted)
    marked = page.highlighted(code)
    lines = re.findall(r'<span class="line" style="--indent:(\d+)">(.*?)</span>(?=<span class="line"|$)', marked)
    plain = [html.unescape(re.sub("<[^>]+>", "", line)) for _, line in lines]
    assert plain == code.splitlines()
    assert [int(indent) for indent, _ in lines] == [len(line) - len(line.lstrip()) for line in plain]
    assert '<span class="k">def</span>' in marked


def test_without_a_live_model_fig_4_is_left_out() -> None:
    assert "<figure>" not in page.section("head", ())


def test_a_docstring_that_does_not_parse_is_an_error() -> None:
    with pytest.raises(ValueError, match="docstring: expected reStructuredText"):
        page.typeset(r":math:`\nosuchcommand`")


def test_the_code_beside_the_text_is_without_docstring() -> None:
    assert page.code_without_docstring(figures.curve).startswith("def curve(")
    assert '"""' not in page.code_without_docstring(figures.curve)


def test_the_data_of_algorithm_1_are_the_scene() -> None:
    data = figures.algorithm_data(32)
    image, labels = figures.scene(32)
    pixels, truth, scores = (base64.b64decode(data[name]) for name in ("pixels", "truth", "scores"))
    np.testing.assert_allclose(np.frombuffer(pixels, np.uint8), image.ravel().clip(0, 255), rtol=0, atol=0.5)
    np.testing.assert_array_equal(np.frombuffer(truth, np.uint8), labels.ravel())
    coarse = np.frombuffer(scores, "<f4").reshape(3, 8, 8)
    np.testing.assert_array_equal(coarse[:, 0, 0].argmax(), labels[0, 0])


def test_the_command_writes_the_page_with_the_live_model(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "segmodel.reference", "--output"]
    root = Path(page.__file__).parents[2]
    done = subprocess.run(
        [*command, str(tmp_path / "paper.html")], cwd=root, check=True, capture_output=True, text=True
    )
    assert done.stderr == ""
    text = (tmp_path / "paper.html").read_text(encoding="utf-8")
    assert "GuidanceCRF" in text.split('id="head"')[1].split("</svg>")[0]
    assert "1 x 21 x 75 x 125" in text


@pytest.mark.parametrize("bad", [".", "missing/paper.html"])
def test_a_bad_path_is_one_line_and_status_2(
    bad: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["reference", "--output", str(tmp_path / bad)])
    assert __main__.main() == 2
    assert capsys.readouterr().err.startswith("error: --output: expected a file in an existing folder")


def test_a_file_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "argv", ["reference", "--output", str(tmp_path / "paper.html")])
    monkeypatch.setattr(__main__, "live_stages", list)
    monkeypatch.setattr(page, "render", lambda stages: "the page")
    monkeypatch.setattr(Path, "write_text", full)
    assert __main__.main() == 2
    assert capsys.readouterr().err.endswith("paper.html: cannot be written (No space left on device)\n")


@pytest.mark.parametrize("missing", ["docutils", "pygments"])
def test_without_what_the_page_needs_the_error_names_the_extra(
    missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setattr(sys, "argv", ["reference", "--output", str(tmp_path / "paper.html")])
    assert __main__.main() == 2
    assert "segmodel[page]" in capsys.readouterr().err


def test_without_torch_fig_4_is_left_out(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert __main__.live_stages() == []
    assert "Fig. 4 is left out" in capsys.readouterr().err
