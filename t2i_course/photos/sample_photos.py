"""Fifteen real photos with captions, in COCO's layout, without a network.

scikit-image, scikit-learn and matplotlib ship some photos inside their packages. Those whose terms
are stated and allow it are copied, with five captions each of the course's own (CC BY 4.0), twelve
to learn from and three that are held out. Nobody learns to draw from twelve photos; they show what
changes when scenes become photos, and a network overfits them within a minute.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from t2i_course import runtime

# Where a package keeps its pictures, and what to install if they are not there
PLACES = {
    "scikit-image": ("skimage", "data"),
    "scikit-learn": ("sklearn", "datasets/images"),
    "matplotlib": ("matplotlib", "mpl-data/sample_data"),
}
CC0 = "CC0 1.0"
PUBLIC_DOMAIN = "public domain"
FREE = "no known copyright restrictions"
CC_BY = "CC BY 2.0"


@dataclass(frozen=True)
class SamplePhoto:
    """A photo that a package ships, with captions of the course.

    Attributes:
        file: its name there.
        package: that ships it.
        credit: who took it, or where it comes from.
        license: its terms, as the package states them.
    """

    file: str
    package: str
    credit: str
    license: str
    captions: tuple[str, ...]


TRAIN = (
    SamplePhoto("astronaut.png", "scikit-image", "NASA", PUBLIC_DOMAIN, (
        "A smiling astronaut in an orange space suit in front of a flag.",
        "A woman with short hair wears an orange suit and holds a helmet.",
        "Portrait of an astronaut with a model of a space shuttle behind her.",
        "A woman in an orange pressure suit smiles at the camera.",
        "An astronaut poses beside an American flag and a shuttle.",
    )),
    SamplePhoto("camera.png", "scikit-image", "Lav Varshney", CC0, (
        "A man in a dark coat looks through a camera on a tripod.",
        "Black and white photo of a cameraman on a field of grass.",
        "A photographer bends over his camera in a wide park.",
        "A man films with an old camera, tall buildings far behind him.",
        "A person in black stands at a tripod on a lawn.",
    )),
    SamplePhoto("chelsea.png", "scikit-image", "Stefan van der Walt", CC0, (
        "The face of a tabby cat with green eyes, seen from close by.",
        "A brown striped cat looks to the side.",
        "Close view of a cat with whiskers and a pink nose.",
        "A cat lies on a blanket and looks past the camera.",
        "The head of a ginger and brown cat.",
    )),
    SamplePhoto("coffee.png", "scikit-image", "Rachel Michetti, Pikolo Espresso Bar", CC0, (
        "A cup of coffee on a red saucer with a spoon.",
        "An espresso in a red and white cup on a wooden table.",
        "A small cup of coffee stands on a brown wooden table.",
        "Coffee in a cup, a silver spoon lies on the saucer.",
        "A red cup and saucer seen from above on a table of wood.",
    )),
    SamplePhoto("coins.png", "scikit-image", "Brooklyn Museum", FREE, (
        "Rows of old coins on a dark background.",
        "Twenty four ancient coins, sorted in four rows.",
        "Greek coins from Pompeii, photographed in black and white.",
        "A collection of round silver coins lies on a gray surface.",
        "Many worn coins with heads on them, large and small.",
    )),
    SamplePhoto("rocket.jpg", "scikit-image", "SpaceX", PUBLIC_DOMAIN, (
        "A white rocket stands on its launch pad at dusk.",
        "A rocket waits between steel towers under a dark blue sky.",
        "Bright lamps shine on a tall rocket in the evening.",
        "A launch site at night with a rocket and lightning towers.",
        "A slim white rocket before its launch, lights around it.",
    )),
    SamplePhoto("retina.jpg", "scikit-image", "Mikael Haggstrom", CC0, (
        "The back of a human eye, an orange disc with red veins.",
        "A medical photo of a retina on a black background.",
        "A red and orange circle with fine blood vessels.",
        "The inside of an eye as a doctor sees it, with a bright spot at the left.",
        "Blood vessels branch over an orange disc.",
    )),
    SamplePhoto("china.jpg", "scikit-learn", "danielbuechele, Flickr", CC_BY, (
        "A Chinese temple with a green roof above a lake.",
        "A tall red and green pagoda among trees under a clear sky.",
        "An old tower with many roofs stands on a hill over the water.",
        "The Summer Palace in Beijing on a sunny day.",
        "A colourful pagoda with trees in front and a lake behind.",
    )),
    SamplePhoto("flower.jpg", "scikit-learn", "vultilion, Flickr", CC_BY, (
        "An orange dahlia in front of dark green leaves.",
        "A round flower with many orange petals.",
        "Close view of a blooming flower in a garden.",
        "A peach coloured blossom, the leaves behind it out of focus.",
        "One large orange flower and the edge of another.",
    )),
    SamplePhoto("hubble_deep_field.jpg", "scikit-image", "NASA, Hubble", PUBLIC_DOMAIN, (
        "Thousands of far galaxies in black space.",
        "Small coloured points of light on a black sky.",
        "Stars and galaxies, as a space telescope sees them.",
        "A dark night sky full of tiny red, white and blue lights.",
        "Deep space with many small bright galaxies.",
    )),
    SamplePhoto("brick.png", "scikit-image", "CC0Textures", CC0, (
        "A wall of narrow gray bricks.",
        "Bricks with light joints, in black and white.",
        "A pattern of long bricks that stand upright.",
        "Close view of a brick wall, seen at an angle.",
        "Gray stones laid in even rows with mortar between them.",
    )),
    SamplePhoto("grass.png", "scikit-image", "linolafett, DeviantArt", CC0, (
        "Gray grass and small leaves, seen from above.",
        "Blades of grass that lie in all directions.",
        "A patch of meadow in black and white.",
        "Dry grass covers the ground.",
        "A texture of thin stalks and clover leaves.",
    )),
)  # fmt: skip

VAL = (
    SamplePhoto("grace_hopper.jpg", "matplotlib", "James S. Davis, U.S. Navy", PUBLIC_DOMAIN, (
        "An old woman in a navy uniform in front of a flag.",
        "Portrait of an officer with glasses and a white cap.",
        "A naval officer with medals stands before the American flag.",
        "A woman in a dark uniform with gold buttons looks at the camera.",
        "Rear Admiral Grace Hopper in uniform.",
    )),
    SamplePhoto("gravel.png", "scikit-image", "CC0Textures", CC0, (
        "Small gray stones, seen from above.",
        "Gravel covers the ground.",
        "A bed of pebbles in black and white.",
        "Many little sharp stones lie close together.",
        "The surface of a gravel path.",
    )),
    SamplePhoto("text.png", "scikit-image", "Wikipedia", PUBLIC_DOMAIN, (
        "Formulas written by hand on a sheet of paper.",
        "Handwriting in black ink, seen at an angle.",
        "A page of mathematics on gray paper.",
        "Letters and numbers on lined paper.",
        "A close view of a note with equations.",
    )),
)  # fmt: skip

SPLITS = {"train": TRAIN, "val": VAL}


def package_file(photo: SamplePhoto) -> Path:
    """Where a package has put a photo, without importing the package.

    Raises:
        FileNotFoundError: in another version of the package the photo is missing.
    """
    module, folder = PLACES[photo.package]
    path = Path(find_spec(module).origin).parent / folder / photo.file
    if not path.is_file():
        raise FileNotFoundError(
            f"{photo.package} ships {photo.file}, but it is not here: run `python -m pip install "
            "-r requirements.txt`"
        )
    return path


def make_sample_photos(folder: Path | None = None) -> Path:
    """Copy the photos and write their captions, once, as a folder in COCO's layout.

    Returns:
        The folder, by default `cache/sample-photos` in the data folder.

    Raises:
        FileNotFoundError: as `package_file`.
    """
    folder = folder or runtime.data_folder() / "cache" / "sample-photos"
    if not folder.is_dir():
        with runtime.atomic_folder(folder) as unfinished:
            (unfinished / "annotations").mkdir()
            for split in SPLITS:
                _write_split(unfinished, split)
    return folder


def _write_split(folder: Path, split: str) -> None:
    """Copy a split's photos, and write its annotations as COCO has them."""
    (folder / split).mkdir()
    licenses = [CC0, PUBLIC_DOMAIN, FREE, CC_BY]
    images, annotations = [], []
    for number, photo in enumerate(SPLITS[split], start=1):
        shutil.copyfile(package_file(photo), folder / split / photo.file)
        with Image.open(folder / split / photo.file) as opened:
            width, height = opened.size
        images.append({
            "id": number, "file_name": photo.file, "width": width, "height": height,
            "license": licenses.index(photo.license) + 1, "credit": photo.credit,
        })  # fmt: skip
        annotations += [
            {"id": 10 * number + k, "image_id": number, "caption": caption}
            for k, caption in enumerate(photo.captions)
        ]
    document = {
        "info": {"description": "photos that packages ship; captions of the course, CC BY 4.0"},
        "licenses": [{"id": k, "name": name} for k, name in enumerate(licenses, start=1)],
        "images": images,
        "annotations": annotations,
    }
    file = folder / "annotations" / f"captions_{split}.json"
    file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8", newline="\n")
