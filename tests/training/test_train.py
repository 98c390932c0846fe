"""The train command: it trains, resumes to the last bit, stops on signals, and names what the user got wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from segmodel import evaluate, predict, train
from segmodel.common import cli
from segmodel.common.errors import UserError
from segmodel.data import Augmentation, AugmentedData, open_data
from segmodel.evaluation.evaluate import Whole
from segmodel.evaluation.metrics import Scores
from segmodel.model.config import VARIANTS, ModelConfig
from segmodel.segmodel import SegModel
from segmodel.training import journal, report, trainer
from segmodel.training.batches import BatchKeys, load_batches
from segmodel.training.settings import resolve

TINY = [
    "--data", "scenes:train=12,val=2", "--depth", "18", "--width", "4", "--stem-width", "4", "--label-hidden", "4",
    "--batch-size", "4", "--crop", "64,64", "--epochs", "3", "--workers", "0", "--pictures", "1", "--precision",
    "float32", "--rings", "[1,2]", "--label-pool", "5", "--device", "cpu",
]  # fmt: skip


def run(command, *arguments):
    modules = {"train": train, "evaluate": evaluate, "predict": predict}
    return cli.run(command, modules[command].main, [str(text) for text in arguments])


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished tiny run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert run("train", *TINY, "--output", folder) == 0
    return folder


def test_a_run_leaves_what_it_promises(finished, capsys):
    names = {file.name for file in finished.iterdir()}
    assert names >= {"config.toml", "metrics.jsonl", "last.safetensors", "last.json", "best.safetensors", "best.json"}
    assert not [name for name in names if name.endswith(".partial")]
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 10))
    assert [line["step"] for line in lines if line["kind"] == "val"] == [3, 6, 9]
    card = json.loads((finished / "last.json").read_text())
    assert card["finished"] is True
    assert card["step"] == 9
    assert card["classes"][0] == "sky"
    picture = Image.open(finished / "pictures" / "step_000009.png")
    assert picture.width == 5 * 132 + 4
    heading, line, gap = 18, 18, 4
    assert picture.height in {136 + heading + gap + line * rows + gap for rows in range(1, 5)}  # 13 entries, 4 a row
    assert run("train", "--resume", finished) == 0
    assert "finished already" in capsys.readouterr().out


def interrupted(folder: Path, at: int, *, settings: Sequence[str] = TINY) -> None:
    """A run, of the finished one's settings, stopped as by Ctrl-C after ``at`` steps."""
    original = trainer.training_step
    count = 0

    def step(*arguments, **options):
        nonlocal count
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments, **options)

    trainer.training_step = step
    try:
        assert run("train", *settings, "--output", folder) == 130
    finally:
        trainer.training_step = original


@pytest.mark.parametrize("at", [2, 3, 7, 9])
def test_resuming_gives_the_same_weights_to_the_last_bit(finished, tmp_path, at):
    folder = tmp_path / "run"
    interrupted(folder, at)
    assert json.loads((folder / "last.json").read_text())["step"] == at
    assert run("train", "--resume", folder) == 0
    expected, got = load_file(finished / "last.safetensors"), load_file(folder / "last.safetensors")
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        assert torch.equal(value, got[name]), name
    strip = [
        {key: value for key, value in json.loads(line).items() if key != "images_per_second"}
        for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in strip if line["kind"] == "train"] == list(range(1, 10))


def test_a_run_killed_before_its_report_is_finished_by_resuming(finished, tmp_path, monkeypatch):
    folder = tmp_path / "run"

    def killed(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "write_report", killed)
    assert run("train", *TINY, "--output", folder) == 130
    monkeypatch.undo()
    assert run("train", "--resume", folder) == 0
    assert (folder / "report.html").exists()
    expected, got = load_file(finished / "last.safetensors"), load_file(folder / "last.safetensors")
    assert all(torch.equal(value, got[name]) for name, value in expected.items())
    kinds = [
        [json.loads(line)["kind"] for line in (path / "metrics.jsonl").read_text().splitlines()]
        for path in (finished, folder)
    ]
    assert sorted(kinds[0]) == sorted(kinds[1])


