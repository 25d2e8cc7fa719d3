"""What is trained: a model from sizes, from layers of the teacher, or from a folder."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from configs.section import Section


class SizedStudent(Section):
    """A fresh model of given sizes, with the teacher's vocabulary."""

    kind: Literal["sizes"]
    architecture: str | None = None
    """A `model_type` of transformers (bert, electra, roberta …); none takes the teacher's."""
    layers: PositiveInt = 4
    hidden_size: PositiveInt = 312
    intermediate_size: PositiveInt = 1200
    heads: PositiveInt = 12
    options: dict[str, str | int | float | bool | None] = {}
    """Further keys of the architecture's own configuration."""


class LayersStudent(Section):
    """A copy of the teacher that keeps some of its layers."""

    kind: Literal["teacher_layers"]
    layers: PositiveInt | tuple[NonNegativeInt, ...]
    """How many (spread evenly, the last always kept), or which (0 is the lowest layer)."""


class FolderStudent(Section):
    """A model from a folder or the hub, with the teacher's vocabulary."""

    kind: Literal["folder"]
    model: str
    revision: str | None = None


Student = Annotated[SizedStudent | LayersStudent | FolderStudent, Field(discriminator="kind")]
