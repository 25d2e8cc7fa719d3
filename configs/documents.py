"""The files a configuration is read from, and what they extend."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from configs import presets
from configs.merge import merge
from configs.origins import Fault, Origin, Problem, hint
from configs.shape import Shape
from configs.strict_yaml import read
from configs.tree import Node

MAX_BYTES = 1_000_000
MAX_CHAIN = 16
_ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Document:
    """The text of a YAML file, or of a preset of this package."""

    label: str
    """What messages call it."""
    name: str
    """What a run of it is called."""
    folder: Path | None
    """Where paths in `extends` start; None for a preset, whose folder is among the presets."""
    data: bytes


def find(source: str | Path) -> Document:
    """Return the preset or file that a user names; raises `Fault` where there is none."""
    if isinstance(source, str) and source in presets.names():
        return _preset(source)
    path = Path(source)
    if isinstance(source, Path) or source.endswith(_ENDINGS) or path.is_file():
        return _file(path)
    raise _unreadable(str(source), f"no preset or file of this name{hint(source, presets.names())}")


@dataclass(slots=True)
class Chain:
    """Documents over what they extend; each file is read once."""

    shape: Shape
    problems: list[Problem]
    """Receives what is wrong in files that can be read on."""
    done: dict[str, Node] = field(default_factory=dict)

    def resolve(self, document: Document, above: tuple[str, ...] = ()) -> Node:
        """Return the document over all it extends, the first of several bases lowest.

        Raises `Fault` where a file cannot be read, or extends itself.
        """
        if document.label in self.done:
            return self.done[document.label]
        tree = _read(document, self.problems)
        entries = dict(tree.table)
        own = Node(entries, tree.origin)
        bases = [self._base(document, node, above) for node in self._references(entries.pop("extends", None))]
        for over in (*bases[1:], own) if bases else ():
            bases[0] = merge(bases[0], over, self.shape)
        self.done[document.label] = bases[0] if bases else own
        return self.done[document.label]

    def _references(self, extends: Node | None) -> list[Node]:
        if extends is None:
            return []
        nodes = extends.value if isinstance(extends.value, list) else [extends]
        if not all(isinstance(node.value, str) for node in nodes):
            what = "neither a preset's name, nor the path of a YAML file, nor a list of these"
            raise Fault(Problem(extends.origin, ("extends",), what))
        return nodes

    def _base(self, document: Document, node: Node, above: tuple[str, ...]) -> Node:
        try:
            base = _beside(document, str(node.value))
        except Fault as fault:
            what = f"{fault.problem.origin}: {fault.problem.what}"
            raise Fault(Problem(node.origin, ("extends",), what)) from None
        chain = (*above, document.label)
        if base.label in chain:
            raise Fault(Problem(node.origin, ("extends",), f"goes in a circle: {' → '.join((*chain, base.label))}"))
        if len(chain) > MAX_CHAIN:
            raise Fault(Problem(node.origin, ("extends",), f"more than {MAX_CHAIN} files deep"))
        return self.resolve(base, chain)


def _beside(document: Document, name: str) -> Document:
    if document.folder is not None and name.endswith(_ENDINGS):
        return _file(document.folder / name)
    choices = presets.names(bases=True)
    full = presets.absolute(name, document.name) if document.folder is None else name
    if full not in choices:
        raise _unreadable(name, f"no preset of this name{hint(full, choices)}")
    return _preset(full)


def _preset(name: str) -> Document:
    return Document(presets.label(name), name, None, presets.text(name).encode())


def _file(path: Path) -> Document:
    label = os.path.normpath(path)
    if path.is_dir():
        raise _unreadable(label, "a folder, not a YAML file")
    if not path.is_file():
        beside = sorted(name.name for ending in _ENDINGS for name in path.parent.glob(f"*{ending}"))[:20]
        raise _unreadable(label, f"no such file{hint(path.name, beside) if beside else ''}")
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(label, f"cannot be read: {error.strerror}") from None
    return Document(label, path.stem, path.parent, data)


def _read(document: Document, problems: list[Problem]) -> Node:
    def place(line: int) -> Origin:
        return Origin("file", document.label, line)

    if len(document.data) > MAX_BYTES:
        raise _unreadable(document.label, f"larger than {MAX_BYTES // 1_000_000} MB; not a configuration")
    try:
        text = document.data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"not UTF-8: byte 0x{document.data[error.start]:02x} at {error.start}; save the file as UTF-8"
        raise _unreadable(document.label, what) from None
    tree = read(text, place, problems)
    if tree is None:
        raise _unreadable(document.label, "empty; `distill list` names presets to begin with")
    if not isinstance(tree.value, dict):
        raise Fault(Problem(tree.origin, (), "the top must be `key: value` lines, not a list or a single value"))
    return tree


def _unreadable(label: str, what: str) -> Fault:
    return Fault(Problem(Origin("file", label), (), what))