@pytest.mark.parametrize(("images", "best"), [(0, 0.9), (2, 0.9), (50, 0.9), (1, 0.1)])
def test_the_best_is_kept_unless_it_was_judged_on_fewer_images(tmp_path, monkeypatch, images, best):
    """The first validation is better than that at the end."""
    found = iter([0.9, 0.1])

    class Found(Whole):
        @property
        def scores(self):
            return self.own

    def scored(*arguments, **options):
        part = Found(np.zeros((2, 3, 12), int), np.zeros((12, 12), int))
        object.__setattr__(part, "own", Scores((0.5,) * 12, next(found), 0.5, 0.5, 0.5))
        return {"off": part, "on": part}

    monkeypatch.setattr(trainer, "evaluate_whole", scored)
    options = ["--epochs", "2", "--pictures", "0", "--batch-norm-epochs", "0", "--validate-images", images]
    assert run("train", *TINY, *options, "--output", tmp_path / "run") == 0
    assert json.loads((tmp_path / "run" / "best.json").read_text())["best"] == best


def test_sheets_of_large_pictures_are_made_smaller(finished, monkeypatch):
    monkeypatch.setattr(journal, "LONGEST", 33)
    model, data = SegModel.load(finished), open_data("scenes:val=2", split="val")
    sheet = journal.validation_sheet(model, data, [0, 1], dtype=None)
    assert sheet.shape[1] == 5 * 37 + 4
    truth = sheet[26:59, 41:74].reshape(-1, 3)  # the second picture below the headings: labels keep their colours
    assert {tuple(colour) for colour in truth} <= {tuple(colour) for colour in data.palette} | {(255, 255, 255)}


def test_sigterm_saves_and_exits_with_143(tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "segmodel.train", *TINY, "--epochs", "1000", "--output", str(folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        deadline = time.monotonic() + 120
        while not (folder / "last.json").exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "stopping after this step; a second time stops at once" in errors
    assert "to go on: --resume" in errors
    assert SegModel.load(folder).num_classes == 12


def test_results_do_not_depend_on_the_number_of_workers(finished, tmp_path):
    folder = tmp_path / "run"
    assert run("train", *TINY, "--workers", "2", "--output", folder) == 0
    expected, got = load_file(finished / "last.safetensors"), load_file(folder / "last.safetensors")
    assert all(torch.equal(value, got[name]) for name, value in expected.items())


def test_batches_are_permutations_of_the_set():
    keys = list(BatchKeys(10, 3, seed=0, first=0, last=6))
    first, second = ([index for batch in half for _, index in batch] for half in (keys[:3], keys[3:]))
    assert first != second
    for epoch in (0, 1):
        indices = [index for batch in keys[3 * epoch : 3 * epoch + 3] for _, index in batch]
        assert len(set(indices)) == 9
        assert {number for batch in keys[3 * epoch : 3 * epoch + 3] for number, _ in batch} == {epoch}
    assert list(BatchKeys(10, 3, seed=0, first=4, last=6)) == keys[4:]
    small = list(BatchKeys(2, 5, seed=0, first=0, last=2))
    assert all(len(batch) == 5 and {index for _, index in batch} == {0, 1} for batch in small)
    assert len({key for batch in small for key in batch}) == 10, "no sample is augmented twice in the same way"


def test_a_batch_holds_the_samples_of_its_keys():
    data = AugmentedData(open_data("scenes:train=6", split="train"), Augmentation(crop=(16, 24)), seed=1)
    keys = BatchKeys(6, 2, seed=0, first=0, last=1)
    batch = next(load_batches(data, keys, workers=0, device=torch.device("cpu")))
    for key, image, label, name in zip(next(iter(keys)), *batch, strict=True):
        assert np.array_equal(image.permute(1, 2, 0), data[key].image)
        assert np.array_equal(label, data[key].label)
        assert name == data[key].name


def test_evaluate_prints_and_writes_the_figures(finished, tmp_path, capsys):
    file = tmp_path / "figures.json"
    assert run("evaluate", finished, "--guidance", "both", "--json", file, "--classes", "sky, road") == 0
    text = capsys.readouterr().out
    assert "guidance off" in text
    assert "chosen classes: sky, road" in text
    assert run("evaluate", finished, "--guidance", "on", "--guidance-weight", "8", "--guidance-radius", "6") == 0
    figures = json.loads(file.read_text())
    assert set(figures["results"]) == {"guidance off", "guidance on"}
    assert 0 <= figures["results"]["guidance on"]["miou"] <= 1


def test_predict_writes_labels_and_overlays(finished, tmp_path):
    photos = tmp_path / "photos"
    (photos / "inner").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (37, 21)), ("inner/b.jpg", (1, 1))):
        Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), np.uint8)).save(photos / name)
    assert run("predict", finished, photos, "--output", tmp_path / "out") == 0
    label = Image.open(tmp_path / "out" / "a.png")
    assert label.mode == "P"
    assert label.size == (37, 21)
    assert np.asarray(label).max() < 12
    assert Image.open(tmp_path / "out" / "inner" / "b_overlay.png").size == (1, 1)
    assert run("predict", finished, photos, "--output", tmp_path / "out") == 2
    assert run("predict", finished, photos, "--output", tmp_path / "out", "--overwrite") == 0


