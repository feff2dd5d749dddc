"""What several test files share: small real parts, made once a session."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import CAPTIONS, TRAIN
from photo_folder import KINDS, SIZE, make_split
from PIL import Image
from small_run import SmallRun, new_generator

from t2i_course import data
from t2i_course.__main__ import main
from t2i_course.image_decoder import ResidualDecoder
from t2i_course.scenes import drawing, pretraining
from t2i_course.training import History


@pytest.fixture(scope="session", autouse=True)
def hang_up() -> None:
    """SIGHUP stops a run, as at a terminal; `nohup pytest` would have the tests ignore it."""
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def small_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded data set, with 60 training and 40 validation pictures."""
    folder = tmp_path_factory.mktemp("data") / "scenes"
    return drawing.make_scenes(folder, train=60, val=40, test=4, progress=False)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real BERT of two layers with random weights and a vocabulary learnt from captions."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("encoders") / "tiny-bert"
    folder.mkdir()
    texts, _ = drawing.sample_captions(300, seed=0)
    extra = ["two dogs run on the green grass", "a man rides a wave", "people at a table with food"]
    tokenizer = pretraining.train_tokenizer(texts + extra * 3, folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=48, max_position_embeddings=48, type_vocab_size=1,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real CLIP of two layers for 32 pixels, with random weights; its words are single bytes."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip") / "tiny-clip"
    letters = sorted(ByteLevel.alphabet())
    ends = ["<|startoftext|>", "<|endoftext|>"]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *ends]
    vocabulary = {word: index for index, word in enumerate(words)}
    begin, end = (vocabulary[word] for word in ends)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
             "num_attention_heads": 2, "projection_dim": 8}  # fmt: skip
    text = sizes | {"vocab_size": len(words), "max_position_embeddings": 77,
                    "bos_token_id": begin, "eos_token_id": end, "pad_token_id": end}  # fmt: skip
    vision = sizes | {"image_size": 32, "patch_size": 16}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config=text, vision_config=vision, projection_dim=8, initializer_factor=20.0
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    square = {"height": 32, "width": 32}
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=square).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def as_photos() -> Callable[[Path, Path], Path]:
    """Copy scenes to a folder, and leave out what photos lack: facts, and scenes' marker."""

    def copy(scenes_folder: Path, folder: Path) -> Path:
        shutil.copytree(scenes_folder, folder)
        (folder / drawing.MARKER).unlink()
        for file in (folder / "annotations").glob("captions_*.json"):
            document = json.loads(file.read_text())
            for annotation in document["annotations"]:
                del annotation["facts"]
            for image in document["images"]:
                del image["subset"]
            file.write_text(json.dumps(document))
        return folder

    return copy


@pytest.fixture
def photos(small_scenes: Path, as_photos: Callable[[Path, Path], Path], tmp_path: Path) -> Path:
    """The pictures of `small_scenes` as photos would come."""
    return as_photos(small_scenes, tmp_path / "photos")


@pytest.fixture
def coco_folder(tmp_path: Path) -> Path:
    """A small folder in COCO's own layout, with JPEGs of mixed sizes and colour modes."""
    folder = tmp_path / "coco"
    make_split(folder, "train2017", KINDS, first_id=100)
    make_split(folder, "val2017", ["plain", "gray", "tall"], first_id=500)
    return folder


@pytest.fixture
def packed(coco_folder: Path, tmp_path: Path) -> data.PackedCaptions:
    """Its training split, packed."""
    return data.pack(coco_folder, "train", SIZE, cache=tmp_path / "cache", progress=False)


# Of the command line


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Compute as `command` does: the sums of two threads differ in the last digits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def few_files(tmp_path_factory) -> Path:
    """A folder in COCO's layout: JPEG and PNG, mixed sizes, some in grayscale."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    rng = np.random.default_rng(0)
    (folder / "annotations").mkdir(parents=True)
    for split, count in (("train2017", 12), ("val2017", 6)):
        (folder / split).mkdir()
        images, annotations = [], []
        for k in range(count):
            name = f"{k:012d}.{'png' if k % 3 == 0 else 'jpg'}"
            size = (40 + 5 * k, 30) if k % 2 else (24, 50 + k)
            pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            picture = Image.fromarray(pixels).resize((size[0] // 8, size[1] // 8)).resize(size)
            (picture.convert("L") if k % 4 == 1 else picture).save(folder / split / name)
            images.append({"id": k, "file_name": name, "width": size[0], "height": size[1]})
            for number, caption in enumerate(CAPTIONS[: 1 + k % 3]):
                annotations.append({"id": 10 * k + number, "image_id": k, "caption": caption})
        file = folder / "annotations" / f"captions_{split}.json"
        file.write_text(json.dumps({"images": images, "annotations": annotations}))
    return folder


@pytest.fixture(scope="session")
def template(tmp_path_factory, few_files, tiny_bert) -> Path:
    """A data folder with an encoder and a trained model, made by the command itself."""
    home, threads = tmp_path_factory.mktemp("home"), torch.get_num_threads()
    shutil.copytree(tiny_bert, home / "encoders" / "caption-bert")
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("T2I_HOME", str(home))
        patch.setenv("T2I_DEVICE", "cpu")
        patch.chdir(few_files.parent)
        assert main(TRAIN) == 0
    torch.set_num_threads(threads)
    return home


@pytest.fixture
def home(template, few_files, tmp_path, monkeypatch) -> Path:
    """A copy of the trained data folder; the working folder holds `photos`."""
    shutil.copytree(template, tmp_path / "home")
    (tmp_path / "work").mkdir()
    shutil.copytree(few_files, tmp_path / "work" / "photos")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("T2I_HOME", str(tmp_path / "home"))
    for name in ("T2I_DATA", "T2I_PROFILE", "T2I_SEED", "T2I_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("T2I_DEVICE", "cpu")
    return tmp_path / "home"


@pytest.fixture(scope="module")
def packed_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the scenes of `small_run` are packed."""
    return tmp_path_factory.mktemp("packed")


@pytest.fixture(scope="module")
def small_run(small_scenes: Path, packed_cache: Path) -> SmallRun:
    """Scenes of 16 pixels with made-up features of their captions, ready to train on."""
    torch.set_num_threads(1)
    return SmallRun(small_scenes, packed_cache)


@pytest.fixture(scope="module")
def uninterrupted(small_run: SmallRun) -> tuple[ResidualDecoder, History]:
    """A generator trained in one go, and its history."""
    generator = new_generator()
    return generator, small_run.train(generator)
