"""What one file says over another, and what overrides say over both."""

from dataclasses import replace

from configs.origins import DEFAULT, Fault, Origin, Path, Problem, hint
from configs.shape import Shape
from configs.strict_yaml import read, scalar
from configs.tree import Node


def merge(base: Node, over: Node, shape: Shape) -> Node:
    """Return `over` on top of `base`: tables merge by key, everything else replaces.

    In a table of named sections (stages, data) null removes what is inherited under that name. A section whose
    `kind` changes inherits nothing: the keys of the former kind mean nothing to the new one.
    """
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)) or _changes_kind(base, over.kind, shape):
        return over
    arm = shape.arm(base)
    entries = dict(base.value)
    for key, node in over.value.items():
        if arm.named and node.value is None and key in entries:
            del entries[key]
        else:
            entries[key] = merge(entries[key], node, arm.child(key)) if key in entries else node
    return Node(entries, over.origin)


def override(tree: Node, text: str, shape: Shape) -> Node:
    """Return the tree with `a.b=c` done to it; raises `Fault` where that cannot be."""
    origin = Origin("override", text)
    path, value = _parse(text, origin)
    return _set(tree, path, (), value, shape)


def complete(node: Node, shape: Shape) -> Node:
    """Return the tree with `kind` written out wherever it is left to its default."""
    if isinstance(node.value, list):
        return replace(node, value=[complete(item, shape.arm(node).child(key)) for key, item in node.children])
    if not isinstance(node.value, dict):
        return node
    arm = shape.arm(node)
    entries = {key: complete(below, arm.child(key)) for key, below in node.value.items()}
    if shape.tagged and shape.default_kind and "kind" not in entries:
        entries = {"kind": Node(shape.default_kind, DEFAULT), **entries}
    return replace(node, value=entries)


def _changes_kind(base: Node, kind: str | None, shape: Shape) -> bool:
    return shape.tagged and kind is not None and kind != (base.kind or shape.default_kind)


def _parse(text: str, origin: Origin) -> tuple[Path, Node]:
    key, equals, value = text.partition("=")
    path = tuple(key.split("."))
    if not equals or not all(part and part == part.strip() for part in path):
        raise Fault(
            Problem(origin, (), "not of the form `key=value`, such as `seed=3` or `stages.train.training.epochs=5`")
        )
    if not value.strip():
        raise Fault(Problem(origin, path, "no value given; write `null` or `''` after the `=`"))
    if value.lstrip()[0] not in "[{'\"":
        return path, Node(scalar(value.strip()), origin)
    problems: list[Problem] = []
    try:
        node = read(value, lambda line: origin, problems)
    except Fault as fault:
        node, problems = None, [fault.problem]
    for problem in problems:
        raise Fault(replace(problem, path=(*path, *problem.path)))
    return path, node or Node(None, origin)


def _set(parent: Node, path: Path, done: Path, value: Node, shape: Shape) -> Node:
    """Return `parent`, which lies at `done`, with `value` at `path` below it."""
    key, rest, here = path[0], path[1:], (*done, path[0])
    arm = shape.arm(parent)
    if isinstance(parent.value, list):
        return replace(parent, value=_set_item(parent.value, path, done, value, arm.child(key)))
    if not isinstance(parent.value, dict):
        raise Fault(Problem(value.origin, done, f"a single value, so there is no `{key}` in it; set it as a whole"))
    entries = dict(parent.value)
    if rest:
        _check_known(parent, arm, rest, here, value.origin)
        below = entries.get(key, Node({}, value.origin))
        entries[key] = _set(below, rest, here, value, arm.child(key))
    elif arm.named and value.value is None and key in entries:
        del entries[key]
    else:
        if key == "kind" and isinstance(value.value, str) and _changes_kind(parent, value.value, shape):
            parent = replace(_overridden(parent), origin=value.origin)
            entries = parent.table
        entries[key] = value
    return replace(parent, value=entries)


def _set_item(items: list[Node], path: Path, done: Path, value: Node, shape: Shape) -> list[Node]:
    """Return the items with `value` at `path`; the position after the last adds one."""
    key, rest, count = path[0], path[1:], len(items)
    if key not in map(str, range(count + 1)):
        what = f"`{key}` is no position in a list of {count}; positions go from 0, and {count} adds an item"
        raise Fault(Problem(value.origin, done, what))
    extended = [*items, Node({}, value.origin)][: max(count, int(key) + 1)]
    extended[int(key)] = _set(extended[int(key)], rest, (*done, key), value, shape) if rest else value
    return extended


def _check_known(parent: Node, arm: Shape, rest: Path, here: Path, origin: Origin) -> None:
    """Refuse to begin a stage or a source by anything but its kind: the name is more likely misspelt."""
    if arm.named and here[-1] not in parent.table and rest != ("kind",):
        what = f"unknown name{hint(here[-1], parent.table)}; a new one begins with `{'.'.join(here)}.kind=…`"
        raise Fault(Problem(origin, here, what))


def _overridden(node: Node) -> Node:
    """Return the table with only what overrides set in it."""
    kept = {key: _overridden(below) for key, below in node.table.items()}
    below = {key: child for key, child in kept.items() if child.origin.kind == "override" or child.table}
    return replace(node, value=below) if isinstance(node.value, dict) else node
