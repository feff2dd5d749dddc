"""The command `clips`: draw clips of bouncing balls, to try `sound` on."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from t2i_course import runtime
from t2i_course.commands.console import add_shared, say
from t2i_course.photos.video_file import write_video
from t2i_course.scenes import bouncing_balls

SIDE = 256  # pixels


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add how many, and whereto."""
    add = parser.add_argument
    add("--output", metavar="FOLDER", required=True, help="a new folder")
    add("--count", type=int, default=6, help="default: %(default)s")
    add_shared(parser, "--seed")


def run(args: argparse.Namespace) -> int:
    """Write clips with their true sound, and a list of balls and impacts."""
    if args.count < 1:
        raise ValueError(f"--count {args.count}: one clip at least")
    output, rng = Path(args.output).expanduser(), np.random.default_rng(args.settings.seed)
    if output.exists():
        raise FileExistsError(f"{output} is there already: name a new folder")
    listed = []
    with runtime.atomic_folder(output) as folder:
        for number in range(1, args.count + 1):
            clip = bouncing_balls.draw_clip(rng)
            times, name = bouncing_balls.frame_times(clip), f"clip-{number:02}.mp4"
            frames = zip(times, bouncing_balls.render(clip, times, SIDE), strict=True)
            sound = bouncing_balls.synthesise(clip)
            write_video(folder / name, frames, sound, bouncing_balls.SOUND_RATE)
            hits = [{"time": round(hit.time, 4), "speed": round(hit.speed, 3),
                     "ball": clip.balls.index(hit.ball)}
                    for hit in bouncing_balls.impacts(clip)]  # fmt: skip
            listed.append({"file": name, **asdict(clip), "impacts": hits})
        text = json.dumps(listed, indent=1) + "\n"
        (folder / "clips.json").write_text(text, encoding="utf-8", newline="\n")
    say(f"{args.count} clips with their true sound, and clips.json: {output}")
    say(f"try: python -m t2i_course sound {output / 'clip-01.mp4'} --output sound.wav")
    return 0
