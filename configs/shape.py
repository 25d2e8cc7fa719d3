"""What the sections allow at each place, read from their annotations."""

from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from configs.section import Section
from configs.tree import Node


@dataclass(frozen=True, slots=True)
class Shape:
    """An annotation taken apart: the type, its limits, and whether it is a union that `kind` decides."""

    type: Any
    limits: tuple[Any, ...] = ()
    tagged: bool = False

    @property
    def section(self) -> type[Section] | None:
        """Return the section this is, if it is one."""
        return self.type if isinstance(self.type, type) and issubclass(self.type, Section) else None

    @property
    def arms(self) -> tuple["Shape", ...]:
        """Return the members of a union, without None; other shapes have only themselves."""
        if get_origin(self.type) in (Union, UnionType):
            return tuple(shape_of(arm) for arm in get_args(self.type) if arm is not NoneType)
        return (self,)

    @property
    def nullable(self) -> bool:
        """Return whether null is a value."""
        return NoneType in get_args(self.type)

    @property
    def kinds(self) -> dict[str, "Shape"]:
        """Return the members of a union that `kind` decides, by kind."""
        sections = [(arm, arm.section) for arm in self.arms if self.tagged]
        return {kind: arm for arm, section in sections if section for kind in _kinds(section)}

    @property
    def default_kind(self) -> str | None:
        """Return the kind a section has that names none."""
        sections = [arm.section for arm in self.arms if self.tagged]
        fields = [section.model_fields["kind"] for section in sections if section]
        return next((field.default for field in fields if not field.is_required()), None)

    @property
    def named(self) -> bool:
        """Return whether this is a table of sections by name, whose entries null removes."""
        return get_origin(self.type) is dict and bool(self.child("").kinds)

    def arm(self, node: Node) -> "Shape":
        """Return the member of a union that the node is meant as; the union itself where that cannot be told."""
        if self.tagged:
            return self.kinds.get(node.kind or self.default_kind or "", self)
        if len(self.arms) == 1:
            return self.arms[0]
        if isinstance(node.value, dict):
            fitting = [arm for arm in self.arms if arm.section or get_origin(arm.type) is dict]
        else:
            fitting = [arm for arm in self.arms if isinstance(node.value, list) and get_origin(arm.type) is tuple]
        return fitting[0] if fitting else self

    def child(self, key: str) -> "Shape":
        """Return what is allowed under a key or at a position; anything where that is not known."""
        if section := self.section:
            field = section.model_fields.get(key)
            return shape_of(field.annotation, (field,)) if field else ANYTHING
        inner = get_args(self.type)
        if get_origin(self.type) is dict:
            return shape_of(inner[1])
        if get_origin(self.type) is tuple:
            return shape_of(inner[0])
        return ANYTHING


ANYTHING = Shape(object)


def shape_of(annotation: Any, notes: tuple[Any, ...] = ()) -> Shape:
    """Take an annotation apart."""
    while get_origin(annotation) is Annotated:
        annotation, notes = annotation.__origin__, (*notes, *annotation.__metadata__)
    inner = [arm for arm in get_args(annotation) if arm is not NoneType]
    if get_origin(annotation) in (Union, UnionType) and len(inner) == 1:
        held = shape_of(inner[0], notes)
        if held.tagged:  # a union that `kind` decides, or null
            return Shape(held.type | None, held.limits, tagged=True)
    fields = [note for note in notes if isinstance(note, FieldInfo)]
    limits = [note for note in notes if not isinstance(note, FieldInfo)]
    limits += [limit for field in fields for limit in field.metadata]
    return Shape(annotation, tuple(limits), any(field.discriminator for field in fields))


def _kinds(section: type[Section]) -> tuple[str, ...]:
    annotation = section.model_fields["kind"].annotation
    return get_args(annotation) if get_origin(annotation) is Literal else ()
