"""Tests of t2i_course.wording_lessons: a copy of the text encoder that reads freer wordings."""

import json
import random
import shutil

import pytest
import torch

from t2i_course import authored_wordings, checkpoints, generation, runtime, wording_lessons
from t2i_course.caption_parts import THINGS
from t2i_course.captions import groups_of
from t2i_course.text_encoder import TextEncoder
from t2i_course.wording_lessons import PLAIN, Reading, _loss, draw_facts, draw_lessons

STEPS = 30


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A data folder with the course's encoder and its GAN, which the lessons may write to."""
    folder = tmp_path_factory.mktemp("home")
    embedded = runtime.data_folder()
    shutil.copytree(embedded / "encoders" / "caption-bert", folder / "encoders" / "caption-bert")
    (folder / "checkpoints").mkdir()
    for name in ("gan", "baseline"):
        for ending in ("json", "safetensors"):
            shutil.copy(embedded / "checkpoints" / f"{name}.{ending}", folder / "checkpoints")
    card = json.loads((folder / "checkpoints" / "gan.json").read_text(encoding="utf-8"))
    card.pop("prompt_encoder", None)
    (folder / "checkpoints" / "gan.json").write_text(json.dumps(card), encoding="utf-8")
    return folder


@pytest.fixture
def patched(home, monkeypatch):
    monkeypatch.setenv("T2I_HOME", str(home))
    monkeypatch.setattr(wording_lessons, "TAUGHT", 256)
    monkeypatch.setattr(wording_lessons, "HELD", 64)
    monkeypatch.setattr(wording_lessons, "HEAD_STEPS", 20)
    return home


