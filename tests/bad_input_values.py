"""Settings, checkpoints, weights and arrays that are wrong."""

import math
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bad_input_files import without_access
from bad_input_tools import CLASSES, Kind, Outcome, Room, jpeg, pixels, turned
from safetensors.torch import save_file

from segmodel import GuidanceCRF, GuidedFilter, ModelConfig, SegModel
from segmodel.data import Augmentation
from segmodel.evaluation.metrics import class_counts
from segmodel.inference.comparison import compare
from segmodel.inference.refine import refine, refine_mask
from segmodel.inference.refine_labels import refine_labels
from segmodel.inference.refine_map import refine_map
from segmodel.kernels import box_filter, distance_aware_pool, guidance_crf, guided_filter, patch_rearrange
from segmodel.training.objective import hard_pixel_loss


def flag(name: str, value: str) -> Callable[[Room], Outcome]:
    return lambda room: room.train(name, value)


def settings(text: str) -> Callable[[Room], Outcome]:
    return lambda room: room.configured(text)


def weights(name: str, content: str | bytes) -> Callable[[Room], Outcome]:
    return lambda room: room.train("--class-weights", room.file(name, content))


CONFIGURATION = [
    Kind("text for a number", settings('[train]\nrate = "fast"'), "train.rate: expected a number, got 'fast'"),
    Kind("fraction for a whole number", settings("[train]\nepochs = 2.5"), "train.epochs: expected a whole number"),
    Kind("true for a number", settings("[train]\nepochs = true"), "expected a whole number, got True"),
    Kind("number for a switch", settings("[augmentation]\nmirror = 1"), "mirror: expected true or false, got 1"),
    Kind("list of another length", settings("[augmentation]\ncrop = [1, 2, 3]"), "crop: expected a list of 2"),
    Kind("NaN", settings("[train]\nrate = nan"), "train.rate: expected a finite number, got nan"),
    Kind("infinity", settings("[model]\nguidance_eps = inf"), "guidance_eps: expected a finite number, got inf"),
    Kind("infinity by overflow", flag("--rate", "1e999"), "--rate: expected a finite number, got inf"),
    Kind("whole number too large for a float", flag("--rate", "9" * 400), "--rate: expected a number, got 999"),
    Kind("number of 5,000 digits", flag("--epochs", "9" * 5000), "--epochs: expected a whole number, got '999"),
    Kind("negative count", flag("--epochs", "-1"), "epochs: expected at least 1, got -1"),
    Kind("zero batch", flag("--batch-size", "0"), "batch_size: expected at least 1, got 0"),
    Kind("negative rate", flag("--rate", "-0.1"), "rate: expected at least 0, got -0.1"),
    Kind("share above one", flag("--keep", "1.5"), "keep: expected at most 1, got 1.5"),
    Kind("start after the end", flag("--joint-from", "1.5"), "joint_from: expected at most 1, got 1.5"),
    Kind("momentum that grows without end", flag("--momentum", "1.5"), "momentum: expected at most 1, got 1.5"),
    Kind("seed of too many bits", flag("--seed", str(2**64)), "seed: expected at most"),
    Kind("crop of nothing", flag("--crop", "0,32"), "crop: expected at least 1, got (0, 32)"),
    Kind("range the wrong way round", flag("--scale", "2,0.5"), "scale: expected (low, high) with 0 < low <= high"),
    Kind("even window", flag("--label-pool", "4"), "label_pool: expected an odd number, got 4"),
    Kind("width of a million", flag("--width", "1000000"), "width: expected at most 4096, got 1000000"),
    Kind("ring at no distance", flag("--rings", "[1,0]"), "rings: expected up to 16 pairs"),
    Kind("ring of one number", flag("--rings", "[1]"), "--rings: expected a list"),
    Kind("choice that is none", flag("--mining", "gold"), "--mining: expected one of pixel, block, got 'gold'"),
    Kind("depth that no ResNet has", flag("--depth", "20"), "depth: expected one of"),
    Kind("patch that fits no stride", flag("--patch-size", "3"), "patch_size: expected a divisor"),
    Kind(
        "contradiction of depth and kind", flag("--preactivation", "--mirror"), "preactivation: expected a depth of 50"
    ),
    Kind("batch that cannot be parted", flag("--accumulate", "3"), "batch_size: expected a multiple of 3"),
    Kind("unknown section", settings("[soup]\nsalt = 1"), "unknown section or key 'soup'"),
    Kind("unknown key", settings("[train]\nrat = 1.0"), "unknown key train.rat (did you mean 'rate'?)"),
    Kind("key twice", settings("[train]\nrate = 1.0\nrate = 2.0"), "settings.toml: not a TOML file"),
    Kind("broken TOML", settings("[train\nrate"), "settings.toml: not a TOML file"),
    Kind("TOML nested without end", settings("x = " + "[" * 9999), "settings.toml: not a TOML file"),
    Kind("TOML that is not UTF-8", lambda r: r.configured(b"\xff"), "settings.toml: not a TOML file"),
    Kind("configuration over the limit", settings("#" * (1 << 20) + "\n"), "expected at most 1048576 bytes"),
    Kind("configuration that is missing", flag("--config", "none.toml"), "none.toml: cannot read the configuration"),
    Kind("configuration that is a folder", flag("--config", "own"), "own: cannot read the configuration"),
    Kind("unknown recipe", flag("--recipe", "soup"), "--recipe: expected one of"),
    Kind("unknown flag", flag("--colour", "1"), "--colour"),
    Kind("abbreviated flag", flag("--epoch", "1"), "--epoch"),
    Kind("unknown device", flag("--device", "abacus"), "--device: 'abacus' cannot be used here"),
    Kind("device that holds no numbers", flag("--device", "meta"), "--device: 'meta' cannot be used here"),
    Kind(
        "class weights that are no file", flag("--class-weights", "mean"), "mean: cannot be read (No such file or dire"
    ),
    Kind("class weights of too few", weights("w.json", "[1]"), "w.json: expected 2 weights, got 1"),
    Kind(
        "class weight of nothing", weights("w.txt", "sky = 0\nrest = 1"), "sky: expected a finite number above 0, got 0"
    ),
    Kind("class weight of an unknown class", weights("w.toml", "sky = 1\nlava = 1"), "'lava': expected one of the cl"),
    Kind(
        "class weights without a class",
        weights("w.txt", "sky = 1"),
        "expected a weight for every class, got none for r",
    ),
    Kind("class weights of noise", weights("w.txt", b"\xff\x00"), "w.txt: cannot be read ("),
    Kind(
        "more epochs for a run that is none",
        lambda r: r.command("train", "--resume", r.own, "--epochs", "9"),
        "cannot read the configuration",
    ),
    Kind("occupied run folder", lambda r: r.file("new/mine.txt", "x") and r.train(), "expected an empty or new folder"),
    Kind(
        "run folder that is a file", lambda r: r.file("new", "x") and r.train(), "new: expected an empty or new folder"
    ),
    Kind("run folder below a file", lambda r: r.file("f") and r.command("train", "--output", "f/run"), "f/run"),
    Kind(
        "run folder that cannot be written",
        lambda r: r.new.mkdir() or without_access(r, r.new, lambda: r.train()),
        "--output: ",
    ),
    Kind(
        "resuming with other settings",
        lambda r: r.command("train", "--resume", r.run, "--rate", "1"),
        "no other setting",
    ),
    Kind("weight of NaN at inference", lambda r: r.evaluate(r.run, "--guidance-weight", "nan"), "guidance-weight"),
    Kind("negative radius at inference", lambda r: r.evaluate(r.run, "--guidance-radius", "-1"), "guidance-radius"),
    Kind("class that is unknown", lambda r: r.evaluate(r.run, "--classes", "lava"), "--classes: expected some of"),
    Kind(
        "figures into a folder that is missing",
        lambda r: r.evaluate(r.run, "--json", "no/x.json"),
        "--json: expected a file in an existing folder",
    ),
    Kind(
        "predictions into a file",
        lambda r: r.command("predict", r.run, r.picture("a.png"), "--output", r.file("f")),
        "--output: ",
    ),
    Kind(
        "predictions that are there", lambda r: r.file("new/a.png") and r.predict(r.picture("a.png")), "exists already"
    ),
    Kind("no thread", lambda r: r.command("benchmark", "--threads", "0"), "--threads: expected at least 1, got (0,)"),
]


