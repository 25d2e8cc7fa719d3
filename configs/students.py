"""What is trained: a model from sizes, from layers of the teacher, or from a folder; whole, or through an adapter."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from configs.adapters import Adapter
from configs.section import Section
from configs.sizes import Sizes


class SizedStudent(Sizes):
    """A fresh model of given sizes, with the teacher's vocabulary."""

    kind: Literal["sizes"]
    architecture: str | None = None
    """A `model_type` of transformers (bert, electra, marian, t5 …); none takes the teacher's."""
    hidden_size: PositiveInt = 312
    intermediate_size: PositiveInt = 1200
    heads: PositiveInt = 12


class _Given(Section):
    """A student whose weights come from somewhere."""

    adapter: Adapter | None = None
    """Freeze the weights and learn through this; none: all of them learn."""


class LayersStudent(_Given):
    """A copy of the teacher that keeps some of its layers."""

    kind: Literal["teacher_layers"]
    layers: PositiveInt | tuple[NonNegativeInt, ...]
    """How many (spread evenly, the last always kept), or which (0 is the lowest layer); of an encoder-decoder, of its
    encoder."""
    decoder_layers: PositiveInt | tuple[NonNegativeInt, ...] | None = None
    """The same of the decoder, of an encoder-decoder; none keeps all."""


class FolderStudent(_Given):
    """A model from a folder or the hub, with the teacher's vocabulary."""

    kind: Literal["folder"]
    model: str
    revision: str | None = None


class BaseStudent(_Given):
    """The run's own teacher model as given; with an adapter it may learn from itself."""

    kind: Literal["teacher"]


Student = Annotated[SizedStudent | LayersStudent | FolderStudent | BaseStudent, Field(discriminator="kind")]
