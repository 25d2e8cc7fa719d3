"""Tiny models that write text, with random weights that end their texts at many lengths."""

from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

WORDS = [f"w{number}" for number in range(27)]
PAD, END, START = 0, 1, 2
ENDS = (END, 6, 11, 16, 21, 26)
"""More tokens that end a text, so that texts of random models end at many lengths."""
VOCABULARY = ["<pad>", "</s>", "<s>", *WORDS]
_SMALL: dict[str, Any] = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 64,
    "forced_eos_token_id": END,
}
_T5: dict[str, Any] = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "marian": ("marian", {**_SMALL, "decoder_start_token_id": PAD, "forced_eos_token_id": None}),
    "bart": ("bart", {**_SMALL, "decoder_start_token_id": END}),
    "mbart": ("mbart", {**_SMALL, "decoder_start_token_id": END}),
    "blenderbot": ("blenderbot", {**_SMALL, "decoder_start_token_id": START}),
    "m2m_100": ("m2m_100", {**_SMALL, "decoder_start_token_id": END, "forced_eos_token_id": None}),
    "pegasus": ("pegasus", {**_SMALL, "decoder_start_token_id": PAD}),
    "t5": ("t5", {**_T5, "decoder_start_token_id": PAD}),
    "t5-v1.1": (
        "t5",
        {**_T5, "decoder_start_token_id": PAD, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    "led": (
        "led",
        {
            **_SMALL,
            "decoder_start_token_id": END,
            "max_encoder_position_embeddings": 64,
            "max_decoder_position_embeddings": 64,
            "attention_window": 8,
        },
    ),
    "gpt2": ("gpt2", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}),
    "llama": (
        "llama",
        {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 64,
        },
    ),
}
CAUSAL = ("gpt2", "llama")


def writer(family: str, seed: int = 0, ends: tuple[int, ...] = ENDS, **changes: Any) -> Any:
    """A model with random weights, far enough from uniform that its texts differ."""
    kind, sizes = FAMILIES[family]
    tokens = {"vocab_size": len(VOCABULARY), "pad_token_id": PAD, "eos_token_id": END, "bos_token_id": START}
    config = AutoConfig.for_model(kind, **{**sizes, **tokens, **changes})
    torch.manual_seed(seed)
    model = (AutoModelForCausalLM if family in CAUSAL else AutoModelForSeq2SeqLM).from_config(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15 if len(parameter) == len(VOCABULARY) else 0.7)
    model.generation_config.eos_token_id = list(ends)
    return model.eval()


def tokenizer(*, ends: bool = True, special: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """Words split at spaces, some of them special; sources of encoder-decoders end with `</s>`."""
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(VOCABULARY)}, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if ends:
        core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", END)])
    made = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="</s>", bos_token="<s>")
    made.add_tokens(list(special), special_tokens=True)
    return made


def prompts(count: int, seed: int = 0, longest: int = 12) -> list[str]:
    """Texts of many lengths."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest, (count,), generator=draw).tolist()
    return [
        " ".join(WORDS[word] for word in torch.randint(len(WORDS), (length,), generator=draw)) for length in lengths
    ]
