"""What the commands beside training, evaluation and prediction are given wrongly, and the functions of a model."""

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from bad_input_files import without_access
from bad_input_tools import CLASSES, MODEL, PALETTE, Kind, Outcome, Room, environment, pixels

from segmodel import ModelConfig, SegModel
from segmodel.evaluation.tuning import tune_refinement
from segmodel.experiments.exported import of_model
from segmodel.predict import find_images

Attempt = Callable[[Room], Any]


def command(name: str, *arguments: object) -> Attempt:
    return lambda room: room.command(name, *arguments)


def given(name: str, content: bytes | str, *arguments: object) -> Attempt:
    """The command where this file lies."""
    return lambda room: room.file(name, content) and room.command(*arguments)


def locked(*arguments: object) -> Attempt:
    """The command where nobody may write into the folder "new"."""
    return lambda room: room.new.mkdir() or without_access(room, room.new, lambda: room.command(*arguments))


def scored(scores: np.ndarray, *arguments: object) -> Attempt:
    """Tuning on these scores of every picture."""

    def attempt(room: Room) -> Outcome:
        for name in ("a", "b"):
            room.file(f"scores/{name}.npy")
            np.save(room.path / "scores" / f"{name}.npy", scores)
        return room.command("tune", "scores", "--data", "folder:own", *arguments)

    return attempt


def model(**changes: Any) -> SegModel:
    """A tiny one, with the names of its classes."""
    made = SegModel(2, ModelConfig(**{**MODEL, **changes}))
    made.classes, made.palette = tuple(CLASSES), np.array(PALETTE, np.uint8)
    return made


def kept(change: Callable[[dict], Any] | None = None, *, text: str | None = None, lost: str = "") -> Attempt:
    """Loading a model folder with its card changed or replaced, or without one of its files."""

    def attempt(room: Room) -> list[str]:
        model().save_pretrained(room.path / "kept")
        card = room.path / "kept" / "card.json"
        values = json.loads(card.read_text())
        if change:
            change(values)
        card.write_text(json.dumps(values) if text is None else text)
        if lost:
            (room.path / "kept" / lost).unlink()
        return list(SegModel.from_pretrained(room.path / "kept").classes)

    return attempt


def checked(*arguments: object) -> Callable[[Room], tuple[int, str]]:
    """Exit status of data check, and the first problem that it prints."""

    def attempt(room: Room) -> tuple[int, str]:
        outcome = room.command("data.__main__", "check", *arguments, "--workers", "0")
        assert not outcome.harmed
        return outcome.status, next(line.strip() for line in outcome.output.splitlines() if "wrong: " in line)

    return attempt


def journal(text: str) -> Attempt:
    return given("run/metrics.jsonl", text, "report", "run")


def ablated(*arguments: object) -> Attempt:
    return command("ablate", "--output", "new", "--data", "folder:own", *arguments)


def measured(*arguments: object) -> Attempt:
    return command("benchmark", "--only", *arguments)


def torchrun(*arguments: object, **variables: str) -> Attempt:
    def attempt(room: Room) -> Outcome:
        with environment(**variables):
            return room.command("train", "--data", "folder:own", "--depth", "18", "--device", "cpu", *arguments)

    return attempt


