"""The form of a user study, in a notebook: pictures, captions and buttons.

    RatingForm(study, "answers.jsonl")  # the last line of a cell: the form appears below it

The form is blind: it sends pictures, captions and buttons to the page, and the models' names only
when the rater has finished. (A cell that spells the names out shows them, of course: let raters
open a notebook that loads the study.) Every answer is on the disk before the next picture is shown.
The same name, entered again after any interruption, goes on with the first trial not yet answered.
"""

from __future__ import annotations

import datetime
import html
import io
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import ipywidgets as widgets
import numpy as np
from PIL import Image

from t2i_course.answers import (
    QUESTIONS,
    Answer,
    append_answer,
    cut_half_line,
    rating_table,
    read_answers,
    wins_tables,
)
from t2i_course.user_study import Study, Trial

SHOWN_SIZE = 256  # screen pixels of a picture's longer side, at least
RULES = (
    "You will see pictures with their captions. Each answer is saved at once and cannot be "
    "changed. You may stop at any time and go on later under the same name."
)
ASKED = {
    "quality": "How good is the picture, whatever it shows?",
    "fit": "Does it show what the caption says?",
    "choice": "Which picture is the better one for this caption?",
}
# The words for quality are those of ITU-T P.800 (1996); those for the fit are the course's own
SCORES = {
    "quality": {"1 bad": 1, "2 poor": 2, "3 fair": 3, "4 good": 4, "5 excellent": 5},
    "fit": {"1 not at all": 1, "2 a little": 2, "3 partly": 3, "4 mostly": 4, "5 fully": 5},
    "choice": {"left picture": 0, "right picture": 1},
}


