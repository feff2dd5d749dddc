"""The ablation ladder of the GAN: one ingredient more on every rung, three seeds a rung.

    python benchmarks/gan_ladder.py                   trains what is missing, prints the table
    python benchmarks/gan_ladder.py --ledger ladder   writes it to data/results/ladder.json, too

With `--rungs contradicting style style-equal-seconds --steps 600 --ledger style-comparison` it sets
the style decoder beside the GAN, both with all ingredients, for as many steps and for as long.

Every run is a command of its own, `python -m t2i_course train ...`, printed as it starts, with
equal steps and batches. A run that is done stands in data/results/gan_ladder_runs.jsonl and is not
made again, and one that was stopped goes on. The value of a rung is the mean of its seeds; its
interval is Student's at 95 % over the seeds' values.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from t2i_course import report, runtime
from t2i_course.reproduction import limits
from t2i_course.significance import seed_interval

RUNS = report.results_folder() / "gan_ladder_runs.jsonl"  # every run, as it was
BARE = {
    "text_blocks": False, "matching_aware": False, "projection": False, "penalty": False,
    "false_captions": 1, "contradicting": 0.0, "augment": (),
}  # fmt: skip
RUNGS = {  # what each rung changes; the ones before it stay
    "discriminator": {},
    "matching-aware": {"matching_aware": True},
    "text-blocks": {"text_blocks": True},
    "penalty": {"penalty": True},
    "averaged": {},  # by --average-decay
    "diffaugment": {"augment": ("translation",)},
    "projection": {"projection": True},
    "contradicting": {"false_captions": 3, "contradicting": 0.5},
    "redescription": {"redescription": 1.0},  # by the captioner that comes with the course
}
STYLE = {"style": 1.0, "style-equal-seconds": 0.67}  # share of the steps: its step takes 1.5 times
METRICS = (
    "scene accuracy: all", "scene accuracy: one object", "scene accuracy: two objects",
    "scene accuracy: three objects", "scene accuracy: seen pairs", "scene accuracy: unseen pairs",
    "scene accuracy: color", "scene accuracy: shape", "scene accuracy: count",
    "scene accuracy: relation", "scene accuracy: background", "FD-scenes", "kernel distance",
    "precision", "recall", "R@1",
)  # fmt: skip


def settings_of(rung: str) -> dict[str, Any]:
    """Ingredients of a rung, fields of `GanConfig`: those of all rungs up to it."""
    names = list(RUNGS)
    last = names.index(rung if rung in RUNGS else "contradicting")  # the style decoder's are these
    found = dict(BARE)
    for name in names[: last + 1]:
        found |= RUNGS[name]
    return found


def command_of(rung: str, seed: int, arguments: argparse.Namespace) -> list[str]:
    """Write the command that trains a rung, without the interpreter."""
    model = "baseline" if rung == "baseline" else "style" if rung in STYLE else "gan"
    command = ["-m", "t2i_course", "train", "--model", model]
    if rung != "baseline":
        for name, value in (settings_of(rung) | {"width": arguments.width}).items():
            option = name.replace("_", "-")
            if isinstance(value, bool):
                command.append(f"--{'' if value else 'no-'}{option}")
            else:
                command += [f"--{option}", *map(str, value if name == "augment" else [value])]
    names = list(RUNGS)
    if rung in RUNGS and names.index(rung) < names.index("averaged"):
        command += ["--average-decay", "0"]
    steps = str(round(arguments.steps * STYLE.get(rung, 1.0)))
    return command + [
        "--steps", steps, "--batch-size", str(arguments.batch_size), "--seed", str(seed),
        "--evaluate-every", steps, "--evaluate-samples", str(arguments.samples),
    ]  # fmt: skip


def find_run(command: str) -> dict | None:
    """Return the run of a command, if it is done."""
    lines = RUNS.read_text(encoding="utf-8").splitlines() if RUNS.exists() else []
    return next((run for run in map(json.loads, lines) if run["command"] == command), None)


def train(rung: str, seed: int, arguments: argparse.Namespace) -> dict:
    """Train a rung if that is not done; return its evaluation with seconds and memory."""
    words = command_of(rung, seed, arguments)
    command = shlex.join(["python", *words])
    if (done := find_run(command)) is not None:
        return done
    print(command, flush=True)
    name = f"ladder-{rung}-{seed}"
    folder = runtime.data_folder() / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / name  # beside the run, not among the shipped checkpoints
    process = subprocess.Popen(
        [sys.executable, *words, "--output", str(weights), "--resume"],
        cwd=Path(__file__).parents[1], stdout=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{name} ended with {os.waitstatus_to_exitcode(status)}")
    card = json.loads(weights.with_suffix(".json").read_text())
    unit = 1024**2 if sys.platform == "darwin" else 1024  # ru_maxrss in bytes, or kilobytes
    last = report.read_lines(folder / report.LOG_FILE)[-1]
    run = {
        "rung": rung, "seed": seed, "command": command, "seconds": card["seconds"],
        "megabytes": round(usage.ru_maxrss / unit), "hardware": card["hardware"],
        "metrics": last["metrics"],
    }  # fmt: skip
    before = RUNS.read_text(encoding="utf-8") if RUNS.exists() else ""
    with runtime.atomic_file(RUNS) as partial:
        partial.write_text(before + json.dumps(run) + "\n", encoding="utf-8", newline="\n")
    shutil.rmtree(folder)
    return run


def main() -> None:
    """Train every rung with every seed, and put the figures together."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=1000, help="of every run (1000)")
    parser.add_argument("--batch-size", type=int, default=32, help="of every run (32)")
    parser.add_argument("--width", type=int, default=16, help="of the GAN (16)")
    parser.add_argument("--seeds", type=int, default=3, help="runs a rung (3)")
    parser.add_argument("--samples", type=int, default=2000, help="evaluated pictures (2000)")
    parser.add_argument("--rungs", nargs="*", default=["baseline", *RUNGS], help="some rungs only")
    parser.add_argument("--only-seed", type=int, help="train this seed, and no table: for two "
                        "processes side by side")  # fmt: skip
    parser.add_argument("--ledger", metavar="NAME", help="write rows to data/results/NAME.json")
    arguments = parser.parse_args()
    arguments.ledger = report.check_name(arguments.ledger)
    name = arguments.ledger or "ladder"
    again = (
        f"python benchmarks/gan_ladder.py --steps {arguments.steps} --batch-size "
        f"{arguments.batch_size} --width {arguments.width} --ledger {name}"
    )
    if arguments.rungs != parser.get_default("rungs"):
        again += f" --rungs {' '.join(arguments.rungs)}"
    seeds = range(arguments.seeds) if arguments.only_seed is None else [arguments.only_seed]
    rows = []
    for rung in arguments.rungs:
        runs = [train(rung, seed, arguments) for seed in seeds]
        common = {
            "seeds": tuple(seeds), "data": "scenes", "hardware": runtime.hardware(),
            "seconds": round(sum(run["seconds"] for run in runs), 1),
            "command": again,
        }  # fmt: skip
        figures = [rung.ljust(15)]
        for metric in METRICS:
            values = [run["metrics"][metric]["value"] for run in runs]
            between = seed_interval(values, *limits(metric))
            figures.append(f"{metric.removeprefix('scene accuracy: ')} {np.mean(values):.3g}")
            rows.append(
                report.Row(
                    id=f"{name}-{report.slug(f'{rung} {metric}')}",
                    metric=f"{rung}: {metric}, mean of the seeds, after "
                    f"{round(arguments.steps * STYLE.get(rung, 1.0))} steps of "
                    f"{arguments.batch_size} pictures",
                    value=float(np.mean(values)), interval=between, samples=arguments.samples,
                    split="val", extractor=runs[0]["metrics"][metric]["extractor"], **common,
                )
            )  # fmt: skip
        for cost, unit, what in (
            ("seconds", "s", "seconds of training"),
            ("megabytes", "MB", "megabytes of memory, the most that was resident"),
        ):
            values = [run[cost] for run in runs]
            figures.append(f"{np.mean(values):.0f} {unit}")
            rows.append(
                report.Row(
                    id=f"{name}-{rung}-{cost}", value=float(np.mean(values)),
                    metric=f"{rung}: {what}", samples=len(values),
                    interval=seed_interval(values, *limits(what)),
                    split="none", extractor="none", **common,
                )
            )  # fmt: skip
        print(", ".join(figures), flush=True)
    if arguments.ledger:
        print(f"written: {report.add_rows(f'{name}.json', rows).name}")


if __name__ == "__main__":
    main()
