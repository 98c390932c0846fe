"""The ablate command on tiny scenes: trains, goes on, reports, and names what does not fit."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from inference_tools import picture, tiny_model
from PIL import Image

from segmodel import ablate, train
from segmodel.common import cli
from segmodel.common.locks import locked
from segmodel.common.pictures import busiest_window
from segmodel.common.tables import Table
from segmodel.data import open_data
from segmodel.evaluation.evaluate import Evaluation
from segmodel.evaluation.metrics import Interval
from segmodel.experiments import dense_crf, results, runs
from segmodel.experiments.figures import mean_curve
from segmodel.experiments.tables import _interval
from segmodel.experiments.variants import Variant
from segmodel.inference.views import label_maps
from segmodel.model.config import VARIANTS
from segmodel.training import settings, trainer
from segmodel.training.run_folder import RunFolder

TINY = [
    "--data", "scenes:train=8,val=2", "--depth", "18", "--width", "4", "--stem-width", "4", "--label-hidden", "4",
    "--batch-size", "4", "--crop", "64,64", "--epochs", "2", "--workers", "0", "--pictures", "0", "--precision",
    "float32", "--rings", "[1,2]", "--label-pool", "5", "--device", "cpu", "--batch-norm-epochs", "0", "--joint-from",
    "0.5", "--time-size", "30,40", "--time-seconds", "0.01",
]  # fmt: skip
PARTS = "Table 3: what each part adds"
ROWS = "Each seed, other guidance on the same scores, and boundaries (Fig. 6 in numbers)"


def run(output: Path, *more: str) -> int:
    return cli.run("ablate", ablate.main, ["--output", str(output), *TINY, *more])


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A finished ablation of three variants, one seed."""
    folder = tmp_path_factory.mktemp("ablation")
    assert run(folder, "--variants", "unary,patch,guide", "--seeds", "0", "--classes", "sky,road", "--ceilings") == 0
    return folder


