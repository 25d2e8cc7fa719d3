"""Rows as tokens, as the run's task wants them."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from configs.data import Task
from distill.data.labels import encode
from distill.data.masking import Masking
from distill.data.pairs import tokenise_targets
from distill.data.rows import Rows
from distill.data.table import TokenTable
from distill.data.tagged import tokenise_words
from distill.data.tokenise import Limits, pack, tokenise
from distill.models import fast
from distill.types import IGNORED
from pipelines.words import Words


def rows_of_task(rows: Rows, task: Task, labels: tuple[str, ...], words: Words, cache: Path) -> TokenTable:
    """Tokenise rows with what is to be said of them, into a cache."""
    if task.kind == "generation":
        return tokenise_targets(rows, words.tokenizer, words.limits(task), cache)
    limits, tokenizer = Limits(task.max_length, words.config.vocab_size), fast(words.tokenizer, words.where)
    if task.kind == "tagging":
        return tokenise_words(rows, labels, tokenizer, limits, cache)
    return tokenise(rows, encode(rows, task, labels), tokenizer, limits, cache)


def running_text(rows: Rows, task: Task, words: Words, cache: Path) -> TokenTable:
    """Pack running text to the full length, and give its positions what the task asks of them."""
    table = pack(rows, fast(words.tokenizer, words.where), Limits(task.max_length, words.config.vocab_size), cache)
    match task.kind:
        case "masked_lm":
            return replace(table, masking=Masking.of(words.tokenizer, words.where))
        case "tagging":
            return replace(table, tags=np.full(len(table.tokens), IGNORED, dtype=np.int64))
        case _:
            return table
