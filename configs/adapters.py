"""What a frozen model learns through: small parts beside it, or few of its own parameters."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from configs.section import Section

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Virtual = Annotated[int, Field(ge=1, le=1000)]


class _Adapter(Section):
    """What every kind can say."""

    mergeable: ClassVar[bool] = True
    """Whether its algebra lets the frozen weights take it in; of a method by name, it is tried with the model."""
    also: tuple[str, ...] = ()
    """Modules trained whole and saved with the adapter, by the ends of their names; a head of the task always is."""


class _Targeted(_Adapter):
    """A kind that changes single matrices."""

    targets: Literal["attention", "query_value", "feed_forward", "all"] | tuple[str, ...] = "query_value"
    """Which matrices: groups that every known architecture has, or the ends of their modules' names."""


class Lora(_Targeted):
    """Low-rank updates W + (α/r)·B·A (Hu et al. 2022), and what was made of them."""

    kind: Literal["lora"]
    rank: PositiveInt = 8
    alpha: PositiveFloat = 16.0
    dropout: Rate = 0.0
    dora: bool = False
    """Learn direction and length apart (DoRA; Liu et al. 2024)."""
    rslora: bool = False
    """Scale by α/√r (Kalajdzievski 2023)."""
    init: Literal["default", "gaussian", "pissa", "olora", "orthogonal"] = "default"
    """`pissa` begins with the largest singular values (Meng et al. 2024): the frozen rest is not the base any more."""
    b_rate: PositiveFloat = 1.0
    """How many times faster B learns than A (LoRA+; Hayou et al. 2024; they advise 16)."""


class AdaLora(_Targeted):
    """Low-rank updates whose ranks are shared out among the matrices while training (Zhang et al. 2023)."""

    kind: Literal["adalora"]
    rank: PositiveInt = 4
    """Mean rank at the end."""
    initial_rank: PositiveInt = 8
    alpha: PositiveFloat = 16.0
    dropout: Rate = 0.0
    warmup: Fraction = 0.1
    """Part of the training before ranks begin to shrink."""
    settled: Fraction = 0.2
    """Part of the training at its end in which they stay."""
    orthogonality: Annotated[float, Field(ge=0.0)] = 0.5
    """Weight of the term that keeps the factors orthogonal."""

    @model_validator(mode="after")
    def _shrinks(self) -> "AdaLora":
        if self.rank >= self.initial_rank:
            raise ValueError(
                f"`rank: {self.rank}` must be below `initial_rank: {self.initial_rank}`, from which the ranks shrink; "
                "`kind: lora` keeps one rank"
            )
        if self.warmup + self.settled >= 1:
            raise ValueError(
                f"`warmup: {self.warmup:g}` and `settled: {self.settled:g}` leave no part of the training in which the "
                "ranks shrink; their sum must be below 1"
            )
        return self


class Ia3(_Adapter):
    """Learned factors on keys, values and the feed-forward layer's inside ((IA)³; Liu et al. 2022)."""

    kind: Literal["ia3"]
    targets: tuple[str, ...] = ()
    """Ends of the names of other matrices to learn factors at: on what goes into those that lead back to the model's
    width, on what comes out of the rest. None: the paper's places."""


class Norms(_Adapter):
    """The weights of all normalisations (LN tuning)."""

    kind: Literal["norms"]


class BitFit(_Adapter):
    """All biases (Ben Zaken et al. 2022), or those of some modules."""

    kind: Literal["bitfit"]
    targets: tuple[str, ...] = ()
    """Ends of the names of the modules; none: all that have a bias."""


class TopLayers(_Adapter):
    """The uppermost layers, trained whole."""

    kind: Literal["top_layers"]
    layers: PositiveInt
    """Of an encoder-decoder, of its decoder."""


class PromptTuning(_Adapter):
    """Learned vectors before the embedded tokens (Lester et al. 2021)."""

    mergeable: ClassVar[bool] = False
    kind: Literal["prompt"]
    tokens: Virtual = 20


class PTuning(_Adapter):
    """Learned vectors before the embedded tokens, made by a small network while training (Liu et al. 2021)."""

    mergeable: ClassVar[bool] = False
    kind: Literal["p_tuning"]
    tokens: Virtual = 20
    width: PositiveInt = 128
    """Of the network."""


class _Sited(_Adapter):
    """A kind of our own: parts at some places of every layer."""

    leave_out: tuple[NonNegativeInt, ...] = ()
    """Layers without parts (AdapterDrop; Rücklé et al. 2021), 0 the lowest; of an encoder-decoder, of both sides."""
    drop: NonNegativeInt = 0
    """While training, leave out the parts of the lowest n layers, n drawn from 0 … this for every batch; one layer at
    least keeps its own."""
    on: tuple[str, ...] = ()
    """Folders of adapters that stay below this one, frozen, in order, with those that they stand on themselves: MAD-X
    puts a task's above a language's."""


class Prefix(_Sited):
    """Learned keys and values that every layer attends to (Li and Liang 2021), on all sides a model has."""

    mergeable: ClassVar[bool] = False
    kind: Literal["prefix"]
    tokens: Virtual = 20
    width: PositiveInt | None = 512
    """Of the network that makes them while training; none: they are parameters themselves."""
    sides: Annotated[tuple[Literal["encoder", "decoder", "cross"], ...], Field(min_length=1)] | None = None
    """None: all that the model has. Those of an encoder-decoder are three; others have one stack, `encoder` here."""


