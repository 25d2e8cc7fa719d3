"""transformers models in CTranslate2's format, from memory, right where its own converter is silently wrong."""

from pathlib import Path
from typing import Any

import torch
from ctranslate2.converters import transformers as stock
from ctranslate2.specs.model_spec import OPTIONAL
from transformers import PreTrainedTokenizerBase

from distill.errors import ModelError
from teachers.text.sources import start_token

NEVER = -1e9
"""Bias of a token that must not be written."""


def pieces(model: Any, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return a name for every row of the embeddings, which may be more than the tokenizer has pieces."""
    rows: int = model.get_input_embeddings().weight.shape[0]
    names = {place: name for name, place in tokenizer.get_vocab().items()}
    return [names.get(place, f"<row {place} without a piece>") for place in range(rows)]


class _Whole:
    """Takes every row of the embeddings; the stock loaders count pieces."""

    def get_vocabulary(self, model: Any, tokenizer: PreTrainedTokenizerBase) -> list[str]:
        return pieces(model, tokenizer)


class _Bart(_Whole, stock.BartLoader):  # type: ignore[misc]
    """Configurations made by transformers 5 do not say where the norms stand."""

    pre_norm = False

    def get_model_spec(self, model: Any) -> Any:
        if not hasattr(model.config, "normalize_before"):
            model.config.normalize_before = self.pre_norm
        return super().get_model_spec(model)


class _MBart(_Bart):
    pre_norm = True


class _Pegasus(_Bart, stock.PegasusLoader):  # type: ignore[misc]
    pre_norm = True

    def get_model_spec(self, model: Any) -> Any:
        model.config.normalize_embedding = False
        return super().get_model_spec(model)


class _M2M100(_Whole, stock.M2M100Loader):  # type: ignore[misc]
    """Positions count from the padding token's id; the stock loader takes that id to be 1."""

    def set_position_encodings(self, spec: Any, module: Any) -> None:
        spec.encodings = module.weights[module.padding_idx + 1 :]


class _Marian(_Bart):
    """Marian with its `<pad>` row, from which the decoder starts.

    The stock loader drops the row and starts from a zero embedding: as Marian's own models have it, but a row that was
    trained in transformers, tied to the output, is not zero.
    """

    def get_model_spec(self, model: Any) -> Any:
        model.config.normalize_embedding = False
        return super().get_model_spec(model)


class _T5(_Whole, stock.T5Loader):  # type: ignore[misc]
    """transformers 5 moved the flag for the scaled output: T5 1.0 has it, T5 1.1 and Flan have not."""

    def get_model_spec(self, model: Any) -> Any:
        spec = super().get_model_spec(model)
        spec.decoder.scale_outputs = model.config.d_model**-0.5 if self.scaled(model.config) else OPTIONAL
        return spec

    def scaled(self, config: Any) -> bool:
        found: bool = getattr(config, "scale_decoder_outputs", config.tie_word_embeddings)
        return found


class _MT5(_T5):
    """Never scales its output, whatever its configuration says of tied embeddings."""

    def scaled(self, config: Any) -> bool:
        return False


LOADERS: dict[str, type[Any]] = {
    "BartConfig": _Bart,
    "M2M100Config": _M2M100,
    "MBartConfig": _MBart,
    "MT5Config": _MT5,
    "MarianConfig": _Marian,
    "PegasusConfig": _Pegasus,
    "T5Config": _T5,
}
"""Ours; every other configuration goes through CTranslate2's own."""


def convert(model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path, quantization: str | None = None) -> None:
    """Write a model to a folder. `quantization` is CTranslate2's (int8, int8_float32 …), none keeps fp32.

    Tokens that the model's generation configuration forbids are forbidden there too. Raises ModelError for a model that
    CTranslate2 does not have, or does not take as it is.
    """
    if reason := unknown(model.config):
        raise ModelError(f"engine: {reason}; use `huggingface`")
    name = type(model.config).__name__
    loader = LOADERS[name]() if name in LOADERS else stock._MODEL_LOADERS[name]
    try:
        _write(loader, model, tokenizer, folder, quantization)
    except (AttributeError, KeyError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"engine: CTranslate2 does not take {model.config.name_or_path or model.config.model_type}: {error}; use "
            "`huggingface`"
        ) from error


def unknown(config: Any) -> str:
    """Say why CTranslate2 has no model of a configuration; empty where it has."""
    if not config.is_encoder_decoder:
        return "CTranslate2 is used for encoder-decoders here"
    name = type(config).__name__
    return "" if name in LOADERS or name in stock._MODEL_LOADERS else f"CTranslate2 has no {config.model_type}"


def _write(loader: Any, model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path, quantization: str | None) -> None:
    with torch.no_grad():
        spec = loader(model, tokenizer)
    for name in ("bos_token", "eos_token", "unk_token"):
        if getattr(spec.config, name, None) is None:  # CTranslate2 reads a string; ours are always in the vocabulary
            setattr(spec.config, name, tokenizer.pad_token)
    _forbid(spec, model)
    spec.config.decoder_start_token = pieces(model, tokenizer)[start_token(model, tokenizer)]
    spec.validate()
    spec.optimize(quantization=quantization)
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))


def _forbid(spec: Any, model: Any) -> None:
    banned = [words[0] for words in model.generation_config.bad_words_ids or [] if len(words) == 1]
    if not banned:
        return
    projection = spec.decoder.projection
    bias = torch.zeros(model.config.vocab_size) if not projection.has_bias() else torch.as_tensor(projection.bias)
    projection.bias = bias.index_fill(0, torch.tensor(banned), NEVER)
