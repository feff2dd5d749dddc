"""The study, its file of answers and its form, clicked without a page."""

import html
import io
import json
import re
import subprocess
import sys
import warnings
from collections import Counter
from dataclasses import asdict, replace

import ipywidgets as widgets
import numpy as np
import pytest
import torch
from PIL import Image

from t2i_course.user_study import (
    SIMULATED,
    Answer,
    RatingForm,
    append_answer,
    make_study,
    read_answers,
)

CAPTIONS = ["a red circle", "two blue stars", "a cross above a heart", "a pink square"]


def pictures(*names, count=4, size=8):
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(count, 3, size, size, generator=generator) * 2 - 1 for name in names}


def test_every_picture_is_rated_once_and_every_two_sources_meet_on_every_caption():
    shown = pictures("a", "b", "c")
    rated = Counter((t.item, t.sources) for t in make_study(CAPTIONS, shown).order("ada"))
    assert len(rated) == 4 * 3 and set(rated.values()) == {1}
    study = make_study(CAPTIONS, shown, kind="pairs")
    met = Counter((t.item, frozenset(t.sources)) for t in study.order("ada"))
    assert len(met) == 4 * 3 and set(met.values()) == {1}


def test_order_follows_seed_and_rater_and_numbers_of_trials_do_not():
    shown = pictures("a", "b", "c")
    study, again, other = (
        make_study(CAPTIONS, dict(sources), kind="pairs", seed=seed)
        for sources, seed in ((shown, 5), (reversed(shown.items()), 5), (shown, 6))
    )
    assert study.order("ada") == again.order("ada") != study.order("grace")
    assert study.order("ada") != other.order("ada")
    assert study.id == other.id and study.trials() == other.trials()
    by_number = {t.number: (t.item, frozenset(t.sources)) for t in study.trials()}
    for trial in other.order("grace"):
        assert by_number[trial.number] == (trial.item, frozenset(trial.sources))


def test_sides_are_balanced_and_left_does_not_tell_the_source():
    captions = [f"caption {i}" for i in range(40)]
    study = make_study(captions, pictures("a", "b", count=40), kind="pairs")
    assert Counter(t.sources for t in study.order("ada")) == {("a", "b"): 20, ("b", "a"): 20}


def test_id_changes_with_a_pixel_a_caption_a_source_and_the_kind():
    base = pictures("a", "b")
    brighter = {name: images.clone() for name, images in base.items()}
    brighter["b"][2, 0, 3, 3] = 1.0 if base["b"][2, 0, 3, 3] < 0.9 else 0.0
    ids = {
        make_study(CAPTIONS, base).id,
        make_study(CAPTIONS, brighter).id,
        make_study([*CAPTIONS[:3], "a pink heart"], base).id,
        make_study(CAPTIONS, {"a": base["a"], "c": base["b"]}).id,
        make_study(CAPTIONS, base, kind="pairs").id,
    }
    assert len(ids) == 5
    shown_by_mistake = repr(make_study(CAPTIONS, pictures("secret-model", "real")))
    assert "secret" not in shown_by_mistake


@pytest.mark.parametrize(
    ("captions", "shown", "kind", "message"),
    [
        (CAPTIONS, {}, "ratings", "none"),
        ([], pictures("a", count=0), "ratings", "none"),
        (CAPTIONS, pictures("a"), "pairs", "two sources"),
        (CAPTIONS, pictures("a"), "stars", "'stars'"),
        (CAPTIONS, pictures("a", count=3), "ratings", "a: 3 pictures for 4 captions"),
        ([*CAPTIONS[:3], " "], pictures("a"), "ratings", "caption is empty"),
        (CAPTIONS, pictures("a") | pictures("b", size=16), "pairs", "different sizes"),
        (CAPTIONS, {"a": torch.full((4, 3, 8, 8), 255.0)}, "ratings", "pictures of a .* to 255"),
    ],
)
def test_what_cannot_be_shown_is_an_error(captions, shown, kind, message):
    with pytest.raises(ValueError, match=message):
        make_study(captions, shown, kind=kind)


# The file of answers: nothing given is lost, and nothing broken is passed over

RATING = Answer(
    "abc", "ada", 3, 1, ("baseline",), {"quality": 2, "fit": 4}, 1.5, "2026-01-31T12:00:00+00:00"
)
CHOICE = replace(RATING, sources=("real", "baseline"), scores={"choice": 0})


def numbered(*trials, **changes):
    return [replace(RATING, trial=trial, **changes) for trial in trials]


def test_answers_come_back_as_they_were_given(tmp_path):
    path = tmp_path / "new folder" / "answers.jsonl"
    with pytest.raises(FileNotFoundError, match="answers.jsonl"):
        read_answers(path)
    with pytest.raises(ValueError, match="simulated"):
        append_answer(path, replace(RATING, time=SIMULATED))
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
from t2i_course.user_study import Answer, append_answer
scores = dict(quality=1, fit=5)
for trial in range(3):
    append_answer({str(path)!r}, Answer("abc", "ada", trial, 0, ("a",), scores, 0.1, "now"))
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == -9
    assert [answer.trial for answer in read_answers(path)] == [0, 1, 2]


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
    with pytest.warns(UserWarning, match=f"removed a line cut short: {re.escape(half.decode())}"):
        append_answer(path, third)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_answers(path) == [first, third]