LOGITS = np.zeros((2, 5, 9), np.float32)
TUNING = ("tune", "run", "--data", "folder:own")
EXPORT = ("export", "run", "--format", "pt2", "--output")
SHEET = ("data.__main__", "show", "folder:own", "--output")
MASK = ("refine", "own/images/train/a.png")
COMMANDS = [
    Kind("package: unknown command", command("__main__", "fly"), "got 'fly' (--help lists the commands)"),
    Kind("package: version and more", command("__main__", "--version", "all"), "got '--version all'"),
    Kind("tune: scores of nobody", command("tune", "none", "--data", "folder:own"), "none: expected a run folder"),
    Kind("tune: scores of no picture", command("tune", "own", "--data", "folder:own"), "own/a.npy: cannot be read"),
    Kind(
        "tune: scores of other classes", scored(np.zeros((5, 5, 9))), "a: expected scores of 2 classes, got (5, 5, 9)"
    ),
    Kind("tune: scores of NaN", scored(LOGITS * math.nan), "scores: expected finite numbers"),
    Kind("tune: probabilities", scored(np.stack([0.3 + LOGITS[0], 0.7 - LOGITS[0]])), "scores: expected logits"),
    Kind("tune: part that is none", command(*TUNING, "--split", "lava"), "lava"),
    Kind("tune: fewer images than none", command(*TUNING, "--images", "-1"), "--images: expected at least 0, got -1"),
    Kind("tune: stride of nothing", command(*TUNING, "--stride", "0"), "--stride: expected at least 1, got 0"),
    Kind(
        "tune: unknown metric",
        command(*TUNING, "--metric", "gold"),
        "--metric: expected one of miou, boundary_iou, got 'gold'",
    ),
    Kind("tune: settings into no folder", command(*TUNING, "--output", "no/x.json"), "expected a file in an existing"),
    Kind("tune: output is there", given("x.json", "mine", *TUNING, "--output", "x.json"), "x.json: exists already"),
    Kind("tune: no samples", lambda r: tune_refinement([]), "at least one sample, got 'miou' and 0"),
    Kind(
        "refine: settings that are a list",
        given(
            "s.json", '{"settings": [1]}', *MASK, "own/labels/train/a.png", "--output", "o.png", "--settings", "s.json"
        ),
        "settings: expected a table, got [1]",
    ),
    Kind(
        "refine: settings of nothing",
        given(
            "s.json", '{"settings": {}}', *MASK, "own/labels/train/a.png", "--output", "o.png", "--settings", "s.json"
        ),
        "settings: expected a table, got {}",
    ),
    Kind(
        "refine: settings without end",
        given("s.json", "[" * 99999, *MASK, "own/labels/train/a.png", "--output", "o.png", "--settings", "s.json"),
        "s.json: expected a file of segmodel.tune",
    ),
    Kind("refine: mask in colours", command(*MASK, "own/images/train/b.png", "--output", "o.png"), "a grey mask"),
    Kind(
        "refine: mask that is a folder", command(*MASK, "own", "--output", "o.png"), "a.png: expected a folder, as own"
    ),
    Kind(
        "refine: labels taken for a mask",
        command(*MASK, "own/labels/train/a.png", "--output", "o.png"),
        "got the values 0, 1, 255; say --labels if they are classes",
    ),
    Kind(
        "refine: photograph as labels",
        command(*MASK, "own/images/train/b.png", "--labels", "--output", "o.png"),
        "labels of at most 256 colours, got 777: a photograph?",
    ),
    Kind(
        "refine: labels and probabilities",
        command(*MASK, "own/labels/train/a.png", "--labels", "--probabilities", "--output", "o.png"),
        "not allowed with argument",
    ),
    Kind(
        "refine: folder beside none",
        command("refine", "own/images/train", "new", "--output", "out"),
        "new: expected a folder, as own/images/train is one",
    ),
    Kind(
        "refine: folders of nothing alike",
        command("refine", "own/labels/train", "own/images", "--output", "out"),
        "expected an image for each file in own/images, got none for",
    ),
    Kind(
        "refine: mask nobody may write",
        locked(*MASK, "own/labels/train/a.png", "--labels", "--output", "new/o.png"),
        "o.png: cannot be written",
    ),
    Kind(
        "refine: comparison in the place of the output",
        command(*MASK, "own/labels/train/a.png", "--labels", "--output", "o.png", "--compare", "./o.png"),
        "--compare: expected another place than that of --output, got ./o.png",
    ),
    Kind("refine: another ending", command(*MASK, "own/labels/train/a.png", "--output", "o.jpg"), "expected a .png or"),
    Kind(
        "refine: output is there",
        command(*MASK, "own/labels/train/a.png", "--output", "own/labels/val/a.png"),
        "exists already",
    ),
    Kind("refine: no result wanted", command(*MASK, "own/labels/train/a.png"), "or --page, got neither"),
    Kind(
        "refine: page of labels",
        command(*MASK, "own/labels/train/a.png", "--labels", "--page", "p.html"),
        "--page: expected one picture and its scores",
    ),
    Kind("refine: page of a mask", command(*MASK, "own/labels/train/a.png", "--page", "p.html"), "as an .npy file"),
    Kind("export: unknown format", command("export", "run", "--format", "caffe", "--output", "x"), "choice: 'caffe'"),
    Kind(
        "export: into no folder",
        command(*EXPORT, "no/x.pt2"),
        "expected a .pt2 file in an existing folder",
    ),
    Kind("export: nobody may write", locked(*EXPORT, "new/x.pt2"), "--output: new/x.pt2: cannot be written"),
    Kind("export: output is there", given("x.pt2", "mine", *EXPORT, "x.pt2"), "x.pt2: exists already"),
    Kind("export: somebody else's folder", command("export", "own", *EXPORT[2:], "x.pt2"), "found none in it"),
    Kind(
        "export: head that cannot be",
        lambda r: of_model(model(head="ppm", patch_size=1, label_context="none")),
        "head: 'ppm' has operators that depend on the image's size",
    ),
    Kind("export: nothing", command("export", *EXPORT[2:], "x.pt2"), "expected RUN, or --refine in its place"),
    Kind("export: a run and the refinement", command(*EXPORT, "x.pt2", "--refine"), "expected RUN, or --refine in"),
    Kind("export: settings of a run", command(*EXPORT, "x.pt2", "--radius", "3"), "--radius: expected with --refine"),
    Kind(
        "export: settings that are missing",
        command("export", "--refine", *EXPORT[2:], "x.pt2", "--stride", "4"),
        "expected --radius, --weight, --balance, --iterations too",
    ),
    Kind("export: no tolerance", command(*EXPORT, "x.pt2", "--tolerance", "0"), "tolerance: expected more than 0"),
    Kind("ablate: nothing to report", command("ablate", "--output", "new", "--report-only"), "runs: expected finished"),
    Kind("ablate: unknown variant", ablated("--variants", "unary,soup"), "--variants: expected one of"),
    Kind("ablate: setting that is none", ablated("--variants", "patch:n=4"), "--variants: patch: unknown setting 'n'"),
    Kind("ablate: setting of all", ablated("--variants", "patch:data=voc"), "expected a setting that may differ"),
    Kind("ablate: setting out of bounds", ablated("--variants", "patch:patch_size=0"), "patch_size=0: patch_size: exp"),
    Kind("ablate: setting without a value", ablated("--variants", "guide:rate"), "expected guide:FIELD=VALUE"),
    Kind("ablate: one variant twice", ablated("--variants", "guide,guide:patch_size=2"), "expected different ones"),
    Kind("ablate: seeds that are none", ablated("--seeds", "0,-1"), "--seeds: expected at least 0"),
    Kind("ablate: one seed", ablated("--seed", "3"), "--seed: expected --seeds here"),
    Kind("ablate: classes of nobody", ablated("--classes", "lava"), "--classes: expected some of"),
    Kind("ablate: no job", ablated("--jobs", "0"), "--jobs: expected at least 1"),
    Kind("ablate: size of nothing", ablated("--time-size", "0,5"), "--time-size: expected at least 1"),
    Kind("ablate: time that is no number", ablated("--time-seconds", "nan"), "--time-seconds: expected a number"),
    Kind(
        "ablate: folder of something else",
        given("new/runs/unary-seed0/mine.txt", "x", "ablate", "--output", "new"),
        "unary-seed0: expected a run folder or nothing",
    ),
    Kind(
        "ablate: runs that are a file",
        given("new/runs", "x", "ablate", "--output", "new", "--data", "folder:own"),
        "new/runs: cannot be made",
    ),
    Kind(
        "data check: folder that is missing",
        checked("folder:none"),
        (2, "wrong: folder: expected a folder, got none (missing)"),
    ),
    Kind(
        "data check: label out of range",
        lambda r: r.label(pixels(channels=1) | 64) and checked("folder:own")(r)[1][:42],
        "wrong: own/labels/train/a.png: label value",
    ),
    Kind(
        "data check: fewer problems than none",
        command("data.__main__", "check", "folder:own", "--problems", "-1"),
        "--problems: expected at least 0, got -1",
    ),
    Kind(
        "data check: fewer workers than none",
        command("data.__main__", "check", "folder:own", "--workers", "-2"),
        "--workers: expected at least -1, got -2",
    ),
    Kind("data: unknown kind", command("data.__main__", "show", "soup:own", "--output", "x.png"), "soup"),
    Kind("data: no command", command("data.__main__"), "the following arguments are required: command"),
    Kind("data show: no sample", command(*SHEET, "x.png", "--images", "0"), "--images: expected at least 1, got 0"),
    Kind("data show: into no folder", command(*SHEET, "no/x.png"), "expected a .png file in an existing folder"),
    Kind(
        "data show: another ending", command(*SHEET, "x.gif"), "expected a .png file in an existing folder, got x.gif"
    ),
    Kind(
        "data show: into a folder's place",
        lambda r: (r.path / "x.png").mkdir() or r.command(*SHEET, "x.png"),
        "expected a .png file in an existing folder, got x.png",
    ),
    Kind("report: of nothing", command("report", "none"), "none: expected a run folder"),
    Kind("report: run without figures", command("report", "run"), "run: expected a run folder with config.toml"),
    Kind("report: line of numbers", journal("[1]\n"), "run: expected a run folder with config.toml"),
    Kind("report: line without its kind", journal("{}\n"), "run: expected a run folder with config.toml"),
    Kind(
        "report: step in words", journal('{"kind": "train", "step": "two", "loss": "x"}\n'), "run: expected a run fol"
    ),
    Kind("report: validation of nothing", journal('{"kind": "val", "step": 1}\n'), "run: expected a run folder with"),
    Kind("report: end without its scores", journal('{"kind": "final"}\n'), "run: expected a run folder with config.to"),
    Kind(
        "report: nobody may write",
        lambda r: r.file("run/metrics.jsonl") and without_access(r, r.run, lambda: r.command("report", "run")),
        "report.html: cannot be written",
    ),
    Kind(
        "batch norm: run without its configuration",
        lambda r: (r.run / "config.toml").unlink() or r.command("batch_norm", "run"),
        "config.toml: cannot read the configuration",
    ),
    Kind("batch norm: no epoch", command("batch_norm", "run", "--epochs", "0"), "--epochs: expected more than 0"),
    Kind("batch norm: NaN epochs", command("batch_norm", "run", "--epochs", "nan"), "--epochs: expected a number"),
    Kind(
        "batch norm: output is there",
        command("batch_norm", "run", "--output", "run/last.safetensors"),
        "exists already",
    ),
    Kind(
        "batch norm: nobody may write",
        locked("batch_norm", "run", "--output", "new/x.safetensors"),
        "--output: new/x.safetensors: cannot be written",
    ),
    Kind("memory: crop of one number", measured("memory", "--crop", "32"), "--crop: expected a list of 2"),
    Kind("memory: depth of no ResNet", measured("memory", "--depth", "20"), "depth: expected"),
    Kind("memory: no class", measured("memory", "--classes", "0"), "--classes: expected at least 1"),
    Kind("loader: no batch", measured("loader", "--batches", "0"), "--batches: expected at least 1, got 0"),
    Kind(
        "torchrun: restarts without a folder", torchrun(TORCHELASTIC_MAX_RESTARTS="1"), "--output: expected with torch"
    ),
    Kind("torchrun: number of processes in words", torchrun(WORLD_SIZE="two"), "WORLD_SIZE: expected a whole number"),
    Kind("torchrun: a process without a number", torchrun(WORLD_SIZE="2"), "RANK, LOCAL_RANK, MASTER_ADDR, MASTER_POR"),
    Kind("torchrun: no patience", torchrun("--timeout-minutes", "0"), "timeout_minutes: expected more than 0, got 0"),
]
FUNCTIONS = [
    Kind("copy of the card that is missing", kept(lost="card.json"), CLASSES),
    Kind(
        "weights that are missing",
        kept(lost="model.safetensors"),
        "kept: expected a run folder or a checkpoint file, found none in it",
    ),
    Kind("card that is no JSON", kept(text="{"), "card.json: not a readable card"),
    Kind("card nested without end", kept(text="[" * 99999), "card.json: not a readable card"),
    Kind("card of a list", kept(text="[]"), "card.json: differs from the card in model.safetensors"),
    Kind(
        "card of other classes", kept(lambda c: c["classes"].pop()), "differs from the card in model.safetensors (cla"
    ),
    Kind(
        "model folder that is none",
        lambda r: SegModel.from_pretrained("own"),
        "own: expected a run folder or a checkpoint file, found",
    ),
    Kind("model folder that is a file", lambda r: model().save_pretrained(r.file("f")), "f: cannot be written"),
    Kind("model without class names", lambda r: SegModel(2, model().config).save_pretrained("new"), "model.classes, "),
    Kind("model's unknown remark", lambda r: model().save_pretrained("new", colour=1), "colour: expected one of data"),
    Kind(
        "model's remark of another world", lambda r: model().save_pretrained("new", data={1}), "data: expected what JS"
    ),
    Kind("segment: nothing", lambda r: model().segment(None), "image: expected an array, a PIL image or a path"),
    Kind("segment: floats", lambda r: model().segment(np.zeros((4, 4, 3))), "image: expected uint8 (H, W, 3)"),
    Kind("segment: tensor", lambda r: model().segment(torch.zeros(3, 4, 4)), "a PIL image or a path, got Tensor"),
    Kind("segment: picture that is missing", lambda r: model().segment("none.png"), "none.png: "),
    Kind("segment: name without end", lambda r: model().segment("x" * 5000), "xxx: "),
    Kind("segment: folder without pictures", lambda r: model().segment("own"), "own: no picture in this folder"),
    Kind(
        "segment: folder of files it does not read",
        lambda r: model().segment(r.file("new/a.eps").parent),
        "new: no picture in this folder",
    ),
    Kind(
        "folder of files that are not read",
        lambda r: find_images([str(r.file("new/a.eps").parent)]),
        "new: no picture in this folder",
    ),
    Kind(
        "endings of pictures",
        lambda r: (
            [r.picture(f"p/{e}.{e}") for e in ("png", "jpg", "tif", "webp", "bmp", "ppm", "gif")]
            and [r.file(f"p/{e}.{e}") for e in ("eps", "psd", "pdf", "txt")]
            and len(find_images(["p"]))
        ),
        7,
    ),
]
