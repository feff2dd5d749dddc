"""A user study: people rate pictures, or choose between two, without knowing whose they are.

    study = make_study(captions, {"baseline": drawn, "real": photos}, kind="ratings", seed=0)
    RatingForm(study, "answers.jsonl")  # the last line of a cell: the form appears below it
    answers = read_answers("answers.jsonl")  # for `rating_statistics`

The form is blind: it sends pictures, captions and buttons to the page, and the models' names only
when the rater has finished. (A cell that spells the names out shows them, of course: let raters
open a notebook that loads the study.) Trials come in an order of their own for each rater; of two
pictures, a random half of the trials swaps left and right. Every answer is a line of JSON that is
on the disk before the next picture is shown; the same name, entered again after any interruption,
goes on with the first trial not yet answered.
"""

from __future__ import annotations

import datetime
import hashlib
import html
import io
import itertools
import json
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import ipywidgets as widgets
import numpy as np
from PIL import Image
from torch import Tensor

from t2i_course.metrics.picture_features import check_pictures

KINDS = ("ratings", "pairs")
QUESTIONS = ("quality", "fit")
POINTS = (1, 5)  # lowest and highest rating
SIMULATED = "simulated"
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


# The study


@dataclass(frozen=True)
class Trial:
    """What is shown at once: a picture of a caption, or two, by their sources, left one first."""

    number: int
    item: int
    sources: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Study:
    """Captions, and a picture of each from every source; see `make_study`."""

    id: str  # short hash of the kind, the captions, the sources and every pixel
    kind: str
    seed: int
    captions: tuple[str, ...] = field(repr=False)
    # uint8 [N, H, W, 3] of each source; not in `repr`, so that no cell shows the names
    pictures: Mapping[str, np.ndarray] = field(repr=False)

    def trials(self) -> list[Trial]:
        """List the trials by number: each caption with each source, or each pair of sources."""
        shown = itertools.combinations(self.pictures, 1 if self.kind == "ratings" else 2)
        pairs = itertools.product(range(len(self.captions)), list(shown))
        return [Trial(number, item, sources) for number, (item, sources) in enumerate(pairs)]

    def order(self, rater: str) -> list[Trial]:
        """Shuffle the trials for a rater; of two pictures, half of the trials swap the sides."""
        rng = np.random.default_rng([self.seed, *hashlib.sha256(rater.encode()).digest()])
        trials = self.trials()
        swapped = rng.permutation(len(trials)) % 2
        shown = [
            Trial(trial.number, trial.item, trial.sources[:: -1 if swap else 1])
            for trial, swap in zip(trials, swapped, strict=True)
        ]
        return [shown[index] for index in rng.permutation(len(trials))]


def make_study(
    captions: Sequence[str],
    pictures: Mapping[str, Tensor | np.ndarray],
    kind: str = "ratings",
    seed: int = 0,
) -> Study:
    """Put a study of N captions together.

    Each source, a model's name or "real", has N pictures in the captions' order: [N, 3, H, W],
    floats in [-1, 1] or uint8, of one size for all sources. The kind is "ratings", of quality and
    fit from 1 to 5, one picture at a time; or "pairs", the choice between two sources' pictures of
    a caption, every two sources for every caption.

    Raises:
        ValueError: there are no pictures, lengths or sizes differ, or values are out of range.
    """
    captions = tuple(captions)
    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}, not {kind!r}")
    if not captions or not pictures:
        raise ValueError("a study needs captions and pictures of them, and there are none")
    if any(not isinstance(text, str) or not text.strip() for text in captions):
        raise ValueError("a caption is empty, or not a text")
    if kind == "pairs" and len(pictures) < 2:
        raise ValueError(f"pairs need two sources of pictures, not {len(pictures)}")
    pixels = {name: _pixels(name, pictures[name], len(captions)) for name in sorted(pictures)}
    if len({array.shape for array in pixels.values()}) > 1:
        sizes = ", ".join(f"{name} {array.shape[1:3]}" for name, array in pixels.items())
        raise ValueError(f"pictures of different sizes would give the sources away: {sizes}")
    shape = next(iter(pixels.values())).shape
    digest = hashlib.sha256(json.dumps([kind, captions, list(pixels), shape]).encode())
    for array in pixels.values():
        digest.update(array.tobytes())
    return Study(digest.hexdigest()[:12], kind, seed, captions, pixels)


def _pixels(name: str, images: Tensor | np.ndarray, count: int) -> np.ndarray:
    """Turn a source's pictures into uint8 [N, H, W, 3], or say what is wrong with them."""
    if len(images) != count:
        raise ValueError(f"{name}: {len(images)} pictures for {count} captions")
    pixels = check_pictures(images, name=f"pictures of {name}")
    return np.ascontiguousarray(np.moveaxis(pixels, 1, -1))


# Answers


