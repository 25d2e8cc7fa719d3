"""What a place allows, in plain words."""

from pathlib import Path
from typing import Literal, get_args, get_origin

import annotated_types

from configs.origins import hint
from configs.shape import Shape
from configs.strict_yaml import scalar
from configs.tree import Node

_NOUNS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}
_LONGEST = 60


def shown(node: Node) -> str:
    """Return a value as a message shows it."""
    match node.value:
        case dict():
            return "a table"
        case list(items):
            return f"a list of {len(items)}" if items else "an empty list"
        case None:
            return "nothing (null)"
        case bool(value):
            return str(value).lower()
        case str(text):
            return f"`{text}`" if len(text) <= _LONGEST else f"`{text[:_LONGEST]}…`"
        case number:
            return str(number)


def expected(shape: Shape) -> str:
    """Return what a place allows: `a number above 0, nor a section of start, end`."""
    return ", nor ".join(_one(arm) for arm in shape.arms) if not shape.tagged else "a section with a `kind`"


def choices(shape: Shape) -> list[str]:
    """Return the words a place allows, or the kinds of section."""
    return [str(word) for arm in shape.arms for word in words(arm)] or list(shape.kinds)


def words(shape: Shape) -> tuple[object, ...]:
    """Return the values of a Literal."""
    return get_args(shape.type) if get_origin(shape.type) is Literal else ()


def refusal(node: Node, shape: Shape) -> str:
    """Return what is wrong with the value at a place, and how to mend it where that is plain."""
    value, first = node.value, shape.arms[0]
    what = f"{shown(node)} is not {expected(shape)}"
    if choices(shape) and (isinstance(value, str) or shape.tagged or words(first)):
        return what + hint(value if isinstance(value, str) else "", choices(shape))
    if isinstance(value, int | float) and first.type is str:
        return f"{what}; put it in quotes"
    if isinstance(value, str) and get_origin(first.type) is tuple and _is_text(first.child("0")):
        return f"{what}; write `[{value}]`"
    if isinstance(value, str) and first.type in (int, float) and isinstance(scalar(value), int | float):
        return f"{what}; leave the quotes out"
    return what


def _is_text(shape: Shape) -> bool:
    return shape.type is str or bool(words(shape))


def _one(shape: Shape) -> str:
    if section := shape.section:
        return f"a section of {', '.join(section.model_fields)}"
    if words(shape):
        return f"`{choices(shape)[0]}`" if len(words(shape)) == 1 else "one of the choices"
    origin = get_origin(shape.type)
    if origin is tuple:
        return f"a list{_length(shape)}"
    if origin is dict:
        return "a table"
    return _NOUNS.get(shape.type, "text") + _range(shape)


def _length(shape: Shape) -> str:
    inner = get_args(shape.type)
    least = [limit.min_length for limit in shape.limits if isinstance(limit, annotated_types.MinLen)]
    if inner[-1] is not Ellipsis:
        return f" of {len(inner)}"
    return f" of {least[0]} or more" if least else ""


def _range(shape: Shape) -> str:
    """Return the limits of a number: ` above 0`, ` from 0 to 1`, ` from 0 to below 1`."""
    low, high = "", ""
    for limit in shape.limits:
        match limit:
            case annotated_types.Gt(gt=bound):
                low = f"above {bound:g}"
            case annotated_types.Ge(ge=bound):
                low = f"from {bound:g}"
            case annotated_types.Lt(lt=bound):
                high = f"below {bound:g}"
            case annotated_types.Le(le=bound):
                high = f"{bound:g}"
    return _phrase(low, high)


def _phrase(low: str, high: str) -> str:
    if low and high:
        return (
            f" {low} to {high}"
            if low.startswith("from")
            else f" {low} and {high if 'below' in high else 'up to ' + high}"
        )
    if low.startswith("from"):
        return f" of {low.removeprefix('from ')} or more"
    return f" {low or high}" if low or high else ""
