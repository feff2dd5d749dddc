"""The evaluation protocol, in one place: for the command line, for training, for notebooks.

    held = open_held_out("scenes", "val")
    networks = load_networks(held)
    found = evaluate(pictures, held, networks)        # pictures: see `metrics.held_out`
    print(found)                                      # a table
    report.add_rows("gan.json", found.rows("gan", command))

What it holds to, and a thesis that quotes its numbers has to state:
- One picture a caption, rounded to 8 bits; captions chosen by `choose_captions`, noise by its seed.
- Distances, precision and recall to the real pictures of the same split; where these are fewer than
  a covariance needs, to the training pictures, and the row says so.
- Beside the generated pictures, real ones: for distances as many others (`other_real`), which says
  how near one can come at this N; for captions the split's own, with the same captions.
- On photos the result says which split that is, and how far a FID is from those of papers.
- Beside the fit to the captions, the fit to captions of others (`derangement`): chance.
- Intervals at 95 %: bootstrap, jackknife or Wilson's; see `t2i_course.evaluation`. Its seed is 0.

FD-scenes is the Frechet distance on the features of the course's own network, and never FID.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from t2i_course import generation
from t2i_course.checkpoints import read_card
from t2i_course.evaluation import (
    Estimate,
    bootstrap_interval,
    frechet,
    kernel_distance,
    precision_recall,
    retrieval,
    wilson_interval,
)
from t2i_course.latent_space import SharedSpace
from t2i_course.metrics import caption_matcher, photo_features, scene_features
from t2i_course.metrics.caption_matcher import load_caption_matcher, matched_text
from t2i_course.metrics.clip_score import ClipNetwork, clip_score
from t2i_course.metrics.held_out import GeneratedPictures, HeldOut, other_real, reference
from t2i_course.metrics.inception import InceptionFeatures
from t2i_course.metrics.picture_features import Extractor, cached_features, extract_features
from t2i_course.metrics.scene_features import load_scene_features
from t2i_course.photos.coco_folder import find_data
from t2i_course.report import REAL, SHUFFLED, Evaluation, Measure
from t2i_course.scenes import accuracy as scene_accuracy
from t2i_course.scenes import authored_wordings
from t2i_course.text_encoder import TextEncoder

CANDIDATES = 100  # captions among which a picture looks for its own
NEIGHBOUR = 3  # k of precision and recall
WIDE = 512  # features from which a bootstrap of the Frechet distance takes seconds a time
WIDE_REPEATS = 20
PAPERS_SAMPLES, PAPERS_SPLIT = 30_000, "val2014"  # of a FID on COCO


# The networks that measure


@dataclass(frozen=True)
class MetricNetworks:
    """The networks that measure; None for those that do not."""

    extractor: Extractor | None = None  # features for distances, precision and recall
    matcher: SharedSpace | None = None  # for retrieval
    inception: InceptionFeatures | None = None  # features for FID
    clip: ClipNetwork | None = None  # for the CLIP score


def load_networks(
    held: HeldOut,
    extractor: str | None = None,
    matcher: str | None = None,
    fid: bool = False,
    inception_weights: str | Path | None = None,
    clip_weights: str | Path | None = None,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> MetricNetworks:
    """Load what fits the data: for scenes the course's own networks, for photos those named.

    The extractor is trained `scene_features` or `photo_features`, the matcher a `caption_matcher`,
    by name or path. `fid` takes Inception's published weights; a file of them asks for FID, too,
    and CLIP's weights (`clip_score.ClipNetwork`) for the CLIP score.

    Raises:
        FileNotFoundError, ValueError, OSError: weights are missing or damaged; ValueError also if
            nothing is left to measure with.
    """
    drawn, found = held.facts is not None, {}
    if extractor is not None or drawn:
        name = extractor or scene_features.NAME
        load = load_scene_features
        with contextlib.suppress(FileNotFoundError):  # the loader says so better
            if read_card(name)["model"] == photo_features.NAME:
                load = photo_features.load_photo_features
        found["extractor"] = load(name, device)
    if matcher is not None or drawn:
        found["matcher"] = load_caption_matcher(matcher or caption_matcher.NAME, device)
    if fid or inception_weights is not None:
        found["inception"] = InceptionFeatures(inception_weights, device, progress)
    if clip_weights is not None:
        found["clip"] = ClipNetwork(clip_weights, device)
    if not found:
        raise ValueError(
            f"nothing to measure {held.data} with, for the course's networks know scenes only: "
            "give --fid or --clip-weights, or train networks on these photos and name them with "
            "--extractor and --matcher"
        )
    return MetricNetworks(**found)


# Measuring


def evaluate(
    pictures: GeneratedPictures,
    held: HeldOut,
    networks: MetricNetworks,
    references: bool = True,
    repeats: int = 200,
    progress: bool = False,
    varied: GeneratedPictures | None = None,
) -> Evaluation:
    """Measure pictures by the protocol, and with `references` real ones and false captions, too.

    The bootstrap has `repeats`, with Inception's features 20 at most. `varied` pictures, of
    `held_out.draw_varied`, say how much they vary within a caption.

    Raises:
        ValueError: too few pictures for a FID that is asked for, or for anything at all; pictures
            that a network cannot read; a matcher whose text encoder is another now.
    """
    if pictures.name in (REAL, SHUFFLED):  # a folder may be called so
        pictures = replace(pictures, name=f"{pictures.name} (generated)")
    if networks.inception is not None:
        check_samples(len(pictures.images), held, networks.inception.width)
    run = _Run(pictures, held, networks, references, repeats, progress)
    if networks.extractor is None and networks.inception is None:
        run.left_out.append(
            "distances, precision and recall: no extractor was given for these data"
        )
    for extractor in filter(None, (networks.extractor, networks.inception)):
        _distances(run, extractor)
    if held.facts is None:
        run.left_out.append(
            f"scene accuracy: the captions of {held.data} come without facts, only scenes' do"
        )
    else:
        _scene_accuracy(run)
    if varied is not None:
        _variety(run, varied)
    if networks.matcher is None:
        run.left_out.append("retrieval: no caption matcher was given for these data")
    else:
        _retrieval(run, networks.matcher)
    if networks.clip is not None:
        _clip_score(run, networks.clip)
    if not run.measures:
        raise ValueError(f"nothing could be measured: {'; '.join(run.left_out)}")
    return Evaluation(
        pictures.name, held.data, held.split, len(pictures.images), pictures.seeds,
        tuple(run.measures), tuple(run.left_out), tuple(run.notes),
    )  # fmt: skip


def check_samples(samples: int, held: HeldOut, width: int = InceptionFeatures.width) -> None:
    """Raise ValueError unless N drawn pictures, and the real ones, are enough for a FID."""
    real = len(reference(held, width)[1])
    if min(samples, real) <= width:
        raise ValueError(
            f"{samples} drawn and {real} real pictures: FID needs more than {width} of each. "
            "Choose more (--samples), or leave FID out."
        )


@dataclass
class _Run:
    """The arguments of `evaluate`, and what is found."""

    pictures: GeneratedPictures
    held: HeldOut
    networks: MetricNetworks
    references: bool
    repeats: int
    progress: bool
    measures: list[Measure] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(
        self, source: str, metric: str, value: Estimate, what: str,
        reader: Extractor | SharedSpace | ClipNetwork | str, start: float,
        share: bool = False, split: str | None = None,
    ) -> None:  # fmt: skip
        """Note a number; see `Measure`."""
        if not isinstance(reader, str):
            reader = f"{reader.name} ({reader.fingerprint})"
        split, seconds = split or self.held.split, time.perf_counter() - start
        self.measures.append(Measure(source, metric, value, what, reader, split, seconds, share))

    def real_features(
        self, rows: np.ndarray, reader: str, embed: Callable[..., np.ndarray], images: np.ndarray
    ) -> np.ndarray:
        """Features of real pictures, given by rows of `packed.images`, from the cache."""
        digest = hashlib.sha256(np.asarray(rows, dtype=np.int64).tobytes()).hexdigest()[:16]
        return cached_features(
            f"{self.held.packed.key}, captions {digest}, {reader}",
            lambda: embed(self.held.packed.images[images]),
        )

    def others(self, images: np.ndarray, metric: str) -> np.ndarray | None:
        """Rows of captions of other images; None, and the reason noted, where there are none."""
        try:
            return scene_accuracy.derangement(images.tolist())
        except ValueError as error:
            self.left_out.append(f"{SHUFFLED}, {metric}: {error}")
            return None


def _distances(run: _Run, extractor: Extractor) -> None:
    """Frechet distance, kernel distance, precision and recall."""
    fd, kernel, suffix = _distance_names(run, extractor)
    key, images, split = reference(run.held, extractor.width, run.progress)
    real = _real_features(run, extractor, key, images)
    drawn = extract_features(extractor, run.pictures.images, progress=run.progress)
    sets = {run.pictures.name: (drawn, "")}
    if run.held.facts is None:
        run.notes.extend(_reference_notes(run, fd, len(real), split))
    if run.references:
        key, images, words = other_real(run.held, len(drawn), split, run.progress)
        sets[REAL] = _real_features(run, extractor, key, images), f"; of {words}"
        if run.held.facts is None:
            run.notes.append(f"{fd}, column {REAL}: {words}")
    against = f"{len(real):,} real pictures of {split}"
    repeats = min(run.repeats, WIDE_REPEATS) if extractor.width > WIDE else run.repeats
    for source, (features, of) in sets.items():
        few, start = min(len(real), len(features)), time.perf_counter()
        found: dict[str, tuple[Estimate, str]] = {}
        if few > extractor.width:
            found[fd] = frechet(real, features, repeats), f"squared Frechet distance to {against}"
        else:
            run.left_out.append(
                f"{fd}, {source}: {len(features)} pictures and {len(real)} real ones, "
                f"more than {extractor.width} of each are needed"
            )
        if few >= 3:
            found[kernel] = kernel_distance(real, features), f"squared, cubic kernel, to {against}"
        if few >= 2 * NEIGHBOUR + 2:
            both = precision_recall(real, features, NEIGHBOUR, run.repeats)
            for name, share in both._asdict().items():
                found[name + suffix] = share, f"k = {NEIGHBOUR}, against {against}"
        for metric, (value, what) in found.items():
            share = metric.startswith(("precision", "recall"))
            run.add(source, metric, value, f"{metric}, {what}{of}", extractor, start, share)


def _reference_notes(run: _Run, metric: str, real: int, split: str) -> list[str]:
    """Say which photos the distances are to, and what a FID of so many samples is worth."""
    held, name, samples = run.held, find_data(run.held.folder, split).name, len(run.pictures.images)
    where = split if split == name else f"{split} ({name})"
    why = f", as {len(held.packed):,} of {held.split} are too few for it" * (split != held.split)
    notes = [
        f"{metric} to {real:,} real pictures of {where}{why}; all at {held.packed.size} pixels"
    ]
    if metric == "FID" and (samples < PAPERS_SAMPLES or name != PAPERS_SPLIT):
        notes.append(
            f"FID of N={samples:,} samples; papers use {PAPERS_SAMPLES:,} of {PAPERS_SPLIT}: not "
            "comparable"
        )
    return notes


def _distance_names(run: _Run, extractor: Extractor) -> tuple[str, str, str]:
    """What the two distances are called, and what follows on "precision" and "recall"."""
    if extractor is run.networks.inception:
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


def _scene_accuracy(run: _Run) -> None:
    """Share of pictures with all stated facts right, and its parts."""
    start, held, rows = time.perf_counter(), run.held, run.pictures.caption_rows
    images = held.images_of(rows)
    facts = [held.facts[row] for row in rows.tolist()]
    subsets = [held.subsets[row] for row in images.tolist()]
    scenes = scene_accuracy.read_scenes(run.pictures.images, run.progress)
    verdicts = scene_accuracy.check_scenes(scenes, facts)
    results = {run.pictures.name: (verdicts, facts, subsets)}
    if run.references:
        verdicts = scene_accuracy.check_images(held.packed.images[images], facts, run.progress)
        results[REAL] = verdicts, facts, subsets
        others = run.others(images, "scene accuracy")
        if others is not None:
            stated, kinds = [facts[k] for k in others], [subsets[k] for k in others]
            results[SHUFFLED] = scene_accuracy.check_scenes(scenes, stated), stated, kinds
    splits = {name: f"{held.split}_{key}" for key, name in scene_accuracy.SUBSETS.items()}
    for source, found in results.items():
        for part, share in scene_accuracy.accuracy(*found).items():
            what = f"everything right that the caption states, share, {part}"
            if part in scene_accuracy.KINDS:
                what = f"{part} facts of the caption right in the picture, share"
            metric = f"scene accuracy: {part}"
            run.add(source, metric, share, what, "oracle", start, True, splits.get(part))


def _variety(run: _Run, varied: GeneratedPictures) -> None:
    """Standard deviations, within a caption, of what the captions leave open."""
    start = time.perf_counter()
    rows, count = np.unique(varied.caption_rows, return_counts=True)
    facts = [run.held.facts[row] for row in rows.tolist()]
    read = scene_accuracy.read_scenes(varied.images, run.progress)
    order = np.argsort(varied.caption_rows, kind="stable")
    groups = np.split(order, np.cumsum(count)[:-1])
    sets = {varied.name: [[read[k] for k in group] for group in groups]}
    if run.references:
        pairs = zip(facts, count.tolist(), strict=True)
        sets[REAL] = [scene_accuracy.scenes_like(stated, number) for stated, number in pairs]
    for source, scenes in sets.items():
        found = scene_accuracy.variety(scenes, facts, run.repeats)
        if not found:
            run.left_out.append(f"variety, {source}: hardly any picture shows what is stated")
        for name, value in found.items():
            what = f"standard deviation of {name} within a caption, {count.max()} pictures of each"
            run.add(source, f"variety: {name}", value, what, "oracle", start)


def _retrieval(run: _Run, matcher: SharedSpace) -> None:
    """Does a picture find its caption among 100? One caption an image."""
    start, held, pictures = time.perf_counter(), run.held, run.pictures
    first = np.sort(np.unique(held.images_of(pictures.caption_rows), return_index=True)[1])
    rows = pictures.caption_rows[first]
    if len(rows) < CANDIDATES:
        run.left_out.append(
            f"retrieval: {len(rows)} pictures of different images, {CANDIDATES} are needed"
        )
        return
    device = next(matcher.parameters()).device
    text = matched_text(matcher, held.captions(rows), device, run.progress)
    drawn = matcher.embed_images(pictures.images[first])
    sets = {pictures.name: (drawn, text)}
    if run.references:
        reader = f"matcher {matcher.fingerprint}"
        real = run.real_features(rows, reader, matcher.embed_images, held.images_of(rows))
        others = scene_accuracy.derangement(range(len(rows)))
        sets |= {REAL: (real, text), SHUFFLED: (drawn, text[others])}
    for source, pair in sets.items():
        found = retrieval(*pair, CANDIDATES)
        for metric, share in found.items():
            what = f"{metric}, share of pictures that find their caption among {CANDIDATES}"
            run.add(source, metric, share, what, matcher, start, True)


def _clip_score(run: _Run, clip: ClipNetwork) -> None:
    """Mean CLIP score with the own captions, of real pictures, and with captions of others."""
    start, held, rows = time.perf_counter(), run.held, run.pictures.caption_rows
    captions, images = held.captions(rows), held.images_of(rows)
    digest = hashlib.sha256("\0".join(captions).encode()).hexdigest()[:16]
    text = cached_features(
        f"captions {digest}, CLIP {clip.fingerprint}",
        lambda: clip.embed_captions(captions, progress=run.progress),
    )
    drawn = clip.embed_images(run.pictures.images, progress=run.progress)
    sets = {run.pictures.name: (drawn, text)}
    if run.references:
        different, place = np.unique(images, return_inverse=True)  # an image has several captions
        reader = f"each once, CLIP {clip.fingerprint}"
        real = run.real_features(different, reader, clip.embed_images, different)
        sets[REAL] = real[place], text
        others = run.others(images, "CLIP score")
        if others is not None:
            sets[SHUFFLED] = drawn, text[others]
    for source, pair in sets.items():
        what, score = "CLIP score, mean of 100 max(cos, 0)", clip_score(*pair, run.repeats)
        run.add(source, "CLIP score", score, what, clip, start)


def evaluate_captions(
    name: str,
    generator: nn.Module,
    encoder: TextEncoder,
    file: str | Path,
    count: int = 5,
    seed: int = 0,
    progress: bool = False,
) -> Evaluation:
    """Measure scene accuracy on captions of other authors, which come with what they state.

    The file is written as `benchmarks/own_words.txt`; `count` pictures are drawn of each caption.
    Intervals are bootstrapped over captions, and never narrower than Wilson's for as many captions
    as pictures.

    Raises:
        FileNotFoundError, ValueError: no such file, or a line that is no caption with its facts.
    """
    start, split = time.perf_counter(), Path(file).stem
    captions, facts = zip(*authored_wordings.read_file(Path(file)), strict=True)
    batches = generation.sample(generator, encoder, captions, count, seed, progress)
    scenes = scene_accuracy.read_scenes(torch.cat(list(batches)), progress)
    owners = np.repeat(np.arange(len(facts)), count)
    number = np.array([len(stated["objects"]) for stated in facts])
    measures = []
    for source, rows in ((name, owners), (SHUFFLED, owners[scene_accuracy.derangement(owners)])):
        verdicts = scene_accuracy.check_scenes(scenes, [facts[row] for row in rows])
        right = (verdicts != 0).all(axis=1).reshape(-1, count)  # [captions, pictures]
        parts = {"all": right}
        if source == name:
            parts |= {n: right[number == k] for k, n in scene_accuracy.NUMBERS.items()}
        for part, of in parts.items():
            if len(of):
                share = bootstrap_interval(np.mean, of.astype(float), limits=(0, 1))
                low, high = wilson_interval(share.value, of.size)  # it has a width at 0, too
                share = replace(share, interval=(min(low, share.low), max(high, share.high)))
                what = f"everything right that a caption of {Path(file).name} states, share, {part}"
                seconds = time.perf_counter() - start
                measures.append(Measure(source, f"scene accuracy: {part}", share, what, "oracle",
                                        split, seconds, True))  # fmt: skip
    return Evaluation(name, "scenes", split, len(scenes), (seed,), tuple(measures), each=count)
