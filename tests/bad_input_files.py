"""Broken images, labels, lists and class files, and those that only look so."""

import json
import shutil
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from bad_input_tools import SIZE, Kind, Room, as_somebody_else, environment, jpeg, pixels, png, turned
from PIL import Image

from segmodel.data import open_data
from segmodel.data.content import require_learnable


def broken_tiff() -> bytes:
    """Its compression is of a type that TIFF does not have: Pillow takes the packed bytes as pixels."""
    file = BytesIO()
    Image.fromarray(pixels()).save(file, "TIFF", compression="tiff_lzw")
    entry = struct.pack("<HHII", 259, 3, 1, 5)
    assert entry in file.getvalue()
    return file.getvalue().replace(entry, struct.pack("<HHII", 259, 99, 1, 5))


def link(room: Room, name: str, target: object) -> Path:
    (room.path / name).symlink_to(target.absolute() if isinstance(target, Path) else target)
    return room.path / name


def without_access(room: Room, file: Path, attempt: Callable[[], Any]) -> Any:
    """What a user gets who may look into the room and no more, and nothing of this file."""
    file.chmod(0 if file.is_file() else 0o555)
    room.path.chmod(0o755)
    room.nobody = True
    if file.suffix != ".txt":
        return attempt()
    with as_somebody_else():  # a function, not a command
        return attempt()


def checked(room: Room, *arguments: str) -> tuple[int, str, str]:
    """Of `data check`: its status, the first thing that is wrong (or noted), and the last line."""
    outcome = room.command("data.__main__", "check", f"folder:{room.own}", "--workers", "0", *arguments)
    first = next((line for line in outcome.output.splitlines() if line.lstrip().startswith(("wrong:", "note:"))), "")
    return outcome.status, first.strip(), outcome.output.splitlines()[-1]


def relabelled(room: Room, values: list[int]) -> Room:
    """All label maps of train have these values."""
    for name in ("a", "b"):
        room.label(np.resize(np.array(values, np.uint8), SIZE), f"labels/train/{name}.png")
    return room


def learnable(room: Room) -> None:
    require_learnable(open_data(f"folder:{room.own}", split="train"), name="own", workers=0)


