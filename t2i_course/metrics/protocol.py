"""The evaluation protocol, in one place: for the command line, for training, for notebooks.

    held = open_held_out("scenes", "val")
    instruments = load_instruments(held)
    found = evaluate(judged, held, instruments)       # judged: see `judged_pictures`
    print(found)

What it holds to, and a thesis that quotes its numbers has to state:
- One picture a caption, rounded to 8 bits; captions chosen by `choose_captions`, noise by its seed.
- Distances, precision and recall to the real pictures of the same split; where these are fewer than
  a covariance needs, to the training pictures, and the row says so.
- Beside the judged pictures, real ones: for distances as many others (`other_real`), which says
  how near one can come at this N; for captions the split's own, with the same captions.
- On photos the result says which split that is, and how far a FID is from those of papers.
- Beside the fit to the captions, the fit to captions of others (`derangement`): chance.
- Intervals at 95 %: bootstrap, jackknife or Wilson's; see `t2i_course.evaluation`. Its seed is 0.

FD-scenes is the Frechet distance on the features of the course's own network, and never FID.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from t2i_course.evaluation import (
    Estimate,
    cached_features,
    extract_features,
    frechet,
    kernel_distance,
    precision_recall,
    retrieval,
)
from t2i_course.fid import InceptionFeatures
from t2i_course.metrics.clip_score import clip_score
from t2i_course.metrics.evaluation_result import REAL, SHUFFLED, Evaluation, Measure
from t2i_course.metrics.held_out import HeldOut, other_real, reference
from t2i_course.metrics.instruments import Instruments, matched_text
from t2i_course.metrics.judged_pictures import JudgedPictures
from t2i_course.metrics.picture_features import Extractor, cached_arrays
from t2i_course.photos.shards import find_data
from t2i_course.scenes import accuracy as scene_accuracy
from t2i_course.scenes import oracle

CANDIDATES = 100  # captions among which a picture looks for its own
NEIGHBOUR = 3  # k of precision and recall
WIDE = 512  # features from which a bootstrap of the Frechet distance takes seconds a time
WIDE_REPEATS = 20
PAPERS_SAMPLES, PAPERS_SPLIT = 30_000, "val2014"  # of a FID on COCO


def evaluate(
    judged: JudgedPictures,
    held: HeldOut,
    instruments: Instruments,
    references: bool = True,
    repeats: int = 200,
    progress: bool = False,
) -> Evaluation:
    """Measure pictures by the protocol.

    Args:
        judged: N pictures, one a caption.
        held: the data whose captions they show.
        instruments: that measure.
        references: measure real pictures and shuffled captions, too.
        repeats: of the bootstrap; with Inception's features, 20 at most.
        progress: show bars.

    Raises:
        ValueError: too few pictures for a FID that is asked for, or for anything at all; pictures
            that a network cannot read; a matcher whose text encoder is another now.
    """
    if judged.name in (REAL, SHUFFLED):  # a folder may be called so
        judged = replace(judged, name=f"{judged.name} (judged)")
    run = _Run(judged, held, instruments, references, repeats, progress)
    if instruments.inception is not None:
        check_samples(len(judged.images), held, instruments.inception.width)
    measures: list[Measure] = []
    left_out: list[str] = []
    notes: list[str] = []
    for part in (_distances, _scene_accuracy, _retrieval, _clip_score):
        for found in part(run):
            if isinstance(found, Measure):
                measures.append(found)
            elif isinstance(found, _Note):
                notes.append(found.text)
            else:
                left_out.append(found)
    if not measures:
        raise ValueError(f"nothing could be measured: {'; '.join(left_out)}")
    return Evaluation(
        judged.name, held.data, held.split, len(judged.images), judged.seeds,
        tuple(measures), tuple(left_out), tuple(notes),
    )  # fmt: skip


def check_samples(samples: int, held: HeldOut, width: int = InceptionFeatures.width) -> None:
    """Raise ValueError unless N drawn pictures, and the real ones, are enough for a FID.

    Args:
        samples: N.
        held: the data.
        width: number of Inception's features.
    """
    real = len(reference(held, width)[1])
    if min(samples, real) <= width:
        raise ValueError(
            f"{samples} drawn and {real} real pictures: FID needs more than {width} of each. "
            "Choose more (--samples), or leave FID out."
        )


@dataclass(frozen=True)
class _Note:
    """A line for the reader of the result."""

    text: str


@dataclass(frozen=True)
class _Run:
    """The arguments of `evaluate`."""

    judged: JudgedPictures
    held: HeldOut
    instruments: Instruments
    references: bool
    repeats: int
    progress: bool

    def own_real(self, rows: np.ndarray) -> np.ndarray:
        """Real pictures [N, 3, S, S] of the captions in these rows."""
        return self.held.packed.images[self.held.images_of(rows)]

    def real_key(self, rows: np.ndarray, reader: str) -> str:
        """Name what a reader makes of them, in the cache."""
        digest = hashlib.sha256(np.asarray(rows, dtype=np.int64).tobytes()).hexdigest()[:16]
        return f"{self.held.packed.key}, captions {digest}, {reader}"


def _distances(run: _Run) -> Iterator[Measure | _Note | str]:
    """Frechet distance, kernel distance, precision and recall, for each extractor."""
    extractors = run.instruments.extractor, run.instruments.inception
    if extractors == (None, None):
        yield "distances, precision and recall: no extractor was given for these data"
        return
    for extractor in filter(None, extractors):
        frechet_name, kernel_name, suffix = _distance_names(run, extractor)
        key, images, split = reference(run.held, extractor.width, run.progress)
        real = _real_features(run, extractor, key, images)
        against = f"to {len(real):,} real pictures of {split}"
        sets = {run.judged.name: run.judged.images}
        if run.references:
            count = len(run.judged.images)
            other_key, sets[REAL], others = other_real(run.held, count, split, run.progress)
        if run.held.facts is None:
            yield from _reference_notes(run, frechet_name, len(real), split)
            if run.references:
                yield _Note(f"{frechet_name}, column {REAL}: {others}")
        repeats = min(run.repeats, WIDE_REPEATS) if extractor.width > WIDE else run.repeats
        reader = f"{extractor.name} ({extractor.fingerprint})"
        for name, pictures in sets.items():
            start = time.perf_counter()
            features = (
                _real_features(run, extractor, other_key, pictures)
                if name == REAL
                else extract_features(extractor, pictures, progress=run.progress)
            )
            values: dict[str, tuple[Estimate, str]] = {}
            few = min(len(real), len(features))
            if few > extractor.width:
                value = frechet(real, features, repeats)
                values[frechet_name] = value, f"{frechet_name}, squared Frechet distance {against}"
            else:
                yield (
                    f"{frechet_name}, {name}: {len(features)} pictures and {len(real)} real ones, "
                    f"more than {extractor.width} of each are needed"
                )
            if few >= 3:
                value = kernel_distance(real, features)
                values[kernel_name] = value, f"{kernel_name}, squared, cubic kernel, {against}"
            if few >= 2 * NEIGHBOUR + 2:
                both = precision_recall(real, features, NEIGHBOUR, run.repeats)
                words = f"k = {NEIGHBOUR}, against {against[3:]}"
                values[f"precision{suffix}"] = both.precision, f"precision, {words}"
                values[f"recall{suffix}"] = both.recall, f"recall, {words}"
            seconds = time.perf_counter() - start
            for metric, (value, what) in values.items():
                what += f"; of {others}" if name == REAL else ""
                share = metric.startswith(("precision", "recall"))
                yield Measure(
                    name, metric, value, what, reader, run.held.split, seconds, share
                )  # fmt: skip


def _reference_notes(run: _Run, metric: str, real: int, split: str) -> Iterator[_Note]:
    """Say which photos the distances are to, and what a FID of so many samples is worth."""
    held, name = run.held, find_data(run.held.folder, split).name
    where = split if split == name else f"{split} ({name})"
    why = ""
    if split != held.split:
        why = f", as {len(held.image_rows):,} of {held.split} are too few for it"
    yield _Note(
        f"{metric} to {real:,} real pictures of {where}{why}; all at {held.packed.size} pixels"
    )
    samples = len(run.judged.images)
    if metric == "FID" and (samples < PAPERS_SAMPLES or name != PAPERS_SPLIT):
        yield _Note(
            f"FID of N={samples:,} samples; papers use {PAPERS_SAMPLES:,} of {PAPERS_SPLIT}: not "
            "comparable"
        )


def _distance_names(run: _Run, extractor: Extractor) -> tuple[str, str, str]:
    """What the two distances are called, and what follows on "precision" and "recall"."""
    if extractor is run.instruments.inception:
        short = f"Inception-v3 {extractor.fingerprint[:8]}"
        kernel = "KID" if extractor.published else f"kernel distance, {short}"
        return extractor.metric, kernel, f", {short}"
    return "Frechet distance" if run.held.facts is None else "FD-scenes", "kernel distance", ""


def _real_features(run: _Run, extractor: Extractor, key: str, images: np.ndarray) -> np.ndarray:
    """Features [N, D] of real pictures, from the cache."""
    return cached_features(
        f"{key}, {len(images)} pictures, {extractor.fingerprint}",
        lambda: extract_features(extractor, images, progress=run.progress),
    )


def _scene_accuracy(run: _Run) -> Iterator[Measure | str]:
    """Share of pictures with all stated facts right, and its parts."""
    held, rows = run.held, run.judged.caption_rows
    if held.facts is None:
        yield f"scene accuracy: the captions of {held.data} come without facts, only scenes' do"
        return
    facts = [held.facts[row] for row in rows.tolist()]
    images = held.images_of(rows)
    subsets = [held.subsets[row] for row in images.tolist()]
    start = time.perf_counter()
    scenes = scene_accuracy.read_scenes(run.judged.images, run.progress)
    results = [(run.judged.name, scene_accuracy.check_scenes(scenes, facts), facts, subsets)]
    if run.references:
        reader = hashlib.sha256(Path(oracle.__file__).read_bytes()).hexdigest()[:16]
        real = cached_arrays(
            run.real_key(rows, f"verdicts of the oracle {reader}"),
            lambda: {"verdicts": scene_accuracy.judge(run.own_real(rows), facts, run.progress)},
        )["verdicts"]
        results.append((REAL, real, facts, subsets))
        others, reason = _others(images)
        if reason:
            yield f"shuffled captions, scene accuracy: {reason}"
        else:
            stated, kinds = [facts[k] for k in others], [subsets[k] for k in others]
            verdicts = scene_accuracy.check_scenes(scenes, stated)
            results.append((SHUFFLED, verdicts, stated, kinds))
    seconds = time.perf_counter() - start
    names = {name: split for split, name in scene_accuracy.SUBSETS.items()}
    for name, verdicts, stated, kinds in results:
        for part, share in scene_accuracy.accuracy(verdicts, stated, kinds).items():
            asked = f"{part} facts of the caption right in the picture, share"
            if part not in scene_accuracy.KINDS:
                asked = f"everything right that the caption states, share, {part}"
            yield Measure(
                name, f"scene accuracy: {part}", share, asked, "oracle",
                names.get(part, held.split), seconds, True,
            )  # fmt: skip


def _retrieval(run: _Run) -> Iterator[Measure | str]:
    """Does a picture find its caption among 100? One caption an image."""
    matcher, held = run.instruments.matcher, run.held
    if matcher is None:
        yield "retrieval: no caption matcher was given for these data"
        return
    first = np.sort(np.unique(held.images_of(run.judged.caption_rows), return_index=True)[1])
    rows = run.judged.caption_rows[first]
    if len(rows) < CANDIDATES:
        yield f"retrieval: {len(rows)} pictures of different images, {CANDIDATES} are needed"
        return
    start = time.perf_counter()
    text = matched_text(matcher, held.captions(rows), run.instruments.device, run.progress)
    drawn = matcher.embed_images(run.judged.images[first])
    sets = {run.judged.name: (drawn, text)}
    if run.references:
        real = cached_features(
            run.real_key(rows, f"matcher {matcher.fingerprint}"),
            lambda: matcher.embed_images(run.own_real(rows)),
        )
        others = scene_accuracy.derangement(range(len(rows)))
        sets |= {REAL: (real, text), SHUFFLED: (drawn, text[others])}
    for name, (pictures, captions) in sets.items():
        found = retrieval(pictures, captions, CANDIDATES)
        seconds = time.perf_counter() - start
        for metric, share in found.items():
            what = f"{metric}, share of pictures that find their caption among {CANDIDATES}"
            reader = f"{matcher.name} ({matcher.fingerprint})"
            yield Measure(name, metric, share, what, reader, held.split, seconds, True)


def _clip_score(run: _Run) -> Iterator[Measure | _Note | str]:
    """Mean CLIP score with the own captions, of real pictures, and with captions of others."""
    clip, held, rows = run.instruments.clip, run.held, run.judged.caption_rows
    if clip is None:
        return
    start = time.perf_counter()
    captions, images = held.captions(rows), held.images_of(rows)
    digest = hashlib.sha256("\0".join(captions).encode()).hexdigest()[:16]
    text = cached_features(
        f"captions {digest}, CLIP {clip.fingerprint}",
        lambda: clip.embed_captions(captions, progress=run.progress),
    )
    drawn = clip.embed_images(run.judged.images, progress=run.progress)
    sets = {run.judged.name: (drawn, text)}
    if run.references:
        different, place = np.unique(images, return_inverse=True)  # an image has several captions
        real = cached_features(
            run.real_key(different, f"each once, CLIP {clip.fingerprint}"),
            lambda: clip.embed_images(held.packed.images[different], progress=run.progress),
        )
        sets[REAL] = real[place], text
        others, reason = _others(images)
        if reason:
            yield f"shuffled captions, CLIP score: {reason}"
        else:
            sets[SHUFFLED] = drawn, text[others]
    found = {name: clip_score(*pair, run.repeats) for name, pair in sets.items()}
    seconds = time.perf_counter() - start
    what, reader = "CLIP score, mean of 100 max(cos, 0)", f"{clip.name} ({clip.fingerprint})"
    for name, score in found.items():
        yield Measure(name, "CLIP score", score, what, reader, held.split, seconds, False)
    if cut := clip.count_cut(captions):
        yield _Note(f"CLIP score: {cut:,} captions are cut at {clip.max_tokens} tokens")


def _others(images: np.ndarray) -> tuple[np.ndarray | None, str]:
    """Rows of captions of other images, or why there are none."""
    try:
        return scene_accuracy.derangement(images.tolist()), ""
    except ValueError as error:
        return None, str(error)