def stamps(folder: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


def test_leaves_runs_report_and_figures(done: Path) -> None:
    assert sorted(item.name for item in (done / "runs").iterdir()) == ["guide-seed0", "patch-seed0", "unary-seed0"]
    assert all(runs.is_finished(item) for item in (done / "runs").iterdir())
    content = json.loads((done / "results.json").read_text())
    parts = content["tables"][PARTS]
    assert [(row["variant"], row["over"]) for row in parts] == [("unary", None), ("patch", "unary"), ("guide", "patch")]
    names = [row["variant"] for row in content["tables"][ROWS]]
    untrained = [f"patch, {name}" for name in (*results.UNTRAINED, results.FROM_SCORES)]
    dense = [f"patch, {results.DENSE}"] if dense_crf.installed() else []
    assert names == [
        "unary",
        "patch",
        *untrained,
        *dense,
        "guide",
        "guide, guidance off",
        f"guide, {results.FROM_SCORES}",
    ]
    steps = [row["step"] for row in content["tables"]["Paired differences"]]
    assert steps[:3] == ["unary -> patch", "patch -> guide", "unary -> guide"]
    assert "unary -> context" not in steps
    table_4 = content["tables"]["Table 4: inference time"]
    assert [row["variant"] for row in table_4] == ["unary", "patch", "guide"]
    assert table_4[0]["ratio"] == 1
    assert content["versions"]["torch"]
    lengths = {len(row) for row in content["tables"]["Paired differences"]}
    assert lengths == {10}, "step, four figures with an interval each, seeds"
    assert len(content["tables"]["Each class: IoU, %"]) == 12
    page = (done / "report.html").read_text()
    assert page.count("<img") > 2
    assert page.count("<svg") == 3
    places = [page.index(f"<h2>{title}") for title in (PARTS, "Where parts differ most", ROWS, "Fig. 7", "Fig. 5")]
    assert places == sorted(places)
    assert page.index("<svg") < places[1], "the plot stands right below the first table"


def test_table_3_is_what_training_found_in_the_end(done: Path) -> None:
    tables = json.loads((done / "results.json").read_text())["tables"]
    rows, parts = ({row["variant"]: row for row in tables[title]} for title in (ROWS, PARTS))
    for variant in ("unary", "patch", "guide"):
        last = (done / "runs" / f"{variant}-seed0" / "metrics.jsonl").read_text()
        scores = [json.loads(line)["miou"] for line in last.splitlines() if '"val"' in line]
        # training takes several images a pass: the tie of a pixel or two may turn, at one thread it does
        assert rows[variant]["seed 0"] == pytest.approx(100 * scores[-1], abs=1e-3)
        assert rows[variant]["mIoU %"] == pytest.approx(rows[variant]["seed 0"], abs=1e-9)
        assert parts[variant]["mIoU %"] == pytest.approx(rows[variant]["seed 0"], abs=1e-9)
    assert parts["guide"]["gain"] == pytest.approx(parts["guide"]["mIoU %"] - parts["patch"]["mIoU %"], abs=1e-9)


def test_called_again_it_does_nothing_twice(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "train", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr(results, "evaluate_images", lambda *a, **k: pytest.fail("evaluated again"))
    before = stamps(done / "runs") | stamps(done / "figures")
    assert run(done, "--variants", "unary,patch,guide", "--seeds", "0", "--workers", "1") == 0
    assert run(done, "--report-only") == 0
    assert stamps(done / "runs") | stamps(done / "figures") == before


def test_an_interrupted_ablation_goes_on(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    original = trainer.training_step
    count = 0

    def step(*arguments, **options):
        nonlocal count
        count += 1
        if count == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments, **options)

    monkeypatch.setattr(trainer, "training_step", step)
    assert run(tmp_path, "--variants", "unary", "--seeds", "0") == 130
    assert "the same command continues" in capsys.readouterr().err
    assert json.loads((tmp_path / "runs" / "unary-seed0" / "last.json").read_text())["step"] == 3
    assert run(tmp_path, "--variants", "unary", "--seeds", "0") == 0
    assert count == 4
    assert (tmp_path / "report.html").exists()


def test_beside_one_another_none_begins_after_one_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    def train_run(run: SimpleNamespace) -> int:
        begun.append(run.name)
        time.sleep(0 if run.name == "1" else 0.2)
        return 130 if run.name == "1" else 0

    monkeypatch.setattr(runs, "train_run", train_run)
    monkeypatch.setattr(runs, "ProcessPoolExecutor", lambda jobs, *_, **__: ThreadPoolExecutor(jobs))
    ones = [SimpleNamespace(name=str(number), folder=Path("none")) for number in range(5)]
    assert runs.train_all([ones[0], *ones[2:4]], jobs=2) == 0
    assert sorted(begun) == ["0", "2", "3"]
    begun.clear()
    assert runs.train_all(ones, jobs=2) == 130
    assert sorted(begun) == ["0", "1"]


def test_variants_with_settings(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    """Two at a time, beside finished ones, and reported from their folders alone."""
    shutil.copytree(done / "runs", tmp_path / "runs")
    named = ["context:rings=[[0,1]]", "context:rings=[[1,2],[1,3]]", "guide:joint_from=0+guidance_weight=4"]
    assert (
        run(tmp_path, "--variants", ",".join([*named, "unary", "patch"]), "--seeds", "0", "--jobs", "2", "--no-dense")
        == 0
    )
    printed = capfd.readouterr().out.splitlines()
    assert printed[0] == "2 of 5 runs are finished already"
    names = ["context+rings=[[0,1]]", "context+rings=[[1,2],[1,3]]", "guide+guidance_weight=4+joint_from=0"]
    assert f"{names[2]}-seed0: run 5 of 5" in printed
    assert "4 of 5 runs done, about 0:00" in [line[:28] for line in printed]
    assert "5 of 5 runs done" in printed
    own = printed[1 : printed.index("5 of 5 runs done")]
    assert all(line.startswith(tuple(names)) or not line or " of 5 runs done" in line for line in own), own
    for name in names:
        assert f"{name}-seed0: mIoU" in {line.partition("  ")[0] for line in own}, "the table of each shows whose it is"

    monkeypatch.setattr(runs, "train", lambda *_, **__: pytest.fail("trained again"))
    assert run(tmp_path, "--report-only", "--no-dense") == 0
    content = json.loads((tmp_path / "results.json").read_text())
    found = [(row["variant"], row["over"]) for row in content["tables"][PARTS]]
    settings_first = "guide:guidance_weight=4+joint_from=0"
    assert found == [("unary", None), (named[0], "unary"), (named[1], named[0]), ("patch", named[0]),
                     ("guide", "patch"), (settings_first, "guide")]  # fmt: skip
    assert content["notes"] == []
    weight = content["runs"][f"{names[2]}-seed0"]["model"]["guidance_weight"]
    assert (weight, content["runs"]["guide-seed0"]["model"]["guidance_weight"]) == (4, 2)
    rows = [row["variant"] for row in content["tables"][ROWS] if row["variant"].startswith(settings_first)]
    assert rows == [settings_first], "other guidance is tried on the plain variants alone"
    some, _ = runs.finished_runs(tmp_path, runs.AblationOptions(variants=(named[1], "unary"), report_only=True))
    assert [one.variant.name for one in some] == ["unary", named[1]]


def test_figures_of_other_weights_are_made_anew(done: Path) -> None:
    kept = done / "figures" / "unary-seed0.npz"
    with np.load(kept) as arrays:
        mark, rows = str(arrays["mark"]), arrays["rows"].tolist()
    assert rows == [results.AS_IT_IS]
    assert results.read_figures(kept, mark) is not None
    assert results.read_figures(kept, mark[::-1]) is None


def test_figures_follow_their_data(tmp_path: Path) -> None:
    """Labels that are corrected are no longer those that the kept figures were made from."""
    (tmp_path / "checkpoint").write_bytes(b"weights")
    for folder in ("images/val", "labels/val", "images/train", "labels/train"):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / folder / "a.png")
    classes = '[{ name = "a", colour = [0, 0, 0] }, { name = "b", colour = [9, 9, 9] }]'
    (tmp_path / "classes.toml").write_text(f'labels = "index"\nclasses = {classes}\n')
    marks = []
    for value in (0, 1):
        Image.fromarray(np.full((4, 4), value, np.uint8)).save(tmp_path / "labels/val/a.png")
        data = open_data(f"folder:{tmp_path}", split="val")
        marks.append(results.fingerprint(tmp_path / "checkpoint", data, [0], None))
    assert marks[0] != marks[1]


def test_figures_follow_the_rules_of_their_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoint").write_bytes(b"weights")
    for folder in ("images/val", "labels/val", "images/train", "labels/train"):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / folder / "a.png")
    marks = set()
    for first, second in (("[0, 0, 0]", "[9, 9, 9]"), ("[9, 9, 9]", "[0, 0, 0]")):
        classes = f'[{{ name = "a", colour = {first} }}, {{ name = "b", colour = {second} }}]'
        (tmp_path / "classes.toml").write_text(f'labels = "colour"\nclasses = {classes}\n')
        data = open_data(f"folder:{tmp_path}", split="val")
        marks.add(results.fingerprint(tmp_path / "checkpoint", data, [0], None))
    for options in ("", ",shores=1"):
        data = open_data(f"scenes:val=3{options}", split="val")
        marks.add(results.fingerprint(tmp_path / "checkpoint", data, [0], None))
    monkeypatch.setattr(type(data), "version", 1000)
    marks.add(results.fingerprint(tmp_path / "checkpoint", data, [0], None))
    assert len(marks) == 5


def test_figures_that_cannot_be_read_are_made_anew(tmp_path: Path) -> None:
    broken = tmp_path / "f.npz"
    assert results.read_figures(broken, "mark") is None
    array, archive = io.BytesIO(), io.BytesIO()
    np.save(array, np.zeros(3))
    np.savez(archive, mark=np.array("mark"))
    later = archive.getvalue().replace(b"PK\x01\x02\x14\x03", b"PK\x01\x02\x14\x03\xff", 1)  # a version to come
    for content in (b"", b"PK\x03\x04", b"no archive at all", array.getvalue(), later):
        broken.write_bytes(content)
        assert results.read_figures(broken, "mark") is None


def test_a_run_without_its_last_checkpoint_is_not_thrown_away(done: Path, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "runs" / "unary-seed0"
    shutil.copytree(done / "runs" / "unary-seed0", folder)
    (folder / "last.safetensors").unlink()
    assert run(tmp_path, "--variants", "unary", "--seeds", "0") == 2
    assert "expected last.safetensors beside its other checkpoints" in capsys.readouterr().err
    assert (folder / "best.safetensors").exists()


def test_a_report_of_some_seeds(done: Path, capsys) -> None:
    assert run(done, "--report-only", "--seeds", "1") == 2
    assert "expected finished runs named VARIANT-seedS, found none" in capsys.readouterr().err


def test_figures_survive_their_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    figures = Evaluation(
        ("a", "b", "c", "d"), rng.integers(0, 9, (4, 3, 3)), rng.integers(0, 9, (4, 3, 3)),
        rng.integers(0, 9, (4, 2, 3, 3)), rng.random(4), (rng.integers(0, 3, (5, 6)), rng.integers(0, 3, (7, 2))),
        (2, 5),
    )  # fmt: skip
    results.write_figures(tmp_path / "f.npz", "mark", {"model": figures, "other": figures})
    read = results.read_figures(tmp_path / "f.npz", "mark")
    assert read is not None
    assert list(read) == ["model", "other"]
    for name in ("counts", "boundary", "trimap", "seconds"):
        np.testing.assert_array_equal(getattr(read["other"], name), getattr(figures, name))
    assert [map.tolist() for map in read["model"].labels] == [map.tolist() for map in figures.labels]
    assert (read["other"].names, read["other"].widths) == (figures.names, figures.widths)


def test_a_model_without_guidance_is_tried_with_untrained_ones_and_the_dense_crf(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stands in for pydensecrf: a dense CRF without pairwise terms, some of whose marginals are 0."""

    class Unary:
        def __init__(self, width: int, height: int, labels: int):
            self.pixels = width * height

        def setUnaryEnergy(self, energy: np.ndarray) -> None:
            assert energy.shape == (5, self.pixels)
            self.marginals = np.exp(-energy)

        def addPairwiseGaussian(self, **_: object) -> None: ...

        def addPairwiseBilateral(self, *, rgbim: np.ndarray, **_: object) -> None:
            np.testing.assert_array_equal(rgbim, image)

        def inference(self, iterations: int) -> np.ndarray:
            return np.where(self.marginals < self.marginals.max(0), 0, self.marginals)

    for module in (dense_crf, results):
        monkeypatch.setattr(module, "installed", lambda: SimpleNamespace(DenseCRF2D=Unary))
    image = picture(41, 50)
    model = tiny_model(guidance="off")
    ways = results.guidance_of(model, dense=True)
    untrained = [*results.UNTRAINED, results.FROM_SCORES]
    assert list(ways) == [results.AS_IT_IS, *untrained, results.DENSE]
    assert list(results.guidance_of(tiny_model(), dense=True)) == [
        results.AS_IT_IS,
        "guidance off",
        results.FROM_SCORES,
    ]
    maps = label_maps(model, image, guidance=ways)
    assert (maps[results.DENSE] != maps[results.AS_IT_IS]).mean() < 0.001  # the tie of a pixel may turn
    assert all((maps[name] != maps[results.AS_IT_IS]).mean() > 0.01 for name in untrained)


def test_mistakes_are_one_line(done: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "foreign" / "runs" / "unary-seed0").mkdir(parents=True)
    wrong = tmp_path / "wrong" / "runs"
    wrong.mkdir(parents=True)
    (wrong / "patch-seed0").symlink_to(done / "runs" / "unary-seed0")
    other = tmp_path / "other" / "runs"
    other.mkdir(parents=True)
    (other / "patch+patch_size=4-seed0").symlink_to(done / "runs" / "patch-seed0")
    cases = [
        ((done, "--variants", "unary,soup"), "--variants: expected one of unary, context"),
        ((done, "--variants", ""), "--variants, --seeds: expected at least one of each"),
        ((done, "--variants", "soup:patch_size=4"), "--variants: expected one of unary, context"),
        ((done, "--variants", "patch:patch_sise=4"), "unknown setting 'patch_sise' (did you mean 'patch_size'?)"),
        ((done, "--variants", "patch:patch_size=x"), "--variants: patch: patch_size: expected a whole number, got 'x'"),
        ((done, "--variants", "patch:patch_size=99"), "--variants: patch:patch_size=99: patch_size: expected at most"),
        ((done, "--variants", "patch:patch_size"), "--variants: expected patch:FIELD=VALUE+..., each field once"),
        ((done, "--variants", "patch:"), "--variants: expected patch:FIELD=VALUE+..., each field once, got 'patch:'"),
        ((done, "--variants", "patch:rate=1+rate=2"), "each field once, got 'patch:rate=1+rate=2'"),
        ((done, "--variants", "patch:seed=3"), "--variants: patch: expected a setting that may differ between runs"),
        ((done, "--variants", "context:rings=[[1,3],[3]]"), "--variants: context: rings: expected a list of 2"),
        (
            (done, "--variants", "context,patch:patch_size=1"),
            "--variants: expected different ones, got patch:patch_size=1 beside context, which is the same",
        ),
        ((done, "--seeds", "0,x"), "--seeds: expected a list of"),
        ((done, "--seed", "3"), "--seed: expected --seeds here"),
        ((done, "--time-size", "500"), "--time-size: expected a list of 2"),
        ((done, "--jobs", "0"), "--jobs: expected at least 1"),
        (
            (done, "--variants", "guide", "--seeds", "0", "--rate", "0.5"),
            "another configuration: train.rate: 0.05 or 0.5",
        ),
        ((done, "--variants", "unary", "--seeds", "0", "--classes", "lava", "--report-only"), "--classes: expected"),
        ((done, "--label-pool", "4"), "label_pool: expected an odd number, got 4"),
        ((tmp_path / "foreign", "--variants", "unary", "--seeds", "0"), "found no config.toml in it"),
        ((tmp_path / "none", "--report-only"), "expected finished runs named VARIANT-seedS, found none"),
        ((tmp_path / "wrong", "--report-only"), "not the variant patch: patch_size 1"),
        ((tmp_path / "other", "--report-only"), "not the variant patch:patch_size=4: model.patch_size: 2 or 4"),
    ]
    for arguments, message in cases:
        assert run(*arguments) == 2, arguments
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert message in error, (arguments, error)
        assert error.startswith("segmodel.ablate: error: ")


def test_runs_of_one_configuration_differ_in_nothing_whatever_their_variant(tmp_path, monkeypatch) -> None:
    base = settings.resolve(train.make_parser().parse_args([]))
    for variant in VARIANTS:
        folder = tmp_path / "runs" / f"{variant}-seed0"
        folder.mkdir(parents=True)
        config = Variant(variant).config(base, 0)
        RunFolder(folder).write_config(config)
    monkeypatch.setattr(runs, "is_finished", lambda folder: True)
    found, notes = runs.finished_runs(tmp_path, runs.AblationOptions())
    assert [run.variant.name for run in found] == list(VARIANTS)
    assert notes == []


def test_differences_leave_out_what_changes_no_weight() -> None:
    base = settings.resolve(train.make_parser().parse_args(["--data", "scenes"]))
    other = settings.resolve(train.make_parser().parse_args(["--data", "scenes", "--workers", "3", "--rate", "1"]))
    assert runs.differences(base, other) == [f"train.rate: {base.train.rate} or 1.0"]


def test_the_busiest_window_holds_most_boundary() -> None:
    label = np.zeros((50, 60), np.uint8)
    label[30:40, 40:50] = np.indices((10, 10)).sum(0) % 2
    y, x = busiest_window(label, 16)
    assert y.start <= 30
    assert x.start <= 40
    assert (y.stop >= 40, x.stop >= 50) == (True, True)
    assert label[busiest_window(label[:5, :7], 16)].shape == (5, 7)


def test_an_interval_is_marked_where_it_leaves_out_zero() -> None:
    ends = [(0.01, 0.02), (-0.01, 0.02), (-0.02, -0.01), (float("nan"), float("nan"))]
    expected = ["+1.00 to +2.00 *", "-1.00 to +2.00", "-2.00 to -1.00 *", "-"]
    assert [_interval(Interval(0, *pair)) for pair in ends] == expected


def test_tables_as_text_and_html() -> None:
    table = Table("Title", ["name", "a"], [["x", 1.0], ["longer", float("nan")], ["y", None]], "A note.")
    lines = table.text().splitlines()
    assert lines[0] == "Title"
    assert lines[4:7] == ["x       1.00", "longer     -", "y          -"]
    assert "<h2>Title</h2>" in table.html()


def test_mean_curves_keep_shared_steps() -> None:
    assert mean_curve([[(1, 2.0), (2, 4.0)], [(2, 6.0), (3, 1.0)]]) == [(2, 5.0)]


def processes_of(session: int) -> set[int]:
    """The living processes of a session."""
    found = set()
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, _, _, own = place.joinpath("stat").read_text().rpartition(")")[2].split()[:4]
            if int(own) == session and state != "Z":
                found.add(int(place.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_jobs_whose_parent_is_killed_end_and_leave_nothing(tmp_path: Path) -> None:
    scratch = Path(tempfile.mkdtemp(dir="/tmp"))  # short: names of sockets are limited
    output = tmp_path / "out"
    arguments = [*TINY, "--epochs", "500", "--workers", "1", "--variants", "unary,patch", "--seeds", "0", "--jobs", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "segmodel.ablate", "--output", str(output), *arguments], start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(scratch), "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    journals = [output / "runs" / f"{variant}-seed0" / "metrics.jsonl" for variant in ("unary", "patch")]
    try:
        deadline = time.monotonic() + 200
        while not all(file.exists() and '"train"' in file.read_text() for file in journals):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
        process.wait()
        while processes_of(process.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not processes_of(process.pid)
        assert list(scratch.iterdir()) == []
        for file in journals:
            lines = [json.loads(line) for line in file.read_text().splitlines()]
            assert json.loads((file.parent / "last.json").read_text())["step"] == lines[-1]["step"]  # no step is lost
            assert not (file.parent / ".lock").exists()
    finally:
        for left in processes_of(process.pid):
            os.kill(left, signal.SIGKILL)
        shutil.rmtree(scratch)


def test_a_run_that_was_killed_as_it_began_is_begun_again(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "unary-seed0"
    folder.mkdir(parents=True)
    (folder / "config.toml").touch()  # claimed, and no more
    (folder / "sessions.jsonl").write_text('{"command": "of the one that was killed"}\n')
    assert run(tmp_path, "--variants", "unary", "--seeds", "0") == 0
    assert "of the one that was killed" not in (folder / "sessions.jsonl").read_text()
    for name in ("last", "best"):
        for ending in ("json", "safetensors"):
            (folder / f"{name}.{ending}").unlink(missing_ok=True)  # begun, and killed before its first checkpoint
    before = (folder / "sessions.jsonl").read_text()
    assert run(tmp_path, "--variants", "unary", "--seeds", "0") == 0
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines].count("start") == 1
    assert (folder / "sessions.jsonl").read_text().startswith(before)


def test_two_ablations_do_not_share_a_folder(tmp_path: Path, capsys) -> None:
    with locked(tmp_path / ".lock", ""):
        assert run(tmp_path, "--variants", "unary", "--seeds", "0") == 2
    assert f"--output: {tmp_path}: is being written by process" in capsys.readouterr().err
