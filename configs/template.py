"""Texts made of several columns, as `{premise} Question: {hypothesis}`."""

import re
from collections.abc import Callable

_MARK = re.compile(r"\{\{|\}\}|\{(?P<name>[^{}]*[^{}?])(?P<optional>\??)\}|[{}]")


def columns(text: str) -> tuple[str, ...]:
    """Return the columns a template names in braces; what names none is itself the name of a column."""
    return tuple(dict.fromkeys(found["name"] for found in _MARK.finditer(text) if found["name"])) or (text,)


def is_template(text: str) -> bool:
    """Whether a text names columns, and is not the name of one."""
    return columns(text) != (text,)


def stray(text: str) -> bool:
    """Whether a template holds a brace that neither belongs to a column nor is doubled."""
    return is_template(text) and any(found[0] in ("{", "}") for found in _MARK.finditer(text))


def fill(template: str, value: Callable[[str, bool], str]) -> str:
    """Put columns in their places; `value` is asked for each by its name, and told whether it may be empty.

    A line whose columns are all empty is left out. `{{` and `}}` are braces.
    """
    return "\n".join(line for one in template.splitlines() if (line := _line(one, value)) is not None)


def _line(line: str, value: Callable[[str, bool], str]) -> str | None:
    named = {found["name"]: bool(found["optional"]) for found in _MARK.finditer(line) if found["name"]}
    filled = {name: value(name, optional) for name, optional in named.items()}
    if filled and not any(filled.values()):
        return None
    return _MARK.sub(lambda found: filled[found["name"]] if found["name"] else found[0][0], line)
