"""Run a transformers model and keep just what a loss needs of its inside.

Hidden states come from transformers' own capturing, for the layers asked for. Attention scores, queries, keys and
values come from an attention function registered with transformers: it looks at the layers asked for and leaves every
other layer to SDPA. (With SDPA, `output_attentions=True` returns an empty tuple without an error; eager attention
returns probabilities, where TinyBERT's target is the score before the softmax.)
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.modeling_outputs import BaseModelOutput

from distill import attention
from distill.adapted_model import transformer
from distill.only_hidden import only_at, taken
from distill.types import Batch, Heads, Inside, Layers, Needs, Outputs, Shape, Side
from distill.virtual import Learned, answering_at_last, learned, without_learned

_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "decoder_input_ids")


@dataclass
class _Recorder(attention.Looker):
    """What one forward pass leaves behind; layers are counted by their calls, so shared layers (ALBERT) work too."""

    needs: Needs
    depth: int
    """Layers of the encoder, or of the one stack: after them, the layers of a decoder look at themselves and at the
    encoder in turn."""
    calls: int = 0
    side: Side = "encoder"
    layer: int = 0
    """Where the last call came from."""
    seen: dict[Side, Inside] = field(
        default_factory=lambda: {"encoder": Inside(), "decoder": Inside(), "cross": Inside()}
    )

    def sees(self, query: Tensor, key: Tensor, value: Tensor) -> bool:
        """Count a layer, keep its heads if they are asked for, and say whether its scores are."""
        self.side, self.layer = self._place()
        self.calls += 1
        wanted = self.needs.on(self.side)
        if self.layer in wanted.relations:
            groups = query.size(1) // key.size(1)  # grouped-query models share a key and a value among heads
            heads = Heads(query, repeat_kv(key, groups), repeat_kv(value, groups))
            self.seen[self.side].relations[self.layer] = heads
        return self.layer in wanted.attentions

    def keep(self, scores: Tensor) -> None:
        """Keep the scores of the layer that was seen last."""
        self.seen[self.side].attentions[self.layer] = scores

    def _place(self) -> tuple[Side, int]:
        """Return the side and the layer of the next call."""
        if self.calls < self.depth:
            return "encoder", self.calls + 1
        layer, looks_at_encoder = divmod(self.calls - self.depth, 2)
        return ("cross" if looks_at_encoder else "decoder"), layer + 1


def prepare(model: PreTrainedModel) -> None:
    """Give the model the attention function that can be looked into."""
    model.set_attn_implementation(attention.IMPLEMENTATION)
    for module in model.modules():  # layers that an adapter trains whole are copies, with a configuration of their own
        config = vars(module).get("config")
        if isinstance(config, PretrainedConfig):
            config._attn_implementation = attention.IMPLEMENTATION


def forward(model: PreTrainedModel, batch: Batch, needs: Needs) -> Outputs:
    """Run a prepared model on a batch and return what is needed, with gradients where they are on."""
    accepted = _accepted_inputs(model)
    inputs: dict[str, Any] = {name: batch[name] for name in _INPUTS if name in batch and name in accepted}  # type: ignore[literal-required]
    if needs.hidden_states or needs.decoder.hidden_states:  # of two stacks all: they need not be equally deep
        beside = model.config.is_encoder_decoder
        inputs["output_hidden_states"] = True if beside else sorted(needs.hidden_states)
    if "use_cache" in accepted:
        inputs["use_cache"] = False  # every position is there at once
    hidden, before = batch.get("hidden") if needs.logits else None, learned(model)
    with (
        _recording(needs, model.config.num_hidden_layers) as recorder,
        _bias_of_logits_as_computed(model),
        only_at(transformer(model), None if before.tokens else hidden),
        answering_at_last(model, batch.get("attention_mask")),
    ):
        result = model(**inputs)
    states = result.get("encoder_hidden_states" if model.config.is_encoder_decoder else "hidden_states")
    written = result.get("decoder_hidden_states")
    encoder, decoder = recorder.seen["encoder"], recorder.seen["decoder"]
    outputs = Outputs(
        logits=result.logits if needs.logits else None,
        hidden_states={layer: states[layer] for layer in needs.hidden_states},
        attentions=encoder.attentions,
        relations=encoder.relations,
        decoder=replace(decoder, hidden_states={layer: written[layer] for layer in needs.decoder.hidden_states}),
        cross=recorder.seen["cross"],
    )
    outputs = without_learned(outputs, before, beside=model.config.is_encoder_decoder)
    if before.tokens and hidden is not None and outputs.logits is not None:
        outputs = replace(outputs, logits=taken(outputs.logits, hidden))
    return replace(outputs, choices=_wrong_answers(model, batch, result)) if needs.choices else outputs


def _wrong_answers(model: PreTrainedModel, batch: Batch, result: Any) -> Tensor | None:
    """Return the logits [C U V] of a batch's wrong answers, `result` being what the model gave for the right ones.

    An encoder has read a row's source already, and what it gave serves all answers; a causal model reads the source
    again before each. So does any where learned vectors stand before the tokens, for which there is no mask here.
    """
    if "choices" not in batch:
        return result.logits[:0]  # type: ignore[no-any-return]
    choices, accepted = batch["choices"], _accepted_inputs(model)
    inputs: dict[str, Any] = {name: choices[name] for name in _INPUTS if name in choices and name in accepted}  # type: ignore[literal-required]
    beside, before = model.config.is_encoder_decoder, learned(model)
    if beside and before == Learned():
        states = BaseModelOutput(last_hidden_state=result.encoder_last_hidden_state[choices["rows"]])
        inputs |= {"input_ids": None, "encoder_outputs": states}
        inputs["attention_mask"] = batch["attention_mask"][choices["rows"]]
    if "use_cache" in accepted:
        inputs["use_cache"] = False
    with _bias_of_logits_as_computed(model):
        found = Outputs(logits=model(**inputs).logits)
    return without_learned(found, before, beside=beside).logits


def shape_of(model: PreTrainedModel, *, trained_head: bool) -> Shape:
    """Return the sizes of a model from its configuration; of an encoder-decoder, layers are those of the encoder."""
    config = model.config
    writes = model.get_output_embeddings() is not None  # each output is a token
    outputs = config.vocab_size if writes else int(config.num_labels or 0)
    heads = config.num_attention_heads
    return Shape(
        layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        heads=heads,
        head_size=getattr(config, "head_dim", None) or config.hidden_size // heads,
        outputs=outputs if trained_head else 0,
        decoder_layers=decoder_layers(config),
        causal=not config.is_encoder_decoder and _is_causal(model),
    )


def offers_of(model: PreTrainedModel, shape: Shape) -> Needs:
    """Return the most a prepared model can be asked for; attentions only where layers call the attention function."""
    blocks, written = (frozenset(range(1, depth + 1)) for depth in (shape.layers, shape.decoder_layers))
    seen = frozenset(_attention_layers(model, shape)) & blocks
    asked = written if seen else frozenset[int]()  # a decoder is told from its encoder by the calls before it
    both = frozenset({0}) if written else frozenset[int]()
    return Needs(
        shape.outputs > 0,
        blocks | {0},
        seen,
        seen,
        decoder=Layers(written | both, asked, asked),
        cross=Layers(attentions=asked),
        choices=shape.outputs > 0 and (shape.causal or shape.decoder_layers > 0),
    )


def decoder_layers(config: Any) -> int:
    """Return the layers of a decoder beside an encoder; 0 where there is none."""
    if not config.is_encoder_decoder:
        return 0
    return int(getattr(config, "decoder_layers", None) or config.num_decoder_layers)


def _attention_layers(model: PreTrainedModel, shape: Shape) -> Iterator[int]:
    """Yield the attention layers that call the registered function, found by a forward pass over two tokens; of an
    encoder-decoder none unless all do.
    """
    every = Needs(relations=frozenset(range(1, shape.layers + 1)))
    with _recording(every, shape.layers) as recorder:
        probe(model, [0, 0])
    if recorder.calls == shape.layers + 2 * shape.decoder_layers or not shape.decoder_layers:
        yield from recorder.seen["encoder"].relations


def _is_causal(model: PreTrainedModel) -> bool:
    """Whether the first position is blind to the second; without weights, whether the attention layers say so."""
    if next(model.parameters()).is_meta:
        return any(vars(module).get("is_causal") is True for module in model.modules())
    first, other = (probe(model, [0, token]).hidden_states[-1][:, 0] for token in (1, 2))
    return torch.equal(first, other)


@torch.no_grad()
def probe(model: PreTrainedModel, tokens: list[int]) -> Any:
    """Run a model over a few tokens, all hidden states included."""
    ids = torch.tensor([tokens], device=next(model.parameters()).device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "decoder_input_ids": ids}
    accepted = _accepted_inputs(model)
    training = model.training
    model.eval()
    found = model(**{name: value for name, value in inputs.items() if name in accepted}, output_hidden_states=True)
    model.train(training)
    return found


@contextmanager
def _recording(needs: Needs, depth: int) -> Iterator[_Recorder]:
    recorder = _Recorder(needs, depth)
    with attention.looking(recorder):
        yield recorder


@contextmanager
def _bias_of_logits_as_computed(model: PreTrainedModel) -> Iterator[None]:
    """Hold what Marian, BART and their kin add to finished logits in the type that products are computed in, as
    autocast holds the bias of a layer. In fp32 it would make fp32 of logits in bf16, and of every pass over them.
    """
    owner = transformer(model)
    bias = owner._buffers.get("final_logits_bias")
    if bias is None or not torch.is_autocast_enabled(bias.device.type):
        yield
        return
    owner._buffers["final_logits_bias"] = bias.to(torch.get_autocast_dtype(bias.device.type))
    try:
        yield
    finally:
        owner._buffers["final_logits_bias"] = bias


def _accepted_inputs(model: PreTrainedModel) -> frozenset[str]:
    return frozenset(inspect.signature(transformer(model).forward).parameters)
