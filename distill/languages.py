"""Models of many languages (mBART, M2M100, NLLB): their tokenizers mark each text with its language."""

from collections.abc import Sequence
from typing import Any

from transformers import GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

from configs.data import Task
from configs.errors import suggest
from distill.errors import ModelError


def has_many(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer marks texts with their language."""
    return hasattr(tokenizer, "set_tgt_lang_special_tokens")


def tell(tokenizer: PreTrainedTokenizerBase, task: Task, where: str) -> None:
    """Tell a tokenizer of many languages which two the task is about; any other is left as it is. Raise ModelError
    where the task does not say, and for a language there is not.
    """
    if not has_many(tokenizer) or task.kind != "generation":
        return
    if task.source_language is None or task.target_language is None:
        raise ModelError(
            f"task.source_language: {where}, {tokenizer.name_or_path}, is of many languages; name that of the sources, "
            "and in `target_language` that of the targets"
        )
    words: Any = tokenizer
    known = codes(tokenizer)
    for key, code in (("source_language", task.source_language), ("target_language", task.target_language)):
        if code not in known:
            raise ModelError(f"task.{key}: `{code}` is no language of {tokenizer.name_or_path}{suggest(code, known)}")
    words.src_lang, words.tgt_lang = task.source_language, task.target_language


def settle(config: PretrainedConfig | GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the language of the targets, where the tokenizer was told one, into a configuration: a decoder starts with
    it (mBART), or it is the first token of each generated text (mBART-50, M2M100, NLLB).
    """
    if told_target(tokenizer) is None:
        return
    ids: list[int] = tokenizer(text_target=["."])["input_ids"][0]
    language = _target(tokenizer)
    if ids[-1] == language:
        config.decoder_start_token_id = language
    elif isinstance(config, GenerationConfig):
        config.forced_bos_token_id = language


def codes(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the languages that a tokenizer of many knows."""
    named: dict[str, int] | None = getattr(tokenizer, "lang_code_to_id", None)
    if named is not None:
        return list(named)
    roles = {token for token in tokenizer.special_tokens_map.values() if isinstance(token, str)}
    return [token for token in tokenizer.all_special_tokens if token not in roles]


def told_target(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the language a tokenizer of many marks targets with; none if it was not told, or marks none."""
    return getattr(tokenizer, "tgt_lang", None) if has_many(tokenizer) else None


def encode_targets(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Return the tokens of targets, in their language, up to the end token: mBART's would have the language behind it,
    which its decoder starts with.
    """
    if not texts:
        return []
    found: list[list[int]] = tokenizer(text_target=list(texts))["input_ids"]
    end = tokenizer.eos_token_id
    if not has_many(tokenizer):
        return found
    return [ids[: ids.index(end) + 1] for ids in found]


def _target(tokenizer: Any) -> int:
    by_code = hasattr(tokenizer, "get_lang_id")  # M2M100's: its codes are no tokens, `__de__` is
    found: int = (tokenizer.get_lang_id if by_code else tokenizer.convert_tokens_to_ids)(tokenizer.tgt_lang)
    return found
