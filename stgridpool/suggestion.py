"""Suggestions for names that do not exist."""

from collections.abc import Iterable
from difflib import get_close_matches


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return the end of an error message about `word`: the nearest `known` name, if any is near, and all of them."""
    names = list(known)
    close = get_close_matches(word, names, n=1)
    guess = f", did you mean {close[0]!r}?" if close else "."
    return f"{guess} Available: {', '.join(names) or 'none'}"
