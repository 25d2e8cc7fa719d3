"""Where the knowledge comes from."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from configs.section import Section
from configs.sizes import Sizes

Bits = Literal["int8", "nf4", "fp4"]
WHOLE_BELOW = 100_000
"""Elements below which a weight of a sharded teacher stays whole, unless it is told otherwise."""


class LiveTeacher(Section):
    """A model that runs beside the student in every step."""

    kind: Literal["live"] = "live"
    model: str
    """A folder, a name on the hub, or `package:NAME` for an installed package that carries its model."""
    revision: str | None = None
    """Commit, tag or branch on the hub."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type the teacher's weights are held in."""
    quantise: Literal["none", Bits] = "none"
    """Hold the weights of its layers, not embeddings and heads, in 8 or 4 bits (bitsandbytes): a half or a quarter of
    what bf16 takes. It then only teaches."""


class ShardedTeacher(Section):
    """A model too large for one device, dealt out over all of them: each holds its part of every weight, and a layer is
    put together for as long as it computes (ZeRO-3, Rajbhandari et al. 2020). Beside it the student is trained under
    any strategy.
    """

    kind: Literal["sharded"]
    model: str
    """A folder, or a name on the hub."""
    revision: str | None = None
    """Commit, tag or branch on the hub."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Type the teacher's weights are held in."""
    offload: Literal["none", "cpu"] = "none"
    """Where its part of the weights lies between uses: on the device, or in the host's memory."""
    whole_below: NonNegativeInt = WHOLE_BELOW
    """Weights of fewer elements (biases, norms) are kept whole on each device: to gather them takes longer than to
    compute with them."""


class FreshTeacher(Sizes):
    """A model with random weights and a vocabulary made from the run's own rows; a stage has to train it.

    The vocabulary is BERT's WordPiece, lower-cased; for a generation SentencePiece's, joint for sources and targets.
    """

    kind: Literal["fresh"]
    architecture: str | None = None
    """A `model_type` of transformers; none: bert, or marian for a generation."""
    vocabulary: PositiveInt = 4000
    """Pieces of the vocabulary."""
    hidden_size: PositiveInt = 256
    intermediate_size: PositiveInt = 1024
    heads: PositiveInt = 4
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type the teacher's weights are held in."""


class AbsentTeacher(Section):
    """No model: what students learn from is written by one behind an API, or by people."""

    kind: Literal["none"]


Teacher = Annotated[LiveTeacher | ShardedTeacher | FreshTeacher | AbsentTeacher, Field(discriminator="kind")]


def bits_of(teacher: Teacher) -> Bits | None:
    """Return how a teacher is quantised, if it is."""
    if isinstance(teacher, LiveTeacher) and teacher.quantise != "none":
        return teacher.quantise
    return None
