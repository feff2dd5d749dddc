"""The file of answers: nothing given is lost, and nothing broken is passed over."""

import json
import os
import subprocess
import sys
import warnings
from dataclasses import asdict, replace

import numpy as np
import pytest

from t2i_course import answers
from t2i_course.answers import Answer, append_answer, cut_half_line, read_answers

RATING = Answer(
    "abc", "ada", 3, 1, ("baseline",), {"quality": 2, "fit": 4}, 1.5, "2026-01-31T12:00:00+00:00"
)
CHOICE = replace(RATING, sources=("real", "baseline"), scores={"choice": 0})


def numbered(*trials, **changes):
    return [replace(RATING, trial=trial, **changes) for trial in trials]


def test_answers_come_back_as_they_were_given(tmp_path):
    path = tmp_path / "new folder" / "answers.jsonl"
    given = [RATING, replace(CHOICE, rater="\u674e \u201cg\u00f6del\u201d", trial=4)]
    for answer in given:
        append_answer(path, answer)
    assert read_answers(path) == given
    assert path.read_bytes().count(b"\n") == 2


@pytest.mark.skipif(sys.platform == "win32", reason="kills its own process by a POSIX signal")
def test_answers_survive_a_kernel_that_is_killed(tmp_path):
    path = tmp_path / "answers.jsonl"
    program = f"""
import os, signal
from t2i_course.answers import Answer, append_answer
scores = dict(quality=1, fit=5)
for trial in range(3):
    append_answer({str(path)!r}, Answer("abc", "ada", trial, 0, ("a",), scores, 0.1, "now"))
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == -9
    assert [answer.trial for answer in read_answers(path)] == [0, 1, 2]


def test_every_answer_is_on_the_disk_before_the_call_returns(tmp_path, monkeypatch):
    path, synced = tmp_path / "answers.jsonl", []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(path.read_bytes()), real(file)))
    append_answer(path, RATING)
    assert json.loads(synced[0])["trial"] == 3  # the bytes were there when the disk was asked


@pytest.mark.parametrize("kept", [1, 20, -1])
def test_a_half_written_last_line_is_reported_removed_and_nothing_else_is_lost(tmp_path, kept):
    path = tmp_path / "answers.jsonl"
    first, second, third = numbered(1, 2, 3)
    append_answer(path, first)
    start = path.stat().st_size
    append_answer(path, second)
    half = path.read_bytes()[start:][:kept]
    path.write_bytes(path.read_bytes()[:start] + half)

    with pytest.warns(UserWarning, match="line 2, the last, was cut short"):
        assert read_answers(path) == [first]
    with pytest.warns(UserWarning, match="removed a line"):
        append_answer(path, third)
    assert read_answers(path) == [first, third]

    path.write_bytes(path.read_bytes() + half)
    assert cut_half_line(path) == half.decode()
    assert cut_half_line(path) == ""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_answers(path) == [first, third]


def test_only_a_half_line_in_the_file(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b'{"study"')
    assert cut_half_line(path) == '{"study"' and path.read_bytes() == b""
    assert read_answers(path) == []
    assert cut_half_line(tmp_path / "none.jsonl") == ""


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.jsonl"):
        read_answers(tmp_path / "nothing.jsonl")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{oops}", "line 2 is not JSON"),
        (b"\xff\xfe", "line 2 is not JSON"),
        (b"", "line 2 is not JSON"),
        (b"[1, 2]", "line 2 is no answer"),
        (b'{"rater": "ada"}', "line 2 is no answer"),
    ],
)
def test_a_broken_line_in_the_middle_is_an_error_with_its_number(tmp_path, line, message):
    path = tmp_path / "answers.jsonl"
    for answer in numbered(1, 2):
        append_answer(path, answer)
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + line + b"\n" + second)
    with pytest.raises(ValueError, match=f"answers.jsonl, {message}"):
        read_answers(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": {"quality": 6, "fit": 1}}, "quality is one of"),
        ({"scores": {"quality": 1, "fit": 0}}, "fit is one of"),
        ({"scores": {"quality": 1, "fit": True}}, "fit is one of"),
        ({"scores": {"quality": 2.5, "fit": 1}}, "quality is one of"),
        ({"scores": {"quality": 1}}, "quality and fit"),
        ({"scores": {"choice": 1}}, "quality and fit"),
        ({"sources": ["a", "b"]}, "choice"),
        ({"sources": ["a", "a"], "scores": {"choice": 1}}, "one or two names"),
        ({"sources": ["a", "b"], "scores": {"choice": 2}}, "choice is one of"),
        ({"sources": []}, "one or two names"),
        ({"sources": "a"}, "one or two names"),
        ({"rater": ""}, "rater is a text"),
        ({"trial": -1}, "trial is a number"),
        ({"item": "1"}, "item is a number"),
        ({"seconds": -0.5}, "seconds"),
    ],
)
def test_an_answer_out_of_range_is_an_error_with_its_line(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        replace(RATING, **changes)
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps(asdict(RATING) | changes) + "\n")
    with pytest.raises(ValueError, match=f"line 1: .*{message}"):
        read_answers(path)


def test_the_same_trial_twice_by_one_rater_is_an_error_that_names_both_lines(tmp_path):
    path = tmp_path / "answers.jsonl"
    for answer in [*numbered(1, 2), *numbered(1, rater="grace"), *numbered(1)]:
        append_answer(path, answer)
    with pytest.raises(ValueError, match="lines 1 and 4 .* 'ada'"):
        read_answers(path)


def test_answers_that_nobody_gave_are_not_written(tmp_path):
    path = tmp_path / "answers.jsonl"
    with pytest.raises(ValueError, match="simulated"):
        append_answer(path, replace(RATING, time=answers.SIMULATED))
    assert not path.exists()


def test_table_of_ratings_has_a_row_for_each_rater_and_gaps_where_nobody_answered():
    given = [
        *numbered(0, item=0, sources=("b",)),
        *numbered(1, item=1, sources=("a",), scores={"quality": 5, "fit": 1}),
        *numbered(1, item=1, sources=("a",), rater="grace", scores={"quality": 3, "fit": 3}),
    ]
    of_a = answers.rating_table(given, "quality", "a")
    np.testing.assert_array_equal(of_a, [[np.nan, 5], [np.nan, 3]])
    of_b = answers.rating_table(given, "quality", "b")
    np.testing.assert_array_equal(of_b, [[2, np.nan], [np.nan, np.nan]])
    every = answers.rating_table(given, "fit")
    np.testing.assert_array_equal(every, [[4, 1], [np.nan, 3]])


def test_tables_of_wins_count_the_chosen_picture_on_either_side():
    left = replace(CHOICE, trial=0, scores={"choice": 0})  # real
    right = replace(CHOICE, trial=1, scores={"choice": 1})  # baseline
    swapped = replace(right, trial=2, sources=("baseline", "real"))  # real
    other = replace(right, rater="grace")
    sources, tables = answers.wins_tables([left, right, swapped, other])
    assert sources == ("baseline", "real")
    assert tables.tolist() == [[[0, 1], [2, 0]], [[0, 1], [0, 0]]]


def test_tables_refuse_what_does_not_belong_together():
    with pytest.raises(ValueError, match="no answers yet"):
        answers.wins_tables([])
    with pytest.raises(ValueError, match="several studies"):
        answers.rating_table([RATING, replace(RATING, study="other")], "fit")
    with pytest.raises(ValueError, match="need ratings"):
        answers.rating_table([CHOICE], "fit")
    with pytest.raises(ValueError, match="need choices"):
        answers.wins_tables([RATING])
    with pytest.raises(ValueError, match="'speed'"):
        answers.rating_table([RATING], "speed")
    with pytest.raises(ValueError, match="no ratings of 'gan'; there are some of baseline"):
        answers.rating_table([RATING], "fit", "gan")