class Bottleneck(_Sited):
    """Small feed-forward networks in every layer (Houlsby et al. 2019)."""

    mergeable: ClassVar[bool] = False
    kind: Literal["bottleneck"]
    place: Literal["houlsby", "pfeiffer", "parallel"] = "houlsby"
    """`houlsby`: after attention and after the feed-forward layer, and the normalisations train; `pfeiffer`: one a
    layer, after the feed-forward layer (Pfeiffer et al. 2021); `parallel`: beside it (He et al. 2022)."""
    size: PositiveInt = 64
    """Width inside."""
    activation: str = "gelu"
    scale: PositiveFloat | None = None
    """Factor on what it adds; none: 4 where parallel, 1 elsewhere."""
    norms: bool | None = None
    """Train the normalisations too; none: where `place` is `houlsby`."""
    kronecker: PositiveInt | None = None
    """Make the matrices of this many Kronecker products, with factors shared by all layers (Compacter; Karimi Mahabadi
    et al. 2021)."""
    invertible: Annotated[int, Field(ge=2)] | None = None
    """Put an invertible part after the embeddings, its inverse before the output (MAD-X; Pfeiffer et al. 2020); its
    networks are this many times narrower than half the embeddings."""


class MixAndMatch(_Sited):
    """A parallel bottleneck and a prefix (He et al. 2022)."""

    mergeable: ClassVar[bool] = False
    kind: Literal["mix_and_match"]
    size: PositiveInt = 512
    tokens: Virtual = 30
    width: PositiveInt | None = 512
    scale: PositiveFloat = 4.0
    activation: str = "relu"


class Fusion(_Adapter):
    """Attention over the outputs of frozen adapters, learned in every layer (Pfeiffer et al. 2021)."""

    mergeable: ClassVar[bool] = False
    kind: Literal["fusion"]
    of: Annotated[dict[str, str], Field(min_length=2)]
    """Name and folder of each adapter; all of kind `bottleneck`, at the same places, and trained without what a model
    has one of for all: `norms`, `also`, `invertible`, `on`."""
    regularisation: Annotated[float, Field(ge=0.0)] = 0.01
    """Weight of ‖V − I‖² over all layers' value matrices."""


class Experts(_Adapter):
    """A few small networks after the last normalisation, mixed by a gate."""

    mergeable: ClassVar[bool] = False
    kind: Literal["experts"]
    experts: PositiveInt = 4
    size: PositiveInt = 64
    activation: str = "gelu"
    original: Fraction = 0.0
    """How much of the original model's output is mixed in: 0 follows the experts, 1 is the original."""


_SEVERAL = "asks of every row which of several tasks it is of, which no row here says"
NOT_HERE = {
    "poly": _SEVERAL,
    "multitask_prompt_tuning": _SEVERAL,
    "shadow": "passes more from layer to layer than hidden states, and learns by a loss of its own",
    "xlora": "mixes adapters by a table of their folders, which `options` cannot hold",
}
"""Methods of peft that do not work here, and why."""
_NEEDED = {"trainable_tokens": "token_indices", "cpt": "cpt_token_ids"}
"""Options without which a method has nothing to train."""
_OF_ITS_LOSS = {"cpt": ("opt_weighted_loss_type", "opt_loss_decay_factor")}
"""Options that only a method's own loss reads."""


class Peft(_Adapter):
    """Any method of the library peft, by its name there."""

    kind: Literal["peft"]
    method: str
    """As `vera`, `oft`, `boft`, `loha`, `lokr` …"""
    options: dict[str, str | int | float | bool | list[str] | list[int] | None] = {}
    """Keys of the method's own configuration."""

    @model_validator(mode="after")
    def _is_for_here(self) -> "Peft":
        if reason := NOT_HERE.get(self.method.lower()):
            raise ValueError(f"`{self.method}` {reason}")
        if (key := _NEEDED.get(self.method.lower())) and not self.options.get(key):
            raise ValueError(f"`{self.method}` needs a list of token ids; write `options: {{{key}: [...]}}`")
        if unread := [key for key in self.options if key in _OF_ITS_LOSS.get(self.method.lower(), ())]:
            raise ValueError(f"`options.{unread[0]}` is of a loss of peft's own; `objective` says what is learnt")
        return self

    @model_validator(mode="after")
    def _has_a_kind(self) -> "Peft":
        own = {"lora": "lora", "adalora": "adalora", "ia3": "ia3", "ln_tuning": "norms", "prompt_tuning": "prompt"}
        own |= {"p_tuning": "p_tuning", "prefix_tuning": "prefix"}
        if self.method.lower() in own:
            raise ValueError(f"`{self.method}` has a kind of its own here; write `kind: {own[self.method.lower()]}`")
        return self


AnyAdapter = (
    Lora
    | AdaLora
    | Ia3
    | Norms
    | BitFit
    | TopLayers
    | PromptTuning
    | PTuning
    | Prefix
    | Bottleneck
    | MixAndMatch
    | Fusion
    | Experts
    | Peft
)
Adapter = Annotated[AnyAdapter, Field(discriminator="kind")]