@pytest.fixture(scope="module")
def taught(home):
    """A few steps of small batches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("T2I_HOME", str(home))
        patch.setattr(wording_lessons, "TAUGHT", 512)
        patch.setattr(wording_lessons, "HELD", 64)
        patch.setattr(wording_lessons, "HEAD_STEPS", 100)
        return wording_lessons.teach_wordings(
            "gan", "free", STEPS, batch_size=16, device="cpu", command="test", progress=False
        )


def test_every_other_caption_has_one_two_or_three_kinds_by_turns():
    facts = draw_facts(60, random.Random(0))
    kinds = [len(groups_of(f)) for f in facts]
    assert all(kinds[k] == k % 6 + 1 for k in range(60) if k % 6 < THINGS)
    assert len(set(kinds[3::6])) > 1


def test_captions_of_like_length_share_a_batch_and_belong_to_their_facts():
    lessons = draw_lessons(8, random.Random(0))
    spans = []
    for _ in range(4):
        facts, texts = next(lessons)
        assert len(facts) == len(texts) == 8
        for stated, text in zip(facts, texts, strict=True):
            colors = {thing["color"] for thing in stated["objects"] if "color" in thing}
            assert all(color in text for color in colors)
        spans.append((min(map(len, texts)), max(map(len, texts))))
    spans.sort()
    assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:], strict=False))


def test_half_of_the_lessons_are_captions_of_authors(monkeypatch):
    monkeypatch.setattr(
        wording_lessons.authored_wordings, "draw",
        lambda rng: authored_wordings.read_line("an author wants a red star | | red star |"),
    )  # fmt: skip
    lessons = draw_lessons(8, random.Random(0))
    texts = [text for _ in range(wording_lessons.SORTED) for text in next(lessons)[1]]
    assert texts.count("an author wants a red star") == len(texts) / 2 == 16


def test_the_loss_is_the_distance_to_the_nearest_wording_and_of_kept_ones_to_themselves():
    torch.manual_seed(0)
    deviation = torch.full((5,), 2.0)
    aims = Reading(torch.randn(PLAIN * 3 + 2, 5), torch.randn(PLAIN * 3 + 2, 4, 64))
    found = Reading(torch.randn(3 + 2, 5), torch.randn(3 + 2, 4, 64))

    def far(a, b):
        sentence = ((found.sentence[a] - aims.sentence[b]) / 2).square().mean()
        return sentence + (found.parts[a] - aims.parts[b]).square().mean()

    nearest = [min(far(k, p * 3 + k) for p in range(PLAIN)) for k in range(3)]
    kept = [far(3 + k, PLAIN * 3 + k) for k in range(2)]
    wanted = sum(nearest) / 3 + sum(kept) / 2
    assert torch.allclose(_loss(found, aims, 3, deviation), wanted)
    # What already reads as one of the wordings costs nothing.
    rows = [3, 1, 5, 6, 7]  # of the second, the first, the second wording; the kept ones
    same = Reading(aims.sentence[rows], aims.parts[rows])
    assert _loss(same, aims, 3, deviation) == 0


def test_the_copy_learns_and_the_generator_takes_it_for_its_prompts(home, taught, monkeypatch):
    monkeypatch.setenv("T2I_HOME", str(home))
    assert taught == home / "encoders" / "free"
    card = json.loads((taught / "card.json").read_text(encoding="utf-8"))
    shares = card["metrics"]
    assert len(shares) == 4 and all(0 <= share <= 1 for share in shares.values())
    assert shares["freer wordings read right, after"] > shares["freer wordings read right, before"]
    assert card["steps"] == STEPS and card["command"] == "test"
    before, after = TextEncoder(device="cpu"), TextEncoder("free", device="cpu")
    assert card["begun_with"]["fingerprint"] == before.fingerprint != after.fingerprint
    assert before.tokenizer.get_vocab() == after.tokenizer.get_vocab()
    generator, encoder, named = generation.load_model("gan", "cpu")
    assert named["prompt_encoder"]["fingerprint"] == encoder.fingerprint == after.fingerprint
    assert named["encoder"]["fingerprint"] == before.fingerprint
    # Weights and the rest of the card are what they were.
    unchanged = checkpoints.read_card(runtime.CHECKOUT / "data" / "checkpoints" / "gan")
    unchanged.pop("prompt_encoder", None)
    assert {k: v for k, v in named.items() if k != "prompt_encoder"} == unchanged
    images = next(generation.sample(generator, encoder, ["a star, big and red"], 2))
    assert images.shape == (2, 3, 64, 64)
    assert not list(home.rglob("*.partial*"))


def test_words_of_the_lessons_are_known_and_others_are_not(home, taught, monkeypatch):
    monkeypatch.setenv("T2I_HOME", str(home))
    card = checkpoints.read_card("gan")
    encoder = TextEncoder("free", device="cpu")
    prompt = "there is a star that is red"
    assert generation.check_prompts(encoder, [prompt], card) == []
    plain = {name: value for name, value in card.items() if name != "prompt_encoder"}
    (note,) = generation.check_prompts(encoder, [prompt], plain)
    assert "'that'" in note
    (note,) = generation.check_prompts(encoder, ["a star that is a zebra"], card)
    assert "'zebra' in" in note


def test_a_changed_prompt_encoder_or_an_unfinished_entry_is_an_error(
    home, taught, monkeypatch, tmp_path
):
    shutil.copytree(home, tmp_path / "home")
    monkeypatch.setenv("T2I_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "encoders"
    shutil.rmtree(folder / "free")
    shutil.copytree(folder / "caption-bert", folder / "free")
    with pytest.raises(ValueError, match="another encoder 'free'"):
        generation.load_model("gan", "cpu")
    file = tmp_path / "home" / "checkpoints" / "gan.json"
    card = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(card | {"prompt_encoder": {"name": "free"}}), encoding="utf-8")
    with pytest.raises(ValueError, match="prompt_encoder needs name, fingerprint and pooling"):
        generation.load_model("gan", "cpu")


def test_without_parts_or_scenes_or_room_there_are_no_lessons(patched, monkeypatch):
    (patched / "encoders" / "full").mkdir(exist_ok=True)
    with pytest.raises(FileExistsError, match="full is there already"):
        wording_lessons.teach_wordings("gan", "full")
    with pytest.raises(ValueError, match="baseline has no parts"):
        wording_lessons.teach_wordings("baseline", "other")
    card = patched / "checkpoints" / "gan.json"
    text = card.read_text(encoding="utf-8")
    photos = json.loads(text) | {"data": "photos"}
    try:
        card.write_text(json.dumps(photos), encoding="utf-8")
        with pytest.raises(ValueError, match="only scenes have a grammar"):
            wording_lessons.teach_wordings("gan", "other")
    finally:
        card.write_text(text, encoding="utf-8")
    assert not (patched / "encoders" / "other").exists()


def test_lessons_repeat_with_the_seed(patched):
    cards = []
    for name in ("one", "two"):
        folder = wording_lessons.teach_wordings(
            "gan", name, 3, batch_size=4, device="cpu", progress=False
        )
        cards.append(json.loads((folder / "card.json").read_text(encoding="utf-8")))
    assert cards[0]["sha256"] == cards[1]["sha256"]
