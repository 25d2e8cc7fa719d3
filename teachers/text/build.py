"""Build what writes the texts of a model: CTranslate2 where it is shown to be the same model, else our own search."""

import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers.generation.logits_process import ForcedBOSTokenLogitsProcessor, NoBadWordsLogitsProcessor

from configs.decoding import Decoding, Engine
from distill import merging
from distill.errors import ModelError
from distill.models import Loaded
from distill.protocols import TextTeacher
from distill.types import Text
from teachers.text.huggingface import HuggingFaceWriter

_PROBES = 32
_NO_ADAPTERS = "CTranslate2 runs no adapters, and this one has no place in the weights"
_PROBE = Decoding(beams=1, max_tokens=64)
"""What is written for a probe: documents are long, and a bad model's texts for them as long as they may get."""
_WHOLE = 63
"""Tokens of a probe's text of which none is forced."""
_TIES = 0.1
"""Part of the probes whose greedy texts may differ."""


@dataclass(frozen=True)
class Asked:
    """What is to write, and where it may put files."""

    engine: Engine
    compute_type: str
    """What CTranslate2 computes in"""
    folder: Path
    """For the converted model"""
    probes: Sequence[str]
    """Sources the converted model is compared with the original on"""
    decoding: Decoding
    """How texts will be searched for"""
    device: str = "cpu"
    threads: int = 0
    """Of CTranslate2; 0 are its own number"""
    ensemble: tuple[Loaded, ...] = ()
    """Models that write with the one, by the mean of their probabilities"""


@dataclass(frozen=True)
class Built:
    """What writes."""

    teacher: TextTeacher
    why: str
    """Why this engine, for the report"""
    parity: float | None
    """Largest |Δ log p| of a text between CTranslate2 and the original, nats; none for transformers"""


def build(loaded: Loaded, fingerprint: str, asked: Asked) -> Built:
    """Return what writes the texts of a loaded model; `fingerprint` is that of its files.

    Raises ModelError where CTranslate2 is asked for by name and cannot run the model, is not the same model or would
    not keep its rules, and for an ensemble that cannot write as one.
    """
    loaded = _plain(loaded)
    voices = [voice.model.to(asked.device) for voice in (loaded, *map(_plain, asked.ensemble))]  # type: ignore[arg-type]
    own = HuggingFaceWriter(voices, loaded.tokenizer, fingerprint)
    if asked.ensemble:
        return Built(own, "CTranslate2 runs no ensembles", None)
    match asked.engine:
        case "huggingface":
            return Built(own, "asked for", None)
        case "ctranslate2":
            if isinstance(loaded.model, PeftModel):
                raise ModelError(f"engine: {_NO_ADAPTERS}; use `huggingface`")
            if reason := _own_ways(loaded, own, asked):
                raise ModelError(f"engine: {reason}; use `huggingface`")
            return _converted(loaded, own, fingerprint, asked, "asked for")
    problem = _obstacle(loaded, own, asked)
    if problem:
        return Built(own, problem, None)
    try:
        return _converted(loaded, own, fingerprint, asked, "the fastest, and the same model")
    except ModelError as error:
        return Built(own, str(error).removeprefix("engine: "), None)


def _plain(loaded: Loaded) -> Loaded:
    """Take an adapter into the weights, where it has a place there: then no engine can leave it out."""
    model = merging.whole(loaded.model, "engine")
    if model is not loaded.model:
        model.config._name_or_path = loaded.source
    return replace(loaded, model=model)


def inconvertible(config: Any) -> str:
    """Say why CTranslate2 cannot run the model of a configuration here; empty where it can."""
    if importlib.util.find_spec("ctranslate2") is None:
        return "CTranslate2 is not installed: pip install 'distill-pipeline[ctranslate2]'"
    from teachers.text.convert import unknown

    return unknown(config)


def _obstacle(loaded: Loaded, own: HuggingFaceWriter, asked: Asked) -> str:
    """Say why CTranslate2 is out of the question, if it is."""
    if reason := inconvertible(loaded.model.config):
        return reason
    if isinstance(loaded.model, PeftModel):
        return _NO_ADAPTERS
    if reason := _own_ways(loaded, own, asked):
        return reason
    if torch.device(asked.device).type == "cuda":
        import ctranslate2

        return "" if ctranslate2.get_cuda_device_count() else "this CTranslate2 is built without CUDA"
    return ""


def _own_ways(loaded: Loaded, own: HuggingFaceWriter, asked: Asked) -> str:
    """Name the rules under which CTranslate2's texts would be others, of the model's or the run's; empty for none."""
    rules = _only_here(own.rules(asked.decoding), loaded.model.config.pad_token_id)
    others = [type(rule).__name__.removesuffix("LogitsProcessor") for rule in rules]
    return f"CTranslate2 has its own ways of what the model asks for: {', '.join(others)}" if others else ""


def _only_here(rules: Iterable[Any], pad: int) -> Iterable[Any]:
    """Yield the rules that CTranslate2 does not have, or applies before it normalises: its texts would be others."""
    for rule in rules:
        padding = isinstance(rule, NoBadWordsLogitsProcessor) and rule.bad_word_ids == [[pad]]  # Marian's, never likely
        if not padding and not isinstance(rule, ForcedBOSTokenLogitsProcessor):
            yield rule


def _converted(loaded: Loaded, own: HuggingFaceWriter, fingerprint: str, asked: Asked, why: str) -> Built:
    """Convert the model, and compare both on what the original writes greedily."""
    from teachers.text.ctranslate2 import CTranslate2Writer

    writer = CTranslate2Writer(
        loaded.model,
        loaded.tokenizer,
        fingerprint,
        asked.folder,
        compute_type=asked.compute_type,
        device=asked.device,
        threads=asked.threads,
    )
    probes = list(dict.fromkeys(asked.probes))[:_PROBES]
    written = sorted(own.generate(probes, _PROBE), key=lambda found: found[0])
    targets = [_ended(found.texts[0], loaded.tokenizer.eos_token_id) for _, found in written]
    parity = writer.check(loaded.model, loaded.tokenizer(probes)["input_ids"], targets)
    if asked.compute_type == "float32":
        _check_same([found.texts[0] for _, found in written], writer, probes)
    return Built(writer, why, parity.worst)


def _check_same(texts: Sequence[Text], writer: TextTeacher, probes: Sequence[str]) -> None:
    """Raise ModelError where an engine searches otherwise: nearly all greedy texts are the same, two words that are as
    likely as each other apart. A last token that is forced at the limit does not count.
    """
    found = dict(writer.generate(probes, _PROBE))
    theirs = [found[place].texts[0] for place in range(len(texts))]
    others = sum(_whole(one) != _whole(two) for one, two in zip(theirs, texts, strict=True))
    if others > _TIES * len(texts):
        raise ModelError(
            f"engine: {writer.describe()} writes other texts than the model it was made from: "
            f"{others} of {len(texts)}; use `huggingface`"
        )


def _whole(text: Text) -> tuple[int, ...]:
    return (text.tokens or ())[:_WHOLE]


def _ended(text: Text, end: int) -> tuple[int, ...]:
    """Return a text's tokens, with the end token: a score holds for whole texts."""
    tokens = text.tokens or ()
    return tokens if tokens[-1:] == (end,) else (*tokens, end)  # it may be there though it was forced
