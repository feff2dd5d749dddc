"""The command `sound`: from a video file to the sound of its bounces."""

from __future__ import annotations

import argparse

import soundfile

from t2i_course import runtime, video_to_audio
from t2i_course.commands.console import add_shared, note, say
from t2i_course.metrics.sound_accuracy import onsets
from t2i_course.photos import video_file
from t2i_course.scenes.bouncing_balls import SOUND_RATE, VIEW

SUFFIXES = (".wav", ".flac")
KNOWS = (
    f"the model has seen drawn balls on a floor, in frames of {VIEW:g} m, and nothing else: a "
    "colour is a material to it, a size a pitch, and a turn from down to up an impact. It knows no "
    "speech, music, steps, wind or rooms, and does not listen to a sound that the file has"
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the clip, what hears it, and what is written."""
    add = parser.add_argument
    add("clip", metavar="CLIP", help="a video file of any kind; its first 30 s are read")
    add("--output", metavar="FILE.wav", default="sound.wav", help="default: %(default)s")
    add("--video", metavar="FILE.mp4", help="the clip with its sound, too")
    add("--model", metavar="NAME|PATH", default="video-to-audio", help="a name in "
        "data/checkpoints, or a path; default: %(default)s")  # fmt: skip
    add_shared(parser, "--device")


def run(args: argparse.Namespace) -> int:
    """Read a clip, imagine its sound, write it; and the clip with it, if asked for."""
    output = video_file.check_suffix(args.output, SUFFIXES)
    target = (
        None if args.video is None else video_file.check_suffix(args.video, video_file.SUFFIXES)
    )
    clip = video_file.read_video(args.clip, video_to_audio.SIDE)
    for remark in clip.notes:
        note(remark)
    network, _ = video_to_audio.load_video_to_audio(args.model, args.settings.device)
    spectrogram = video_to_audio.imagine(network, clip.frames, clip.times, clip.seconds)
    sound = video_to_audio.invert(spectrogram, round(clip.seconds * SOUND_RATE))
    with runtime.atomic_file(output) as partial:
        soundfile.write(partial, sound, SOUND_RATE)
    found = ", ".join(f"{time:.2f}" for time in onsets(sound))
    say(f"sound: {output}, {clip.seconds:.1f} s, " + (f"impacts at {found} s" if found else
        "silent: the model saw no impact"))  # fmt: skip
    if target is not None:
        say(f"video: {video_file.add_sound(args.clip, target, sound, SOUND_RATE)}")
    note(KNOWS)
    return 0
