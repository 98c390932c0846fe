"""Built-in scenes: 128x128 landscapes drawn on the fly, which need what the paper is about.

* Colour says nothing about the class: each scene has a random palette. Neighbouring regions still differ clearly in
  colour, so that a guided filter has edges to follow.
* Stuff differs in texture: road (smooth, a few pebbles), water (ripples), grass (blades), mountains (hatching).
* Things differ in context only: the same box is a car on a road, a boat on water and a hut on grass; a disc is the sun
  in the sky and a ball on the ground; a bar is a pole, or, with a crown 40 to 54 pixels above its foot, a tree's trunk.
* A map at 1/16 misses bars of 4 to 6 pixels, jagged ridges, ragged crowns and concave patches of ground.
* Things overlap, the light changes across the picture, pixels are noisy; a band of one pixel around things is 255.

`scenes:shores=1` draws 128x384 pictures for long-range context: the two shores of a bay, one kind of ground each, with
open water between them. The class of a box depends on the ground of the *other* shore, beyond a small backbone's view.

A scene depends on (SCENES_VERSION, split, index, shores) alone; a change of any pixel needs a new version. Only
`random` and `bytes` of the generator are used, which come straight from its frozen bit stream.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from segmodel.common.errors import DataError
from segmodel.common.labels import IGNORE
from segmodel.data.base import Sample, SegmentationData

SCENES_VERSION = 1
SIZE = 128
SPLITS = {"train": 0, "val": 1}
COUNTS = {"train": 4000, "val": 200}
CLASSES = (
    "sky", "mountain", "road", "water", "grass", "tree", "pole", "car", "boat", "hut", "sun", "ball",
)  # fmt: skip
SKY, MOUNTAIN, ROAD, WATER, GRASS, TREE, POLE, CAR, BOAT, HUT, SUN, BALL = range(12)
BOX_ON = {ROAD: CAR, WATER: BOAT, GRASS: HUT}
PALETTE = np.array(
    [
        (120, 180, 230), (130, 110, 140), (100, 100, 105), (40, 90, 190), (120, 190, 80), (30, 110, 50),
        (235, 235, 235), (220, 50, 50), (250, 150, 40), (130, 70, 30), (255, 225, 60), (230, 90, 190),
    ],
    np.uint8,
)  # fmt: skip
_ALONG = np.arange(SIZE, dtype=np.float64)
_Y, _X = _ALONG[:, None], _ALONG[None, :]
_STRIP_Y, _STRIP_X = np.array([[-2], [0], [1]]), np.arange(-16, 17, 4)
_BLADE = (np.arange(SIZE)[:, None] + np.arange(SIZE) // 2 * 37 % 11) // 8 * (SIZE // 2) + np.arange(SIZE) // 2
_WAVE = np.sin(np.arange(256) * (2 * np.pi / 256))
_STUFF = 5  # regions 0..4 are stuff, painted first; each thing gets the next free number


def scenes(options: str = "", *, split: str) -> SceneData:
    """The built-in scenes; "train=2000,val=50" sets the numbers of scenes, "shores=1" draws bays."""
    values = COUNTS | {"shores": 0}
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        if key not in values or not re.fullmatch("1" if key == "shores" else "[1-9][0-9]*", value):
            raise DataError(f"scenes: expected options such as train=2000,val=50,shores=1, got {option!r}")
        values[key] = int(value)
    return SceneData(split=split, count=values[split], shores=bool(values["shores"]))


class SceneData(SegmentationData):
    """`count` scenes of one split, drawn on access."""

    name, classes, palette, version = "scenes", CLASSES, PALETTE, SCENES_VERSION

    def __init__(self, *, split: str, count: int, shores: bool = False) -> None:
        self.split, self.count, self.shores = split, count, shores

    def __len__(self) -> int:
        return self.count

    def rules(self) -> list[Any]:
        return [self.version, self.shores]

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(f"index: expected 0..{self.count - 1}, got {index}")
        name = f"{self.split}-{index:05d}"
        if self.shores:
            rng = np.random.default_rng((SCENES_VERSION, SPLITS[self.split], index, 1))
            left, right = (tuple(BOX_ON)[int(3 * rng.random())] for _ in range(2))
            shores = [_Scene(rng, ground=own, box=BOX_ON[far]) for own, far in ((left, right), (right, left))]
            parts = [scene.finished() for scene in (shores[0], _Scene(rng, ground=WATER, bare=True), shores[1])]
            image, label = (np.concatenate([part[kind] for part in parts], axis=1) for kind in (0, 1))
            return Sample(image, label, name)
        rng = np.random.default_rng((SCENES_VERSION, SPLITS[self.split], index))
        return Sample(*_Scene(rng).finished(), name)


class _Scene:
    """One scene while it is painted, back to front.

    region: (H, W), the number of the stuff or thing visible at each pixel; higher numbers are in front. For each number
    `classes`, `textures` and `colours` give its own, and `wholes` the number of what it is part of (of a window: its
    box). `ground`: the only kind of ground. `box`: the class of all boxes. `bare`: no things but the sun.
    """

    def __init__(
        self, rng: np.random.Generator, *, ground: int | None = None, box: int | None = None, bare: bool = False
    ) -> None:
        self.rng, self.box = rng, box
        self.kinds = [ROAD, WATER, GRASS] if ground is None else [ground] * 3
        self.region = np.zeros((SIZE, SIZE), np.int64)
        palette = _palette(rng)
        self.colours, self.spare = list(palette[:_STUFF]), list(palette[_STUFF:])
        self.classes = [SKY, MOUNTAIN, ROAD, WATER, GRASS]
        self.textures, self.wholes = list(self.classes), list(self.classes)
        self._paint_landscape()
        if not bare:
            self._paint_things()

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self.rng.random()

    def between(self, low: int, high: int) -> int:
        """An integer from low..high, both included."""
        return low + int((high - low + 1) * self.rng.random())

    def jagged(self, *, knots: int, low: float, high: float) -> np.ndarray:
        """A polygonal line across the picture, (SIZE,)."""
        places = (np.arange(knots) + self.rng.random(knots)) * SIZE / knots
        return np.interp(_ALONG, places, low + (high - low) * self.rng.random(knots))

    # Stuff ----------------------------------------------------------------------------------------------------------

    def _paint_landscape(self) -> None:
        base = self.between(44, 60)
        ground = self.jagged(knots=8, low=base - 3, high=base + 3)
        ridge = self.jagged(knots=14, low=base - 34, high=base + 2)
        self._paint_disc(SUN, self.uniform(12, SIZE - 12), self.uniform(11, base - 17), self.uniform(10, 14))
        self.region[(ridge <= _Y) & (ground > _Y)] = MOUNTAIN
        kinds = self.kinds.copy()
        first, second, third = (kinds.pop(self.between(0, left)) for left in (2, 1, 0))
        below = ground <= _Y
        self.region[below] = first
        self.region[below & self._second_part(base)] = second
        self.region[below & self._concave_patch(base)] = third
        self.ground = np.where(below, self.region, 0)

    def _second_part(self, base: int) -> np.ndarray:
        """The foreground or one side, beyond a jagged line."""
        if self.rng.random() < 0.4:
            return self.jagged(knots=9, low=base + 25, high=base + 48) <= _Y
        middle, slant = self.uniform(40, 88), self.uniform(-0.7, 0.7)
        edge = middle + slant * (_ALONG - 90) + self.jagged(knots=9, low=-9, high=9)
        side = edge[:, None] > _X
        return side if self.rng.random() < 0.5 else ~side

    def _concave_patch(self, base: int) -> np.ndarray:
        """A bent patch: three overlapping ellipses without a bite."""
        x, y = self.uniform(24, 104), self.uniform(base + 22, 112)
        patch = np.zeros((SIZE, SIZE), bool)
        for shift in (-20, 0, 20):
            patch |= _ellipse(x + shift, y + self.uniform(-12, 12), self.uniform(13, 20), self.uniform(8, 13))
        return patch & ~_ellipse(x + self.uniform(-12, 12), y + self.uniform(8, 16), 9, 8)

    # Things ---------------------------------------------------------------------------------------------------------

    def _paint_things(self) -> None:
        """Boxes, balls, trees and poles, those lower in the picture later."""
        plan = [self._paint_box] * 3 + [self._paint_ball] * self.between(1, 2)
        plan += [self._paint_tree] * self.between(1, 2) + [self._paint_pole] * self.between(2, 3)
        wanted = [self.kinds[self.between(0, 2)] for _ in plan]
        wanted[:3] = self.kinds
        places: list[tuple[int, int]] = []
        for kind in wanted:
            places.append(self._place(kind, places))
        for step in sorted(range(len(plan)), key=lambda step: places[step][1]):
            plan[step](*places[step])

    def _place(self, kind: int, taken: list[tuple[int, int]]) -> tuple[int, int]:
        """The best of twelve points: most ground of this kind around it, and not close to the points taken."""
        x = (8 + 112 * self.rng.random(12)).astype(np.int64)
        y = (66 + 60 * self.rng.random(12)).astype(np.int64)
        around = self.ground[y[:, None, None] + _STRIP_Y, np.clip(x[:, None, None] + _STRIP_X, 0, SIZE - 1)]
        score = (around == kind).sum(axis=(1, 2))
        for column, row in taken:
            score -= 9 * ((np.abs(x - column) < 18) & (np.abs(y - row) < 22))
        best = int(score.argmax())
        return int(x[best]), int(y[best])

    def _new(self, label: int, *, texture: int = SKY, part_of: int | None = None) -> int:
        """The number of a new thing, or of a dark part of one."""
        self.wholes.append(len(self.classes) if part_of is None else part_of)
        self.colours.append(self.spare.pop() if part_of is None else self.colours[part_of] * 0.45)
        self.classes.append(label)
        self.textures.append(texture)
        return len(self.classes) - 1

    def _paint_disc(self, label: int, x: float, y: float, radius: float) -> None:
        number = self._new(label)
        self.region[_ellipse(x, y, radius, radius)] = number

    def _paint_ball(self, x: int, y: int) -> None:
        radius = self.uniform(8, 11) + (y - 60) / 30
        self._paint_disc(BALL, x, y - radius, radius)

    def _paint_box(self, x: int, y: int) -> None:
        """A body with a narrower top and two windows; its class is `box`, or follows from the ground below it."""
        kind = int(np.bincount(self.ground[y, max(x - 12, 0) : x + 13], minlength=5)[ROAD:].argmax()) + ROAD
        label = BOX_ON[kind] if self.box is None else self.box
        number = self._new(label)
        dark = self._new(label, part_of=number)
        half, height = self.between(13, 16) + (y - 60) // 16, self.between(10, 13) + (y - 60) // 20
        roof, shift = self.between(6, 9), self.between(-3, 3)
        self._paint_bar(number, x - half, x + half, y - height, y)
        left, right = x + shift - half * 2 // 3, x + shift + half * 2 // 3
        slope = (_Y - (y - height - roof)) / roof * 3 - 3
        top = (left - slope <= _X) & (right + slope >= _X) & (y - height - roof <= _Y) & (y - height > _Y)
        self.region[top] = number
        for window in (left + 2, x + shift + 2):
            self._paint_bar(dark, window, window + half * 2 // 3 - 5, y - height - roof + 2, y - height - 2)

    def _paint_bar(self, number: int, left: int, right: int, top: int, bottom: int) -> None:
        self.region[max(top, 0) : max(bottom, 0) + 1, max(left, 0) : max(right, 0) + 1] = number

    def _paint_pole(self, x: int, y: int) -> None:
        width = self.between(4, 6)
        self._paint_bar(self._new(POLE), x, x + width - 1, y - self.between(44, 62), y)

    def _paint_tree(self, x: int, y: int) -> None:
        """A trunk that looks like a pole, and a crown of five discs with a ragged edge."""
        width, top = self.between(4, 6), y - self.between(40, 54)
        self._paint_bar(self._new(TREE), x, x + width - 1, top, y)
        ragged = 1 + 0.5 * (_blocks(self.rng, 3) - 0.5)
        crown = np.zeros((SIZE, SIZE), bool)
        for dx, dy in zip(22 * self.rng.random(5) - 11, 16 * self.rng.random(5) - 8, strict=True):
            crown |= ((_X - x - dx) / 10) ** 2 + ((_Y - top - dy) / 8) ** 2 <= ragged
        self.region[crown] = self._new(TREE, texture=TREE)

    # Finish ---------------------------------------------------------------------------------------------------------

    def finished(self) -> tuple[np.ndarray, np.ndarray]:
        """Image (SIZE, SIZE, 3) uint8 and label (SIZE, SIZE) uint8."""
        label = np.array(self.classes, np.uint8)[self.region]
        label[_in_front_beside(np.array(self.wholes)[self.region])] = IGNORE
        return self._image(), label

    def _image(self) -> np.ndarray:
        texture = np.array(self.textures)[self.region]
        shade = 1 + self.uniform(-0.2, 0.2) * (_X / SIZE - 0.5) + self.uniform(-0.2, 0.2) * (_Y / SIZE - 0.5)
        shade += (texture == SKY) * (0.15 * (_Y / 64 - 0.5))
        for kind, pattern in _patterns(self.rng).items():
            shade += (texture == kind) * pattern
        image = np.array(self.colours, np.float32)[self.region]
        image *= shade.astype(np.float32)[..., None]
        noise = np.frombuffer(self.rng.bytes(image.size), np.uint8).reshape(image.shape)
        image += (noise - np.float32(127.5)) * np.float32(0.07)
        return np.clip(image, 0, 255, out=image).astype(np.uint8)


def _patterns(rng: np.random.Generator) -> dict[int, np.ndarray]:
    """Textures as relative brightness, (SIZE, SIZE) each."""
    phase, period, bend = rng.random(), 5 + 1.5 * rng.random(), 7 + 4 * rng.random()
    hatch = np.where((np.arange(2 * SIZE - 1) / 7 + phase) % 1 < 0.5, 0.18, -0.18)
    ripple = 256 * (_Y / period) + 80 * np.sin(_X / bend + 6.28 * phase)
    blades = np.frombuffer(rng.bytes(9 * SIZE), np.uint8)
    return {
        MOUNTAIN: np.lib.stride_tricks.sliding_window_view(hatch, SIZE),  # [y, x] is hatch[y + x]
        ROAD: -0.3 * (_blocks(rng, 2) > 0.93),
        WATER: 0.24 * _WAVE[ripple.astype(np.int64) & 255],
        GRASS: blades[_BLADE] * (0.6 / 255) - 0.3,
        TREE: 0.5 * (_blocks(rng, 3) - 0.5),
    }


def _blocks(rng: np.random.Generator, size: int) -> np.ndarray:
    """Squares of `size` x `size` pixels of random value in 0..1, (SIZE, SIZE)."""
    count = -(-SIZE // size)
    coarse = np.frombuffer(rng.bytes(count * count), np.uint8).reshape(count, count) / 255
    return coarse.repeat(size, axis=0).repeat(size, axis=1)[:SIZE, :SIZE]


def _ellipse(x: float, y: float, half_width: float, half_height: float) -> np.ndarray:
    return ((_X - x) / half_width) ** 2 + ((_Y - y) / half_height) ** 2 <= 1


def _in_front_beside(region: np.ndarray) -> np.ndarray:
    """Pixels with a thing in front of them among their 4 neighbours."""
    padded = np.pad(region, 1, mode="edge")
    sides = padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]
    front = np.maximum(np.maximum(sides[0], sides[1]), np.maximum(sides[2], sides[3]))
    return (front > region) & (front >= _STUFF)


def _palette(rng: np.random.Generator) -> np.ndarray:
    """(21, 3) colours, 0..255: five far from each other, in random order, then sixteen far from those."""
    hue, saturation, value = 6 * rng.random(64), 0.15 + 0.55 * rng.random(64), 0.35 + 0.6 * rng.random(64)
    ramp = np.clip(np.abs((hue[:, None] + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    colours = 255 * value[:, None] * (1 - saturation[:, None] * (1 - ramp))
    chosen, distance = [0], np.abs(colours - colours[0]).sum(axis=1)
    for _ in range(_STUFF - 1):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.abs(colours - colours[chosen[-1]]).sum(axis=1))
    far = np.argsort(-distance, kind="stable")[:16]
    return np.concatenate([colours[chosen][np.argsort(rng.random(_STUFF))], colours[far[np.argsort(rng.random(16))]]])