class RatingForm(widgets.VBox):
    """The form: a widget, for that is how a notebook shows it.

    Its scores are plain buttons and not, say, ToggleButtons. Clicks reach the kernel in their
    order; but a widget holds back a change of its state while an earlier one is under way, and the
    click on Next would overtake a rater's change of mind.

    Args:
        study: what to show.
        path: file of the answers, made if missing. It may hold other raters' answers.
        rater: the rater's name or pseudonym; None asks for it on the page.

    Raises:
        ValueError: the file is not one of answers, or holds those of another study.
    """

    def __init__(self, study: Study, path: str | Path, rater: str | None = None) -> None:
        """Show the first page, or, if the rater is known, the first trial."""
        super().__init__()
        self.study, self.path = study, Path(path)
        self.questions = QUESTIONS if study.kind == "ratings" else ("choice",)
        self.trials: list[Trial] = []  # those not yet answered
        self.scores: dict[str, int] = {}  # given to the trial that is shown
        self.progress = _text("", "study-progress")
        self.caption = _text("", "study-caption", size="150%")
        self.pictures = [_image() for _ in range(1 if study.kind == "ratings" else 2)]
        self.buttons = {
            (question, score): _button(label, partial(self._choose, question, score))
            for question in self.questions
            for label, score in SCORES[question].items()
        }
        self.next_button = _button("Next", self._next)
        self.notice = _text("", "study-notice")

        self._answers()  # an unreadable file is told now, not after the first answer
        if rater is not None:
            self._begin(rater)
            return
        # Sent when the field is left, not letter by letter, for the same reason as above
        name = widgets.Text(placeholder="your name or a pseudonym", continuous_update=False)
        begin = _button("Begin", lambda: self._begin(name.value))
        self.children = [_text(RULES), widgets.HBox([name, begin]), self.notice]

    def _answers(self) -> list[Answer]:
        """Read the file; a line that was cut short is removed, and the rater is told."""
        if cut_half_line(self.path):
            self._tell("An answer was cut short while it was saved. It is asked again.")
        answers = read_answers(self.path) if self.path.exists() else []
        if any(answer.study != self.study.id for answer in answers):
            raise ValueError(
                f"{self.path.name} holds answers to another study (its pictures or captions "
                "differ): give this one a file of its own"
            )
        return answers

    def _begin(self, name: str) -> None:
        """Find where this rater stopped, and go on there."""
        self.rater = " ".join(name.split()).casefold()
        if not self.rater:
            self._tell("Please enter a name. A pseudonym will do.")
            return
        try:
            answered = {answer.trial for answer in self._answers() if answer.rater == self.rater}
        except (OSError, ValueError) as error:
            self._tell(str(error))
            return
        order = self.study.order(self.rater)
        self.total = len(order)
        self.trials = [trial for trial in order if trial.number not in answered]
        if answered and self.trials:
            self._tell(f"Welcome back. {len(answered)} of {self.total} are answered already.")
        self._show()
        if self.trials:
            self._lay_out()

    def _lay_out(self) -> None:
        """Put the page of a trial together; later trials change its parts only."""
        rows = []
        for question in self.questions:
            buttons = [self.buttons[question, score] for score in SCORES[question].values()]
            row = widgets.HBox(buttons)
            row.add_class(f"study-{question}")
            rows += [_text(ASKED[question]), row]
        pictures = widgets.HBox(self.pictures)
        heading = [self.progress, self.caption, pictures]
        self.children = [*heading, *rows, self.next_button, self.notice]

    def _show(self) -> None:
        """Show the first trial that is not yet answered, or the end."""
        if not self.trials:
            self.children = [*(_text(line, "study-end") for line in self._end()), self.notice]
            return
        trial = self.trials[0]
        done = self.total - len(self.trials)
        self.progress.value = html.escape(f"{done + 1} of {self.total}, rated by {self.rater}")
        self.caption.value = html.escape(self.study.captions[trial.item])
        for widget, source in zip(self.pictures, trial.sources, strict=True):
            widget.value = _enlarged(self.study.pictures[source][trial.item])
        self.scores = {}
        self._mark()
        self.shown_at = time.monotonic()

    def _choose(self, question: str, score: int) -> None:
        """Note the score of a question; another click changes it."""
        self.scores[question] = score
        self._mark()

    def _mark(self) -> None:
        """Mark the chosen buttons, and let the rater go on once every question has one."""
        for (question, score), button in self.buttons.items():
            button.button_style = "info" if self.scores.get(question) == score else ""
        self.next_button.disabled = len(self.scores) < len(self.questions)

    def _next(self) -> None:
        """Save the answer, then show the next trial."""
        if not self.trials or len(self.scores) < len(self.questions):  # half of a double click
            return
        trial = self.trials[0]
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        place = (self.study.id, self.rater, trial.number, trial.item, trial.sources)
        answer = Answer(*place, self.scores, round(time.monotonic() - self.shown_at, 2), now)
        try:
            seen = {other.trial for other in self._answers() if other.rater == self.rater}
            if trial.number not in seen:  # it is, when a rater has the form open twice
                append_answer(self.path, answer)
        except (OSError, ValueError) as error:
            self._tell(f"This answer could not be saved: {error}. Mend it, then press Next again.")
            return
        self._tell("")
        self.trials = [trial for trial in self.trials[1:] if trial.number not in seen]
        self._show()

    def _end(self) -> list[str]:
        """Thank the rater, and tell whose pictures they were."""
        own = [answer for answer in self._answers() if answer.rater == self.rater]
        if len(own) < self.total:
            return [f"{self.path.name} has lost answers meanwhile: run the cell again to go on."]
        lines = [f"Thank you. All {self.total} are answered, and saved in {self.path.name}."]
        if self.study.kind == "ratings":
            for source in self.study.pictures:
                quality, fit = (np.nanmean(rating_table(own, q, source)) for q in QUESTIONS)
                lines.append(f"{source}: you gave {quality:.1f} for quality, {fit:.1f} for fit.")
        else:
            sources, tables = wins_tables(own)
            wins = tables.sum(axis=0)
            for source, won, lost in zip(sources, wins.sum(1), wins.sum(0), strict=True):
                lines.append(f"{source}: you chose it {won} of {won + lost} times.")
        return lines

    def _tell(self, message: str) -> None:
        """Write a line below the form."""
        self.notice.value = html.escape(message)


def _text(text: str, name: str = "study-text", size: str = "100%") -> widgets.HTML:
    """Return a line of plain text; nothing in it is read as markup or mathematics."""
    widget = widgets.HTML(html.escape(text), style={"font_size": size})
    widget.add_class(name)
    return widget


def _button(text: str, action: Callable[[], None]) -> widgets.Button:
    """Return a button that does something."""
    wide = text.endswith("picture")  # as wide as the picture above it
    layout = widgets.Layout(
        width=f"{SHOWN_SIZE}px" if wide else "130px", margin="2px 16px 2px 0" if wide else "2px"
    )
    style = "primary" if text in ("Begin", "Next") else ""
    button = widgets.Button(description=text, button_style=style, layout=layout)
    button.on_click(lambda _: action())
    return button


def _image() -> widgets.Image:
    """Return a place for a picture."""
    image = widgets.Image(format="png", layout=widgets.Layout(margin="0 16px 0 0", flex="none"))
    image.add_class("study-picture")
    return image


def _enlarged(pixels: np.ndarray) -> bytes:
    """Enlarge a picture, uint8 [H, W, 3], without smoothing; return it as PNG."""
    height, width, _ = pixels.shape
    factor = max(1, -(-SHOWN_SIZE // max(height, width)))
    large = Image.fromarray(pixels).resize((width * factor, height * factor), Image.NEAREST)
    file = io.BytesIO()
    large.save(file, format="PNG")
    return file.getvalue()
