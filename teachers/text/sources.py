"""What the engines of this process have in common: prompts as tokens, how texts start, how long they may get."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import GenerationConfig, PreTrainedTokenizerBase

from configs.decoding import Decoding
from configs.errors import suggest
from distill import languages
from distill.errors import DataError, ModelError
from distill.positions import positions

_AT_ONCE = 8192
"""Texts tokenised at once."""
STEP = 8
"""Limits are multiples of this, so that sentences of nearly one length share theirs."""


@dataclass(frozen=True)
class Source:
    """A prompt."""

    place: int
    """Where it stands among the prompts"""
    ids: list[int]
    limit: int
    """Tokens its text may have"""


def encode(
    prompts: Sequence[str], tokenizer: PreTrainedTokenizerBase, config: Any, decoding: Decoding, before: int = 0
) -> list[Source]:
    """Tokenise prompts, the shortest first; an adapter puts `before` vectors of its own before each. Raises DataError
    for one that is empty or longer than the model's positions: nothing is cut.
    """
    ids: list[list[int]] = tokenizer(list(prompts))["input_ids"] if prompts else []
    sources = [Source(place, row, _limit(place, len(row), config, decoding, before)) for place, row in enumerate(ids)]
    return sorted(sources, key=lambda source: len(source.ids))


def too_long(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, config: Any, before: int = 0
) -> list[tuple[int, int]]:
    """Return the places of texts that are longer than the model's positions behind the `before` vectors of its adapter,
    with their numbers of tokens.
    """
    room = positions(config) - (0 if config.is_encoder_decoder else 1) - before
    found = []
    for start in range(0, len(texts), _AT_ONCE):
        ids: list[list[int]] = tokenizer(list(texts[start : start + _AT_ONCE]), verbose=False)["input_ids"]
        found += [(start + place, len(row)) for place, row in enumerate(ids) if len(row) > room]
    return found


def generation_of(model: Any, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Return a copy of a model's generation configuration, in the language its tokenizer was told."""
    found: GenerationConfig = copy.deepcopy(model.generation_config)
    languages.settle(found, tokenizer)
    return found


def ends(settings: GenerationConfig) -> tuple[int, ...]:
    """Return the tokens that end a text. Raise ModelError where a generation configuration names none."""
    found = settings.eos_token_id
    if found is None:
        raise ModelError("the model's generation configuration names no eos_token_id: no text would end")
    return tuple(found) if isinstance(found, list) else (found,)


def start_token(model: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return what the decoder of a model starts with, whoever searches, scores or converts. Raise ModelError where
    neither the generation configuration nor the model's says it.
    """
    found: int | None = generation_of(model, tokenizer).decoder_start_token_id
    found = model.config.decoder_start_token_id if found is None else found
    if found is None:
        name = model.config.name_or_path or model.config.model_type
        raise ModelError(f"{name}: the configuration names no decoder_start_token_id")
    return found


def language_id(code: str, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token of a language code. Raises ModelError where it is none, or a piece of words like any other."""
    known = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    if code not in known:
        raise ModelError(
            f"decoding.language: `{code}` is no special token of the teacher's{suggest(code, sorted(known))}"
        )
    found = tokenizer.convert_tokens_to_ids(code)
    assert isinstance(found, int)
    return found


def check_vocabulary(first: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase, where: str) -> None:
    """Compare two vocabularies, piece by piece. Raise ModelError where an id means something else."""
    ours, theirs = first.get_vocab(), other.get_vocab()
    differ = sorted(piece for piece in ours.keys() | theirs.keys() if ours.get(piece) != theirs.get(piece))
    if differ:
        raise ModelError(
            f"{where}: another vocabulary than the teacher's: {len(differ):,} pieces differ, `{differ[0]}` is "
            f"{theirs.get(differ[0], 'none')} and not {ours.get(differ[0], 'none')}"
        )


def _limit(place: int, length: int, config: Any, decoding: Decoding, before: int) -> int:
    if not length:
        raise DataError(f"prompt {place} is empty")
    read = positions(config) - before
    room = positions(config, "decoder") - (1 if config.is_encoder_decoder else before + length)
    if length > read or room < 1:
        raise DataError(f"prompt {place} has {length} tokens, the model {read} positions")
    by_length = STEP * math.ceil((decoding.length_factor * length + decoding.length_extra) / STEP)
    return int(min(decoding.max_tokens or by_length, room))
