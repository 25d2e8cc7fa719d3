"""A fresh student of given sizes."""

from collections.abc import Collection

import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PretrainedConfig

from configs.data import Task
from configs.errors import suggest
from configs.students import SizedStudent
from distill.errors import ModelError
from distill.models import Loaded, set_labels
from students.student import Student

_SPECIAL = ("pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id")


def build(sizes: SizedStudent, task: Task, labels: tuple[str, ...], teacher: Loaded, seed: int) -> Student:
    """Build a student with the teacher's vocabulary and random weights drawn from `seed`.

    Raise ModelError for an architecture, a size or an option that transformers does not know.
    """
    config = make_config(sizes, teacher.model.config)
    if task.kind != "text":
        set_labels(config, task, labels)
    family = AutoModel if task.kind == "text" else AutoModelForSequenceClassification
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = family.from_config(config)  # type: ignore[no-untyped-call]
        except ValueError as error:
            raise ModelError(f"student: {str(error).splitlines()[0]}") from error
    return Student(model, has_head=task.kind != "text")


def make_config(sizes: SizedStudent, teacher: PretrainedConfig) -> PretrainedConfig:
    """Translate sizes into a transformers configuration. Raise ModelError where they cannot be."""
    if sizes.hidden_size % sizes.heads:
        raise ModelError(f"student: hidden_size {sizes.hidden_size} is not a multiple of heads {sizes.heads}")
    kind = sizes.architecture or teacher.model_type
    try:
        default = AutoConfig.for_model(kind)
    except ValueError as error:
        raise ModelError(f"student.architecture: unknown `{kind}`{suggest(kind, _text_architectures())}") from error
    known = default.to_dict().keys() | default.attribute_map.keys()
    for key in sizes.options:
        if key not in known:
            raise ModelError(f"student.options: unknown key `{key}` of {kind}{suggest(key, known)}")
    plain = {
        "num_hidden_layers": sizes.layers,
        "hidden_size": sizes.hidden_size,
        "num_attention_heads": sizes.heads,
        _intermediate_key(known, kind): sizes.intermediate_size,
        "vocab_size": teacher.vocab_size,
        "max_position_embeddings": teacher.max_position_embeddings,
    }
    if "num_key_value_heads" in known:
        plain["num_key_value_heads"] = sizes.heads
    special = {key: getattr(teacher, key) for key in _SPECIAL if getattr(teacher, key, None) is not None}
    given = {**plain, **special, **sizes.options}
    # by the architecture's own names, in one go: some configurations derive further sizes when they are made
    return AutoConfig.for_model(kind, **{default.attribute_map.get(key, key): value for key, value in given.items()})


def _intermediate_key(known: Collection[str], kind: str) -> str:
    """Return the name this architecture gives to the width of its feed-forward layers."""
    for key in ("intermediate_size", "hidden_dim", "n_inner", "d_ff", "encoder_ffn_dim"):
        if key in known:
            return key
    raise ModelError(f"student.architecture: {kind} has no feed-forward width this version knows")


def _text_architectures() -> list[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

    return list(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)
