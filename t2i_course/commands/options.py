"""Options of the command line from the dataclasses that they fill: each is written once.

A field that `t2i_course.training.option` made is an option: its name with hyphens, its type that of
the default, its help as it stands there. What is not given is not set, so that presets, models and
defaults can come after.
"""

from __future__ import annotations

import argparse
from collections.abc import Container, Mapping
from dataclasses import Field, fields
from typing import Any, TypeVar

Config = TypeVar("Config")


def option_fields(config: type) -> list[Field]:
    """The fields of a dataclass that are options."""
    return [entry for entry in fields(config) if "help" in entry.metadata]


def add_fields(
    parser: argparse.ArgumentParser, config: type, title: str, by_model: Container[str] = ()
) -> None:
    """Add an option for each field that is one; the defaults of some go by model."""
    group = parser.add_argument_group(title)
    for entry in option_fields(config):
        default, told = entry.default, entry.metadata["help"]
        flag = "--" + entry.name.replace("_", "-")
        kind = type(default)
        common = {"dest": entry.name, "default": argparse.SUPPRESS}
        if kind is bool:
            switch = argparse.BooleanOptionalAction if default else "store_true"
            group.add_argument(flag, action=switch, help=told, **common)
            continue
        if kind is tuple:
            told += f": {', '.join(entry.metadata['choices'])}"
            common |= {"nargs": "*", "metavar": "NAME"}
            default = " ".join(default)
        elif default is None:
            common |= {"metavar": entry.metadata["choices"][0]}
        else:
            choices = entry.metadata["choices"] or None
            common |= {"type": kind, "choices": choices, "metavar": None if choices else "N"}
        if default is not None:
            told += f"; default: {'by model' if entry.name in by_model else default}"
        group.add_argument(flag, help=told.replace("%", "%%"), **common)


def given_fields(args: argparse.Namespace, config: type) -> dict[str, Any]:
    """What was given of a dataclass's options."""
    found = {e.name: getattr(args, e.name) for e in option_fields(config) if hasattr(args, e.name)}
    return {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()}


def fill(config: type[Config], *given: Mapping[str, Any]) -> Config:
    """Build a dataclass of what was given, the later before the earlier; the rest by default.

    What belongs to another dataclass is left out.
    """
    known = {entry.name for entry in fields(config)}
    values = {name: v for part in given for name, v in part.items() if name in known}
    return config(**values)
