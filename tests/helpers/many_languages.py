"""Tiny models of many languages: their tokenizers mark each text with its language."""

from pathlib import Path

import torch
from transformers import (
    M2M100Config,
    M2M100ForConditionalGeneration,
    MBart50Tokenizer,
    MBartConfig,
    MBartForConditionalGeneration,
    MBartTokenizer,
    NllbTokenizer,
    PreTrainedTokenizerBase,
)

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
LETTERS = "abcdefgh"
SMALL = {
    "d_model": 16,
    **{f"{side}_layers": 1 for side in ("encoder", "decoder")},
    **{f"{side}_attention_heads": 2 for side in ("encoder", "decoder")},
    **{f"{side}_ffn_dim": 32 for side in ("encoder", "decoder")},
    "max_position_embeddings": 64,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}


def _nllb() -> PreTrainedTokenizerBase:
    pieces = [*SPECIAL, "▁", *LETTERS]
    return NllbTokenizer(vocab={piece: place for place, piece in enumerate(pieces)}, merges=[])


def _unigrams(codes: tuple[str, ...] = ()) -> list[tuple[str, float]]:
    return (
        [(piece, 0.0) for piece in (*SPECIAL, "▁")] + [(one, -2.0) for one in LETTERS] + [(one, 0.0) for one in codes]
    )


def _mbart() -> PreTrainedTokenizerBase:
    codes = ("de_DE", "en_XX")
    return MBartTokenizer(vocab=[*_unigrams(codes), ("<mask>", 0.0)])


def _mbart50() -> PreTrainedTokenizerBase:
    return MBart50Tokenizer(vocab=[*_unigrams(), ("<mask>", 0.0)])


FAMILIES = {
    "nllb": (_nllb, M2M100Config, M2M100ForConditionalGeneration, ("deu_Latn", "eng_Latn")),
    "mbart50": (_mbart50, MBartConfig, MBartForConditionalGeneration, ("de_DE", "en_XX")),
    "mbart": (_mbart, MBartConfig, MBartForConditionalGeneration, ("de_DE", "en_XX")),
}


def model_folder(folder: Path, family: str) -> tuple[str, str]:
    """Write a model of a family, and return two of its languages."""
    words, config, kind, languages = FAMILIES[family]
    tokenizer = words()
    torch.manual_seed(0)
    model = kind(config(vocab_size=len(tokenizer), **SMALL))
    for parameter in model.parameters():
        if parameter.dim() > 1 and parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return languages
