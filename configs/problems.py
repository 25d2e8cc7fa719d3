"""What pydantic found, in the words of this project: one line for each thing to mend."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from configs.origins import Path, Problem, hint
from configs.shape import Shape, shape_of
from configs.strict_yaml import scalar
from configs.tree import Node
from configs.words import choices, refusal, shown


def explain(error: ValidationError, tree: Node, shape: Shape) -> list[Problem]:
    """Return one problem for each place that is wrong, however many errors pydantic has for it."""
    found: dict[Path, str] = {}
    misspelt: set[Path] = set()
    for details in error.errors(include_url=False):
        place = _locate(details["loc"], tree, shape)
        if place is not None and not _follows(details, place):
            path, what = _describe(details, place)
            found.setdefault(path, what)
            misspelt.update((*path[:-1], near) for near in _meant(details, place))
    return [
        Problem(tree.written(path), path, what)
        for path, what in found.items()
        if not (path in misspelt and what.startswith(_MISSING))
    ]


_MISSING = "missing"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an error lies: what is there, what may be there, and what holds it."""

    path: Path
    node: Node
    shape: Shape
    above: Shape
    parent: Node
    is_key: bool = False


def _locate(loc: tuple[int | str, ...], tree: Node, shape: Shape) -> _Place | None:
    """Return the place without pydantic's names for members of unions; None if the member is not the one meant."""
    place = _Place((), tree, shape, shape, tree)
    rest = [str(part) for part in loc]
    while rest:
        if rest[0] == "[key]":
            return _Place(place.path, place.node, place.shape, place.above, place.parent, is_key=True)
        arm = place.shape.arm(place.node)
        if len(place.shape.arms) > 1:
            member = rest.pop(0)
            if arm is place.shape:
                return place
            if not (place.shape.tagged or _is_member(arm, member)):
                return None
        if not rest:
            return _Place(place.path, place.node, arm, place.above, place.parent)
        key = rest.pop(0)
        node = dict(place.node.children).get(key, Node(None, place.node.origin))
        place = _Place((*place.path, key), node, arm.child(key), arm, place.node)
    return place


def _follows(details: ErrorDetails, place: _Place) -> bool:
    """Return whether a list is called too short only because pydantic does not count its wrong items."""
    return details["type"] == "too_short" and len(place.node.children) >= details["ctx"]["min_length"]


def _is_member(arm: Shape, member: str) -> bool:
    """Return whether pydantic's name for a member of a union is that of `arm`; validators stand around the name."""
    if arm.section:
        return member == arm.section.__name__ or member.endswith(f", {arm.section.__name__}]")
    return member.startswith(f"{get_origin(arm.type).__name__}[")


def _describe(details: ErrorDetails, place: _Place) -> tuple[Path, str]:
    """Return the path a message is about, and what is wrong there."""
    kinds, kind = place.shape.kinds, (*place.path, "kind")
    match details["type"]:
        case "missing":
            return place.path, _MISSING + (hint("", choices(place.shape)) if choices(place.shape) else "")
        case "extra_forbidden":
            return place.path, _unknown(place)
        case "union_tag_not_found":
            for key in get_close_matches("kind", place.node.table, n=1):
                return (*place.path, key), "unknown key; did you mean `kind`?"
            return kind, _MISSING + hint("", kinds)
        case "union_tag_invalid":
            value = place.node.table["kind"]
            return kind, f"unknown kind {shown(value)}{hint(str(place.node.kind or ''), kinds)}"
        case "value_error":
            return place.path, str(details["ctx"]["error"])
    if place.is_key:
        return place.path, _bad_key(place)
    if place.above.named and place.node.value is None:
        others = [key for key, node in place.parent.children if node.value is not None]
        return place.path, f"empty, and nothing of this name is inherited to be removed{hint(place.path[-1], others)}"
    return place.path, refusal(place.node, place.shape)


def _unknown(place: _Place) -> str:
    section, kind = place.above.section, place.parent.kind
    fields = list(section.model_fields) if section else []
    suffix = f" for kind `{kind}`" if kind is not None and "kind" in fields else ""
    return f"unknown key{suffix}{hint(place.path[-1], fields)}"


def _bad_key(place: _Place) -> str:
    allowed = shape_of(get_args(place.above.type)[0])
    if allowed.type is str:
        return "not a name: lower-case letters, digits, `-` and `_`, a letter first"
    return f"as a key, {refusal(Node(scalar(place.path[-1]), place.node.origin), allowed)}"


def _meant(details: ErrorDetails, place: _Place) -> list[str]:
    """Return the known key an unknown one was meant as: that it is missing is no problem of its own."""
    section = place.above.section
    if details["type"] != "extra_forbidden" or section is None:
        return []
    return get_close_matches(place.path[-1], section.model_fields, n=1)
