"""The command `doctor`: is everything there that the course needs?"""

from __future__ import annotations

import argparse

from t2i_course import doctor
from t2i_course.commands.console import say


def add_options(_: argparse.ArgumentParser) -> None:
    """Add none."""


def run(_: argparse.Namespace) -> int:
    """Print a line for each requirement; return 1 if a required one fails."""
    checks = doctor.check_environment()
    width = max(len(check.name) for check in checks)
    for check in checks:
        status = "OK" if check.ok else "FAIL" if check.required else "optional"
        remedy = f"; {check.remedy}" if check.remedy and not check.ok else ""
        say(f"{status:<9} {check.name:<{width}}  {check.detail}{remedy}")
    failed = [check.name for check in checks if check.required and not check.ok]
    say(f"{len(failed)} to mend: {', '.join(failed)}" if failed else "all there")
    return 1 if failed else 0
