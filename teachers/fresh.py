"""A teacher made from nothing: a vocabulary from the run's own texts, and random weights to be trained."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModel, PreTrainedTokenizerFast

from configs.data import Task
from configs.teachers import FreshTeacher
from distill.architecture import check_writes, make_config, written_vocabulary
from distill.data.vocabulary import train_vocabulary
from distill.files import digest
from distill.models import auto_class

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def make(sizes: FreshTeacher, task: Task, texts: Callable[[], Iterator[str]], seed: int, folder: Path) -> Path:
    """Write a model of the given sizes and its tokenizer under `folder`, once; return where.

    `texts` yields what the vocabulary is made from. The model has no head yet, unless its task is a generation.
    Raises ModelError for sizes or options the architecture does not have.
    """
    target = folder / digest(sizes.model_dump_json(), task.kind, str(seed))
    if target.is_dir():
        return target
    partial = folder / f".{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    writes = task.kind == "generation"
    kind = sizes.architecture or ("marian" if writes else "bert")
    if writes:
        check_writes(kind, "teacher")
    tokenizer = train_vocabulary(texts(), sizes.vocabulary, where="teacher") if writes else _tokenizer(sizes, texts())
    config = make_config(sizes, kind, _vocabulary(tokenizer), "teacher")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        family = auto_class(task, config) if writes else AutoModel
        family.from_config(config).save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(target)
    return target


def _vocabulary(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Return what a configuration says of a vocabulary."""
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    if end is None:
        return {"vocab_size": len(tokenizer), "pad_token_id": pad}
    return written_vocabulary(len(tokenizer), pad, end)


def _tokenizer(sizes: FreshTeacher, texts: Iterator[str]) -> PreTrainedTokenizerFast:
    """Train WordPiece as BERT uses it, lower-cased.

    The pieces are numbered in the order of their letters: the trainer finds the same pieces in any order each time, and
    numbers them as they come.
    """
    learner = _splitting(models.WordPiece(unk_token="[UNK]"))
    trainer = trainers.WordPieceTrainer(vocab_size=sizes.vocabulary, special_tokens=list(_SPECIAL), show_progress=False)
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
