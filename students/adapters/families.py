"""Where the parts of a layer lie in each architecture, as ends of module names; # stands for a number."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from transformers import PreTrainedModel

from configs.errors import suggest
from distill.errors import ModelError

Ends = tuple[str, ...]
_LAYER = re.compile(r"\.(\d+)\.|\.(\d+)$")


@dataclass(frozen=True)
class Family:
    """The places of one architecture; a module is meant where its name is such an end, or has it after a dot."""

    query: Ends
    key: Ends
    value: Ends
    """One matrix that makes all three stands under each."""
    attention_output: Ends
    """Back to the model's width, before residual and normalisation; of a decoder, where it looks at the encoder too."""
    up: Ends
    """Into the feed-forward layer; all take the same input."""
    down: Ends
    """Out of it, before residual and normalisation."""
    norms: Ends
    attention: Ends
    """The modules that attend, themselves."""
    residual: tuple[str, str]
    """From the end of the name of `down` to that of the module whose input the feed-forward layer is added to: its
    first matrix where normalisations follow residuals, else the normalisation before it."""
    last_norm: Ends
    """The normalisations whose last one ends the model, or each of its sides."""
    embedded: Ends
    """What gives the embeddings; of an encoder-decoder, the encoder's."""
    layers: str
    """The list of layers."""
    after: str = ""
    """The normalisation a layer ends with, where it follows the residual; empty where normalisations come first."""
    cross: str = ""
    """In the names of the modules with which a decoder looks at its encoder."""


_BERT = Family(
    query=("attention.self.query",),
    key=("attention.self.key",),
    value=("attention.self.value",),
    attention_output=("attention.output.dense",),
    up=("intermediate.dense",),
    down=("layer.#.output.dense",),
    norms=("LayerNorm",),
    attention=("attention.self",),
    residual=("output.dense", "intermediate.dense"),
    last_norm=("layer.#.output.LayerNorm",),
    embedded=("embeddings.dropout",),  # not what is around it, which holds a normalisation that may train
    layers="encoder.layer",
    after="layer.#.output.LayerNorm",
)
_DEBERTA = replace(_BERT, query=("query_proj",), key=("key_proj",), value=("value_proj",))
_MPNET = replace(
    _BERT, query=("attn.q",), key=("attn.k",), value=("attn.v",), attention_output=("attn.o",), attention=("attn",)
)
_ALBERT = replace(
    _BERT,
    query=("attention.query",),
    key=("attention.key",),
    value=("attention.value",),
    attention_output=("attention.dense",),
    up=("ffn",),
    down=("ffn_output",),
    norms=("LayerNorm", "full_layer_layer_norm"),
    attention=("attention",),
    residual=("ffn_output", "ffn"),
    last_norm=("full_layer_layer_norm",),
    layers="albert_layers",
    after="full_layer_layer_norm",
)
_DISTILBERT = replace(
    _BERT,
    query=("q_lin",),
    key=("k_lin",),
    value=("v_lin",),
    attention_output=("out_lin",),
    up=("ffn.lin1",),
    down=("ffn.lin2",),
    norms=("sa_layer_norm", "output_layer_norm", "embeddings.LayerNorm"),
    attention=("attention",),
    residual=("lin2", "lin1"),
    last_norm=("output_layer_norm",),
    layers="transformer.layer",
    after="output_layer_norm",
)
_MODERNBERT = Family(
    query=("Wqkv",),
    key=("Wqkv",),
    value=("Wqkv",),
    attention_output=("attn.Wo",),
    up=("mlp.Wi",),
    down=("mlp.Wo",),
    norms=("attn_norm", "mlp_norm", "final_norm", "embeddings.norm"),
    attention=("attn",),
    residual=("mlp.Wo", "mlp_norm"),
    last_norm=("final_norm",),
    embedded=("embeddings.drop",),
    layers="layers",
)
_BART = Family(
    query=("q_proj",),
    key=("k_proj",),
    value=("v_proj",),
    attention_output=("out_proj",),
    up=("fc1",),
    down=("fc2",),
    norms=("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm", "layer_norm", "layernorm_embedding"),
    attention=("self_attn", "encoder_attn"),
    residual=("fc2", "fc1"),
    last_norm=("final_layer_norm",),
    embedded=("encoder.layernorm_embedding",),
    layers="layers",
    after="final_layer_norm",
    cross="encoder_attn",
)
_MARIAN = replace(_BART, embedded=("encoder.embed_tokens",))
_PRE_NORM_BART = replace(
    _MARIAN, residual=("fc2", "final_layer_norm"), last_norm=("encoder.layer_norm", "decoder.layer_norm"), after=""
)
_T5 = Family(
    query=("SelfAttention.q", "EncDecAttention.q"),
    key=("SelfAttention.k", "EncDecAttention.k"),
    value=("SelfAttention.v", "EncDecAttention.v"),
    attention_output=("SelfAttention.o", "EncDecAttention.o"),
    up=("DenseReluDense.wi", "DenseReluDense.wi_0", "DenseReluDense.wi_1"),
    down=("DenseReluDense.wo",),
    norms=("layer_norm", "final_layer_norm"),
    attention=("SelfAttention", "EncDecAttention"),
    residual=("DenseReluDense.wo", "layer_norm"),
    last_norm=("final_layer_norm",),
    embedded=("encoder.embed_tokens",),
    layers="block",
    cross="EncDecAttention",
)
_GPT2 = Family(
    query=("attn.c_attn",),
    key=("attn.c_attn",),
    value=("attn.c_attn",),
    attention_output=("attn.c_proj",),
    up=("mlp.c_fc",),
    down=("mlp.c_proj",),
    norms=("ln_1", "ln_2", "ln_f"),
    attention=("attn",),
    residual=("mlp.c_proj", "ln_2"),
    last_norm=("ln_f",),
    embedded=("transformer.drop", "drop"),
    layers="h",
)
_LLAMA = Family(
    query=("q_proj",),
    key=("k_proj",),
    value=("v_proj",),
    attention_output=("o_proj",),
    up=("gate_proj", "up_proj"),
    down=("down_proj",),
    norms=("input_layernorm", "post_attention_layernorm", "norm"),
    attention=("self_attn",),
    residual=("mlp.down_proj", "post_attention_layernorm"),
    last_norm=("norm",),
    embedded=("embed_tokens",),
    layers="layers",
)

