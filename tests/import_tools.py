"""Drawn pictures with labels, exported as annotation tools write them, and what `data import` makes of them."""

import base64
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segmodel.common import cli
from segmodel.data import open_data
from segmodel.data.__main__ import main

SIZE = (30, 40)  # height, width
COLOURS = np.zeros((256, 3), np.uint8)
COLOURS[[1, 2, 255]] = (200, 30, 40), (20, 90, 220), (224, 224, 192)
NAMES = ("background", "road", "car")
COUNT = 5


def command(*arguments: object) -> int:
    return cli.run("data", main, ["import", *(str(argument) for argument in arguments)])


def truth(number: int) -> np.ndarray:
    """A background 0 with a road 1, on which there is a car 2."""
    label = np.zeros(SIZE, np.uint8)
    label[12 + number : 28, 3:37] = 1
    label[16 + number : 22 + number, 10 + number : 20] = 2
    return label


def corners(top: int, left: int, bottom: int, right: int) -> list[tuple[int, int]]:
    """The corners (x, y) of a rectangle of pixels."""
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def outlines(number: int) -> list[tuple[int, list[tuple[int, int]]]]:
    """Class and polygon of the road and the car of `truth`."""
    car = corners(16 + number, 10 + number, 22 + number, 20)
    return [(1, corners(12 + number, 3, 28, 37)), (2, car)]


def save(path: Path, content: np.ndarray | Image.Image, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (content if isinstance(content, Image.Image) else Image.fromarray(content)).save(path, **options)
    return path


def write(path: Path, text: str | bytes | Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = text if isinstance(text, str | bytes) else json.dumps(text)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def photograph(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Smooth, so that a JPEG file of it hardly differs."""
    y, x = np.mgrid[: size[0], : size[1]]
    return np.stack([5 * y + 9 * number, 6 * x, 3 * (x + y)], 2).astype(np.uint8)


def palette_png(root: Path, number: int) -> None:
    save(root / "images" / f"{number}.jpg", photograph(number))
    label = Image.fromarray(truth(number))
    label.putpalette(COLOURS.tobytes())
    save(root / "labels" / f"{number}.png", label)


def zero_and_255(root: Path, number: int) -> None:
    save(root / f"{number}.jpg", photograph(number))
    save(root / f"{number}_mask.png", 255 * (truth(number) > 0).astype(np.uint8))


def cvat(root: Path, number: int) -> None:
    save(root / "JPEGImages" / f"{number}.jpg", photograph(number))
    save(root / "SegmentationClass" / f"{number}.png", COLOURS[truth(number)])
    save(root / "SegmentationObject" / f"{number}.png", COLOURS[2 * truth(number)])
    lines = [f"{name}:{','.join(map(str, COLOURS[value]))}::" for value, name in enumerate((*NAMES, "bus"))]
    lines[3] = "bus:9,9,9::"
    write(root / "labelmap.txt", "\n".join(["# label:color_rgb:parts:actions", *lines, ""]))
    write(root / "ImageSets" / "Segmentation" / "default.txt", "".join(f"{n}\n" for n in range(COUNT)))


def labelme(root: Path, number: int) -> None:
    picture = save(root / f"{number}.jpg", photograph(number))
    shapes = [
        {"label": NAMES[value], "points": points, "shape_type": "polygon", "group_id": None, "flags": {}}
        for value, points in outlines(number)
    ]
    content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": f"..\\{number}.jpg",
               "imageData": base64.b64encode(picture.read_bytes()).decode(),
               "imageHeight": SIZE[0], "imageWidth": SIZE[1]}  # fmt: skip
    write(root / f"{number}.json", content)


def yolo(root: Path, number: int) -> None:
    save(root / "images" / f"{number}.jpg", photograph(number))
    lines = [
        " ".join([str(value - 1), *(f"{x / SIZE[1]:.6f} {y / SIZE[0]:.6f}" for x, y in points)])
        for value, points in reversed(outlines(number))
    ]
    write(root / "labels" / f"{number}.txt", "\n".join(lines))
    write(root / "data.yaml", "train: images\nnames:\n  0: road\n  1: car\nnc: 2\n")


def coco(root: Path, number: int) -> None:
    save(root / "images" / f"{number}.jpg", photograph(number))
    images = [{"id": n, "file_name": f"photos/{n}.jpg", "height": SIZE[0], "width": SIZE[1]} for n in range(COUNT)]
    annotations = [
        {"id": 2 * n + value, "image_id": n, "category_id": 7 * value, "iscrowd": 0,
         "segmentation": [[float(part) for point in points for part in point]]}
        for n in range(COUNT) for value, points in outlines(n)
    ]  # fmt: skip
    categories = [{"id": 7 * value, "name": NAMES[value]} for value in (1, 2)]
    write(root / "instances.json", {"images": images, "annotations": annotations, "categories": categories})


def gaps(root: Path, number: int) -> None:
    save(root / "scene" / f"{number}_leftImg8bit.png", photograph(number))
    save(root / "annotated" / "scene" / f"{number}_gtFine_labelIds.png", 10 * truth(number))


def turned(root: Path, number: int) -> None:
    """Photographs stored with orientation 6 or 3; of the first kind every other label lies as stored."""
    exif = Image.Exif()
    exif[0x0112] = 6 if number % 2 else 3
    picture = Image.fromarray(photograph(number))
    stored = picture.transpose(Image.Transpose.ROTATE_90 if number % 2 else Image.Transpose.ROTATE_180)
    save(root / "photos" / f"{number}.JPG", stored, exif=exif, quality=100)
    label = Image.fromarray(truth(number))
    save(root / "masks" / f"{number}.png", label.transpose(Image.Transpose.ROTATE_90) if number == 3 else label)


WAYS: dict[str, Callable[[Path, int], None]] = {
    "palette": palette_png, "0 and 255": zero_and_255, "CVAT": cvat, "labelme": labelme, "YOLO": yolo, "COCO": coco,
    "gaps": gaps, "EXIF": turned,
}  # fmt: skip


def export(root: Path, way: str) -> Path:
    for number in range(COUNT):
        WAYS[way](root, number)
    return root


def class_names(output: Path) -> list[str]:
    return [entry["name"] for entry in tomllib.loads((output / "classes.toml").read_text(encoding="utf-8"))["classes"]]


def imported(output: Path) -> dict[str, np.ndarray]:
    """Name of each sample of a data set, and its label."""
    found = {}
    for split in ("train", "val"):
        if (output / "images" / split).is_dir():
            data = open_data(f"folder:{output}", split=split)
            found.update({(sample := data[index]).name: sample.label for index in range(len(data))})
    return found
