"""The form, clicked without a page: the kernel's half of it."""

import io
import json
from dataclasses import replace

import ipywidgets as widgets
import numpy as np
import pytest
import torch
from PIL import Image

from t2i_course.answers import append_answer, read_answers
from t2i_course.rating_form import RatingForm
from t2i_course.user_study import make_study

CAPTIONS = ["a <b>red</b> circle & $x$", "two blue stars", "a cross above a heart"]


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(0)
    draw = lambda: torch.rand(3, 3, 8, 8, generator=generator) * 2 - 1  # noqa: E731
    return {"secret-model": draw(), "real-photos": draw()}


@pytest.fixture
def study(pictures):
    return make_study(CAPTIONS, pictures)


@pytest.fixture
def pairs(pictures):
    return make_study(CAPTIONS, pictures, kind="pairs")


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
    next(w for w in inside(form) if isinstance(w, widgets.Text)).value = " Ada  Lovelace "
    press(form, "Begin")
    for done, trial in enumerate(study.order("ada lovelace")):
        assert progress(form) == f"{done + 1} of 6"
        answer(form, quality=1 + done % 5, fit=5 - done % 5)
        saved = read_answers(path)[-1]
        assert len(read_answers(path)) == done + 1
        assert (saved.trial, saved.item, saved.sources) == (
            trial.number,
            trial.item,
            trial.sources,
        )
        assert saved.scores == {"quality": 1 + done % 5, "fit": 5 - done % 5}
        assert saved.rater == "ada lovelace" and saved.study == study.id
    assert any(text.startswith("Thank you. All 6") for text in texts(form))


@pytest.mark.parametrize("kind", ["ratings", "pairs"])
def test_no_name_of_a_source_leaves_the_kernel_before_the_end(pictures, tmp_path, kind):
    widgets.Widget.close_all()  # those of other tests
    study = make_study(CAPTIONS, pictures, kind=kind)
    form = RatingForm(study, tmp_path / "answers.jsonl", rater="ada")
    scores = {"choice": 1} if kind == "pairs" else {"quality": 3, "fit": 3}

    def sent():  # what the page can see: the whole state of every widget of the kernel
        return json.dumps(widgets.Widget.get_manager_state(drop_defaults=False))

    for _ in study.trials():
        assert not any(name in sent() for name in pictures)
        answer(form, **scores)
    assert all(name in sent() for name in pictures)
    form.close()


def test_the_shown_picture_is_the_trials_enlarged_pixel_for_pixel(pairs, tmp_path):
    form = RatingForm(pairs, tmp_path / "answers.jsonl", rater="ada")
    trial = pairs.order("ada")[0]
    for widget, source in zip(form.pictures, trial.sources, strict=True):
        shown = np.asarray(Image.open(io.BytesIO(bytes(widget.value))))
        assert shown.shape == (256, 256, 3)
        np.testing.assert_array_equal(shown[::32, ::32], pairs.pictures[source][trial.item])
        np.testing.assert_array_equal(shown[31::32, 31::32], shown[::32, ::32])


def test_captions_are_plain_text(study, tmp_path):
    form = RatingForm(study, tmp_path / "answers.jsonl", rater="ada")
    while form.trials[0].item != 0:
        answer(form, quality=1, fit=1)
    assert "a &lt;b&gt;red&lt;/b&gt; circle &amp; $x$" in texts(form)


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
    resumed = RatingForm(study, path)
    assert any("cut short" in text for text in texts(resumed))
    next(w for w in inside(resumed) if isinstance(w, widgets.Text)).value = "ada"
    press(resumed, "Begin")
    assert progress(resumed) == "2 of 6"
    answer(resumed, quality=2, fit=2)
    assert [a.scores["fit"] for a in read_answers(path)] == [1, 2]


def test_an_empty_name_is_asked_again(study, tmp_path):
    form = RatingForm(study, tmp_path / "answers.jsonl")
    press(form, "Begin")
    assert any("enter a name" in text for text in texts(form))


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


def test_answers_of_others_in_the_same_file_stay(study, tmp_path):
    path = tmp_path / "answers.jsonl"
    form = RatingForm(study, path, rater="ada")
    answer(form, quality=1, fit=1)
    (given,) = read_answers(path)
    append_answer(path, replace(given, rater="grace"))
    answer(form, quality=2, fit=2)
    assert [a.rater for a in read_answers(path)] == ["ada", "grace", "ada"]
