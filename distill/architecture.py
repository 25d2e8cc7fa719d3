"""From sizes to a configuration of transformers, whatever names the architecture has for them."""

from collections.abc import Collection, Mapping
from typing import Any

from transformers import AutoConfig, PretrainedConfig
from transformers.models.auto import modeling_auto as auto

from configs.errors import suggest
from configs.sizes import Sizes
from distill.errors import ModelError

_MASKED = auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
_SPECIAL = ("pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id")
_WRITING = ("decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id")
_WAYS = ("scale_embedding", "activation_function", "feed_forward_proj", "scale_decoder_outputs", "normalize_before")
"""What models of one architecture do differently, whatever their sizes."""


def vocabulary_of(model: PretrainedConfig, kind: str) -> dict[str, Any]:
    """Return what a model of architecture `kind` takes over from one whose vocabulary it shares."""
    taken = _SPECIAL if kind != model.model_type else (*_SPECIAL, *_WAYS)
    taken = (*taken, *_WRITING) if model.is_encoder_decoder else taken
    found = {key: getattr(model, key, None) for key in taken}
    found |= {
        "vocab_size": model.vocab_size,
        "max_position_embeddings": getattr(model, "max_position_embeddings", None),
    }
    # what a model does not force its student must not either, whatever its architecture's default is
    return {key: value for key, value in found.items() if value is not None or key in _WRITING}


def written_vocabulary(size: int, pad: int, end: int) -> dict[str, Any]:
    """Return what a configuration says of a vocabulary of one's own. A decoder starts from the padding token, as
    Marian's and T5's do, and its embeddings are scaled up to the size of positions, which would drown them otherwise.
    """
    return {
        "vocab_size": size,
        "pad_token_id": pad,
        "bos_token_id": end,
        "eos_token_id": end,
        "decoder_start_token_id": pad,
        "forced_bos_token_id": None,
        "forced_eos_token_id": None,
        "scale_embedding": True,
    }


def make_config(sizes: Sizes, kind: str, vocabulary: Mapping[str, Any], where: str) -> PretrainedConfig:
    """Translate sizes into a configuration of architecture `kind`; `vocabulary` are keys of the same that go along
    where the architecture has them. Raise ModelError, which begins with `where`, for what the architecture is without.
    """
    if sizes.hidden_size % sizes.heads:
        raise ModelError(f"{where}: hidden_size {sizes.hidden_size} is not a multiple of heads {sizes.heads}")
    try:
        default = AutoConfig.for_model(kind)
    except ValueError as error:
        raise ModelError(f"{where}.architecture: unknown `{kind}`{suggest(kind, _architectures())}") from error
    known = default.to_dict().keys() | default.attribute_map.keys()
    for key in sizes.options:
        if key not in known:
            raise ModelError(f"{where}.options: unknown key `{key}` of {kind}{suggest(key, known)}")
    if sizes.decoder_layers is not None and not default.is_encoder_decoder:
        raise ModelError(f"{where}.decoder_layers: {kind} has no decoder beside its encoder; leave it out")
    along = {key: value for key, value in vocabulary.items() if key in known or key in (*_SPECIAL, *_WRITING)}
    given = {**_sizes(sizes, known, f"{where}.architecture: {kind}"), **along, **sizes.options}
    # by the architecture's own names, in one go: some configurations derive further sizes when they are made
    return AutoConfig.for_model(kind, **{default.attribute_map.get(key, key): value for key, value in given.items()})


def _sizes(sizes: Sizes, known: Collection[str], what: str) -> dict[str, Any]:
    """Return the sizes under those names that the architecture knows."""
    decoder = sizes.decoder_layers or sizes.layers
    named = {
        "num_hidden_layers": sizes.layers,
        "hidden_size": sizes.hidden_size,
        "num_attention_heads": sizes.heads,
        "decoder_layers": decoder,
        "num_decoder_layers": decoder,
        "decoder_attention_heads": sizes.heads,
        "decoder_ffn_dim": sizes.intermediate_size,
        "d_kv": sizes.hidden_size // sizes.heads,
        "num_key_value_heads": sizes.heads,
        _intermediate_key(known, what): sizes.intermediate_size,
    }
    return {key: value for key, value in named.items() if key in known}


def _intermediate_key(known: Collection[str], what: str) -> str:
    """Return the name this architecture gives to the width of its feed-forward layers."""
    for key in ("intermediate_size", "hidden_dim", "n_inner", "d_ff", "encoder_ffn_dim"):
        if key in known:
            return key
    raise ModelError(f"{what} has no feed-forward width this version knows")


def check_writes(kind: str, where: str) -> None:
    """Raise ModelError for an architecture that cannot write a text from left to right."""
    if kind not in _writers():
        raise ModelError(f"{where}.architecture: {kind} writes no text, and the run's task is a generation")


def _writers() -> list[str]:
    """Return encoder-decoders, and language models that are no masked ones."""
    causal = [name for name in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name not in _MASKED]
    return [*auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES, *causal]


def _architectures() -> list[str]:
    return [*auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES, *_writers()]
