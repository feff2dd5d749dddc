"""Tests of scenes.wording_lessons: a copy of the text encoder that reads freer wordings."""

import json
import random
import shutil

import pytest
import torch

from t2i_course import checkpoints, generation, runtime
from t2i_course.scenes import authored_wordings, wording_lessons
from t2i_course.scenes.wording import groups_of
from t2i_course.scenes.wording_lessons import PLAIN, Reading, _loss, draw_facts, draw_lessons
from t2i_course.text_encoder import TextEncoder

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


def test_one_two_three_or_any_kinds_come_by_turns_and_then_two_lists():
    facts = draw_facts(60, random.Random(0))
    kinds = [len(groups_of(f)) for f in facts]
    assert [kinds[k] for k in range(6) if k != 3] == [1, 2, 3, 2, 3]
    assert all(kinds[k] == kinds[k % 6] for k in range(60) if k % 6 != 3)
    assert len(set(kinds[3::6])) > 1
    assert not any(f["relations"] for f in facts[4::6] + facts[5::6])
    assert any(f["relations"] for f in facts[1::6]) and any(f["relations"] for f in facts[2::6])


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


def test_the_loss_is_the_distance_to_the_nearest_wording_that_is_read_right():
    torch.manual_seed(0)
    count, kept = 5, 2  # the first and the fifth are kept in the grammar's wording as well
    deviation, number = torch.full((5,), 2.0), PLAIN * count + kept
    aims = Reading(torch.randn(number, 5), torch.randn(number, 4, 64))
    found = Reading(torch.randn(count + kept, 5), torch.randn(count + kept, 4, 64))
    right = torch.ones(number, dtype=torch.bool)
    right[1::count] = False  # no wording of the second, and not the first two of the third
    right[2], right[count + 2] = False, False
    right[-1] = False  # of the kept ones the second is misread; its other wordings are aims

    def far(a, b):
        sentence = ((found.sentence[a] - aims.sentence[b]) / 2).square().mean()
        return sentence + (found.parts[a] - aims.parts[b]).square().mean()

    aims_of = [[p * count + k for p in range(PLAIN)] for k in range(count)]
    aims_of[1], aims_of[2] = [], aims_of[2][2:]
    free = [min((far(k, b) for b in rows), default=0) for k, rows in enumerate(aims_of)]
    own = [
        min(far(count, b) for b in [number - 2, *aims_of[0]]),
        min(far(count + 1, b) for b in aims_of[4]),
    ]
    wanted = sum(free) / count + sum(own) / kept
    assert torch.allclose(_loss(found, aims, right, count, deviation), wanted)
    # What already reads as one of its aims costs nothing; what has none, never anything.
    rows = [count, 0, 2 * count + 2, 3, 4, number - 2, 4]
    same = Reading(aims.sentence[rows].clone().requires_grad_(), aims.parts[rows])
    loss = _loss(same, aims, right, count, deviation)
    assert loss == 0
    loss.backward()
    assert same.sentence.grad.isfinite().all()


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


def test_lessons_go_on_with_an_encoder_of_earlier_ones_and_with_no_other(home, taught, patched):
    folder = wording_lessons.teach_wordings(
        "gan", "further", 2, batch_size=4, device="cpu", progress=False, init="free"
    )
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    assert card["begun_with"]["name"] == "free"
    assert card["begun_with"]["fingerprint"] == TextEncoder("free", device="cpu").fingerprint
    assert card["begun_with"]["command"] == "test" and card["begun_with"]["steps"] == STEPS
    assert card["begun_with"]["begun_with"]["name"] == "caption-bert"
    other = home / "encoders" / "other-words"
    shutil.copytree(home / "encoders" / "caption-bert", other)
    file = other / "tokenizer.json"
    words = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = words["model"]["vocab"]
    vocabulary["zebra"] = vocabulary.pop("triangle")
    file.write_text(json.dumps(words), encoding="utf-8")
    with pytest.raises(ValueError, match="other-words has another vocabulary than caption-bert"):
        wording_lessons.teach_wordings("gan", "no", 2, device="cpu", init="other-words")


def test_lessons_repeat_with_the_seed(patched):
    cards = []
    for name in ("one", "two"):
        folder = wording_lessons.teach_wordings(
            "gan", name, 3, batch_size=4, device="cpu", progress=False
        )
        cards.append(json.loads((folder / "card.json").read_text(encoding="utf-8")))
    assert cards[0]["sha256"] == cards[1]["sha256"]
