"""Words a masked language model expects in a place."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import torch
from tokenizers import Encoding
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForMaskedLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils.generic import ModelOutput

from distill.data.augment import Proposer, Question
from distill.data.tokenise import plain, tokenizer_digest
from distill.data.words import whole_words
from distill.errors import ModelError
from distill.files import digest
from distill.models import ModelSource, fast, load_config, load_tokenizer
from distill.positions import positions

_LONGEST = 512
"""Tokens of an input, where the model can take them."""


class _Masked(NamedTuple):
    """A question as the model reads it."""

    number: int
    """Which question it is."""
    ids: list[int]
    types: list[int]
    place: int
    """Where the mask stands."""


class MaskedLM(Proposer):
    """Proposes the K most likely whole words at a masked place, for words that are a single piece of its vocabulary.

    As in the authors' code the model reads the masked text and the original one as a pair: what it proposes is then
    near the word in meaning, in short texts too. `beside_original=False` masks and nothing else, as the paper writes.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        candidates: int,
        *,
        beside_original: bool = True,
        tokens_at_once: int = 8192,
    ) -> None:
        """Take a model with a trained head. Raise ModelError where its tokenizer has no mask."""
        if tokenizer.mask_token_id is None:
            raise ModelError(f"{tokenizer.name_or_path}: the tokenizer has no mask token")
        words = whole_words(tokenizer)
        self._model = model.train(False)
        self._tokenizer = tokenizer
        self._core = plain(tokenizer)
        self._core.enable_truncation(int(min(_LONGEST, tokenizer.model_max_length, positions(model.config))))
        self._words = list(words.values())
        self._word_ids = torch.tensor(list(words), device=model.device)
        self._candidates = min(candidates, len(words))
        self._beside_original = beside_original
        self._tokens_at_once = tokens_at_once

    @cached_property
    def fingerprint(self) -> str:
        """A digest of weights, tokenizer and the way of asking."""
        weights = (value.detach().float().cpu().numpy().tobytes() for value in self._model.state_dict().values())
        asking = f"{self._candidates} {self._beside_original}"
        return digest(asking, tokenizer_digest(self._tokenizer), *weights)

    def propose(self, questions: Sequence[Question]) -> list[tuple[str, ...]]:
        """Return the most likely words; none for a word of several pieces, or beyond the longest input."""
        answers: list[tuple[str, ...]] = [()] * len(questions)
        for batch in self._batches(sorted(self._masked(questions), key=lambda masked: len(masked.ids))):
            for masked, numbers in zip(batch, self._top(batch), strict=True):
                answers[masked.number] = tuple(self._words[number] for number in numbers)
        return answers

    def _masked(self, questions: Sequence[Question]) -> Iterator[_Masked]:
        texts = list(dict.fromkeys(question.text for question in questions))
        inputs = [(text, text) if self._beside_original else text for text in texts]
        encodings = dict(zip(texts, self._core.encode_batch(inputs), strict=True))
        places = {text: _places(text, encodings[text], self._tokenizer.unk_token_id) for text in texts}
        for number, question in enumerate(questions):
            place = places[question.text].get(tuple(question.span))
            if place is not None:
                encoding = encodings[question.text]
                yield _Masked(number, encoding.ids, encoding.type_ids, place)

    def _batches(self, masked: Sequence[_Masked]) -> Iterator[Sequence[_Masked]]:
        """Cut what is sorted by length so that rows × longest stays within the budget."""
        start = 0
        for stop in range(1, len(masked) + 1):
            if stop == len(masked) or (stop + 1 - start) * len(masked[stop].ids) > self._tokens_at_once:
                yield masked[start:stop]
                start = stop

    @torch.inference_mode()
    def _top(self, batch: Sequence[_Masked]) -> list[list[int]]:
        """Return the numbers of the most likely whole words for each row, best first."""
        rows = [torch.tensor(masked.ids) for masked in batch]
        places = torch.tensor([masked.place for masked in batch], device=self._model.device)
        ids = pad_sequence(rows, batch_first=True, padding_value=self._tokenizer.pad_token_id or 0).to(places.device)
        lengths = torch.tensor([len(row) for row in rows], device=places.device)
        attended = torch.arange(ids.size(1), device=places.device) < lengths[:, None]
        inputs = {"input_ids": ids, "attention_mask": attended.long()}
        ids[torch.arange(len(batch)), places] = self._tokenizer.mask_token_id
        if "token_type_ids" in self._tokenizer.model_input_names:
            types = [torch.tensor(masked.types) for masked in batch]
            inputs["token_type_ids"] = pad_sequence(types, batch_first=True).to(places.device)
        with _head_at(self._model, places):
            logits: Tensor = self._model(**inputs).logits[:, 0]
        found: list[list[int]] = logits[:, self._word_ids].topk(self._candidates).indices.tolist()
        return found


def has_masked_lm(config: PretrainedConfig) -> bool:
    """Whether a model was saved with the head of a masked language model."""
    return any(name.endswith("ForMaskedLM") or name == "BertForPreTraining" for name in config.architectures or ())


def load_masked_lm(source: ModelSource, candidates: int, where: str, device: str | torch.device = "cpu") -> MaskedLM:
    """Load a masked language model. Raise ModelError where its head is missing: a new one would propose noise."""
    tokenizer = load_tokenizer(source, where)
    if not has_masked_lm(load_config(source, where)):
        raise ModelError(f"{where}: {source.path} was saved without the head of a masked language model")
    model, report = AutoModelForMaskedLM.from_pretrained(
        str(source.folder or source.path),
        revision=source.revision,
        dtype=torch.float32,
        use_safetensors=True,
        output_loading_info=True,
    )
    if report["missing_keys"]:
        raise ModelError(f"{where}: {source.path} lacks weights: {', '.join(sorted(report['missing_keys'])[:5])}")
    return MaskedLM(model.to(device), fast(tokenizer, where), candidates)


def _places(text: str, encoding: Encoding, unknown: int | None) -> dict[tuple[int, ...], int]:
    """Return where the pieces of the first text stand: {(start, end) in the text: place in the input}."""
    places: dict[tuple[int, ...], int] = {}
    for place, (part, number) in enumerate(zip(encoding.sequence_ids, encoding.ids, strict=True)):
        if part == 0 and number != unknown:
            start, end = encoding.offsets[place]
            start += len(text[start:end]) - len(text[start:end].lstrip())  # some tokenizers count the space before
            places[start, end] = place
    return places


@contextmanager
def _head_at(model: PreTrainedModel, places: Tensor) -> Iterator[None]:
    """Let the head see one place a row [B], not all: its matrix product is half of a small model's time."""

    def pick(module: nn.Module, inputs: Any, output: ModelOutput) -> ModelOutput:
        states: Tensor = output["last_hidden_state"]
        output["last_hidden_state"] = states[torch.arange(len(places)), places].unsqueeze(1)
        return output

    handle = model.base_model.register_forward_hook(pick)
    try:
        yield
    finally:
        handle.remove()
