"""What an exercise of a notebook says about an answer."""

from collections.abc import Callable
from typing import Any


def check(answer: Any, right: Callable[[Any], bool], hint: str) -> None:
    """Print whether an answer is right; where it is not, the hint.

    Args:
        answer: the reader's; `...` stands for none.
        right: says of an answer whether it is right.
        hint: what to look at again.
    """
    if answer is ...:
        print("Not answered yet.")
        return
    try:
        found = right(answer)
    except (TypeError, ValueError, IndexError, KeyError, AttributeError, RuntimeError) as error:
        print(f"Not yet: {type(error).__name__}: {error}. {hint}")
        return
    print("Right." if found else f"Not yet. {hint}")