def instances(room: Room, *annotations: object, option: str = "") -> Any:
    """The labels of one picture with these annotations, of which category 1 is a cup and 2 the background."""
    entry = {"file_name": "a.png", "height": SIZE[0], "width": SIZE[1], "id": 1}
    content = {"images": [entry], "annotations": list(annotations),
               "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "background"}]}  # fmt: skip
    room.file("coco/annotations/instances_val.json", "\ufeff" + json.dumps(content))
    room.picture("coco/val/a.png")
    data = open_data(f"coco:{room.path / 'coco'}{option}", split="val")
    return data.classes, sorted(set(data[0].label.ravel().tolist())), [note.partition(": ")[2] for note in data.notes]


def annotated(mask: object, category: int = 1, **more: object) -> dict[str, object]:
    return {"id": 7, "image_id": 1, "category_id": category, "iscrowd": 0, "segmentation": mask} | more


def all_ignored(room: Room) -> object:
    for name in ("train/a", "train/b", "val/a", "val/b"):
        room.label(np.full(SIZE, 255, np.uint8), f"labels/{name}.png")
    outcome = room.train("--steps", "2", "--allow-absent")
    return outcome.status, (room.new / "last.json").exists()


FRAMES = [Image.fromarray(pixels(seed=seed)) for seed in range(3)]
IMAGES = [
    Kind("missing image", lambda r: r.predict("none.jpg"), "none.jpg: no such file or folder"),
    Kind("empty image", lambda r: r.predict(r.file("a.jpg")), "a.jpg: cannot be read as an image"),
    Kind("text named as an image", lambda r: r.predict(r.file("a.png", "hello")), "a.png: cannot be read as an image"),
    Kind("HTML error page named as an image", lambda r: r.predict(r.file("a.jpg", "<html>404")), "cannot be read"),
    Kind("truncated JPEG", lambda r: r.predict(r.file("a.jpg", jpeg()[:700])), "a.jpg: cannot be read as an image"),
    Kind("truncated PNG", lambda r: r.predict(r.file("a.png", png(9, 9, data=b"\0" * 20))), "cannot be read"),
    Kind("PNG with wrong checksums", lambda r: r.predict(r.file("a.png", png(1, 1, broken=True))), "cannot be read"),
    Kind("image of no pixels", lambda r: r.predict(r.file("a.png", png(0, 5))), "a.png: cannot be read"),
    Kind("huge image", lambda r: r.predict(r.file("a.png", png(11000, 11000))), "at most 89478485 pixels"),
    Kind("decompression bomb", lambda r: r.predict(r.file("a.png", png(99999, 99999))), "a.png: cannot be read"),
    Kind(
        "image over the user's limit",
        lambda r: r.predict(r.picture("a.png"), SEGMODEL_MAX_PIXELS="100"),
        "at most 100 pixels (SEGMODEL_MAX_PIXELS), got 37x21",
    ),
    Kind(
        "limit that is no number",
        lambda r: r.predict(r.picture("a.png"), SEGMODEL_MAX_PIXELS="many"),
        "SEGMODEL_MAX_PIXELS: expected a whole number of at least 0, got 'many'",
    ),
    Kind("16-bit grey image", lambda r: r.predict(r.picture("a.png", np.ones(SIZE, np.uint16))), "got mode I;16"),
    Kind("floating point image", lambda r: r.predict(r.picture("a.tif", np.ones(SIZE, np.float32))), "got mode F"),
    Kind(
        "32-bit image", lambda r: r.predict(r.picture("a.tif", np.ones(SIZE, np.int32))), "expected an image of 8 bits"
    ),
    Kind(
        "16-bit RGB image",
        lambda r: r.predict(r.file("a.png", png(2, 1, bits=16, data=b"\0" * 13))),
        "a.png: expected an image of 8 bits a channel, got mode RGB of 16 bits",
    ),
    Kind(
        "PNG with half its rows",
        lambda r: r.predict(r.file("a.png", png(2, 4, data=(b"\0" + b"\7" * 6) * 2))),
        "a.png: cannot be read as an image: expected 4 rows of pixels, got 2",
    ),
    Kind(
        "TIFF with a broken tag",
        lambda r: r.predict(r.file("a.tif", broken_tiff())),
        "a.tif: cannot be read as an image: a broken tag: 259 has the unknown type 99",
    ),
    Kind("CMYK image becomes RGB", lambda r: r.predicted(r.file("a.jpg", jpeg("CMYK"))), "P 37x21"),
    Kind("grey image", lambda r: r.predicted(r.picture("a.png", pixels(channels=1))), "P 37x21"),
    Kind(
        "grey and alpha", lambda r: r.predicted(r.picture("a.png", Image.fromarray(pixels()).convert("LA"))), "P 37x21"
    ),
    Kind("RGB and alpha", lambda r: r.predicted(r.picture("a.png", pixels(channels=4))), "P 37x21"),
    Kind("palette image", lambda r: r.predicted(r.picture("a.png", Image.fromarray(pixels()).quantize(9))), "P 37x21"),
    Kind(
        "bitmap of 1 bit", lambda r: r.predicted(r.picture("a.png", Image.fromarray(pixels()).convert("1"))), "P 37x21"
    ),
    Kind("EXIF-rotated: upright", lambda r: r.predicted(r.file("a.jpg", jpeg(exif=turned()))), "P 21x37"),
    Kind("broken EXIF", lambda r: r.predicted(r.file("a.jpg", jpeg(exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"))), "P 37x21"),
    Kind(
        "animation: its first picture",
        lambda r: r.predicted(r.picture("a.gif", FRAMES[0], save_all=True, append_images=FRAMES[1:])),
        "P 37x21",
    ),
    Kind("JPEG named PNG", lambda r: r.predicted(r.file("a.png", jpeg())), "P 37x21"),
    Kind("image of one pixel", lambda r: r.predicted(r.picture("a.png", pixels((1, 1))[None, None])), "P 1x1"),
    Kind("image one pixel high", lambda r: r.predicted(r.picture("a.png", pixels((1, 500))[None])), "P 500x1"),
    Kind("name with blanks and umlauts", lambda r: r.predicted(r.picture("größe 1 .png")), "P 37x21"),
    Kind(
        "PostScript, which would start a program",
        lambda r: r.predict(r.file("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n")),
        "a.eps: cannot be read as an image",
    ),
    Kind("name with a line end", lambda r: r.predict(r.file("a\nb.png")), r"a\nb.png: cannot be read as an image"),
    Kind("name with a terminal command", lambda r: r.predict(r.file("a\x1b[2J.png")), r"a\x1b[2J.png: cannot be read"),
    Kind("folder without pictures", lambda r: r.predict(r.file("f/x.txt").parent), "f: no picture in this folder"),
    Kind("two pictures of one name", lambda r: r.predict(r.picture("a.png"), r.picture("a.bmp")), "would overwrite"),
    Kind("dangling link", lambda r: r.predict(link(r, "a.png", "none.png")), "a.png: no such file or folder"),
    Kind("link to itself", lambda r: r.predict(link(r, "a.png", "a.png")), "a.png: no such file or folder"),
    Kind("name that is too long", lambda r: r.predict("a" * 999 + ".png"), "no such file or folder"),
    Kind("name with a zero byte", lambda r: r.predict("a\0.png"), r"a\x00.png: no such file or folder"),
    Kind(
        "unreadable image",
        lambda r: (
            [r.new.mkdir(), r.new.chmod(0o777)] and without_access(r, (p := r.picture("a.png")), lambda: r.predict(p))
        ),
        "cannot be read",
    ),
]
LABELS = [
    Kind("label of another size", lambda r: r.label(np.zeros((5, 5), np.uint8)) and r.sample(), "got 5x5"),
    Kind(
        "label of an EXIF-rotated image as stored: both are turned",
        lambda r: r.file("own/images/train/a.png", jpeg(exif=turned())) and r.sample(),
        "(37, 21, 3) [0, 1, 255]",
    ),
    Kind(
        "label of neither size of an EXIF-rotated image",
        lambda r: (
            r.file("own/images/train/a.png", jpeg(exif=turned())) and r.label(np.zeros((5, 5), np.uint8)) and r.sample()
        ),
        "21x37, got 5x5 (EXIF orientation 6 of the image is applied)",
    ),
    Kind(
        "label out of range",
        lambda r: r.label(np.full(SIZE, 2, np.uint8)) and r.sample(),
        "label value 2 at row 0, column 0; allowed: 0..1 and 255 (ignored)",
    ),
    Kind("label of 16 bits out of range", lambda r: r.label(np.full(SIZE, 256, np.uint16)) and r.sample(), "value 256"),
    Kind(
        "negative label",
        lambda r: (
            r.label(b"")
            and r.picture("own/labels/train/a.png", np.full(SIZE, -1, np.int32), format="TIFF")
            and r.sample()
        ),
        "label value -1",
    ),
    Kind("16-bit label within range", lambda r: r.label(np.full(SIZE, 1, np.uint16)) and r.sample(), "(21, 37, 3) [1]"),
    Kind(
        "palette label",
        lambda r: r.label(Image.fromarray(np.ones(SIZE, np.uint8)).convert("P")) and r.sample(),
        "(21, 37, 3) [1]",
    ),
    Kind("RGB label where numbers are expected", lambda r: r.label(pixels()) and r.sample(), "got mode RGB"),
    Kind(
        "grey and alpha label", lambda r: r.label(Image.fromarray(pixels()).convert("LA")) and r.sample(), "got mode LA"
    ),
    Kind(
        "label of 2 bits", lambda r: r.label(png(4, 1, bits=2, kind=0, data=b"\0\0")) and r.sample(), "of 2 or 4 bits"
    ),
    Kind("truncated label", lambda r: r.label(png(9, 9, data=b"\0" * 9)) and r.sample(), "cannot be read as an image"),
    Kind(
        "missing label",
        lambda r: (r.own / "labels/train/a.png").unlink() or r.sample(),
        "no such file: own/labels/train/a.png",
    ),
    Kind("nothing but ignored pixels", all_ignored, (0, True)),
    Kind(
        "colours that no class has",
        lambda r: r.label(pixels()) and r.classes('labels = "colour"\nclasses = [{name = "a", colour = [0, 0, 1]}]'),
        "is none of the 1 known",
    ),
    Kind("broken label met in training", lambda r: r.label(np.full(SIZE, 9, np.uint8)) and r.train(), "label value 9"),
    Kind(
        "broken label met in evaluation",
        lambda r: r.label(b"x", "labels/val/a.png") and r.evaluate(r.run),
        "labels/val/a.png: cannot be read as an image",
    ),
]
WHOLE = {"size": list(SIZE), "counts": [0, SIZE[0] * SIZE[1]]}
LEARNT = [
    Kind("check of sound data", lambda r: checked(r), (0, "", "nothing is wrong")),
    Kind(
        "check: a class without a pixel in train",
        lambda r: checked(relabelled(r, [0])),
        (2, "note: one class alone in the label maps of 2 samples, the first is number 0", "2 problems"),
    ),
    Kind(
        "check: masks of 0 and 255 taken as 255 = ignored",
        lambda r: checked(relabelled(r, [0, 255]), "--problems", "1")[::2],
        (2, "2 problems"),
    ),
    Kind(
        "check: that is meant",
        lambda r: checked(relabelled(r, [0, 255]), "--allow-absent")[::2],
        (0, "nothing is wrong"),
    ),
    Kind(
        "training: a class without a pixel",
        lambda r: learnable(relabelled(r, [0])),
        "own, train: no pixel of rest in 2 label maps (--allow-absent trains all the same) (and 1 more",
    ),
    Kind(
        "training: masks of 0 and 255 taken as 255 = ignored",
        lambda r: learnable(relabelled(r, [0, 255])),
        "In a folder's classes.toml map = { 255 = 1 } makes it class 1 (--allow-absent",
    ),
    Kind(
        "training: label maps of one class each",
        lambda r: (
            r.label(np.zeros(SIZE, np.uint8))
            and r.label(np.ones(SIZE, np.uint8), "labels/train/b.png")
            and learnable(r)
        ),
        "own, train: each of 2 label maps is all of one class (--allow-absent trains all the same)",
    ),
]
INSTANCES = [
    Kind(
        "COCO: byte-order mark, a category called background",
        lambda r: instances(r, annotated(WHOLE, 2), annotated(WHOLE)),
        (("background", "cup"), [1], []),
    ),
    Kind("COCO: iscrowd as text", lambda r: instances(r, annotated(WHOLE, iscrowd="0")), "expected 0 or 1, got '0'"),
    Kind(
        "COCO: annotation without a mask",
        lambda r: instances(r, annotated(None)),
        "annotation 7: expected polygons [x, y, x, y, x, y, ...] or run lengths, got None (coco:PATH,skip-bad leaves",
    ),
    Kind(
        "COCO: annotation without a mask, skipped",
        lambda r: instances(r, annotated(None), annotated(WHOLE), option=",skip-bad"),
        (("background", "cup"), [1], ["1 annotations without a mask are left out (skip-bad)"]),
    ),
]
PAIR = "images/train/a.png labels/train/a.png"
LISTS = [
    Kind("Windows line ends", lambda r: r.listed(f"{PAIR}\r\n{PAIR}\r\n"), "a a"),
    Kind("byte-order mark", lambda r: r.listed(b"\xef\xbb\xbf" + PAIR.encode()), "a"),
    Kind("blank lines", lambda r: r.listed(f"\n\n{PAIR}\n \n\t\n"), "a"),
    Kind("duplicates are seen twice", lambda r: r.listed(f"{PAIR}\n{PAIR}"), "a a"),
    Kind("no end of the last line", lambda r: r.listed(PAIR), "a"),
    Kind("empty list", lambda r: r.listed(""), "expected at least one line (IMAGE LABEL), got an empty list"),
    Kind("one name too few", lambda r: r.listed("images/train/a.png"), "train.txt, line 1: expected IMAGE LABEL"),
    Kind(
        "names with blanks",
        lambda r: r.listed("images/train/a b.png labels/train/a b.png"),
        "got 'images/train/a b.png",
    ),
    Kind("path out of the root", lambda r: r.listed(f"../own/{PAIR}"), "expected a path inside own, got '../own"),
    Kind("path that is the root", lambda r: r.listed("/ /\n. ."), "train.txt, line 1: expected a path inside own"),
    Kind("hidden path out of the root", lambda r: r.listed(f"images/../../own/{PAIR}"), "expected a path inside"),
    Kind(
        "absolute path: below the root", lambda r: r.listed("/etc/passwd /etc/passwd"), "no such file: own/etc/passwd"
    ),
    Kind(
        "absolute path and out", lambda r: r.listed("/a/../passwd /a/b"), "expected a path inside own, got '../passwd'"
    ),
    Kind(
        "link out of the root",
        lambda r: link(r, "own/x.png", r.picture("x.png")) and r.listed("x.png labels/train/a.png"),
        "got a link out of it: own/x.png",
    ),
    Kind(
        "folder that is a link out of the root",
        lambda r: link(r, "own/x", r.picture("y/x.png").parent) and r.listed("x/x.png labels/train/a.png"),
        "got a link out of it: own/x/x.png",
    ),
    Kind(
        "link within the root",
        lambda r: link(r, "own/x.png", "images/train/a.png") and r.listed("x.png labels/train/a.png"),
        "x",
    ),
    Kind(
        "links of a loop", lambda r: link(r, "own/p", "q") and link(r, "own/q", "p") and r.listed("p q"), "no such file"
    ),
    Kind("zero byte in a name", lambda r: r.listed("a\0b c"), r"no such file: own/a\x00b"),
    Kind("very long name", lambda r: r.listed("a" * 5000 + " b"), "train.txt, line 1: no such file"),
    Kind("terminal command in a name", lambda r: r.listed("a\x1b[31m b"), r"own/a\x1b[31m"),
    Kind("list that is not UTF-8", lambda r: r.listed(b"\xff\xfea\0 \0b\0"), "train.txt: cannot be read"),
    Kind(
        "names that are not ASCII",
        lambda r: shutil.copy("own/images/train/a.png", "own/größe.png") and r.listed("größe.png labels/train/a.png"),
        "größe",
    ),
    Kind("list that is a folder", lambda r: r.file("own/train.txt/x") and r.sample(), "train.txt: cannot be read"),
    Kind("list of another machine's files", lambda r: r.listed("a.png b.png\nc.png d.png"), "line 1: no such file"),
    Kind(
        "unreadable list", lambda r: without_access(r, r.file("own/train.txt", PAIR), r.sample), "train.txt: cannot be"
    ),
    Kind("unknown kind of data", lambda r: open_data("soup:x", split="train"), "data: expected one of"),
    Kind(
        "data that is not there",
        lambda r: open_data("voc:none", split="train"),
        "voc: expected a folder, got none (missing)",
    ),
    Kind(
        "split that is not there",
        lambda r: r.evaluate(r.run, "--split", "holiday"),
        "split: expected train, val or test, got",
    ),
]


def too_long(room: Room, variable: str, attempt: Callable[[Room], Any]) -> Any:
    with environment(**{variable: "10"}):
        return attempt(room)


LISTS.append(
    Kind(
        "list over the limit",
        lambda r: too_long(r, "SEGMODEL_MAX_LIST_BYTES", lambda r: r.listed(PAIR)),
        "expected at most 10 bytes (SEGMODEL_MAX_LIST_BYTES), got 37",
    )
)
CLASS_FILES = [
    Kind("classes.toml that is missing", lambda r: (r.own / "classes.toml").unlink() or r.sample(), "no such file"),
    Kind("classes.toml that is no TOML", lambda r: r.classes("classes ="), "classes.toml: cannot be read"),
    Kind(
        "classes.toml nested without end",
        lambda r: r.classes("classes = " + "[" * 9999),
        "classes.toml: cannot be read",
    ),
    Kind(
        "classes.toml over the limit",
        lambda r: too_long(r, "SEGMODEL_MAX_CONFIG_BYTES", lambda r: r.sample()),
        "10 bytes",
    ),
    Kind("no class", lambda r: r.classes("classes = []"), "expected 1 to 254 names or tables [[classes]], got []"),
    Kind(
        "class without a colour where labels are colours",
        lambda r: r.classes('labels = "colour"\nclasses = [{name = "a"}]'),
        "classes[0].colour: expected [red,",
    ),
    Kind(
        "names of classes alone, behind a byte-order mark",
        lambda r: r.classes('\ufeffignore = 255\nclasses = ["a", "b"]'),
        "(21, 37, 3) [0, 1, 255]",
    ),
    Kind(
        "value that is mapped to no class",
        lambda r: r.classes('map = { 1 = 7 }\nclasses = ["a", "b"]'),
        "map.1: expected a class (0..1, or its name) or 'ignore', got 7",
    ),
    Kind(
        "no folder val and one image",
        lambda r: shutil.rmtree(r.own / "images/val") or (r.own / "images/train/b.png").unlink() or r.sample(),
        "own/images: expected two images or more, of which one validates, got 1",
    ),
]
