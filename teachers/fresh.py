"""A teacher made from nothing: a vocabulary from the run's own texts, and random weights to be trained."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from configs.teachers import FreshTeacher
from distill.files import digest

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def make(sizes: FreshTeacher, texts: Iterator[str], seed: int, folder: Path) -> Path:
    """Write a BERT of the given sizes and its tokenizer under `folder`, once; return where."""
    target = folder / digest(sizes.model_dump_json(), str(seed))
    if target.is_dir():
        return target
    partial = folder / f".{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    tokenizer = _tokenizer(sizes.vocabulary, texts)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=sizes.hidden_size,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=sizes.intermediate_size,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(target)
    return target


def _tokenizer(size: int, texts: Iterator[str]) -> PreTrainedTokenizerFast:
    """Train WordPiece as BERT uses it, lower-cased.

    The pieces are numbered in the order of their letters: the trainer finds the same pieces in any order each time, and
    numbers them as they come.
    """
    learner = _splitting(models.WordPiece(unk_token="[UNK]"))
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=list(_SPECIAL), show_progress=False)
    learner.train_from_iterator(texts, trainer)
    pieces = [*_SPECIAL, *sorted(set(learner.get_vocab()) - set(_SPECIAL))]
    core = _splitting(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]"))
    core.post_processor = processors.BertProcessing(
        ("[SEP]", _SPECIAL.index("[SEP]")), ("[CLS]", _SPECIAL.index("[CLS]"))
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), _SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=core, **names)


def _splitting(model: models.WordPiece) -> Tokenizer:
    core = Tokenizer(model)
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return core