FAMILIES: dict[str, Family] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "electra", "camembert"), _BERT),
    "deberta-v2": _DEBERTA,
    "mpnet": _MPNET,
    "albert": _ALBERT,
    "distilbert": _DISTILBERT,
    "modernbert": _MODERNBERT,
    "bart": _BART,
    "marian": _MARIAN,
    "mbart": replace(_PRE_NORM_BART, embedded=("encoder.layernorm_embedding",)),
    **dict.fromkeys(("m2m_100", "pegasus"), _PRE_NORM_BART),
    **dict.fromkeys(("t5", "mt5", "umt5"), _T5),
    "gpt2": _GPT2,
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma"), _LLAMA),
}


def family_of(model: PreTrainedModel, where: str) -> Family:
    """Return the places of a model's architecture. Raise ModelError for one that is not in the table."""
    kind = model.config.model_type
    if kind not in FAMILIES:
        raise ModelError(f"{where}: the places of {kind} are not known{suggest(kind, FAMILIES)}")
    return FAMILIES[kind]


def pattern(ends: Iterable[str]) -> str:
    """Return the regular expression of the whole names of modules that end so."""
    numbered = [re.escape(end).replace(r"\#", r"\d+") for end in ends]
    return "|".join(rf"(?:.*\.)?{end}" for end in numbered)


def matching(model: PreTrainedModel, ends: Iterable[str]) -> list[str]:
    """Return the names of a model's modules that end so, in its order."""
    wanted = re.compile(pattern(ends))
    return [name for name, _ in model.named_modules() if wanted.fullmatch(name)]


def layer_of(name: str) -> int:
    """Return the number of the layer a module belongs to, the first number in its name."""
    found = _LAYER.search(name)
    return int(found[1] or found[2]) if found else 0