def put(name: str, value: object) -> Callable[[dict], None]:
    return lambda values: values.__setitem__(name, value)


def changed(name: str, value: object, expected: str, kind: str) -> Kind:
    """A checkpoint whose card holds this."""
    return Kind(kind, lambda r: r.evaluate(r.checkpoint(card=put(name, value))), expected)


def reweighed(change: Callable[[dict], Any], expected: str, kind: str, status: int = 2) -> Kind:
    return Kind(kind, lambda r: r.evaluate(r.checkpoint(tensors=change)), expected, status)


class Malice:
    """Unpickled it would make a file."""

    def __reduce__(self) -> tuple:
        return (open, ("harmed.txt", "w"))


def malicious(room: Room, name: str) -> Path:
    return room.file(name, pickle.dumps({"state_dict": {"conv1.weight": Malice()}}))


def weights(content: object, name: str = "w.pth") -> Callable[[Room], Outcome]:
    def attempt(room: Room) -> Outcome:
        torch.save(content, room.path / name)
        return room.train("--init-weights", name)

    return attempt


STEM = "backbone.conv1.weight"
HEAD = struct.pack("<Q", 9) + b'{"a":"b"}'
CHECKPOINTS = [
    Kind("run that is missing", lambda r: r.evaluate("none"), "none: expected a run folder or a checkpoint file"),
    Kind("empty checkpoint", lambda r: r.evaluate(r.file("x.safetensors")), "not a readable checkpoint"),
    Kind(
        "truncated checkpoint",
        lambda r: r.evaluate(r.file("x.safetensors", Path("run/last.safetensors").read_bytes()[:-9])),
        "x.safetensors: not a readable checkpoint",
    ),
    Kind("checkpoint of noise", lambda r: r.evaluate(r.file("x.safetensors", pixels().tobytes())), "not a readable"),
    Kind("header of nonsense", lambda r: r.evaluate(r.file("x.safetensors", HEAD)), "not a readable checkpoint"),
    Kind("header longer than the file", lambda r: r.evaluate(r.file("x.safetensors", b"\xff" * 8)), "not a readable"),
    Kind(
        "somebody else's safetensors",
        lambda r: save_file({"a": torch.ones(1)}, "x.safetensors") or r.evaluate("x.safetensors"),
        "expected a segmodel checkpoint of format 1, got format none",
    ),
    Kind(
        "malicious pickle as checkpoint",
        lambda r: r.evaluate(malicious(r, "x.safetensors")),
        "not a readable checkpoint",
    ),
    changed("guidance", [1], "card: guidance: expected dict or None", "guidance that is a list"),
    changed(
        "guidance", {"way": "best"}, "guidance: expected settings, or the way none or trained", "guidance of no way"
    ),
    changed(
        "guidance", {"settings": {"radios": 3}}, "unknown key guidance.radios (did you", "guidance of a wrong name"
    ),
    changed(
        "guidance",
        {"settings": {"radius": -1}},
        "card: guidance: radius: expected at least 0, got -1",
        "guidance out of range",
    ),
    changed("guidance", {"settings": {"weight": "a"}}, "guidance.weight: expected", "guidance that is no number"),
    changed("format", 2, "expected a segmodel checkpoint of format 1, got format 2", "checkpoint of another version"),
    changed("classes", "sky", "card: classes: expected list, got 'sky'", "classes that are no list"),
    changed("classes", [], "expected a list of class names", "no classes"),
    changed("classes", [1, 2], "expected a list of class names", "class names that are numbers"),
    changed("classes", CLASSES * 9, "expected", "more classes than weights"),
    changed("palette", [[0, 0, 0]], "palette: expected 2 x 3 whole numbers of 0..255", "short palette"),
    changed("palette", [[0, 0, 999]] * 2, "palette: expected 2 x 3 whole numbers of 0..255", "colours out of range"),
    changed("model", {"depht": 18}, "unknown key model.depht (did you mean 'depth'?)", "unknown model setting"),
    changed("model", {"depth": 20}, "depth: expected one of", "model that cannot be"),
    changed("model", {"depth": 152, "width": 4096}, "expected (", "card that asks for all memory"),
    changed("model", {"label_steps": 10**9}, "label_steps: expected at most 100", "card that asks for all time"),
    changed("data", ["x"], "card: data: expected str", "data that is no text"),
    changed("data", "folder:none", "folder: expected a folder, got none (missing)", "data that is elsewhere"),
    reweighed(lambda t: t[STEM].fill_(math.nan), f"{STEM}: expected finite values, got NaN", "NaN weights", 1),
    reweighed(put(STEM, torch.ones(4, 3, 3, 3)), f"{STEM}: expected (4, 3, 7, 7), got (4, 3, 3, 3)", "other shapes"),
    reweighed(lambda t: t.pop(STEM), f"{STEM}: expected (4, 3, 7, 7), got nothing", "missing weights"),
    reweighed(put("extra", torch.ones(1)), "extra: expected nothing, got (1,)", "weights too many"),
    reweighed(put(STEM, torch.ones(4, 3, 7, 7, dtype=torch.int32)), "got torch.int32", "weights of another type"),
    Kind(
        "checkpoint that is a folder",
        lambda r: r.predict(r.picture("a.png")) and r.evaluate(r.file("f/x").parent),
        "expected a run folder or a checkpoint file, found none in it",
    ),
    Kind(
        "run without its configuration",
        lambda r: Path("run/config.toml").unlink() or r.command("train", "--resume", "run"),
        "config.toml: cannot read the configuration",
    ),
    Kind(
        "training state of another model",
        lambda r: r.resumed(tensors=put(f"momentum/{STEM}", torch.ones(1))),
        f"momentum/{STEM}: expected (4, 3, 7, 7), got (1,)",
    ),
    Kind(
        "checkpoint without a training's state",
        lambda r: r.resumed(card=lambda c: c.pop("best")),
        "state of a training",
    ),
    Kind("step before the first", lambda r: r.resumed(card=put("step", -3)), "state of a training"),
    Kind("step that is no number", lambda r: r.resumed(card=put("step", "3")), "card: step: expected int, got '3'"),
    Kind("trained on other classes", lambda r: r.resumed(card=put("classes", ["a", "b"])), "other classes"),
    Kind("class count of other data", lambda r: r.evaluate(r.run, "--data", "scenes"), "trained on 2 classes, but"),
    Kind(
        "malicious pickle as weights",
        lambda r: r.train("--init-weights", malicious(r, "w.pth")),
        "not a readable weight",
    ),
    Kind("weight file that is missing", lambda r: r.train("--init-weights", "none.pth"), "no such weight file"),
    Kind(
        "weight file of text",
        lambda r: r.train("--init-weights", r.file("w.pth", "hello")),
        "not a readable weight file",
    ),
    Kind("weight file of a list", weights([1, 2]), "expected a table of tensors, got list"),
    Kind("weight file of other names", weights({"x": torch.ones(1)}), "no tensor fits this model"),
    Kind("weight file of other shapes", weights({"conv1.weight": torch.ones(1)}), "conv1.weight: expected shape"),
    Kind(
        "weight file of NaN",
        weights({"conv1.weight": torch.full((4, 3, 7, 7), math.nan)}),
        "w.pth: conv1.weight: expected finite values, got NaN",
        status=1,
    ),
    Kind(
        "weight file of complex numbers",
        weights({"conv1.weight": torch.ones(4, 3, 7, 7) * 1j}),
        "expected plain tensors of torch.float32, got torch.complex64",
    ),
]


