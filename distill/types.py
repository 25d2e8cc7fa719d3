"""The words every part speaks: batches, what a loss needs, what a model gives.

Sizes in shapes: B batch · T positions · U target positions · V classes or vocabulary · H heads · D width ·
A width of one head · L layers.
"""

from dataclasses import dataclass, field
from typing import Literal, NotRequired, TypedDict

from torch import Tensor

Unit = Literal["examples", "labelled", "positions", "targets", "pairs", "padded_positions", "padded_pairs"]
"""What a loss term sums over: rows · rows with a gold label · unmasked positions · target tokens, end tokens included ·
unmasked query–key pairs; the padded ones count padding too, as TinyBERT's released code does."""

IGNORED = -100
"""Class label that does not count; for regression a label that does not count is NaN."""


class Batch(TypedDict):
    """One micro-batch."""

    input_ids: Tensor
    """[B T] int64"""
    attention_mask: Tensor
    """[B T] int64, 1 where the row has a token"""
    token_type_ids: NotRequired[Tensor]
    """[B T] int64"""
    labels: Tensor
    """[B] int64 class (IGNORED does not count) or float32 score (NaN does not count); of a generation [B U] int64: the
    token to be written after position u (IGNORED does not count). U is T where source and target are one sequence."""
    decoder_input_ids: NotRequired[Tensor]
    """[B U] int64, of an encoder-decoder: its start token and the target without the last token"""
    example_ids: Tensor
    """[B] int64, the key of a row in every cache"""
    window_counts: dict[Unit, float]
    """Size of the whole optimiser window over all ranks, in every unit"""
    progress: float
    """Fraction of the training that lies behind, for schedules"""
    step: int
    """Number of the optimiser step this batch belongs to"""


@dataclass(frozen=True)
class Needs:
    """What a forward pass is asked for; `a | b` asks for both. Layer 0 of the hidden states is the embeddings' output,
    layer i ≥ 1 the output of block i; attention layers count from 1 as well."""

    logits: bool = False
    hidden_states: frozenset[int] = frozenset()
    attentions: frozenset[int] = frozenset()
    """Layers whose scores before the softmax are wanted."""
    relations: frozenset[int] = frozenset()
    """Layers whose queries, keys and values are wanted."""

    def __or__(self, other: "Needs") -> "Needs":
        return Needs(
            self.logits or other.logits,
            self.hidden_states | other.hidden_states,
            self.attentions | other.attentions,
            self.relations | other.relations,
        )


@dataclass(frozen=True)
class Heads:
    """Queries, keys and values of one layer, per head."""

    query: Tensor
    """[B H T A]"""
    key: Tensor
    """[B H T A]"""
    value: Tensor
    """[B H T A]"""


@dataclass(frozen=True)
class Outputs:
    """What a forward pass gave: just what was asked for."""

    logits: Tensor | None = None
    """[B V]; of a generation [B U V]"""
    hidden_states: dict[int, Tensor] = field(default_factory=dict)
    """{layer: [B T D]}"""
    attentions: dict[int, Tensor] = field(default_factory=dict)
    """{layer: [B H T T]}: scores q·k/√A before mask and softmax"""
    relations: dict[int, Heads] = field(default_factory=dict)


@dataclass(frozen=True)
class Shape:
    """The sizes of a model that losses have to agree on."""

    layers: int
    hidden_size: int
    heads: int
    head_size: int
    outputs: int = 0
    """Classes, 1 for a regression, or the vocabulary; 0 where the model has no head that was trained."""


@dataclass(frozen=True)
class Text:
    """One text a teacher wrote."""

    text: str
    tokens: tuple[int, ...] | None
    """With the end token, if it was reached; none where the teacher does not tell."""
    score: float | None
    """Σ log p / length^α; none where the teacher does not tell."""
    ended: bool
    """Whether it ended by itself, and not at a limit."""


@dataclass(frozen=True)
class Completion:
    """What a teacher wrote for one prompt, the best first."""

    texts: tuple[Text, ...]
