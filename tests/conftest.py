"""What several test files share: small real parts, made once a session."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from photo_folder import KINDS, SIZE, make_split

from t2i_course import data
from t2i_course.scenes import drawing, pretraining


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
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=48,
        type_vocab_size=1,
    )
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