def crf(scores: Any = None, guide: Any = None, **options: Any) -> Callable[[Room], Any]:
    """The guidance CRF on two classes; what is not given is right."""
    scores = torch.zeros(1, 2, 4, 4) if scores is None else scores
    guide = torch.zeros(1, 3, 4, 4) if guide is None else guide
    return lambda room: guidance_crf(scores, guide, **options)


LOGITS, IMAGE = np.zeros((2, 5, 5), np.float32), np.zeros((20, 20, 3), np.uint8)
TINY = ModelConfig(depth=18, width=4, stem_width=4, label_hidden=4, rings=((1, 2),), label_pool=5)
ARRAYS = [
    Kind("scores without a batch", crf(torch.zeros(2, 4, 4)), "scores: expected N C H W, got shape (2, 4, 4)"),
    Kind("scores of whole numbers", crf(torch.zeros(1, 2, 4, 4, dtype=torch.int64)), "scores: expected one of"),
    Kind("scores that are a NumPy array", crf(np.zeros((1, 2, 4, 4))), "scores: expected a tensor, got ndarray"),
    Kind("scores of no class", crf(torch.zeros(1, 0, 4, 4)), "scores: expected at least one channel"),
    Kind("guide of another size", crf(guide=torch.zeros(1, 3, 5, 4)), "guide: expected batch, height and width"),
    Kind("guide of another batch", crf(guide=torch.zeros(2, 3, 4, 4)), "guide: expected batch, height and width"),
    Kind("guide of 17 channels", crf(guide=torch.zeros(1, 17, 4, 4)), "guide: expected 1 to 16 channels, got 17"),
    Kind("guide on another device", crf(guide=torch.zeros(1, 3, 4, 4, device="meta")), "guide: expected device cpu"),
    Kind(
        "compatibility of other classes", crf(compatibility=torch.zeros(3, 3)), "compatibility: expected shape (2, 2)"
    ),
    Kind("weight for each class", crf(weight=torch.ones(2)), "weight: expected a number or one element"),
    Kind("negative radius", crf(radius=-1), "radius: expected an integer >= 0, got -1"),
    Kind("eps of zero", crf(eps=0), "eps: expected a finite number > 0, got 0"),
    Kind("half an iteration", crf(iterations=0.5), "iterations: expected an integer >= 0, got 0.5"),
    Kind("unknown border", crf(border="open"), "border: expected one of"),
    Kind("Triton without a GPU", crf(backend="triton"), "backend: 'triton' cannot run here"),
    Kind("NaN scores propagate", lambda r: crf(torch.full((1, 2, 4, 4), math.nan))(r).isnan().all().item(), True),
    Kind(
        "module: image smaller than the scores",
        lambda r: GuidanceCRF(2)(torch.zeros(1, 2, 9, 9), torch.zeros(1, 3, 4, 4)),
        "image: expected at least 9 x 9 pixels, got (4, 4)",
    ),
    Kind(
        "module: image that is no tensor", lambda r: GuidanceCRF(2)(torch.zeros(1, 2, 9, 9), IMAGE), "image: expected"
    ),
    Kind(
        "module: scores of other classes",
        lambda r: GuidanceCRF(3)(torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 4, 4)),
        "scores: expected N 3 H W, got shape (1, 2, 4, 4)",
    ),
    Kind("module: range the wrong way round", lambda r: GuidedFilter(image_range=(1, 0)), "image_range: expected"),
    Kind(
        "filter: scores without a batch", lambda r: guided_filter(torch.zeros(4, 4), torch.zeros(1, 3, 4, 4)), "scores:"
    ),
    Kind("box filter: negative radius", lambda r: box_filter(torch.zeros(1, 1, 2, 2), radius=-2), "radius: expected"),
    Kind("pool without rings", lambda r: distance_aware_pool(torch.zeros(1, 1, 2, 2), radii=()), "radii: expected"),
    Kind(
        "patches of channels that do not divide", lambda r: patch_rearrange(torch.zeros(1, 3, 2, 2), patch_size=2), "x:"
    ),
    Kind("model of no class", lambda r: SegModel(0), "num_classes: expected an integer from 1 to 255"),
    Kind("model: uint8 image", lambda r: SegModel(2, TINY)(torch.zeros(1, 3, 8, 8, dtype=torch.uint8)), "torch.uint8"),
    Kind(
        "model: image of four channels",
        lambda r: SegModel(2, TINY)(torch.zeros(1, 4, 8, 8)),
        "got torch.float32 (1, 4,",
    ),
    Kind(
        "model: image without a batch", lambda r: SegModel(2, TINY)(torch.zeros(3, 8, 8)), "image: expected a floating"
    ),
    Kind(
        "loss: labels of another size",
        lambda r: hard_pixel_loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 5, 4).long()),
        "labels: expected",
    ),
    Kind(
        "counts: another size",
        lambda r: class_counts(np.zeros((2, 2)), np.zeros((2, 3)), 2),
        "prediction: expected",
    ),
    Kind(
        "counts: label out of range",
        lambda r: class_counts(np.zeros(2, int), np.array([0, 7]), 2),
        "label: expected",
    ),
    Kind(
        "counts: prediction out of range",
        lambda r: class_counts(np.array([2, 0]), np.zeros(2, int), 2),
        "prediction: expected",
    ),
    Kind("augmentation: colour out of range", lambda r: Augmentation(mean_colour=(0, 0, 256)), "mean_colour: expected"),
    Kind("refine: scores of NaN", lambda r: refine(LOGITS * math.nan, IMAGE), "scores: expected finite numbers"),
    Kind(
        "refine: probabilities",
        lambda r: refine(np.stack([0.3 + LOGITS[0], 0.7 + LOGITS[0]]), IMAGE),
        "scores: expected logits",
    ),
    Kind(
        "refine: scores of no pixels", lambda r: refine(np.zeros((2, 0, 5)), IMAGE), "scores: expected floating point"
    ),
    Kind(
        "refine: bands that may be rows",
        lambda r: refine(LOGITS, np.zeros((4, 20, 4), np.uint8)),
        "image: expected bands",
    ),
    Kind(
        "refine: image of 17 bands",
        lambda r: refine(LOGITS, np.zeros((20, 20, 17), np.uint8)),
        "image: expected an array",
    ),
    Kind(
        "refine: image of 16 bits without a range",
        lambda r: refine(LOGITS, np.zeros((20, 20, 3), np.uint16)),
        "image: expected image_range=(black, white) for uint16",
    ),
    Kind(
        "refine: scores class last",
        lambda r: refine(np.zeros((10, 10, 7), np.float32), np.zeros((40, 40, 3), np.uint8)),
        'which looks like (h, w, C); give layout="HWC", or "CHW" if it is not',
    ),
    Kind(
        "refine: layout that is none", lambda r: refine(LOGITS, IMAGE, layout="WHC"), 'layout: expected "CHW" or "HWC"'
    ),
    Kind("refine: lists of two lengths", lambda r: refine([LOGITS] * 2, [IMAGE]), "image: expected a list of 2"),
    Kind("refine_labels: scores", lambda r: refine_labels(LOGITS, IMAGE), "labels: expected whole numbers"),
    Kind("refine_map: labels", lambda r: refine_map(LOGITS.astype(int), IMAGE), "values: expected floating point"),
    Kind(
        "compare: labels of a batch",
        lambda r: compare(IMAGE, np.zeros((3, 20, 20), int), IMAGE),
        "before: expected labels",
    ),
    Kind(
        "refine: mask of five values", lambda r: refine_mask(np.arange(5)[None], IMAGE), "mask: expected probabilities"
    ),
    Kind("refine: unknown setting", lambda r: refine(LOGITS, IMAGE, radios=3), "radios: expected one of"),
    Kind(
        "refine: array that is a pickle",
        lambda r: (
            np.save("s.npy", np.array([{}]), allow_pickle=True)
            or r.command("refine", r.picture("a.png"), "s.npy", "--output", "o.png")
        ),
        "s.npy: cannot be read",
    ),
    Kind(
        "refine: truncated array",
        lambda r: r.command("refine", r.picture("a.png"), r.file("s.npy", b"\x93NUMPY\1\0"), "--output", "o.png"),
        "s.npy: cannot be read",
    ),
    Kind(
        "refine: scores of an EXIF-rotated picture as stored",
        lambda r: (
            np.save(r.path / "s.npy", np.zeros((2, 21, 37), np.float32))
            or r.command("refine", r.file("a.jpg", jpeg(exif=turned())), "s.npy", "--output", "o.png")
        ),
        "s.npy: expected scores of the upright picture, 21x37 (EXIF orientation 6 is applied), got 37x21",
    ),
]