@pytest.mark.parametrize("line", [b"{oops}", b"\xff\xfe", b"", b"[1, 2]", b'{"rater": "ada"}'])
def test_a_broken_line_in_the_middle_is_an_error_with_its_number(tmp_path, line):
    path = tmp_path / "answers.jsonl"
    for answer in numbered(1, 2):
        append_answer(path, answer)
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + line + b"\n" + second)
    with pytest.raises(ValueError, match="answers.jsonl, line 2 is no answer .*mend or delete"):
        read_answers(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": {"quality": 6, "fit": 1}}, "quality is one of"),
        ({"scores": {"quality": 1, "fit": True}}, "fit is one of"),
        ({"scores": {"quality": 1}}, "quality and fit"),
        ({"sources": ["a", "b"]}, "choice"),
        ({"sources": ["a", "b"], "scores": {"choice": 2}}, "choice is one of"),
        ({"sources": "a"}, "one or two names"),
    ],
)
def test_an_answer_out_of_range_is_an_error_with_its_line(tmp_path, changes, message):
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps(asdict(RATING) | changes) + "\n")
    with pytest.raises(ValueError, match=f"line 1 .*{message}"):
        read_answers(path)


def test_the_same_trial_twice_by_one_rater_is_an_error_that_names_both_lines(tmp_path):
    path = tmp_path / "answers.jsonl"
    for answer in [*numbered(1, 2), *numbered(1, rater="grace"), *numbered(1)]:
        append_answer(path, answer)
    with pytest.raises(ValueError, match="lines 1 and 4 .* 'ada'"):
        read_answers(path)


# The form, the kernel's half of it

MARKED = ["a <b>red</b> circle & $x$", "two blue stars", "a cross above a heart"]


@pytest.fixture
def two_sources():
    generator = torch.Generator().manual_seed(0)
    draw = lambda: torch.rand(3, 3, 8, 8, generator=generator) * 2 - 1  # noqa: E731
    return {"secret-model": draw(), "real-photos": draw()}


@pytest.fixture
def study(two_sources):
    return make_study(MARKED, two_sources)


@pytest.fixture
def pairs(two_sources):
    return make_study(MARKED, two_sources, kind="pairs")


