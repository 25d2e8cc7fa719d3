"""Tiny real parts for tests: a tokenizer, models with random weights, a data set, a run's configuration."""

import json
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, BertTokenizerFast

WORDS = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "u", "an", "el", "or")]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LABELS = ("negative", "positive")


def tokenizer() -> BertTokenizerFast:
    """A word-level BERT tokenizer over `WORDS`."""
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *WORDS])}
    core = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return BertTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def model_folder(folder: Path, kind: str = "bert", *, head: bool = True, seed: int = 0, **sizes: Any) -> Path:
    """Write a model with random weights, as `save_pretrained` does."""
    given = {"num_hidden_layers": 4, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64} | sizes
    config = AutoConfig.for_model(kind)
    for key, value in {**given, "vocab_size": len(WORDS) + len(SPECIAL), "pad_token_id": 0}.items():
        setattr(config, key, value)
    config.max_position_embeddings = 64
    if head:
        config.num_labels = len(LABELS)
        config.id2label = dict(enumerate(LABELS))
        config.label2id = {name: index for index, name in enumerate(LABELS)}
    torch.manual_seed(seed)
    family = AutoModelForSequenceClassification if head else AutoModel
    family.from_config(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def sentences(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Sentences whose label depends on their words: those with an early-alphabet majority are negative."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        words = [draw.choice(WORDS) for _ in range(draw.randint(3, 14))]
        early = sum(word[0] in "bdfgkl" for word in words)
        rows.append((" ".join(words), LABELS[int(2 * early < len(words))]))
    return rows


def csv_file(path: Path, count: int, seed: int = 0, *, labelled: bool = True) -> Path:
    """Write a data set."""
    lines = [f"{text},{label}" if labelled else text for text, label in sentences(count, seed)]
    path.write_text("\n".join(["text,label" if labelled else "text", *lines]) + "\n", encoding="utf-8")
    return path


def students(**training: Any) -> dict[str, Any]:
    """The stages of a run that only trains a student, in batches of 8, on hidden states and logits."""
    student = {
        "kind": "train",
        "data": ["train"],
        "validation": "validation",
        "objective": [{"kind": "hidden"}, {"kind": "logits", "temperature": 2}],
        "training": {"batch_size": 8, **training},
    }
    return {"student": student}


def teachers(**training: Any) -> dict[str, Any]:
    """The stage of a run that fine-tunes its teacher, in batches of 8."""
    teacher = {
        "kind": "train",
        "trains": "teacher",
        "data": ["train"],
        "validation": "validation",
        "objective": [{"kind": "task"}],
        "training": {"batch_size": 8, **training},
    }
    return {"teacher": teacher}


def run_file(folder: Path, stages: dict[str, Any], **top: Any) -> Path:
    """Write a run: tiny teacher, two-layer student, two CSV files; YAML is a superset of JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "about": "A test.",
        "expect": "Nothing in particular.",
        "output": str(folder / "run"),
        "task": {"max_length": 24, "labels": list(LABELS)},
        "teacher": {"model": str(model_folder(folder / "teacher"))},
        "student": {"kind": "sizes", "layers": 2, "hidden_size": 16, "intermediate_size": 32, "heads": 4},
        "data": {
            "train": {"path": str(csv_file(folder / "train.csv", 64))},
            "validation": {"path": str(csv_file(folder / "validation.csv", 40, seed=1))},
        },
        "machine": {"threads": 1, "loggers": ["csv"]},
        "stages": stages,
    }
    path = folder / "run.yaml"
    path.write_text(json.dumps(content | top), encoding="utf-8")
    return path
