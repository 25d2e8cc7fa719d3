"""A configuration as read: plain values, each with its origin."""

from collections.abc import Iterator
from dataclasses import dataclass

from configs.origins import Origin, Path

Scalar = str | int | float | bool | None
Plain = Scalar | list["Plain"] | dict[str, "Plain"]


@dataclass(frozen=True, slots=True)
class Node:
    """A scalar, a list, or a table, and where it was written."""

    value: "Scalar | list[Node] | dict[str, Node]"
    origin: Origin

    @property
    def table(self) -> "dict[str, Node]":
        """Return the entries of a table; other nodes have none."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def children(self) -> "list[tuple[str, Node]]":
        """Return keys or positions, and what is there."""
        if isinstance(self.value, list):
            return [(str(i), item) for i, item in enumerate(self.value)]
        return list(self.table.items())

    @property
    def kind(self) -> str | None:
        """Return the text under `kind`, if there is one."""
        node = self.table.get("kind")
        return node.value if node is not None and isinstance(node.value, str) else None

    def plain(self) -> Plain:
        """Return the values alone."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def walk(self, path: Path = ()) -> "Iterator[tuple[Path, Node]]":
        """Yield this node and all below it, each with its path."""
        yield path, self
        for key, node in self.children:
            yield from node.walk((*path, key))

    def written(self, path: Path) -> Origin:
        """Return the origin of what is at `path`, or of the closest thing above it that somebody wrote."""
        node, origin = self, self.origin
        for key in path:
            below = dict(node.children).get(key)
            if below is None:
                break
            node, origin = below, origin if below.origin.kind == "default" else below.origin
        return origin


def node_of(value: object, origin: Origin) -> Node:
    """Return plain values as nodes, all of one origin."""
    if isinstance(value, dict):
        return Node({str(key): node_of(below, origin) for key, below in value.items()}, origin)
    if isinstance(value, list):
        return Node([node_of(item, origin) for item in value], origin)
    return Node(value if isinstance(value, str | int | float | bool) else None, origin)