def inside(widget):
    """All widgets of a form."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from inside(child)


def texts(form):
    return [w.value for w in inside(form) if isinstance(w, widgets.HTML)]


def press(form, label):
    (button,) = [
        w for w in inside(form) if isinstance(w, widgets.Button) and w.description == label
    ]
    button.click()


def answer(form, **scores):
    for question, score in scores.items():
        form.buttons[question, score].click()
    press(form, "Next")


def chosen(form):
    return {key for key, button in form.buttons.items() if button.button_style == "info"}


def progress(form):
    (text,) = [text for text in texts(form) if " of " in text and "rated by" in text]
    return text.partition(",")[0]


def test_a_rater_answers_everything_and_each_answer_is_in_the_file_at_once(study, tmp_path):
    path = tmp_path / "answers.jsonl"
    form = RatingForm(study, path)
    press(form, "Begin")
    assert any("enter a name" in text for text in texts(form))
    next(w for w in inside(form) if isinstance(w, widgets.Text)).value = " Ada  Lovelace "
    press(form, "Begin")
    assert not any("enter a name" in text for text in texts(form))
    for done, trial in enumerate(study.order("ada lovelace")):
        assert progress(form) == f"{done + 1} of 6"
        assert html.escape(MARKED[trial.item]) in texts(form)  # plain text
        answer(form, quality=1 + done % 5, fit=5 - done % 5)
        saved = read_answers(path)[-1]
        assert len(read_answers(path)) == done + 1
        assert (saved.trial, saved.item) == (trial.number, trial.item)
        assert saved.sources == trial.sources
        assert saved.scores == {"quality": 1 + done % 5, "fit": 5 - done % 5}
        assert saved.rater == "ada lovelace" and saved.study == study.id
    assert any(text.startswith("Thank you. All 6") for text in texts(form))


@pytest.mark.parametrize("kind", ["ratings", "pairs"])
def test_no_name_of_a_source_leaves_the_kernel_before_the_end(two_sources, tmp_path, kind):
    widgets.Widget.close_all()  # those of other tests
    study = make_study(MARKED, two_sources, kind=kind)
    form = RatingForm(study, tmp_path / "answers.jsonl", rater="ada")
    scores = {"choice": 1} if kind == "pairs" else {"quality": 3, "fit": 3}

    def sent():  # what the page can see: the whole state of every widget of the kernel
        return json.dumps(widgets.Widget.get_manager_state(drop_defaults=False))

    for _ in study.trials():
        assert not any(name in sent() for name in two_sources)
        answer(form, **scores)
    assert all(name in sent() for name in two_sources)
    form.close()


def test_the_shown_picture_is_the_trials_enlarged_pixel_for_pixel(pairs, tmp_path):
    form = RatingForm(pairs, tmp_path / "answers.jsonl", rater="ada")
    trial = pairs.order("ada")[0]
    for widget, source in zip(form.pictures, trial.sources, strict=True):
        shown = np.asarray(Image.open(io.BytesIO(bytes(widget.value))))
        assert shown.shape == (256, 256, 3)
        np.testing.assert_array_equal(shown[::32, ::32], pairs.pictures[source][trial.item])
        np.testing.assert_array_equal(shown[31::32, 31::32], shown[::32, ::32])


def test_next_waits_for_all_questions_and_a_double_click_answers_once(study, tmp_path):
    path = tmp_path / "answers.jsonl"
    form = RatingForm(study, path, rater="ada")
    assert form.next_button.disabled
    press(form, "Next")
    form.buttons["quality", 1].click()
    form.buttons["quality", 4].click()  # a change of mind
    assert form.next_button.disabled
    form.buttons["fit", 2].click()
    assert chosen(form) == {("quality", 4), ("fit", 2)}
    assert not form.next_button.disabled and not path.exists()
    press(form, "Next")
    press(form, "Next")
    assert [a.scores for a in read_answers(path)] == [{"quality": 4, "fit": 2}]
    assert not chosen(form) and form.next_button.disabled


def test_the_same_name_goes_on_where_it_stopped(study, tmp_path):
    path = tmp_path / "answers.jsonl"
    form = RatingForm(study, path, rater="Ada")
    for _ in range(2):
        answer(form, quality=1, fit=1)
    RatingForm(study, path, rater="grace")  # another rater begins at the beginning
    resumed = RatingForm(study, path, rater="ada ")
    assert progress(resumed) == "3 of 6"
    assert any(text.startswith("Welcome back. 2 of 6") for text in texts(resumed))
    assert resumed.trials == study.order("ada")[2:]
    assert progress(RatingForm(study, path, rater="grace")) == "1 of 6"


def test_who_has_finished_is_thanked_and_not_asked_again(pairs, tmp_path):
    path = tmp_path / "answers.jsonl"
    form = RatingForm(pairs, path, rater="ada")
    for trial in pairs.order("ada"):
        answer(form, choice=trial.sources.index("secret-model"))
    again = RatingForm(pairs, path, rater="ada")
    assert "secret-model: you chose it 3 of 3 times." in texts(again)
    assert "real-photos: you chose it 0 of 3 times." in texts(again)
    assert not any(isinstance(w, widgets.Button) for w in inside(again))


def test_the_same_form_open_twice_writes_no_trial_twice(study, tmp_path):
    path = tmp_path / "answers.jsonl"
    first, second = (RatingForm(study, path, rater="ada") for _ in range(2))
    for _ in range(3):
        answer(first, quality=5, fit=5)
    answer(second, quality=1, fit=1)
    assert [a.scores["quality"] for a in read_answers(path)] == [5, 5, 5]
    assert progress(second) == "4 of 6"


def test_an_answer_cut_short_is_reported_and_asked_again(study, tmp_path):
    path = tmp_path / "answers.jsonl"
    form = RatingForm(study, path, rater="ada")
    for _ in range(2):
        answer(form, quality=1, fit=1)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.warns(UserWarning, match="cut short"):
        resumed = RatingForm(study, path, rater="ada")
        assert progress(resumed) == "2 of 6"
        answer(resumed, quality=2, fit=2)
    assert [a.scores["fit"] for a in read_answers(path)] == [1, 2]


def test_unreadable_and_foreign_files_are_refused_before_the_first_picture(study, pairs, tmp_path):
    broken = tmp_path / "broken.jsonl"
    broken.write_text("no answers\n")
    with pytest.raises(ValueError, match="broken.jsonl, line 1"):
        RatingForm(study, broken)
    path = tmp_path / "answers.jsonl"
    answer(RatingForm(study, path, rater="ada"), quality=1, fit=1)
    with pytest.raises(ValueError, match="another study"):
        RatingForm(pairs, path)


def test_an_answer_that_cannot_be_saved_is_told_and_kept_on_the_page(study, tmp_path):
    path = tmp_path / "answers.jsonl"
    form = RatingForm(study, path, rater="ada")
    path.mkdir()  # writing fails on every system
    answer(form, quality=4, fit=2)
    assert any("could not be saved" in text for text in texts(form))
    assert progress(form) == "1 of 6" and chosen(form) == {("quality", 4), ("fit", 2)}
    path.rmdir()
    press(form, "Next")
    assert read_answers(path)[0].scores == {"quality": 4, "fit": 2}
    assert progress(form) == "2 of 6"


def test_a_file_that_lost_answers_is_not_thanked_for(pairs, tmp_path):
    path = tmp_path / "answers.jsonl"
    form = RatingForm(pairs, path, rater="ada")
    for done in range(3):
        if done == 2:
            path.unlink()
        answer(form, choice=0)
    assert any("has lost answers" in text for text in texts(form))
