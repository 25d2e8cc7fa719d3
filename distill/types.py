"""The words every part speaks: batches, what a loss needs, what a model gives.

Sizes in shapes: B batch · T positions · U target positions · V classes or vocabulary · H heads · D width ·
A width of one head · L layers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, NotRequired, TypedDict

from torch import Tensor

Unit = Literal[
    "examples",
    "labelled",
    "positions",
    "targets",
    "weighted_targets",
    "wrong_tokens",
    "choice_rows",
    "pairs",
    "causal_pairs",
    "target_pairs",
    "cross_pairs",
    "padded_positions",
    "padded_pairs",
]
"""What a loss term sums over: rows · rows with a gold label · unmasked positions · positions at which something is to
be said (target tokens, end tokens included; first tokens of words with a class; hidden tokens) · the same, each times
the weight of its row · tokens of wrong answers, end tokens included · rows that have wrong answers · unmasked query–key
pairs, T² a row; those a causal model looks at, T(T+1)/2; those of a decoder, U(U+1)/2; those between decoder and
encoder, U·T; the padded ones count padding too, as TinyBERT's own code does."""

Side = Literal["encoder", "decoder", "cross"]
"""Where in a model layers are: in its encoder, or in the one stack it has; in the decoder beside an encoder; where that
decoder looks at the encoder."""

IGNORED = -100
"""Class label that does not count; for regression a label that does not count is NaN."""


class Choices(TypedDict):
    """The wrong answers of a micro-batch's rows, C in all, each after its own source; see `Batch`."""

    input_ids: Tensor
    """[C T]"""
    attention_mask: Tensor
    """[C T]"""
    labels: Tensor
    """[C U]"""
    decoder_input_ids: NotRequired[Tensor]
    """[C U]"""
    rows: Tensor
    """[C] int64: which row of the micro-batch each belongs to, ascending"""


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
    token to be written after position u (IGNORED does not count). U is T where source and target are one sequence. Of a
    tagging [B T] int64: the class of the word that begins here; of hidden tokens [B T] int64: what is hidden here, and
    [1 N] for the terms of an objective, as the logits."""
    hidden: NotRequired[Tensor]
    """[N] int64, ascending: which of the B·T positions hide a token; with it logits are asked for at these alone"""
    decoder_input_ids: NotRequired[Tensor]
    """[B U] int64, of an encoder-decoder: its start token and the target without the last token"""
    example_ids: Tensor
    """[B] int64, the key of a row in every cache"""
    weights: NotRequired[Tensor]
    """[B] fp32, how much the target tokens of a row count where they are learnt from; absent where all count 1"""
    sources: NotRequired[Tensor]
    """[B] int64, which of the training's sources a row is from, in their order; absent where there is one"""
    choices: NotRequired[Choices]
    """Answers that are wrong; absent where no row has any"""
    window_counts: dict[Unit, float]
    """Size of the whole optimiser window over all ranks, in every unit"""
    progress: float
    """Fraction of the training that lies behind, for schedules"""
    step: int
    """Number of the optimiser step this batch belongs to"""
    spare: NotRequired[bool]
    """Whether the window has no row for this micro-batch: the one that stands here adds nothing to any loss"""


@dataclass(frozen=True)
class Layers:
    """Layers of one side of a model. Layer 0 of the hidden states is the embeddings' output, layer i ≥ 1 the output of
    block i; attention layers count from 1 as well."""

    hidden_states: frozenset[int] = frozenset()
    attentions: frozenset[int] = frozenset()
    """Layers whose scores before the softmax are wanted."""
    relations: frozenset[int] = frozenset()
    """Layers whose queries, keys and values are wanted."""

    def joined(self, other: "Layers", how: Callable[[frozenset[int], frozenset[int]], frozenset[int]]) -> "Layers":
        """Join with other layers by a set operation."""
        return Layers(
            how(self.hidden_states, other.hidden_states),
            how(self.attentions, other.attentions),
            how(self.relations, other.relations),
        )


