"""Print a configuration as it will run, each line with where its value comes from."""

import json
import re
from collections.abc import Iterator

from configs.load import Loaded
from configs.origins import Origin, Path, dotted
from configs.strict_yaml import scalar
from configs.tree import Node, node_of

_PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./+@=-]*( [A-Za-z0-9_./+@=(-][A-Za-z0-9_./+@=()-]*)*")
_WIDEST = 72
"""Column up to which the comments keep aligned; longer lines push their own comment out."""


def show(loaded: Loaded) -> str:
    """Return the resolved configuration as YAML that loads to the same run, with origins as comments."""
    whole = node_of(loaded.pipeline.model_dump(mode="json"), Origin("default"))
    lines = list(_table(whole, (), loaded))
    width = max(len(text) for text, _ in lines if len(text) <= _WIDEST)
    return "".join(f"{text:<{width}}  # {origin}\n" if origin else f"{text}\n" for text, origin in lines)


def _table(node: Node, path: Path, loaded: Loaded) -> Iterator[tuple[str, str]]:
    """Yield lines of text, and the origin of what each says."""
    for key, below in node.children:
        lead, here = f"{key if _PLAIN.fullmatch(key) else _quoted(key)}:", (*path, key)
        if _is_inline(below):
            yield f"{lead} {_inline(below)}", _comment(below, here, loaded)
            continue
        yield lead, ""
        for line, origin in (
            _list(below, here, loaded) if isinstance(below.value, list) else _table(below, here, loaded)
        ):
            yield f"  {line}", origin


def _list(node: Node, path: Path, loaded: Loaded) -> Iterator[tuple[str, str]]:
    for key, item in node.children:
        for i, (line, origin) in enumerate(_table(item, (*path, key), loaded)):
            yield f"{'  ' if i else '- '}{line}", origin


def _is_inline(node: Node) -> bool:
    """Return whether the node fits on a line: a single value, a list of these, or something empty."""
    return not node.children or (isinstance(node.value, list) and not any(item.children for item in node.value))


def _inline(node: Node) -> str:
    match node.value:
        case dict():
            return "{}"
        case list(items):
            return f"[{', '.join(_inline(item) for item in items)}]"
        case str(text):
            return _text(text)
        case float(number):
            return re.sub(r"e([+-])0+", r"e\1", repr(number))
        case other:
            return json.dumps(other)


def _text(text: str) -> str:
    """Return text as YAML: plain where it reads back as itself, else in double quotes."""
    if _PLAIN.fullmatch(text) and isinstance(scalar(text), str):
        return text
    return _quoted(text)


def _quoted(text: str) -> str:
    return '"' + "".join(_character(character) for character in text) + '"'


def _character(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if character.isprintable() else f"\\U{ord(character):08x}"


def _comment(node: Node, path: Path, loaded: Loaded) -> str:
    """Return the origin of a line; for a list, that of an item an override has set, if one has."""
    places = [loaded.origins[dotted((*path, key))] for key, _ in node.children]
    return str(next((place for place in places if place.kind == "override"), loaded.origins[dotted(path)]))
