"""The embedded data set: pictures of one to three coloured shapes, drawn from a seed.

In the line of CLEVR (Johnson et al., CVPR 2017) and ShapeWorld (Kuhnle and Copestake, 2017): every
picture is drawn from known facts, so whether a picture shows what a caption says is itself a fact.
`t2i_course.scenes.wording` words the facts, `t2i_course.scenes.oracle` reads a picture back.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from tqdm.auto import tqdm

from t2i_course import runtime
from t2i_course.scenes.free_wording import word_freely
from t2i_course.scenes.wording import (
    UNSEEN_WORDS,
    VALUES,
    Facts,
    choose_facts,
    stated_relations,
    word_facts,
)

SIDE = 64
VERSION = 2  # of what is written; since 2 with freer wordings in train, and a test split
MARKER = "scenes.json"  # written last: the folder is whole, and made with what stands in it
SHAPES = VALUES["shape"]
COLORS = {
    "red": (222, 30, 34),
    "orange": (250, 138, 20),
    "yellow": (250, 226, 44),
    "green": (36, 158, 62),
    "cyan": (44, 206, 216),
    "blue": (36, 72, 216),
    "purple": (126, 46, 170),
    "pink": (246, 130, 188),
}
SIZES = {"small": (13, 17), "large": (22, 28)}  # diameter in pixels, both ends included
BACKGROUNDS = {  # colour at the top and at the bottom
    "white": ((250, 250, 250), (250, 250, 250)),
    "gray": ((128, 128, 128), (128, 128, 128)),
    "black": ((8, 8, 8), (8, 8, 8)),
    "sky": ((132, 176, 228), (250, 222, 188)),
}
UNSEEN_PAIRS = frozenset({  # (shape, colour) that no training picture shows, one for each colour
    ("circle", "purple"), ("square", "yellow"), ("triangle", "blue"), ("star", "pink"),
    ("heart", "green"), ("cross", "red"), ("star", "orange"), ("square", "cyan"),
})  # fmt: skip
KINDS = {  # how many objects, which of them are alike, and how often
    "one": (("a",), 0.30),
    "two": (("a", "b"), 0.35),
    "two alike": (("a", "a"), 0.07),
    "three alike": (("a", "a", "a"), 0.08),
    "two and one": (("a", "a", "b"), 0.08),
    "three": (("a", "b", "c"), 0.12),
}
CROWDED = {  # shares for training on more of what is hard to draw: three objects
    "one": 0.15, "two": 0.22, "two alike": 0.06, "three alike": 0.10, "two and one": 0.15,
    "three": 0.32,
}  # fmt: skip
CORNER_REACH = 24  # pixels: the oracle calls a centre nearer than this to two edges in their corner


@dataclass(frozen=True)
class SceneObject:
    """One shape; its centre, from the upper left, and diameter in pixels. None: unreadable."""

    shape: str | None
    color: str | None
    size: str | None
    x: float
    y: float
    diameter: int
    rgb: tuple[int, int, int]

    def corner_within(self, reach: float) -> str | None:
        """The corner of which both edges are nearer than `reach` pixels to the centre, or None."""
        vertical = "upper" if self.y < reach else "lower" if self.y > SIDE - reach else None
        horizontal = "left" if self.x < reach else "right" if self.x > SIDE - reach else None
        return f"{vertical} {horizontal}" if vertical and horizontal else None

    @property
    def corner(self) -> str | None:
        """The corner that the centre lies in, or None."""
        return self.corner_within(CORNER_REACH)


@dataclass(frozen=True)
class Scene:
    """What a picture shows; `background` is None where it cannot be read."""

    background: str | None
    objects: tuple[SceneObject, ...] = ()
    shade: int = field(default=0, compare=False)

    @property
    def readable(self) -> bool:
        """Whether background, shape, colour and size of everything are known."""
        known = [self.background, *(v for o in self.objects for v in (o.shape, o.color, o.size))]
        return bool(self.objects) and None not in known


# ---- drawing


def _heart(t: float) -> tuple[float, float]:
    waves = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
    return math.sin(t) ** 3, -waves / 16 - 0.1


_TURN = [2 * math.pi * k / 40 for k in range(40)]
OUTLINES = {  # corners in the box [-1, 1] x [-1, 1], y downwards
    "circle": [(math.cos(t), math.sin(t)) for t in _TURN],
    "square": [(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)],
    "triangle": [(0, -0.95), (1, 0.85), (-1, 0.85)],
    "star": [
        (radius * math.sin(math.pi * k / 5), 0.1 - radius * math.cos(math.pi * k / 5))
        for k, radius in enumerate((1.08, 0.46) * 5)
    ],
    "heart": [_heart(t) for t in _TURN],
    "cross": [
        (-0.34, -0.98), (0.34, -0.98), (0.34, -0.34), (0.98, -0.34), (0.98, 0.34), (0.34, 0.34),
        (0.34, 0.98), (-0.34, 0.98), (-0.34, 0.34), (-0.98, 0.34), (-0.98, -0.34), (-0.34, -0.34),
    ],
}  # fmt: skip


def _outline(shape: str) -> list[tuple[float, float]]:
    """Corners of a shape, to six digits."""
    if shape not in OUTLINES:
        raise ValueError(f"unknown shape {shape!r}: choose one of {', '.join(SHAPES)}")
    return [(round(x, 6), round(y, 6)) for x, y in OUTLINES[shape]]


@cache
def shape_mask(shape: str, diameter: int) -> Image.Image:
    """Coverage of a shape as an 8-bit picture, 0 to 255, `diameter` + 4 pixels wide."""
    side, scale = diameter + 4, 8  # whole-number corners: the same bytes on every processor
    centre, radius = side * scale / 2, diameter * scale / 2
    corners = [(round(centre + radius * x), round(centre + radius * y)) for x, y in _outline(shape)]
    canvas = Image.new("L", (side * scale, side * scale), 0)
    ImageDraw.Draw(canvas).polygon(corners, fill=255)
    return canvas.reduce(scale)


def _place(rng: random.Random, diameters: list[int]) -> list[tuple[int, int]] | None:
    """Centres with all shapes inside the picture and 3 pixels between them; None if stuck."""
    centres: list[tuple[int, int]] = []
    for diameter in diameters:
        reach = diameter // 2 + 2
        for _ in range(40):
            x, y = rng.randint(reach, SIDE - reach), rng.randint(reach, SIDE - reach)
            gaps = [
                max(abs(x - u), abs(y - v)) - (diameter + other) / 2
                for (u, v), other in zip(centres, diameters, strict=False)
            ]
            if all(gap >= 3 for gap in gaps):
                centres.append((x, y))
                break
        else:
            return None
    return centres


def _draw_pairs(rng: random.Random, count: int, unseen: bool | None) -> list[tuple[str, str]]:
    """So many different (shape, colour) pairs."""
    while True:
        pairs = [(rng.choice(SHAPES), rng.choice(list(COLORS))) for _ in range(count)]
        held_out = [pair in UNSEEN_PAIRS for pair in pairs]
        if unseen is True and not any(held_out):
            pairs[rng.randrange(count)] = rng.choice(sorted(UNSEEN_PAIRS))
        elif unseen is False and any(held_out):
            continue
        if len(set(pairs)) == count:
            return pairs


def sample_scene(
    rng: random.Random, unseen: bool | None = None, shares: Mapping[str, float] | None = None
) -> Scene:
    """Draw a scene at random; the same state of `rng` gives the same one on every machine.

    Args:
        rng: the source of chance.
        unseen: True for at least one (shape, colour) pair out of `UNSEEN_PAIRS`, False for none,
            None for either.
        shares: of the kinds of scenes, such as `CROWDED`; by default those of `KINDS`.
    """
    shares = {kind: share for kind, (_, share) in KINDS.items()} if shares is None else shares
    letters = KINDS[rng.choices(list(shares), list(shares.values()))[0]][0]
    different = sorted(set(letters))
    pairs = dict(zip(different, _draw_pairs(rng, len(different), unseen), strict=True))
    sizes = {a: rng.choice(list(SIZES)) for a in different}
    while True:
        diameters = [rng.randint(*SIZES[sizes[a]]) for a in letters]
        if (centres := _place(rng, diameters)) is not None:
            break
        sizes[max(sizes, key=lambda a: sizes[a] == "large")] = "small"  # too crowded: shrink one
    objects = []
    for a, diameter, (x, y) in zip(letters, diameters, centres, strict=True):
        bright, (shape, color) = rng.randint(84, 100), pairs[a]
        rgb = tuple(min(255, max(0, c * bright // 100 + rng.randint(-5, 5))) for c in COLORS[color])
        objects.append(SceneObject(shape, color, sizes[a], x, y, diameter, rgb))
    return Scene(rng.choice(list(BACKGROUNDS)), tuple(objects), shade=rng.randint(-5, 5))


def sample_facts(rng: random.Random) -> Facts:
    """What a caption of a random scene states; all (shape, colour) pairs occur."""
    return choose_facts(sample_scene(rng), rng)


def sample_captions(
    count: int, seed: int = 0, unseen_words: float = 0.0
) -> tuple[list[str], list[Facts]]:
    """Captions of random scenes, and the facts that each states.

    `unseen_words` is the share of captions that use the words train never uses.
    """
    rng = random.Random(f"captions {seed}")
    facts = [sample_facts(rng) for _ in range(count)]
    return [word_facts(f, rng, rng.random() < unseen_words) for f in facts], facts


def draw_background(name: str, shade: int = 0) -> np.ndarray:
    """Background as uint8 [64, 64, 3]; `shade` is added to every channel."""
    top, bottom = (np.array(c, dtype=np.int64) for c in BACKGROUNDS[name])
    row = np.arange(SIDE)[:, None]
    rows = (top * (SIDE - 1 - row) + bottom * row) // (SIDE - 1) + shade
    return np.repeat(rows.clip(0, 255).astype(np.uint8)[:, None], SIDE, axis=1)


def render(scene: Scene) -> Image.Image:
    """Draw a scene as an RGB picture of 64 x 64 pixels, anti-aliased."""
    if scene.background not in BACKGROUNDS:
        known = ", ".join(BACKGROUNDS)
        raise ValueError(f"unknown background {scene.background!r}: choose one of {known}")
    picture = Image.fromarray(draw_background(scene.background, scene.shade))
    for thing in scene.objects:
        mask = shape_mask(thing.shape, thing.diameter)
        corner = (int(thing.x) - mask.width // 2, int(thing.y) - mask.height // 2)
        picture.paste(thing.rgb, corner, mask)
    return picture


def render_all(scenes: Iterable[Scene]) -> np.ndarray:
    """Draw scenes: uint8 [N, 3, 64, 64]."""
    return np.stack([np.asarray(render(scene)).transpose(2, 0, 1) for scene in scenes])


# ---- the folder in COCO's layout


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8", newline="\n")


def _instance(number: int, image_id: int, thing: SceneObject) -> dict:
    """One object in COCO's instances form, with colour, size and the shape's outline."""
    radius = thing.diameter / 2
    outline = [(thing.x + radius * x, thing.y + radius * y) for x, y in _outline(thing.shape)]
    xs, ys = [x for x, _ in outline], [y for _, y in outline]
    mask = np.asarray(shape_mask(thing.shape, thing.diameter), dtype=np.int64)
    return {
        "id": number,
        "image_id": image_id,
        "category_id": SHAPES.index(thing.shape) + 1,
        "bbox": [round(v, 2) for v in (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))],
        "area": int(mask.sum()) // 255,
        "segmentation": [[round(v, 2) for point in outline for v in point]],
        "iscrowd": 0,
        "color": thing.color,
        "size": thing.size,
        "rgb": list(thing.rgb),
    }


def _make_split(
    folder: Path, split: str, count: int, seed: int, bar: tqdm, shares: Mapping[str, float] | None
) -> None:
    """Write the pictures and both annotation files of one split."""
    (folder / split).mkdir(parents=True)
    images, captions, instances, relations = [], [], [], []
    first_id = {"train": 1, "val": 1_000_001, "test": 2_000_001}[split]
    for index in range(count):
        rng = random.Random(f"scenes 1 {seed} {split} {index}")
        unseen = split != "train" and index % 2 == 1
        scene = sample_scene(rng, unseen, shares)
        image_id = first_id + index
        file_name = f"{image_id:012d}.bmp"
        render(scene).save(folder / split / file_name)
        subset = "train" if split == "train" else f"{split}_{'unseen' if unseen else 'seen'}"
        images.append({
            "id": image_id, "file_name": file_name, "width": SIDE, "height": SIDE,
            "subset": subset, "background": scene.background,
        })  # fmt: skip
        for number in range(5):
            last, facts = number == 4, choose_facts(scene, rng)
            if last and split == "train":  # as people type it
                caption, wording = word_freely(facts, rng), "free"
            else:
                caption = word_facts(facts, rng, unseen_words=last)
                wording = "unseen" if any(w in caption for w in UNSEEN_WORDS) else "seen"
            captions.append({
                "id": 5 * image_id + number, "image_id": image_id, "caption": caption,
                "wording": wording, "facts": facts,
            })  # fmt: skip
        objects = [_instance(10 * image_id + k, image_id, o) for k, o in enumerate(scene.objects)]
        instances += objects
        for i, relation, j in stated_relations(scene.objects):
            relations.append([objects[i]["id"], relation, objects[j]["id"]])
        bar.update()
    info = {"description": "scenes of t2i_course", "version": str(VERSION), "seed": seed}
    categories = [{"id": k + 1, "name": s, "supercategory": "shape"} for k, s in enumerate(SHAPES)]
    said = {"info": info, "images": images, "annotations": captions}
    shown = {
        "info": info, "images": images, "categories": categories, "annotations": instances,
        "relations": relations,
    }  # fmt: skip
    (folder / "annotations").mkdir(exist_ok=True)
    _write_json(folder / "annotations" / f"captions_{split}.json", said)
    _write_json(folder / "annotations" / f"instances_{split}.json", shown)


def make_scenes(
    folder: Path | str | None = None,
    train: int = 10_000,
    val: int = 2_000,
    test: int = 2_000,
    seed: int = 0,
    progress: bool = True,
    crowded: bool = False,
) -> Path:
    """Write the data set in COCO's layout, unless it is there already.

    The same arguments give the same bytes on every machine (pictures are uncompressed BMP, since
    compressors differ between versions). The folder appears whole or not at all.

    Args:
        folder: where to; by default `scenes` in the course's data folder. It is returned.
        train: number of training pictures.
        val: number of validation pictures; every second one shows a pair of `UNSEEN_PAIRS`.
        test: number of test pictures, drawn as those of val, for figures that are reported.
        seed: of all scenes.
        progress: show a bar.
        crowded: draw training pictures of three objects more often, by the shares of `CROWDED`.

    Raises:
        FileExistsError: the folder holds something that is not this data set.
    """
    folder = Path(folder) if folder is not None else runtime.data_folder() / "scenes"
    made_as = {"version": VERSION, "train": train, "val": val, "test": test, "seed": seed}
    if crowded:
        made_as["crowded"] = True
    marker = folder / MARKER
    if marker.is_file() and json.loads(marker.read_text(encoding="utf-8")) == made_as:
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"{folder} holds something else than scenes made with {made_as}: "
            "delete or move it, or name another folder"
        )
    bar = tqdm(total=train + val + test, desc="drawing scenes", disable=not progress)
    with runtime.atomic_folder(folder) as unfinished, bar:
        for split, count in (("train", train), ("val", val), ("test", test)):
            shares = CROWDED if crowded and split == "train" else None
            _make_split(unfinished, split, count, seed, bar, shares)
        _write_json(unfinished / MARKER, made_as)
    return folder


def more_scenes(train: int, crowded: bool = False, progress: bool = True) -> Path:
    """A larger training set in the data folder, drawn on first use; val and test stay the same."""
    folder = runtime.data_folder() / f"scenes-{train}{'-crowded' if crowded else ''}"
    return make_scenes(folder, train=train, progress=progress, crowded=crowded)


def are_in(folder: Path | str) -> bool:
    """Whether a folder holds drawn scenes, under whatever name, and not photos."""
    return (Path(folder) / MARKER).is_file()


def read_captions(folder: Path | str, split: str) -> list[dict]:
    """Caption entries of a split, each with `image_id`, `caption`, `wording` and `facts`.

    Raises:
        FileNotFoundError: the folder holds no scenes.
        ValueError: its captions carry no facts, as those of photos.
    """
    entries = _read_annotations(folder, f"captions_{split}.json")["annotations"]
    if any("facts" not in entry for entry in entries):
        raise ValueError(f"the captions in {folder} have no facts: only drawn scenes carry them")
    return entries


def _read_annotations(folder: Path | str, name: str) -> dict:
    """One of the annotation files of drawn scenes; FileNotFoundError elsewhere."""
    path = Path(folder) / "annotations" / name
    if not path.is_file():
        raise FileNotFoundError(
            f"no {path}: it comes with drawn scenes only; drawing.make_scenes() makes them"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def read_instances(folder: Path | str, split: str) -> dict[int, Scene]:
    """What each picture of a split shows, by image id; FileNotFoundError without such pictures."""
    content = _read_annotations(folder, f"instances_{split}.json")
    objects: dict[int, list[SceneObject]] = {image["id"]: [] for image in content["images"]}
    for thing in content["annotations"]:
        left, top, width, height = thing["bbox"]
        look = SHAPES[thing["category_id"] - 1], thing["color"], thing["size"]
        place = left + width / 2, top + height / 2, round(max(width, height))
        objects[thing["image_id"]].append(SceneObject(*look, *place, tuple(thing["rgb"])))
    grounds = {image["id"]: image["background"] for image in content["images"]}
    return {number: Scene(ground, tuple(objects[number])) for number, ground in grounds.items()}
