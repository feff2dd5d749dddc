"""Captions that an encoder cannot read are noticed before a network is trained with it."""

from __future__ import annotations

import warnings

import pytest
from photo_folder import KINDS, make_split, read_captions, write_captions

from t2i_course.__main__ import main
from t2i_course.photos import caption_check
from t2i_course.text_encoder import TextEncoder

ENGLISH = ["two dogs run on the grass", "a man rides a wave", "people at a table"]
CHINESE = ["两只狗在草地上奔跑", "一个男人在海上冲浪", "人们围坐在桌旁", "一辆蓝色的公共汽车"]
RUSSIAN = ["две собаки бегут по траве", "мужчина катается на волне", "люди за столом"]
GREEK = ["δύο σκυλιά τρέχουν", "ένας άντρας στο κύμα"]


@pytest.fixture(scope="module")
def encoder(tiny_bert):
    return TextEncoder(tiny_bert)


def test_english_is_read_without_a_word(encoder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = caption_check.check_captions(encoder, ENGLISH)
    assert (found.captions, found.unknown, found.alike) == (3, 0, 0)


@pytest.mark.parametrize("captions", [CHINESE, RUSSIAN, GREEK])
def test_another_script_is_refused_with_the_remedy(encoder, captions):
    with pytest.raises(ValueError, match=r"100\.0% of the words") as error:
        caption_check.check_captions(encoder, captions)
    for remedy in ("bert-base-multilingual-cased", "bert-base-chinese", "encoder --data"):
        assert remedy in str(error.value)


def test_captions_that_nothing_tells_apart_are_counted(encoder):
    # nine, nine, seven and nine signs, each of them unknown
    assert [len(caption) for caption in CHINESE] == [9, 9, 7, 9]
    assert caption_check.read_share(encoder, CHINESE).alike == 3
    assert caption_check.read_share(encoder, ["A dog", "a dog"]).alike == 0  # both were read


def test_a_foreign_part_is_a_note_with_its_share(encoder):
    mixed = ["a man rides a wave"] * 40 + [f"a man {'x' * k}" for k in range(1, 40)] + [CHINESE[0]]
    with pytest.warns(UserWarning, match=r"cannot read \d+\.\d% of the words.*--encoder"):
        found = caption_check.check_captions(encoder, mixed)
    assert caption_check.NOTED < found.unknown < caption_check.REFUSED


def test_a_rare_sign_needs_no_note_and_marks_do_not_count(encoder):
    many = [f"a man at table {'ab'[k % 2] * (k // 2 + 1)}" for k in range(40)] + ["a wave \u2603"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert 0 < caption_check.check_captions(encoder, many).unknown < caption_check.NOTED
    with pytest.raises(ValueError, match="cannot read"):
        caption_check.check_captions(encoder, ["狗 . . . . . , , , ! ! !"])


def test_many_captions_are_looked_at_in_part(encoder, monkeypatch):
    monkeypatch.setattr(caption_check, "LOOKED_AT", 3)
    assert caption_check.read_share(encoder, CHINESE + RUSSIAN).captions == 3


@pytest.mark.parametrize(
    "command",
    [["train", "--steps", "2", "--batch-size", "4"],
     ["metric-network", "caption-matcher", "--steps", "10"]],
)  # fmt: skip
def test_commands_refuse_before_they_train(tmp_path, tiny_bert, command, monkeypatch, capsys):
    monkeypatch.setenv("T2I_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    make_split(tmp_path / "photos", "train2017", KINDS * 2, 1000)
    document = read_captions(tmp_path / "photos")
    for number, entry in enumerate(document["annotations"]):
        entry["caption"] = RUSSIAN[number % 3]
    write_captions(tmp_path / "photos", "train2017", document)
    options = ["--data", str(tmp_path / "photos"), "--encoder", str(tiny_bert), "--size", "32"]
    assert main([*command, *options, "--output", str(tmp_path / "weights")]) == 2
    message = capsys.readouterr().err
    assert "cannot read 100.0% of the words" in message and "bert-base-multilingual" in message
    assert "Traceback" not in message and not (tmp_path / "weights.safetensors").exists()