@dataclass(frozen=True)
class Needs:
    """What a forward pass is asked for; `a | b` asks for both. Layers are those of the encoder, or of the one stack a
    model has, unless they stand under `decoder` or `cross`."""

    logits: bool = False
    hidden_states: frozenset[int] = frozenset()
    attentions: frozenset[int] = frozenset()
    relations: frozenset[int] = frozenset()
    decoder: Layers = Layers()
    cross: Layers = Layers()
    choices: bool = False
    """Logits of the wrong answers too."""

    @staticmethod
    def of(side: Side, layers: Layers, *, logits: bool = False) -> "Needs":
        """Ask for layers of one side."""
        match side:
            case "encoder":
                return Needs(logits, layers.hidden_states, layers.attentions, layers.relations)
            case "decoder":
                return Needs(logits, decoder=layers)
            case "cross":
                return Needs(logits, cross=layers)

    def on(self, side: Side) -> Layers:
        """Return what is asked of one side."""
        match side:
            case "encoder":
                return Layers(self.hidden_states, self.attentions, self.relations)
            case "decoder":
                return self.decoder
            case "cross":
                return self.cross

    def __or__(self, other: "Needs") -> "Needs":
        joined = self._joined(other, frozenset.union, logits=self.logits or other.logits)
        return replace(joined, choices=self.choices or other.choices)

    def __sub__(self, other: "Needs") -> "Needs":
        left = self._joined(other, frozenset.difference, logits=self.logits and not other.logits)
        return replace(left, choices=self.choices and not other.choices)

    def _joined(
        self, other: "Needs", how: Callable[[frozenset[int], frozenset[int]], frozenset[int]], *, logits: bool
    ) -> "Needs":
        own = self.on("encoder").joined(other.on("encoder"), how)
        decoder, cross = self.decoder.joined(other.decoder, how), self.cross.joined(other.cross, how)
        return Needs(logits, own.hidden_states, own.attentions, own.relations, decoder, cross)


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
class TopK:
    """The K most likely tokens at every target position."""

    indices: Tensor
    """[B U K] int64"""
    log_probs: Tensor
    """[B U K] fp32, of the whole vocabulary's softmax"""


@dataclass(frozen=True)
class Inside:
    """What layers of one side of a model gave."""

    hidden_states: dict[int, Tensor] = field(default_factory=dict)
    """{layer: [B T D]}; of a decoder [B U D]"""
    attentions: dict[int, Tensor] = field(default_factory=dict)
    """{layer: [B H T T]}: scores q·k/√A before mask and softmax; of a decoder [B H U U], of its looks at the encoder
    [B H U T]"""
    relations: dict[int, Heads] = field(default_factory=dict)


@dataclass(frozen=True)
class Outputs:
    """What a forward pass gave: just what was asked for; see `Needs`."""

    logits: Tensor | None = None
    """[B V]; of a generation [B U V]; of a tagging [B T V]; of hidden tokens [1 N V], or [B T V] where the batch does
    not say which they are"""
    top_k: TopK | None = None
    """In place of logits, from a teacher that was recorded."""
    hidden_states: dict[int, Tensor] = field(default_factory=dict)
    attentions: dict[int, Tensor] = field(default_factory=dict)
    relations: dict[int, Heads] = field(default_factory=dict)
    decoder: Inside = field(default_factory=Inside)
    cross: Inside = field(default_factory=Inside)
    choices: Tensor | None = None
    """[C U V] of the wrong answers; [0 U V] where no row has any"""

    def on(self, side: Side) -> Inside:
        """Return what one side gave."""
        match side:
            case "encoder":
                return Inside(self.hidden_states, self.attentions, self.relations)
            case "decoder":
                return self.decoder
            case "cross":
                return self.cross


@dataclass(frozen=True)
class Shape:
    """The sizes of a model that losses have to agree on."""

    layers: int
    hidden_size: int
    heads: int
    head_size: int
    outputs: int = 0
    """Classes, 1 for a regression, or the vocabulary; 0 where the model has no head that was trained."""
    decoder_layers: int = 0
    """Of a decoder beside an encoder."""
    kept: int | None = None
    """Tokens whose log-probabilities were kept of each target position; none: there are logits."""
    causal: bool = False
    """Whether no position of its one stack looks at a later one."""

    def describe(self) -> str:
        """Return layers and width, as `6 × 384` or `6 + 2 × 256`."""
        layers = f"{self.layers} + {self.decoder_layers}" if self.decoder_layers else str(self.layers)
        return f"{layers} × {self.hidden_size}"

    def depth(self, side: Side) -> int:
        """Return the number of layers of a side."""
        return self.layers if side == "encoder" else self.decoder_layers


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
