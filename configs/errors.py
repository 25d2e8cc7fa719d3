"""Errors that are the user's to mend."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """`<where>: <what is wrong>; did you mean <x>? <choices or limit>`. Exit code 2, no traceback."""


class ConfigError(UserError):
    """Problems of a configuration, all at once, one a line."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def suggest(word: str, choices: Iterable[str]) -> str:
    """Return `; did you mean `x`? Choices: a, b`, or just the choices where none is near."""
    listed = sorted(choices)
    near = get_close_matches(word, listed, n=1, cutoff=0.6)
    hint = f"; did you mean `{near[0]}`?" if near else ";"
    return f"{hint} Choices: {', '.join(listed)}"
