"""Methods of refinement beside each other: each mends a scene, small forms are what they say, the command's page."""

import json

import numpy as np
import pytest
import torch

from segmodel.benchmark import main
from segmodel.data import open_data
from segmodel.experiments import refinement, refiners
from segmodel.model.untrained_crf import Refinement


def scene(height=96, width=120, cell=8):
    rng = np.random.default_rng(0)
    y, x = np.indices((height, width))
    truth = np.where((y - 48) ** 2 + (x - 40) ** 2 < 900, 1, np.where(x > 90, 2, 0)).astype(np.uint8)
    colours = np.array([[40, 60, 130], [220, 150, 80], [80, 210, 110]])
    picture = (colours[truth] + rng.normal(0, 5, (height, width, 3))).clip(0, 255).astype(np.uint8)
    one = torch.from_numpy((truth == np.arange(3)[:, None, None]).astype(np.float32))[None]
    low = torch.nn.functional.adaptive_avg_pool2d(one, (height // cell, width // cell))[0].numpy()
    return (4 * low + 0.3 * rng.standard_normal(low.shape)).astype(np.float32), picture, truth


METHODS = refinement.methods({"stride": 4, "radius": 8, "balance": 0.5, "weight": 8.0})


@pytest.mark.parametrize("method", METHODS[1:], ids=lambda method: method.name)
def test_a_method_mends_a_scene(method):
    if method.lacks:
        pytest.skip(method.lacks)
    logits, picture, truth = scene()
    before = (refiners.bilinear(logits, picture) != truth).sum()
    for settings in method.settings:
        found = method.labels(logits, picture, settings)
        assert found.shape == truth.shape
        assert found.dtype == np.uint8
    assert (method.labels(logits, picture, method.settings[0]) != truth).sum() < 0.95 * before


def test_joint_bilateral_upsampling_is_its_sum():
    logits, picture, _ = scene(24, 32)
    p, small = torch.from_numpy(logits).softmax(0).numpy(), picture.reshape(3, 8, 4, 8, 3).mean((1, 3))
    found = refiners.joint_bilateral_upsampling(logits, picture, sigma=0.7, colour=30.0, radius=1)
    for y, x in ((0, 0), (5, 9), (11, 20), (23, 31), (13, 4)):
        row, column = (y + 0.5) / 8 - 0.5, (x + 0.5) / 8 - 0.5
        total = np.zeros(3)
        for i in range(round(row) - 1, round(row) + 2):
            for j in range(round(column) - 1, round(column) + 2):
                u, v = min(max(i, 0), 2), min(max(j, 0), 3)
                distance = ((i - row) ** 2 + (j - column) ** 2) / (2 * 0.7**2)
                colour = ((small[u, v] - picture[y, x].astype(float)) ** 2).sum() / (2 * 30.0**2)
                total += p[:, u, v] * np.exp(-distance - colour)
        assert found[y, x] == total.argmax()


def test_the_bilateral_solver_without_smoothness_follows_the_scores_and_with_it_the_edges():
    logits, picture, truth = scene()
    options = {"sigma": 1.0, "luma": 1.0, "chroma": 1.0}
    alone = refiners.bilateral_solver(logits, picture, **options, smoothness=0.0)
    assert (alone == refiners.bilinear(logits, picture)).mean() > 0.99
    smooth = refiners.bilateral_solver(logits, picture, sigma=16.0, luma=16.0, chroma=16.0, smoothness=100.0)
    assert (smooth != truth).mean() < 0.5 * (alone != truth).mean()


def test_figures_are_paired_against_the_first_and_what_lacks_is_named():
    samples = [scene(), scene(80, 88)]
    chosen = [(method, method.settings[0]) for method in METHODS[:3]]
    outcomes = refinement.run_methods(samples, chosen)
    values = refinement.figures(outcomes)
    first, paper, _ = values.values()
    for figure in refinement.FIGURES:
        assert first[figure]["change"] == first[figure]["low"] == 0
        assert paper[figure]["value"] == pytest.approx(first[figure]["value"] + paper[figure]["change"])
        assert paper[figure]["low"] <= paper[figure]["change"] <= paper[figure]["high"]
    missing = refinement.Method("other", None, lacks="needs what is not there")
    text = refinement.refinement_table("title", values, [missing]).text()
    assert "left out: other: needs what is not there" in text
    assert all(name in text for name in values)
    assert all("milliseconds" in plot for plot in refinement.refinement_plots(values))


def test_peers_choose_the_best_of_their_settings():
    logits, picture, truth = scene()
    method = refinement.Method("guess", lambda logits, picture, label: np.full(truth.shape, label, np.uint8),
                               ({"label": 2}, {"label": 0}, {"label": 1}))  # fmt: skip
    assert refinement.chosen(method, []) == {"label": 2}
    assert refinement.chosen(method, [(logits, picture, truth)]) == {"label": 0}


def test_the_command_writes_table_page_and_figures(tmp_path, capsys):
    data = open_data("scenes:train=1,val=2", split="val")
    for index in range(2):
        sample = data[index]
        one = (sample.label == np.arange(len(data.classes))[:, None, None]).astype(np.float32)
        low = torch.nn.functional.avg_pool2d(torch.from_numpy(one)[None], 8)[0].numpy()
        np.save(tmp_path / f"{sample.name}.npy", 4 * low - 2)
    (tmp_path / "tuned.json").write_text(json.dumps({"settings": {"stride": 4, "radius": 2, "weight": 4.0}}))
    arguments = ["--only", "refinement", "--data", "scenes:train=1,val=2", "--scores", str(tmp_path),
                 "--settings", str(tmp_path / "tuned.json"), "--html", str(tmp_path / "r.html"),
                 "--json", str(tmp_path / "r.json"), "--threads", "1"]  # fmt: skip
    assert main(arguments) == 0
    text = capsys.readouterr().out
    found = json.loads((tmp_path / "r.json").read_text())["refinement"]
    assert list(found)[:4] == ["bilinear", "guidance CRF, the paper's settings", "guidance CRF, defaults",
                               "guidance CRF, tuned"]  # fmt: skip
    assert found["guidance CRF, tuned"]["settings"]["weight"] == 4
    assert all(name in text for name in found)
    assert (tmp_path / "r.html").read_text().count("<svg") == len(refinement.FIGURES)
    assert Refinement.paper().radius == found["guidance CRF, the paper's settings"]["settings"]["radius"]