@dataclass(frozen=True)
class Answer:
    """One rater's answer to one trial; ValueError if its scores are none that the form writes."""

    study: str  # the study's id; it changes when a picture, caption or source does
    rater: str  # the name that the rater gave
    trial: int  # number of the trial in the study, the same for all raters
    item: int  # number of the caption
    sources: tuple[str, ...]  # of the picture shown; or of the two, the left one first
    # {"quality": 1 to 5, "fit": 1 to 5}; for two pictures {"choice": 0}, the left one, or 1
    scores: dict[str, int]
    seconds: float  # from the showing of the trial to the answer
    time: str  # of the answer, in ISO 8601; "simulated" if nobody gave it

    def __post_init__(self) -> None:
        """Refuse what no form would have written."""
        if not isinstance(self.sources, (list, tuple)) or len(self.sources) not in (1, 2):
            raise ValueError(f"sources are one or two names, not {self.sources!r}")
        object.__setattr__(self, "sources", tuple(self.sources))  # JSON gives lists
        questions = QUESTIONS if len(self.sources) == 1 else ("choice",)
        if not isinstance(self.scores, dict) or set(self.scores) != set(questions):
            raise ValueError(f"scores are for {' and '.join(questions)}, not {self.scores!r}")
        for question, score in self.scores.items():
            allowed = list(SCORES[question].values())
            if type(score) is not int or score not in allowed:
                raise ValueError(f"{question} is one of {allowed}, not {score!r}")


def append_answer(path: str | Path, answer: Answer) -> None:
    """Write an answer to the end of a file and wait until it is on the disk; none if simulated.

    A last line that was cut short, by a kernel that died or a full disk, is removed first, with a
    warning.
    """
    if answer.time == SIMULATED:
        raise ValueError("a simulated answer has no place in a file of people's answers")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        file.seek(0)
        content = file.read()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            removed = content[end:].decode(errors="replace")
            warnings.warn(f"{path.name}: removed a line cut short: {removed}", stacklevel=2)
            file.truncate(end)
        file.write(f"{json.dumps(asdict(answer), ensure_ascii=False, allow_nan=False)}\n".encode())
        file.flush()
        os.fsync(file.fileno())


def read_answers(path: str | Path) -> list[Answer]:
    """Read all answers of a file.

    A last line without its end was cut short when it was written: a warning says so, and it does
    not count; the form asks for it again.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not an answer, or a rater has answered a trial twice.
    """
    path, answers, first_line = Path(path), [], {}
    if not path.is_file():
        raise FileNotFoundError(f"no answers at {path}: the form writes them as they are given")
    *lines, rest = path.read_bytes().split(b"\n")
    if rest:
        warnings.warn(
            f"{path.name}: line {len(lines) + 1}, the last, was cut short and does not count",
            stacklevel=2,
        )
    for number, line in enumerate(lines, start=1):
        try:
            answers.append(answer := Answer(**json.loads(line)))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{path.name}, line {number} is no answer ({error}): mend or delete the line"
            ) from error
        key = (answer.study, answer.rater, answer.trial)
        if key in first_line:
            raise ValueError(
                f"{path.name}: lines {first_line[key]} and {number} are answers of the same rater, "
                f"{answer.rater!r}, to the same trial. If they are two people, rename one of them "
                "in the file; if not, delete one of the lines"
            )
        first_line[key] = number
    return answers


# The form


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

        self._answers()  # an unreadable file is reported now, not after the first answer
        if rater is not None:
            self._begin(rater)
            return
        # Sent when the field is left, not letter by letter, for the same reason as above
        name = widgets.Text(placeholder="your name or a pseudonym", continuous_update=False)
        begin = _button("Begin", lambda: self._begin(name.value))
        self.children = [_text(RULES), widgets.HBox([name, begin]), self.notice]

    def _answers(self) -> list[Answer]:
        """Read the file; it must be this study's."""
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
            self._notify("Please enter a name. A pseudonym will do.")
            return
        self._notify("")
        try:
            answered = {answer.trial for answer in self._answers() if answer.rater == self.rater}
        except (OSError, ValueError) as error:
            self._notify(str(error))
            return
        order = self.study.order(self.rater)
        self.total = len(order)
        self.trials = [trial for trial in order if trial.number not in answered]
        if answered and self.trials:
            self._notify(f"Welcome back. {len(answered)} of {self.total} are answered already.")
        self._show()
        if not self.trials:
            return
        rows = [self.progress, self.caption, widgets.HBox(self.pictures)]
        for question in self.questions:
            buttons = [self.buttons[question, score] for score in SCORES[question].values()]
            rows += [_text(ASKED[question]), widgets.HBox(buttons)]
            rows[-1].add_class(f"study-{question}")
        self.children = [*rows, self.next_button, self.notice]  # later trials change the parts only

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
            self._notify(f"This answer could not be saved: {error}. Mend it, then press Next again")
            return
        self._notify("")
        self.trials = [trial for trial in self.trials[1:] if trial.number not in seen]
        self._show()

    def _end(self) -> list[str]:
        """Thank the rater, and say whose pictures they were."""
        own = [answer for answer in self._answers() if answer.rater == self.rater]
        if len(own) < self.total:
            return [f"{self.path.name} has lost answers meanwhile: run the cell again to go on."]
        lines = [f"Thank you. All {self.total} are answered, and saved in {self.path.name}."]
        for source in self.study.pictures:
            shown = [answer for answer in own if source in answer.sources]
            if self.study.kind == "ratings":
                quality, fit = (np.mean([a.scores[q] for a in shown]) for q in QUESTIONS)
                lines.append(f"{source}: you gave {quality:.1f} for quality, {fit:.1f} for fit.")
            else:
                won = sum(answer.sources[answer.scores["choice"]] == source for answer in shown)
                lines.append(f"{source}: you chose it {won} of {len(shown)} times.")
        return lines

    def _notify(self, message: str) -> None:
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
