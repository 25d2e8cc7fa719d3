"""YAML without its surprises: no tags, no duplicate keys, `no` is text, `1e-4` a number; every value knows its line."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NoReturn

import yaml

from configs.origins import Fault, Origin, Path, Problem
from configs.tree import Node, Scalar

MAX_DEPTH = 24
MAX_NODES = 50_000
"""Values of one file after its aliases are written out; stops alias bombs."""

_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(?=[0-9.]*[.eE])([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?")


def scalar(text: str) -> Scalar:
    """Return what unquoted text means: null, true and false, a number, else the text itself.

    Only `true` and `false` are booleans; `yes`, `on`, `007`, `0x1f`, `1_000`, `1:30`, dates and `.nan` stay text.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and abs(number := float(text)) != float("inf"):
        return number
    return text


def read(text: str, place: Callable[[int], Origin], problems: list[Problem]) -> Node | None:
    """Return the one document in `text`, or None where there is none.

    `place` turns a line, from 1, into an origin. Duplicate keys, tags and merge keys are added to `problems`;
    raises `Fault` where the text cannot be read on: syntax, depth, too many values, a second document.
    """
    try:
        return _Reader(text, place, problems).document()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise Fault(Problem(place(line), (), f"not valid YAML: {error.problem}")) from None
    except yaml.reader.ReaderError as error:
        origin = place(text.count("\n", 0, error.position) + 1)
        what = f"not valid YAML: character 0x{ord(text[error.position]):02x} is not allowed"
        raise Fault(Problem(origin, (), what)) from None


class _Reader:
    """Builds nodes from the parser's events."""

    def __init__(self, text: str, place: Callable[[int], Origin], problems: list[Problem]) -> None:
        self.events: Iterator[yaml.Event] = iter(yaml.parse(text, Loader=yaml.SafeLoader))
        self.place = place
        self.problems = problems
        self.anchors: dict[str, tuple[Node, int]] = {}
        self.count = 0

    def document(self) -> Node | None:
        next(self.events)
        if isinstance(next(self.events), yaml.StreamEndEvent):
            return None
        node = self.node(next(self.events), ())
        next(self.events)
        if not isinstance(event := next(self.events), yaml.StreamEndEvent):
            self.stop(event, (), "a second document begins here; write one in a file")
        return node

    def node(self, event: Any, path: Path) -> Node:
        before = self.count
        self.spend(1, event, path)
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, path)
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self.note(event, path, f"tag `{tag}` is not read here; put text in quotes and leave tags out")
        node = Node(self.content(event, path), self.origin(event))
        if event.anchor is not None:
            self.anchors[event.anchor] = node, self.count - before
        return node

    def content(self, event: Any, path: Path) -> Scalar | list[Node] | dict[str, Node]:
        if isinstance(event, yaml.MappingStartEvent):
            return self.entries(path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self.items(path)
        self.check_text(event, path)
        return scalar(event.value) if event.implicit[0] else event.value

    def entries(self, path: Path) -> dict[str, Node]:
        found: dict[str, Node] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.key(event, path)
            node = replace(self.node(next(self.events), (*path, key)), origin=self.origin(event))
            if key in found:
                first = found[key].origin
                self.note(event, (*path, key), f"given twice{f', first at {first}' if first.line else ''}")
            elif key == "<<" and isinstance(event, yaml.ScalarEvent) and event.implicit[0]:  # quoted, it is any key
                self.note(event, (*path, key), "merge keys are not read here; use `extends`, or write the keys out")
            else:
                found[key] = node
        return found

    def key(self, event: yaml.Event, path: Path) -> str:
        if not isinstance(event, yaml.ScalarEvent) or event.tag is not None:
            self.stop(event, path, "a key must be plain text")
        self.check_text(event, path)
        return str(event.value)

    def items(self, path: Path) -> list[Node]:
        found: list[Node] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            found.append(self.node(event, (*path, str(len(found)))))
        return found

    def alias(self, event: yaml.AliasEvent, path: Path) -> Node:
        if event.anchor not in self.anchors:
            self.stop(event, path, f"alias `*{event.anchor}` has no anchor `&{event.anchor}` before it")
        node, size = self.anchors[event.anchor]
        self.spend(size, event, path)
        return node

    def spend(self, size: int, event: yaml.Event, path: Path) -> None:
        self.count += size
        if self.count > MAX_NODES:
            self.stop(event, path, f"more than {MAX_NODES} values, aliases written out")
        if len(path) > MAX_DEPTH:
            self.stop(event, path[:3], f"nested more than {MAX_DEPTH} deep")

    def check_text(self, event: yaml.ScalarEvent, path: Path) -> None:
        if any("\ud800" <= character <= "\udfff" for character in event.value):
            self.stop(event, path, "text with half a character (a lone surrogate such as \\ud800)")

    def origin(self, event: yaml.Event) -> Origin:
        return self.place(event.start_mark.line + 1 if event.start_mark else 1)

    def note(self, event: yaml.Event, path: Path, what: str) -> None:
        self.problems.append(Problem(self.origin(event), path, what))

    def stop(self, event: yaml.Event, path: Path, what: str) -> NoReturn:
        raise Fault(Problem(self.origin(event), path, what))