def wrong_class_count(tmp_path: Path) -> Path:
    root = tmp_path / "own"
    for part in ("images", "labels"):
        for split in ("train", "val"):
            (root / part / split).mkdir(parents=True)
    (root / "classes.toml").write_text('classes = [{name = "a", colour = [0, 0, 0]}, {name = "b", colour = [9, 9, 9]}]')
    return root


def test_mistakes_are_one_line_that_names_the_thing(finished, tmp_path, capsys):
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "file").write_text("mine")
    (tmp_path / "bad.toml").write_text("[train]\nrat = 1.0\n")
    (tmp_path / "cut.safetensors").write_bytes((finished / "last.safetensors").read_bytes()[:1000])
    save_file({"weight": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    new = tmp_path / "new"
    cases = [
        (("train", "--data", "nowhere", "--output", new), "data: expected one of"),
        (("train", "--data", f"voc:{tmp_path}/absent", "--output", new), "absent"),
        (("train", *TINY, "--output", occupied), "expected an empty or new folder"),
        (("train", *TINY, "--rate", "fast", "--output", new), "--rate: expected a number, got 'fast'"),
        (("train", *TINY, "--epochs", "0", "--output", new), "epochs: expected at least 1, got 0"),
        (("train", *TINY, "--crop", "64", "--output", new), "--crop: expected a list of 2"),
        (("train", *TINY, "--patch-size", "3", "--output", new), "patch_size: expected a divisor"),
        (("train", *TINY, "--depth", "20", "--output", new), "depth: expected one of"),
        (("train", *TINY, "--colour", "1", "--output", new), "--colour"),
        (("train", *TINY, "--config", tmp_path / "bad.toml", "--output", new), "did you mean 'rate'?"),
        (("train", *TINY, "--config", tmp_path / "absent.toml", "--output", new), "cannot read the configuration"),
        (("train", *TINY, "--recipe", "soup", "--output", new), "--recipe: expected one of"),
        (("train", *TINY, "--init-weights", tmp_path / "absent.pth", "--output", new), "no such weight file"),
        (
            ("train", *TINY, "--init-model", tmp_path / "absent", "--output", new),
            "expected a run folder or a checkpoint",
        ),
        (("train", *TINY, "--init-model", tmp_path / "foreign.safetensors", "--output", new), "a segmodel checkpoint"),
        (("train", *TINY, "--width", "8", "--init-model", finished, "--output", new), "do --depth, --width"),
        (("train", *TINY, "--init-model", finished, "--init-weights", "w.pth", "--output", new), "not beside init_w"),
        (("train", *TINY, "--device", "abacus", "--output", new), "--device: 'abacus' cannot be used here"),
        (("train", "--resume", tmp_path / "absent"), "absent"),
        (("train", "--resume", finished, "--rate", "1"), "--resume: expected no other setting"),
        (("evaluate", tmp_path / "absent"), "expected a run folder or a checkpoint file"),
        (("evaluate", occupied), "expected a run folder or a checkpoint file"),
        (("evaluate", tmp_path / "cut.safetensors"), "not a readable checkpoint"),
        (("evaluate", tmp_path / "foreign.safetensors"), "expected a segmodel checkpoint of format 1, got format none"),
        (("evaluate", finished, "--split", "test"), "split"),
        (("evaluate", finished, "--guidance-radius", "-1"), "--guidance-radius: expected at least 0, got -1"),
        (("evaluate", finished, "--guidance-weight", "much"), "--guidance-weight"),
        (("evaluate", finished, "--classes", "sky,lava"), "--classes: expected some of"),
        (("evaluate", finished, "--json", tmp_path / "no" / "file.json"), "--json: expected a file in"),
        (("predict", finished, tmp_path / "absent.jpg", "--output", new), "no such file or folder"),
        (("predict", finished, occupied, "--output", new), "no picture in this folder"),
        (("predict", finished, tmp_path / "bad.toml", "--output", new), "bad.toml"),
    ]
    for arguments, message in cases:
        assert run(*arguments) == 2, arguments
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert message in error, (arguments, error)
        assert error.startswith(f"segmodel.{arguments[0]}: error: ")
        assert not new.exists() or not list(new.iterdir()), arguments
    assert [file.name for file in occupied.iterdir()] == ["file"]
    assert (occupied / "file").read_text() == "mine"


def test_a_checkpoint_of_another_class_count_is_named(finished, tmp_path, capsys):
    root = wrong_class_count(tmp_path)
    for split in ("train", "val"):
        Image.new("RGB", (8, 8)).save(root / "images" / split / "x.png")
        Image.new("L", (8, 8)).save(root / "labels" / split / "x.png")
    assert run("evaluate", finished, "--data", f"folder:{root}") == 2
    assert "trained on 12 classes, but" in capsys.readouterr().err


def test_a_training_starts_from_another_model_with_its_architecture(finished, tmp_path, capsys):
    before = load_file(finished / "best.safetensors")
    options = [*TINY[:2], "--rate", "0", "--batch-size", "4", "--crop", "64,64", "--epochs", "1", "--workers", "0",
               "--device", "cpu", "--pictures", "0"]  # fmt: skip
    assert run("train", *options, "--init-model", finished, "--output", tmp_path / "same") == 0
    assert (
        f"{finished / 'best.safetensors'}: {len(before)} tensors loaded, new: 0, unused: 0" in capsys.readouterr().out
    )
    model = SegModel.load(tmp_path / "same")
    assert model.config == SegModel.load(finished).config
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.detach(), before[name], rtol=0, atol=0)


def test_a_training_on_other_classes_starts_with_what_does_not_hang_on_them(finished, tmp_path, capsys):
    root = wrong_class_count(tmp_path)
    for split in ("train", "val"):
        Image.new("RGB", (40, 40)).save(root / "images" / split / "x.png")
        Image.new("L", (40, 40)).save(root / "labels" / split / "x.png")
    options = ["--data", f"folder:{root}", "--rate", "0", "--batch-size", "1", "--crop", "32,32", "--epochs", "1",
               "--workers", "0", "--device", "cpu", "--init-model", finished / "best.safetensors",
               "--allow-absent"]  # fmt: skip
    assert run("train", *options, "--guidance", "off", "--output", tmp_path / "run") == 0
    assert "best.safetensors: " in capsys.readouterr().out
    before, model = SegModel.load(finished), SegModel.load(tmp_path / "run")
    assert model.num_classes == 2
    assert model.config.guidance == "off"
    assert model.config.width == before.config.width == 4
    own = dict(before.named_parameters())
    fit = {name for name, value in model.named_parameters() if value.shape == own[name].shape}
    assert {name for name in own if name.startswith("backbone.")} < fit < set(own)
    for name, value in model.named_parameters():
        assert torch.equal(value, own[name]) == (name in fit) or not value.any(), name


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_broken_file_met_during_training_is_one_line(tmp_path, capsys, workers):
    root = wrong_class_count(tmp_path)
    for split in ("train", "val"):
        Image.new("RGB", (8, 8)).save(root / "images" / split / "x.png")
        Image.new("L", (8, 8), 7).save(root / "labels" / split / "x.png")
    more = ["--data", f"folder:{root}", "--workers", workers, "--allow-absent"]  # else it is met before
    assert run("train", *TINY, *more, "--output", tmp_path / "run") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "labels/train/x.png" in error
    assert "7" in error


def test_run_time_faults_have_status_1_and_a_hint(monkeypatch, capsys):
    def broken(arguments):
        raise RuntimeError("disk\nfull")

    assert cli.run("train", broken, []) == 1
    assert capsys.readouterr().err == "segmodel.train: error: RuntimeError: disk full (--debug shows the trace)\n"
    assert cli.run("train", broken, ["--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_file_of_settings_alone_lies_over_the_recipe_of_its_data(tmp_path):
    file = tmp_path / "few.toml"
    for text, depth in (("[train]\nseed = 3\n", 18), ('[train]\nseed = 3\ndata = "camvid:CamVid"\n', 101)):
        file.write_text(text)
        config = resolve(train.make_parser().parse_args(["--config", str(file)]))
        assert (config.model.depth, config.train.seed) == (depth, 3)


def test_a_model_to_start_from_lies_over_the_recipe_and_under_what_is_given(finished, tmp_path):
    file = tmp_path / "few.toml"
    file.write_text(f"[model]\nguidance_radius = 5\n[train]\ninit_model = {json.dumps(str(finished))}\n")
    arguments = ["--recipe", "voc-resnet101", "--config", str(file), "--variant", "patch", "--guidance-eps", "4"]
    config = resolve(train.make_parser().parse_args(arguments))
    assert (config.model.width, config.model.rings, config.train.init_weights) == (4, ((1, 2),), "")
    assert (config.model.guidance_radius, config.model.guidance, config.model.guidance_eps) == (5, "off", 4.0)
    anew = resolve(train.make_parser().parse_args([*arguments, "--init-model", ""]))
    assert (anew.model.width, anew.train.init_model) == (64, "")  # the file's model, taken back


def test_a_variant_is_the_papers_model_whatever_head_the_settings_name(tmp_path):
    file = tmp_path / "aspp.toml"
    file.write_text('[model]\nhead = "aspp"\npatch_size = 1\nlabel_context = "none"\nguidance = "off"\n')
    for variant in ("unary", "context", "guide"):
        arguments = ["--data", "voc:VOC", "--config", str(file), "--variant", variant]
        assert resolve(train.make_parser().parse_args(arguments)).model.head == "segmodel"


def test_a_variant_has_all_its_parts_whatever_model_it_starts_from(tmp_path):
    for first in VARIANTS:
        settings = {"depth": 18, "width": 4, "rings": ((1, 2),)} | VARIANTS[first]
        model = SegModel(2, ModelConfig(**settings))
        model.classes, model.palette = ("a", "b"), np.zeros((2, 3), np.uint8)
        model.save_pretrained(tmp_path / first)
        for variant in VARIANTS:
            arguments = ["--data", "voc:VOC", "--init-model", str(tmp_path / first), "--variant", variant]
            config = resolve(train.make_parser().parse_args(arguments)).model
            kept = first in ("context", "patch", "guide")
            expected = {"depth": 18, "width": 4, "rings": ((1, 2),) if kept else ModelConfig.rings} | VARIANTS[variant]
            assert config == ModelConfig(**expected), (first, variant)


def test_the_recipe_of_the_scenes_is_the_default_and_flags_override_it():
    parser = train.make_parser()
    assert resolve(parser.parse_args([])).model.depth == 18
    assert resolve(parser.parse_args(["--depth", "34"])).model.depth == 34
    assert resolve(parser.parse_args(["--data", "voc:x"])).model.depth == 101
    unary = resolve(parser.parse_args(["--variant", "unary"])).model
    assert (unary.patch_size, unary.rings, unary.label_context, unary.guidance) == (1, (), "none", "off")


@pytest.mark.parametrize(
    ("given", "rings", "pool"),
    [
        (["--crop", "321,321"], ((2, 6), (4, 12)), 25),
        (["--crop", "713,713"], ((2, 6), (4, 12)), 25),
        (["--crop", "192,640"], ((1, 4), (2, 7)), 15),
        (["--crop", "192,192", "--output-stride", "8"], ((2, 6), (4, 12)), 25),
        (["--crop", "33,33"], ((1, 1), (1, 1)), 3),
        (["--crop", "192,192", "--rings", "[2,6]", "--label-pool", "9"], ((2, 6),), 9),
        (["--crop", "192,192", "--variant", "context"], ((1, 4), (2, 7)), 9),
        (["--crop", "321,321", "--patch-size", "4"], ((2, 6), (4, 12)), 51),
        (["--crop", "192,192", "--variant", "unary"], (), 9),
    ],
)
def test_context_keeps_its_share_of_a_smaller_map(given, rings, pool):
    model = resolve(train.make_parser().parse_args(["--data", "voc:VOC", *given])).model
    assert (model.rings, model.label_pool) == (rings, pool)


def test_a_flag_that_a_variant_fixes_is_refused() -> None:
    options = train.make_parser().parse_args(["--variant", "unary", "--rings", "[1,3]"])
    with pytest.raises(UserError, match="--rings: expected not beside --variant unary"):
        resolve(options)


def test_adamw_resumes_to_the_last_bit_and_refuses_the_state_of_sgd(tmp_path, capsys):
    adamw = [*TINY, "--optimizer", "adamw", "--rate", "0.001", "--warm-up", "4", "--joint-from", "0.5"]
    whole, part = tmp_path / "whole", tmp_path / "part"
    assert run("train", *adamw, "--output", whole) == 0
    interrupted(part, 6, settings=adamw)  # the CRF has been trained for one step
    kept = load_file(part / "last.safetensors")
    steps = {int(value) for name, value in kept.items() if name.endswith("#step")}
    assert steps == {6, 1}
    assert run("train", "--resume", part) == 0
    expected, got = load_file(whole / "last.safetensors"), load_file(part / "last.safetensors")
    assert expected.keys() == got.keys()
    assert all(torch.equal(value, got[name]) for name, value in expected.items())
    rates = [
        json.loads(line)["rate"] for line in (whole / "metrics.jsonl").read_text().splitlines() if '"train"' in line
    ]
    assert rates[:5] == pytest.approx([0.001 * (1 - step / 9) ** 0.9 * min(1, (step + 1) / 5) for step in range(5)])
    settings = part / "config.toml"
    settings.write_text(settings.read_text().replace('"adamw"', '"sgd"').replace("epochs = 3", "epochs = 4"))
    capsys.readouterr()
    assert run("train", "--resume", part) == 2
    assert "expected that of SGD, got another optimiser's" in capsys.readouterr().err


def test_adamw_and_pretrained_timm_models_have_rates_of_their_own(tmp_path):
    def resolved(*given):
        return resolve(train.make_parser().parse_args(["--data", "voc:VOC", *given])).train

    def facts(config):
        return config.optimizer, config.rate, config.head_rate, config.frozen_batch_norm

    assert facts(resolved()) == ("sgd", 0.01, 1.0, False)
    assert facts(resolved("--optimizer", "adamw")) == ("adamw", 1e-3, 1.0, False)
    assert facts(resolved("--optimizer", "adamw", "--init-weights", "x.pth")) == ("adamw", 2.5e-4, 8.0, False)
    assert facts(resolved("--backbone", "timm:x")) == ("sgd", 0.01, 1.0, False)
    timm = ("--backbone", "timm:x", "--init-weights", "timm")
    assert facts(resolved(*timm)) == ("adamw", 2.5e-4, 8.0, True)
    assert facts(resolved(*timm, "--optimizer", "sgd")) == ("sgd", 0.01, 1.0, True)
    assert facts(resolved(*timm, "--rate", "0.1", "--no-frozen-batch-norm")) == ("sgd", 0.1, 1.0, False)
    assert facts(resolved(*timm, "--rate", "0.1", "--optimizer", "adamw")) == ("adamw", 0.1, 8.0, True)
